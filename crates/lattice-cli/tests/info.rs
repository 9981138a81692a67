//! `lattice info`: counts of small scenes and of real scans.
#![allow(clippy::unwrap_used, reason = "tests")]

mod command;

use command::{Place, scans, terrain};

#[test]
fn the_report_has_the_contract_s_fields() {
    let place = Place::new();
    place.write("scan.xyz", "0 0 0\n0.04 0 0\n0.06 0 0\n-0.01 0 0\nnan 0 0\n");
    let report = place.json(&["info", "scan.xyz", "--voxel-size", "0.05", "1", "--json"]);
    assert_eq!(report["file"], "scan.xyz");
    assert_eq!((report["points"].as_u64(), report["dropped"].as_u64()), (Some(4), Some(1)));
    assert_eq!(report["origin"], serde_json::json!([0.0, 0.0, 0.0]));
    assert_eq!(report["min"], serde_json::json!([-0.01, 0.0, 0.0]));
    assert_eq!(report["max"], serde_json::json!([0.06, 0.0, 0.0]));
    let scales = report["scales"].as_array().unwrap();
    assert_eq!(scales.len(), 2);
    // Three voxels in a row: 2 + 3 + 2 pairs.
    assert_eq!(scales[0]["voxel_size"], 0.05);
    assert_eq!(scales[0]["voxels"], 3);
    assert_eq!(scales[0]["pairs"], 7);
    assert!((scales[0]["mean_neighbours"].as_f64().unwrap() - 7.0 / 3.0).abs() < 1e-12);
    let histogram = scales[0]["histogram"].as_array().unwrap();
    assert_eq!(histogram.len(), 27);
    assert_eq!((histogram[1].as_u64(), histogram[2].as_u64()), (Some(2), Some(1)));
    assert_eq!(scales[1]["voxels"], 2, "a negative coordinate rounds down");
}

#[test]
fn the_default_voxel_size_follows_the_extent_and_is_printed() {
    let place = Place::new();
    for (side, expected) in [(0.64, 0.005), (10.0, 0.05), (2000.0, 2.0)] {
        place.write("scan.xyz", format!("0 0 0\n{side} 0 0\n"));
        let report = place.json(&["info", "scan.xyz", "--json"]);
        assert_eq!(report["scales"][0]["voxel_size"], expected);
        let text = place.succeed(&["info", "scan.xyz"]);
        assert!(text.contains(&format!("neighbours at {expected} ")), "{text}");
    }
}

#[test]
fn text_shows_table_and_histogram() {
    let place = Place::new();
    place.write("scan.xyz", terrain(300));
    let text = place.succeed(&["info", "scan.xyz", "--voxel-size", "0.5"]);
    for part in ["points      300", "voxel size", "mean neighbours", "neighbours at 0.5", "#"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn scans_without_finite_points_have_no_voxels() {
    let place = Place::new();
    place.write("nan.xyz", "nan nan nan\n".repeat(5));
    let report = place.json(&["info", "nan.xyz", "--json"]);
    assert_eq!((report["points"].as_u64(), report["dropped"].as_u64()), (Some(0), Some(5)));
    assert_eq!(report["scales"][0]["voxels"], 0);
    assert!(place.succeed(&["info", "nan.xyz"]).contains("5 left out"));
}

#[test]
fn real_scans_have_the_published_voxel_counts() {
    let Some(folder) = scans() else { return };
    let place = Place::new();
    for (file, sizes, voxels) in [
        ("open/outdoor_ouster_os2_128.npz", [0.02, 0.05, 0.1, 0.2], [119_594, 110_390, 79_112, 42_805]),
        ("open/indoor_laser_room_scan1.pcd", [0.02, 0.05, 0.1, 0.2], [41_484, 27_906, 13_490, 5_387]),
        ("open/indoor_kinect_office_floor.pcd", [0.02, 0.05, 0.1, 0.2], [19_833, 4_110, 1_126, 315]),
        ("open/aerial_autzen_trim.laz", [1.0, 2.0, 4.0, 8.0], [108_883, 89_358, 36_931, 11_699]),
        (
            "noncommercial/outdoor_kitti_object_000001.bin",
            [0.02, 0.05, 0.1, 0.2],
            [115_791, 90_688, 64_048, 37_873],
        ),
        (
            "noncommercial/outdoor_semantickitti_000700_xyz.npy",
            [0.02, 0.05, 0.1, 0.2],
            [85_962, 81_345, 60_123, 32_468],
        ),
        (
            "noncommercial/outdoor_nuscenes_lidar_top.pcd.bin",
            [0.02, 0.05, 0.1, 0.2],
            [27_722, 23_112, 17_885, 12_641],
        ),
        (
            "noncommercial/indoor_3dmatch_redkitchen_000.ply",
            [0.02, 0.05, 0.1, 0.2],
            [28_793, 5_182, 1_453, 413],
        ),
    ] {
        let path = folder.join(file);
        let sizes = sizes.map(|s: f64| s.to_string());
        let mut args = vec!["info", path.to_str().unwrap(), "--json", "--voxel-size"];
        args.extend(sizes.iter().map(String::as_str));
        let report = place.json(&args);
        for (scale, expected) in report["scales"].as_array().unwrap().iter().zip(voxels) {
            let found = scale["voxels"].as_u64().unwrap();
            println!("{file} at {}: {found}, published {expected}", scale["voxel_size"]);
            assert_eq!(found, expected, "{file} at {}", scale["voxel_size"]);
        }
    }
}

#[test]
fn a_mesh_has_the_published_voxel_count_at_its_default_size() {
    let Some(folder) = scans() else { return };
    let path = folder.join("noncommercial/object_bunny.ply");
    let report = Place::new().json(&["info", path.to_str().unwrap(), "--json"]);
    let found = report["scales"][0]["voxels"].as_f64().unwrap();
    assert!((found - 30_569.0).abs() <= 0.001 * 30_569.0, "{found}");
}
