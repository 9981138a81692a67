//! Packed weights as tensors and in layers: the spec's worked examples, every kind of layer against the float layer on the dequantized
//! weight, by every route of the table that fits, and what is refused.
#![allow(clippy::unwrap_used, reason = "tests")]

mod harness;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{DType, FloatDType, Int, Tensor, TensorData};
use burn_lattice::nn::*;
use burn_lattice::quantized::*;
use burn_lattice::routes::{self, PACKED_ROUTES};
use burn_lattice::{Result, SparseTensor, ops};
use harness::*;
use lattice_testkit::quantization;
use rstest::rstest;

/// Even values from one to another, rounded from f64.
fn linspace(from: f64, to: f64, n: usize) -> Vec<f64> {
    (0..n).map(|i| from + (to - from) * i as f64 / (n - 1) as f64).collect()
}

fn words(weight: &QuantizedWeight) -> Vec<u32> {
    weight.words.val().into_data().iter::<u32>().collect()
}

fn packed_row(values: &[f64], bits: u32) -> QuantizedWeight {
    let weight = tensor(values, [1, values.len()], DType::F32, &inference());
    quantize_weight(weight, &QuantizeOptions::new(bits).with_group_size(32)).unwrap()
}

#[test]
fn example_1_even_values() {
    let four = packed_row(&linspace(-1.0, 0.5, 32), 4);
    assert_eq!(words(&four), [0x3322_1100, 0x7766_5544, 0xbbaa_9988, 0xffee_ddcc]);
    assert_eq!((read(&four.scales.val()), read(&four.biases.val())), (vec![f64::from(0.1f32)], vec![-1.0]));
    let back = read(&dequantize_weight::<2>(&four).unwrap());
    assert_eq!((back[0], back[31]), (-1.0, 0.5));
    let eight = packed_row(&linspace(-1.0, 0.5, 32), 8);
    assert!((read(&eight.scales.val())[0] - 0.005_882_353_06).abs() < 1e-10);
    let found = words(&eight);
    assert_eq!((found[0], found[7]), (0x1910_0800, 0xfff7_efe6));
}

#[test]
fn example_2_a_row_whose_largest_value_is_positive() {
    let mut values = vec![3.0, -1.0, 0.5, 2.0];
    values.resize(32, 0.0);
    let packed = packed_row(&values, 4);
    assert_eq!(words(&packed), [0xbbbb_49f0, 0xbbbb_bbbb, 0xbbbb_bbbb, 0xbbbb_bbbb]);
    let back = read(&dequantize_weight::<2>(&packed).unwrap());
    for (found, expected) in back.iter().zip([3.0, -1.090_909, 0.545_454_5, 1.909_090_9, 0.0]) {
        assert!((found - expected).abs() < 1e-6, "{found} {expected}");
    }
    assert_eq!(back[4], 0.0);
}

#[test]
fn example_3_shapes() {
    let device = inference();
    let conv = quantize_weight(
        Tensor::<5>::ones([8, 3, 3, 3, 3], (&device, DType::F32)),
        &QuantizeOptions::default(),
    )
    .unwrap();
    assert_eq!((conv.words.val().dims(), conv.scales.val().dims()), ([27, 4, 8], [27, 1, 8]));
    let linear =
        quantize_weight(Tensor::<2>::ones([10, 100], (&device, DType::F32)), &QuantizeOptions::new(8))
            .unwrap();
    assert_eq!((linear.words.val().dims(), linear.scales.val().dims()), ([1, 10, 32], [1, 10, 2]));
    assert_eq!(linear.nbytes(), 4 * 320 + 2 * 4 * 20);
}

#[test]
fn example_4_zeros() {
    let packed = packed_row(&[0.0; 32], 4);
    assert_eq!(words(&packed), [0; 4]);
    assert_eq!((read(&packed.scales.val())[0], read(&packed.biases.val())[0]), (f64::from(-1e-7f32), 0.0));
}

#[rstest]
fn every_layout_comes_back_as_the_definition_says(
    #[values(4, 8)] bits: u32,
    #[values(32, 64, 128)] group_size: usize,
    #[values(DType::F32, DType::F16)] dtype: DType,
) {
    let device = inference();
    let (taps, c_in, c_out) = (6, 70, 5);
    let mut seeded = Seeded::new(3);
    let values = seeded.values(taps * c_in * c_out);
    let options = QuantizeOptions::new(bits).with_group_size(group_size);
    // Row `tap · c_out + co` of the same values in either layout.
    let row = |at: &dyn Fn(usize, usize, usize) -> usize, r: usize| -> Vec<f32> {
        (0..c_in).map(|c| values[at(r / c_out, c, r % c_out)] as f32).collect()
    };
    let by_tap = |tap: usize, c: usize, co: usize| (tap * c_in + c) * c_out + co;
    let dense = |tap: usize, c: usize, co: usize| (co * taps + tap) * c_in + c;
    let expect = |at: &dyn Fn(usize, usize, usize) -> usize, found: &QuantizedWeight, back: Vec<f64>| {
        let rows: Vec<_> = (0..taps * c_out).map(|r| row(at, r)).collect();
        let expected = quantization::quantize(&rows, group_size, bits);
        assert_eq!(words(found), expected.words(taps));
        let round =
            |v: f32| if dtype == DType::F16 { f64::from(half::f16::from_f32(v)) } else { f64::from(v) };
        let scales: Vec<f64> = expected.stored_scales(taps).into_iter().map(round).collect();
        assert_eq!(read(&found.scales.val()), scales);
        let most = if dtype == DType::F16 { 2e-3 } else { 1e-6 };
        for tap in 0..taps {
            for c in 0..c_in {
                for co in 0..c_out {
                    let value = f64::from(expected.value(tap * c_out + co, c));
                    assert!((back[at(tap, c, co)] - value).abs() <= most, "{tap} {c} {co}");
                }
            }
        }
    };
    let major = tensor(&values, [taps, c_in, c_out], dtype, &device);
    let found = quantize_weight(major, &options).unwrap();
    expect(&by_tap, &found, read(&dequantize_weight::<3>(&found).unwrap()));
    let five = tensor(&values, [c_out, 1, 2, 3, c_in], dtype, &device);
    let found = quantize_weight(five, &options).unwrap();
    assert_eq!(found.record().kernel_size(), [1, 2, 3]);
    let back = dequantize_weight::<5>(&found).unwrap();
    assert_eq!((back.dims(), back.dtype()), ([c_out, 1, 2, 3, c_in], dtype));
    expect(&dense, &found, read(&back));
    assert!(dequantize_weight::<3>(&found).unwrap_err().to_string().contains("dense_5d with 5 axes"));
}

/// A float module and its packed twin on the same input, by route; returns what ran.
fn compare(
    x: &SparseTensor,
    float: impl Fn(&SparseTensor) -> Result<SparseTensor>,
    packed: impl Fn(&SparseTensor) -> Result<SparseTensor>,
) {
    let expected = float(x).unwrap();
    for route in PACKED_ROUTES {
        let _forced = routes::force(route.name).unwrap();
        let found = match packed(x) {
            Ok(found) => found,
            Err(error) if route.name != "dequantize" => {
                assert!(error.to_string().contains("was forced but does not fit"), "{error}");
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        assert_eq!(coords_of(&found), coords_of(&expected), "{}", route.name);
        assert_eq!((found.stride(), found.dtype()), (expected.stride(), expected.dtype()));
        let allowed = tolerance(x.dtype());
        for (found, expected) in read(found.feats()).iter().zip(read(expected.feats())) {
            let allowed = 8.0 * (allowed.atol + allowed.rtol * expected.abs().max(1.0));
            assert!((found - expected).abs() <= allowed, "{}: {found} {expected}", route.name);
        }
    }
}

fn input(channels: usize, dtype: DType, stride: u32) -> SparseTensor {
    let mut seeded = Seeded::new(channels as u64);
    let coords = seeded.coords(300, 2, 6);
    let feats = seeded.values(coords.len() * channels);
    sparse_at(&coords, tensor(&feats, [coords.len(), channels], dtype, &inference()), [stride; 3])
}

/// The float module with the values that the packed one stores.
fn dequantized<L: Layers>(mut float: L, dtype: DType, weight: &QuantizedWeight) -> L {
    let to = match dtype {
        DType::F16 => FloatDType::F16,
        DType::BF16 => FloatDType::BF16,
        _ => FloatDType::F32,
    };
    float.visit_layers("", &mut |mut layer| layer.set_float(weight.to_taps().cast(to)));
    float
}

macro_rules! kind {
    ($name:ident, $quantized:ident, $config:expr, $stride:expr, |$module:ident, $x:ident| $run:expr, |$packed:ident, $y:ident| $run_packed:expr) => {
        #[rstest]
        fn $name(
            #[values(4, 8)] bits: u32,
            #[values([3, 5, 1], [33, 20, 1], [70, 17, 1], [64, 6, 2])] sizes: [usize; 3],
            #[values(DType::F32, DType::F16, DType::BF16)] dtype: DType,
        ) {
            if !devices::has(dtype) {
                return;
            }
            let [c_in, c_out, groups] = sizes;
            let device = inference();
            let float = ($config)([c_in, c_out]).with_groups(groups).init(&device);
            let options = QuantizeOptions::new(bits).with_group_size(32).with_scales(FloatDType::F16);
            let $packed = $quantized::from_conv(&float, &options).unwrap();
            let weight = $packed.weight.packed().unwrap();
            assert_eq!(weight.record().layout(), PackedLayout::Dense5d);
            let $module = dequantized(float, dtype, weight);
            compare(&input(c_in, dtype, $stride), |$x| $run, |$y| $run_packed);
        }
    };
}

kind!(
    submanifold_layers,
    QuantizedSubmConv3d,
    SubmConv3dConfig::new,
    1,
    |m, x| m.try_forward(x, ConvEpilogue::default()),
    |p, x| p.try_forward(x, None, ConvEpilogue::default())
);
kind!(
    strided_layers,
    QuantizedConv3d,
    |c| Conv3dConfig::new(c).with_stride([2, 2, 1]),
    1,
    |m, x| m.try_forward(x, None, ConvEpilogue::default()),
    |p, x| p.try_forward(x, None, ConvEpilogue::default())
);
kind!(
    pointwise_layers,
    QuantizedConv3d,
    |c| Conv3dConfig::new(c).with_kernel_size([1; 3]),
    1,
    |m, x| m.try_forward(x, None, ConvEpilogue::default()),
    |p, x| p.try_forward(x, None, ConvEpilogue::default())
);
kind!(
    layers_onto_a_target,
    QuantizedConv3d,
    |c| Conv3dConfig::new(c).with_stride([2; 3]),
    1,
    |m, x| m.try_forward(
        x,
        Some(&(&support(&[[0, 0, 0, 0], [1, -2, 1, 0], [0, 9, 9, 9]])).into()),
        ConvEpilogue::default()
    ),
    |p, x| p.try_forward(
        x,
        Some(&(&support(&[[0, 0, 0, 0], [1, -2, 1, 0], [0, 9, 9, 9]])).into()),
        ConvEpilogue::default()
    )
);
kind!(
    transposed_layers,
    QuantizedConvTranspose3d,
    |c| ConvTranspose3dConfig::new(c).with_kernel_size([3; 3]),
    2,
    |m, x| m.try_forward(x, None, ConvEpilogue::default()),
    |p, x| p.try_forward(x, None, ConvEpilogue::default())
);
kind!(
    transposed_layers_onto_a_target,
    QuantizedConvTranspose3d,
    ConvTranspose3dConfig::new,
    2,
    |m, x| m.try_forward(
        x,
        Some(&(&support(&[[0, 0, 0, 0], [1, -3, 1, 0], [0, 9, 9, 9]])).into()),
        ConvEpilogue::default()
    ),
    |p, x| p.try_forward(
        x,
        Some(&(&support(&[[0, 0, 0, 0], [1, -3, 1, 0], [0, 9, 9, 9]])).into()),
        ConvEpilogue::default()
    )
);
kind!(
    generative_layers,
    QuantizedGenerativeConvTranspose3d,
    GenerativeConvTranspose3dConfig::new,
    2,
    |m, x| m.try_forward(x, None, ConvEpilogue::default()),
    |p, x| p.try_forward(x, None, ConvEpilogue::default())
);

#[test]
fn an_inverse_layer_goes_back_and_a_relation_of_your_own_serves() {
    let device = inference();
    let x = input(6, DType::F32, 1);
    let down = Conv3dConfig::new([6, 34]).with_kernel_size([2; 3]).with_stride([2; 3]).init(&device);
    let up = ConvTranspose3dConfig::new([34, 6]).with_inverse(true).init(&device);
    let packed = QuantizedConvTranspose3d::from_conv(&up, &QuantizeOptions::new(8)).unwrap();
    let up = dequantized(up, DType::F32, packed.weight.packed().unwrap());
    let coarse = down.forward(&x);
    compare(
        &coarse,
        |c| up.try_forward(c, None, ConvEpilogue::default()),
        |c| packed.try_forward(c, None, ConvEpilogue::default()),
    );
    let spec = burn_lattice::KernelSpec::cube(3, 1).unwrap();
    let relation = x.manager().submanifold(x.support(), &spec).unwrap();
    let conv = SubmConv3dConfig::new([6, 9]).with_bias(false).init(&device);
    let weight = quantize_weight(conv.weight.val(), &QuantizeOptions::new(8)).unwrap();
    let taps = dequantize_weight::<3>(&weight).unwrap();
    compare(
        &x,
        |x| ops::sparse_conv(x, taps.clone(), None, &relation, 1, [1; 3]),
        |x| ops::packed_conv(x, &weight, None, &relation, 1, [1; 3]),
    );
}

#[rstest]
fn linear_layers(#[values(4, 8)] bits: u32, #[values(DType::F32, DType::F16)] dtype: DType) {
    let device = inference();
    let float = LinearConfig::new([70, 9]).init(&device);
    let packed = QuantizedLinear::from_linear(&float, &QuantizeOptions::new(bits)).unwrap();
    let float = dequantized(float, dtype, packed.weight.packed().unwrap());
    let x = input(70, dtype, 1);
    compare(&x, |x| float.try_forward(x), |x| packed.try_forward(x));
    let bare = packed.forward_feats(x.feats().clone());
    assert_eq!(read(&bare), read(packed.forward(&x).feats()));
    let empty = input(70, dtype, 1).with_feats(Tensor::zeros([x.n_rows(), 70], (&device, dtype))).unwrap();
    assert_eq!(packed.forward(&empty).n_rows(), x.n_rows());
}

#[test]
fn f64_features_take_the_route_that_has_them() {
    if !devices::has(DType::F64) {
        return;
    }
    let device = inference();
    let float = SubmConv3dConfig::new([5, 6]).with_bias(false).init(&device);
    let packed = QuantizedSubmConv3d::from_conv(&float, &QuantizeOptions::new(8)).unwrap();
    let x = input(5, DType::F64, 1);
    let expected = ops::subm_conv3d(
        &x,
        packed.weight.packed().unwrap().to_taps().cast(FloatDType::F64),
        None,
        &ops::ConvOptions::new(burn_lattice::KernelSpec::cube(3, 1).unwrap()),
    )
    .unwrap();
    assert_eq!(read(packed.forward(&x).feats()), read(expected.feats()));
}

/// Root mean square of a difference over that of the reference.
fn relative(found: &SparseTensor, expected: &SparseTensor) -> f64 {
    let (found, expected) = (read(found.feats()), read(expected.feats()));
    let sum = |f: &dyn Fn(usize) -> f64| (0..expected.len()).map(|i| f(i).powi(2)).sum::<f64>();
    (sum(&|i| found[i] - expected[i]) / sum(&|i| expected[i])).sqrt()
}

#[rstest]
fn bytes_come_close_and_fall_back_to_the_same_weight(
    #[values(Granularity::PerTensor, Granularity::PerChannel)] granularity: Granularity,
    #[values(CalibrationMethod::MinMax, CalibrationMethod::Percentile(99.99), CalibrationMethod::Entropy)]
    method: CalibrationMethod,
) {
    let device = inference();
    let mut block = ConvBlockConfig::new([48, 40]).init_subm(&device);
    let x = input(48, DType::F32, 1);
    // Channels of different sizes, as networks have them.
    let sizes = tensor(&linspace(0.1, 2.0, 48), [1, 48], DType::F32, &device);
    let x = x.with_feats(x.feats().clone() * sizes).unwrap();
    let float = block.forward(&x);
    let mut calibrator = Calibrator::try_new(method, granularity).unwrap();
    calibrator.observe(x.feats()).unwrap();
    let range = calibrator.range().unwrap();
    assert_eq!(range.is_per_channel(), granularity == Granularity::PerChannel);
    block.visit_layers("", &mut |mut layer| {
        layer.fold_norm();
        layer.pack(&QuantizeOptions::new(8), Some(&range)).unwrap();
    });
    let by = |name: &str| {
        let _forced = routes::force(name).unwrap();
        block.forward(&x)
    };
    // A GPU without matrix units for bytes has no such route.
    let in_bytes = match routes::DeviceClass::of(&device) {
        routes::DeviceClass::Cpu => "packed_int8",
        routes::DeviceClass::Gpu(units) if units.bytes => "packed_int8_mma",
        routes::DeviceClass::Gpu(_) => return,
    };
    let error = relative(&by(in_bytes), &float);
    assert!(error < 0.03, "bytes: {error}");
    let dequantized = by("dequantize");
    assert!(relative(&dequantized, &float) < 0.01);
    if !devices::on_gpu() {
        assert!(relative(&dequantized, &by("packed_panels")) < 1e-5);
    }
    assert!(relative(&by(in_bytes), &dequantized) > 1e-6, "bytes are not floats");
}

/// Paths and element types of a module's tensors.
#[derive(Default)]
struct Paths(Vec<String>, Vec<(String, DType)>);

impl ModuleVisitor for Paths {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.0.push(name.into());
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.0.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.1.push((self.0.join("."), param.val().dtype()));
    }
    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        self.1.push((self.0.join("."), param.val().dtype()));
    }
}

#[test]
fn folding_keeps_the_result_and_packed_tensors_have_paths_of_their_own() {
    let device = inference();
    let mut block = ConvBlockConfig::new([40, 12]).with_bias(true).init_strided(&device);
    let norm = block.norm.as_ref().unwrap();
    norm.running_mean.set(tensor(&linspace(-0.5, 0.5, 12), [12], DType::F32, &device));
    norm.running_var.set(tensor(&linspace(0.2, 3.0, 12), [12], DType::F32, &device));
    let x = input(40, DType::F32, 1);
    let expected = block.forward(&x);
    let mut seen = Vec::new();
    block.visit_layers("stage", &mut |mut layer| {
        seen.push((layer.path().to_owned(), layer.kind(), layer.has_norm()));
        layer.fold_norm();
        assert!(!layer.has_norm());
    });
    assert_eq!(seen, [("stage.conv".to_owned(), "conv", true)]);
    assert!(relative(&block.forward(&x), &expected) < 1e-5);
    block.visit_layers("stage", &mut |mut layer| {
        layer.pack(&QuantizeOptions::new(4).with_scales(FloatDType::F16), None).unwrap();
        assert!(
            layer.pack(&QuantizeOptions::new(4), None).unwrap_err().to_string().contains("dequantize_weight")
        );
    });
    let mut paths = Paths::default();
    block.visit(&mut paths);
    let expected = [
        ("conv.weight.words", DType::U32),
        ("conv.weight.scales", DType::F16),
        ("conv.weight.biases", DType::F16),
        ("conv.bias", DType::F32),
    ];
    assert_eq!(paths.1, expected.map(|(path, dtype)| (path.to_owned(), dtype)));
    let moved = block.clone().to_device(&device);
    assert_eq!(read(moved.forward(&x).feats()), read(block.forward(&x).feats()));
}

#[test]
fn gradients_are_refused_with_advice() {
    let float = SubmConv3dConfig::new([4, 4]).init(&inference());
    let packed =
        QuantizedSubmConv3d::from_conv(&float, &QuantizeOptions::new(8)).unwrap().to_device(&training());
    let x = sparse_at(&line(&[0, 1]), tensor(&[0.5; 8], [2, 4], DType::F32, &training()), [1; 3]);
    let error = packed.try_forward(&x, None, ConvEpilogue::default()).unwrap_err().to_string();
    assert!(error.contains("no gradient") && error.contains("dequantize"), "{error}");
    let weight = Tensor::<2>::ones([4, 4], (&training(), DType::F32));
    assert!(
        quantize_weight(weight, &QuantizeOptions::new(8)).unwrap_err().to_string().contains("no gradient")
    );
}

#[test]
fn what_cannot_be_packed_is_refused() {
    let device = inference();
    let ones = || Tensor::<2>::ones([8, 8], (&device, DType::F32));
    let refused = |result: Result<QuantizedWeight>, says: &str| {
        let text = result.unwrap_err().to_string();
        assert!(text.contains(says), "expected `{says}` in: {text}");
    };
    refused(quantize_weight(ones(), &QuantizeOptions::new(5)), "4 or 8 bits, found 5");
    refused(quantize_weight(ones(), &QuantizeOptions::new(4).with_group_size(16)), "32, 64 or 128, found 16");
    refused(quantize_weight(ones().cast(FloatDType::F64), &QuantizeOptions::new(4)), "f16 or f32");
    refused(quantize_weight(ones() * f32::NAN, &QuantizeOptions::new(4)), "finite weights, found NaN");
    refused(quantize_weight(ones() * f32::INFINITY, &QuantizeOptions::new(8)), "finite weights, found inf");
    let half = QuantizeOptions::new(8).with_scales(FloatDType::F16);
    refused(quantize_weight(ones() * 1e6, &half), "ask for f32 scales");
    refused(
        quantize_weight(ones(), &QuantizeOptions::new(8).with_scales(FloatDType::BF16)),
        "f16 or f32 for scales",
    );
    refused(
        quantize_weight(Tensor::<4>::ones([2; 4], (&device, DType::F32)), &QuantizeOptions::new(8)),
        "[taps, c_in, c_out]",
    );
    refused(
        quantize_weight(Tensor::<2>::ones([0, 8], (&device, DType::F32)), &QuantizeOptions::new(8)),
        "from 1 on",
    );
}

#[test]
fn packed_tensors_that_do_not_fit_their_record_are_refused() {
    let device = inference();
    let record = PackedRecord::try_new(4, 32, [40, 6], [3, 1, 1], PackedLayout::KernelMajor).unwrap();
    let words = |dims: [usize; 3], dtype: DType| {
        Tensor::<3, Int>::from_data(
            TensorData::new(vec![0u32; dims.iter().product()], dims),
            (&device, dtype),
        )
    };
    let scales = |dims: [usize; 3], dtype: DType| Tensor::<3>::ones(dims, (&device, dtype));
    let good = || (words([3, 8, 6], DType::U32), scales([3, 2, 6], DType::F16));
    let (w, s) = good();
    assert!(QuantizedWeight::try_new(w, s.clone(), s, record).is_ok());
    let refused = |w: Tensor<3, Int>, s: Tensor<3>, b: Tensor<3>, says: &str| {
        let text = QuantizedWeight::try_new(w, s, b, record).unwrap_err().to_string();
        assert!(text.contains(says), "expected `{says}` in: {text}");
    };
    let (w, s) = good();
    refused(words([3, 6, 8], DType::U32), s.clone(), s.clone(), "words [3, 8, 6], found [3, 6, 8]");
    refused(words([3, 8, 6], DType::I32), s.clone(), s.clone(), "u32");
    refused(w.clone(), scales([3, 1, 6], DType::F16), s.clone(), "scales [3, 2, 6]");
    refused(w.clone(), scales([3, 2, 6], DType::BF16), s.clone(), "f16 or f32 for scales");
    refused(w.clone(), s.clone(), scales([3, 2, 6], DType::F32), "as for scales");
    refused(w, s, scales([3, 3, 6], DType::F16), "biases [3, 2, 6]");
    for (size, layout) in [([2, 1, 1], PackedLayout::Linear), ([3, 2, 1], PackedLayout::KernelMajor)] {
        assert!(PackedRecord::try_new(4, 32, [8, 8], size, layout).is_err());
    }
    assert!(PackedRecord::try_new(4, 32, [8, 8], [usize::MAX, 2, 2], PackedLayout::Dense5d).is_err());
}

#[test]
fn calls_that_do_not_fit_are_refused() {
    let device = inference();
    let float = SubmConv3dConfig::new([40, 6]).init(&device);
    let packed = QuantizedSubmConv3d::from_conv(&float, &QuantizeOptions::new(8)).unwrap();
    let x = input(39, DType::F32, 1);
    let error = packed.try_forward(&x, None, ConvEpilogue::default()).unwrap_err().to_string();
    assert!(error.contains("expected 40 channels, found 39"), "{error}");
    assert!(packed.weight.try_val("test").unwrap_err().to_string().contains("dequantize_weight"));
    let x = input(40, DType::F32, 1);
    let _forced = routes::force("packed_int8").unwrap();
    let error = packed.try_forward(&x, None, ConvEpilogue::default()).unwrap_err().to_string();
    assert!(error.contains("`packed_int8` was forced") && error.contains("calibrated"), "{error}");
    let residual = ConvEpilogue {
        residual: Some(Tensor::ones([1, 6], (&device, DType::F32))),
        ..ConvEpilogue::default()
    };
    drop(_forced);
    assert!(packed.try_forward(&x, None, residual).unwrap_err().to_string().contains("residual ["));
    assert!(routes::force("packed_magic").err().unwrap().to_string().contains("packed_magic"));
    let spec = burn_lattice::KernelSpec::cube(2, 1).unwrap();
    let relation = x.manager().forward(x.support(), &spec, burn_lattice::SupportPolicy::Floor).unwrap();
    let weight = packed.weight.packed().unwrap();
    let error = ops::packed_conv(&x, weight, None, &relation, 1, [1; 3]).unwrap_err().to_string();
    assert!(error.contains("packed weight of 8 taps, found one of 27"), "{error}");
}

#[test]
fn calibration_refuses_what_it_cannot_use() {
    let device = inference();
    assert!(Calibrator::try_new(CalibrationMethod::Percentile(120.0), Granularity::PerTensor).is_err());
    let mut calibrator = Calibrator::try_new(CalibrationMethod::MinMax, Granularity::PerChannel).unwrap();
    assert!(calibrator.range().unwrap_err().to_string().contains("found none"));
    calibrator.observe(&Tensor::ones([3, 4], (&device, DType::F32))).unwrap();
    assert!(calibrator.observe(&Tensor::ones([3, 5], (&device, DType::F32))).is_err());
    let broken = Tensor::<2>::ones([3, 4], (&device, DType::F32)) * f32::NAN;
    assert!(calibrator.observe(&broken).unwrap_err().to_string().contains("finite features"));
}

#[rstest]
#[case::few_rows(DType::F16, 300, 128, 1, false, "packed_mma")]
#[case::few_rows_of_bf16(DType::BF16, 300, 128, 1, false, "packed_mma")]
#[case::a_thousand_rows_of_many_weights(DType::F16, 988, 512, 1, false, "packed_mma")]
#[case::more_rows_of_fewer_weights(DType::F16, 2691, 256, 1, false, "packed_expand_mma")]
#[case::many_rows(DType::F16, 100_000, 128, 1, false, "packed_expand_mma")]
#[case::bytes_are_no_faster_than_f16(DType::F16, 100_000, 128, 1, true, "packed_expand_mma")]
#[case::bytes_are_faster_than_f32(DType::F32, 100_000, 32, 1, true, "packed_int8_mma")]
#[case::f32(DType::F32, 100_000, 128, 1, false, "dequantize")]
#[case::channel_groups(DType::F16, 300, 128, 2, true, "dequantize")]
fn a_gpu_with_matrix_units_takes_the_route_of_the_table(
    #[case] dtype: DType,
    #[case] rows: usize,
    #[case] channels: usize,
    #[case] groups: usize,
    #[case] activations: bool,
    #[case] expected: &str,
) {
    let problem = |units: routes::MatrixUnits| routes::PackedProblem {
        conv: routes::ConvProblem {
            dtype,
            rows,
            shape: lattice_cpu::ConvShape { c_in: channels, c_out: channels, groups },
            pointwise: false,
            device: routes::DeviceClass::Gpu(units),
        },
        taps: 27,
        bits: 8,
        activations,
    };
    let all = routes::MatrixUnits { manual: true, f16: true, bf16: true, tf32: true, bytes: true };
    assert_eq!(routes::packed_route(&problem(all)).name, expected);
    let reports = routes::explain_packed(&problem(all));
    assert_eq!(reports.iter().filter(|r| r.chosen).map(|r| r.route).collect::<Vec<_>>(), [expected]);
    let cpu = reports.iter().filter(|r| ["packed_int8", "packed_panels"].contains(&r.route));
    assert!(cpu.into_iter().all(|r| r.rejected.as_ref().is_some_and(|why| why.contains("needs the CPU"))));
    // Without fragments that a kernel lays out only floats are left.
    let plain = routes::MatrixUnits { manual: false, bytes: false, ..all };
    assert_eq!(routes::packed_route(&problem(plain)).name, "dequantize");
}
