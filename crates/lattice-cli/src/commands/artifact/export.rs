//! `lattice artifact export`.

use std::path::PathBuf;

use anyhow::{Result, anyhow, bail, ensure};
use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, FloatDType, Tensor};
use lattice_artifact::ir::Element;
use lattice_artifact::{export_network, network_refusal};
use lattice_models::{ModelSpec, Network, zoo_names};
use lattice_train::INPUT_CHANNELS;
use serde_json::json;

use super::sample;
use crate::commands::bench::FloatKind;
use crate::segmenter::Source;
use crate::{Shared, output, shipped, table, weights};

/// Arguments of `lattice artifact export`.
#[derive(clap::Args)]
pub struct Args {
    /// Network, such as minkunet18 or sparseresnet21d. The one that the weights name by default; without weights and a name, the one whose
    /// weights come with the command.
    #[arg(long)]
    model: Option<String>,
    /// Weights (.safetensors) of `lattice train` or `lattice import`, or of the network named; without them they are drawn from the seed.
    #[arg(long)]
    weights: Option<PathBuf>,
    /// Channels of the input features, where the weights do not say; 5 by default.
    #[arg(long)]
    in_channels: Option<usize>,
    /// Classes, where the weights do not say; 20 by default.
    #[arg(long)]
    classes: Option<usize>,
    /// Element type of features and weights: f32, f16 or bf16.
    #[arg(long, value_enum, default_value_t = FloatKind::F32)]
    dtype: FloatKind,
    /// Seed of weights that are drawn, and of the generated scene of --sample.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Folder of the artifact.
    #[arg(long)]
    out: PathBuf,
    /// Folder for inputs.safetensors, the voxels of a scene, and expected.safetensors, what the network itself makes of them.
    #[arg(long)]
    sample: Option<PathBuf>,
    /// Scan for --sample; a generated lidar sweep by default.
    #[arg(long, requires = "sample")]
    scene: Option<PathBuf>,
    /// Voxel size for --sample; that of the training or one suited to the scene by default.
    #[arg(long, requires = "sample")]
    voxel_size: Option<f64>,
    #[command(flatten)]
    shared: Shared,
}

/// A network and where its weights are.
struct Choice<'a> {
    spec: ModelSpec,
    source: Source<'a>,
    voxel_size: Option<f64>,
}

fn choose(args: &Args) -> Result<Choice<'_>> {
    let names = zoo_names(None);
    if let Some(name) = &args.model
        && !names.contains(&name.as_str())
    {
        bail!("--model: expected one of {}, found `{name}`", names.join(", "));
    }
    let asked = args.model.as_deref();
    let fixed = |spec: &ModelSpec| {
        let differs = |option: &str, given: Option<usize>, own: usize| match given {
            Some(given) if given != own => {
                bail!("{option}: expected {own}, which the weights are of, found {given}; leave it out")
            }
            _ => Ok(()),
        };
        differs("--in-channels", args.in_channels, spec.in_channels)?;
        differs("--classes", args.classes, spec.classes)
    };
    let Some(path) = &args.weights else {
        if asked.is_none() {
            let own = shipped::choice();
            fixed(&own.spec)?;
            return Ok(Choice { spec: own.spec, source: own.source, voxel_size: own.voxel_size });
        }
        return Ok(Choice { spec: named(args), source: Source::Seed, voxel_size: None });
    };
    let source = Source::File(path);
    let own = match weights::info(Some(path))? {
        Some(info) => {
            let spec = ModelSpec::new(info.model, INPUT_CHANNELS).with_classes(info.classes.len());
            Some((spec, Some(info.voxel_size)))
        }
        None if path.is_file() => {
            lattice_import::model_of(path).map_err(|e| anyhow!("--weights {e}"))?.map(|spec| (spec, None))
        }
        None => None,
    };
    match own {
        Some((spec, voxel_size)) => {
            weights::check_name(asked, &spec.name)?;
            fixed(&spec)?;
            Ok(Choice { spec, source, voxel_size })
        }
        None if asked.is_some() => Ok(Choice { spec: named(args), source, voxel_size: None }),
        None => bail!(
            "--weights {}: expected weights that name their network, found none; name it with --model",
            path.display()
        ),
    }
}

/// The network that the arguments describe.
fn named(args: &Args) -> ModelSpec {
    let name = args.model.clone().unwrap_or_default();
    ModelSpec::new(name, args.in_channels.unwrap_or(INPUT_CHANNELS)).with_classes(args.classes.unwrap_or(20))
}

/// The network with its weights.
fn load(choice: &Choice<'_>, seed: u64, device: &Device) -> Result<Network> {
    let spec = &choice.spec;
    let network = spec.init(device).map_err(|e| anyhow!("--model: {e}"))?;
    if let Some(reason) = network_refusal(&network) {
        bail!("--model {}: cannot be expressed by the operations of the format: {reason}", spec.name);
    }
    /// The module with the weights that were chosen.
    macro_rules! filled {
        ($variant:ident, $module:expr) => {
            Network::$variant(match choice.source {
                Source::File(path) => weights::load($module, path, &spec.name)?,
                Source::Shipped => weights::load_bytes($module, shipped::WEIGHTS, &spec.name)?,
                Source::Seed => $module,
            })
        };
    }
    Ok(match network.seeded(seed) {
        Network::MinkUNet(unet) => filled!(MinkUNet, unet),
        Network::SparseResNet(encoder) => filled!(SparseResNet, encoder),
        Network::Second(encoder) => filled!(Second, encoder),
        other => other,
    })
}

/// Rounds parameters to an element type.
struct Rounded(FloatDType);

impl ModuleMapper for Rounded {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, tensor, mapper) = param.consume();
        Param::from_mapped_value(id, tensor.cast(self.0), mapper)
    }
}

/// Runs the command.
///
/// # Errors
/// An unknown network or one that the format cannot express; weights that do not fit; a folder that cannot be written.
pub fn run(args: &Args) -> Result<()> {
    let chosen = args.shared.prepare()?;
    let element = match args.dtype {
        FloatKind::F32 => Element::F32,
        FloatKind::F16 => Element::F16,
        FloatKind::Bf16 => Element::Bf16,
        FloatKind::F64 => bail!("--dtype: expected f32, f16 or bf16, found f64"),
    };
    let choice = choose(args)?;
    ensure!(
        args.out.extension().is_none_or(|end| end != "safetensors"),
        "--out: expected a folder, found the name of a file"
    );
    let network = load(&choice, args.seed, &chosen.device)?;
    let spec = &choice.spec;
    let artifact = export_network(&network, spec.in_channels, element)
        .map_err(|e| anyhow!("--model {}: {e}", spec.name))?;
    artifact.save(&args.out).map_err(|e| anyhow!("--out {e}"))?;
    let mut sample = Vec::new();
    if let Some(folder) = &args.sample {
        chosen.check_dtype(args.dtype)?;
        let voxel_size = args.voxel_size.or(choice.voxel_size);
        let x =
            sample::voxels(args.scene.as_deref(), args.seed, (spec.in_channels, voxel_size), &chosen.device)?;
        let dtype = match element {
            Element::F16 => FloatDType::F16,
            Element::Bf16 => FloatDType::BF16,
            _ => FloatDType::F32,
        };
        let rounded = match network {
            Network::MinkUNet(m) => Network::MinkUNet(m.map(&mut Rounded(dtype))),
            Network::SparseResNet(m) => Network::SparseResNet(m.map(&mut Rounded(dtype))),
            Network::Second(m) => Network::Second(m.map(&mut Rounded(dtype))),
            other => other,
        };
        sample.extend(sample::write(folder, &rounded, &x.astype(dtype), element)?);
    }

    let plan = artifact.plan();
    let written: Vec<String> = sample.iter().map(|path| path.display().to_string()).collect();
    if args.shared.json {
        return output::json(&json!({
            "model": spec.name, "in_channels": spec.in_channels, "classes": spec.classes, "dtype": element.name(),
            "weights": match choice.source {
                Source::File(path) => path.display().to_string(),
                Source::Shipped => shipped::NAME.into(),
                Source::Seed => format!("untrained (seed {})", args.seed),
            },
            "operations": plan.nodes.len(), "artifact": args.out.display().to_string(), "sample": written,
            "outputs": plan.outputs.iter().map(|o| o.name.clone()).collect::<Vec<_>>(),
        }));
    }
    let mut lines = vec![format!(
        "{}: {} operations, {} weights; wrote {}",
        spec.name,
        table::count(plan.nodes.len()),
        table::count(plan.weights.len()),
        args.out.display()
    )];
    lines.extend(written.into_iter().map(|path| format!("wrote {path}")));
    output::line(lines.join("\n"))
}
