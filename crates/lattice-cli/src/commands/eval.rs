//! `lattice eval`: how well a trained network tells classes apart.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, anyhow, ensure};
use burn::tensor::DType;
use lattice_scenes::SceneOptions;
use lattice_train::{
    ConfusionMatrix, Dataset, GeneratedScenes, INPUT_CHANNELS, LabelMap, SceneFiles, Scores,
};
use serde_json::json;

use super::generate::kind;
use super::train::label_map;
use crate::segmenter::{self, Segmenter};
use crate::sweep::score;
use crate::{Shared, folder::OutFolder, output, progress::Steps, routes, table};

/// What the command writes.
const FILES: [&str; 2] = ["confusion.json", "confusion.png"];

/// Arguments of `lattice eval`.
#[derive(clap::Args)]
pub struct Args {
    /// A labelled scan or a folder of them; without one, scenes are generated.
    scene: Option<PathBuf>,
    /// Trained weights, such as best.safetensors of `lattice train`, of any network that `lattice run` takes.
    #[arg(long)]
    weights: PathBuf,
    /// Network, where the weights do not say.
    #[arg(long)]
    model: Option<String>,
    /// Edge of a voxel; that of the training by default.
    #[arg(long, allow_negative_numbers = true)]
    voxel_size: Option<f64>,
    /// File with the labels of one scan: .npy or .label.
    #[arg(long)]
    labels: Option<PathBuf>,
    /// How labels become classes: classes, semantic-kitti (indices 0 to 19) or semantic-kitti-raw (ids of .label files).
    #[arg(long)]
    label_map: Option<String>,
    /// Columns of .bin files.
    #[arg(long)]
    columns: Option<usize>,
    /// Kind of generated scenes.
    #[arg(long, default_value = "lidar", value_parser = ["lidar", "indoor"])]
    kind: String,
    /// Generated scenes.
    #[arg(long, default_value_t = 8)]
    scene_count: usize,
    /// Seed of the first generated scene; training takes others.
    #[arg(long, default_value_t = 1_000_000)]
    seed: u64,
    /// Folder for confusion.json and confusion.png.
    #[arg(long)]
    out: Option<PathBuf>,
    #[command(flatten)]
    shared: Shared,
}

/// Runs the command.
///
/// # Errors
/// Weights, scenes or a folder that cannot be used; a device that is not there.
pub fn run(args: &Args) -> Result<()> {
    let chosen = args.shared.prepare()?;
    routes::check_for_networks(&chosen.device, DType::F32)?;
    let otherwise = lattice_train::DEFAULT_MODEL;
    let network = segmenter::choose(args.model.as_deref(), Some(&args.weights), INPUT_CHANNELS, otherwise)?;
    ensure!(
        network.spec.in_channels == INPUT_CHANNELS,
        "--weights: expected a network of {INPUT_CHANNELS} input channels, as `lattice train` makes them, found one of {}",
        network.spec.in_channels
    );
    let model = Segmenter::load(&network, 0, &chosen.device)?;
    let voxel_size = args.voxel_size.or(network.voxel_size).ok_or_else(|| {
        anyhow!("--voxel-size: expected a length, since the weights do not say which they were trained with")
    })?;
    ensure!(
        voxel_size > 0.0 && (voxel_size as f32).is_normal(),
        "--voxel-size: expected a finite length above 0, found {voxel_size}"
    );
    let (scenes, name) = scenes(args, network.classes.len())?;
    let out = args.out.as_deref().map(|path| OutFolder::prepare(path, &FILES)).transpose()?;

    let clock = Instant::now();
    let steps = Steps::new(scenes.len() as u64);
    steps.begin(format!("{} on {}", network.spec.name, chosen.name));
    let matrix = score(&model, &scenes, voxel_size as f32, &chosen.device, || steps.done())?;
    drop(steps);
    let seconds = clock.elapsed().as_secs_f64();
    let scores = matrix.scores();
    ensure!(
        scores.points > 0,
        "{name}: expected points with a class, found none: all {} scenes are labelled 255; check --label-map",
        scenes.len()
    );
    let document = json!({
        "scene": name, "weights": args.weights.display().to_string(), "model": network.spec.name, "device": chosen.name,
        "voxel_size": voxel_size, "scenes": scenes.len(), "points": scores.points, "seconds": seconds,
        "miou": scores.miou, "accuracy": scores.accuracy,
        "classes": network.classes.iter().zip(&scores.iou).enumerate().map(|(id, (name, iou))| {
            json!({"id": id, "name": name, "iou": iou, "points": matrix.rows()[id].iter().sum::<u64>()})
        }).collect::<Vec<_>>(),
        "confusion": matrix.rows(),
    });
    if let Some(out) = out {
        let text = serde_json::to_string_pretty(&document)?;
        lattice_io::write_text(out.file(FILES[0]), &text).map_err(|e| anyhow!("--out: {e}"))?;
        lattice_io::matrix_png(out.file(FILES[1]), &network.classes, &matrix.rows())
            .map_err(|e| anyhow!("--out: {e}"))?;
        out.keep();
    }
    if args.shared.json {
        return output::json(&document);
    }
    output::line(format!(
        "{name}: {} points of {} scenes at voxel size {}, {} on {}, {seconds:.1} s\n\n{}\n{}",
        table::count(scores.points as usize),
        scenes.len(),
        table::length(voxel_size),
        network.spec.name,
        chosen.name,
        classes_table(&network.classes, &matrix, &scores),
        format_args!("mIoU {:.1} %   accuracy {:.1} %", 100.0 * scores.miou, 100.0 * scores.accuracy),
    ))
}

/// The scenes to score, and what they are called.
fn scenes(args: &Args, classes: usize) -> Result<(Dataset, String)> {
    let map = args.label_map.as_deref().map(label_map).transpose()?;
    let Some(path) = &args.scene else {
        ensure!(
            args.labels.is_none(),
            "--labels: expected a scan beside it, found none; name the scan first"
        );
        ensure!(args.scene_count > 0, "--scene-count: expected a number above 0, found 0");
        let kind = kind(&args.kind)?;
        let expected = lattice_scenes::class_names(kind).len();
        ensure!(
            expected <= classes,
            "--kind: expected scenes whose classes the network knows ({classes}), found {expected} classes of {kind}"
        );
        let options = SceneOptions::default();
        let generated = GeneratedScenes { kind, first_seed: args.seed, count: args.scene_count, options };
        let name =
            format!("generated {kind}, seeds {} to {}", args.seed, args.seed + args.scene_count as u64 - 1);
        return Ok((Dataset::generated(generated, classes).with_budget_bytes(0), name));
    };
    let mut files = SceneFiles::open(path, map)?.with_columns(args.columns);
    if let Some(labels) = &args.labels {
        let raw = labels.extension().is_some_and(|e| e.eq_ignore_ascii_case("label"));
        let guess = if raw { LabelMap::SemanticKittiRaw } else { LabelMap::Classes };
        files = files.with_labels(labels, map.unwrap_or(guess))?;
    }
    Ok((Dataset::files(files, classes).with_budget_bytes(0), path.display().to_string()))
}

fn classes_table(names: &[String], matrix: &ConfusionMatrix, scores: &Scores) -> String {
    let rows = matrix.rows();
    let lines: Vec<Vec<String>> = names
        .iter()
        .enumerate()
        .map(|(id, name)| {
            let points: u64 = rows[id].iter().sum();
            let found: u64 = rows.iter().map(|row| row[id]).sum();
            let share = |of: u64| match of {
                0 => "-".to_owned(),
                of => format!("{:.1}", 100.0 * rows[id][id] as f64 / of as f64),
            };
            let iou = scores.iou[id].map_or("-".into(), |v| format!("{:.1}", 100.0 * v));
            vec![name.clone(), table::count(points as usize), iou, share(points), share(found)]
        })
        .collect();
    table::render(&["class", "points", "IoU %", "recall %", "precision %"], &lines)
}
