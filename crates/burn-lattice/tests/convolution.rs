//! Every convolution against its definition by loops: values, gradients, element types, groups, identities, errors.
#![allow(clippy::unwrap_used, reason = "tests")]

mod harness;

use burn::tensor::{DType, Tensor};
use burn_lattice::ops::{self, ConvOptions, Target};
use burn_lattice::{Error, Result, SparseTensor, SupportPolicy, routes};
use harness::*;
use lattice_testkit::convolution::{
    Channels, bias_grad, convolve, convolve_input_grad, convolve_weight_grad,
};
use lattice_testkit::offsets::Kernel;
use lattice_testkit::relations::{self, Pairs};
use lattice_testkit::strategies;
use lattice_testkit::tolerances::{EXACT, F32, PRINTED, assert_close};
use proptest::prelude::*;
use rstest::rstest;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Submanifold,
    Forward,
    Reach,
    OntoTarget,
    Transposed,
    TransposedOnto,
    Inverse,
    Generative,
    GenerativeOnto,
}

/// One convolution: where it stands, and its channels.
#[derive(Debug)]
struct Case {
    kind: Kind,
    kernel: Kernel,
    source: Vec<Coord>,
    target: Vec<Coord>,
    channels: Channels,
}

impl Case {
    fn pairs(&self) -> Pairs {
        let (source, target, kernel) = (&self.source, &self.target, &self.kernel);
        match self.kind {
            Kind::Submanifold => relations::submanifold(source, kernel),
            Kind::Forward => relations::forward(source, kernel),
            Kind::Reach => {
                let rows = relations::kernel_reach_support(source, kernel, None);
                relations::target_indexed(source, &rows, kernel)
            }
            Kind::OntoTarget => relations::target(source, target, kernel),
            Kind::Transposed => relations::transposed(source, kernel),
            Kind::Inverse => relations::inverse(&relations::forward(source, kernel)),
            Kind::Generative => relations::generative(source, kernel.size, kernel.stride),
            Kind::TransposedOnto | Kind::GenerativeOnto => {
                relations::target_transposed(source, target, kernel)
            }
        }
    }

    /// True where a created output row would lie outside 32 bits.
    fn leaves_the_range(&self) -> bool {
        match self.kind {
            Kind::Reach => relations::kernel_reach_outside(&self.source, &self.kernel, None).is_some(),
            Kind::Transposed | Kind::Generative => {
                relations::transposed_outside(&self.source, &self.kernel).is_some()
            }
            _ => false,
        }
    }

    /// True for coordinates whose products a GPU would compute outside 32 bits.
    fn is_far(&self) -> bool {
        let far = |c: &Coord| c[1..].iter().any(|v| v.unsigned_abs() > 1 << 28);
        self.source.iter().chain(&self.target).any(far)
    }

    /// A tensor without channels that stands where the convolution's input does.
    fn input(&self, feats: Tensor<2>) -> SparseTensor {
        match self.kind {
            Kind::Submanifold | Kind::Forward | Kind::Reach | Kind::OntoTarget => {
                sparse_at(&self.source, feats, [1; 3])
            }
            Kind::Inverse => {
                let device = feats.device();
                let fine = sparse_at(&self.source, Tensor::ones([self.source.len(), 1], &device), [1; 3]);
                let weight = Tensor::ones([self.kernel.taps(), 1, 1], &device);
                let down =
                    ops::conv3d(&fine, weight, None, &ConvOptions::new(spec(&self.kernel)), None).unwrap();
                down.with_feats(feats).unwrap()
            }
            _ => sparse_at(&self.source, feats, self.kernel.stride),
        }
    }

    fn run(&self, x: &SparseTensor, weight: Tensor<3>, bias: Option<Tensor<1>>) -> Result<SparseTensor> {
        let options = ConvOptions::new(spec(&self.kernel)).with_groups(self.channels.groups);
        let target = Target::from(&support(&self.target));
        match self.kind {
            Kind::Submanifold => ops::subm_conv3d(x, weight, bias, &options),
            Kind::Forward => ops::conv3d(x, weight, bias, &options, None),
            Kind::Reach => {
                let options = options.with_policy(SupportPolicy::KernelReach { range: None });
                ops::conv3d(x, weight, bias, &options, None)
            }
            Kind::OntoTarget => ops::conv3d(x, weight, bias, &options, Some(&target)),
            Kind::Transposed => ops::conv_transpose3d(x, weight, bias, &options, None),
            Kind::TransposedOnto => ops::conv_transpose3d(x, weight, bias, &options, Some(&target)),
            Kind::Inverse => ops::inverse_conv3d(x, weight, bias, &options),
            Kind::Generative => ops::generative_conv_transpose3d(x, weight, bias, &options, None),
            Kind::GenerativeOnto => {
                ops::generative_conv_transpose3d(x, weight, bias, &options, Some(&target))
            }
        }
    }

    /// Values and gradients of one element type against the definition.
    #[track_caller]
    fn check(&self, dtype: DType, seed: u64) {
        let Channels { c_in, c_out, groups } = self.channels;
        if devices::on_gpu() && self.is_far() {
            // `tests/devices.rs` asserts that a GPU refuses it.
            return;
        }
        if self.leaves_the_range() {
            let device = inference();
            let x = self.input(Tensor::ones([self.source.len(), c_in], (&device, dtype)));
            let weight = Tensor::ones([self.kernel.taps(), c_in / groups, c_out], (&device, dtype));
            assert!(self.run(&x, weight, None).is_err(), "{self:?}: a row outside 32 bits");
            return;
        }
        let pairs = self.pairs();
        let mut seeded = Seeded::new(seed);
        let x = seeded.values(pairs.n_in() * c_in);
        let w = seeded.values(self.channels.weight_len(pairs.taps));
        let b = seeded.values(c_out);
        let g = seeded.values(pairs.n_out() * c_out);

        let device = training();
        let x_leaf = tensor(&x, [pairs.n_in(), c_in], dtype, &device).require_grad();
        let w_leaf = tensor(&w, [pairs.taps, c_in / groups, c_out], dtype, &device).require_grad();
        let b_leaf = tensor(&b, [c_out], dtype, &device).require_grad();
        let input = self.input(x_leaf.clone());
        let y = self.run(&input, w_leaf.clone(), Some(b_leaf.clone())).unwrap();

        assert_eq!(coords_of(&y), pairs.target, "{self:?}: output rows");
        assert_eq!(y.dtype(), dtype);
        let close = |expected: &[f64], found: &Tensor<2>| {
            assert_close(expected, &read(found), tolerance(dtype).scaled(c_in as f64));
        };
        close(&convolve(&x, &w, Some(&b), &pairs.edges, pairs.n_out(), self.channels), y.feats());

        let grads = (y.feats().clone() * tensor(&g, [pairs.n_out(), c_out], dtype, &device)).sum().backward();
        let grad = |found: Option<Vec<f64>>, expected: Vec<f64>, terms: usize| {
            let Some(found) = found else {
                panic!("{self:?}: a leaf without gradient");
            };
            assert_close(&expected, &found, tolerance(dtype).scaled(terms as f64));
        };
        let dx = convolve_input_grad(&g, &w, &pairs.edges, pairs.n_in(), self.channels);
        grad(x_leaf.grad(&grads).map(|t| read(&t)), dx, c_out);
        let dw = convolve_weight_grad(&x, &g, &pairs.edges, pairs.taps, self.channels);
        grad(w_leaf.grad(&grads).map(|t| read(&t)), dw, pairs.n_out().max(1));
        grad(b_leaf.grad(&grads).map(|t| read(&t)), bias_grad(&g, c_out), pairs.n_out().max(1));

        // The same without gradients, and without a bias.
        let device = inference();
        let input = self.input(tensor(&x, [pairs.n_in(), c_in], dtype, &device));
        let weight = tensor(&w, [pairs.taps, c_in / groups, c_out], dtype, &device);
        let y = self.run(&input, weight, None).unwrap();
        close(&convolve(&x, &w, None, &pairs.edges, pairs.n_out(), self.channels), y.feats());
    }
}

/// Supports of all sorts, and the rows that a target has: some shared, some not.
fn supports() -> Vec<(Vec<Coord>, Vec<Coord>)> {
    let mut seeded = Seeded::new(5);
    let dense: Vec<Coord> = (0..64).map(|i| [0, i % 4 - 2, i / 4 % 4 - 2, i / 16 - 2]).collect();
    let far =
        vec![[0, i32::MIN, i32::MAX, 0], [0, i32::MIN + 1, i32::MAX, 1], [3, i32::MAX, 0, -1], [3, 1, 0, -1]];
    vec![
        (Vec::new(), seeded.coords(5, 1, 3)),
        (vec![[2, -7, 3, 0]], vec![[2, -7, 3, 0], [2, -4, 1, 0], [0, 0, 0, 0]]),
        (dense.clone(), Vec::new()),
        (dense, seeded.coords(40, 1, 3)),
        (seeded.coords(90, 3, 3), seeded.coords(70, 3, 4)),
        (seeded.coords(60, 2, 9), seeded.coords(30, 4, 9)),
        (far.clone(), far),
    ]
}

fn kernel(kind: Kind) -> Vec<Kernel> {
    match kind {
        Kind::Submanifold => vec![
            Kernel::cube(1, 1),
            Kernel::cube(3, 1),
            Kernel::new([5, 3, 3], [1; 3], [0; 3], [1; 3]),
            Kernel::new([3, 1, 3], [1; 3], [0; 3], [2, 1, 1]),
        ],
        Kind::Generative | Kind::GenerativeOnto => {
            vec![Kernel::cube(2, 2), Kernel::new([3, 2, 4], [2, 2, 3], [0; 3], [1; 3])]
        }
        Kind::Inverse => vec![Kernel::cube(2, 2), Kernel::cube(3, 2)],
        _ => vec![
            Kernel::cube(2, 2),
            Kernel::new([3; 3], [2; 3], [1; 3], [1; 3]),
            Kernel::new([4, 3, 3], [1, 2, 3], [0, 1, 2], [1, 2, 1]),
        ],
    }
}

const CHANNELS: [(usize, usize); 6] = [(1, 1), (3, 8), (8, 3), (17, 17), (8, 17), (16, 32)];

#[rstest]
#[case::submanifold(Kind::Submanifold)]
#[case::forward(Kind::Forward)]
#[case::kernel_reach(Kind::Reach)]
#[case::onto_target(Kind::OntoTarget)]
#[case::transposed(Kind::Transposed)]
#[case::transposed_onto(Kind::TransposedOnto)]
#[case::inverse(Kind::Inverse)]
#[case::generative(Kind::Generative)]
#[case::generative_onto(Kind::GenerativeOnto)]
fn every_kind_matches_its_definition(#[case] kind: Kind) {
    let mut at = 0;
    for (source, target) in supports() {
        // Reach has no lower bound but 0, so distant rows would span the whole range.
        if kind == Kind::Reach && source.iter().any(|c| c[1].unsigned_abs() > 1 << 20) {
            continue;
        }
        for kernel in kernel(kind) {
            let (c_in, c_out) = CHANNELS[at % CHANNELS.len()];
            let dtypes = dtypes();
            let dtype = dtypes[at % dtypes.len()];
            at += 1;
            let channels = Channels::new(c_in, c_out);
            let case = Case { kind, kernel, source: source.clone(), target: target.clone(), channels };
            case.check(dtype, at as u64);
            case.check(DType::F32, 1000 + at as u64);
        }
    }
}

#[rstest]
#[case::two_groups(8, 6, 2)]
#[case::wide_groups(32, 64, 2)]
#[case::one_out_a_group(12, 4, 4)]
#[case::depthwise(17, 17, 17)]
#[case::depthwise_of_a_register(32, 32, 32)]
#[case::depthwise_that_multiplies(8, 16, 8)]
fn groups_see_their_own_channels_alone(#[case] c_in: usize, #[case] c_out: usize, #[case] groups: usize) {
    let source = Seeded::new(8).coords(80, 2, 3);
    let channels = Channels::grouped(c_in, c_out, groups);
    for dtype in dtypes() {
        for (kind, kernel) in [
            (Kind::Submanifold, Kernel::cube(3, 1)),
            (Kind::Submanifold, Kernel::cube(1, 1)),
            (Kind::Forward, Kernel::cube(2, 2)),
            (Kind::Transposed, Kernel::cube(2, 2)),
        ] {
            Case { kind, kernel, source: source.clone(), target: Vec::new(), channels }.check(dtype, 3);
        }
    }
}

#[test]
fn kernels_of_more_than_32_taps_and_many_rows_match() {
    let source = Seeded::new(2).coords(700, 2, 6);
    for (kernel, channels) in [
        (Kernel::cube(5, 1), Channels::new(8, 8)),
        (Kernel::new([7, 3, 3], [1; 3], [0; 3], [1; 3]), Channels::new(3, 17)),
    ] {
        Case { kind: Kind::Submanifold, kernel, source: source.clone(), target: Vec::new(), channels }
            .check(DType::F32, 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_support_and_kernel_matches(
        (source, target) in strategies::support_pair(),
        kernel in strategies::kernel(),
        odd in strategies::submanifold_kernel(),
        c_in in strategies::channels(),
        c_out in 1usize..20,
    ) {
        let channels = Channels::new(c_in, c_out);
        let case = |kind, kernel| Case { kind, kernel, source: source.clone(), target: target.clone(), channels };
        case(Kind::Submanifold, odd).check(DType::F32, 1);
        case(Kind::Forward, kernel).check(DType::F32, 2);
        case(Kind::OntoTarget, kernel).check(DType::F16, 3);
        case(Kind::Transposed, kernel).check(DType::F32, 4);
        case(Kind::TransposedOnto, kernel).check(DType::F32, 5);
    }
}

/// Kernel `[3, 1, 1]` of the worked examples: `[taps, 2, 1]`.
const WEIGHT: [f64; 6] = [1., 0., 10., 1., 100., 0.];
const FEATS: [f64; 6] = [1., 2., 3., 4., 5., 6.];

#[test]
fn worked_example_submanifold_and_its_gradients() {
    let device = training();
    let options = ConvOptions::new(spec(&Kernel::line(3, 1, 0, 1)));
    let x_leaf = tensor(&FEATS, [3, 2], DType::F32, &device).require_grad();
    let w_leaf = tensor(&WEIGHT, [3, 2, 1], DType::F32, &device).require_grad();
    let b_leaf = tensor(&[0.5], [1], DType::F32, &device).require_grad();
    let x = sparse_at(&line(&[0, 1, 3]), x_leaf.clone(), [1; 3]);
    let y = ops::subm_conv3d(&x, w_leaf.clone(), None, &options).unwrap();
    assert_eq!(read(y.feats()), [312., 35., 56.]);
    let y = ops::subm_conv3d(&x, w_leaf.clone(), Some(b_leaf.clone()), &options).unwrap();
    assert_eq!(read(y.feats()), [312.5, 35.5, 56.5]);

    let g = tensor(&[1., 2., 3.], [3, 1], DType::F32, &device);
    let grads = (y.feats().clone() * g).sum().backward();
    assert_eq!(read(&x_leaf.grad(&grads).unwrap()), [12., 1., 120., 2., 30., 3.]);
    assert_eq!(read(&w_leaf.grad(&grads).unwrap()), [2., 4., 22., 28., 3., 4.]);
    assert_eq!(read(&b_leaf.grad(&grads).unwrap()), [6.]);
}

#[test]
fn worked_example_strided() {
    let device = inference();
    let x = sparse(&line(&[0, 1, 3]), &FEATS, &device);
    let options = ConvOptions::new(spec(&Kernel::line(2, 2, 0, 1)));
    let y =
        ops::conv3d(&x, tensor(&WEIGHT[..4], [2, 2, 1], DType::F32, &device), None, &options, None).unwrap();
    assert_eq!((coords_of(&y), y.stride()), (line(&[0, 1]), [2, 1, 1]));
    assert_eq!(read(y.feats()), [35., 56.]);
}

#[test]
fn worked_example_transposed_onto_a_target() {
    let device = inference();
    let x = sparse(&line(&[0, 1]), &[1., 2.], &device).with_stride([2, 1, 1]).unwrap();
    let options = ConvOptions::new(spec(&Kernel::line(3, 2, 1, 1)));
    let target = Target::from(&support(&line(&[-1, 0, 1, 2, 5])));
    let weight = tensor(&[1., 10., 100.], [3, 1, 1], DType::F32, &device);
    let y = ops::conv_transpose3d(&x, weight, None, &options, Some(&target)).unwrap();
    assert_eq!(y.stride(), [1; 3]);
    assert_eq!(read(y.feats()), [1., 10., 102., 20., 0.]);
}

#[test]
fn a_row_without_pairs_is_the_bias() {
    let device = inference();
    let x = sparse(&line(&[0]), &[1.], &device);
    let options = ConvOptions::new(spec(&Kernel::cube(3, 1)));
    let weight = Tensor::ones([27, 1, 2], &device);
    let bias = tensor(&[0.25, -3.], [2], DType::F32, &device);
    let target = Target::from(&support(&line(&[0, 9])));
    let y = ops::conv3d(&x, weight, Some(bias), &options, Some(&target)).unwrap();
    assert_eq!(read(y.feats()), [1.25, -2., 0.25, -3.]);
}

#[test]
fn an_empty_tensor_goes_through_every_kind() {
    let device = inference();
    let x = sparse_at(&[], tensor(&[], [0, 4], DType::F32, &device), [2; 3]);
    let weight = |taps| Tensor::<3>::ones([taps, 4, 6], &device);
    let subm = ConvOptions::new(spec(&Kernel::cube(3, 1)));
    let two = ConvOptions::new(spec(&Kernel::cube(2, 2)));
    let results = [
        ops::subm_conv3d(&x, weight(27), None, &subm).unwrap(),
        ops::conv3d(&x, weight(8), None, &two, None).unwrap(),
        ops::conv_transpose3d(&x, weight(8), None, &two, None).unwrap(),
        ops::generative_conv_transpose3d(&x, weight(8), None, &two, None).unwrap(),
    ];
    for y in results {
        assert_eq!(y.feats().dims(), [0, 6]);
    }
}

#[test]
fn outputs_keep_or_share_their_identity() {
    let device = inference();
    let coords = Seeded::new(1).coords(50, 2, 4);
    let x = sparse_at(&coords, Tensor::ones([coords.len(), 2], &device), [1; 3]);
    let weight = |taps| Tensor::<3>::ones([taps, 2, 2], &device);
    let three = ConvOptions::new(spec(&Kernel::cube(3, 1)));
    let subm = ops::subm_conv3d(&x, weight(27), None, &three).unwrap();
    assert!(subm.same_coords(&x));
    assert!(
        ops::conv3d(&x, weight(27), None, &three, None).unwrap().same_coords(&x),
        "stride 1 keeps its rows"
    );
    let one = ConvOptions::new(spec(&Kernel::cube(1, 1)));
    assert!(ops::conv3d(&x, weight(1), None, &one, None).unwrap().same_coords(&x));

    let two = ConvOptions::new(spec(&Kernel::cube(2, 2)));
    let first = ops::conv3d(&x, weight(8), None, &two, None).unwrap();
    let second = ops::conv3d(&subm, weight(8), None, &two, None).unwrap();
    assert!(first.same_coords(&second), "two calls share the output identity");
    assert_eq!(first.stride(), [2; 3]);

    let up = ops::conv_transpose3d(&first, weight(8), None, &two, Some(&Target::from(&x))).unwrap();
    assert!(up.same_coords(&x), "a target keeps its identity");
    let back = ops::inverse_conv3d(&first, weight(8), None, &two).unwrap();
    assert!(back.same_coords(&x), "the inverse goes back onto the input rows");
    assert_close(&read(up.feats()), &read(back.feats()), EXACT);
    let grown = ops::conv_transpose3d(&first, weight(8), None, &two, None).unwrap();
    let again = ops::conv_transpose3d(&second, weight(8), None, &two, None).unwrap();
    assert!(grown.same_coords(&again));
    let onto = ops::conv3d(&x, weight(27), None, &three, Some(&Target::from(&x))).unwrap();
    assert!(onto.same_coords(&x));
    let by_key = ops::conv3d(&x, weight(27), None, &three, Some(&Target::Key(x.key()))).unwrap();
    assert!(by_key.same_coords(&x));
}

#[test]
fn strided_shortcut_and_main_path_stand_on_one_support() {
    let device = inference();
    let coords = Seeded::new(4).coords(60, 2, 5);
    let x = sparse_at(&coords, Tensor::ones([coords.len(), 2], &device), [1; 3]);
    let run = |size: u32| {
        let options = ConvOptions::new(spec(&Kernel::cube(size, 2)));
        ops::conv3d(&x, Tensor::ones([(size * size * size) as usize, 2, 2], &device), None, &options, None)
            .unwrap()
    };
    let (main, shortcut) = (run(3), run(1));
    assert_eq!((coords_of(&main), main.stride()), (coords_of(&shortcut), shortcut.stride()));
}

#[test]
fn batch_counts_follow_the_rows() {
    let device = inference();
    let coords = vec![[0, 0, 0, 0], [0, 1, 0, 0], [2, 0, 0, 0], [2, 5, 0, 0]];
    let x =
        sparse_at(&coords, Tensor::ones([4, 1], &device), [1; 3]).with_batch_counts(&[2, 0, 2, 0]).unwrap();
    let options = ConvOptions::new(spec(&Kernel::cube(2, 2)));
    let y = ops::conv3d(&x, Tensor::ones([8, 1, 1], &device), None, &options, None).unwrap();
    assert_eq!(y.batch_counts(), Some(&[1usize, 0, 2, 0][..]));
    let subm = ConvOptions::new(spec(&Kernel::cube(3, 1)));
    let y = ops::subm_conv3d(&x, Tensor::ones([27, 1, 1], &device), None, &subm).unwrap();
    assert_eq!(y.batch_counts(), Some(&[2usize, 0, 2, 0][..]));
}

#[test]
fn two_runs_give_equal_bits() {
    let coords = Seeded::new(11).coords(600, 2, 6);
    let mut seeded = Seeded::new(12);
    let (x, w) = (seeded.values(coords.len() * 17), seeded.values(27 * 17 * 19));
    for dtype in dtypes() {
        let run = || {
            let device = training();
            let x = tensor(&x, [coords.len(), 17], dtype, &device).require_grad();
            let w = tensor(&w, [27, 17, 19], dtype, &device).require_grad();
            let options = ConvOptions::new(spec(&Kernel::cube(3, 1)));
            let y =
                ops::subm_conv3d(&sparse_at(&coords, x.clone(), [1; 3]), w.clone(), None, &options).unwrap();
            let grads = (y.feats().clone() * y.feats().clone()).sum().backward();
            [
                y.feats().clone().into_data(),
                x.grad(&grads).unwrap().into_data(),
                w.grad(&grads).unwrap().into_data(),
            ]
        };
        assert_eq!(run(), run(), "{dtype:?}");
    }
}

#[test]
fn permuting_rows_permutes_the_output() {
    let device = inference();
    let coords = Seeded::new(21).coords(80, 2, 4);
    let feats = Seeded::new(22).values(coords.len() * 3);
    let reversed: Vec<Coord> = coords.iter().rev().copied().collect();
    let reversed_feats: Vec<f64> = feats.chunks(3).rev().flatten().copied().collect();
    let weight = tensor(&Seeded::new(23).values(27 * 3 * 4), [27, 3, 4], DType::F32, &device);
    let options = ConvOptions::new(spec(&Kernel::cube(3, 1)));
    let y = ops::subm_conv3d(&sparse(&coords, &feats, &device), weight.clone(), None, &options).unwrap();
    let z = ops::subm_conv3d(&sparse(&reversed, &reversed_feats, &device), weight, None, &options).unwrap();
    let z: Vec<f64> = read(z.feats()).chunks(4).rev().flatten().copied().collect();
    assert_close(&read(y.feats()), &z, F32);
}

#[test]
fn a_linear_form_agrees_with_a_pointwise_kernel() {
    let device = inference();
    let coords = Seeded::new(31).coords(40, 1, 4);
    let x = sparse(&coords, &Seeded::new(32).values(coords.len() * 5), &device);
    let weight = tensor(&Seeded::new(33).values(5 * 7), [1, 5, 7], DType::F32, &device);
    let options = ConvOptions::new(spec(&Kernel::cube(1, 1)));
    let y = ops::subm_conv3d(&x, weight.clone(), None, &options).unwrap();
    let matrix = weight.reshape([5, 7]).transpose();
    let z = ops::linear(&x, matrix, None).unwrap();
    assert_close(&read(y.feats()), &read(z.feats()), PRINTED);
}

#[test]
fn every_route_that_fits_gives_the_same_result() {
    let device = inference();
    let coords = Seeded::new(41).coords(300, 2, 5);
    for (channels, dtype) in [
        (Channels::new(17, 33), DType::F32),
        (Channels::grouped(16, 16, 16), DType::F32),
        (Channels::grouped(16, 8, 2), DType::F16),
        (Channels::new(8, 8), DType::BF16),
    ] {
        let Channels { c_in, c_out, groups } = channels;
        let mut seeded = Seeded::new(42);
        let x = tensor(&seeded.values(coords.len() * c_in), [coords.len(), c_in], dtype, &device);
        let x = sparse_at(&coords, x, [1; 3]);
        let w = tensor(&seeded.values(channels.weight_len(27)), [27, c_in / groups, c_out], dtype, &device);
        let options = ConvOptions::new(spec(&Kernel::cube(3, 1))).with_groups(groups);
        let chosen = ops::subm_conv3d(&x, w.clone(), None, &options).unwrap();
        let mut ran = 0;
        for route in routes::CONV_ROUTES {
            let _forced = routes::force(route.name).unwrap();
            match ops::subm_conv3d(&x, w.clone(), None, &options) {
                Ok(y) => {
                    ran += 1;
                    let tolerance = tolerance(dtype).scaled(c_in as f64);
                    assert_close(&read(chosen.feats()), &read(y.feats()), tolerance);
                }
                Err(error) => assert!(error.to_string().contains(route.name), "{error}"),
            }
        }
        // On a GPU one route alone takes groups.
        let least = if devices::on_gpu() && groups > 1 { 1 } else { 2 };
        assert!(ran >= least, "at least the tiles and the loop fit");
    }
}

#[test]
fn a_forced_route_that_does_not_fit_is_an_error() {
    let device = inference();
    let x = sparse(&line(&[0, 1]), &[1., 2., 3., 4.], &device);
    let options = ConvOptions::new(spec(&Kernel::cube(3, 1)));
    let forced = routes::force("depthwise_rows").unwrap();
    let error = ops::subm_conv3d(&x, Tensor::ones([27, 2, 3], &device), None, &options).unwrap_err();
    assert!(matches!(error, Error::Value { .. }) && error.to_string().contains("depthwise_rows"), "{error}");
    drop(forced);
    assert!(ops::subm_conv3d(&x, Tensor::ones([27, 2, 3], &device), None, &options).is_ok());
    assert!(matches!(routes::force("no such route"), Err(Error::Value { .. })));
}

#[test]
fn a_relation_of_ones_own_is_taken_and_checked() {
    let device = inference();
    let coords = Seeded::new(51).coords(40, 1, 3);
    let x = sparse_at(&coords, Tensor::ones([coords.len(), 2], &device), [1; 3]);
    let kernel = spec(&Kernel::cube(3, 1));
    let relation = x.manager().submanifold(x.support(), &kernel).unwrap();
    let weight = Tensor::<3>::ones([27, 2, 2], &device);
    let y = ops::sparse_conv(&x, weight.clone(), None, &relation, 1, [1; 3]).unwrap();
    let z = ops::subm_conv3d(&x, weight.clone(), None, &ConvOptions::new(kernel)).unwrap();
    assert!(y.same_coords(&z));
    assert_close(&read(y.feats()), &read(z.feats()), EXACT);
    let other = sparse_at(&coords, Tensor::ones([coords.len(), 2], &device), [1; 3]);
    let error = ops::sparse_conv(&other, weight, None, &relation, 1, [1; 3]).unwrap_err();
    assert!(matches!(error, Error::Identity { .. }), "{error}");
}

#[test]
fn wrong_input_is_an_error_that_says_what() {
    let device = inference();
    let x = sparse_at(&line(&[0, 1, 3]), Tensor::ones([3, 4], &device), [2; 3]);
    let weight = |shape: [usize; 3]| Tensor::<3>::ones(shape, &device);
    let three = ConvOptions::new(spec(&Kernel::cube(3, 1)));
    let two = ConvOptions::new(spec(&Kernel::cube(2, 2)));
    let subm =
        |w: Tensor<3>, b: Option<Tensor<1>>, o: &ConvOptions| ops::subm_conv3d(&x, w, b, o).unwrap_err();

    let error = subm(weight([8, 4, 5]), None, &three);
    assert!(matches!(error, Error::Shape { .. }), "taps: {error}");
    let error = subm(weight([27, 3, 5]), None, &three);
    assert!(matches!(error, Error::Channels { expected: 3, found: 4, .. }), "channels: {error}");
    let error = subm(weight([27, 4, 5]), Some(Tensor::ones([4], &device)), &three);
    assert!(matches!(error, Error::Shape { .. }), "bias: {error}");
    let error = subm(weight([27, 4, 5]).cast(burn::tensor::FloatDType::F16), None, &three);
    assert!(matches!(error, Error::Dtype { .. }), "dtype: {error}");
    let error = subm(weight([27, 1, 6]), None, &three.with_groups(4));
    assert!(matches!(error, Error::Value { .. }), "groups do not divide the output: {error}");
    let error = subm(weight([27, 4, 6]), None, &three.with_groups(3));
    assert!(matches!(error, Error::Value { .. }), "groups do not divide the input: {error}");
    let error = subm(weight([27, 4, 6]), None, &three.with_groups(0));
    assert!(matches!(error, Error::Value { .. }), "no groups: {error}");
    let even = ConvOptions::new(spec(&Kernel::cube(2, 1)));
    let error = subm(weight([8, 4, 5]), None, &even);
    assert!(matches!(error, Error::Value { .. }), "even kernel: {error}");

    let third = ConvOptions::new(spec(&Kernel::cube(3, 3)));
    let error = ops::conv_transpose3d(&x, weight([27, 4, 5]), None, &third, None).unwrap_err();
    assert!(matches!(error, Error::Value { .. }), "3 does not divide 2: {error}");
    let error =
        ops::conv_transpose3d(&x, weight([8, 4, 5]), None, &two, Some(&Target::from(&x))).unwrap_err();
    assert!(matches!(error, Error::StrideMismatch { expected: [1, 1, 1], found: [2, 2, 2], .. }), "{error}");
    let error = ops::conv3d(&x, weight([8, 4, 5]), None, &two, Some(&Target::from(&x))).unwrap_err();
    assert!(matches!(error, Error::StrideMismatch { expected: [4, 4, 4], .. }), "{error}");
    let padded = ConvOptions::new(spec(&Kernel::new([2; 3], [2; 3], [1; 3], [1; 3])));
    let error = ops::generative_conv_transpose3d(&x, weight([8, 4, 5]), None, &padded, None).unwrap_err();
    assert!(matches!(error, Error::Value { .. }), "generative has no padding: {error}");
    let error = ops::inverse_conv3d(&x, weight([8, 4, 5]), None, &two).unwrap_err();
    assert!(matches!(error, Error::Identity { .. }), "no earlier convolution: {error}");
    let other = sparse(&line(&[0]), &[1.], &device);
    let error =
        ops::conv3d(&x, weight([27, 4, 5]), None, &three, Some(&Target::Key(other.key()))).unwrap_err();
    assert!(matches!(error, Error::Identity { .. }), "a key of another manager: {error}");
}

/// A strided shortcut (kernel 1) and its main branch (kernel 3), as residual blocks have them, and pooling in between.
#[test]
fn kernels_of_one_stride_share_their_output_identity() {
    let mut random = Seeded::new(21);
    let coords = random.coords(60, 2, 6);
    let device = inference();
    let x = sparse(&coords, &random.values(coords.len()), &device);
    let weight = |taps: usize| tensor(&vec![0.5; taps], [taps, 1, 1], DType::F32, &device);
    let conv = |size: u32, taps: usize| {
        let options = ConvOptions::new(spec(&Kernel::cube(size, 2)));
        ops::conv3d(&x, weight(taps), None, &options, None).unwrap()
    };
    let (main, shortcut, even) = (conv(3, 27), conv(1, 1), conv(2, 8));
    let pooled = ops::max_pool3d(&x, &ops::PoolOptions::cube(2, 2).unwrap()).unwrap();
    assert!(main.same_coords(&shortcut) && main.same_coords(&even) && main.same_coords(&pooled));
    // The same values as a tensor of its own manager gives.
    let alone = sparse(&coords, &read(x.feats()), &device);
    let options = ConvOptions::new(spec(&Kernel::cube(2, 2)));
    let expected = ops::conv3d(&alone, weight(8), None, &options, None).unwrap();
    assert_eq!(coords_of(&expected), coords_of(&even));
    assert_eq!(read(expected.feats()), read(even.feats()));
}
