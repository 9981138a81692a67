//! The networks of the list: parameter counts, shapes, gradients.
#![allow(clippy::unwrap_used, reason = "tests")]

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use burn_lattice::ops::VoxelGrid;
use burn_lattice::{SparseTensor, Support};
use lattice_models::{
    CompletionNetConfig, MinkUNetConfig, ModelSpec, Patches, PtBlockConfig, PtV3Config, SecondEncoderConfig,
    SerialOrder, SparseResNetConfig, SpvcnnConfig, VoxelNextConfig, learned_parameters, seed_parameters, zoo,
    zoo_names,
};

/// Learned values of a network of the list.
fn count(name: &str, in_channels: usize, classes: usize) -> usize {
    let device = Device::flex().autodiff();
    let spec = ModelSpec::new(name.into(), in_channels).with_classes(classes);
    spec.init(&device).unwrap().learned_parameters()
}

/// Convolution or linear map without bias and the norm after it.
fn conv(taps: usize, c_in: usize, c_out: usize) -> usize {
    taps * c_in * c_out + 2 * c_out
}

/// Residual block of two 3x3x3 convolutions, biased or not.
fn residual(c: usize, biased: bool) -> usize {
    2 * conv(27, c, c) + if biased { 2 * c } else { 0 }
}

#[test]
fn sizes_are_the_published_ones() {
    // Tang et al. 2020, model zoo: 21.7 and 8.8 million for MinkUNet, 21.8 and 8.8 for SPVCNN, of 4 channels and 19 classes.
    let millions = |n: usize| (n as f64 / 1e5).round() / 10.0;
    assert_eq!(millions(count("minkunet42", 4, 19)), 21.7);
    assert_eq!(count("sparseresunet42", 4, 19), count("minkunet42", 4, 19));
    assert_eq!(millions(count("spvcnn", 4, 19)), 21.8);
    let device = Device::flex().autodiff();
    let narrow = MinkUNetConfig::named("minkunet42", 4, 19).unwrap().with_width(0.64).init(&device);
    assert_eq!(millions(learned_parameters(&narrow)), 8.8);
    let narrow = SpvcnnConfig::new(4, 19).with_width(0.64).init(&device);
    assert_eq!(millions(learned_parameters(&narrow)), 8.8);
    // Choy et al. 2019, as later papers cite it: 37.9 million for MinkUNet34C.
    assert_eq!(millions(count("minkunet34c", 3, 20)), 37.9);
    // Wu et al. 2024: 46.2 million for PTv3, without a head.
    assert_eq!(millions(count("ptv3", 6, 20) - (64 * 20 + 20)), 46.2);
}

#[test]
fn sizes_without_a_published_count_follow_the_published_layer_lists() {
    // torchsparse: (3, 16, 3, 1) (3, 32, 3, 2) (3, 64, 3, 2) (3, 128, 3, 2) (1, 128, (1, 3, 1), (1, 2, 1)); 4 channels.
    let mut expected = conv(3, 128, 128);
    let mut c_in = 4;
    for c in [16, 32, 64, 128] {
        expected += conv(27, c_in, c) + 2 * residual(c, false);
        c_in = c;
    }
    assert_eq!(count("sparseresnet21d", 4, 1), expected);

    // VoxelBackBone8x: 16 16 | 32 32 32 | 64 64 64 | 64 64 64 | 128 over three cells of z; 4 channels.
    let mut expected = conv(27, 4, 16) + conv(27, 16, 16) + conv(3, 64, 128);
    let mut c_in = 16;
    for c in [32, 64, 64] {
        expected += conv(27, c_in, c) + 2 * conv(27, c, c);
        c_in = c;
    }
    assert_eq!(count("voxelbackbone8x", 4, 1), expected);

    // VoxelResBackBone8x: 16 | 32 | 64 | 128 with two biased residual blocks each, 128 over three cells of z; 5 channels.
    let mut expected = conv(27, 5, 16) + 2 * residual(16, true) + conv(3, 128, 128);
    let mut c_in = 16;
    for c in [32, 64, 128] {
        expected += conv(27, c_in, c) + 2 * residual(c, true);
        c_in = c;
    }
    assert_eq!(count("voxelresbackbone8x", 5, 1), expected);

    // VoxelNeXt: as above with two more levels of 128, then 3x3 over the plane twice, the second with bias.
    let mut expected = conv(27, 5, 16) + 2 * residual(16, true);
    let mut c_in = 16;
    for c in [32, 64, 128, 128, 128] {
        expected += conv(27, c_in, c) + 2 * residual(c, true);
        c_in = c;
    }
    expected += 2 * conv(9, 128, 128) + 128;
    assert_eq!(count("voxelnext", 5, 1), expected);

    // Completion: 16 to 1024 down by 2x2x2 and 3x3x3; up by 4x4x4 once, then 2x2x2, with 3x3x3 and a biased score each.
    let c = [16, 32, 64, 128, 256, 512, 1024];
    let mut expected = conv(27, 1, 16);
    for i in 0..6 {
        expected += conv(8, c[i], c[i + 1]) + conv(27, c[i + 1], c[i + 1]);
        expected += conv(if i == 5 { 64 } else { 8 }, c[i + 1], c[i]) + conv(27, c[i], c[i]) + c[i] + 1;
    }
    assert_eq!(count("completion", 1, 1), expected);

    // PTv3's block of width c: position encoding 28 c² + 2 c, three norms 6 c, attention 4 c² + 4 c, MLP 8 c² + 5 c.
    assert_eq!(count("ptv3-block", 64, 1), 40 * 64 * 64 + 17 * 64);
}

/// Rows of a rough surface in two batch items, coordinates from 0.
fn surface(side: i32) -> Support {
    let rows = (0..2).flat_map(|b| {
        (0..side).flat_map(move |x| (0..side).map(move |y| [b, x, y, (x * x + 3 * y + b) % 7]))
    });
    Support::try_new(rows.collect()).unwrap()
}

fn wave(n: usize, channels: usize) -> TensorData {
    let values: Vec<f32> = (0..n * channels).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect();
    TensorData::new(values, [n, channels])
}

fn tensor(device: &Device, side: i32, channels: usize) -> SparseTensor {
    let support = surface(side);
    let feats = Tensor::from_data(wave(support.n_rows(), channels), device);
    SparseTensor::from_support(support, feats).unwrap()
}

/// Learned parameters without a gradient, of all.
fn without_gradient(module: &impl Module, grads: &Gradients) -> [usize; 2] {
    struct Missing<'a>(&'a Gradients, [usize; 2]);
    impl ModuleVisitor for Missing<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if param.val().is_require_grad() {
                self.1[0] += usize::from(param.val().grad(self.0).is_none());
                self.1[1] += 1;
            }
        }
    }
    let mut count = Missing(grads, [0; 2]);
    module.visit(&mut count);
    count.1
}

fn finite<const D: usize>(y: &Tensor<D>) -> bool {
    y.clone().into_data().iter::<f32>().all(f32::is_finite)
}

fn square<const D: usize>(y: Tensor<D>) -> Tensor<1> {
    (y.clone() * y).mean()
}

#[test]
fn every_name_of_the_list_is_made_and_others_are_refused() {
    let device = Device::flex();
    assert_eq!(zoo().len(), zoo_names(None).len());
    for name in zoo_names(None) {
        // The widest ones are made by the tests of their size.
        if name.contains("34") || name.ends_with('d') && name.starts_with("minkunet") || name == "completion"
        {
            continue;
        }
        let network = ModelSpec::new(name.into(), 4).init(&device).unwrap();
        assert!(!network.parameters().is_empty(), "{name}");
    }
    let error = ModelSpec::new("resnet".into(), 4).init(&device).unwrap_err();
    assert!(error.to_string().contains("voxelnext"), "{error}");
    assert!(ModelSpec::new("spvcnn".into(), 0).init(&device).is_err());
}

#[test]
fn spvcnn_scores_points_and_every_parameter_gets_a_gradient() {
    let device = Device::flex().autodiff();
    let model = seed_parameters(SpvcnnConfig::new(4, 5).with_width(0.25).init(&device), 3);
    let n = 700;
    let places: Vec<f32> = (0..n)
        .flat_map(|i| {
            let t = i as f32 * 0.61;
            [t % 7.3 - 2.0, (t * 1.7) % 6.1, (t * 0.37) % 2.3]
        })
        .collect();
    let points = Tensor::<2>::from_data(TensorData::new(places, [n, 3]), &device);
    let batch =
        Tensor::from_data(TensorData::new((0..n).map(|i| (i % 2) as i32).collect::<Vec<_>>(), [n]), &device);
    let feats = Tensor::from_data(wave(n, 4), &device);
    let grid = VoxelGrid::cubic(0.2).unwrap();
    let y = model.forward(points, feats, Some(batch), &grid);
    assert_eq!(y.dims(), [n, 5]);
    assert!(finite(&y));
    let [missing, seen] = without_gradient(&model, &square(y).backward());
    assert_eq!(missing, 0, "of {seen}");
}

#[test]
fn points_far_from_each_other_do_not_mix_in_spvcnn() {
    let device = Device::flex();
    let model = seed_parameters(SpvcnnConfig::new(2, 3).with_width(0.25).init(&device), 1);
    let grid = VoxelGrid::cubic(0.5).unwrap();
    let cluster = |x: f32| [[x, 0.1, 0.2], [x + 0.7, 0.4, 0.1], [x + 0.3, 1.9, 0.6]];
    let run = |points: Vec<[f32; 3]>| {
        let n = points.len();
        let flat: Vec<f32> = points.into_iter().flatten().collect();
        let feats = Tensor::from_data(
            TensorData::new([0.5f32, -1.0, 2.0, 0.3, 0.7, -0.2].repeat(n / 3), [n, 2]),
            &device,
        );
        let points = Tensor::<2>::from_data(TensorData::new(flat, [n, 3]), &device);
        model.forward(points, feats, None, &grid).narrow(0, 0, 3)
    };
    let alone = run(cluster(0.0).to_vec());
    let both = run([cluster(0.0), cluster(4096.0)].concat());
    let difference: f32 = (alone - both).abs().max().into_scalar();
    assert!(difference < 1e-5, "{difference}");
}

#[test]
fn the_residual_encoder_ends_at_stride_eight_and_trains() {
    let device = Device::flex().autodiff();
    for reach in [false, true] {
        let config = SparseResNetConfig::new(4).with_width(0.5).with_kernel_reach(reach);
        let model = seed_parameters(config.init(&device), 2);
        let outputs = model.forward(&tensor(&device, 14, 4));
        assert_eq!(outputs.len(), 5);
        assert_eq!(outputs[4].stride(), [8, 16, 8]);
        assert_eq!(outputs[3].channels(), 64);
        let [missing, seen] = without_gradient(&model, &square(outputs[4].feats().clone()).backward());
        assert_eq!(missing, 0, "of {seen}");
    }
}

#[test]
fn detectors_reach_an_eighth_and_train() {
    let device = Device::flex().autodiff();
    let support = surface(24);
    let x =
        SparseTensor::from_support(support.clone(), Tensor::from_data(wave(support.n_rows(), 5), &device))
            .unwrap();
    let encoder =
        SecondEncoderConfig::residual(5, [32, 24, 41]).with_levels([8, 8, 16, 16]).with_out_channels(6);
    let encoder = seed_parameters(encoder.init(&device), 4);
    let out = encoder.forward(&x);
    assert_eq!(out.levels[3].stride(), [8; 3]);
    assert_eq!(encoder.image_cells(), [4, 3, 2]);
    assert_eq!(out.image.dims(), [2, 12, 4, 3]);
    // Heads see rows of y and channels before places of z.
    let head = out.head_input();
    assert_eq!(head.dims(), [2, 12, 3, 4]);
    let ours = out.image.clone().slice([1..2, 6 + 4..6 + 5, 2..3, 1..2]).into_scalar::<f32>();
    assert_eq!(head.slice([1..2, 4 * 2 + 1..4 * 2 + 2, 1..2, 2..3]).into_scalar::<f32>(), ours);
    let [missing, seen] = without_gradient(&encoder, &square(out.image).backward());
    assert_eq!(missing, 0, "of {seen}");

    let backbone = VoxelNextConfig::new(5, [32, 24, 41]).with_levels([4, 8, 8, 16, 16]).with_out_channels(6);
    let backbone = seed_parameters(backbone.init(&device), 5);
    let out = backbone.forward(&x);
    assert_eq!(out.levels.len(), 6);
    assert_eq!((out.bev.stride(), out.bev.channels()), ([8; 3], 6));
    let coords = out.bev.support().to_host().coords().to_vec();
    assert!(
        coords.iter().all(|c| c[3] == 0 && (0..4).contains(&c[1]) && (0..3).contains(&c[2])),
        "{coords:?}"
    );
    assert!(finite(out.bev.feats()));
    let [missing, seen] = without_gradient(&backbone, &square(out.bev.into_feats()).backward());
    assert_eq!(missing, 0, "of {seen}");
}

#[test]
fn completion_makes_rows_that_the_input_lacks_and_keeps_the_target() {
    let device = Device::flex().autodiff();
    let config = CompletionNetConfig::new(1).with_levels(vec![4, 6, 8, 8]);
    let model = seed_parameters(config.init(&device), 6);
    // Half of a plane is given, the whole of it is wanted.
    let half: Vec<[i32; 4]> = (0..8).flat_map(|x| (0..16).map(move |y| [0, x, y, 5])).collect();
    let whole: Vec<[i32; 4]> = (0..16).flat_map(|x| (0..16).map(move |y| [0, x, y, 5])).collect();
    let target = Support::try_new(whole.clone()).unwrap();
    let support = Support::try_new(half).unwrap();
    let x =
        SparseTensor::from_support(support.clone(), Tensor::ones([support.n_rows(), 1], &device)).unwrap();
    let out = model.forward(&x, Some(&target));
    assert_eq!(out.levels.len(), 3);
    assert_eq!(out.shape.stride(), [1; 3]);
    let kept = out.shape.support().to_host().lookup_all(&whole);
    assert!(kept.iter().all(|row| *row >= 0), "every wanted row that was reached is kept");
    let wanted = out.levels[2].wanted.as_ref().unwrap();
    assert_eq!(wanted.iter().filter(|w| **w).count(), 256);
    let scores = out.levels.iter().map(|level| square(level.scores.feats().clone()));
    let loss = scores.reduce(|a, b| a + b).unwrap();
    let [missing, seen] = without_gradient(&model, &loss.backward());
    assert_eq!(missing, 0, "of {seen}");
}

#[test]
fn a_completion_that_keeps_nothing_says_so() {
    let device = Device::flex();
    let mut model = CompletionNetConfig::new(1).with_levels(vec![2, 2]).init(&device);
    let score = &mut model.decoder[0].score.conv;
    score.bias = Some(Param::from_tensor(Tensor::from_floats([-1e6], &device)));
    let x = SparseTensor::from_support(surface(4), Tensor::ones([32, 1], &device)).unwrap();
    let error = model.try_forward(&x, None).unwrap_err();
    assert!(error.to_string().contains("give a target"), "{error}");
}

#[test]
fn the_transformer_keeps_rows_and_trains() {
    let device = Device::flex().autodiff();
    let config = PtV3Config::new(6, 5)
        .with_encoder_channels(vec![8, 16, 16])
        .with_encoder_depths(vec![2, 1, 1])
        .with_encoder_heads(vec![2, 4, 4])
        .with_decoder_channels(vec![8, 16])
        .with_decoder_depths(vec![1, 1])
        .with_decoder_heads(vec![2, 2])
        .with_patch_size(48);
    let model = seed_parameters(config.init(&device), 7);
    let x = tensor(&device, 13, 6);
    let y = model.forward(&x);
    assert!(y.same_coords(&x));
    assert_eq!(y.channels(), 5);
    assert!(finite(y.feats()));
    let [missing, seen] = without_gradient(&model, &square(y.into_feats()).backward());
    assert_eq!(missing, 0, "of {seen}");
    let none = SparseTensor::from_support(Support::try_new(vec![]).unwrap(), Tensor::zeros([0, 6], &device))
        .unwrap();
    assert_eq!(model.forward(&none).feats().dims(), [0, 5]);
}

#[test]
fn attention_does_not_depend_on_the_number_of_threads() {
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let device = Device::flex();
            let block = seed_parameters(PtBlockConfig::new(8, 2).init(&device), 9);
            let x = tensor(&device, 60, 8);
            // Enough scores for several tasks.
            let patches = Patches::new(x.support(), SerialOrder::Morton, 1000).unwrap();
            let y = block.forward(&x, &patches).into_feats().into_data();
            y.iter::<f32>().map(f32::to_bits).collect::<Vec<_>>()
        })
    };
    let one = run(1);
    assert!(one == run(2) && one == run(5));
}

#[test]
fn attention_follows_its_definition() {
    let device = Device::flex();
    let (channels, heads, size) = (6, 2, 10);
    let block = seed_parameters(PtBlockConfig::new(channels, heads).init(&device), 8).attention;
    let x = tensor(&device, 4, channels);
    let patches = Patches::new(x.support(), SerialOrder::Hilbert, size).unwrap();
    let found: Vec<f32> = block.try_forward(&x, &patches).unwrap().into_feats().into_data().iter().collect();
    let qkv: Vec<f32> = block.qkv.forward_feats(x.feats().clone()).into_data().iter().collect();
    let at = |row: u32, part: usize, head: usize, i: usize| {
        f64::from(qkv[row as usize * 3 * channels + part * channels + head * (channels / heads) + i])
    };
    let width = channels / heads;
    let mut mixed = vec![0f32; x.n_rows() * channels];
    // Each item has 16 rows: a patch of 10, and one of the last 6 filled with the rows at its last four slots in the first.
    let rows = lattice_models::serialize(x.support(), SerialOrder::Hilbert);
    for item in rows.splits.windows(2) {
        let rows = &rows.rows[item[0]..item[1]];
        assert_eq!(rows.len(), 16);
        let second: Vec<u32> = rows[10..].iter().chain(&rows[6..10]).copied().collect();
        for (own, keys) in [(&rows[..10], &rows[..10]), (&rows[10..], &second[..])] {
            for &row in own {
                for head in 0..heads {
                    let score = |key: u32| {
                        (0..width).map(|i| at(row, 0, head, i) * at(key, 1, head, i)).sum::<f64>()
                            / (width as f64).sqrt()
                    };
                    let weights: Vec<f64> = keys.iter().map(|&key| score(key).exp()).collect();
                    let total: f64 = weights.iter().sum();
                    for i in 0..width {
                        let sum: f64 =
                            keys.iter().zip(&weights).map(|(&key, w)| w * at(key, 2, head, i)).sum();
                        mixed[row as usize * channels + head * width + i] = (sum / total) as f32;
                    }
                }
            }
        }
    }
    let mixed = Tensor::<2>::from_data(TensorData::new(mixed, [x.n_rows(), channels]), &device);
    let expected: Vec<f32> = block.proj.forward_feats(mixed).into_data().iter().collect();
    let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-4, "{worst}");
}
