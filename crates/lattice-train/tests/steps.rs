//! What one step does: accumulation, clipping, loss scaling.
#![allow(clippy::unwrap_used, reason = "tests")]

mod tiny;

use lattice_train::{
    Batch, OptimizerConfig, Precision, Schedule, TrainConfig, Trainer, build_model, make_batch,
};
use tiny::{device, plain};

/// Plain gradient descent at a constant rate, so that a step is the gradient.
fn descent(rate: f64) -> TrainConfig {
    let mut config = plain(10);
    config.optimizer = OptimizerConfig::Sgd { momentum: 0.0, nesterov: false, weight_decay: 0.0 };
    config.schedule = Schedule { peak: rate, warmup_steps: 0, final_share: 1.0 };
    config.clip_norm = None;
    config
}

fn batch(config: &TrainConfig, scene: usize) -> Batch {
    let (train, _) = config.datasets().unwrap();
    make_batch(&[&train.scene(scene).unwrap()], config.voxel_size as f32, 5).unwrap()
}

fn trainer(config: &TrainConfig) -> Trainer<lattice_train::SegmentationNet> {
    let model = build_model(&config.model, 5, 1, &device().autodiff()).unwrap();
    Trainer::new(model, config, vec![1.0; 5], &device()).unwrap()
}

/// How far a step on `batches` moves the parameters.
fn moved(config: &TrainConfig, batches: &[Batch]) -> Vec<f32> {
    let mut trainer = trainer(config);
    let before = trainer.values();
    trainer.step(batches).unwrap();
    trainer.drain().unwrap();
    trainer.values().iter().zip(&before).map(|(after, before)| after - before).collect()
}

fn norm(values: &[f32]) -> f64 {
    values.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt()
}

#[test]
fn accumulated_batches_give_the_mean_gradient() {
    let config = descent(1.0);
    let (a, b) = (batch(&config, 0), batch(&config, 1));
    let both = moved(&config, &[a.clone(), b.clone()]);
    let (one, other) = (moved(&config, &[a]), moved(&config, &[b]));
    let mean: Vec<f32> = one.iter().zip(&other).map(|(a, b)| (a + b) / 2.0).collect();
    let apart: Vec<f32> = both.iter().zip(&mean).map(|(found, expected)| found - expected).collect();
    assert!(norm(&apart) < 1e-4 * norm(&mean), "{} {}", norm(&apart), norm(&mean));
}

#[test]
fn long_gradients_are_clipped_to_their_norm_and_short_ones_are_not() {
    let mut config = descent(1.0);
    let batch = batch(&config, 0);
    let whole = norm(&moved(&config, std::slice::from_ref(&batch)));
    for (clip, expected) in [(0.01 * whole, 0.01 * whole), (10.0 * whole, whole)] {
        config.clip_norm = Some(clip);
        let found = norm(&moved(&config, std::slice::from_ref(&batch)));
        assert!((found - expected).abs() < 1e-3 * expected, "{clip}: {found} {expected}");
    }
}

#[test]
fn half_precision_gradients_that_overflow_leave_the_step_out_and_halve_the_scale() {
    let mut config = descent(1e-9);
    config.precision = Precision::F16;
    config.loss.cross_entropy = 1e4;
    let batch = batch(&config, 0);
    let mut trainer = trainer(&config);
    let before = trainer.values();
    trainer.step(std::slice::from_ref(&batch)).unwrap();
    let first = trainer.drain().unwrap()[0];
    assert!(first.skipped && first.scale == 65_536.0 && !first.norm.is_finite(), "{first:?}");
    assert!(trainer.values() == before, "no parameter moved");
    for _ in 0..20 {
        trainer.step(std::slice::from_ref(&batch)).unwrap();
    }
    let reports = trainer.drain().unwrap();
    assert_eq!(reports[0].scale, 32_768.0);
    let last = reports.last().unwrap();
    assert!(!last.skipped && last.norm.is_finite() && last.scale < 32_768.0, "{last:?}");
    assert!(trainer.values() != before);
}

#[test]
fn a_step_without_batches_is_refused() {
    let text = trainer(&descent(1.0)).step(&[]).unwrap_err().to_string();
    assert!(text.contains("at least one batch a step"), "{text}");
}
