//! `lattice train`, `lattice eval`, and `lattice run` with what was trained.
#![allow(clippy::unwrap_used, reason = "tests")]

mod command;

use command::{Place, npy, terrain};

/// A run of seconds: rooms of a thousand points, large voxels.
const TRAIN: [&str; 13] = [
    "train",
    "--kind",
    "indoor",
    "--density",
    "0.02",
    "--scene-count",
    "2",
    "--validation-count",
    "1",
    "--voxel-size",
    "0.3",
    "--warmup",
    "2",
];

fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&TRAIN[..], more].concat()
}

fn trained(place: &Place) {
    place.succeed(&with(&["--steps", "4", "--validate-every", "2", "--out", "trained"]));
}

#[test]
fn a_run_prints_a_line_a_validation_and_resumes_where_it_stopped() {
    let place = Place::new();
    let args = ["--steps", "4", "--validate-every", "2"];
    let text = place.succeed(&with(&[&args[..], &["--out", "whole"]].concat()));
    assert_eq!(text.lines().count(), 4, "{text}");
    assert!(
        text.contains("minkunet-small (1,612,") && text.contains("mIoU") && text.contains("floor"),
        "{text}"
    );
    let paused = with(&[&args[..], &["--out", "parts", "--stop-at", "3", "--json"]].concat());
    let report = place.json(&paused);
    assert_eq!((&report["outcome"], &report["steps"]), (&"paused".into(), &3.into()));
    let report = place.json(&["train", "--resume", "parts", "--json"]);
    assert_eq!((&report["outcome"], &report["steps"]), (&"complete".into(), &4.into()));
    assert!(report["best"]["scores"]["miou"].as_f64().is_some() && report["loss"].as_f64().is_some());
    assert!(place.bytes("whole/best.safetensors") == place.bytes("parts/best.safetensors"));
    place.fail(&with(&["--out", "whole"]), &["whole/last.safetensors", "resume it, or name another folder"]);
}

#[test]
fn trained_weights_are_scored_and_run_without_being_told_what_they_are() {
    let place = Place::new();
    trained(&place);
    let weights = "trained/best.safetensors";
    let scored = ["eval", "--kind", "indoor", "--scene-count", "1", "--weights", weights, "--out", "scores"];
    let report = place.json(&[&scored[..], &["--json"]].concat());
    assert_eq!(report["model"], "minkunet-small");
    assert_eq!(report["voxel_size"], 0.3);
    assert_eq!(report["classes"].as_array().unwrap().len(), 5);
    let written: serde_json::Value = serde_json::from_slice(&place.bytes("scores/confusion.json")).unwrap();
    assert_eq!(written, report);
    let counts = report["confusion"].as_array().unwrap().iter().flat_map(|row| row.as_array().unwrap());
    assert_eq!(counts.map(|n| n.as_u64().unwrap()).sum::<u64>(), report["points"].as_u64().unwrap());
    assert!(place.path("scores/confusion.png").is_file());
    let text = place.succeed(&scored);
    assert!(text.contains("IoU %") && text.contains("ceiling") && text.contains("mIoU"), "{text}");

    place.write("scan.xyz", terrain(300));
    let report = place.json(&["run", "scan.xyz", "--weights", weights, "--json"]);
    assert_eq!((&report["model"], &report["voxel_size"]), (&"minkunet-small".into(), &0.3.into()));
    let names: Vec<&str> =
        report["classes"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["floor", "wall", "ceiling", "furniture", "other"]);
    let args = ["run", "scan.xyz", "--weights", weights, "--model", "minkunet18"];
    place.fail(&args, &["--model: expected minkunet-small, which the weights are of"]);
}

#[test]
fn a_network_of_points_is_trained_scored_and_run() {
    let place = Place::new();
    let report = place.json(&with(&["--model", "spvcnn", "--steps", "1", "--out", "trained", "--json"]));
    assert_eq!(report["outcome"], "complete");
    assert!(report["scenes_per_second"].as_f64().unwrap() > 0.0);
    let weights = "trained/best.safetensors";
    let scored = ["eval", "--kind", "indoor", "--scene-count", "1", "--weights", weights, "--json"];
    let report = place.json(&scored);
    assert_eq!(report["model"], "spvcnn");
    assert!(report["points"].as_u64().unwrap() > 0);
    place.write("scan.xyz", terrain(300));
    let report = place.json(&["run", "scan.xyz", "--weights", weights, "--json"]);
    assert_eq!((&report["model"], &report["voxel_size"]), (&"spvcnn".into(), &0.3.into()));
}

#[test]
fn labels_of_a_file_beside_the_scan_are_mapped() {
    let place = Place::new();
    place.succeed(&with(&["--steps", "1", "--out", "trained"]));
    let labels: Vec<u8> = (0..300i32).flat_map(|i| (i % 5).to_le_bytes()).collect();
    place.write("scan.xyz", terrain(300));
    place.write("labels.npy", npy("<i4", "(300, 1)", &labels));
    let args =
        ["eval", "scan.xyz", "--labels", "labels.npy", "--weights", "trained/best.safetensors", "--json"];
    assert_eq!(place.json(&args)["points"], 300);
    place.fail(
        &[&args[..], &["--label-map", "semantic-kitti-raw"]].concat(),
        &["scan.xyz: point 2: expected SemanticKITTI ids", "found 2"],
    );
    place.fail(
        &[&args[..], &["--label-map", "cityscapes"]].concat(),
        &["--label-map: expected one of classes"],
    );
    place.write("labels.npy", npy("<i4", "(299, 1)", &labels[4..]));
    place.fail(&args, &["labels.npy", "299 labels"]);
    place.fail(
        &["eval", "scan.xyz", "--weights", "trained/best.safetensors"],
        &["expected an attribute `label`"],
    );
    place.fail(
        &["eval", "nowhere", "--weights", "trained/best.safetensors"],
        &["nowhere: expected labelled scenes"],
    );
    place.fail(&["eval", "scan.xyz", "--weights", "nowhere"], &["--weights nowhere"]);
    place.fail(&["eval", "scan.xyz", "--weights", "labels.npy"], &["--weights labels.npy", "safetensors"]);
}

#[test]
fn options_that_train_nothing_are_refused_and_leave_nothing() {
    let place = Place::new();
    for (args, part) in [
        (&["--steps", "0"][..], "steps: expected"),
        (&["--model", "resnet"], "--model: expected one of"),
        (&["--jitter", "-1"], "jitter: expected"),
        (&["--learning-rate", "0"], "learning rate: expected"),
        (&["--class-weights", "1,2"], "class weights: expected 5"),
        (&["--class-weights", "heavy"], "--class-weights: expected none"),
        (&["--scale", "1"], "--scale: expected two factors"),
        (&["--lovasz", "0", "--cross-entropy", "0"], "loss: expected"),
        (&["--validation", "nowhere"], "expected a folder of scenes beside them"),
        (&["nowhere"], "nowhere: expected labelled scenes"),
    ] {
        place.fail(&with(args), &[part]);
    }
    place.fail(&["train", "--resume", "nowhere"], &["expected the configuration of a run"]);
    let both = place.run(&["train", "--resume", "nowhere", "--steps", "3"]);
    assert!(both.code == 2 && both.stderr.contains("cannot be used with"), "{}", both.stderr);
    assert!(place.names().is_empty(), "{:?}", place.names());
}
