//! The scans of the data folder: points, boxes and voxel counts as measured on the stored values in f64.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::HashSet;
use std::path::PathBuf;

use lattice_io::{Attribute, PlyFormat, PointCloud, ReadOptions, read, write_npz, write_ply};
use rstest::rstest;

fn scan(name: &str) -> Option<PathBuf> {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data"));
    if !folder.is_dir() {
        println!("skipped: no scan folder");
        return None;
    }
    Some(folder.join(name))
}

fn open(name: &str) -> Option<PointCloud> {
    Some(read(scan(name)?, &ReadOptions::default()).unwrap())
}

/// Occupied cells and their filled cells of the 3x3x3 block, the own one counted too.
fn voxels_and_pairs(cloud: &PointCloud, size: f64) -> (usize, usize) {
    let cells: HashSet<[i64; 3]> =
        cloud.positions.iter().map(|p| p.map(|v| (v / size).floor() as i64)).collect();
    let mut pairs = 0;
    let mut rows: Vec<&[i64; 3]> = cells.iter().collect();
    rows.sort_unstable();
    for c in rows {
        for k in 0..27 {
            let near = [c[0] + k % 3 - 1, c[1] + k / 3 % 3 - 1, c[2] + k / 9 - 1];
            pairs += usize::from(cells.contains(&near));
        }
    }
    (cells.len(), pairs)
}

const OUSTER: &str = "open/outdoor_ouster_os2_128.npz";
const ROOM: &str = "open/indoor_laser_room_scan1.pcd";
const KINECT: &str = "open/indoor_kinect_office_floor.pcd";
const AUTZEN: &str = "open/aerial_autzen_trim.laz";
const KITTI: &str = "noncommercial/outdoor_kitti_object_000001.bin";
const SEMANTIC: &str = "noncommercial/outdoor_semantickitti_000700_xyz.npy";
const NUSCENES: &str = "noncommercial/outdoor_nuscenes_lidar_top.pcd.bin";
const KITCHEN: &str = "noncommercial/indoor_3dmatch_redkitchen_000.ply";
const BUNNY: &str = "noncommercial/object_bunny.ply";

#[rstest]
#[case::ouster(OUSTER, 119_682, 0, [-331.121, -101.470, -6.345], [291.783, 54.852, 16.697])]
#[case::room(ROOM, 112_586, 0, [-13.800, -6.493, -1.352], [15.447, 7.980, 1.709])]
#[case::kinect(KINECT, 259_847, 47_353, [-1.072, -1.581, 0.843], [1.810, 0.408, 3.821])]
#[case::autzen(AUTZEN, 110_000, 0, [636001.760, 848935.200, 406.260], [637179.220, 849497.900, 520.510])]
#[case::kitti(KITTI, 120_268, 0, [-79.428, -55.317, -7.293], [77.005, 57.719, 2.904])]
#[case::semantic(SEMANTIC, 85_962, 0, [-79.228, -156.591, -6.213], [75.703, -24.966, 2.905])]
#[case::nuscenes(NUSCENES, 34_688, 0, [-57.996, -96.290, -3.417], [96.853, 98.592, 19.028])]
#[case::kitchen(KITCHEN, 258_342, 0, [-1.350, -1.446, 0.800], [1.494, 0.690, 3.494])]
#[case::bunny(BUNNY, 35_947, 0, [-0.095, 0.033, -0.062], [0.061, 0.187, 0.059])]
fn points_and_boxes_are_as_measured(
    #[case] name: &str,
    #[case] n: usize,
    #[case] dropped: usize,
    #[case] min: [f64; 3],
    #[case] max: [f64; 3],
) {
    let Some(cloud) = open(name) else { return };
    assert_eq!((cloud.len(), cloud.dropped), (n, dropped));
    let (lo, hi) = cloud.bounds().unwrap();
    for a in 0..3 {
        assert!((lo[a] + cloud.origin[a] - min[a]).abs() < 6e-4, "{lo:?}");
        assert!((hi[a] + cloud.origin[a] - max[a]).abs() < 6e-4, "{hi:?}");
    }
    let subtracted = name.ends_with("laz") || name == BUNNY;
    assert_eq!(cloud.origin != [0.0; 3], subtracted);
    assert!(!subtracted || lo == [0.0; 3]);
    for (attribute, values) in &cloud.attributes {
        assert_eq!(values.len(), n, "{attribute}");
    }
}

#[rstest]
#[case(OUSTER, 0.1, 79_112, 6.18)]
#[case(ROOM, 0.05, 27_906, 6.31)]
#[case(KINECT, 0.02, 19_833, 11.54)]
#[case::exact_cell_borders(AUTZEN, 1.0, 108_883, 2.19)]
#[case::exact_cell_borders(AUTZEN, 2.0, 89_358, 6.89)]
#[case::exact_cell_borders(AUTZEN, 8.0, 11_699, 12.82)]
#[case(KITTI, 0.05, 90_688, 3.32)]
#[case(SEMANTIC, 0.2, 32_468, 7.89)]
#[case(NUSCENES, 0.1, 17_885, 2.83)]
#[case(KITCHEN, 0.02, 28_793, 13.96)]
#[case::longest_side(BUNNY, 256.0, 35_725, 1.96)]
#[case::longest_side(BUNNY, 128.0, 30_569, 8.41)]
#[case::longest_side(BUNNY, 32.0, 3_125, 13.59)]
fn voxel_counts_are_as_measured(
    #[case] name: &str,
    #[case] size: f64,
    #[case] voxels: usize,
    #[case] neighbours: f64,
) {
    let Some(cloud) = open(name) else { return };
    let (_, hi) = cloud.bounds().unwrap();
    let size = if name == BUNNY { hi.into_iter().fold(0.0, f64::max) / size } else { size };
    let (found, pairs) = voxels_and_pairs(&cloud, size);
    assert_eq!(found, voxels);
    assert!((pairs as f64 / found as f64 - neighbours).abs() < 0.0051, "{}", pairs as f64 / found as f64);
}

#[test]
fn attributes_keep_names_and_types() {
    let Some(ouster) = open(OUSTER) else { return };
    assert!(matches!(ouster.attributes["reflectivity"], Attribute::U8(_)));
    assert!(matches!(ouster.attributes["col"], Attribute::U16(_)));
    let kinect = open(KINECT).unwrap();
    assert!(matches!(kinect.attributes["rgb"], Attribute::Rgb(_)));
    let kitti = open(KITTI).unwrap();
    let Attribute::F32(intensity) = &kitti.attributes["intensity"] else { panic!() };
    assert!(intensity.iter().all(|v| (0.0..=1.0).contains(v)));
    let nuscenes = open(NUSCENES).unwrap();
    let Attribute::U8(ring) = &nuscenes.attributes["ring"] else { panic!() };
    assert_eq!(ring.iter().max(), Some(&31));
    let autzen = open(AUTZEN).unwrap();
    let Attribute::U8(class) = &autzen.attributes["classification"] else { panic!() };
    assert!(class.iter().all(|c| [1, 2].contains(c)));
    let Attribute::Rgb(rgb) = &autzen.attributes["rgb"] else { panic!() };
    assert!(rgb.iter().flatten().max() > Some(&200));
    assert!(matches!(autzen.attributes["gps_time"], Attribute::F64(_)));
    let bunny = open(BUNNY).unwrap();
    assert_eq!(bunny.triangles.len(), 69_451);
    assert_eq!(bunny.attributes.keys().collect::<Vec<_>>(), ["confidence", "intensity"]);
}

#[test]
fn labels_come_from_a_side_file() {
    let Some(side) = scan("noncommercial/outdoor_semantickitti_000700_label.npy") else { return };
    let cloud = read(scan(SEMANTIC).unwrap(), &ReadOptions::default().with_labels(&side)).unwrap();
    let Attribute::I32(labels) = &cloud.attributes["label"] else { panic!() };
    assert!(labels.iter().all(|l| (0..20).contains(l)));
    let wrong = read(scan(KITTI).unwrap(), &ReadOptions::default().with_labels(&side)).unwrap_err();
    assert!(wrong.to_string().contains("labels"), "{wrong}");
}

#[rstest]
fn scans_survive_a_round_trip(#[values(OUSTER, KINECT, AUTZEN, BUNNY)] name: &str) {
    let Some(cloud) = open(name) else { return };
    let folder = tempfile::tempdir().unwrap();
    let world: Vec<[f64; 3]> = (0..cloud.len()).map(|i| cloud.world(i)).collect();
    for file in ["a.ply", "a.npz"] {
        let path = folder.path().join(file);
        if file == "a.ply" {
            write_ply(&path, &cloud, PlyFormat::BinaryLittleEndian).unwrap();
        } else {
            write_npz(&path, &cloud).unwrap();
        }
        let back = read(&path, &ReadOptions::default()).unwrap();
        assert_eq!(back.attributes, cloud.attributes);
        assert_eq!(back.triangles, cloud.triangles);
        // Exact where no origin was subtracted, else to the last bit of the sum.
        for (i, w) in world.iter().enumerate() {
            let b = back.world(i);
            for a in 0..3 {
                assert!((b[a] - w[a]).abs() <= 4.0 * f64::EPSILON * w[a].abs(), "{b:?} {w:?}");
            }
        }
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}
