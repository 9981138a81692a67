//! `lattice run`: files, report, determinism.
#![allow(clippy::unwrap_used, reason = "tests")]

mod command;

use command::{Place, scans, terrain};

const FILES: [&str; 3] = ["picture.png", "points.ply", "report.json"];

fn place() -> Place {
    let place = Place::new();
    place.write("scan.xyz", terrain(400));
    place
}

fn small<'a>(out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["run", "scan.xyz", "--model", "minkunet14a", "--voxel-size", "0.1", "--out", out][..], more].concat()
}

#[test]
fn a_scan_becomes_three_files_and_the_report_has_the_contract_s_fields() {
    let place = place();
    let report = place.json(&small("result/deep", &["--json"]));
    let mut names: Vec<_> = std::fs::read_dir(place.path("result/deep"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, FILES, "no temporary files stay");
    let written: serde_json::Value = serde_json::from_slice(&place.bytes("result/deep/report.json")).unwrap();
    assert_eq!(written, report, "stdout and the file say the same");
    for key in ["scene", "device", "seed", "weights", "points", "voxels", "layers", "total_ms"] {
        assert!(report.get(key).is_some(), "{key}");
    }
    assert_eq!(report["scene"], "scan.xyz");
    assert_eq!(report["device"], "cpu");
    assert_eq!(report["points"], 400);
    assert!(report["weights"].as_str().unwrap().contains("untrained"));
    let voxels = report["voxels"].as_u64().unwrap();
    assert!((1..=400).contains(&voxels));
    let layers = report["layers"].as_array().unwrap();
    for layer in layers {
        for key in ["name", "kind", "rows_in", "rows_out", "pairs", "route", "ms"] {
            assert!(layer.get(key).is_some(), "{key} in {layer}");
        }
        assert!(layer["ms"].as_f64().unwrap() >= 0.0);
    }
    let kinds: Vec<&str> = layers.iter().map(|l| l["kind"].as_str().unwrap()).collect();
    assert!(
        kinds.iter().any(|k| k.contains("submanifold")) && kinds.iter().any(|k| k.contains("voxelize")),
        "{kinds:?}"
    );
    let classes = report["classes"].as_array().unwrap();
    assert_eq!(classes.iter().map(|c| c["points"].as_u64().unwrap()).sum::<u64>(), 400);
    let stages = report["stages"].as_array().unwrap();
    assert_eq!(stages.len(), 8);
    for stage in stages {
        let expected = if stage["stage"] == 7 { "not run" } else { "done" };
        assert_eq!(stage["status"], expected, "{stage}");
    }
    assert!(place.bytes("result/deep/points.ply").starts_with(b"ply\n"));
    assert!(place.bytes("result/deep/picture.png").starts_with(b"\x89PNG"));
}

#[test]
fn the_summary_says_that_weights_are_untrained_and_what_was_written() {
    let place = place();
    let text = place.succeed(&small("result", &[]));
    assert!(text.contains("These weights are untrained"), "{text}");
    assert!(text.contains("not run"), "stage 7: {text}");
    for file in FILES {
        assert!(text.contains(&format!("result/{file}")), "{file}: {text}");
    }
}

#[test]
fn equal_seeds_give_equal_bytes_on_any_number_of_threads() {
    let place = place();
    place.succeed(&small("a", &["--seed", "3", "--threads", "1"]));
    place.succeed(&small("b", &["--seed", "3", "--threads", "2"]));
    place.succeed(&small("c", &["--seed", "4", "--threads", "2"]));
    for file in ["points.ply", "picture.png"] {
        assert!(place.bytes(&format!("a/{file}")) == place.bytes(&format!("b/{file}")), "{file}");
    }
    assert!(place.bytes("a/points.ply") != place.bytes("c/points.ply"), "another seed draws other weights");
}

#[test]
fn points_ply_is_a_scene_again_with_a_label_for_each_point() {
    let place = place();
    place.succeed(&small("result", &[]));
    let info = place.json(&["info", "result/points.ply", "--json"]);
    assert_eq!(info["points"], 400);
    let attributes: Vec<&str> =
        info["attributes"].as_array().unwrap().iter().map(|a| a.as_str().unwrap()).collect();
    assert!(attributes.contains(&"label") && attributes.contains(&"rgb"), "{attributes:?}");
}

#[test]
fn one_point_and_identical_points_are_scenes_too() {
    let place = Place::new();
    place.write("one.xyz", "1 2 3\n");
    place.write("same.xyz", "1 2 3\n".repeat(50));
    for (file, points) in [("one.xyz", 1), ("same.xyz", 50)] {
        let report = place.json(&["run", file, "--model", "minkunet14a", "--out", "out", "--json"]);
        assert_eq!(report["points"], points);
        assert_eq!(report["voxels"], 1);
        assert_eq!(report["voxel_size"], 0.05);
    }
}

#[test]
fn points_that_are_not_finite_are_left_out_and_counted() {
    let place = Place::new();
    place.write("holes.xyz", format!("nan 0 0\n{}inf 1 1\n", terrain(50)));
    let report = place.json(&["run", "holes.xyz", "--model", "minkunet14a", "--out", "out", "--json"]);
    assert_eq!((report["points"].as_u64(), report["dropped"].as_u64()), (Some(50), Some(2)));
}

#[test]
fn a_far_scan_is_labelled_with_a_note_on_its_precision() {
    let place = Place::new();
    place.write("far.xyz", "5000000 1 2\n5000001 2 2\n");
    let args = ["run", "far.xyz", "--model", "minkunet14a", "--out", "out"];
    let report = place.json(&[&args[..], &["--json"]].concat());
    assert!(report["notes"][0].as_str().unwrap().contains("float32"), "{}", report["notes"]);
    assert!(place.succeed(&args).contains("note: "));
}

#[test]
fn results_replace_those_of_an_earlier_run() {
    let place = place();
    place.succeed(&small("out", &["--seed", "1"]));
    let before = place.bytes("out/points.ply");
    place.succeed(&small("out", &["--seed", "2"]));
    assert!(before != place.bytes("out/points.ply"));
}

#[test]
fn a_real_sweep_runs() {
    let Some(folder) = scans() else { return };
    let scan = folder.join("noncommercial/outdoor_kitti_object_000001.bin");
    let place = Place::new();
    let args = [
        "run",
        scan.to_str().unwrap(),
        "--model",
        "minkunet14a",
        "--voxel-size",
        "0.2",
        "--out",
        "out",
        "--json",
    ];
    let report = place.json(&args);
    assert_eq!(report["points"], 120_268);
    let voxels = report["voxels"].as_f64().unwrap();
    assert!((voxels - 37_873.0).abs() < 0.001 * 37_873.0, "{voxels}");
}
