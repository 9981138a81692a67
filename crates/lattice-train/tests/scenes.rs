//! Labelled scenes from files: what is read, and what is refused by name.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use lattice_io::{Attribute, PlyFormat, PointCloud, write_ply};
use lattice_train::{
    Augmentation, DataConfig, Dataset, LabelMap, LabelledScene, Mix, SceneFiles, TrainConfig, build_model,
    evaluate,
};

fn cloud(attributes: &[(&str, Attribute)]) -> PointCloud {
    let points = attributes.first().map_or(3, |(_, values)| values.len());
    PointCloud {
        positions: (0..points).map(|i| [i as f64, 0.5, -1.0]).collect(),
        attributes: attributes
            .iter()
            .map(|(name, v)| (name.to_string(), v.clone()))
            .collect::<BTreeMap<_, _>>(),
        ..PointCloud::default()
    }
}

fn labels(values: &[u8]) -> (&'static str, Attribute) {
    ("label", Attribute::U8(values.to_vec()))
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, cloud: &PointCloud) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        write_ply(&path, cloud, PlyFormat::BinaryLittleEndian).unwrap();
        path
    }

    /// A sweep and its labels as SemanticKITTI stores them.
    fn sweep(&self, name: &str, ids: &[u32], with_labels: bool) {
        let put = |path: PathBuf, bytes: Vec<u8>| {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        };
        let points = (0..ids.len()).flat_map(|i| [i as f32, 1.0, 2.0, 0.5]).flat_map(f32::to_le_bytes);
        put(self.0.path().join(format!("sequences/00/velodyne/{name}.bin")), points.collect());
        if with_labels {
            let words = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
            put(self.0.path().join(format!("sequences/00/labels/{name}.label")), words);
        }
    }

    fn open(&self) -> lattice_train::Result<SceneFiles> {
        SceneFiles::open(self.0.path(), None)
    }
}

/// The error of reading every scene of a folder.
fn refused(folder: &Folder, parts: &[&str]) {
    let read = || -> lattice_train::Result<()> {
        let files = folder.open()?;
        (0..files.len()).try_for_each(|i| files.read(i, 7).map(drop))
    };
    let text = read().unwrap_err().to_string();
    for part in parts {
        assert!(text.contains(part), "expected `{part}` in: {text}");
    }
}

#[test]
fn files_of_a_folder_are_read_in_the_order_of_their_names() {
    let folder = Folder::new();
    folder.write("b.ply", &cloud(&[labels(&[0, 255, 6])]));
    folder.write("deep/c.ply", &cloud(&[labels(&[1])]));
    folder.write("a.ply", &cloud(&[labels(&[3, 4])]));
    std::fs::write(folder.0.path().join("notes.md"), "not a scene").unwrap();
    let files = folder.open().unwrap();
    let found: Vec<Vec<u8>> = (0..files.len()).map(|i| files.read(i, 7).unwrap().labels).collect();
    assert_eq!(found, [vec![3, 4], vec![0, 255, 6], vec![1]]);
    assert_eq!(files.label_map(), LabelMap::Classes);
}

#[test]
fn semantic_kitti_sequences_become_lidar_classes() {
    let folder = Folder::new();
    // The high half of a word is the instance.
    folder.sweep("000000", &[40, 10 | 7 << 16, 252, 70, 0, 50], true);
    std::fs::write(folder.0.path().join("sequences/00/poses.txt"), "1 0 0 0 0 1 0 0 0 0 1 0").unwrap();
    let files = folder.open().unwrap();
    assert_eq!((files.len(), files.label_map()), (1, LabelMap::SemanticKittiRaw));
    let scene = files.read(0, 7).unwrap();
    assert_eq!(scene.labels, [0, 2, 2, 3, 255, 1]);
    assert_eq!(scene.positions[2], [2.0, 1.0, 2.0]);
    folder.sweep("000001", &[40, 2], true);
    refused(&folder, &["000001.bin", "point 1", "SemanticKITTI ids", "found 2"]);
    folder.sweep("000001", &[40], false);
    std::fs::remove_file(folder.0.path().join("sequences/00/labels/000001.label")).unwrap();
    refused(&folder, &["000001.bin", "expected its labels in", "labels/000001.label"]);
}

#[test]
fn scenes_that_cannot_be_learned_from_are_named() {
    let one = |cloud: &PointCloud, parts: &[&str]| {
        let folder = Folder::new();
        folder.write("scan.ply", cloud);
        refused(&folder, &[&["scan.ply"], parts].concat());
    };
    one(&cloud(&[labels(&[0, 7])]), &["point 1", "labels below 7, or 255", "found 7"]);
    one(&cloud(&[("label", Attribute::F32(vec![0.0, 0.5]))]), &["point 1", "found 0.5"]);
    one(&cloud(&[("label", Attribute::I32(vec![-1]))]), &["point 0", "found -1"]);
    one(&cloud(&[("ring", Attribute::U8(vec![1]))]), &["expected an attribute `label`", "found ring"]);
    one(&cloud(&[]), &["expected an attribute `label`", "found no attributes"]);
    one(&cloud(&[labels(&[])]), &["expected points, found none"]);
    let mut far = cloud(&[labels(&[0])]);
    far.positions[0][1] = 1e300;
    let text = LabelledScene::from_cloud("far", &far, LabelMap::Classes, 7).unwrap_err().to_string();
    assert!(text.contains("far: point 0: expected coordinates that float32 holds"), "{text}");
}

#[test]
fn scenes_of_other_attributes_than_the_first_are_named() {
    let folder = Folder::new();
    folder.write("a.ply", &cloud(&[labels(&[0, 1])]));
    folder.write("b.ply", &cloud(&[labels(&[0, 1]), ("ring", Attribute::U8(vec![1, 2]))]));
    refused(&folder, &["b.ply", "expected the attributes of", "a.ply", "found label, ring"]);
}

#[test]
fn paths_without_scenes_are_named() {
    let folder = Folder::new();
    refused(&folder, &["found a folder without point files"]);
    let missing = SceneFiles::open(Path::new("/nowhere/at/all"), None).unwrap_err().to_string();
    assert!(missing.contains("/nowhere/at/all: expected labelled scenes"), "{missing}");
    folder.write("a.ply", &cloud(&[labels(&[0])]));
    folder.write("b.ply", &cloud(&[labels(&[0])]));
    let text =
        folder.open().unwrap().with_labels(Path::new("l.npy"), LabelMap::Classes).unwrap_err().to_string();
    assert!(text.contains("--labels: expected one scan beside it, found 2"), "{text}");
    std::fs::write(folder.0.path().join("a.ply"), "ply\nnothing").unwrap();
    refused(&folder, &["a.ply"]);
}

#[test]
fn the_last_of_few_scenes_is_held_out_and_one_alone_is_not_enough() {
    let folder = Folder::new();
    let config = |path: &Path| {
        let mut config = TrainConfig::generated(lattice_scenes::SceneKind::Lidar);
        config.data =
            DataConfig::Files { train: path.into(), validation: None, label_map: None, columns: None };
        config
    };
    folder.write("0.ply", &cloud(&[labels(&[0])]));
    let text = config(folder.0.path()).datasets().unwrap_err().to_string();
    assert!(text.contains("validation scenes: expected at least one"), "{text}");
    for i in 1..4 {
        folder.write(&format!("{i}.ply"), &cloud(&[labels(&[i])]));
    }
    let (train, validation) = config(folder.0.path()).datasets().unwrap();
    let first = |set: &Dataset| (0..set.len()).map(|i| set.scene(i).unwrap().labels[0]).collect::<Vec<_>>();
    assert_eq!((first(&train), first(&validation)), (vec![0, 1, 2], vec![3]));
}

fn ring(points: usize, label: u8) -> LabelledScene {
    let place = |i: usize| {
        let angle = i as f32 / points as f32 * std::f32::consts::TAU;
        [(5.0 + i as f32 * 0.01) * angle.cos(), (5.0 + i as f32 * 0.01) * angle.sin(), (i % 7) as f32]
    };
    LabelledScene {
        name: "ring".into(),
        positions: (0..points).map(place).collect(),
        labels: vec![label; points],
    }
}

#[test]
fn changes_keep_what_they_should_and_each_can_stand_alone() {
    let scene = ring(500, 1);
    let radius = |p: &[f32; 3]| p[0].hypot(p[1]);
    let with = |change: &dyn Fn(&mut Augmentation)| {
        let mut augmentation = Augmentation::none();
        change(&mut augmentation);
        augmentation.check().unwrap();
        assert_eq!(augmentation.apply(&scene, None, 5), augmentation.apply(&scene, None, 5), "seeded");
        augmentation.apply(&scene, None, 5)
    };
    assert_eq!(with(&|_| {}), scene);
    let turned = with(&|a| a.rotate = true);
    assert_ne!(turned.positions, scene.positions);
    for (p, q) in turned.positions.iter().zip(&scene.positions) {
        assert!((radius(p) - radius(q)).abs() < 1e-4 && p[2] == q[2]);
    }
    let flipped = (0..8).any(|seed| {
        let augmentation = Augmentation { flip: true, ..Augmentation::none() };
        augmentation.apply(&scene, None, seed).positions[1][0] == -scene.positions[1][0]
    });
    assert!(flipped);
    let scaled = with(&|a| a.scale = Some([2.0, 2.0]));
    assert_eq!(scaled.positions[3], scene.positions[3].map(|v| 2.0 * v));
    let shifted = with(&|a| a.jitter = 0.01);
    let most = shifted.positions.iter().flatten().zip(scene.positions.iter().flatten());
    let most = most.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(most > 0.0 && most <= 0.0301, "{most}");
    let thinned = with(&|a| a.dropout = 0.5);
    assert!((200..500).contains(&thinned.len()) && thinned.labels.len() == thinned.len());
}

#[test]
fn mixed_scenes_hold_points_of_both() {
    let (a, b) = (ring(600, 1), ring(600, 2));
    for mix in [Mix::Concat, Mix::Sectors, Mix::Cylinders] {
        let augmentation = Augmentation { mix, mix_chance: 1.0, ..Augmentation::none() };
        assert!(augmentation.mixes(3));
        let mixed = augmentation.apply(&a, Some(&b), 3);
        let of = |label: u8| mixed.labels.iter().filter(|&&l| l == label).count();
        assert!(of(1) > 50 && of(2) > 50, "{mix:?}: {} {}", of(1), of(2));
        let expected = if mix == Mix::Concat { 1200..=1200 } else { 500..=700 };
        assert!(expected.contains(&mixed.len()), "{mix:?}: {}", mixed.len());
    }
    assert!(!Augmentation::none().mixes(3));
}

#[test]
fn a_scene_that_no_grid_holds_is_named() {
    let mut scene = ring(10, 0);
    scene.name = "far away".into();
    scene.positions[0][0] = 1e30;
    let network = build_model("minkunet-small", 2, 0, &Device::flex()).unwrap();
    let scenes = Dataset::given(vec![ring(10, 1), scene], 2);
    let text = evaluate(&network, &scenes, 0.5, &Device::flex(), &mut |_, _| ()).unwrap_err().to_string();
    assert!(text.starts_with("far away: "), "{text}");
}

#[test]
fn scenes_past_the_budget_are_read_again() {
    let scenes = || Dataset::given(vec![ring(50, 0), ring(60, 1)], 2);
    let small = scenes().with_budget_bytes(800);
    for _ in 0..2 {
        assert_eq!((small.scene(0).unwrap().len(), small.scene(1).unwrap().len()), (50, 60));
    }
    assert_eq!(scenes().class_counts(10).unwrap(), [50, 60]);
}
