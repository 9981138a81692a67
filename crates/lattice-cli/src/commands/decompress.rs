//! `lattice decompress`: the voxel centres of a compressed scan, as a point file.

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, anyhow, bail};
use lattice_codec::{Limits, VoxelCloud};
use lattice_io::{Attribute, PlyFormat, PointCloud};
use serde_json::json;

use crate::{Shared, output, progress::Steps, table};

/// Arguments of `lattice decompress`.
#[derive(clap::Args)]
pub struct Args {
    /// A .lat that `lattice compress` wrote.
    file: PathBuf,
    /// File to write: .ply, .npz, or .npy (positions alone).
    #[arg(long)]
    out: PathBuf,
    /// Most voxels to take: a small file may stand for very many.
    #[arg(long, default_value_t = Limits::default().max_voxels)]
    max_voxels: u64,
    #[command(flatten)]
    shared: Shared,
}

/// Runs the command.
///
/// # Errors
/// A file that cannot be read, another kind of file, a damaged one, more voxels than `--max-voxels`, a file that cannot be written.
pub fn run(args: &Args) -> Result<()> {
    args.shared.prepare()?;
    let extension = args.out.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    if !["ply", "npz", "npy"].contains(&extension.as_str()) {
        bail!("--out: expected a name that ends in .ply, .npz or .npy, found {}", args.out.display());
    }
    let shown = args.file.display();
    let steps = Steps::new(2);
    steps.begin("decoding");
    let file = File::open(&args.file)
        .map_err(|e| anyhow!("{shown}: expected a readable file, found: {e}; check the path"))?;
    let start = Instant::now();
    let limits = Limits { max_voxels: args.max_voxels };
    let progress = |done| steps.begin(format!("decoding, {done} voxels"));
    let (header, voxels) = lattice_codec::decompress(BufReader::new(file), limits, progress).map_err(|e| match e {
        lattice_codec::CodecError::Limit { limit, found, .. } => {
            anyhow!("{shown}: expected at most {limit} voxels, found {found}; raise --max-voxels if the file can be trusted")
        }
        e => anyhow!("{shown}: {e}"),
    })?;
    let seconds = start.elapsed().as_secs_f64();
    steps.done();
    steps.begin("writing");
    let n = voxels.voxels.len();
    let cloud = points(voxels, &header);
    let written = match extension.as_str() {
        "ply" => lattice_io::write_ply(&args.out, &cloud, PlyFormat::BinaryLittleEndian),
        "npz" => lattice_io::write_npz(&args.out, &cloud),
        _ => lattice_io::write_npy(&args.out, &cloud),
    };
    written.map_err(|e| anyhow!("--out: {e}"))?;
    steps.done();
    drop(steps);
    let rate = n as f64 / seconds.max(1e-9);
    let names: Vec<&String> = cloud.attributes.keys().collect();
    if args.shared.json {
        return output::json(&json!({
            "file": args.file.display().to_string(), "out": args.out.display().to_string(), "model": header.model.name(), "voxels": n, "points": header.n_points,
            "voxel_size": header.grid.voxel_size, "origin": header.grid.origin, "seconds": seconds, "voxels_per_second": rate, "attributes": names,
        }));
    }
    let size = table::length(header.grid.voxel_size);
    output::line(format!(
        "{}: {} voxels of {size} in {seconds:.3} s, {:.2} million a second",
        args.out.display(),
        table::count(n),
        rate / 1e6
    ))
}

/// Centres of the voxels with their attributes; counts as the attribute `count`.
fn points(voxels: VoxelCloud, header: &lattice_codec::Header) -> PointCloud {
    let mut cloud = PointCloud {
        positions: voxels.voxels.iter().map(|v| header.grid.centre(*v)).collect(),
        origin: header.grid.origin,
        ..PointCloud::default()
    };
    for a in voxels.attributes {
        cloud.attributes.insert(a.name, a.values);
    }
    if let Some(counts) = voxels.counts {
        // An attribute of that name in the scan itself is not lost.
        let name = if cloud.attributes.contains_key("count") { "voxel_count" } else { "count" };
        cloud.attributes.insert(name.to_owned(), Attribute::U32(counts));
    }
    cloud
}
