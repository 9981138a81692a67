//! Modules: what they compute, when they behave differently, what they save, and how they fail.
#![allow(clippy::unwrap_used, reason = "tests")]

mod harness;

use burn::config::Config;
use burn::module::Module;
use burn::tensor::{DType, Device, Tensor};
use burn_lattice::SparseTensor;
use burn_lattice::nn::*;
use burn_lattice::ops::{self, Axis, GeluApproximation, NormAffine, PoolMode};
use harness::*;
use lattice_testkit::tolerances::{EXACT, F32, PRINTED, assert_close};
use rstest::rstest;

/// A tensor of seeded features in two batch items.
fn seeded_tensor(rows: usize, channels: usize, device: &Device) -> SparseTensor {
    let coords = Seeded::new(1).coords(rows, 2, 4);
    sparse(&coords, &Seeded::new(2).values(coords.len() * channels), device)
}

/// The text of a panic.
fn panic_text(work: impl FnOnce() + std::panic::UnwindSafe) -> String {
    let payload = std::panic::catch_unwind(work).expect_err("it must panic");
    payload.downcast_ref::<String>().cloned().unwrap_or_default()
}

#[test]
fn linear_is_the_functional_form_and_starts_within_its_bound() {
    let device = inference();
    let x = seeded_tensor(30, 9, &device);
    let linear = LinearConfig::new([9, 5]).init(&device);
    let bound = 1.0 / 3.0;
    for value in read(&linear.weight.val()).iter().chain(&read(&linear.bias.as_ref().unwrap().val())) {
        assert!(value.abs() <= bound);
    }
    let bias = linear.bias.as_ref().map(|b| b.val());
    let expected = ops::linear(&x, linear.weight.val().transpose(), bias).unwrap();
    assert_close(&read(expected.feats()), &read(linear.forward(&x).feats()), EXACT);
    assert_close(&read(expected.feats()), &read(&linear.forward_feats(x.feats().clone())), EXACT);
    assert!(LinearConfig::new([9, 5]).with_bias(false).init(&device).bias.is_none());
    let wrong = seeded_tensor(5, 4, &device);
    assert!(linear.try_forward(&wrong).is_err());
    let text = panic_text(std::panic::AssertUnwindSafe(|| drop(linear.forward(&wrong))));
    assert!(text.contains("linear") && text.contains('9') && text.contains('4'), "{text}");
}

#[test]
fn activation_modules_are_the_functional_forms() {
    let device = inference();
    let x = seeded_tensor(20, 3, &device);
    let same = |a: SparseTensor, b: SparseTensor| assert_close(&read(a.feats()), &read(b.feats()), EXACT);
    same(Relu::new().forward(&x), ops::relu(&x));
    same(Sigmoid::new().forward(&x), ops::sigmoid(&x));
    same(Tanh::new().forward(&x), ops::tanh(&x));
    same(Silu::new().forward(&x), ops::silu(&x));
    same(GeluConfig::new().init().forward(&x), ops::gelu(&x, GeluApproximation::None));
    let fast = GeluConfig::new().with_approximation(GeluApproximation::Fast).init();
    same(fast.forward(&x), ops::gelu(&x, GeluApproximation::Fast));
    same(LeakyReluConfig::new().init().forward(&x), ops::leaky_relu(&x, 0.01).unwrap());
    same(SoftplusConfig::new().init().forward(&x), ops::softplus(&x, 1.0, 20.0).unwrap());
}

#[rstest]
#[case::biased(false, [1.125, 1.8, 1.125])]
#[case::unbiased(true, [1.35, 2.7, 1.35])]
fn worked_example_batch_norm_in_training(#[case] unbiased: bool, #[case] running_var: [f64; 3]) {
    let device = training();
    let x = sparse(&line(&[0, 1]), &[1., 2., 3., 4., 8., 0.], &device);
    let norm = BatchNormConfig::new(3).with_unbiased_running_var(unbiased).init(&device);
    let y = norm.forward(x);
    let expected = [-0.9999978, -0.9999994, 0.9999978, 0.9999978, 0.9999994, -0.9999978];
    assert_close(&expected, &read(y.feats()), PRINTED);
    assert_close(&[0.25, 0.5, 0.15], &read(&norm.running_mean.value()), PRINTED);
    assert_close(&running_var, &read(&norm.running_var.value()), PRINTED);
}

#[test]
fn batch_norm_uses_running_statistics_at_inference_and_none_without_tracking() {
    let feats = [1., 2., 3., 4., 8., 0.];
    let coords = line(&[0, 1]);
    let norm = BatchNormConfig::new(3).init(&training());
    norm.forward(sparse(&coords, &feats, &training()));
    let (mean, var) = ([0.25, 0.5, 0.15], [1.125f64, 1.8, 1.125]);
    let expected: Vec<f64> =
        (0..6).map(|at| (feats[at] - mean[at % 3]) / (var[at % 3] + 1e-5).sqrt()).collect();
    let frozen = norm.valid();
    let y = frozen.forward(sparse(&coords, &feats, &inference()));
    assert_close(&expected, &read(y.feats()), F32);
    assert_close(&mean, &read(&frozen.running_mean.value()), PRINTED);

    let untracked = BatchNormConfig::new(3).with_track_running_stats(false).init(&inference());
    let y = untracked.forward(sparse(&coords, &feats, &inference()));
    let batch =
        ops::batch_norm(&sparse(&coords, &feats, &inference()), NormAffine::default(), None, 1e-5).unwrap();
    assert_close(&read(batch.feats()), &read(y.feats()), F32);
    assert_close(&[0., 0., 0.], &read(&untracked.running_mean.value()), EXACT);
}

#[test]
fn batch_norm_observes_features_without_training() {
    let norm = BatchNormConfig::new(3).with_momentum(1.0).init(&inference());
    let x = sparse(&line(&[0, 1]), &[1., 2., 3., 4., 8., 0.], &inference());
    norm.observe(x.feats());
    let batch = ops::batch_norm(&x, NormAffine::default(), None, 1e-5).unwrap();
    assert_close(&read(batch.feats()), &read(norm.forward(x).feats()), F32);
}

#[test]
fn norm_modules_are_the_functional_forms() {
    let device = inference();
    let x = seeded_tensor(25, 6, &device);
    let none = NormAffine::default;
    let same = |a: SparseTensor, b: SparseTensor| assert_close(&read(a.feats()), &read(b.feats()), F32);
    same(LayerNormConfig::new(6).init(&device).forward(&x), ops::layer_norm(&x, none(), 1e-5).unwrap());
    same(RmsNormConfig::new(6).init(&device).forward(&x), ops::rms_norm(&x, None, 1e-5).unwrap());
    same(GroupNormConfig::new(3, 6).init(&device).forward(&x), ops::group_norm(&x, 3, none(), 1e-5).unwrap());
    same(InstanceNormConfig::new(6).init(&device).forward(&x), ops::instance_norm(&x, none(), 1e-5).unwrap());
    let plain = GroupNormConfig::new(2, 6).with_affine(false).init(&device);
    assert!(plain.gamma.is_none() && plain.beta.is_none());
    let text = panic_text(|| drop(GroupNormConfig::new(4, 6).init(&inference())));
    assert!(text.contains("GroupNorm"), "{text}");
    let text = panic_text(|| drop(LayerNormConfig::new(6).with_eps(0.0).init(&inference())));
    assert!(text.contains("eps"), "{text}");
}

#[test]
fn dropout_acts_in_training_only_and_by_its_seed() {
    let feats = vec![1.0; 4000];
    let coords = line(&(0..1000).collect::<Vec<_>>());
    let dropout = |seed| DropoutConfig::new().with_seed(seed).init();
    let at =
        |module: &Dropout, device: &Device| read(module.forward(&sparse(&coords, &feats, device)).feats());
    let first = dropout(7);
    assert_eq!(at(&first, &inference()), feats, "identity at inference");
    let one = at(&first, &training());
    assert!(one.iter().all(|v| *v == 0.0 || *v == 2.0));
    let kept = one.iter().filter(|v| **v == 2.0).count();
    assert!((1800..2200).contains(&kept), "{kept} of 4000 stay");
    let two = at(&first, &training());
    assert_ne!(one, two, "each call has a mask of its own");
    let again = dropout(7);
    assert_eq!([at(&again, &training()), at(&again, &training())], [one.clone(), two], "a seed repeats them");
    assert_ne!(at(&dropout(8), &training()), one);
    let frozen = dropout(7).freeze();
    assert_eq!(at(&frozen, &training()), feats, "a frozen module does not drop");
    let none = DropoutConfig::new().with_prob(0.0).init();
    assert_eq!(at(&none, &training()), feats);
    assert!(panic_text(|| drop(DropoutConfig::new().with_prob(1.0).init())).contains("Dropout"));
}

#[test]
fn convolution_modules_keep_coarsen_and_refine_the_support() {
    let device = inference();
    let x = seeded_tensor(60, 4, &device);
    let subm = SubmConv3dConfig::new([4, 6]).init(&device).forward(&x);
    assert!(subm.same_coords(&x) && subm.channels() == 6);
    let down =
        Conv3dConfig::new([6, 8]).with_kernel_size([2; 3]).with_stride([2; 3]).init(&device).forward(&subm);
    assert_eq!((down.stride(), down.channels()), ([2; 3], 8));
    let up = ConvTranspose3dConfig::new([8, 3]).init(&device);
    assert_eq!(up.forward(&down).stride(), [1; 3]);
    assert!(up.forward_onto(&down, &Target::from(&x)).same_coords(&x));
    let back = ConvTranspose3dConfig::new([8, 3]).with_inverse(true).init(&device).forward(&down);
    assert!(back.same_coords(&x));
    let grown = GenerativeConvTranspose3dConfig::new([8, 3]).init(&device).forward(&down);
    assert_eq!((grown.n_rows(), grown.stride()), (8 * down.n_rows(), [1; 3]));
    let text = panic_text(std::panic::AssertUnwindSafe(|| {
        drop(SubmConv3dConfig::new([5, 6]).init(&device).forward(&x));
    }));
    assert!(text.contains("subm_conv3d") && text.contains('5') && text.contains('4'), "{text}");
}

#[test]
fn normalized_modules_are_the_functional_forms() {
    let device = inference();
    let x = seeded_tensor(40, 4, &device);
    let module = NormalizedSubmConv3dConfig::new([4, 6]).init(&device);
    let options = ops::ConvOptions::new(burn_lattice::KernelSpec::cube(3, 1).unwrap());
    let bias = module.bias.as_ref().map(|b| b.val());
    let expected = ops::normalized_subm_conv3d(&x, module.weight.val(), bias, &options, 1e-8).unwrap();
    assert_close(&read(expected.feats()), &read(module.forward(&x).feats()), EXACT);
    let coarse = x.with_stride([2; 3]).unwrap();
    let up = NormalizedConvTranspose3dConfig::new([4, 3]).init(&device);
    assert_eq!(up.forward(&coarse).stride(), [1; 3]);
    assert!(up.forward_onto(&coarse, &Target::from(&x)).same_coords(&x));
    let grown = NormalizedGenerativeConvTranspose3dConfig::new([4, 3]).init(&device).forward(&coarse);
    assert_eq!(grown.n_rows(), 8 * x.n_rows());
    let text = panic_text(|| drop(NormalizedSubmConv3dConfig::new([4, 6]).with_eps(0.0).init(&inference())));
    assert!(text.contains("eps"), "{text}");
}

#[test]
fn pooling_modules_give_the_worked_examples() {
    let device = inference();
    let x = sparse(&line(&[-3, -1, 0, 1, 4]), &[1., 4., 2., 2., 7.], &device);
    let by_x = |y: &SparseTensor| {
        let mut rows: Vec<(i32, f64)> = coords_of(y).iter().map(|c| c[1]).zip(read(y.feats())).collect();
        rows.sort_by_key(|row| row.0);
        rows
    };
    let rows = |values: [f64; 4]| [-2, -1, 0, 2].into_iter().zip(values).collect::<Vec<_>>();
    let (size, stride) = ([2, 1, 1], [2, 1, 1]);
    let sum = SumPool3dConfig::new().with_kernel_size(size).with_stride(stride).init().forward(&x);
    assert_eq!(by_x(&sum), rows([1., 4., 4., 7.]));
    let avg = AvgPool3dConfig::new().with_kernel_size(size).with_stride(stride).init().forward(&x);
    assert_eq!(by_x(&avg), rows([1., 4., 2., 7.]));
    let max = MaxPool3dConfig::new().with_kernel_size([3, 1, 1]).with_stride(stride).init().forward(&x);
    assert_eq!(by_x(&max), rows([1., 4., 4., 7.]));
    let pool = Pool3dConfig::new(PoolMode::Sum).with_kernel_size([3, 1, 1]).with_stride(stride).init();
    assert_eq!(by_x(&pool.forward(&x)), rows([1., 5., 8., 7.]));

    let coarse = sparse(&line(&[-1, 0, 2]), &[10., 20., 40.], &device).with_stride([2, 1, 1]).unwrap();
    let onto = |xs: &[i32]| Target::from(&support(&line(xs)));
    let up = PoolTranspose3dConfig::new()
        .with_kernel_size([3, 1, 1])
        .with_stride(stride)
        .with_padding([1, 0, 0])
        .init();
    assert_eq!(read(up.forward_onto(&coarse, &onto(&[-3, -1, 0, 3, 8])).feats()), [10., 15., 20., 40., 0.]);
    let up = TrilinearUpsample3dConfig::new().with_stride(stride).init();
    let y = up.forward_onto(&coarse, &onto(&[-3, -2, -1, 0, 1, 3, 6]));
    assert_close(&[10., 10., 15., 20., 20., 40., 0.], &read(y.feats()), F32);

    let batched = sparse(&[[0, 0, 0, 0], [0, 1, 0, 0], [2, 0, 0, 0]], &[1., 3., 5.], &device);
    assert_eq!(read(&GlobalSumPool::new().try_forward(&batched, Some(4)).unwrap()), [4., 0., 5., 0.]);
    assert_eq!(read(&GlobalAvgPool::new().forward(&batched)), [2., 0., 5.]);
    assert!(
        GlobalMaxPool::new().try_forward(&batched, Some(4)).is_err(),
        "an item without rows has no maximum"
    );
}

#[test]
fn crop_and_birds_eye_modules_run_on_logical_coordinates() {
    let device = inference();
    let a = sparse(&line(&[0, 1, 2]), &[1., 2., 3.], &device);
    let crop = SparseCropConfig::new().with_min(Some([1, 0, 0])).with_max(Some([2, 1, 1])).init();
    let y = crop.forward(&a);
    assert_eq!((coords_of(&y), read(y.feats())), (line(&[1]), vec![2.]));
    assert_eq!(SparseCropConfig::new().init().forward(&a).n_rows(), 3);

    let x = sparse(&[[0, 1, 0, 0], [0, 1, 0, 2], [0, 0, 1, 1]], &[1., 3., 5.], &device);
    let flat = ToBevReductionConfig::new().init().forward(&x);
    let mut rows: Vec<(Coord, f64)> = coords_of(&flat).into_iter().zip(read(flat.feats())).collect();
    rows.sort_by_key(|row| row.0);
    assert_eq!(rows, [([0, 0, 1, 0], 5.), ([0, 1, 0, 0], 2.)]);

    let conv = ToBevConvolutionConfig::new([1, 2], 3).init(&device);
    assert_eq!(conv.forward(&x).feats().dims(), [2, 2]);
    let dense = ToDenseBevConvolutionConfig::new([1, 2], [2, 2, 3]).init(&device);
    assert_eq!(dense.forward(&x).dims(), [1, 2, 2, 2]);
    let fold = ToBevHeightCompressionConfig::new(1, [2, 2, 3]).init();
    let image = fold.forward(&x);
    assert_eq!((image.dims(), fold.image_channels()), ([1, 3, 2, 2], 3));
    // Channel d of cell (x, y): rows (1, 0) at d = 0 and 2, row (0, 1) at d = 1.
    assert_eq!(read(&image), [0., 0., 1., 0., 0., 5., 0., 0., 0., 0., 3., 0.]);
    let by_x = ToBevReductionConfig::new().with_axis(Axis::X).init().forward(&x);
    assert_eq!(by_x.n_rows(), 3);
}

/// A block whose norm has statistics and parameters that are not trivial.
fn stirred(block: ConvBlock, device: &Device) -> ConvBlock {
    let norm = block.norm.as_ref().unwrap();
    let channels = norm.running_mean.value().dims()[0];
    let seen = tensor(&Seeded::new(9).values(40 * channels), [40, channels], DType::F32, device) * 3.0 + 0.5;
    norm.observe(&seen);
    norm.observe(&(seen * 0.5));
    let mut block = block;
    let scale = tensor(&Seeded::new(10).values(channels), [channels], DType::F32, device);
    let shift = tensor(&Seeded::new(11).values(channels), [channels], DType::F32, device);
    if let Some(norm) = &mut block.norm {
        norm.gamma = norm.gamma.take().map(|p| p.map(|_| scale));
        norm.beta = norm.beta.take().map(|p| p.map(|_| shift));
    }
    block
}

#[rstest]
fn a_fused_block_equals_its_parts(
    #[values(BlockActivation::None, BlockActivation::Relu, BlockActivation::LeakyRelu(0.1))]
    activation: BlockActivation,
    #[values(false, true)] bias: bool,
) {
    let device = inference();
    let x = seeded_tensor(120, 5, &device).with_stride([2; 3]).unwrap();
    let config = ConvBlockConfig::new([5, 19]).with_activation(activation).with_bias(bias);
    let two = config.clone().with_kernel_size([2; 3]).with_stride([2; 3]);
    for block in [config.init_subm(&device), two.init_strided(&device), two.init_transposed(&device)] {
        let block = stirred(block, &device);
        let plain = block.conv.forward(&x);
        let normed = block.norm.as_ref().unwrap().forward(plain.clone());
        let residual = plain.with_feats(plain.feats().clone() * 0.25 + 0.125).unwrap();
        let activate = |feats: Tensor<2>| match activation {
            BlockActivation::None => feats,
            BlockActivation::Relu => burn::tensor::activation::relu(feats),
            BlockActivation::LeakyRelu(slope) => {
                burn::tensor::activation::leaky_relu(feats, f64::from(slope))
            }
        };
        let fused = block.forward(&x);
        assert!(fused.same_coords(&plain));
        assert_close(&read(&activate(normed.feats().clone())), &read(fused.feats()), F32.scaled(4.0));
        let fused = block.try_forward(&x, None, Some(&residual)).unwrap();
        let expected = activate(normed.feats().clone() + residual.feats().clone());
        assert_close(&read(&expected), &read(fused.feats()), F32.scaled(4.0));
    }
}

#[test]
fn a_residual_on_other_rows_is_refused() {
    let device = inference();
    let x = seeded_tensor(30, 4, &device);
    let block = ConvBlockConfig::new([4, 4]).init_subm(&device);
    let elsewhere = sparse(&coords_of(&x), &read(x.feats()), &device);
    let error = block.try_forward(&x, None, Some(&elsewhere)).unwrap_err();
    assert!(matches!(error, burn_lattice::Error::Identity { .. }), "{error}");
    assert!(block.try_forward(&x, None, Some(&x)).is_ok());
}

#[test]
fn gradients_reach_every_parameter_of_a_block() {
    let device = training();
    let x = seeded_tensor(50, 3, &device);
    let block = ConvBlockConfig::new([3, 7])
        .with_bias(true)
        .with_activation(BlockActivation::None)
        .init_subm(&device);
    let y = block.forward(&x);
    let g = tensor(&Seeded::new(3).values(y.n_rows() * 7), [y.n_rows(), 7], DType::F32, &device);
    let grads = (y.feats().clone() * g).sum().backward();
    let conv = &block.conv;
    assert!(conv.weight.val().grad(&grads).is_some());
    assert!(conv.bias.as_ref().unwrap().val().grad(&grads).is_some());
    let norm = block.norm.as_ref().unwrap();
    assert!(norm.gamma.as_ref().unwrap().val().grad(&grads).is_some());
    assert!(norm.beta.as_ref().unwrap().val().grad(&grads).is_some());
}

#[test]
fn features_without_gradient_meet_weights_with_one() {
    let x = seeded_tensor(20, 3, &inference());
    let conv = SubmConv3dConfig::new([3, 4]).init(&training());
    let y = conv.forward(&x);
    let grads = y.feats().clone().sum().backward();
    assert!(conv.weight.val().grad(&grads).is_some());
}

/// A network with every kind of state: parameters, running statistics, configuration.
#[derive(Module, Debug)]
struct Network {
    block: ConvBlock,
    norm: BatchNorm,
    group: GroupNorm,
    activation: LeakyRelu,
    dropout: Dropout,
    linear: Linear,
}

impl Network {
    fn new(device: &Device) -> Self {
        Self {
            block: stirred(ConvBlockConfig::new([3, 6]).init_subm(device), device),
            norm: BatchNormConfig::new(6).init(device),
            group: GroupNormConfig::new(2, 6).init(device),
            activation: LeakyReluConfig::new().init(),
            dropout: DropoutConfig::new().init(),
            linear: LinearConfig::new([6, 2]).init(device),
        }
    }

    fn forward(&self, x: &SparseTensor) -> SparseTensor {
        let x = self.norm.forward(self.block.forward(x));
        self.linear.forward(&self.dropout.forward(&self.activation.forward(&self.group.forward(&x))))
    }
}

#[test]
fn a_saved_network_computes_the_same_when_loaded() {
    let device = inference();
    let x = seeded_tensor(40, 3, &device);
    let saved = Network::new(&device);
    saved.norm.observe(saved.block.forward(&x).feats());
    let expected = read(saved.forward(&x).feats());
    let fresh = Network::new(&device);
    assert_ne!(read(fresh.forward(&x).feats()), expected);
    let loaded = fresh.load_record(saved.into_record());
    assert_close(&expected, &read(loaded.forward(&x).feats()), EXACT);
}

#[test]
fn configs_are_saved_as_text() {
    let pool = Pool3dConfig::new(PoolMode::Avg).with_kernel_size([3, 2, 1]);
    let text = pool.to_string();
    assert!(text.contains("avg"), "{text}");
    let read = Pool3dConfig::load_binary(text.as_bytes()).unwrap();
    assert_eq!(read.to_string(), text);
    let bev = ToBevReductionConfig::new().with_axis(Axis::Y).to_string();
    assert_eq!(ToBevReductionConfig::load_binary(bev.as_bytes()).unwrap().to_string(), bev);
    let gelu = GeluConfig::new().with_approximation(GeluApproximation::Tanh).to_string();
    assert_eq!(GeluConfig::load_binary(gelu.as_bytes()).unwrap().approximation, GeluApproximation::Tanh);
}

#[test]
fn modules_say_what_they_are_and_a_convolution_of_any_kind_takes_an_epilogue() {
    use burn_lattice::{Activation, RelationKind, SupportPolicy};

    let device = inference();
    let x = seeded_tensor(40, 4, &device).with_stride([2; 3]).unwrap();
    let subm = SubmConv3dConfig::new([4, 6]).with_groups(2).init(&device);
    let strided = Conv3dConfig::new([4, 6]).with_stride([2; 3]).init(&device);
    let up = ConvTranspose3dConfig::new([4, 6]).init(&device);
    let grown = GenerativeConvTranspose3dConfig::new([4, 6]).init(&device);
    let block: BlockConv = ConvTranspose3dConfig::new([4, 6]).with_inverse(true).init(&device).into();
    assert_eq!(block.relation_kind(), RelationKind::Inverse);
    let reach = Conv3dConfig::new([4, 6]).with_kernel_reach(true).init(&device);
    assert!(matches!(reach.options().unwrap().policy, SupportPolicy::KernelReach { range: None }));
    assert_eq!(ConvBlockConfig::new([4, 6]).init_subm(&device).activation(), BlockActivation::Relu);
    assert_eq!(BatchNormConfig::new(4).with_eps(0.5).init(&device).eps(), 0.5);
    assert_eq!(LeakyReluConfig::new().init().kind().name(), "leaky_relu");
    assert_eq!(MaxPool3dConfig::new().init().pool().mode(), PoolMode::Max);

    let cases = [
        (subm.weight.val(), subm.bias.as_ref(), subm.relation_kind(), subm.options(), subm.forward(&x)),
        (
            strided.weight.val(),
            strided.bias.as_ref(),
            strided.relation_kind(),
            strided.options(),
            strided.forward(&x),
        ),
        (up.weight.val(), up.bias.as_ref(), up.relation_kind(), up.options(), up.forward(&x)),
        (grown.weight.val(), grown.bias.as_ref(), grown.relation_kind(), grown.options(), grown.forward(&x)),
    ];
    for (weight, bias, kind, options, plain) in cases {
        let scale: Tensor<1> = Tensor::full([6], -0.5, &device);
        let shift: Tensor<1> = Tensor::full([6], 0.25, &device);
        let epilogue = ConvEpilogue {
            scale_shift: Some((scale, shift)),
            residual: Some(Tensor::ones(plain.feats().dims(), &device)),
            activation: Activation::Relu,
        };
        let bias = bias.map(|b| b.val());
        let y = ops::convolve_with(&x, weight, bias, kind, &options.unwrap(), None, epilogue).unwrap();
        let expected = burn::tensor::activation::relu(plain.feats().clone() * -0.5 + 1.25);
        assert!(y.same_coords(&plain) || y.support().same_rows(plain.support()), "{kind:?}");
        assert_close(&read(&expected), &read(y.feats()), F32);
    }
    let options = subm.options().unwrap();
    let wrong = RelationKind::TargetTransposed;
    let error =
        ops::convolve_with(&x, subm.weight.val(), None, wrong, &options, None, ConvEpilogue::default());
    assert!(error.unwrap_err().to_string().contains("found TargetTransposed"));
}
