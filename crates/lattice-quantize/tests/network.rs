//! A whole network through the pass, calibration and files, and files that lie.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, HashMap};

use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_lattice::SparseTensor;
use burn_lattice::nn::Layers;
use burn_lattice::quantized::{CalibrationMethod, Granularity};
use burn_lattice::{Support, routes, trace};
use lattice_models::{MinkUNet, MinkUNetConfig, ModelSpec, Network, seed_parameters, zoo};
use lattice_quantize::*;
use rstest::rstest;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

fn device() -> Device {
    Device::default()
}

/// A network whose norms have statistics of their own, so that folding changes something.
fn network() -> MinkUNet {
    let mut net = seed_parameters(MinkUNetConfig::named("minkunet-small", 5, 7).unwrap().init(&device()), 3);
    let mut at = 0.0f32;
    let mut move_norm = |block: &mut burn_lattice::nn::ConvBlock| {
        if let Some(norm) = &block.norm {
            at += 0.1;
            let channels = norm.running_mean.value().dims();
            norm.running_mean.set(Tensor::full(channels, 0.05 * at.sin(), &device()));
            norm.running_var.set(Tensor::full(channels, 1.0 + 0.5 * at.cos(), &device()));
        }
    };
    net.stem.iter_mut().for_each(&mut move_norm);
    net.encoder.iter_mut().for_each(|stage| move_norm(&mut stage.down));
    net
}

fn input() -> SparseTensor {
    let coords: Vec<[i32; 4]> = (0..2000)
        .map(|i: i32| [0, i * 7 % 41, i * 13 % 37, (i * i) % 11])
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect();
    let n = coords.len();
    let values: Vec<f32> = (0..n * 5).map(|i| ((i * 37) % 101) as f32 / 50.0 - 1.0).collect();
    let feats = Tensor::from_data(TensorData::new(values, [n, 5]), (&device(), DType::F32));
    SparseTensor::from_support(Support::try_new(coords).unwrap(), feats).unwrap()
}

fn values(y: &SparseTensor) -> Vec<f32> {
    y.feats().clone().into_data().iter::<f32>().collect()
}

fn relative(found: &[f32], expected: &[f32]) -> f64 {
    let sum = |f: &dyn Fn(usize) -> f64| (0..expected.len()).map(|i| f(i).powi(2)).sum::<f64>();
    (sum(&|i| f64::from(found[i] - expected[i])) / sum(&|i| f64::from(expected[i]))).sqrt()
}

/// Folded and packed, with ranges where asked for.
fn packed(bits: u32, granularity: Option<Granularity>) -> (MinkUNet, Vec<Decision>) {
    let mut net = network();
    fold_norms(&mut net);
    let options = PassOptions::new(bits);
    let decisions = plan(&mut net, &options).unwrap();
    let ranges = match granularity {
        None => Ranges::new(),
        Some(granularity) => calibrate(
            &mut net,
            CalibrationMethod::MinMax,
            granularity,
            |_| true,
            |net| {
                net.try_forward(&input()).unwrap();
                Ok::<_, QuantizeError>(())
            },
        )
        .unwrap(),
    };
    pack(&mut net, &decisions, &options, &ranges).unwrap();
    (net, decisions)
}

#[rstest]
#[case::eight_bits(8, None, 0.02)]
#[case::four_bits(4, None, 0.25)]
#[case::bytes(8, Some(Granularity::PerTensor), 0.15)]
#[case::bytes_a_channel(8, Some(Granularity::PerChannel), 0.15)]
fn a_packed_network_stays_close_and_its_file_gives_the_same_bits(
    #[case] bits: u32,
    #[case] granularity: Option<Granularity>,
    #[case] most: f64,
) {
    let x = input();
    let float = values(&network().try_forward(&x).unwrap());
    let (mut net, _) = packed(bits, granularity);
    let (y, records) = trace::record(|| net.try_forward(&x).unwrap());
    assert!(y.support().same_identity(x.support()));
    let error = relative(&values(&y), &float);
    assert!(error < most && error > 1e-6, "{error}");
    let ran = |route: &str| records.iter().filter(|r| r.route == route).count();
    let bytes = ran("packed_int8");
    assert!(ran("packed_panels") > 5 && ran("packed_panels") + bytes > 15);
    assert!(granularity.is_some() || bytes == 0);
    if granularity.is_some() && lattice_cpu::multiplies_bytes() {
        assert!(bytes > 5, "{bytes} layers of 48 channels and more");
    }
    // The float routes on the dequantized weights.
    if granularity.is_none() {
        let _forced = routes::force("dequantize").unwrap();
        let dequantized = values(&net.try_forward(&x).unwrap());
        assert!(relative(&values(&y), &dequantized) < 1e-5);
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.safetensors");
    let texts = BTreeMap::from([("lattice.model".to_owned(), "{}".to_owned())]);
    let bytes = save(&mut net, &path, &texts).unwrap();
    assert_eq!(bytes as u64, std::fs::metadata(&path).unwrap().len());
    assert_eq!(texts_of(&std::fs::read(&path).unwrap()), texts);
    let blank = seed_parameters(MinkUNetConfig::named("minkunet-small", 5, 7).unwrap().init(&device()), 9);
    let mut again = load(blank, &path, &device()).unwrap();
    // Kept layers are stored in half precision, so that the bits of what was loaded are those that count.
    let first = values(&again.try_forward(&x).unwrap());
    assert!(relative(&first, &values(&y)) < 0.02);
    let second = folder.path().join("again.safetensors");
    save(&mut again, &second, &texts).unwrap();
    let blank = MinkUNetConfig::named("minkunet-small", 5, 7).unwrap().init(&device());
    let twice = load(blank, &second, &device()).unwrap();
    assert_eq!(values(&twice.try_forward(&x).unwrap()), first);
    assert!(tensors(&path) == tensors(&second));
}

/// Every tensor of a file; the texts of its metadata are in no order.
fn tensors(path: &std::path::Path) -> BTreeMap<String, (Vec<usize>, Vec<u8>)> {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.iter().map(|(name, v)| (name.to_owned(), (v.shape().to_vec(), v.data().to_vec()))).collect()
}

#[test]
fn folding_alone_changes_nothing_but_rounding() {
    let x = input();
    let mut net = network();
    let before = values(&net.try_forward(&x).unwrap());
    let folded = fold_norms(&mut net);
    assert!(folded.contains(&"encoder.0.down.conv".to_owned()) && !folded.contains(&"head.conv".to_owned()));
    assert!(relative(&values(&net.try_forward(&x).unwrap()), &before) < 1e-4);
}

#[test]
fn every_layer_is_decided_on_and_ends_stay_float() {
    let (mut net, decisions) = packed(4, None);
    let mut paths = Vec::new();
    net.visit_layers("", &mut |layer| paths.push((layer.path().to_owned(), layer.packed().is_some())));
    assert_eq!(paths, decisions.iter().map(|d| (d.path.clone(), d.is_packed())).collect::<Vec<_>>());
    let reason = |path: &str| match &decisions.iter().find(|d| d.path == path).unwrap().action {
        Action::Keep { reason } => reason.clone(),
        Action::Pack(_) => "packed".into(),
    };
    assert!(reason("stem.0.conv").contains("rows of 5 channels"));
    assert!(reason("head.conv").contains("last layer"));
    assert_eq!(reason("decoder.3.up.conv"), "packed");
    let again = plan(&mut net, &PassOptions::new(4)).unwrap();
    assert!(again.iter().all(|d| !d.is_packed()));
}

#[test]
fn layer_errors_are_those_of_packing() {
    let mut net = network();
    fold_norms(&mut net);
    let options = PassOptions::new(8);
    let decisions = plan(&mut net, &options).unwrap();
    let float = weights_of(&mut net);
    pack(&mut net, &decisions, &options, &Ranges::new()).unwrap();
    let run = |net: &MinkUNet| {
        net.try_forward(&input()).unwrap();
        Ok::<_, QuantizeError>(())
    };
    let errors = layer_errors(&mut net, &float, run).unwrap();
    assert_eq!(errors.len(), decisions.iter().filter(|d| d.is_packed()).count());
    for error in errors {
        assert!(error.to_dequantized < 1e-5, "{error:?}");
        assert!(error.to_float > 1e-4 && error.to_float < 0.02 && error.rows > 0, "{error:?}");
    }
    assert!(layer_errors(&mut net, &BTreeMap::new(), run).unwrap_err().to_string().contains("float weight"));
}

#[test]
fn minkunet18_takes_less_than_its_share() {
    for (bits, group, most) in [(8, None, 0.30), (4, Some(32), 0.17)] {
        let mut net = seed_parameters(MinkUNetConfig::named("minkunet18", 4, 20).unwrap().init(&device()), 0);
        fold_norms(&mut net);
        let mut options = PassOptions::new(bits);
        options.group_size = group;
        let decisions = plan(&mut net, &options).unwrap();
        pack(&mut net, &decisions, &options, &Ranges::new()).unwrap();
        let (stored, f32_bytes) = parameter_bytes(&mut net);
        let share = stored as f64 / f32_bytes as f64;
        assert!(f32_bytes > 80_000_000 && share < most, "{bits} bits: {share}");
    }
}

#[test]
fn every_network_of_the_list_can_be_packed() {
    for entry in zoo() {
        // One of each kind is enough: the MinkUNets differ in numbers alone.
        if entry.name.starts_with("minkunet") && entry.name != "minkunet14b"
            || entry.name == "sparseresunet42"
        {
            continue;
        }
        let mut spec = ModelSpec::new(entry.name.into(), 5);
        spec.grid = [64, 64, 41];
        let mut net: Network = spec.init(&device()).unwrap().seeded(1);
        let places: Vec<_> = net.parameters();
        fold_norms(&mut net);
        let options = PassOptions::new(8);
        let decisions = plan(&mut net, &options).unwrap();
        let matrices = places.iter().filter(|p| p.shape.len() > 1).count();
        assert_eq!(decisions.len(), matrices, "{}: every matrix is a layer", entry.name);
        for d in &decisions {
            let path = format!("{}.weight", d.path);
            assert!(places.iter().any(|p| p.path == path), "{}: {path}", entry.name);
        }
        assert!(decisions.iter().filter(|d| d.is_packed()).count() > 3, "{}", entry.name);
        // Every vector is the bias of a layer, of a norm that was folded, or listed.
        let kept = match &mut net {
            Network::MinkUNet(m) => kept_modules(m),
            Network::Spvcnn(m) => kept_modules(m),
            Network::PtV3(m) => kept_modules(m),
            Network::PtBlock(m) => kept_modules(m),
            Network::SparseResNet(m) => kept_modules(m),
            Network::Second(m) => kept_modules(m),
            Network::VoxelNext(m) => kept_modules(m),
            Network::Completion(m) => kept_modules(m),
        };
        let left: usize = net
            .parameters()
            .iter()
            .filter(|p| !decisions.iter().any(|d| p.path.starts_with(&format!("{}.", d.path))))
            .map(|p| p.shape.iter().product::<usize>())
            .sum();
        assert_eq!(kept.iter().map(|k| k.values).sum::<usize>(), left, "{}: {kept:?}", entry.name);
        assert!(kept.iter().all(|k| k.kind.ends_with("Norm")), "{}: {kept:?}", entry.name);
        assert!(entry.name != "minkunet14b" || kept.is_empty(), "{kept:?}");
        assert!(entry.name != "ptv3" || kept.iter().any(|k| k.kind == "LayerNorm"), "{kept:?}");
    }
}

/// A saved file, with some of it changed.
fn forged(
    change: impl FnOnce(&mut serde_json::Value, &mut BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>),
) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.safetensors");
    save(&mut packed(8, None).0, &path, &BTreeMap::new()).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let mut text: serde_json::Value = serde_json::from_str(&header.metadata().clone().unwrap()[KEY]).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: BTreeMap<_, _> = file
        .iter()
        .map(|(name, v)| (name.to_owned(), (v.dtype(), v.shape().to_vec(), v.data().to_vec())))
        .collect();
    change(&mut text, &mut tensors);
    let views: Vec<_> = tensors
        .iter()
        .map(|(n, (d, s, b))| (n.clone(), TensorView::new(*d, s.clone(), b).unwrap()))
        .collect();
    let metadata = HashMap::from([(KEY.to_owned(), text.to_string())]);
    let forged = safetensors::serialize(views, Some(metadata)).unwrap();
    let blank = MinkUNetConfig::named("minkunet-small", 5, 7).unwrap().init(&device());
    load_bytes(blank, &forged, "forged", &device()).map(|_| ()).unwrap_err().to_string()
}

const LAYER: &str = "encoder.1.down.conv";

#[test]
fn files_that_lie_are_refused() {
    type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;
    type Change = Box<dyn FnOnce(&mut serde_json::Value, &mut Tensors)>;
    let part = |part: &str| format!("{LAYER}.weight.{part}");
    let field = |name: &'static str, value: serde_json::Value| -> Change {
        Box::new(move |text, _| text["layers"][LAYER][name] = value)
    };
    let (words, scales, scales2, biases, words2) =
        (part("words"), part("scales"), part("scales"), part("biases"), part("words"));
    let cases: Vec<(Change, &[&str])> = vec![
        (field("bits", 5.into()), &["4 or 8 bits", "5"]),
        (field("bits", 4.into()), &["words [8, 4, 32]", "found [8, 8, 32]"]),
        (field("group_size", 48.into()), &["32, 64 or 128", "48"]),
        (field("in_channels", 1000.into()), &["words"]),
        (field("in_channels", 31.into()), &["input and output channels", "31"]),
        (field("out_channels", 33.into()), &["words [8, 8, 33]"]),
        (field("kernel_size", serde_json::json!([2, 2, 3])), &["words [12, 8, 32]"]),
        (field("kernel_size", serde_json::json!([8, 1, 1])), &["kernel size", "[2, 2, 2]"]),
        (field("layout", "sideways".into()), &["dense_5d", "sideways"]),
        (field("activations", "per_tensor".into()), &["activations", "found none"]),
        (Box::new(|text, _| text["version"] = 9.into()), &["version 1", "9"]),
        (
            Box::new(|text, _| text["layers"]["nowhere.conv"] = text["layers"][LAYER].clone()),
            &["`nowhere.conv`"],
        ),
        (Box::new(|text, _| text["layers"] = "none".into()), &["record of packed layers"]),
        (Box::new(move |_, t| drop(t.remove(&words))), &["expected the tensor", "words", "found none"]),
        (
            Box::new(move |_, t| t.get_mut(&scales).unwrap().2[..2].copy_from_slice(&[0, 0x7e])),
            &["scales", "finite"],
        ),
        (Box::new(move |_, t| t.get_mut(&scales2).unwrap().1 = vec![1, 8, 32]), &["scales [8, 1, 32]"]),
        (
            Box::new(move |_, t| {
                let (dtype, dims, bytes) = t.get_mut(&biases).unwrap();
                (*dtype, *bytes) = (Dtype::F32, vec![0; 4 * dims.iter().product::<usize>()]);
            }),
            &["biases"],
        ),
        (Box::new(move |_, t| t.get_mut(&words2).unwrap().0 = Dtype::F32), &["u32 words"]),
        (Box::new(|_, t| drop(t.remove("head.conv.bias"))), &["`head.conv.bias`", "found none"]),
        (Box::new(|_, t| drop(t.insert("extra".into(), (Dtype::F32, vec![1], vec![0; 4])))), &["`extra`"]),
    ];
    for (change, says) in cases {
        let text = forged(change);
        assert!(says.iter().all(|part| text.contains(part)), "expected {says:?} in: {text}");
    }
}

#[test]
fn what_is_no_such_file_is_refused() {
    let refused = |bytes: &[u8]| {
        let blank = MinkUNetConfig::named("minkunet-small", 5, 7).unwrap().init(&device());
        load_bytes(blank, bytes, "file", &device()).map(|_| ()).unwrap_err().to_string()
    };
    assert!(refused(b"").contains("complete .safetensors"));
    assert!(refused(&[255; 64]).contains("complete .safetensors"));
    let plain = safetensors::serialize(Vec::<(String, TensorView<'_>)>::new(), None).unwrap();
    assert!(refused(&plain).contains("packed weights"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.safetensors");
    save(&mut packed(4, None).0, &path, &BTreeMap::new()).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    assert!(refused(&bytes[..bytes.len() / 2]).contains("complete .safetensors"));
    let other = MinkUNetConfig::named("minkunet14", 5, 7).unwrap().init(&device());
    assert!(load(other, &path, &device()).is_err());
    assert!(
        load(network(), &folder.path().join("none"), &device())
            .unwrap_err()
            .to_string()
            .contains("check the path")
    );
}

#[test]
fn weights_that_are_not_finite_name_their_layer() {
    let mut net = network();
    net.visit_layers("", &mut |mut layer| {
        if layer.path() == LAYER {
            let weight = layer.float_weight().unwrap();
            layer.set_float(weight * f32::NAN);
        }
    });
    let options = PassOptions::new(8);
    let decisions = plan(&mut net, &options).unwrap();
    let error = pack(&mut net, &decisions, &options, &Ranges::new()).unwrap_err().to_string();
    assert!(error.contains(LAYER) && error.contains("finite weights"), "{error}");
    let mut options = options;
    options.bits = 3;
    assert!(plan(&mut net, &options).unwrap_err().to_string().contains("4 or 8 bits"));
}
