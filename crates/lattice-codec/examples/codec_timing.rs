//! Bits a voxel and processor time of one core on scans: `codec_timing MODEL VOXEL_SIZE FILE...`, the model contexts or learned.

use lattice_codec::{CompressOptions, Grid, Limits, Model, Occupied, VoxelCloud, compress, decompress};

/// Seconds of processor time of this thread where the system tells, else of the clock.
fn seconds(since: std::time::Instant) -> f64 {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanos = told.and_then(|text| text.split(' ').next().and_then(|n| n.parse::<f64>().ok()));
    nanos.map_or_else(|| since.elapsed().as_secs_f64(), |n| n / 1e9)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let usage = "expected a model, a voxel size and files";
    let model: Model = args.next().ok_or(usage)?.parse()?;
    let size: f64 = args.next().ok_or(usage)?.parse()?;
    let mut options = CompressOptions::default();
    options.model = model;
    let start = std::time::Instant::now();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build()?;
    for file in args {
        let cloud = lattice_io::read(&file, &lattice_io::ReadOptions::default())?;
        let cells: Vec<[i32; 4]> = cloud
            .positions
            .iter()
            .map(|p| {
                let [x, y, z] = p.map(|v| (v / size).floor() as i32);
                [0, x, y, z]
            })
            .collect();
        let voxels = Occupied::of(&cells)?.voxels;
        let (n, cloud) = (voxels.len() as f64, VoxelCloud { voxels, ..VoxelCloud::default() });
        let (mut stream, before) = (Vec::new(), seconds(start));
        let grid = Grid { voxel_size: size, origin: [0.0; 3] };
        let (between, after) = pool.install(|| -> Result<_, lattice_codec::CodecError> {
            compress(&cloud, grid, &options, &mut stream, |_| {})?;
            let between = seconds(start);
            let (_, back) = decompress(stream.as_slice(), Limits::default(), |_| {})?;
            let after = seconds(start);
            assert_eq!(back, cloud, "{file}");
            Ok((between, after))
        })?;
        println!(
            "{file} {size} {model}: {n} voxels, {:.3} bits a voxel, {:.2} M/s in, {:.2} M/s out",
            8.0 * stream.len() as f64 / n,
            n / (between - before) / 1e6,
            n / (after - between) / 1e6
        );
    }
    Ok(())
}
