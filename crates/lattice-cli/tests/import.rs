//! `lattice import`, and `lattice run` with what it wrote.
#![allow(clippy::unwrap_used, reason = "tests")]

mod command;
#[path = "../../lattice-import/tests/foreign/mod.rs"]
mod foreign;

use command::{Place, terrain};
use foreign::{laid_out, minkowski_names, parameters, pth};
use lattice_import::Library;
use lattice_models::ModelSpec;

/// A checkpoint of MinkowskiEngine for 3 input channels and 6 classes, and a scan.
fn place() -> Place {
    let place = Place::new();
    let spec = ModelSpec::new("minkunet14a".into(), 3).with_classes(6);
    let values = minkowski_names(laid_out(&parameters(&spec), Library::Minkowski, ""));
    place.write("net.pth", pth(&values, Some("state_dict")));
    place.write("scan.xyz", terrain(200));
    place
}

const IMPORT: [&str; 8] =
    ["import", "net.pth", "--from", "minkowski", "--model", "minkunet14a", "--out", "net.safetensors"];

#[test]
fn an_imported_checkpoint_runs() {
    let place = place();
    let report = place.json(&[&IMPORT[..], &["--json"]].concat());
    for (field, value) in [("in_channels", 3), ("classes", 6), ("tensors", 162)] {
        assert_eq!(report[field], value, "{report}");
    }
    assert_eq!((&report["layout"], &report["axes"]), (&"taps-in-out".into(), &"xyz".into()));
    let text = place.succeed(&IMPORT);
    assert!(text.contains("wrote net.safetensors"), "{text}");

    // The file names its network, and its classes are counted.
    let run = ["run", "scan.xyz", "--weights", "net.safetensors", "--out", "out"];
    let report = place.json(&[&run[..], &["--features", "xyz", "--json"]].concat());
    assert_eq!(report["model"], "minkunet14a");
    assert_eq!(report["classes"].as_array().unwrap().len(), 6);
    assert_eq!(report["classes"][5]["name"], "class 5");
    place.fail(&run, &["--features", "expected 3 channels", "found 5"]);
    place.fail(&[&run[..], &["--features", "xyz,colour"]].concat(), &["--features", "found `colour`"]);
    place.fail(&[&run[..], &["--features", "one,intensity,height"]].concat(), &["intensity", "leave it out"]);
    place.fail(
        &[&run[..], &["--model", "minkunet18"]].concat(),
        &["--model", "expected minkunet14a", "found minkunet18"],
    );
}

#[test]
fn what_does_not_fit_is_named_and_nothing_is_written() {
    let place = place();
    let with = |from: &str, model: &str, more: &[&str]| {
        let args = ["import", "net.pth", "--from", from, "--model", model, "--out", "o.safetensors"];
        args.iter().chain(more).map(ToString::to_string).collect::<Vec<_>>()
    };
    for (args, parts) in [
        (
            with("minkowski", "minkunet18a", &[]),
            &["does not fit minkunet18a", "are missing", "`decoder.0.blocks.1.conv1.conv.weight`"][..],
        ),
        (with("spconv", "minkunet14a", &[]), &["are unknown", "block1.0.conv1.kernel"]),
        (with("keras", "minkunet14a", &[]), &["--from", "found `keras`", "torchsparse"]),
        (with("spconv", "resnet", &[]), &["--model", "voxelnext", "found `resnet`"]),
        (with("minkowski", "minkunet14a", &["--layout", "chw"]), &["--layout", "taps-in-out", "found `chw`"]),
        (with("minkowski", "minkunet14a", &["--axes", "xy"]), &["--axes", "found \"xy\""]),
        (with("minkowski", "minkunet14a", &["--map", "no.toml"]), &["--map", "no.toml"]),
    ] {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        place.fail(&args, parts);
    }
    let start = ["import", "net.pth", "--from", "minkowski", "--model", "minkunet14a", "--out"];
    place.fail(&[&start[..], &["o.pth"]].concat(), &["--out", "ends in .safetensors"]);
    place.fail(&[&start[..], &["no/o.safetensors"]].concat(), &["--out", "no"]);
    assert_eq!(place.names(), ["net.pth", "scan.xyz"]);
}

#[test]
fn a_network_with_a_branch_of_points_runs() {
    let place = Place::new();
    place.write("scan.xyz", terrain(200));
    let report = place.json(&["run", "scan.xyz", "--model", "spvcnn", "--out", "out", "--json"]);
    assert_eq!(report["model"], "spvcnn");
    assert!(
        report["layers"].as_array().unwrap().iter().any(|l| l["name"].as_str().unwrap().contains("points"))
    );
}
