//! `lattice generate`: labelled synthetic scenes.

use std::path::PathBuf;

use anyhow::{Result, anyhow, bail};
use lattice_io::RenderOptions;
use lattice_scenes::{SceneKind, SceneOptions, class_names};
use serde_json::json;

use crate::{Shared, output, progress::Steps, table};

/// Arguments of `lattice generate`.
#[derive(clap::Args)]
pub struct Args {
    /// What to make.
    #[arg(long, value_parser = ["lidar", "indoor", "object"])]
    kind: String,
    /// Equal seeds make equal scenes.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// File to write: .ply or .npz.
    #[arg(long)]
    out: PathBuf,
    /// Also draws the scene by class: a .png.
    #[arg(long)]
    picture: Option<PathBuf>,
    #[command(flatten)]
    shared: Shared,
}

/// The scene kind of a word.
///
/// # Errors
/// Another word than lidar, indoor or object.
pub fn kind(word: &str) -> Result<SceneKind> {
    Ok(match word {
        "lidar" => SceneKind::Lidar,
        "indoor" => SceneKind::Indoor,
        "object" => SceneKind::Object,
        other => bail!("expected a scene of kind lidar, indoor or object, found `{other}`"),
    })
}

/// Runs the command.
///
/// # Errors
/// An extension other than .ply and .npz, or a folder that cannot be written.
pub fn run(args: &Args) -> Result<()> {
    args.shared.prepare()?;
    let extension = args.out.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    if !["ply", "npz"].contains(&extension.as_str()) {
        bail!("--out: expected a name that ends in .ply or .npz, found {}", args.out.display());
    }
    let steps = Steps::new(3);
    steps.begin("making the scene");
    let kind = kind(&args.kind)?;
    let names = class_names(kind);
    let cloud = lattice_scenes::generate(kind, args.seed, &SceneOptions::default());
    steps.done();
    steps.begin("writing");
    let written = match extension.as_str() {
        "ply" => lattice_io::write_ply(&args.out, &cloud, lattice_io::PlyFormat::BinaryLittleEndian),
        _ => lattice_io::write_npz(&args.out, &cloud),
    };
    written.map_err(|e| anyhow!("--out: {e}"))?;
    steps.done();
    if let Some(path) = &args.picture {
        steps.begin("picture");
        let options = RenderOptions::default().by_class("label", names.iter().copied());
        lattice_io::render_png(path, &cloud, &options).map_err(|e| anyhow!("--picture: {e}"))?;
    }
    steps.done();
    drop(steps);
    let counts = label_counts(&cloud, names);
    if args.shared.json {
        let classes: serde_json::Map<String, serde_json::Value> =
            counts.iter().map(|(name, n)| (name.clone(), json!(n))).collect();
        let report = json!({
            "file": args.out.display().to_string(), "kind": args.kind, "seed": args.seed, "points": cloud.len(), "classes": classes,
        });
        return output::json(&report);
    }
    let head = format!(
        "{}: {} points, kind {}, seed {}",
        args.out.display(),
        table::count(cloud.len()),
        args.kind,
        args.seed
    );
    let rows: Vec<Vec<String>> = counts
        .into_iter()
        .map(|(name, n)| {
            vec![name, table::count(n), format!("{:.1}", 100.0 * n as f64 / cloud.len().max(1) as f64)]
        })
        .collect();
    output::line(format!("{head}\n\n{}", table::render(&["class", "points", "%"], &rows)))
}

/// Points of each class, in class order; points to ignore last.
fn label_counts(cloud: &lattice_io::PointCloud, names: &[&str]) -> Vec<(String, usize)> {
    let mut counts = vec![0; names.len() + 1];
    if let Some(lattice_io::Attribute::U8(labels)) = cloud.attributes.get("label") {
        for &label in labels {
            counts[usize::from(label).min(names.len())] += 1;
        }
    }
    let ignored = counts.pop().unwrap_or(0);
    let mut rows: Vec<_> = names.iter().map(ToString::to_string).zip(counts).collect();
    if ignored > 0 {
        rows.push(("ignored".into(), ignored));
    }
    rows
}
