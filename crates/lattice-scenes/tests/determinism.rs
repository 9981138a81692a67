//! Scenes depend on kind, seed and options alone.
#![allow(clippy::unwrap_used, reason = "tests")]

use lattice_scenes::{Beams, RoomSampling, SceneKind, SceneOptions, class_names, generate};
use rstest::rstest;

mod support;
use support::labels;

fn small() -> SceneOptions {
    SceneOptions::default().with_density(0.05)
}

#[rstest]
#[case::lidar_64(SceneKind::Lidar, small())]
#[case::lidar_32(SceneKind::Lidar, small().with_beams(Beams::B32))]
#[case::lidar_128(SceneKind::Lidar, small().with_beams(Beams::B128))]
#[case::room(SceneKind::Indoor, small())]
#[case::fragment(SceneKind::Indoor, small().with_room(RoomSampling::DenseFragment))]
#[case::object(SceneKind::Object, small())]
fn any_number_of_threads_gives_the_same_scene(#[case] kind: SceneKind, #[case] options: SceneOptions) {
    let with_threads = |n: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap();
        pool.install(|| generate(kind, 5, &options))
    };
    let one = with_threads(1);
    assert!(!one.is_empty());
    assert_eq!(one, with_threads(2));
    assert_eq!(one, with_threads(7));
}

#[rstest]
fn seeds_give_different_scenes(
    #[values(SceneKind::Lidar, SceneKind::Indoor, SceneKind::Object)] kind: SceneKind,
) {
    let scenes: Vec<_> = (0..4).map(|seed| generate(kind, seed, &small())).collect();
    for a in 0..scenes.len() {
        for b in 0..a {
            assert_ne!(scenes[a].positions, scenes[b].positions, "seeds {a} and {b}");
        }
    }
}

#[rstest]
fn every_attribute_is_as_long_as_the_points_and_every_point_is_finite(
    #[values(SceneKind::Lidar, SceneKind::Indoor, SceneKind::Object)] kind: SceneKind,
    #[values(1.0, 0.0, f64::NAN)] noise: f64,
) {
    let cloud = generate(kind, 2, &small().with_noise(noise));
    assert!(cloud.attributes.values().all(|a| a.len() == cloud.len()));
    assert!(cloud.positions.iter().flatten().all(|v| v.is_finite()));
    let classes = class_names(kind).len() as u8;
    assert!(labels(&cloud).iter().all(|&l| l < classes));
}

#[rstest]
#[case::lidar(SceneKind::Lidar, "intensity ring label")]
#[case::indoor(SceneKind::Indoor, "rgb label")]
#[case::object(SceneKind::Object, "label")]
fn each_kind_has_its_attributes(#[case] kind: SceneKind, #[case] names: &str) {
    let cloud = generate(kind, 3, &small());
    assert_eq!(cloud.attributes.len(), names.split(' ').count());
    assert!(names.split(' ').all(|n| cloud.attributes.contains_key(n)));
}

#[rstest]
fn every_class_occurs_in_every_full_scene(
    #[values(SceneKind::Lidar, SceneKind::Indoor, SceneKind::Object)] kind: SceneKind,
    #[values(0, 1, 2, 3)] seed: u64,
) {
    let options = if kind == SceneKind::Object { small() } else { small().with_density(0.3) };
    let cloud = generate(kind, seed, &options);
    for (class, name) in class_names(kind).iter().enumerate() {
        let count = labels(&cloud).iter().filter(|&&l| usize::from(l) == class).count();
        assert!(count >= 5, "{kind} seed {seed}: {count} points of {name}");
    }
}

#[test]
fn density_scales_the_points() {
    for kind in SceneKind::ALL {
        let (a, b) = (generate(kind, 1, &small()), generate(kind, 1, &small().with_density(0.1)));
        let ratio = b.len() as f64 / a.len() as f64;
        assert!((1.9..2.1).contains(&ratio), "{kind}: {ratio}");
    }
}

#[test]
fn only_the_sensor_with_a_roof_below_sees_its_own_car() {
    let ignored = |beams| {
        let cloud = generate(SceneKind::Lidar, 1, &small().with_beams(beams));
        labels(&cloud).iter().filter(|&&l| l == lattice_scenes::IGNORED).count()
    };
    assert!(ignored(Beams::B32) > 100);
    assert_eq!(ignored(Beams::B64), 0);
    assert_eq!(ignored(Beams::B128), 0);
}

#[test]
fn kinds_parse_from_their_names() {
    for kind in SceneKind::ALL {
        assert_eq!(kind.name().parse(), Ok(kind));
    }
    let error = "street".parse::<SceneKind>().unwrap_err().to_string();
    assert!(error.contains("expected lidar, indoor or object, found `street`"));
}
