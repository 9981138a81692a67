//! Several devices that share each batch do what one does. The devices are the processor, several times, connected through host memory.
#![allow(clippy::unwrap_used, reason = "tests")]

mod tiny;

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use burn::tensor::Device;
use burn_lattice::Group;
use lattice_io::{Attribute, PlyFormat, PointCloud, write_ply};
use lattice_train::{
    Batch, Checkpoint, ClassWeights, DataConfig, LAST, OptimizerConfig, Outcome, Precision, Ranks, Run,
    Schedule, StepReport, TrainConfig, TrainError, Trainer, build_model, make_batch,
};
use rstest::rstest;
use tiny::{bits, config, device, plain, train};

fn ranks(n: usize) -> Ranks {
    Ranks::in_process(&vec![Device::flex(); n]).unwrap()
}

fn started(folder: &Path, config: &TrainConfig, n: usize) -> Run {
    let ranks = if n == 1 { Ranks::one(&device()) } else { ranks(n) };
    Run::start_on(folder, config.clone(), &ranks).unwrap()
}

/// Plain gradient descent at rate 1: a step moves the parameters by the gradient.
fn descent(batch: usize) -> TrainConfig {
    let mut config = TrainConfig { batch, ..config(1) };
    config.optimizer = OptimizerConfig::Sgd { momentum: 0.0, nesterov: false, weight_decay: 0.0 };
    config.schedule = Schedule { peak: 1.0, warmup_steps: 0, final_share: 1.0 };
    config.clip_norm = None;
    config.loss.lovasz = 0.0;
    config
}

/// What one step did on `n` devices, and where all parameters went.
fn stepped(config: &TrainConfig, n: usize) -> (StepReport, Vec<f32>) {
    let folder = tempfile::tempdir().unwrap();
    let mut run = started(&folder.path().join("run"), config, n);
    let before = run.trainer().values();
    let report = train(&mut run, None).unwrap()[0];
    let after: Vec<Vec<f32>> = run.trainers().map(Trainer::values).collect();
    assert_eq!(after.len(), n);
    let equal = |values: &Vec<f32>| values.iter().zip(&after[0]).all(|(a, b)| a.to_bits() == b.to_bits());
    assert!(after.iter().all(equal), "the parameters of all ranks have the same bits");
    (report, after[0].iter().zip(&before).map(|(after, before)| after - before).collect())
}

/// Norm of the difference, as a share of the norm of `expected`.
fn apart(found: &[f32], expected: &[f32]) -> f64 {
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let difference = &mut found.iter().zip(expected).map(|(&f, &e)| f64::from(f) - f64::from(e));
    norm(difference) / norm(&mut expected.iter().map(|&e| f64::from(e)))
}

fn accumulating(config: &mut TrainConfig) {
    config.accumulate = 2;
}

fn unweighted(config: &mut TrainConfig) {
    config.loss.class_weights = ClassWeights::None;
}

#[rstest]
#[case::two_even(2, 2, |_: &mut TrainConfig| {})]
#[case::two_uneven(2, 3, |_: &mut TrainConfig| {})]
#[case::three_uneven(3, 4, accumulating)]
#[case::three(3, 3, unweighted)]
fn the_gradient_is_that_of_one_device_on_the_same_batch(
    #[case] n: usize,
    #[case] batch: usize,
    #[case] change: fn(&mut TrainConfig),
) {
    let mut config = descent(batch);
    change(&mut config);
    let (alone, expected) = stepped(&config, 1);
    let (together, found) = stepped(&config, n);
    // The rounding of sums in f32 over the layers of the network.
    let far = apart(&found, &expected);
    assert!(far < 2e-4, "{far}");
    assert!((together.loss - alone.loss).abs() < 1e-5 * alone.loss, "{together:?} {alone:?}");
    assert!((together.norm - alone.norm).abs() < 1e-4 * alone.norm, "{together:?} {alone:?}");
    // Norms apart see other batches: the test can tell.
    config.shared_norms = false;
    let (_, found) = stepped(&config, n);
    let far = apart(&found, &expected);
    assert!(far > 1e-2, "{far}");
}

#[test]
fn lovasz_is_the_mean_over_the_parts() {
    let mut config = descent(2);
    config.loss.cross_entropy = 0.0;
    config.loss.lovasz = 1.0;
    let (together, _) = stepped(&config, 2);
    let (alone, _) = stepped(&config, 1);
    assert!(together.loss.is_finite() && together.loss > 0.0);
    // Near the loss of the whole, and not the same.
    let far = (together.loss - alone.loss).abs() / alone.loss;
    assert!(far > 1e-6 && far < 0.2, "{far}");
}

fn half(config: &mut TrainConfig) {
    config.precision = Precision::F16;
}

fn sgd(config: &mut TrainConfig) {
    config.optimizer = OptimizerConfig::sgd();
    config.accumulate = 2;
}

#[rstest]
#[case::adamw(|_: &mut TrainConfig| {})]
#[case::sgd_accumulating(sgd)]
#[case::half_precision(half)]
fn stopping_and_resuming_changes_no_bit(#[case] change: fn(&mut TrainConfig)) {
    let mut config = TrainConfig { validate_every: 2, ..config(4) };
    change(&mut config);
    let folder = tempfile::tempdir().unwrap();
    let [whole, parts] = ["whole", "parts"].map(|name| folder.path().join(name));
    let mut run = started(&whole, &config, 2);
    let expected = train(&mut run, None).unwrap();
    assert_eq!(expected.len(), 4, "the first rank alone tells");
    assert_eq!(run.history().rows.iter().filter(|row| row.validation.is_some()).count(), 2);
    // A run that was paused goes on as it is, and from its folder.
    let mut first = started(&parts, &config, 2);
    let mut found = train(&mut first, Some(1)).unwrap();
    found.extend(train(&mut first, Some(3)).unwrap());
    drop(first);
    let mut second = Run::resume_on(&parts, &ranks(2)).unwrap();
    found.extend(train(&mut second, None).unwrap());
    assert_eq!(bits(&found), bits(&expected), "two runs have the same bits");
    let tensors = |folder: &Path| {
        let mut checkpoint = Checkpoint::load(&folder.join(LAST)).unwrap();
        // Rows of the history say where the run was stopped.
        checkpoint.tensors.insert_text("history", "");
        checkpoint
    };
    assert!(tensors(&whole) == tensors(&parts), "parameters, optimizer, running statistics and loss scale");
}

#[test]
fn a_run_resumes_on_any_number_of_devices() {
    let mut config = TrainConfig { batch: 3, ..config(4) };
    config.loss.lovasz = 0.0;
    let folder = tempfile::tempdir().unwrap();
    let last = |n: [usize; 2]| {
        let path = folder.path().join(format!("{n:?}"));
        train(&mut started(&path, &config, n[0]), Some(2)).unwrap();
        let mut run = match n[1] {
            1 => Run::resume(&path, &device()).unwrap(),
            n => Run::resume_on(&path, &ranks(n)).unwrap(),
        };
        assert_eq!(run.trainer().steps_done(), 2);
        train(&mut run, None).unwrap().last().unwrap().loss
    };
    let expected = last([1, 1]);
    for n in [[1, 2], [2, 1], [3, 2]] {
        let found = last(n);
        // Adam's first steps go by the sign of the gradient, which rounding turns where it is near 0.
        assert!((found - expected).abs() < 0.02 * expected, "{n:?}: {found}, alone {expected}");
    }
}

#[test]
fn validation_of_the_first_rank_stops_all() {
    let mut config = TrainConfig { validate_every: 1, patience: Some(1), ..config(50) };
    config.schedule = Schedule { peak: 1e-12, warmup_steps: 0, final_share: 1.0 };
    let folder = tempfile::tempdir().unwrap();
    let mut run = started(&folder.path().join("run"), &config, 2);
    assert_eq!(run.train(None, &mut |_| {}).unwrap(), Outcome::StoppedEarly);
    let steps: Vec<usize> = run.trainers().map(Trainer::steps_done).collect();
    assert!(steps.len() == 2 && steps[0] == steps[1] && steps[0] < 50, "{steps:?}");
}

#[test]
fn a_rank_that_fails_ends_all_with_its_error() {
    let folder = tempfile::tempdir().unwrap();
    let scenes = folder.path().join("scenes");
    std::fs::create_dir(&scenes).unwrap();
    for i in 0..6u8 {
        let n = 200;
        let label = |k: usize| if i == 4 { 77 } else { (k % 5) as u8 };
        let cloud = PointCloud {
            positions: (0..n).map(|k| [(k % 17) as f64, (k % 13) as f64, f64::from(i)]).collect(),
            attributes: [("label".to_string(), Attribute::U8((0..n).map(label).collect()))].into(),
            ..PointCloud::default()
        };
        write_ply(scenes.join(format!("scan{i}.ply")), &cloud, PlyFormat::Ascii).unwrap();
    }
    let mut config = plain(40);
    config.data = DataConfig::Files { train: scenes, validation: None, label_map: None, columns: None };
    config.voxel_size = 1.0;
    config.loss.class_weights = ClassWeights::None;
    let clock = Instant::now();
    let mut run = started(&folder.path().join("run"), &config, 2);
    let error = run.train(None, &mut |_| {}).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("scan4.ply") && text.contains("77"), "{text}");
    assert!(clock.elapsed() < Duration::from_secs(15), "nobody waits for the one that failed");
    assert_eq!(run.trainers().count(), 2, "both threads came back");
    let text = run.train(None, &mut |_| {}).unwrap_err().to_string();
    assert!(text.contains("one has ended"), "{text}");
}

#[test]
fn a_run_that_diverges_ends_on_all_ranks_and_names_the_last_good_state() {
    let mut config = config(20);
    config.optimizer = OptimizerConfig::Sgd { momentum: 0.0, nesterov: false, weight_decay: 0.0 };
    config.schedule = Schedule { peak: 1e30, warmup_steps: 0, final_share: 1.0 };
    config.clip_norm = None;
    let folder = tempfile::tempdir().unwrap();
    let mut run = started(&folder.path().join("run"), &config, 2);
    let error = run.train(None, &mut |_| {}).unwrap_err();
    assert!(matches!(error, TrainError::Diverged { .. }), "{error}");
    assert!(error.to_string().contains("no checkpoint was written yet"), "{error}");
}

#[test]
fn parameters_that_drift_apart_are_an_error_on_every_rank() {
    let config = plain(10);
    let (scenes, _) = config.datasets().unwrap();
    let batch: Batch =
        make_batch(&[&scenes.scene(0).unwrap()], config.voxel_size as f32, config.classes.len()).unwrap();
    let groups = Group::in_process(2).unwrap();
    let texts: Vec<String> = thread::scope(|scope| {
        let ranks: Vec<_> = groups
            .into_iter()
            .map(|group| {
                let (config, batch) = (&config, &batch);
                scope.spawn(move || {
                    // Another seed a rank: they begin apart.
                    let model =
                        build_model(&config.model, 5, group.rank() as u64, &device().autodiff()).unwrap();
                    let mut trainer =
                        Trainer::new(model, config, vec![1.0; 5], &device()).unwrap().with_group(group);
                    trainer.step(std::slice::from_ref(batch)).unwrap();
                    trainer.drain().unwrap_err().to_string()
                })
            })
            .collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    });
    for text in texts {
        assert!(text.contains("rank 1: expected the parameters of rank 0 after step 1"), "{text}");
    }
}

#[test]
fn devices_that_cannot_share_a_run_are_refused_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let config = TrainConfig { batch: 2, ..plain(2) };
    let text = Run::start_on(&path, config, &ranks(3)).map(drop).unwrap_err().to_string();
    assert!(text.contains("expected at least one scene a device, found 2 for 3 devices"), "{text}");
    let text = Ranks::over_devices(&[Device::flex(), Device::flex()]).unwrap_err().to_string();
    assert!(text.contains("expected CUDA devices"), "{text}");
    assert!(Ranks::over_devices(&[]).is_err());
    assert!(Ranks::in_process(&[]).is_err());
    assert_eq!(Ranks::over_devices(&[Device::flex()]).unwrap().len(), 1, "one device needs no connection");
    assert!(!path.exists(), "nothing was written");
}
