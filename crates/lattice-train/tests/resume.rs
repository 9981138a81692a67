//! A run that was stopped goes on with the bits it would have had; damaged checkpoints are named.
#![allow(clippy::unwrap_used, reason = "tests")]

mod tiny;

use std::path::Path;

use lattice_train::{
    BEST, Checkpoint, Event, LAST, Mix, OptimizerConfig, Outcome, PREVIOUS, Precision, Run, TensorFile,
    TrainConfig,
};
use rstest::rstest;
use tiny::{bits, config, device, plain, train};

fn started(folder: &Path, config: &TrainConfig) -> Run {
    Run::start(folder, config.clone(), &device()).unwrap()
}

fn adamw(config: &mut TrainConfig) {
    config.augmentation.mix = Mix::Sectors;
}

fn sgd_accumulating(config: &mut TrainConfig) {
    config.optimizer = OptimizerConfig::sgd();
    config.accumulate = 2;
}

fn half(config: &mut TrainConfig) {
    config.precision = Precision::F16;
    config.batch = 1;
}

#[rstest]
#[case::adamw(adamw)]
#[case::sgd_accumulating(sgd_accumulating)]
#[case::half_precision(half)]
fn stopping_and_resuming_changes_no_bit(#[case] change: fn(&mut TrainConfig)) {
    let mut config = config(6);
    config.validate_every = 2;
    change(&mut config);
    let folder = tempfile::tempdir().unwrap();
    let [whole, parts] = ["whole", "parts"].map(|name| folder.path().join(name));
    let mut run = started(&whole, &config);
    let expected = train(&mut run, None).unwrap();
    assert_eq!(expected.len(), 6);

    let mut first = started(&parts, &config);
    let mut found = train(&mut first, Some(3)).unwrap();
    drop(first);
    let mut second = Run::resume(&parts, &device()).unwrap();
    assert_eq!(second.trainer().steps_done(), 3);
    found.extend(train(&mut second, None).unwrap());
    assert_eq!(bits(&found), bits(&expected));
    assert!(run.trainer().values() == second.trainer().values(), "parameters are equal");
    let best = |folder: &Path| std::fs::read(folder.join(BEST)).unwrap();
    assert!(best(&whole) == best(&parts), "the weights that validation found best are equal");
    let tensors = |folder: &Path| {
        let checkpoint = Checkpoint::load(&folder.join(LAST)).unwrap();
        let mut file = checkpoint.tensors;
        let names: Vec<String> = file.names().map(String::from).collect();
        let path = Path::new("");
        let take = |name: String| {
            let dims = file.dims(&name).unwrap();
            (file.take(path, &name, &dims).unwrap(), name)
        };
        names.into_iter().map(take).collect::<Vec<_>>()
    };
    assert!(tensors(&whole) == tensors(&parts), "optimizer, running statistics and loss scale are equal");
}

#[test]
fn a_run_that_is_asked_to_stop_pauses_with_a_checkpoint() {
    let mut config = config(6);
    (config.validate_every, config.report_every) = (6, 1);
    let folder = tempfile::tempdir().unwrap();
    let [whole, parts] = ["whole", "parts"].map(|name| folder.path().join(name));
    let expected = train(&mut started(&whole, &config), None).unwrap();

    let mut first = started(&parts, &config);
    let stop = first.stop();
    let mut found = Vec::new();
    let outcome = first.train(None, &mut |event| {
        if let Event::Steps { reports, .. } = event {
            found.extend(reports.iter().cloned());
            if found.len() == 2 {
                stop.ask();
            }
        }
    });
    assert_eq!(outcome.unwrap(), Outcome::Paused);
    // It is seen when steps are read next.
    assert_eq!(first.trainer().steps_done(), 3);
    drop(first);
    let mut second = Run::resume(&parts, &device()).unwrap();
    assert_eq!(second.trainer().steps_done(), 3);
    found.extend(train(&mut second, None).unwrap());
    assert_eq!(bits(&found), bits(&expected));
}

#[test]
fn two_runs_of_one_seed_have_equal_losses_and_another_seed_has_others() {
    let folder = tempfile::tempdir().unwrap();
    let mut seeds = [11, 11, 12].into_iter().enumerate().map(|(i, seed)| {
        let config = TrainConfig { seed, threads: i + 1, ..config(3) };
        bits(&train(&mut started(&folder.path().join(i.to_string()), &config), None).unwrap())
    });
    let (first, second, other) = (seeds.next().unwrap(), seeds.next().unwrap(), seeds.next().unwrap());
    assert_eq!(first, second);
    assert_ne!(first, other);
}

#[test]
fn a_kill_while_saving_leaves_a_checkpoint_to_go_on_from() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let mut run = started(&path, &plain(4));
    train(&mut run, Some(1)).unwrap();
    train(&mut run, Some(2)).unwrap();
    let step = |name: &str| Checkpoint::load(&path.join(name)).unwrap().step;
    assert_eq!((step(LAST), step(PREVIOUS)), (2, 1));
    drop(run);
    // Killed after the old file moved away and before the new one took its name.
    std::fs::rename(path.join(LAST), path.join("next.safetensors")).unwrap();
    assert_eq!(Run::resume(&path, &device()).unwrap().trainer().steps_done(), 1);
    // Killed while the new file was being written: it has another name until it is complete.
    let half = path.join(".next.safetensors.123-4.part");
    std::fs::write(&half, "half").unwrap();
    std::fs::write(path.join("next.safetensors"), "complete, but not yet renamed").unwrap();
    let mut run = Run::resume(&path, &device()).unwrap();
    assert!(!half.exists(), "halves are removed");
    assert_eq!(run.train(None, &mut |_| {}).unwrap(), Outcome::Complete);
    assert_eq!(step(LAST), 4);
}

#[test]
fn damaged_checkpoints_are_errors_that_name_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    train(&mut started(&path, &plain(4)), Some(1)).unwrap();
    let last = path.join(LAST);
    let whole = std::fs::read(&last).unwrap();
    let refused = |parts: &[&str]| {
        let text = Run::resume(&path, &device()).map(|_| ()).unwrap_err().to_string();
        for part in parts.iter().chain(&[LAST]) {
            assert!(text.contains(part), "expected `{part}` in: {text}");
        }
    };
    std::fs::write(&last, &whole[..whole.len() / 2]).unwrap();
    refused(&["expected a complete .safetensors file"]);
    std::fs::copy(&last, path.join(PREVIOUS)).unwrap();
    refused(&["remove it to go on from previous.safetensors"]);
    std::fs::write(&last, "no checkpoint").unwrap();
    refused(&["expected a complete .safetensors file"]);

    let restore = |change: &dyn Fn(&mut TensorFile)| {
        std::fs::write(&last, &whole).unwrap();
        let mut file = TensorFile::read(&last).unwrap();
        change(&mut file);
        file.write(&last).unwrap();
    };
    let name = "optimizer.mean.head.conv.weight";
    restore(&|file| file.insert(name, &[2, 3], vec![0.0; 6]));
    refused(&["tensor `optimizer.mean.head.conv.weight`", "[1, 32, 5]", "[2, 3]", "f32"]);
    restore(&|file| drop(file.take(Path::new(""), name, &[1, 32, 5]).unwrap()));
    refused(&["tensor `optimizer.mean.head.conv.weight`", "found none"]);
    restore(&|file| file.insert("network.extra", &[1], vec![0.0]));
    refused(&["tensor `network.extra`"]);
    restore(&|file| file.insert_text("config", "{}"));
    refused(&["that of another run"]);
    // The header says that a tensor has another type.
    let header = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let mut bytes = whole.clone();
    let at = (8..8 + header).find(|&i| bytes[i..].starts_with(b"\"F32\"")).unwrap();
    bytes[at..at + 5].copy_from_slice(b"\"I32\"");
    std::fs::write(&last, bytes).unwrap();
    refused(&["expected f32 values", "I32"]);
}

#[test]
fn folders_that_do_not_fit_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let resumed = |path: &Path| Run::resume(path, &device()).map(|_| ()).unwrap_err().to_string();
    assert!(resumed(&path).contains("expected the configuration of a run"));
    drop(started(&path, &plain(2)));
    assert!(resumed(&path).contains("expected a checkpoint last.safetensors"));
    let mut run = started(&path, &plain(2));
    train(&mut run, Some(1)).unwrap();
    assert!(resumed(&path).contains("found: a run that goes on in it"));
    drop(run);
    let text = Run::start(&path, plain(2), &device()).map(|_| ()).unwrap_err().to_string();
    assert!(text.contains("found a checkpoint; resume it"), "{text}");
    std::fs::write(path.join("config.json"), "{").unwrap();
    assert!(resumed(&path).contains("restore the file"));
    let file = folder.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let text = Run::start(&file, plain(2), &device()).map(|_| ()).unwrap_err().to_string();
    assert!(text.contains("expected a folder that can be written to"), "{text}");
}

#[test]
fn a_full_disk_leaves_the_checkpoint_before() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let mut run = started(&path, &plain(4));
    train(&mut run, Some(1)).unwrap();
    // Nothing can be written under the name that a new checkpoint waits under.
    std::fs::create_dir(path.join("next.safetensors")).unwrap();
    assert!(train(&mut run, Some(2)).is_err());
    assert_eq!(Checkpoint::load(&path.join(LAST)).unwrap().step, 1);
}
