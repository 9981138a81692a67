//! Whatever a user feeds: one clear line, status 1 (2 for wrong usage), no partial output.
#![allow(clippy::unwrap_used, reason = "tests")]

mod command;

use std::process::Stdio;

use command::{Place, Ran, coords, cube, is_root, npy, terrain};

const PLY: &str = "ply\nformat ascii 1.0\nelement vertex {n}\nproperty float x\nproperty float y\nproperty float z\nend_header\n";

fn place() -> Place {
    let place = Place::new();
    place.write("scan.xyz", terrain(100));
    place
}

#[test]
fn scenes_that_cannot_be_read_are_refused_by_run_and_info_alike() {
    let place = Place::new();
    std::fs::create_dir(place.path("folder.ply")).unwrap();
    let nan = f32::NAN.to_le_bytes().repeat(3);
    let cases: Vec<(&str, Vec<u8>, &[&str])> = vec![
        ("empty.ply", vec![], &["empty file"]),
        ("empty.xyz", vec![], &["empty file"]),
        ("empty.bin", vec![], &["empty file"]),
        ("empty.npy", vec![], &["empty file"]),
        ("count.ply", (PLY.replace("{n}", "99999999999") + "1 2 3\n").into(), &["99999999999", "cut off"]),
        ("short.ply", (PLY.replace("{n}", "3") + "1 2 3\n").into(), &["expected"]),
        ("word.ply", (PLY.replace("{n}", "1") + "1 two 3\n").into(), &["two"]),
        ("header.ply", "ply\nformat ascii 1.0\nelement vertex 1\n".into(), &["expected"]),
        ("noise.ply", vec![0xff; 300], &["bad PLY"]),
        ("noise.pcd", vec![0xff; 300], &["bad PCD"]),
        ("noise.las", vec![0xff; 300], &["expected"]),
        ("noise.npz", vec![0xff; 300], &["expected"]),
        ("left.bin", vec![0; 17], &["17 bytes", "columns"]),
        ("two.xyz", "1 2\n3 4\n".into(), &["line 1", "3 columns"]),
        ("words.xyz", "1 2 3\n4 five 6\n".into(), &["line 2"]),
        ("flat.npy", npy("<f4", "(3, 2)", &[0; 24]), &["expected"]),
        ("lie.npy", npy("<f4", "(4611686018427387904, 3)", &nan), &["cut off"]),
        ("huge.xyz", "1e300 2 3\n0 0 0\n".into(), &["point 0", "float32"]),
        ("scan.docx", "1 2 3".into(), &["unknown format", ".ply"]),
    ];
    for (name, bytes, parts) in &cases {
        place.write(name, bytes);
        let parts: Vec<&str> = std::iter::once(*name).chain(parts.iter().copied()).collect();
        for args in [&["info", name][..], &["run", name, "--model", "minkunet14a"]] {
            let line = place.fail(args, &parts);
            assert_eq!(line.matches(name).count(), 1, "the file is named once: {line}");
        }
    }
    for (name, part) in [("nowhere.ply", "no such file"), ("folder.ply", "a folder")] {
        place.fail(&["info", name], &[name, part]);
        place.fail(&["run", name], &[name, part]);
    }
    assert!(!place.path("out").exists(), "no empty folder stays behind");
}

#[test]
fn a_scene_without_finite_points_cannot_run() {
    let place = Place::new();
    place.write("nan.xyz", "nan nan nan\n".repeat(5));
    place.write("none.ply", PLY.replace("{n}", "0"));
    place.fail(&["run", "nan.xyz"], &["nan.xyz", "found none", "5 left out"]);
    place.fail(&["run", "none.ply"], &["none.ply", "found none"]);
    assert!(!place.path("out").exists());
}

#[test]
fn voxel_sizes_that_make_no_grid_are_refused() {
    let place = place();
    for size in ["0", "-1", "nan", "inf", "1e-30", "1e-300", "1e300", "1e-45"] {
        place.fail(&["info", "scan.xyz", "--voxel-size", size], &["--voxel-size: expected"]);
        place.fail(
            &["run", "scan.xyz", "--model", "minkunet14a", "--voxel-size", size],
            &["--voxel-size: expected"],
        );
    }
    assert!(!place.path("out").exists());
    // Tiny voxels cost what the points cost; one voxel holds all.
    let report = place.json(&["info", "scan.xyz", "--voxel-size", "1e-6", "1e9", "--json"]);
    assert_eq!(report["scales"][0]["voxels"], 100);
    let usage = place.run(&["info", "--voxel-size", "0.1", "scan.xyz"]);
    assert_eq!(usage.code, 2);
    assert!(usage.stderr.contains("name the scan before --voxel-size"), "{}", usage.stderr);
}

#[test]
fn an_unknown_model_is_refused_with_the_names_there_are() {
    let place = place();
    for model in ["second", "minkunet", "minkunet14e", "minkunet99", "", "MinkUNet18", "minkunet1é"] {
        place.fail(
            &["run", "scan.xyz", "--model", model],
            &["--model: expected one of", "minkunet14", "minkunet34d"],
        );
    }
    assert!(!place.path("out").exists());
}

#[test]
fn out_folders_that_cannot_be_written_are_refused() {
    let place = place();
    place.write("file", "kept");
    let run = |out: &str, parts: &[&str]| {
        place.fail(&["run", "scan.xyz", "--model", "minkunet14a", "--out", out], parts);
    };
    run("file", &["--out file", "a file is in the way"]);
    run("file/sub", &["--out file/sub", "a file is in the way"]);
    std::fs::create_dir_all(place.path("taken/points.ply")).unwrap();
    run("taken", &["--out taken", "points.ply"]);
    assert_eq!(std::fs::read_dir(place.path("taken")).unwrap().count(), 1);
    assert_eq!(place.bytes("file"), b"kept");
    if is_root(&place) {
        println!("skipped: permissions do not bind this user");
        return;
    }
    std::fs::create_dir(place.path("closed")).unwrap();
    let mut permissions = std::fs::metadata(place.path("closed")).unwrap().permissions();
    permissions.set_readonly(true);
    std::fs::set_permissions(place.path("closed"), permissions).unwrap();
    run("closed", &["--out closed", "may write to"]);
    run("closed/sub", &["--out closed/sub", "may write to"]);
}

#[test]
fn coordinates_that_are_no_support_are_refused() {
    let place = Place::new();
    let far: Vec<u8> = [0i64, 1 << 40, 0, 0].iter().flat_map(|v| v.to_le_bytes()).collect();
    let half: Vec<u8> = [0.0f32, 1.5, 0.0, 0.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    for (name, bytes, parts) in [
        ("twice.npy", coords(&[[0, 1, 2, 3], [0, 4, 5, 6], [0, 1, 2, 3]]), &["row 2", "[0, 1, 2, 3]"][..]),
        ("batch.npy", coords(&[[-1, 0, 0, 0]]), &["row 0", "batch"]),
        ("three.npy", npy("<i4", "(2, 3)", &[0; 24]), &["[n, 4]", "[2, 3]"]),
        ("flat.npy", npy("<i4", "(4,)", &[0; 16]), &["[n, 4]"]),
        ("far.npy", npy("<i8", "(1, 4)", &far), &["int32"]),
        ("half.npy", npy("<f4", "(1, 4)", &half), &["int32"]),
        ("lie.npy", npy("<i4", "(99999999999, 4)", &[0; 16]), &["99999999999", "cut off"]),
        ("noise.npy", vec![0xff; 100], &["NUMPY"]),
        ("empty.npy", vec![], &["empty"]),
    ] {
        place.write(name, bytes);
        let parts = [&[name], parts].concat();
        place.fail(&["explain", "--coords", name], &parts);
        place.fail(&["bench", "--suite", "peers", "--coords", name], &parts);
    }
}

#[test]
fn a_forced_route_that_does_not_fit_is_refused_before_any_work() {
    let place = place();
    let args = ["run", "scan.xyz", "--model", "minkunet14a"];
    for (route, part) in [
        ("nonsense", "LATTICE_ROUTE"),
        ("sparse_conv=nothing", "tap_tiles"),
        ("sparse_conv=depthwise_rows", "does not fit"),
    ] {
        let output = place.command(&args).env("LATTICE_ROUTE", route).output().unwrap();
        Ran::from(output).refused(&args, &[part]);
    }
    assert!(!place.path("out").exists());
}

#[test]
fn thread_counts_are_bounded() {
    let place = place();
    for threads in ["0", "1025", "18446744073709551615"] {
        place.fail(&["info", "scan.xyz", "--threads", threads], &["--threads: expected 1 to 1024", threads]);
    }
    place.succeed(&["info", "scan.xyz", "--threads", "1"]);
}

#[test]
fn wrong_usage_has_status_2() {
    let place = place();
    for args in [
        &[][..],
        &["fly"],
        &["run", "--fast"],
        &["info"],
        &["info", "scan.xyz", "--voxel-size"],
        &["info", "scan.xyz", "--voxel-size", "small"],
        &["run", "a", "b"],
        &["run", "--seed", "-1"],
        &["generate", "--kind", "moon", "--out", "x.ply"],
        &["generate", "--kind", "lidar"],
        &["bench", "--suite", "all"],
    ] {
        let ran = place.run(args);
        assert_eq!(ran.code, 2, "{args:?}: {}", ran.stderr);
        assert_eq!(ran.stdout, "", "{args:?}");
    }
    for args in [&["--help"][..], &["--version"], &["run", "--help"], &["bench", "-h"]] {
        let text = place.succeed(args);
        assert!(text.contains("lattice"), "{text}");
    }
}

/// A reader that has gone, such as `head`, ends a command quietly.
#[test]
fn a_closed_pipe_is_no_failure() {
    let place = place();
    place.write("cube.npy", cube());
    for args in [
        &["info", "scan.xyz"][..],
        &["devices", "--json"],
        &["bench", "--list"],
        &["explain", "--coords", "cube.npy", "--repeats", "1"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = place
            .command(args)
            .stdout(Stdio::from(writer))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
            .wait_with_output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.stderr, b"", "{args:?}");
    }
}

#[test]
fn a_full_disk_behind_stdout_is_one_line() {
    let Ok(full) = std::fs::OpenOptions::new().write(true).open("/dev/full") else {
        println!("skipped: no /dev/full");
        return;
    };
    let place = place();
    let args = ["info", "scan.xyz"];
    let output = place.command(&args).stdout(Stdio::from(full)).output().unwrap();
    Ran::from(output).refused(&args, &["cannot write to stdout"]);
}

#[test]
fn devices_that_cannot_share_a_batch_are_refused_before_anything_starts() {
    let place = Place::new();
    for (devices, parts) in [
        ("cuda:0,1", &["--devices cuda:0", "not compiled in", "feature `cuda`"][..]),
        ("cuda:0,cpu", &["--devices: expected CUDA devices", "found `cpu`"]),
        ("vulkan:0,1", &["--devices: expected CUDA devices", "found `vulkan:0`"]),
        ("cpu,cpu", &["--devices: expected each device once, found cpu twice"]),
        ("cuda:1,cuda:1", &["expected each device once, found cuda:1 twice"]),
        ("cuda,0", &["expected each device once, found cuda:0 twice"]),
        ("0,1", &["expected a backend before the first number", "found `0`"]),
        ("auto", &["expected devices by name"]),
        ("cpu:0", &["--devices: expected `cpu` without an index"]),
        ("gpu", &["--devices: expected auto or one of cuda"]),
        ("", &["--devices: expected auto or one of cuda"]),
    ] {
        if devices == "cuda:0,1" && cfg!(feature = "cuda") {
            continue;
        }
        place.fail(&["train", "--devices", devices, "--steps", "1"], parts);
    }
    let both = place.run(&["train", "--devices", "cpu", "--device", "cpu"]);
    assert!(both.code == 2 && both.stderr.contains("cannot be used with"), "{}", both.stderr);
    assert!(place.names().is_empty(), "{:?}", place.names());
}
