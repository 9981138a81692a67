//! Whole checkpoints: read, renamed, laid out anew, written, loaded; and what is refused.
#![allow(clippy::unwrap_used, reason = "tests")]

mod foreign;

use std::path::PathBuf;

use burn::tensor::{Device, Tensor, TensorData};
use burn_store::{ModuleSnapshot, SafetensorsStore};
use foreign::{Values, laid_out, minkowski_names, parameters, pth, torch_norms};
use lattice_import::{
    ImportError, Imported, Library, MODEL_KEY, Mapping, Stored, Tensors, WeightLayout, import, import_file,
    model_of,
};
use lattice_models::{ModelSpec, Network};

fn stored(values: &Values) -> Tensors {
    values.iter().map(|(name, (shape, v))| (name.clone(), Stored::from_f32(shape.clone(), v))).collect()
}

/// Every parameter came back as it was.
fn assert_same(imported: &Imported, spec: &ModelSpec, what: &str) {
    let expected = parameters(spec);
    assert_eq!(imported.parameters.len(), expected.len(), "{what}");
    for (place, values) in expected {
        let (shape, found) = &imported.parameters[&place.path];
        assert_eq!(*shape, place.shape, "{what}: {}", place.path);
        assert!(*found == values, "{what}: values of {}", place.path);
    }
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

/// Names that OpenPCDet gives to VoxelBackBone8x.
fn openpcdet(values: Values) -> Values {
    let rename = |name: &str| {
        if let Some(rest) = name.strip_prefix("last.") {
            return format!("conv_out.{}", rest.replace("conv.", "0.").replace("norm.", "1."));
        }
        let (level, rest) = name.strip_prefix("levels.").unwrap().split_once('.').unwrap();
        let n = level.parse::<usize>().unwrap() + 1;
        let part = |rest: &str| rest.replace("conv.", "0.").replace("norm.", "1.");
        if let Some(rest) = rest.strip_prefix("down.") {
            return format!("conv{n}.0.{}", part(rest));
        }
        let (i, rest) = rest.strip_prefix("convs.").unwrap().split_once('.').unwrap();
        match (n, i) {
            (1, "0") => format!("conv_input.{}", part(rest)),
            (1, _) => format!("conv1.0.{}", part(rest)),
            _ => format!("conv{n}.{}.{}", i.parse::<usize>().unwrap() + 1, part(rest)),
        }
    };
    let prefixed = |name: &str| format!("backbone_3d.{}", rename(name));
    torch_norms(values).into_iter().map(|(name, value)| (prefixed(&name), value)).collect()
}

#[test]
fn a_detector_of_each_spconv_layout_is_read_from_a_pytorch_file_and_loads() {
    let folder = Folder::new();
    let spec = ModelSpec::new("voxelbackbone8x".into(), 5).with_grid([32, 32, 41]);
    let all = parameters(&spec);
    for (layout, expected) in [
        ("1.x", WeightLayout::KernelInOut),
        ("2.0 native", WeightLayout::KernelOutIn),
        ("2.2 zyx", WeightLayout::OutKernelIn),
    ] {
        let mut values = openpcdet(laid_out(&all, Library::Spconv, layout));
        values.insert("dense_head.conv_cls.weight".into(), (vec![2, 2], vec![0.0; 4]));
        values.insert("backbone_3d.conv_input.1.num_batches_tracked".into(), (vec![1], vec![9.0]));
        let path = folder.write("net.pth", pth(&values, Some("model_state")));
        // The input channels are the checkpoint's.
        let asked = ModelSpec::new("voxelbackbone8x".into(), 1).with_grid([32, 32, 41]);
        let mapping = Mapping::of(Library::Spconv, "voxelbackbone8x");
        let imported = import_file(&path, &asked, &mapping).unwrap();
        assert_same(&imported, &spec, layout);
        assert_eq!((imported.spec.in_channels, imported.report.layout), (5, Some(expected)));
        assert_eq!(imported.report.outside, ["model_state.dense_head.conv_cls.weight"]);
        assert_eq!(imported.report.ignored.len(), 1);

        let out = folder.0.path().join("net.safetensors");
        imported.save(&out).unwrap();
        assert_eq!(model_of(&out).unwrap().unwrap().to_string(), imported.spec.to_string());
        let Network::Second(mut encoder) = spec.init(&Device::flex()).unwrap() else { panic!("a detector") };
        let applied = encoder.load_from(&mut SafetensorsStore::from_file(&out)).unwrap();
        assert!(applied.missing.is_empty() && applied.unused.is_empty() && applied.errors.is_empty());
        let weight: Vec<f32> = encoder.last.conv.weight.val().into_data().iter().collect();
        assert!(weight == imported.parameters["last.conv.weight"].1);
    }
    assert!(model_of(&folder.write("a.safetensors", "no")).unwrap().is_none());
}

#[test]
fn a_unet_of_each_library_comes_back_as_it_was() {
    let spec = ModelSpec::new("minkunet14a".into(), 3).with_classes(11);
    let all = parameters(&spec);
    for (name, library) in Library::ALL {
        let mut values = torch_norms(laid_out(&all, library, "2.2 xyz"));
        match library {
            Library::Minkowski => {
                values = minkowski_names(laid_out(&all, library, ""));
                // Biases are rows there.
                values.get_mut("final.bias").unwrap().0 = vec![1, 11];
            }
            Library::Torchsparse | Library::Open3d | Library::Ocnn => {
                let word = if library == Library::Ocnn { "weights" } else { "kernel" };
                let own = |name: String| match name.strip_suffix(".conv.weight") {
                    Some(start) => format!("{start}.conv.{word}"),
                    None => name,
                };
                values = values.into_iter().map(|(name, value)| (own(name), value)).collect();
            }
            _ => {}
        }
        let mapping = Mapping::of(library, "minkunet14a");
        let asked = ModelSpec::new("minkunet14a".into(), 1);
        let found = import(&stored(&values), &asked, &mapping);
        if library == Library::Open3d {
            let error = found.unwrap_err().to_string();
            assert!(error.contains("centres even kernels between voxels"), "{error}");
            continue;
        }
        let imported = found.unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_same(&imported, &spec, name);
        assert_eq!((imported.spec.in_channels, imported.spec.classes), (3, 11), "{name}");
    }
}

#[test]
fn shapes_that_fit_two_layouts_need_a_hint() {
    let spec = ModelSpec::new("ptv3-block".into(), 64);
    let all = parameters(&spec);
    let mapping =
        Mapping { axes: Some(lattice_import::Axes::ZYX), ..Mapping::of(Library::Spconv, "ptv3-block") };
    for (layout, hint) in [("1.x", WeightLayout::KernelInOut), ("2.0 native", WeightLayout::KernelOutIn)] {
        let values = stored(&torch_norms(laid_out(&all, Library::Spconv, layout)));
        let error = import(&values, &spec, &mapping).unwrap_err();
        assert!(matches!(error, ImportError::Ambiguous { .. }), "{error}");
        let text = error.to_string();
        for part in ["kernel-in-out and kernel-out-in", "cpe_conv.weight", "[3, 3, 3, 64, 64]", "--layout"] {
            assert!(text.contains(part), "{text}");
        }
        let hinted = Mapping { layout: Some(hint), ..mapping.clone() };
        assert_same(&import(&values, &spec, &hinted).unwrap(), &spec, layout);
        // So does a hint for the one weight.
        let mut hinted = mapping.clone();
        hinted.layouts.insert("cpe_conv.weight".into(), hint);
        assert_same(&import(&values, &spec, &hinted).unwrap(), &spec, layout);
    }
}

#[test]
fn everything_that_does_not_fit_is_named() {
    let spec = ModelSpec::new("ptv3-block".into(), 64);
    let mapping = Mapping::of(Library::Trellis, "ptv3-block");
    let good = torch_norms(laid_out(&parameters(&spec), Library::Trellis, ""));
    let mut values = good.clone();
    values.remove("fc1.bias");
    values.remove("attention.qkv.weight");
    values.insert("extra.weight".into(), (vec![1], vec![0.0]));
    values.get_mut("norm2.weight").unwrap().1[3] = f32::NAN;
    values.insert("fc2.bias".into(), (vec![2, 32], vec![0.0; 64]));
    let short = values.get_mut("cpe_conv.weight").unwrap();
    *short = (vec![64, 3, 3, 1, 64], vec![0.0; 9 * 64 * 64]);
    let ImportError::Mismatch(mismatch) = import(&stored(&values), &spec, &mapping).unwrap_err() else {
        panic!("a mismatch")
    };
    assert_eq!(mismatch.missing, ["`attention.qkv.weight` [64, 192]", "`fc1.bias` [256]"]);
    assert_eq!(mismatch.unknown, ["`extra.weight`"]);
    assert_eq!(mismatch.misfits.len(), 3, "{:?}", mismatch.misfits);
    let text = mismatch.to_string();
    for part in [
        "expected finite values, found NaN at 3",
        "found shape [64, 3, 3, 1, 64]",
        "expected shape [64], found [2, 32]",
    ] {
        assert!(text.contains(part), "{text}");
    }
    // Many names are counted.
    let none = import(&Tensors::new(), &spec, &mapping).unwrap_err().to_string();
    assert!(none.contains("tensors are missing") && none.contains(" more"), "{none}");
}

#[test]
fn whole_numbers_are_no_weights_and_half_floats_are() {
    let folder = Folder::new();
    let spec = ModelSpec::new("ptv3-block".into(), 64);
    let mapping = Mapping::of(Library::Trellis, "ptv3-block");
    let values = torch_norms(laid_out(&parameters(&spec), Library::Trellis, ""));
    let write = |dtype: &str| {
        let mut header = serde_json::Map::new();
        let mut data: Vec<u8> = Vec::new();
        for (name, (shape, values)) in &values {
            let start = data.len();
            let own = if name == "fc1.bias" { dtype } else { "F32" };
            match own {
                "I32" => values.iter().for_each(|_| data.extend(7i32.to_le_bytes())),
                "F16" => values.iter().for_each(|v| data.extend(half::f16::from_f32(*v).to_le_bytes())),
                "BF16" => values.iter().for_each(|v| data.extend(half::bf16::from_f32(*v).to_le_bytes())),
                "F64" => values.iter().for_each(|v| data.extend(f64::from(*v).to_le_bytes())),
                _ => values.iter().for_each(|v| data.extend(v.to_le_bytes())),
            }
            let entry =
                serde_json::json!({"dtype": own, "shape": shape, "data_offsets": [start, data.len()]});
            header.insert(name.clone(), entry);
        }
        let header = serde_json::to_string(&header).unwrap();
        folder.write(
            "w.safetensors",
            [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat(),
        )
    };
    let error = import_file(&write("I32"), &spec, &mapping).unwrap_err().to_string();
    assert!(error.contains("`fc1.bias`: expected values in F16, BF16, F32 or F64, found I32"), "{error}");
    for dtype in ["F16", "BF16", "F64"] {
        let imported = import_file(&write(dtype), &spec, &mapping).unwrap();
        let (found, given) = (&imported.parameters["fc1.bias"].1, &values["fc1.bias"].1);
        assert!(found.iter().zip(given).all(|(a, b)| (a - b).abs() < 1e-2), "{dtype}");
    }
}

#[test]
fn files_that_are_no_checkpoints_are_refused() {
    let folder = Folder::new();
    let spec = ModelSpec::new("ptv3-block".into(), 64);
    let mapping = Mapping::of(Library::Trellis, "ptv3-block");
    let whole = pth(&torch_norms(laid_out(&parameters(&spec), Library::Trellis, "")), None);
    assert_same(&import_file(&folder.write("whole.pt", &whole), &spec, &mapping).unwrap(), &spec, "whole");
    let mut flipped = whole.clone();
    let place = flipped.len() / 2;
    flipped[place] ^= 0x40;
    for (name, bytes) in [
        ("empty.pth", &[][..]),
        ("text.pth", b"not a checkpoint"),
        ("cut.pth", &whole[..whole.len() / 2]),
        ("flipped.pth", &flipped),
        ("empty.safetensors", &[]),
        ("text.safetensors", b"not a checkpoint either"),
        ("pth.safetensors", &whole),
    ] {
        let path = folder.write(name, bytes);
        let error = import_file(&path, &spec, &mapping).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("expected") || text.contains("cannot be read"), "{name}: {text}");
    }
    let error = import_file(&folder.0.path().join("nowhere.pth"), &spec, &mapping).unwrap_err().to_string();
    assert!(error.contains("nowhere.pth"), "{error}");
}

#[test]
fn a_mapping_file_changes_names_layouts_and_eps() {
    let folder = Folder::new();
    let spec = ModelSpec::new("minkunet14a".into(), 3).with_classes(4);
    let all = parameters(&spec);
    // A library of one's own: kernels z y x with channels last but one, odd names.
    let own = laid_out(&all, Library::Spconv, "2.0 native");
    let values =
        torch_norms(own).into_iter().map(|(name, v)| (format!("unet.{}", name.replace("blocks", "res")), v));
    let mut values = stored(&values.collect());
    values.insert("unet.stem.0.step".into(), Stored::from_f32(vec![1], &[1.0]));
    let toml = "layout = \"kernel-out-in\"\naxes = \"zyx\"\nnorm_eps = 0.5\nscope = [\"unet.\"]\nignore = ['\\.step$']\nrename = [['\\.res\\.', '.blocks.']]\n";
    let json = serde_json::json!({
        "layout": "kernel-out-in", "axes": "zyx", "norm_eps": 0.5, "scope": ["unet."], "ignore": [r"\.step$"],
        "rename": [[r"\.res\.", ".blocks."]],
    });
    for path in [folder.write("map.toml", toml), folder.write("map.json", json.to_string())] {
        let mapping = Mapping::of(Library::Spconv, "minkunet14a").changed_by(&path).unwrap();
        let imported = import(&values, &ModelSpec::new("minkunet14a".into(), 1), &mapping).unwrap();
        assert_same(&imported, &spec.clone().with_norm_eps(Some(0.5)), "mapping");
        assert_eq!(imported.spec.norm_eps, Some(0.5));
    }
    for (text, part) in [
        ("layout = \"kernel\"", "unknown variant `kernel`"),
        ("axes = \"zzy\"", "expected axes such as"),
        ("norm_epsilon = 1", "unknown field `norm_epsilon`"),
        ("layout = ", "map.toml"),
    ] {
        let error =
            Mapping::of(Library::Spconv, "x").changed_by(&folder.write("map.toml", text)).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
    let bad = Mapping { rename: vec![("(".into(), String::new())], ..Mapping::default() };
    assert!(import(&values, &spec, &bad).unwrap_err().to_string().contains("expected a pattern, found `(`"));
    assert!("caffe".parse::<Library>().unwrap_err().to_string().contains("torch-lattice"));
}

#[test]
fn the_mapping_of_the_documentation_is_read() {
    let text = include_str!("../../../docs/import.md");
    let toml = text.split("```toml").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let path = Folder::new();
    let mapping = Mapping::of(Library::Ocnn, "minkunet14").changed_by(&path.write("map.toml", toml)).unwrap();
    assert_eq!(mapping.layout, Some(WeightLayout::KernelOutIn));
    assert_eq!(mapping.layouts["head.conv.weight"], WeightLayout::TapsOutIn);
    assert_eq!(mapping.rename[0], (r"^unet\.".into(), String::new()));
    assert!(mapping.rename.len() > 2, "the library's own renames stay");
    import(&Tensors::new(), &ModelSpec::new("ptv3-block".into(), 1), &mapping).unwrap_err();
}

/// `eps` is not in a checkpoint: the published one, or the mapping's, enters the norm.
#[test]
fn norms_use_the_eps_of_the_mapping() {
    let device = Device::flex();
    for (name, eps, expected) in
        [("voxelbackbone8x", None, 1e-3), ("voxelbackbone8x", Some(0.25), 0.25), ("minkunet14a", None, 1e-5)]
    {
        let spec = ModelSpec::new(name.into(), 2).with_norm_eps(eps);
        let norm = match spec.init(&device).unwrap() {
            Network::Second(m) => m.last.norm.unwrap(),
            Network::MinkUNet(m) => m.stem[0].norm.clone().unwrap(),
            _ => panic!("{name}"),
        };
        let c = norm.running_mean.value().dims()[0];
        let x = Tensor::<2>::from_data(TensorData::new(vec![2.0f32; c], [1, c]), &device);
        // Mean 0, variance 1, scale 1, shift 0.
        let y: f32 = norm.forward_feats(x).max().into_scalar();
        assert!((y - 2.0 / (1.0 + expected as f32).sqrt()).abs() < 1e-6, "{name}: {y}");
    }
    assert_eq!(MODEL_KEY, "lattice.model");
}
