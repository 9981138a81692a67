//! `lattice compress`: a scan's voxels, and attributes, in few bits.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, anyhow, bail, ensure};
use lattice_codec::{Attribute, CompressOptions, Grid, Model, Occupied, VoxelCloud};
use lattice_io::PointCloud;
use serde::Serialize;

use crate::{Shared, output, progress::Steps, scene, table};

/// Arguments of `lattice compress`.
#[derive(clap::Args)]
pub struct Args {
    /// A scan: .ply, .pcd, .las, .laz, .bin, .npy, .npz, .xyz or .txt.
    scene: PathBuf,
    /// File to write: a .lat.
    #[arg(long)]
    out: PathBuf,
    /// Edge of a voxel in the file's unit; one suited to the extent by default. Positions come back as voxel centres: each coordinate is off by
    /// half of it at most.
    #[arg(long, allow_negative_numbers = true)]
    voxel_size: Option<f64>,
    /// Attributes to keep: none, all, or names such as rgb,intensity. A voxel keeps those of its first point in the file.
    #[arg(long, value_delimiter = ',', default_value = "none")]
    attributes: Vec<String>,
    /// Step that float attributes are rounded to: they come back within half of it. 0 keeps every bit. Integers and colours are exact up to 1 and
    /// rounded above.
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    attribute_step: f64,
    /// Also keep how many points each voxel holds; without it a voxel stands for one point.
    #[arg(long)]
    counts: bool,
    /// Where the sensor stands, in the file's unit; its place makes sweeps smaller, and changes nothing else.
    #[arg(long, num_args = 3, value_names = ["X", "Y", "Z"], allow_negative_numbers = true, default_values_t = [0.0; 3])]
    sensor: Vec<f64>,
    /// How probabilities are found: contexts, or learned, a small trained network beside them: 3 to 15 % fewer bits at half the speed, both ways.
    #[arg(long, default_value_t = Model::Contexts)]
    model: Model,
    /// Columns of a .bin file.
    #[arg(long)]
    columns: Option<usize>,
    #[command(flatten)]
    shared: Shared,
}

#[derive(Serialize)]
struct Report {
    file: String,
    out: String,
    model: &'static str,
    points: usize,
    dropped: usize,
    voxels: usize,
    voxel_size: f64,
    /// Greatest distance of a coordinate from what comes back.
    greatest_error: f64,
    bytes: u64,
    bits_per_voxel: f64,
    bits_per_point: f64,
    /// Of the coder alone, without reading and sorting.
    seconds: f64,
    voxels_per_second: f64,
    attributes: Vec<Kept>,
}

#[derive(Serialize)]
struct Kept {
    name: String,
    greatest_error: f64,
}

/// Runs the command.
///
/// # Errors
/// A scan that cannot be read, a voxel size that makes no grid, an attribute that is not there, a file that cannot be written.
pub fn run(args: &Args) -> Result<()> {
    args.shared.prepare()?;
    let ends_well = args.out.extension().is_some_and(|end| end.eq_ignore_ascii_case("lat"));
    ensure!(ends_well, "--out: expected a name that ends in .lat, found {}", args.out.display());
    let step = args.attribute_step;
    ensure!(
        step.is_finite() && step >= 0.0,
        "--attribute-step: expected 0 or a finite step above it, found {step}"
    );
    let steps = Steps::new(4);
    steps.begin("reading");
    let cloud = scene::load(&args.scene, args.columns)?;
    let size = scene::voxel_size(args.voxel_size, &cloud)?;
    let names = chosen(&args.attributes, &cloud)?;
    steps.done();
    steps.begin("voxels");
    let grid = Grid { voxel_size: size, origin: cloud.origin };
    let occupied = Occupied::of(&scene::cells(&cloud, size))?;
    let kept = |name: &String| {
        // Of the first point of every voxel.
        let values = cloud.attributes.get(name)?.select(&occupied.first_point);
        Some(Attribute { name: name.clone(), values })
    };
    let attributes = names.iter().filter_map(kept).collect();
    let mut options = CompressOptions::default();
    options.n_points = cloud.len() as u64;
    options.attribute_step = step;
    options.model = args.model;
    options.sensor = [0, 1, 2].map(|a| ((args.sensor[a] - cloud.origin[a]) / size).floor() as i32);
    let voxels =
        VoxelCloud { voxels: occupied.voxels, counts: args.counts.then_some(occupied.counts), attributes };
    steps.done();
    steps.begin("coding");
    let n = voxels.voxels.len();
    let start = Instant::now();
    let mut stream = Vec::new();
    let progress = |done| steps.begin(format!("coding {done} of {n} voxels"));
    let (header, bytes) = lattice_codec::compress(&voxels, grid, &options, &mut stream, progress)?;
    let seconds = start.elapsed().as_secs_f64();
    steps.done();
    steps.begin("writing");
    lattice_io::write_bytes(&args.out, &stream).map_err(|e| anyhow!("--out: {e}"))?;
    steps.done();
    drop(steps);
    let kept = |a: lattice_codec::AttributeInfo| Kept { name: a.name, greatest_error: a.greatest_error };
    let report = Report {
        file: args.scene.display().to_string(),
        out: args.out.display().to_string(),
        model: header.model.name(),
        points: cloud.len(),
        dropped: cloud.dropped,
        voxels: n,
        voxel_size: size,
        greatest_error: size / 2.0,
        bytes,
        bits_per_voxel: 8.0 * bytes as f64 / n.max(1) as f64,
        bits_per_point: 8.0 * bytes as f64 / cloud.len().max(1) as f64,
        seconds,
        voxels_per_second: n as f64 / seconds.max(1e-9),
        attributes: header.attributes().into_iter().map(kept).collect(),
    };
    if args.shared.json { output::json(&report) } else { output::line(text(&report)) }
}

/// Names of the attributes to keep.
fn chosen(words: &[String], cloud: &PointCloud) -> Result<Vec<String>> {
    match words {
        [word] if word == "none" => Ok(Vec::new()),
        [word] if word == "all" => Ok(cloud.attributes.keys().cloned().collect()),
        names => {
            for (k, name) in names.iter().enumerate() {
                if !cloud.attributes.contains_key(name) || names[..k].contains(name) {
                    let there = cloud.attributes.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
                    let there = if there.is_empty() { "no attributes".to_owned() } else { there };
                    bail!(
                        "--attributes: expected none, all, or names among those of the scan ({there}), each once, found `{name}`"
                    );
                }
            }
            Ok(names.to_vec())
        }
    }
}

fn text(report: &Report) -> String {
    let rows = [
        (
            "voxels",
            format!(
                "{} of {}, from {} points",
                table::count(report.voxels),
                table::length(report.voxel_size),
                table::count(report.points)
            ),
        ),
        ("position", format!("within {} along each axis", table::length(report.greatest_error))),
        (
            "size",
            format!(
                "{} bytes, {:.3} bits a voxel, {:.3} bits a point",
                table::count(report.bytes as usize),
                report.bits_per_voxel,
                report.bits_per_point
            ),
        ),
        (
            "coding",
            format!("{:.3} s, {:.2} million voxels a second", report.seconds, report.voxels_per_second / 1e6),
        ),
    ];
    let mut lines = vec![report.out.clone()];
    lines.extend(rows.iter().map(|(name, value)| format!("{name:<10}  {value}")));
    for a in &report.attributes {
        let loss = if a.greatest_error > 0.0 {
            format!("within {}", table::length(a.greatest_error))
        } else {
            "exact".to_owned()
        };
        lines.push(format!("{:<10}  {loss}", a.name));
    }
    lines.join("\n")
}
