//! Networks learn, in every precision; runs that diverge stop.
#![allow(clippy::unwrap_used, reason = "tests")]

mod tiny;

use lattice_train::{
    BEST, Checkpoint, DataConfig, Event, FILES, LAST, Outcome, Precision, Run, Schedule, TrainError,
    WeightsInfo,
};
use rstest::rstest;
use tiny::{device, plain, train};

#[rstest]
#[case::f32(Precision::F32)]
#[case::bf16(Precision::Bf16)]
#[case::f16(Precision::F16)]
fn the_loss_of_a_tiny_set_falls(#[case] precision: Precision) {
    let folder = tempfile::tempdir().unwrap();
    let mut config = plain(24);
    config.precision = precision;
    let mut run = Run::start(&folder.path().join("run"), config, &device()).unwrap();
    let reports = train(&mut run, None).unwrap();
    let mean =
        |part: &[lattice_train::StepReport]| part.iter().map(|r| r.loss).sum::<f32>() / part.len() as f32;
    let (before, after) = (mean(&reports[..3]), mean(&reports[21..]));
    assert!(after < 0.6 * before, "{precision:?}: {before} to {after}");
    let best = run.history().best.as_ref().unwrap();
    assert!(best.scores.miou > 0.1 && best.scores.accuracy > 0.3, "{best:?}");
}

#[test]
fn a_run_leaves_its_files_and_weights_that_say_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let mut config = plain(4);
    config.validate_every = 2;
    let mut run = Run::start(&path, config.clone(), &device()).unwrap();
    let mut validated = 0;
    let outcome =
        run.train(None, &mut |event| validated += usize::from(matches!(event, Event::Validated { .. })));
    assert_eq!((outcome.unwrap(), validated), (Outcome::Complete, 2));
    for file in FILES {
        assert!(path.join(file).is_file(), "{file}");
    }
    let csv = std::fs::read_to_string(path.join("metrics.csv")).unwrap();
    assert_eq!(csv.lines().count(), 3);
    let info = WeightsInfo::read(&path.join(BEST)).unwrap().unwrap();
    assert_eq!((info.model.as_str(), info.voxel_size), ("minkunet-small", 0.3));
    assert_eq!(info.classes, config.classes);
    assert_eq!(WeightsInfo::read(&path.join(LAST)).unwrap(), None);
}

#[test]
fn a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_state() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let mut config = plain(40);
    config.clip_norm = None;
    config.report_every = 8;
    config.optimizer =
        lattice_train::OptimizerConfig::Sgd { momentum: 0.9, nesterov: false, weight_decay: 0.0 };
    config.schedule = Schedule { peak: 1e30, warmup_steps: 0, final_share: 1.0 };
    let mut run = Run::start(&path, config, &device()).unwrap();
    train(&mut run, Some(1)).unwrap();
    let error = train(&mut run, None).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, TrainError::Diverged { step: 2..40, .. }), "{text}");
    assert!(text.contains("learning rate") && text.contains("last good state is in"), "{text}");
    assert_eq!(Checkpoint::load(&path.join(LAST)).unwrap().step, 1);
}

#[test]
fn a_run_that_does_not_improve_stops_early() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = plain(60);
    config.validate_every = 1;
    config.patience = Some(2);
    config.schedule.peak = 1e-12;
    let mut run = Run::start(&folder.path().join("run"), config, &device()).unwrap();
    assert_eq!(run.train(None, &mut |_| {}).unwrap(), Outcome::StoppedEarly);
    let done = run.trainer().steps_done();
    assert!(done < 60, "{done}");
    drop(run);
    // A stopped run stays stopped.
    let mut run = Run::resume(&folder.path().join("run"), &device()).unwrap();
    assert_eq!(run.train(None, &mut |_| {}).unwrap(), Outcome::StoppedEarly);
    assert_eq!(run.trainer().steps_done(), done);
}

#[test]
fn options_that_train_nothing_are_refused() {
    let refused = |change: &dyn Fn(&mut lattice_train::TrainConfig), part: &str| {
        let folder = tempfile::tempdir().unwrap();
        let mut config = plain(2);
        change(&mut config);
        let path = folder.path().join("run");
        let text = Run::start(&path, config, &device()).map(|_| ()).unwrap_err().to_string();
        assert!(text.contains(part), "expected `{part}` in: {text}");
        assert!(!path.exists(), "nothing is left behind");
    };
    refused(&|c| c.steps = 0, "steps: expected");
    refused(&|c| c.batch = 0, "batch: expected");
    refused(&|c| c.accumulate = 0, "accumulate: expected");
    refused(&|c| c.voxel_size = f64::NAN, "voxel size: expected");
    refused(&|c| c.voxel_size = -1.0, "voxel size: expected");
    refused(&|c| c.clip_norm = Some(0.0), "clip norm: expected");
    refused(&|c| c.schedule.peak = 0.0, "learning rate: expected");
    refused(&|c| c.model = "minkunet99".into(), "--model: expected one of");
    refused(&|c| c.classes = vec!["floor".into()], "expected the 5 classes of indoor scenes");
    refused(&|c| c.classes.clear(), "classes: expected");
    refused(&|c| c.augmentation.dropout = 1.0, "dropout: expected");
    refused(&|c| c.augmentation.scale = Some([2.0, 1.0]), "scale: expected");
    refused(&|c| c.augmentation.mix_chance = 2.0, "mix chance: expected");
    let data = |scenes: &str, train| DataConfig::Generated {
        scenes: scenes.into(),
        train,
        validation: 1,
        density: 0.02,
    };
    refused(&|c| c.data = data("indoor", 0), "training scenes: expected at least one");
    refused(&|c| c.data = data("forest", 1), "scenes: scene kind: expected lidar, indoor or object");
}
