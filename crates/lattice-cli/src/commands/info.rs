//! `lattice info`: points, box, voxels and neighbours of a scan.

use std::path::PathBuf;

use anyhow::Result;
use lattice_core::{KernelSpec, Relation, Support};
use lattice_io::PointCloud;
use serde::Serialize;

use crate::{Shared, output, progress::Steps, scene, table};

/// Arguments of `lattice info`.
#[derive(clap::Args)]
pub struct Args {
    /// A scan: .ply, .pcd, .las, .laz, .bin, .npy, .npz, .xyz or .txt.
    scene: PathBuf,
    /// Voxel sizes in the file's unit; one suited to the extent by default.
    #[arg(long, num_args = 1.., value_parser = length, allow_negative_numbers = true)]
    voxel_size: Vec<f64>,
    /// Columns of a .bin file.
    #[arg(long)]
    columns: Option<usize>,
    #[command(flatten)]
    shared: Shared,
}

#[derive(Serialize)]
struct Report {
    file: String,
    points: usize,
    dropped: usize,
    origin: [f64; 3],
    min: [f64; 3],
    max: [f64; 3],
    attributes: Vec<String>,
    scales: Vec<Scale>,
    notes: Vec<String>,
}

#[derive(Serialize)]
struct Scale {
    voxel_size: f64,
    voxels: usize,
    pairs: usize,
    mean_neighbours: f64,
    /// Voxels with 1, 2, ... 27 occupied cells in their 3x3x3 block, themselves included.
    histogram: Vec<usize>,
}

/// Runs the command.
///
/// # Errors
/// A scan that cannot be read, or a voxel size that is not above 0.
pub fn run(args: &Args) -> Result<()> {
    args.shared.prepare()?;
    let steps = Steps::new(1 + args.voxel_size.len().max(1) as u64);
    steps.begin("reading");
    let cloud = scene::load(&args.scene, args.columns)?;
    steps.done();
    let sizes = match args.voxel_size.is_empty() {
        true => vec![scene::voxel_size(None, &cloud)?],
        false => {
            let check = |&size| scene::voxel_size(Some(size), &cloud);
            args.voxel_size.iter().map(check).collect::<Result<_>>()?
        }
    };
    let (min, max) = scene::bounds(&cloud);
    let mut scales = Vec::new();
    let mut notes = Vec::new();
    for size in sizes {
        notes.extend(scene::precision_note(&cloud, size));
        steps.begin(format!("voxels of {size}"));
        scales.push(measure(&cloud, size)?);
        steps.done();
    }
    drop(steps);
    let report = Report {
        file: args.scene.display().to_string(),
        points: cloud.len(),
        dropped: cloud.dropped,
        origin: cloud.origin,
        min,
        max,
        attributes: cloud.attributes.keys().cloned().collect(),
        scales,
        notes,
    };
    if args.shared.json { output::json(&report) } else { output::line(text(&report)) }
}

/// A voxel size; the message tells a file name that stands behind `--voxel-size` from a misspelt number.
fn length(text: &str) -> Result<f64, String> {
    text.parse().map_err(|_| "expected a number; name the scan before --voxel-size".to_string())
}

fn measure(cloud: &PointCloud, size: f64) -> Result<Scale> {
    let support = Support::canonical(scene::cells(cloud, size))?;
    let relation = Relation::submanifold(&support, &KernelSpec::cube(3, 1)?)?;
    let mut histogram = relation.neighbour_histogram();
    // Index 0 counts rows without pairs; a voxel always meets itself.
    histogram.remove(0);
    let rows = support.n_rows();
    Ok(Scale {
        voxel_size: size,
        voxels: rows,
        pairs: relation.n_pairs(),
        mean_neighbours: relation.n_pairs() as f64 / rows.max(1) as f64,
        histogram,
    })
}

fn text(report: &Report) -> String {
    let dropped = match report.dropped {
        0 => String::new(),
        n => format!("  (and {} left out: not finite)", table::count(n)),
    };
    let mut lines = vec![
        report.file.clone(),
        format!("points      {}{dropped}", table::count(report.points)),
        format!(
            "attributes  {}",
            if report.attributes.is_empty() { "none".into() } else { report.attributes.join(", ") }
        ),
        format!("origin      {:?}", report.origin),
        format!("box         {:.3?} to {:.3?}\n", report.min, report.max),
    ];
    let row = |s: &Scale| {
        let share =
            |k: usize| 100.0 * s.histogram.get(k - 1).copied().unwrap_or(0) as f64 / s.voxels.max(1) as f64;
        vec![
            table::length(s.voxel_size),
            table::count(s.voxels),
            format!("{:.2}", report.points as f64 / s.voxels.max(1) as f64),
            table::count(s.pairs),
            format!("{:.2}", s.mean_neighbours),
            format!("{:.1}", share(1)),
            format!("{:.2}", share(27)),
        ]
    };
    let header = ["voxel size", "voxels", "points/voxel", "pairs", "mean neighbours", "% alone", "% full"];
    lines.push(table::render(&header, &report.scales.iter().map(row).collect::<Vec<_>>()));
    for scale in report.scales.iter().filter(|s| s.voxels > 0) {
        lines
            .push(format!("\nneighbours at {} (of 27, the voxel included)", table::length(scale.voxel_size)));
        let most = scale.histogram.iter().copied().max().unwrap_or(0).max(1);
        for (k, &n) in scale.histogram.iter().enumerate().filter(|(_, n)| **n > 0) {
            lines.push(format!(
                "{:>4} {:>9} {}",
                k + 1,
                table::count(n),
                "#".repeat((n * 48).div_ceil(most))
            ));
        }
    }
    lines.extend(report.notes.iter().map(|note| format!("\nnote: {note}")));
    lines.join("\n")
}
