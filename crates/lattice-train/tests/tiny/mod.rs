//! A run that takes a second.
#![allow(dead_code, reason = "each test file uses a part")]

use burn::tensor::Device;
use lattice_scenes::SceneKind;
use lattice_train::{Augmentation, DataConfig, Event, Run, Schedule, StepReport, TrainConfig};

/// Rooms of a few hundred points, a network of 1.6 million parameters, large voxels.
pub fn config(steps: usize) -> TrainConfig {
    let mut config = TrainConfig::generated(SceneKind::Indoor);
    config.data = DataConfig::Generated { scenes: "indoor".into(), train: 3, validation: 1, density: 0.02 };
    config.voxel_size = 0.3;
    config.steps = steps;
    config.validate_every = steps;
    config.report_every = 2;
    config.schedule = Schedule { peak: 2e-3, warmup_steps: 2, final_share: 0.1 };
    config.seed = 11;
    config
}

/// The same without changes of the scenes.
pub fn plain(steps: usize) -> TrainConfig {
    TrainConfig { augmentation: Augmentation::none(), ..config(steps) }
}

/// Trains up to a step and returns what each step did.
pub fn train(run: &mut Run, until: Option<usize>) -> lattice_train::Result<Vec<StepReport>> {
    let mut reports = Vec::new();
    run.train(until, &mut |event| {
        if let Event::Steps { reports: new, .. } = event {
            reports.extend_from_slice(new);
        }
    })?;
    Ok(reports)
}

/// Loss and gradient norm of each step, as bits.
pub fn bits(reports: &[StepReport]) -> Vec<(usize, u32, u32)> {
    reports.iter().map(|r| (r.step, r.loss.to_bits(), r.norm.to_bits())).collect()
}

pub fn device() -> Device {
    Device::flex()
}
