//! A segmentation network learns lidar sweeps for half a minute, is scored, and colours a sweep that it has not seen.
//!
//! `cargo run --release --example 03_segment_a_sweep`; the command line does the same with more options: `lattice train`.

use std::error::Error;
use std::path::Path;

use burn::tensor::Device;
use lattice_io::{Attribute, RenderOptions, render_png};
use lattice_scenes::{SceneKind, SceneOptions, generate};
use lattice_train::{DataConfig, Event, Run, TrainConfig, segment};

fn main() -> Result<(), Box<dyn Error>> {
    let device = Device::flex();
    // Thin sweeps and large voxels, so that it ends soon.
    let mut config = TrainConfig::generated(SceneKind::Lidar);
    config.data = DataConfig::Generated { scenes: "lidar".into(), train: 12, validation: 2, density: 0.15 };
    config.voxel_size = 0.4;
    config.steps = 60;
    config.validate_every = 20;
    config.schedule.warmup_steps = 10;

    let folder = Path::new("out/03_segment_a_sweep");
    if folder.exists() {
        std::fs::remove_dir_all(folder)?;
    }
    let mut run = Run::start(folder, config, &device)?;
    run.train(None, &mut |event| {
        if let Event::Validated { validation, loss, .. } = event {
            let scores = &validation.scores;
            let (miou, accuracy) = (100.0 * scores.miou, 100.0 * scores.accuracy);
            println!(
                "step {:>3}: loss {loss:.2}, mIoU {miou:.1} %, accuracy {accuracy:.1} %",
                validation.step
            );
        }
    })?;

    let mut sweep = generate(SceneKind::Lidar, 999, &SceneOptions::default().with_density(0.15));
    let positions: Vec<[f32; 3]> = sweep.positions.iter().map(|p| p.map(|v| v as f32)).collect();
    let (network, _) = run.trainer().trained();
    let found = segment(&network, &positions, run.config().voxel_size as f32, &device)?;
    println!("{} points in {} voxels classified", sweep.len(), found.voxels);
    sweep.attributes.insert("label".into(), Attribute::U8(found.classes));
    let picture = folder.join("sweep.png");
    let options = RenderOptions::default().by_class("label", run.config().classes.iter().cloned());
    render_png(&picture, &sweep, &options)?;
    println!("{}", picture.display());
    Ok(())
}
