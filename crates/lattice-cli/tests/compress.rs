//! `lattice compress` and `lattice decompress`: there and back, reports, refusals.
#![allow(clippy::unwrap_used, reason = "tests")]

mod command;

use command::{Place, scans, terrain};
use lattice_io::{Attribute, ReadOptions};

/// Points with a colour and an intensity, several in some voxels.
fn coloured() -> String {
    let mut text = String::from("x y z red green blue intensity\n");
    for (i, line) in terrain(2000).lines().enumerate() {
        text += &format!("{line} {} {} 9 {}\n", i % 256, i / 8 % 256, (i % 37) as f64 * 0.25);
    }
    text
}

#[test]
fn positions_come_back_within_half_a_voxel() {
    let place = Place::new();
    let scan = place.write("scan.xyz", terrain(3000));
    let report = place.json(&["compress", "scan.xyz", "--voxel-size", "0.05", "--out", "scan.lat", "--json"]);
    let bytes = place.bytes("scan.lat").len() as u64;
    assert_eq!((report["points"].as_u64(), report["bytes"].as_u64()), (Some(3000), Some(bytes)));
    assert_eq!((report["voxel_size"].as_f64(), report["greatest_error"].as_f64()), (Some(0.05), Some(0.025)));
    let voxels = report["voxels"].as_u64().unwrap();
    let bits = 8.0 * bytes as f64 / voxels as f64;
    assert!((report["bits_per_voxel"].as_f64().unwrap() - bits).abs() < 1e-9);
    assert!(report["bits_per_point"].as_f64().unwrap() < bits && report["seconds"].as_f64().unwrap() > 0.0);
    for out in ["back.ply", "back.npz", "back.npy"] {
        let read = place.json(&["decompress", "scan.lat", "--out", out, "--json"]);
        assert_eq!((read["voxels"].as_u64(), read["points"].as_u64()), (Some(voxels), Some(3000)));
        let [scan, back] =
            [&scan, &place.path(out)].map(|p| lattice_io::read(p, &ReadOptions::default()).unwrap());
        assert_eq!(back.len() as u64, voxels);
        let cell = |p: &[f64; 3]| p.map(|v| (v / 0.05).floor() as i64);
        let centres: std::collections::HashMap<_, _> = back.positions.iter().map(|p| (cell(p), *p)).collect();
        assert_eq!(centres.len() as u64, voxels, "one point a voxel");
        for p in &scan.positions {
            let centre = centres[&cell(p)];
            assert!((0..3).all(|a| (centre[a] - p[a]).abs() <= 0.025 * (1.0 + 1e-6)), "{p:?} {centre:?}");
        }
    }
    // Voxels of what came back are the same: a second pass changes nothing.
    place.succeed(&["compress", "back.npz", "--voxel-size", "0.05", "--out", "again.lat"]);
    place.succeed(&["decompress", "again.lat", "--out", "again.npz"]);
    assert_eq!(place.bytes("again.npz"), place.bytes("back.npz"));
}

#[test]
fn a_stream_says_which_model_it_needs() {
    let place = Place::new();
    place.write("scan.xyz", terrain(3000));
    let mut bytes = Vec::new();
    for (model, out) in [("contexts", "a"), ("learned", "b")] {
        let [lat, npz] = ["lat", "npz"].map(|end| format!("{out}.{end}"));
        let line =
            ["compress", "scan.xyz", "--voxel-size", "0.05", "--model", model, "--out", &lat, "--json"];
        let report = place.json(&line);
        assert_eq!(report["model"], model);
        bytes.push(report["bytes"].as_u64().unwrap());
        let read = place.json(&["decompress", &lat, "--out", &npz, "--json"]);
        assert_eq!(read["model"], model);
    }
    assert!(bytes[1] < bytes[0], "{bytes:?}");
    assert_eq!(place.bytes("a.npz"), place.bytes("b.npz"));
    place.succeed(&["compress", "scan.xyz", "--voxel-size", "0.05", "--out", "c.lat"]);
    assert_eq!(place.bytes("a.lat"), place.bytes("c.lat"));
    // A mistake of the command line.
    let ran = place.run(&["compress", "scan.xyz", "--model", "magic", "--out", "d.lat"]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("expected contexts or learned, found `magic`"), "{}", ran.stderr);
}

#[test]
fn attributes_and_counts_come_back() {
    let place = Place::new();
    place.write("scan.xyz", coloured());
    let all = [
        "compress",
        "scan.xyz",
        "--voxel-size",
        "0.1",
        "--out",
        "a.lat",
        "--attributes",
        "all",
        "--counts",
        "--json",
    ];
    let report = place.json(&all);
    let kept = report["attributes"].as_array().unwrap();
    assert_eq!(kept.len(), 2);
    assert!(kept.iter().all(|a| a["greatest_error"] == 0.0));
    place.succeed(&["decompress", "a.lat", "--out", "a.ply"]);
    let back = lattice_io::read(place.path("a.ply"), &ReadOptions::default()).unwrap();
    let scan = lattice_io::read(place.path("scan.xyz"), &ReadOptions::default()).unwrap();
    let cell = |p: &[f64; 3]| p.map(|v| (v / 0.1).floor() as i64);
    let Attribute::U32(counts) = &back.attributes["count"] else { panic!() };
    assert_eq!(counts.iter().sum::<u32>(), 2000);
    for (row, p) in back.positions.iter().enumerate() {
        let mine: Vec<usize> = (0..scan.len()).filter(|&i| cell(&scan.positions[i]) == cell(p)).collect();
        assert_eq!(mine.len(), counts[row] as usize);
        for name in ["rgb", "intensity"] {
            assert_eq!(
                back.attributes[name].get(row),
                scan.attributes[name].get(mine[0]),
                "{name}: of the first point"
            );
        }
    }
    let report = place.json(&[
        "compress",
        "scan.xyz",
        "--voxel-size",
        "0.1",
        "--out",
        "b.lat",
        "--attributes",
        "intensity",
        "--attribute-step",
        "0.5",
        "--json",
    ]);
    assert_eq!(report["attributes"], serde_json::json!([{"name": "intensity", "greatest_error": 0.25}]));
    assert!(place.bytes("b.lat").len() < place.bytes("a.lat").len());
    let text = place.succeed(&["compress", "scan.xyz", "--out", "c.lat", "--attributes", "rgb"]);
    for part in ["bits a voxel", "within", "rgb         exact"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(place.succeed(&["decompress", "c.lat", "--out", "c.ply"]).contains("voxels of 0.05"));
}

#[test]
fn bad_arguments_and_files_are_refused_and_leave_nothing() {
    let place = Place::new();
    place.write("scan.xyz", terrain(200));
    place.write("text.lat", "not compressed at all");
    let names = place.names();
    let compress =
        |rest: &[&str], parts: &[&str]| place.fail(&[&["compress", "scan.xyz"], rest].concat(), parts);
    compress(&["--out", "a.zip"], &["--out", "ends in .lat"]);
    compress(&["--out", "no/a.lat"], &["--out", "make its folder first"]);
    compress(&["--out", "a.lat", "--voxel-size", "0"], &["--voxel-size", "above 0"]);
    compress(&["--out", "a.lat", "--voxel-size", "1e-30"], &["--voxel-size"]);
    compress(&["--out", "a.lat", "--attributes", "rgb"], &["--attributes", "no attributes", "`rgb`"]);
    compress(&["--out", "a.lat", "--attribute-step", "-1"], &["--attribute-step", "found -1"]);
    place.fail(&["compress", "none.ply", "--out", "a.lat"], &["none.ply", "no such file"]);
    place.fail(&["decompress", "none.lat", "--out", "a.ply"], &["none.lat", "check the path"]);
    place.fail(
        &["decompress", "text.lat", "--out", "a.ply"],
        &["text.lat", "expected a compressed point cloud"],
    );
    place.fail(&["decompress", "text.lat", "--out", "a.las"], &["--out", ".ply, .npz or .npy"]);
    assert_eq!(place.names(), names);
    place.succeed(&["compress", "scan.xyz", "--out", "a.lat"]);
    let whole = place.bytes("a.lat");
    place.fail(
        &["decompress", "a.lat", "--max-voxels", "5", "--out", "a.ply"],
        &["at most 5 voxels", "raise --max-voxels"],
    );
    place.write("cut.lat", &whole[..whole.len() / 2]);
    place.fail(&["decompress", "cut.lat", "--out", "a.ply"], &["cut.lat", "copy it again"]);
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 4;
    place.write("flipped.lat", flipped);
    place.fail(
        &["decompress", "flipped.lat", "--out", "a.ply"],
        &["flipped.lat: block 0: expected the checksum"],
    );
    assert!(!place.names().contains(&"a.ply".to_owned()));
}

#[test]
fn real_scans_come_back_and_take_fewer_bits_than_other_codecs_do() {
    let Some(folder) = scans() else { return };
    let place = Place::new();
    // Voxels as `lattice info` counts them; bits a voxel of Draco at its highest level on the same voxels.
    for (file, size, voxels, draco) in [
        ("open/outdoor_ouster_os2_128.npz", "0.05", 110_390, 7.780),
        ("open/aerial_autzen_trim.laz", "2", 89_358, 3.826),
        ("noncommercial/outdoor_kitti_object_000001.bin", "0.02", 115_791, 9.964),
        ("noncommercial/indoor_3dmatch_redkitchen_000.ply", "0.02", 28_793, 4.180),
    ] {
        let path = folder.join(file);
        let report = place.json(&[
            "compress",
            path.to_str().unwrap(),
            "--voxel-size",
            size,
            "--out",
            "a.lat",
            "--json",
        ]);
        assert_eq!(report["voxels"].as_u64(), Some(voxels), "{file}");
        let bits = report["bits_per_voxel"].as_f64().unwrap();
        println!("{file} at {size}: {bits:.3} bits a voxel");
        assert!(bits < draco, "{file}: {bits}");
        place.succeed(&["decompress", "a.lat", "--out", "a.npy"]);
        place.succeed(&["compress", "a.npy", "--voxel-size", size, "--out", "b.lat"]);
        let origin = lattice_io::read(&path, &ReadOptions::default()).unwrap().origin;
        if origin == [0.0; 3] {
            assert_eq!(place.bytes("b.lat").len(), place.bytes("a.lat").len(), "{file}: the same voxels");
        }
    }
}
