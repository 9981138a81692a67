//! The networks: sizes as published, shapes, determinism, gradients.
#![allow(clippy::unwrap_used, reason = "tests")]

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor, TensorData};
use burn_lattice::{CoordinateManager, Error, SparseTensor, Support};
use lattice_models::{
    MINKUNET_NAMES, MinkUNetConfig, ResidualBlockConfig, SecondEncoderConfig, seed_parameters,
};

/// Rows of a rough surface, in two batch items.
fn coords(side: i32) -> Vec<[i32; 4]> {
    let mut rows = Vec::new();
    for b in 0..2 {
        for x in 0..side {
            for y in 0..side {
                rows.push([b, x, y, (x * x + 3 * y + b) % 7]);
            }
        }
    }
    rows
}

fn tensor(device: &Device, side: i32, channels: usize) -> SparseTensor {
    let rows = coords(side);
    let values: Vec<f32> =
        (0..rows.len() * channels).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect();
    let feats = Tensor::from_data(TensorData::new(values, [rows.len(), channels]), device);
    SparseTensor::from_support(Support::try_new(rows).unwrap(), feats).unwrap()
}

/// Parameters of a U-Net by its layer list: convolutions, two per norm channel, and the head's bias.
fn expected_parameters(
    stem: usize,
    blocks: [usize; 8],
    decoder: [usize; 4],
    c_in: usize,
    classes: usize,
) -> usize {
    let norm = |c: usize| 2 * c;
    let block =
        |a: usize, b: usize| 27 * a * b + 27 * b * b + 2 * norm(b) + if a == b { 0 } else { a * b + norm(b) };
    let stage = |a: usize, b: usize, n: usize| block(a, b) + (n - 1) * block(b, b);
    let mut total = stem.pow(3) * c_in * 32 + norm(32);
    let encoder = [32, 64, 128, 256];
    let mut channels = 32;
    let mut skips = vec![32];
    for (level, &c) in encoder.iter().enumerate() {
        total += 8 * channels * channels + norm(channels) + stage(channels, c, blocks[level]);
        channels = c;
        skips.push(c);
    }
    skips.pop();
    for (level, &c) in decoder.iter().enumerate() {
        total += 8 * channels * c + norm(c) + stage(c + skips.pop().unwrap(), c, blocks[4 + level]);
        channels = c;
    }
    total + channels * classes + classes
}

/// Learned values: running statistics are stored beside them but not learned.
fn learned(model: &impl Module) -> usize {
    struct Learned(usize);
    impl ModuleVisitor for Learned {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if param.val().is_require_grad() {
                self.0 += param.val().shape().num_elements();
            }
        }
    }
    let mut count = Learned(0);
    model.visit(&mut count);
    count.0
}

#[test]
fn parameter_counts_follow_the_published_layer_lists() {
    let device = Device::flex().autodiff();
    let count = |name: &str| learned(&MinkUNetConfig::named(name, 3, 20).unwrap().init(&device));
    assert_eq!(count("minkunet14a"), expected_parameters(5, [1; 8], [128, 128, 96, 96], 3, 20));
    assert_eq!(count("minkunet18"), expected_parameters(5, [2; 8], [256, 128, 96, 96], 3, 20));
    let c34 = expected_parameters(5, [2, 3, 4, 6, 2, 2, 2, 2], [256, 128, 96, 96], 3, 20);
    assert_eq!(count("minkunet34c"), c34);
    // MinkUNet34C is published with 37.9 million parameters.
    assert!((37_500_000..38_300_000).contains(&c34), "{c34}");
}

#[test]
fn every_name_makes_a_config_and_others_are_refused() {
    for name in MINKUNET_NAMES {
        MinkUNetConfig::named(name, 4, 7).unwrap();
    }
    for name in ["minkunet", "minkunet18e", "minkunet50", "unet", "minkunet1", "minkunetä8"] {
        assert!(MinkUNetConfig::named(name, 4, 7).is_err(), "{name}");
    }
}

#[test]
fn the_unet_keeps_rows_and_identity() {
    let device = Device::flex();
    let model = seed_parameters(MinkUNetConfig::named("minkunet14a", 4, 5).unwrap().init(&device), 1);
    let x = tensor(&device, 20, 4);
    let y = model.forward(&x);
    assert!(y.same_coords(&x));
    assert_eq!(y.channels(), 5);
    let values: Vec<f32> = y.into_feats().into_data().iter().collect();
    assert!(values.iter().all(|v| v.is_finite()));
    assert!(values.iter().any(|v| v.abs() > 1e-3), "the scores are not all zero");
}

#[test]
fn one_seed_gives_equal_bits_and_another_seed_does_not() {
    let device = Device::flex();
    let run = |seed: u64| -> Vec<u32> {
        let model = seed_parameters(MinkUNetConfig::named("minkunet14a", 4, 5).unwrap().init(&device), seed);
        let y = model.forward(&tensor(&device, 12, 4));
        y.into_feats().into_data().iter::<f32>().map(f32::to_bits).collect()
    };
    assert_eq!(run(3), run(3));
    assert_ne!(run(3), run(4));
}

#[test]
fn an_empty_scene_passes_through() {
    let device = Device::flex();
    let model = MinkUNetConfig::named("minkunet14a", 4, 5).unwrap().init(&device);
    let feats = Tensor::zeros([0, 4], &device);
    let x = SparseTensor::from_support(Support::try_new(vec![]).unwrap(), feats).unwrap();
    assert_eq!(model.forward(&x).feats().dims(), [0, 5]);
}

#[test]
fn the_fused_pass_equals_the_separate_one_with_running_statistics() {
    let device = Device::flex();
    let block = seed_parameters(ResidualBlockConfig::new([6, 10]).init(&device), 5);
    let x = tensor(&device, 10, 6);
    let fused = block.forward(&x);
    // The same by hand, from the block's parts.
    let by_hand = {
        let conv = |b: &burn_lattice::nn::ConvBlock, x: &SparseTensor| {
            b.norm.as_ref().unwrap().forward(b.conv.forward(x))
        };
        let y = conv(&block.conv1, &x).map_feats(burn::tensor::activation::relu);
        let y = conv(&block.conv2, &y);
        let shortcut = conv(block.shortcut.as_ref().unwrap(), &x);
        burn::tensor::activation::relu(y.into_feats() + shortcut.into_feats())
    };
    let difference: f32 = (fused.into_feats() - by_hand).abs().max().into_scalar();
    assert!(difference < 1e-4, "{difference}");
}

#[test]
fn every_parameter_of_the_unet_gets_a_gradient() {
    let device = Device::flex().autodiff();
    let config = MinkUNetConfig::named("minkunet14a", 4, 5).unwrap();
    let model = seed_parameters(config.init(&device), 1);
    let x = tensor(&device, 16, 4);
    let y = model.forward(&x).into_feats();
    let grads = (y.clone() * y).mean().backward();
    struct Missing<'a> {
        grads: &'a burn::tensor::Gradients,
        seen: usize,
        missing: usize,
    }
    impl ModuleVisitor for Missing<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if param.val().is_require_grad() {
                self.seen += 1;
                self.missing += usize::from(param.val().grad(self.grads).is_none());
            }
        }
    }
    let mut count = Missing { grads: &grads, seen: 0, missing: 0 };
    model.visit(&mut count);
    assert_eq!(count.missing, 0, "of {} parameters", count.seen);
    assert!(count.seen > 60);
}

#[test]
fn the_second_encoder_ends_in_an_image_of_an_eighth() {
    let device = Device::flex();
    for reach in [true, false] {
        let config = SecondEncoderConfig::new(4, [64, 48, 41]).with_kernel_reach(reach);
        let encoder = seed_parameters(config.init(&device), 2);
        let manager = CoordinateManager::new();
        let rows: Vec<[i32; 4]> = coords(40).into_iter().map(|c| [c[0], c[1], c[2], c[3] * 5]).collect();
        let feats = Tensor::ones([rows.len(), 4], &device);
        let x = SparseTensor::with_manager(Support::try_new(rows).unwrap(), feats, [1; 3], manager).unwrap();
        let out = encoder.forward(&x);
        let [w, h, d] = encoder.image_cells();
        assert_eq!([w, h], [8, 6]);
        assert_eq!(d, if reach { 2 } else { 3 });
        assert_eq!(out.image.dims(), [2, 128 * d, 8, 6]);
        assert_eq!(out.levels.len(), 5);
        assert_eq!(out.levels[3].stride(), [8; 3]);
        let total: f32 = out.image.abs().sum().into_scalar();
        assert!(total > 0.0);
    }
}

#[test]
fn a_row_outside_the_detection_grid_is_an_error() {
    let device = Device::flex();
    let encoder = SecondEncoderConfig::new(2, [16, 16, 9]).with_kernel_reach(false).init(&device);
    let feats = Tensor::ones([1, 2], &device);
    let x = SparseTensor::from_support(Support::try_new(vec![[0, 900, 0, 0]]).unwrap(), feats).unwrap();
    assert!(encoder.try_forward(&x).is_err());
}

#[test]
fn a_wrong_channel_count_is_an_error_not_a_panic() {
    let device = Device::flex();
    let model = MinkUNetConfig::named("minkunet14a", 4, 5).unwrap().init(&device);
    let error = model.try_forward(&tensor(&device, 6, 3)).unwrap_err();
    assert!(matches!(error, Error::Channels { expected: 4, found: 3, .. }), "{error}");
    let encoder = SecondEncoderConfig::new(4, [64, 48, 41]).init(&device);
    assert!(encoder.try_forward(&tensor(&device, 6, 3)).is_err());
}

/// Paths of all parameters, as weight files name them.
fn parameter_paths(model: &impl Module) -> Vec<String> {
    #[derive(Default)]
    struct Paths {
        at: Vec<String>,
        found: Vec<String>,
    }
    impl ModuleVisitor for Paths {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.at.push(name.into());
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.at.pop();
        }
        fn visit_float<const D: usize>(&mut self, _param: &Param<Tensor<D>>) {
            self.found.push(self.at.join("."));
        }
    }
    let mut paths = Paths::default();
    model.visit(&mut paths);
    paths.found
}

#[test]
fn parameter_paths_name_places_alone() {
    let device = Device::flex();
    let model = MinkUNetConfig::named("minkunet14a", 4, 5).unwrap().init(&device);
    let paths = parameter_paths(&model);
    let block: Vec<&str> =
        paths.iter().filter_map(|path| path.strip_prefix("encoder.0.blocks.0.conv1.")).collect();
    assert_eq!(block, ["conv.weight", "norm.gamma", "norm.beta", "norm.running_mean", "norm.running_var"]);
    for path in
        ["stem.0.conv.weight", "encoder.3.down.conv.weight", "decoder.0.up.conv.weight", "head.conv.bias"]
    {
        assert!(paths.iter().any(|p| p == path), "{path} of {paths:?}");
    }
    let encoder = SecondEncoderConfig::new(4, [64, 48, 41]).init(&device);
    let paths = [paths, parameter_paths(&encoder)].concat();
    assert!(paths.iter().all(|path| !path.contains(char::is_uppercase)), "{paths:?}");
}
