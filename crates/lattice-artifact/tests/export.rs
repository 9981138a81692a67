//! Modules and networks written as artifacts, read again and run: equal to the modules themselves.
#![allow(clippy::unwrap_used, reason = "tests")]

mod graphs;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, FloatDType, Tensor, TensorData};
use burn_lattice::nn::*;
use burn_lattice::ops::{self, GeluApproximation, PoolMode};
use burn_lattice::{Join, SparseTensor, Support};
use lattice_artifact::ir::Element;
use lattice_artifact::{
    Array, Arrays, Artifact, ExecuteOptions, Executor, Export, ExportDense, ExportGlobal, ExportOnto,
    GraphBuilder, Inputs, SparseValue, Tolerance, compare, export_network, network_refusal, physical_rows,
};
use lattice_models::{
    MINKUNET_NAMES, MinkUNetConfig, ModelSpec, Network, SecondEncoderConfig, SparseResNetConfig,
    seed_parameters,
};

const TOLERANCE: Tolerance = Tolerance { rtol: 1e-4, atol: 1e-4 };

fn wave(n: usize, phase: usize) -> Vec<f32> {
    (0..n).map(|i| (((i + phase) * 37 % 101) as f32 - 50.0) / 50.0).collect()
}

/// A rough surface in two batch items.
fn surface(side: i32, channels: usize) -> SparseTensor {
    let rows: Vec<[i32; 4]> = (0..2)
        .flat_map(|b| {
            (0..side).flat_map(move |x| (0..side).map(move |y| [b, x - 3, y, (x * x + 3 * y + b) % 7]))
        })
        .collect();
    let (device, n) = (Device::flex(), rows.len());
    let feats = Tensor::from_data(TensorData::new(wave(n * channels, 0), [n, channels]), &device);
    SparseTensor::from_support(Support::try_new(rows).unwrap(), feats).unwrap()
}

/// Gives every vector values of its own, positive ones for statistics and scales: modules begin with zeros and ones.
struct Varied(usize);

impl ModuleMapper for Varied {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, tensor, mapper) = param.consume();
        if D > 1 {
            return Param::from_mapped_value(id, tensor, mapper);
        }
        self.0 += 1;
        let dims = tensor.dims();
        let values: Vec<f32> = wave(dims[0], self.0).into_iter().map(|v| 1.0 + 0.3 * v).collect();
        let fresh = Tensor::from_data(TensorData::new(values, dims), (&tensor.device(), tensor.dtype()));
        Param::from_mapped_value(id, fresh, mapper)
    }
}

fn varied<M: Module>(module: M) -> M {
    seed_parameters(module, 5).map(&mut Varied(0))
}

fn parts(name: &str, x: &SparseTensor) -> Arrays {
    let values: Vec<f32> = x.feats().clone().into_data().iter::<f32>().collect();
    let dims = x.feats().dims();
    [
        (format!("{name}.coords"), Array::from_coords(&physical_rows(x).unwrap())),
        (format!("{name}.features"), Array::from_f32(&dims, &values).unwrap()),
        (format!("{name}.active"), Array::from_i32(&[1], &[dims[0] as i32]).unwrap()),
    ]
    .into_iter()
    .collect()
}

/// Saves and loads an artifact.
fn reloaded(artifact: &Artifact) -> Artifact {
    let folder = tempfile::tempdir().unwrap();
    artifact.save(folder.path()).unwrap();
    let names: std::collections::BTreeSet<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["graph.mlir", "weights.safetensors"]);
    let again = Artifact::load(folder.path()).unwrap();
    assert_eq!(again.graph(), artifact.graph());
    assert_eq!(again.weights().bytes(), artifact.weights().bytes());
    assert!(again.extra_tensors().is_empty());
    again
}

fn run(artifact: Artifact, inputs: &Inputs) -> Arrays {
    let executor = Executor::new(artifact, &graphs::devices::chosen(), ExecuteOptions::default());
    executor.run(inputs).unwrap().to_arrays().unwrap().into_iter().collect()
}

/// The input `x`, where graphs run.
fn where_graphs_run(x: &SparseTensor) -> Inputs {
    Inputs::new().sparse("x", x.to_device(&graphs::devices::chosen()))
}

#[track_caller]
fn agrees(found: &Arrays, expected: &Arrays, tolerance: Tolerance) {
    for comparison in compare(found, expected, tolerance) {
        assert!(comparison.agrees, "{comparison:?}");
        assert!(comparison.values > 0, "{comparison:?}");
    }
}

/// Exports what `add` adds after the input `x`, and compares it with `y`.
#[track_caller]
fn round_trip(
    x: &SparseTensor,
    y: &SparseTensor,
    add: impl FnOnce(&mut GraphBuilder, SparseValue) -> SparseValue,
) {
    let mut graph = GraphBuilder::new(Element::F32).unwrap();
    let input = graph.sparse_input("x", Some(x.channels()), x.stride());
    let output = add(&mut graph, input);
    graph.sparse_output("y", output);
    let artifact = reloaded(&graph.finish().unwrap());
    agrees(&run(artifact, &where_graphs_run(x)), &parts("y", y), TOLERANCE);
}

#[test]
fn every_convolution_module_is_exported() {
    let device = Device::flex();
    let x = surface(9, 4);
    let fine = x.with_stride([2, 2, 2]).unwrap();
    let subm = varied(
        SubmConv3dConfig::new([4, 6]).with_kernel_size([3, 1, 3]).with_dilation([2, 1, 1]).init(&device),
    );
    round_trip(&x, &subm.forward(&x), |g, x| subm.export(g, x).unwrap());
    let conv = varied(Conv3dConfig::new([4, 6]).with_stride([2, 1, 2]).with_padding([1, 0, 0]).init(&device));
    round_trip(&x, &conv.forward(&x), |g, x| conv.export(g, x).unwrap());
    let plain = varied(Conv3dConfig::new([4, 6]).with_kernel_size([1; 3]).with_bias(false).init(&device));
    round_trip(&x, &plain.forward(&x), |g, x| plain.export(g, x).unwrap());
    let up = varied(ConvTranspose3dConfig::new([4, 6]).with_kernel_size([3, 2, 2]).init(&device));
    round_trip(&fine, &up.forward(&fine), |g, x| up.export(g, x).unwrap());
    let grown = varied(GenerativeConvTranspose3dConfig::new([4, 6]).init(&device));
    round_trip(&fine, &grown.forward(&fine), |g, x| grown.export(g, x).unwrap());
    let subm = varied(NormalizedSubmConv3dConfig::new([4, 6]).init(&device));
    round_trip(&x, &subm.forward(&x), |g, x| subm.export(g, x).unwrap());
    let up = varied(NormalizedConvTranspose3dConfig::new([4, 6]).init(&device));
    round_trip(&fine, &up.forward(&fine), |g, x| up.export(g, x).unwrap());
    let grown = varied(NormalizedGenerativeConvTranspose3dConfig::new([4, 6]).init(&device));
    round_trip(&fine, &grown.forward(&fine), |g, x| grown.export(g, x).unwrap());
    // Groups are written out, as the format has none.
    let grouped = varied(SubmConv3dConfig::new([4, 6]).with_groups(2).init(&device));
    round_trip(&x, &grouped.forward(&x), |g, x| grouped.export(g, x).unwrap());
    let depthwise = varied(Conv3dConfig::new([4, 4]).with_groups(4).with_stride([2; 3]).init(&device));
    round_trip(&x, &depthwise.forward(&x), |g, x| depthwise.export(g, x).unwrap());
}

#[test]
fn modules_onto_a_target_are_exported() {
    let device = Device::flex();
    let x = surface(9, 4);
    let down = varied(Conv3dConfig::new([4, 4]).with_kernel_size([2; 3]).with_stride([2; 3]).init(&device));
    let coarse = down.forward(&x);
    let target = Target::from(&x);
    let both = |g: &mut GraphBuilder,
                x: SparseValue,
                module: &dyn Fn(&mut GraphBuilder, SparseValue, SparseValue) -> SparseValue| {
        let coarse = g.scope("down", |g| down.export(g, x)).unwrap();
        g.scope("up", |g| module(g, coarse, x))
    };
    let up = varied(ConvTranspose3dConfig::new([4, 6]).init(&device));
    let y = up.forward_onto(&coarse, &target);
    round_trip(&x, &y, |g, x| both(g, x, &|g, coarse, x| up.export_onto(g, coarse, x).unwrap()));
    let inverse = varied(ConvTranspose3dConfig::new([4, 6]).with_inverse(true).init(&device));
    let y = inverse.forward(&coarse);
    round_trip(&x, &y, |g, x| both(g, x, &|g, coarse, x| inverse.export_onto(g, coarse, x).unwrap()));
    let normal = varied(NormalizedConvTranspose3dConfig::new([4, 6]).init(&device));
    let y = normal.forward_onto(&coarse, &target);
    round_trip(&x, &y, |g, x| both(g, x, &|g, coarse, x| normal.export_onto(g, coarse, x).unwrap()));
    let pool = PoolTranspose3dConfig::new().init();
    let y = pool.forward_onto(&coarse, &target);
    round_trip(&x, &y, |g, x| both(g, x, &|g, coarse, x| pool.export_onto(g, coarse, x).unwrap()));
    let linear = TrilinearUpsample3dConfig::new().init();
    let y = linear.forward_onto(&coarse, &target);
    round_trip(&x, &y, |g, x| both(g, x, &|g, coarse, x| linear.export_onto(g, coarse, x).unwrap()));
    let conv = varied(Conv3dConfig::new([4, 6]).init(&device));
    let moved = conv.forward_onto(&x, &target);
    round_trip(&x, &moved, |g, x| conv.export_onto(g, x, x).unwrap());
    // An inverse convolution alone does not say where it goes.
    let mut graph = GraphBuilder::new(Element::F32).unwrap();
    let input = graph.sparse_input("x", Some(4), [2; 3]);
    let error = inverse.export(&mut graph, input).unwrap_err().to_string();
    assert!(error.contains("skip tensor as target"), "{error}");
}

#[test]
fn modules_of_features_and_pools_are_exported() {
    let device = Device::flex();
    let x = surface(9, 4);
    let sequence: Vec<Box<dyn Export>> = vec![
        Box::new(varied(LinearConfig::new([4, 8]).init(&device))),
        Box::new(varied(LayerNormConfig::new(8).init(&device))),
        Box::new(GeluConfig::new().with_approximation(GeluApproximation::Tanh).init()),
        Box::new(varied(RmsNormConfig::new(8).init(&device))),
        Box::new(Silu::new()),
        Box::new(varied(BatchNormConfig::new(8).with_affine(false).init(&device))),
        Box::new(LeakyReluConfig::new().with_negative_slope(0.2).init()),
        Box::new(SoftplusConfig::new().with_beta(1.5).init()),
        Box::new(DropoutConfig::new().init()),
        Box::new(Tanh::new()),
        Box::new(MaxPool3dConfig::new().init()),
        Box::new(Sigmoid::new()),
    ];
    // The same modules by hand, as boxed exports do not run.
    let mut y = varied(LinearConfig::new([4, 8]).init(&device)).forward(&x);
    y = varied(LayerNormConfig::new(8).init(&device)).forward(&y);
    y = GeluConfig::new().with_approximation(GeluApproximation::Tanh).init().forward(&y);
    y = varied(RmsNormConfig::new(8).init(&device)).forward(&y);
    y = Silu::new().forward(&y);
    y = varied(BatchNormConfig::new(8).with_affine(false).init(&device)).forward(y);
    y = LeakyReluConfig::new().with_negative_slope(0.2).init().forward(&y);
    y = SoftplusConfig::new().with_beta(1.5).init().forward(&y);
    y = Tanh::new().forward(&y);
    y = MaxPool3dConfig::new().init().forward(&y);
    y = Sigmoid::new().forward(&y);
    round_trip(&x, &y, |g, x| sequence.export(g, x).unwrap());
    for mode in [PoolMode::Sum, PoolMode::Avg, PoolMode::Max] {
        let pool = Pool3dConfig::new(mode).with_kernel_size([3, 2, 2]).with_padding([0, 1, 0]).init();
        round_trip(&x, &pool.forward(&x), |g, x| pool.export(g, x).unwrap());
    }
    let pair = (Relu::new(), SumPool3dConfig::new().init());
    round_trip(&x, &pair.1.forward(&pair.0.forward(&x)), |g, x| pair.export(g, x).unwrap());
}

/// A network of one's own: a classifier with a skip, written for export by its forward pass.
#[derive(Module, Debug)]
struct Classifier {
    stem: ConvBlock,
    wide: ConvBlock,
    head: Linear,
}

impl Classifier {
    fn forward(&self, x: &SparseTensor) -> Tensor<2> {
        let y = self.stem.forward(x);
        let z = self.wide.forward_residual(&y, &y);
        let joined = ops::cat(&[y, z], Join::Inner).unwrap();
        self.head.forward_feats(GlobalAvgPool::new().forward(&joined))
    }
}

impl Classifier {
    fn export(&self, g: &mut GraphBuilder, x: SparseValue) -> lattice_artifact::DenseValue {
        let y = g.scope("stem", |g| self.stem.export(g, x)).unwrap();
        let z = g.scope("wide", |g| lattice_artifact::export_block(&self.wide, g, y, None, Some(y))).unwrap();
        let joined = g.cat(y, z, Join::Inner);
        let pooled = GlobalAvgPool::new().export_global(g, joined);
        g.scope("head", |g| self.head.export_dense(g, pooled)).unwrap()
    }
}

#[test]
fn a_network_of_ones_own_is_exported() {
    let device = Device::flex();
    let block = |c: [usize; 2]| {
        ConvBlockConfig::new(c).with_activation(BlockActivation::LeakyRelu(0.1)).init_subm(&device)
    };
    let net = varied(Classifier {
        stem: block([4, 8]),
        wide: block([8, 8]),
        head: LinearConfig::new([16, 5]).init(&device),
    });
    let x = surface(9, 4);
    let mut graph = GraphBuilder::new(Element::F32).unwrap();
    let input = graph.sparse_input("x", Some(4), [1; 3]);
    let scores = net.export(&mut graph, input);
    let shares = graph.softmax(scores);
    graph.dense_output("scores", scores);
    graph.dense_output("shares", shares);
    let artifact = reloaded(&graph.finish().unwrap());
    // Weights are named as in the module.
    let keys: Vec<&str> = artifact.plan().weights.iter().map(|w| w.key.as_str()).collect();
    for key in ["stem.conv.weight", "stem.norm.gamma", "wide.norm.running_var", "head.weight", "head.bias"] {
        assert!(keys.contains(&key), "{keys:?}");
    }
    let scores = net.forward(&x);
    let values = |t: &Tensor<2>| {
        Array::from_f32(&t.dims(), &t.clone().into_data().iter::<f32>().collect::<Vec<_>>()).unwrap()
    };
    let shares = burn::tensor::activation::softmax(scores.clone(), 1);
    let expected: Arrays = [("scores".to_owned(), values(&scores)), ("shares".to_owned(), values(&shares))]
        .into_iter()
        .collect();
    agrees(&run(artifact, &where_graphs_run(&x)), &expected, TOLERANCE);
}

fn network_agrees(network: &Network, x: &SparseTensor, levels: &[(&str, SparseTensor)]) {
    let artifact = reloaded(&export_network(network, x.channels(), Element::F32).unwrap());
    let mut expected = Arrays::new();
    levels.iter().for_each(|(name, level)| expected.extend(parts(name, level)));
    // Many layers: sums in another order than those of folded norms.
    let tolerance = Tolerance { rtol: 2e-3, atol: 2e-3 };
    agrees(&run(artifact, &where_graphs_run(x)), &expected, tolerance);
}

#[test]
fn every_minkunet_of_the_list_is_exported_and_agrees() {
    let device = Device::flex();
    for name in MINKUNET_NAMES {
        let x = surface(14, 3);
        // Narrow ones have the same layers.
        let unet = varied(MinkUNetConfig::named(name, 3, 5).unwrap().with_width(0.125).init(&device));
        let y = unet.forward(&x);
        network_agrees(&Network::MinkUNet(unet), &x, &[("scores", y)]);
    }
}

#[test]
fn encoders_are_exported_and_agree() {
    let device = Device::flex();
    let x = surface(20, 3);
    let resnet = varied(SparseResNetConfig::new(3).with_width(0.25).init(&device));
    let levels = resnet.forward(&x);
    let names = ["level0", "level1", "level2", "level3", "level4"];
    let named: Vec<(&str, SparseTensor)> = names.into_iter().zip(levels).collect();
    network_agrees(&Network::SparseResNet(resnet), &x, &named);

    let shifted = x.support().to_host().coords().iter().map(|&[b, x, y, z]| [b, x + 3, y, z]).collect();
    let x = SparseTensor::from_support(Support::try_new(shifted).unwrap(), x.into_feats()).unwrap();
    for residual in [false, true] {
        let config = SecondEncoderConfig::new(3, [24, 24, 8]).with_levels([4, 6, 8, 8]).with_out_channels(12);
        let encoder = varied(config.with_residual(residual).with_kernel_reach(false).init(&device));
        let named: Vec<(&str, SparseTensor)> = names.into_iter().zip(encoder.forward(&x).levels).collect();
        network_agrees(&Network::Second(encoder), &x, &named);
    }
}

#[test]
fn networks_that_cannot_be_expressed_say_why() {
    let device = Device::flex();
    for (name, reason) in [
        ("spvcnn", "no operation of the format adds dense rows"),
        ("ptv3-block", "the format has no attention"),
        ("voxelnext", "merges levels"),
        ("voxelbackbone8x", "kernel_reach"),
    ] {
        let network = ModelSpec::new(name.into(), 4).init(&device).unwrap();
        assert_eq!(network_refusal(&network).is_some(), name != "voxelbackbone8x");
        let error = export_network(&network, 4, Element::F32).unwrap_err().to_string();
        assert!(error.contains(reason), "{name}: {error}");
    }
    let mut graph = GraphBuilder::new(Element::F32).unwrap();
    let x = graph.sparse_input("x", Some(4), [1; 3]);
    let norm = BatchNormConfig::new(4).with_track_running_stats(false).init(&device);
    assert!(norm.export(&mut graph, x).unwrap_err().to_string().contains("statistics"));
    assert!(GraphBuilder::new(Element::I32).unwrap_err().to_string().contains("f32, f16 or bf16"));
    assert!(graph.finish().unwrap_err().to_string().contains("at least one result"));
}

#[test]
fn mistakes_of_a_built_graph_have_a_line() {
    let mut graph = GraphBuilder::new(Element::F32).unwrap();
    let x = graph.sparse_input("x", Some(4), [1; 3]);
    let w = Array::from_f32(&[4, 2, 2, 2, 4], &[0.0; 128]).unwrap();
    let weight = graph.weight("w", lattice_artifact::Family::Conv3d, &w).unwrap();
    let even = burn_lattice::KernelSpec::cube(2, 1).unwrap();
    let y = graph.subm_conv3d(x, (weight, None), &even, None);
    graph.sparse_output("y", y);
    let error = graph.finish().unwrap_err().to_string();
    assert!(
        error.contains("subm_conv3d: expected an odd kernel_size") && error.contains("graph: 1"),
        "{error}"
    );

    let mut graph = GraphBuilder::new(Element::F32).unwrap();
    let bias = |value: f32| Array::from_f32(&[1], &[value]).unwrap();
    let first = graph.weight("b", lattice_artifact::Family::Bias, &bias(1.0)).unwrap();
    assert_eq!(graph.weight("b", lattice_artifact::Family::Bias, &bias(1.0)).unwrap(), first);
    let error = graph.weight("b", lattice_artifact::Family::Bias, &bias(2.0)).unwrap_err().to_string();
    assert!(error.contains("weight `b`") && error.contains("two that differ"), "{error}");
}

#[test]
fn half_precision_networks_are_exported_and_agree() {
    let device = Device::flex();
    let unet = varied(MinkUNetConfig::named("minkunet14a", 3, 5).unwrap().with_width(0.125).init(&device));
    let x = surface(14, 3).astype(FloatDType::F16);
    let wide = x.astype(FloatDType::F32);
    let y = unet.forward(&wide);
    for (element, rounded, tolerance) in
        [(Element::F16, FloatDType::F16, 3e-2), (Element::Bf16, FloatDType::BF16, 2e-1)]
    {
        let artifact = reloaded(&export_network(&Network::MinkUNet(unet.clone()), 3, element).unwrap());
        assert!(
            artifact.plan().weights.iter().enumerate().all(|(i, _)| artifact.stored(i).element == element)
        );
        let mut found = run(artifact, &where_graphs_run(&x.astype(rounded)));
        let features = found["scores.features"].clone();
        assert_eq!(features.element(), element);
        let values = Array::from_f32(features.dims(), &features.to_f32().unwrap()).unwrap();
        found.insert("scores.features".into(), values);
        agrees(&found, &parts("scores", &y), Tolerance { rtol: tolerance, atol: tolerance });
    }
}

#[test]
fn results_are_compared_as_sets_of_rows() {
    let rows = [[0, 1, 2, 3], [0, 4, 5, 6], [1, 0, 0, 0]];
    let result = |order: [usize; 3], values: [f32; 3], active: i32| -> Arrays {
        [
            ("y.coords".to_owned(), Array::from_coords(&order.map(|i| rows[i]))),
            ("y.features".to_owned(), Array::from_f32(&[3, 1], &values).unwrap()),
            ("y.active".to_owned(), Array::from_i32(&[1], &[active]).unwrap()),
        ]
        .into_iter()
        .collect()
    };
    let one = |found: &Arrays, expected: &Arrays| {
        let mut all = compare(found, expected, Tolerance { rtol: 0.0, atol: 0.01 });
        assert_eq!(all.len(), 1);
        all.remove(0)
    };
    let expected = result([0, 1, 2], [1.0, 2.0, 3.0], 3);
    assert!(one(&result([2, 0, 1], [3.0, 1.0, 2.0], 3), &expected).agrees);
    let off = one(&result([2, 0, 1], [3.0, 1.5, 2.001], 3), &expected);
    assert_eq!((off.agrees, off.differing, off.values), (false, 1, 3));
    let worst = off.worst.unwrap();
    assert_eq!(
        (worst.at.as_slice(), worst.channel, worst.found, worst.expected),
        (&[0i64, 1, 2, 3][..], Some(0), 1.5, 1.0)
    );
    // Rows past the active ones do not count.
    assert!(one(&result([2, 0, 1], [3.0, 1.0, 9.0], 2), &result([0, 2, 1], [1.0, 3.0, 7.0], 2)).agrees);
    let missing = one(&result([0, 1, 2], [1.0, 2.0, 3.0], 2), &expected);
    assert!(missing.fault.unwrap().contains("1 of them missing, such as [1, 0, 0, 0]"));
    let nan = one(&result([0, 1, 2], [1.0, f32::NAN, 3.0], 3), &expected);
    assert_eq!((nan.agrees, nan.worst.unwrap().at.len()), (false, 4));
    let dense = |v: &[f32]| -> Arrays {
        [("d".to_owned(), Array::from_f32(&[v.len()], v).unwrap())].into_iter().collect()
    };
    assert!(one(&dense(&[1.0, f32::INFINITY]), &dense(&[1.0, f32::INFINITY])).agrees);
    assert!(!one(&dense(&[1.0]), &dense(&[1.0, 2.0])).agrees);
    assert!(compare(&Arrays::new(), &dense(&[1.0]), TOLERANCE).iter().any(|c| !c.agrees));
    assert!(compare(&dense(&[1.0]), &Arrays::new(), TOLERANCE).iter().any(|c| !c.agrees));
}

#[test]
fn what_follows_a_convolution_runs_in_its_pass_and_gives_the_same() {
    let device = Device::flex();
    let x = surface(14, 3);
    let unet = varied(MinkUNetConfig::named("minkunet14a", 3, 5).unwrap().with_width(0.125).init(&device));
    let artifact = std::sync::Arc::new(export_network(&Network::MinkUNet(unet), 3, Element::F32).unwrap());
    let device = graphs::devices::chosen();
    let run = |fuse: bool| {
        let executor = Executor::new(artifact.clone(), &device, ExecuteOptions::default().with_fuse(fuse));
        // The second call finds its weights and folded norms made.
        executor.run(&where_graphs_run(&x)).unwrap();
        let (outputs, records) = burn_lattice::trace::record(|| executor.run(&where_graphs_run(&x)).unwrap());
        (outputs.to_arrays().unwrap().into_iter().collect::<Arrays>(), records.len())
    };
    let ((fused, few), (apart, many)) = (run(true), run(false));
    agrees(&fused, &apart, Tolerance { rtol: 2e-3, atol: 2e-3 });
    // Of the recorded operations the sums of residuals are no longer ones of their own; one a residual block.
    assert_eq!(many - few, 8);
    let nodes = lattice_artifact::describe(&artifact, &device);
    assert!(nodes.iter().filter(|n| n.op == "batch_norm").all(|n| n.route == "fused"));
    assert!(nodes.iter().filter(|n| n.op == "sparse.binary").all(|n| n.route == "fused"));
    assert!(nodes.iter().filter(|n| n.op == "sparse.cat").all(|n| n.route == "row_mix"));
}

#[test]
fn what_other_operations_read_is_not_fused_away() {
    let device = Device::flex();
    let x = surface(9, 4);
    let other = surface(7, 8);
    let conv = varied(SubmConv3dConfig::new([4, 8]).init(&device));
    let norm = varied(BatchNormConfig::new(8).init(&device));
    let mut graph = GraphBuilder::new(Element::F32).unwrap();
    let input_x = graph.sparse_input("x", Some(4), [1; 3]);
    let input_o = graph.sparse_input("o", Some(8), [1; 3]);
    let y = graph.scope("conv", |g| conv.export(g, input_x)).unwrap();
    let z = graph.scope("norm", |g| norm.export(g, y)).unwrap();
    // The sum's rows are not the convolution's, which is known when it runs alone.
    let sum = graph.binary(z, input_o, ops::BinaryOp::Add, Join::Inner);
    let last = Relu::new().export(&mut graph, sum).unwrap();
    graph.sparse_output("last", last);
    let alone = graph.scope("again", |g| conv.export(g, input_x)).unwrap();
    let seen = graph.scope("again", |g| norm.export(g, alone)).unwrap();
    graph.sparse_output("alone", alone);
    graph.sparse_output("seen", seen);
    let artifact = reloaded(&graph.finish().unwrap());
    let y = conv.forward(&x);
    let z = norm.forward(y.clone());
    let sum = ops::sparse_add(&z, &other, Join::Inner).unwrap();
    let mut expected = parts("last", &Relu::new().forward(&sum));
    expected.extend(parts("alone", &y));
    expected.extend(parts("seen", &z));
    let given = where_graphs_run(&x).sparse("o", other.to_device(&graphs::devices::chosen()));
    agrees(&run(artifact, &given), &expected, TOLERANCE);
}
