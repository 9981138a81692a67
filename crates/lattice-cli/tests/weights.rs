//! `lattice run --weights`: a round trip, and files that do not fit.
#![allow(clippy::unwrap_used, reason = "tests")]

mod command;

use std::path::Path;

use burn::tensor::{DType, Device};
use burn_store::{FloatCastAdapter, ModuleSnapshot, SafetensorsStore};
use command::{Place, terrain};
use lattice_models::{MinkUNetConfig, seed_parameters};

/// Writes the weights that a seed draws, as `lattice run` would for 5 input channels and 7 classes.
fn save(model: &str, seed: u64, path: &Path) {
    let config = MinkUNetConfig::named(model, 5, 7).unwrap();
    let model = seed_parameters(config.init(&Device::flex()), seed);
    model.save_into(&mut SafetensorsStore::from_file(path)).unwrap();
}

fn place() -> Place {
    let place = Place::new();
    place.write("scan.xyz", terrain(200));
    place
}

const RUN: [&str; 4] = ["run", "scan.xyz", "--model", "minkunet14a"];

fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&RUN[..], more].concat()
}

#[test]
fn saved_weights_give_what_the_same_weights_gave_before() {
    let place = place();
    save("minkunet14a", 9, &place.path("w.safetensors"));
    place.succeed(&with(&["--seed", "9", "--out", "drawn"]));
    let report = place.json(&with(&["--weights", "w.safetensors", "--out", "loaded", "--json"]));
    assert_eq!(report["weights"], "w.safetensors");
    assert!(place.bytes("drawn/points.ply") == place.bytes("loaded/points.ply"));
    let text = place.succeed(&with(&["--weights", "w.safetensors", "--out", "loaded"]));
    assert!(!text.contains("untrained"), "{text}");
}

#[test]
fn weights_of_another_model_are_refused_with_the_first_parameter_that_differs() {
    let place = place();
    save("minkunet14b", 0, &place.path("b.safetensors"));
    save("minkunet18a", 0, &place.path("more.safetensors"));
    place.fail(
        &with(&["--weights", "b.safetensors"]),
        &["--weights b.safetensors", "minkunet14a", "expected shape", "--model"],
    );
    place.fail(&with(&["--weights", "more.safetensors"]), &["expected no tensor", "more such"]);
    let args = ["run", "scan.xyz", "--model", "minkunet18a", "--weights", "a.safetensors"];
    save("minkunet14a", 0, &place.path("a.safetensors"));
    place.fail(&args, &["expected the parameter", "found none"]);
    assert!(!place.path("out").exists(), "no empty folder stays behind");
}

#[test]
fn files_that_are_no_weights_are_refused() {
    let place = place();
    place.write("empty.safetensors", "");
    place.write("text.safetensors", "these are no weights at all");
    place.write("lie.safetensors", [&(1u64 << 62).to_le_bytes()[..], b"{}"].concat());
    save("minkunet14a", 0, &place.path("whole.safetensors"));
    let whole = place.bytes("whole.safetensors");
    place.write("cut.safetensors", &whole[..whole.len() / 2]);
    std::fs::create_dir(place.path("folder.safetensors")).unwrap();
    for (file, part) in [
        ("empty.safetensors", "expected a complete .safetensors file"),
        ("text.safetensors", "expected a complete .safetensors file"),
        ("lie.safetensors", "expected a complete .safetensors file"),
        ("cut.safetensors", "expected a complete .safetensors file"),
        ("folder.safetensors", "a folder"),
        ("nowhere.safetensors", "check the path"),
        ("scan.xyz", "expected a complete .safetensors file"),
    ] {
        place.fail(&with(&["--weights", file]), &["--weights", file, part]);
    }
}

#[test]
fn weights_that_are_not_finite_give_an_error_and_no_classes() {
    let place = place();
    save("minkunet14a", 0, &place.path("w.safetensors"));
    let mut bytes = place.bytes("w.safetensors");
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    for value in bytes[8 + header..].chunks_exact_mut(4) {
        value.copy_from_slice(&f32::NAN.to_le_bytes());
    }
    place.write("nan.safetensors", bytes);
    place.fail(&with(&["--weights", "nan.safetensors"]), &["expected finite scores", "check the weights"]);
    assert!(!place.path("out").exists());
}

#[test]
fn half_and_double_precision_weights_are_computed_in_f32() {
    let place = place();
    let config = MinkUNetConfig::named("minkunet14a", 5, 7).unwrap();
    let model = seed_parameters(config.init(&Device::flex()), 9);
    for (file, dtype) in [("half.safetensors", DType::F16), ("double.safetensors", DType::F64)] {
        let store = SafetensorsStore::from_file(place.path(file));
        model.save_into(&mut store.with_to_adapter(FloatCastAdapter::to(dtype))).unwrap();
        place.succeed(&with(&["--weights", file, "--out", file.trim_end_matches(".safetensors")]));
    }
    place.succeed(&with(&["--seed", "9", "--out", "drawn"]));
    assert!(place.bytes("double/points.ply") == place.bytes("drawn/points.ply"));
    assert!(place.bytes("half.safetensors").len() < place.bytes("double.safetensors").len() / 3);
}

#[test]
fn a_header_that_lies_gives_one_line_and_no_trace() {
    let place = place();
    save("minkunet14a", 0, &place.path("w.safetensors"));
    let whole = place.bytes("w.safetensors");
    let length = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let header = String::from_utf8(whole[8..8 + length].to_vec()).unwrap();
    for (from, to) in [
        ("\"F32\"", "\"I32\""),
        ("\"F32\"", "\"F64\""),
        ("\"F32\"", "\"F99\""),
        ("\"shape\":[", "\"shape\":[9,"),
        ("\"shape\":[", "\"shape\":[18446744073709551615,18446744073709551615,"),
        ("\"data_offsets\":[", "\"data_offsets\":[9"),
        ("\"data_offsets\":[0,", "\"data_offsets\":[18446744073709551615,"),
        ("weight", "w\u{e9}ight"),
        ("{", "["),
    ] {
        assert!(header.contains(from), "{from} in {header}");
        let lie = header.replacen(from, to, 1);
        let bytes = [&(lie.len() as u64).to_le_bytes()[..], lie.as_bytes(), &whole[8 + length..]].concat();
        place.write("lie.safetensors", bytes);
        place.fail(&with(&["--weights", "lie.safetensors"]), &["--weights lie.safetensors"]);
    }
}
