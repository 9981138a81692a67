//! Draws scans: `cargo run --release -p lattice-io --example picture -- OUT_FOLDER SCAN[=LABELS] ...`.

use std::path::Path;
use std::time::Instant;

use lattice_io::{ReadOptions, RenderOptions, read, render_png};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let folder = args.next().ok_or("usage: picture OUT_FOLDER SCAN[=LABELS]...")?;
    for arg in args {
        let (scan, options) = match arg.split_once('=') {
            Some((scan, labels)) => (scan, ReadOptions::default().with_labels(labels)),
            None => (arg.as_str(), ReadOptions::default()),
        };
        let start = Instant::now();
        let cloud = read(scan, &options)?;
        let read_ms = start.elapsed().as_millis();
        let name = Path::new(scan).file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let out = Path::new(&folder).join(format!("{name}.png"));
        let start = Instant::now();
        render_png(&out, &cloud, &RenderOptions::default().with_title(name))?;
        println!(
            "{scan}: {} points in {read_ms} ms, drawn in {} ms",
            cloud.len(),
            start.elapsed().as_millis()
        );
        println!("  box {:?}, attributes {:?}", cloud.bounds(), cloud.attributes.keys().collect::<Vec<_>>());
    }
    Ok(())
}
