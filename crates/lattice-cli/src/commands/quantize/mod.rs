//! `lattice quantize`: a network's weights in codes of 4 or 8 bits, with a report of what that costs and gains.

mod devices;
mod report;
mod scenes;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use burn::tensor::FloatDType;
use burn_lattice::nn::Layers;
use burn_lattice::quantized::{CalibrationMethod, Granularity};
use lattice_models::{ModelSpec, Task, zoo_names};
use lattice_quantize::{PassOptions, Ranges, calibrate, fold_norms, layer_errors, pack, plan, weights_of};
use lattice_train::INPUT_CHANNELS;

use crate::commands::bench::check_calls;
use crate::segmenter::{self, Choice, Segmenter, Source};
use crate::sweep::Sweep;
use crate::{Shared, output, progress::Steps, shipped, weights};

use report::{Accuracy, Report, Speed};
use scenes::Scored;

/// Arguments of `lattice quantize`.
#[derive(clap::Args)]
pub struct Args {
    /// Weights of a network that scores voxels or points (.safetensors), `shipped` for those that come with the command, or the name of a
    /// network, whose weights are then drawn from the seed: sizes and speeds alone mean something.
    model: String,
    /// Bits of a code: 4 or 8.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32))]
    bits: u32,
    /// Input channels that share a scale and a bias: 32, 64 or 128; 64, or 32 for layers of fewer channels, by default.
    #[arg(long)]
    group_size: Option<usize>,
    /// Element type of scales and biases.
    #[arg(long, default_value = "f16", value_parser = ["f16", "f32"])]
    scales: String,
    /// Input features of packed layers in bytes, too: products of integers where the device has them.
    #[arg(long, value_parser = ["int8"], requires = "calibrate")]
    activations: Option<String>,
    /// Folder of scans (labels are not needed) that show the range of the features; with --activations.
    #[arg(long, requires = "activations")]
    calibrate: Option<PathBuf>,
    /// How ranges are chosen from what was seen: minmax, percentile or entropy.
    #[arg(long, default_value = "percentile", value_parser = ["minmax", "percentile", "entropy"])]
    method: String,
    /// The percentile.
    #[arg(long, default_value_t = 99.99)]
    percentile: f64,
    /// A range for every input channel in place of one a layer.
    #[arg(long)]
    per_channel: bool,
    /// A labelled scan or folder to score before and after; generated sweeps by default, where the network has their classes.
    #[arg(long)]
    score: Option<PathBuf>,
    /// How labels become classes: classes, semantic-kitti or semantic-kitti-raw.
    #[arg(long, requires = "score")]
    label_map: Option<String>,
    /// Generated sweeps to score, from seed 1,000,000 on.
    #[arg(long, default_value_t = 4)]
    scene_count: usize,
    /// Edge of a voxel; that of the training by default.
    #[arg(long, allow_negative_numbers = true)]
    voxel_size: Option<f64>,
    /// Network, where the weights do not say.
    #[arg(long = "model")]
    name: Option<String>,
    /// Seed of weights that are drawn.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Timed forward passes.
    #[arg(long, default_value_t = 5)]
    repeats: usize,
    /// File to write (.safetensors).
    #[arg(long)]
    out: PathBuf,
    #[command(flatten)]
    shared: Shared,
}

/// Edge of the voxels of networks that name none.
const VOXEL_SIZE: f64 = 0.15;

/// Runs the command.
///
/// # Errors
/// Weights or scenes that cannot be used, options that do not fit, a file that cannot be written.
pub fn run(args: &Args) -> Result<()> {
    let chosen = args.shared.prepare()?;
    let options = options(args)?;
    let choice = choice(args)?;
    check_out(&args.out, &choice)?;
    check_calls("--repeats", args.repeats, 1)?;
    let voxel_size = args.voxel_size.or(choice.voxel_size).unwrap_or(VOXEL_SIZE);
    ensure!(
        voxel_size > 0.0 && (voxel_size as f32).is_normal(),
        "--voxel-size: expected a finite length above 0, found {voxel_size}"
    );
    let voxel_size = voxel_size as f32;
    let scored = Scored::open(
        args.score.as_deref(),
        args.label_map.as_deref(),
        args.scene_count,
        choice.classes.len(),
    )?;
    let calibration = args.calibrate.as_deref().map(scenes::folder).transpose()?;
    let network = &choice.spec.name;

    let steps = Steps::new(6);
    steps.begin(format!("{network}: weights"));
    let mut model = Segmenter::load(&choice, args.seed, &chosen.device)?;
    let packed_already = {
        let mut packed = 0;
        model.visit_layers("", &mut |layer| packed += usize::from(layer.packed().is_some()));
        packed
    };
    ensure!(
        packed_already == 0,
        "{}: expected float weights, found {packed_already} packed layers; quantize the float file",
        args.model
    );
    let first = scored.first()?;
    let sweep = Sweep::new(&first, voxel_size, &chosen.device)?;
    steps.done();

    steps.begin("float scores and times");
    let before = scored.score(&model, voxel_size, &chosen.device)?;
    let mut speeds = Speed::measure("float", &model, &first, voxel_size, &chosen, args.repeats)?;
    let folded = fold_norms(&mut model).len();
    let decisions = plan(&mut model, &options)?;
    let packed: Vec<&str> = decisions.iter().filter(|d| d.is_packed()).map(|d| d.path.as_str()).collect();
    ensure!(
        !packed.is_empty(),
        "{}: expected a layer that packing makes smaller, found none; all stay float",
        args.model
    );
    steps.done();

    steps.begin("calibration");
    let ranges = match &calibration {
        None => Ranges::new(),
        Some(files) => {
            let granularity = if args.per_channel { Granularity::PerChannel } else { Granularity::PerTensor };
            let wanted = |path: &str| packed.contains(&path);
            calibrate(&mut model, method(args)?, granularity, wanted, |model| {
                for file in files {
                    let points = scenes::positions(file).map_err(Fault)?;
                    Sweep::of_points(&points, voxel_size, &chosen.device)
                        .and_then(|sweep| sweep.forward(model).map(|_| ()))
                        .map_err(|e| Fault(e.context(format!("--calibrate {}", file.display()))))?;
                }
                Ok(())
            })
            .map_err(|Fault(e)| e)?
        }
    };
    steps.done();

    steps.begin("packing");
    let float = weights_of(&mut model);
    pack(&mut model, &decisions, &options, &ranges)?;
    let errors = layer_errors(&mut model, &float, |model| sweep.forward(model).map(|_| ()).map_err(Fault))
        .map_err(|Fault(e)| e)?;
    steps.done();

    steps.begin("scores and times");
    let after = scored.score(&model, voxel_size, &chosen.device)?;
    speeds.extend(Speed::measure("quantized", &model, &first, voxel_size, &chosen, args.repeats)?);
    let begins = |device: &str| steps.begin(format!("times on {device}"));
    let devices =
        devices::measure(&choice, args.seed, &model, (&first, voxel_size), &chosen, args.repeats, begins)?;
    steps.done();

    steps.begin(args.out.display().to_string());
    let (stored, in_f32) = model.stored_bytes();
    let file_bytes = model.save(&args.out, &texts(&choice)?).map_err(|e| anyhow!("--out {e}"))?;
    steps.done();
    drop(steps);

    let report = Report {
        model: args.model.clone(),
        network: network.clone(),
        device: chosen.name.clone(),
        bits: options.bits,
        scales: args.scales.clone(),
        activations: args.activations.clone(),
        method: calibration.is_some().then(|| args.method.clone()),
        calibration_scenes: calibration.map_or(0, |files| files.len()),
        folded_norms: folded,
        layers: report::layers(&decisions, &errors),
        kept: report::kept(&model.kept_modules()),
        file: args.out.display().to_string(),
        file_bytes,
        stored_bytes: stored,
        f32_bytes: in_f32,
        share_of_f32: stored as f64 / in_f32 as f64,
        accuracy: Accuracy::of(scored.name(), before.as_ref(), after.as_ref()),
        speeds,
        devices,
        seed: matches!(choice.source, Source::Seed).then_some(args.seed),
    };
    if args.shared.json { output::json(&report) } else { output::line(report.text()) }
}

/// An error of this command that passes through `lattice-quantize`.
struct Fault(anyhow::Error);

impl From<lattice_quantize::QuantizeError> for Fault {
    fn from(error: lattice_quantize::QuantizeError) -> Self {
        Self(error.into())
    }
}

fn options(args: &Args) -> Result<PassOptions> {
    ensure!([4, 8].contains(&args.bits), "--bits: expected 4 or 8, found {}", args.bits);
    if let Some(size) = args.group_size {
        ensure!([32, 64, 128].contains(&size), "--group-size: expected 32, 64 or 128, found {size}");
    }
    let mut options = PassOptions::new(args.bits);
    options.group_size = args.group_size;
    options.scales = if args.scales == "f32" { FloatDType::F32 } else { FloatDType::F16 };
    Ok(options)
}

fn method(args: &Args) -> Result<CalibrationMethod> {
    Ok(match args.method.as_str() {
        "minmax" => CalibrationMethod::MinMax,
        "entropy" => CalibrationMethod::Entropy,
        _ => {
            let p = args.percentile;
            ensure!((50.0..=100.0).contains(&p), "--percentile: expected 50 to 100, found {p}");
            CalibrationMethod::Percentile(p)
        }
    })
}

/// The network and where its weights come from.
fn choice(args: &Args) -> Result<Choice<'_>> {
    let path = Path::new(&args.model);
    if path.is_file() {
        return segmenter::choose(args.name.as_deref(), Some(path), INPUT_CHANNELS, segmenter::DEFAULT);
    }
    ensure!(args.name.is_none(), "--model: expected a file of weights beside it, found `{}`", args.model);
    if args.model == "shipped" {
        return Ok(shipped::choice());
    }
    let known = zoo_names(Some(Task::Segmentation));
    if known.contains(&args.model.as_str()) {
        return segmenter::choose(Some(&args.model), None, INPUT_CHANNELS, segmenter::DEFAULT);
    }
    bail!(
        "MODEL: expected a .safetensors file, `shipped` or one of {}, found `{}`; check the path",
        known.join(", "),
        args.model
    )
}

fn check_out(out: &Path, choice: &Choice<'_>) -> Result<()> {
    let ends_well = out.extension().is_some_and(|end| end.eq_ignore_ascii_case("safetensors"));
    ensure!(ends_well, "--out: expected a name that ends in .safetensors, found {}", out.display());
    let folder = out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    ensure!(folder.is_dir(), "--out: expected a file in a folder that is there, found {}", out.display());
    if let Source::File(path) = choice.source {
        let same = out.canonicalize().ok().zip(path.canonicalize().ok()).is_some_and(|(a, b)| a == b);
        ensure!(
            !same,
            "--out: expected another file than the float weights, found the same; choose another name"
        );
    }
    Ok(())
}

/// What the file says of its network: what the float file says, or the network itself.
fn texts(choice: &Choice<'_>) -> Result<BTreeMap<String, String>> {
    let mut texts = match choice.source {
        Source::File(path) => {
            let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            lattice_quantize::texts_of(&bytes)
        }
        Source::Shipped => lattice_quantize::texts_of(shipped::WEIGHTS),
        Source::Seed => BTreeMap::new(),
    };
    if weights::says_nothing(&texts) {
        let spec: &ModelSpec = &choice.spec;
        texts.insert(lattice_import::MODEL_KEY.into(), serde_json::to_string(spec)?);
    }
    Ok(texts)
}
