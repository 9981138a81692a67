//! `lattice import`: a checkpoint of another library to weights of one of our networks.

use std::path::PathBuf;

use anyhow::{Result, anyhow, ensure};
use lattice_import::{Axes, Library, Mapping, WeightLayout, import_file};
use lattice_models::{ModelSpec, zoo_names};
use serde_json::json;

use crate::{Shared, output};

/// Arguments of `lattice import`.
#[derive(clap::Args)]
pub struct Args {
    /// A .pth, .pt or .safetensors file.
    checkpoint: PathBuf,
    /// Library that wrote it: spconv, minkowski, torchsparse, torch-lattice, warpconvnet, ocnn, open3d, trellis or fvdb.
    #[arg(long)]
    from: String,
    /// Network that it was trained as, such as minkunet34c or voxelresbackbone8x.
    #[arg(long)]
    model: String,
    /// A mapping in TOML or JSON, which changes the library's own: layout, axes, tap_order, norm_eps, scope, ignore, rename and others.
    #[arg(long)]
    map: Option<PathBuf>,
    /// Layout of convolution weights, where shapes fit several, such as out-kernel-in.
    #[arg(long)]
    layout: Option<String>,
    /// Coordinate columns that the kernel's dimensions follow, such as zyx.
    #[arg(long)]
    axes: Option<String>,
    /// Weights to write: a .safetensors file.
    #[arg(long)]
    out: PathBuf,
    #[command(flatten)]
    shared: Shared,
}

/// Runs the command.
///
/// # Errors
/// A checkpoint or mapping that cannot be read, tensors that do not fit the network, a file that cannot be written.
pub fn run(args: &Args) -> Result<()> {
    args.shared.prepare()?;
    let library: Library = args.from.parse().map_err(|e| anyhow!("--from: {e}"))?;
    let names = zoo_names(None);
    ensure!(
        names.contains(&args.model.as_str()),
        "--model: expected one of {}, found `{}`",
        names.join(", "),
        args.model
    );
    let ends_well = args.out.extension().is_some_and(|end| end.eq_ignore_ascii_case("safetensors"));
    ensure!(ends_well, "--out: expected a name that ends in .safetensors, found {}", args.out.display());
    let same =
        args.out.canonicalize().ok().zip(args.checkpoint.canonicalize().ok()).is_some_and(|(a, b)| a == b);
    ensure!(!same, "--out: expected another file than the checkpoint, found the same; choose another name");

    let mut mapping = Mapping::of(library, &args.model);
    if let Some(path) = &args.map {
        mapping = mapping.changed_by(path).map_err(|e| anyhow!("--map {e}"))?;
    }
    if let Some(layout) = &args.layout {
        mapping.layout = Some(parse_layout(layout)?);
    }
    if let Some(axes) = &args.axes {
        mapping.axes = Some(Axes::try_from(axes.clone()).map_err(|e| anyhow!("--axes: {e}"))?);
    }
    let spec = ModelSpec::new(args.model.clone(), 1);
    let imported = import_file(&args.checkpoint, &spec, &mapping)?;
    imported.save(&args.out).map_err(|e| anyhow!("--out: {e}"))?;

    let (spec, report) = (&imported.spec, &imported.report);
    let document = json!({
        "checkpoint": args.checkpoint.display().to_string(), "from": library.name(), "model": spec.name,
        "in_channels": spec.in_channels, "classes": spec.classes, "norm_eps": spec.norm_eps,
        "layout": report.layout, "axes": report.axes, "tensors": report.taken,
        "ignored": report.ignored, "outside": report.outside, "out": args.out.display().to_string(),
    });
    if args.shared.json {
        return output::json(&document);
    }
    let word = |value: &serde_json::Value| value.as_str().unwrap_or("none").to_owned();
    output::line(format!(
        "{}: {} tensors for {} of {} input channels; layout {}, kernel axes {}; {} hold no parameter, {} lie outside the network\nwrote {}",
        args.checkpoint.display(),
        report.taken,
        spec.name,
        spec.in_channels,
        word(&document["layout"]),
        word(&document["axes"]),
        report.ignored.len(),
        report.outside.len(),
        args.out.display()
    ))
}

fn parse_layout(word: &str) -> Result<WeightLayout> {
    serde_json::from_value(json!(word)).map_err(|_| {
        anyhow!(
            "--layout: expected one of kernel-in-out, out-kernel-in, kernel-out-in, out-in-kernel, taps-in-out, taps-out-in and \
             taps-group-in-out, found `{word}`"
        )
    })
}
