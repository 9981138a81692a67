//! `lattice info`: points, box, voxels and neighbours of a scan.

use std::path::PathBuf;

use anyhow::Result;
use lattice_core::{KernelSpec, NonFinite, Relation, VoxelGrid, quantize};
use serde::Serialize;

use crate::{Shared, progress::Steps, scene, table};

/// Arguments of `lattice info`.
#[derive(clap::Args)]
pub struct Args {
    /// A scan: .ply, .pcd, .las, .laz, .bin, .npy, .npz, .xyz or .txt.
    scene: PathBuf,
    /// Voxel sizes in the file's unit; one suited to the extent by default.
    #[arg(long, num_args = 1..)]
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
    crate::device::choose(&args.shared.device)?;
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
    let points = scene::positions_f32(&cloud);
    let (min, max) = scene::bounds(&cloud);
    let mut scales = Vec::new();
    for size in sizes {
        steps.begin(format!("voxels of {size}"));
        scales.push(measure(&points, size)?);
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
    };
    if args.shared.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print_report(&report);
    }
    Ok(())
}

fn measure(points: &[[f32; 3]], size: f64) -> Result<Scale> {
    let grid = VoxelGrid::try_new([size as f32; 3], [0.0; 3])?;
    let voxels = quantize(points, None, &grid, NonFinite::Drop)?;
    let relation = Relation::submanifold(&voxels.support, &KernelSpec::cube(3, 1)?)?;
    let mut histogram = relation.neighbour_histogram();
    // Index 0 counts rows without pairs; a voxel always meets itself.
    histogram.remove(0);
    let rows = voxels.support.n_rows();
    Ok(Scale {
        voxel_size: size,
        voxels: rows,
        pairs: relation.n_pairs(),
        mean_neighbours: relation.n_pairs() as f64 / rows.max(1) as f64,
        histogram,
    })
}

fn print_report(report: &Report) {
    println!("{}", report.file);
    println!("points      {}  ({} dropped: not finite)", table::count(report.points), report.dropped);
    println!("attributes  {}", if report.attributes.is_empty() { "none".into() } else { report.attributes.join(", ") });
    println!("origin      {:?}", report.origin);
    println!("box         {:.3?} to {:.3?}\n", report.min, report.max);
    let rows: Vec<Vec<String>> = report.scales.iter().map(|s| {
        let share = |k: usize| 100.0 * s.histogram.get(k - 1).copied().unwrap_or(0) as f64 / s.voxels.max(1) as f64;
        vec![
            format!("{:.6}", s.voxel_size),
            table::count(s.voxels),
            format!("{:.2}", report.points as f64 / s.voxels.max(1) as f64),
            table::count(s.pairs),
            format!("{:.2}", s.mean_neighbours),
            format!("{:.1}", share(1)),
            format!("{:.2}", share(27)),
        ]
    }).collect();
    let header = ["voxel size", "voxels", "points/voxel", "pairs", "mean neighbours", "% alone", "% full"];
    println!("{}\n", table::render(&header, &rows));
    for scale in &report.scales {
        println!("neighbours at {:.6} (of 27, the voxel included)", scale.voxel_size);
        let most = scale.histogram.iter().copied().max().unwrap_or(0).max(1);
        for (k, &n) in scale.histogram.iter().enumerate() {
            if n > 0 {
                println!("{:>4} {:>9} {}", k + 1, table::count(n), "#".repeat((n * 48).div_ceil(most)));
            }
        }
    }
}
