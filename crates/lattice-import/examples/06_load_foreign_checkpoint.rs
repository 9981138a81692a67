//! Brings a checkpoint of another library to one of our networks and runs it.
//!
//! `cargo run --release -p lattice-import --example 06_load_foreign_checkpoint [CKPT LIBRARY MODEL]`
//!
//! Without arguments it first writes a checkpoint as spconv 2.x would: kernels in front of the input channels, PyTorch's names of norms.

use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor, TensorData};
use burn_lattice::{SparseTensor, Support};
use burn_store::{ModuleSnapshot, SafetensorsStore};
use lattice_import::{Library, Mapping, import_file};
use lattice_models::{MinkUNet, ModelSpec, Network};

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// Collects parameters as spconv keeps them: `[taps, in, out]` becomes `[out, k, k, k, in]`.
#[derive(Default)]
struct AsSpconv {
    at: Vec<String>,
    tensors: Vec<(String, Vec<usize>, Vec<u8>)>,
}

impl ModuleVisitor for AsSpconv {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.at.push(name.into());
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.at.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let name = self.at.join(".").replace(".gamma", ".weight").replace(".beta", ".bias");
        let mut shape = param.val().dims().to_vec();
        let mut data = param.val().into_data();
        if let [taps, c_in, c_out] = shape[..] {
            let side = (1..).find(|k: &usize| k.pow(3) >= taps).unwrap_or(1);
            let turned = Tensor::<3>::from_data(data, &Device::flex());
            shape = vec![c_out, side, side, side, c_in];
            // Kernels of one tap are multiplied as `[in, out]` there, whatever their shape says.
            let order = if taps == 1 { [0, 1, 2] } else { [2, 0, 1] };
            data = turned.permute(order).into_data();
        }
        self.tensors.push((name, shape, data.iter::<f32>().flat_map(f32::to_le_bytes).collect()));
    }
}

fn write_checkpoint(network: &MinkUNet, path: &Path) -> Fallible<()> {
    let mut found = AsSpconv::default();
    network.visit(&mut found);
    let mut views = Vec::new();
    for (name, shape, bytes) in &found.tensors {
        views.push((
            name,
            safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes)?,
        ));
    }
    std::fs::write(path, safetensors::serialize(views, None)?)?;
    Ok(())
}

fn scene(channels: usize, device: &Device) -> Fallible<SparseTensor> {
    let rows: Vec<[i32; 4]> =
        (0..40).flat_map(|x| (0..40).map(move |y| [0, x, y, (x * x + 3 * y) % 7])).collect();
    let n = rows.len();
    let values: Vec<f32> = (0..n * channels).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect();
    let feats = Tensor::from_data(TensorData::new(values, [n, channels]), device);
    Ok(SparseTensor::from_support(Support::try_new(rows)?, feats)?)
}

fn main() -> Fallible<()> {
    let device = Device::flex();
    let folder = std::env::temp_dir().join(format!("foreign-checkpoint-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (checkpoint, library, model, original) = match arguments.as_slice() {
        [checkpoint, library, model] => (PathBuf::from(checkpoint), library.parse()?, model.clone(), None),
        [] => {
            let spec = ModelSpec::new("minkunet14a".into(), 4).with_classes(7);
            let Network::MinkUNet(network) = spec.init(&device)?.seeded(1) else {
                return Err("expected a MinkUNet".into());
            };
            let path = folder.join("spconv.safetensors");
            write_checkpoint(&network, &path)?;
            (path, Library::Spconv, spec.name, Some(network))
        }
        _ => return Err("expected CKPT LIBRARY MODEL, or nothing".into()),
    };

    // What the library is known to do; a mapping file would change it here.
    let mapping = Mapping::of(library, &model);
    let imported = import_file(&checkpoint, &ModelSpec::new(model, 1), &mapping)?;
    println!(
        "{}: {} tensors, {} input channels, {} classes, layout {:?}",
        checkpoint.display(),
        imported.report.taken,
        imported.spec.in_channels,
        imported.spec.classes,
        imported.report.layout
    );
    let weights = folder.join("weights.safetensors");
    imported.save(&weights)?;

    // The weights load into the module like any others.
    if let Network::MinkUNet(mut network) = imported.spec.init(&device)? {
        network.load_from(&mut SafetensorsStore::from_file(&weights))?;
        let x = scene(imported.spec.in_channels, &device)?;
        let scores = network.try_forward(&x)?;
        println!("scores {:?} of {} voxels", scores.feats().dims(), x.n_rows());
        if let Some(original) = original {
            let difference = (scores.into_feats() - original.try_forward(&x)?.into_feats()).abs().max();
            println!("largest difference to the network that wrote it: {}", difference.into_scalar::<f32>());
        }
    }
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
