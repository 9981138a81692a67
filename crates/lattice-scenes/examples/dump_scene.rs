//! Writes a scene as raw f32 rows `x y z label` to a file: `dump_scene KIND SEED FILE [32|64|128|fragment]`.
use std::io::Write;

use lattice_io::Attribute;
use lattice_scenes::{Beams, RoomSampling, SceneKind, SceneOptions, generate};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let kind: SceneKind = args[0].parse()?;
    let options = match args.get(3).map(String::as_str) {
        Some("32") => SceneOptions::default().with_beams(Beams::B32),
        Some("128") => SceneOptions::default().with_beams(Beams::B128),
        Some("fragment") => SceneOptions::default().with_room(RoomSampling::DenseFragment),
        _ => SceneOptions::default(),
    };
    let start = std::time::Instant::now();
    let cloud = generate(kind, args[1].parse()?, &options);
    println!("{} points in {:?}", cloud.len(), start.elapsed());
    let Some(Attribute::U8(labels)) = cloud.attributes.get("label") else { return Err("no labels".into()) };
    let mut bytes = Vec::new();
    for (p, &label) in cloud.positions.iter().zip(labels) {
        for v in [p[0] as f32, p[1] as f32, p[2] as f32, f32::from(label)] {
            bytes.extend(v.to_le_bytes());
        }
    }
    std::fs::File::create(&args[2])?.write_all(&bytes)?;
    Ok(())
}
