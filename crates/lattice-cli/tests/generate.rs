//! `lattice generate`: labelled scenes, the same for a seed.
#![allow(clippy::unwrap_used, reason = "tests")]

mod command;

use command::Place;

#[test]
fn equal_seeds_give_equal_files_and_others_do_not() {
    let place = Place::new();
    for (name, seed) in [("a.ply", "5"), ("b.ply", "5"), ("c.ply", "6")] {
        place.succeed(&["generate", "--kind", "indoor", "--seed", seed, "--out", name]);
    }
    assert!(place.bytes("a.ply") == place.bytes("b.ply"));
    assert!(place.bytes("a.ply") != place.bytes("c.ply"));
    assert_eq!(place.names(), ["a.ply", "b.ply", "c.ply"], "no temporary files stay");
}

#[test]
fn both_formats_hold_the_same_points_with_labels() {
    let place = Place::new();
    let mut counts = Vec::new();
    for name in ["scene.ply", "scene.npz"] {
        let report = place.json(&["generate", "--kind", "lidar", "--out", name, "--json"]);
        assert_eq!(
            (report["file"].as_str(), report["kind"].as_str(), report["seed"].as_u64()),
            (Some(name), Some("lidar"), Some(0))
        );
        let classes = report["classes"].as_object().unwrap();
        let total: u64 = classes.values().map(|n| n.as_u64().unwrap()).sum();
        assert_eq!(report["points"], total, "each point has a class or is ignored");
        for class in ["ground", "building", "vehicle", "vegetation", "pole", "person", "other"] {
            assert!(classes.contains_key(class), "{class}");
        }
        let info = place.json(&["info", name, "--json"]);
        assert_eq!(info["points"], report["points"]);
        assert!(info["attributes"].as_array().unwrap().contains(&"label".into()), "{info}");
        counts.push(info["scales"].clone());
    }
    assert_eq!(counts[0], counts[1]);
}

#[test]
fn a_table_of_classes_is_printed() {
    let text = Place::new().succeed(&["generate", "--kind", "indoor", "--out", "room.PLY"]);
    assert!(text.contains("floor") && text.contains("furniture"), "{text}");
}

#[test]
fn places_that_cannot_be_written_are_refused_and_nothing_stays() {
    let place = Place::new();
    place
        .fail(&["generate", "--kind", "indoor", "--out", "room.txt"], &["--out", ".ply or .npz", "room.txt"]);
    place.fail(
        &["generate", "--kind", "indoor", "--out", "nowhere/room.ply"],
        &["nowhere/room.ply", "make its folder first"],
    );
    std::fs::create_dir(place.path("folder.ply")).unwrap();
    place.fail(&["generate", "--kind", "indoor", "--out", "folder.ply"], &["folder.ply", "not a folder"]);
    assert_eq!(place.names(), ["folder.ply"]);
}

#[test]
fn a_picture_is_drawn_where_one_is_asked_for() {
    let place = Place::new();
    place.succeed(&["generate", "--kind", "object", "--out", "o.npz", "--picture", "o.png"]);
    assert!(place.bytes("o.png").starts_with(b"\x89PNG"));
    assert_eq!(place.names(), ["o.npz", "o.png"]);
}
