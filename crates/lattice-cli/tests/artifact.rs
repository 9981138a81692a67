//! `lattice artifact`: export, verify, inspect, run.
#![allow(clippy::unwrap_used, reason = "tests")]

mod command;

use command::{Place, terrain};
use lattice_artifact::{Array, TensorFile, write_arrays};

const EXPORT: [&str; 8] =
    ["artifact", "export", "--model", "minkunet-small", "--in-channels", "3", "--out", "net"];

/// A folder with an artifact, inputs for it, and what the network itself makes of them.
fn place() -> Place {
    let place = Place::new();
    place.write("scan.xyz", terrain(300));
    let sample = ["--classes", "6", "--sample", "sample", "--scene", "scan.xyz", "--voxel-size", "0.2"];
    let text = place.succeed(&[&EXPORT[..], &sample].concat());
    assert!(
        text.contains("minkunet-small:")
            && text.contains("wrote net")
            && text.contains("expected.safetensors"),
        "{text}"
    );
    place
}

const RUN: [&str; 7] =
    ["artifact", "run", "net", "--inputs", "sample/inputs.safetensors", "--out", "out.safetensors"];
const EXPECT: [&str; 6] = ["--expect", "sample/expected.safetensors", "--rtol", "1e-3", "--atol", "1e-3"];

#[test]
fn an_exported_network_runs_and_agrees_with_itself() {
    let place = place();
    let text = place.succeed(&[&RUN[..], &EXPECT].concat());
    assert!(text.contains("scores: agrees in") && text.contains("wrote out.safetensors"), "{text}");
    let report = place.json(&[&RUN[..], &EXPECT, &["--json"]].concat());
    assert_eq!(report["agrees"], true);
    assert_eq!(report["comparisons"][0]["name"], "scores");
    let names: Vec<&str> =
        report["results"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["scores.active", "scores.coords", "scores.features"]);
    let file = TensorFile::read(&place.path("out.safetensors")).unwrap();
    let rows = file.array("scores.coords").unwrap().to_coords().unwrap().len();
    assert_eq!(file.array("scores.features").unwrap().dims(), [rows, 6]);
    assert_eq!(file.array("scores.active").unwrap().to_i32().unwrap(), [rows as i32]);
    // Stride 1: logical rows are the physical ones.
    place.succeed(&[&RUN[..], &EXPECT, &["--coordinate-domain", "logical"]].concat());
    assert_eq!(place.run(&[&RUN[..], &["--coordinate-domain", "both"]].concat()).code, 2);
    assert_eq!(place.run(&[&RUN[..], &["--rtol", "1"]].concat()).code, 2);
}

#[test]
fn results_that_differ_show_the_worst_entry() {
    let place = place();
    let file = TensorFile::read(&place.path("sample/expected.safetensors")).unwrap();
    let mut all: Vec<(String, Array)> =
        file.names().map(|n| (n.to_owned(), file.array(n).unwrap())).collect();
    let features = all.iter_mut().find(|(name, _)| name == "scores.features").unwrap();
    let mut values = features.1.to_f32().unwrap();
    let row = file.array("scores.coords").unwrap().to_coords().unwrap()[2];
    values[2 * 6 + 4] = 1234.5;
    features.1 = Array::from_f32(features.1.dims(), &values).unwrap();
    write_arrays(&place.path("off.safetensors"), all.iter().map(|(n, a)| (n.as_str(), a))).unwrap();
    let expect = ["--expect", "off.safetensors", "--rtol", "1e-3", "--atol", "1e-3"];
    let at = format!("worst at {row:?}, channel 4: expected 1234.5, found");
    place.fail(&[&RUN[..], &expect].concat(), &["--expect", "scores: differs in 1 of", &at]);
    let ran = place.run(&[&RUN[..], &expect, &["--json"]].concat());
    assert_eq!(ran.code, 1);
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(
        (&report["agrees"], &report["comparisons"][0]["worst"]["expected"]),
        (&false.into(), &1234.5.into())
    );
    // What it found is written all the same.
    assert!(place.path("out.safetensors").is_file());
}

#[test]
fn an_artifact_is_verified_and_inspected() {
    let place = place();
    let text = place.succeed(&["artifact", "verify", "net"]);
    assert!(text.contains("net: valid:") && text.contains("3 inputs, 1 results"), "{text}");
    let report = place.json(&["artifact", "verify", "net", "--json"]);
    assert_eq!((&report["valid"], &report["diagnostics"]), (&true.into(), &serde_json::json!([])));
    let text = place.succeed(&["artifact", "inspect", "net", "--device", "cpu"]);
    for part in [
        "input  x_coords (sparse_coords): tensor<?x4xi32>",
        "output scores (sparse_tensor)",
        "tap_tiles",
        "pointwise_gemm",
        "row_mix",
        "kernel 3x3x3",
    ] {
        assert!(text.contains(part), "expected `{part}` in {text}");
    }
    let report = place.json(&["artifact", "inspect", "net", "--json"]);
    assert_eq!(report["sparse_inputs"], serde_json::json!(["x"]));
    let weight = &report["weights"][0];
    assert_eq!((&weight["key"], &weight["layout"]), (&"stem.0.conv.weight".into(), &"conv3d_o_xyz_i".into()));
    assert_eq!(weight["shape"], serde_json::json!([16, 3, 3, 3, 3]));
    assert!(
        report["nodes"]
            .as_array()
            .unwrap()
            .iter()
            .any(|n| n["op"] == "target_conv_transpose3d" && n["route"] == "tap_tiles")
    );

    let graph = String::from_utf8(place.bytes("net/graph.mlir")).unwrap();
    let broken =
        graph.replacen("ir_version = 2", "ir_version = 1", 1).replacen("subm_conv3d %", "subm_conv3d %no", 1);
    place.write("net/graph.mlir", broken);
    let parts = ["net/graph.mlir: graph: 2:5: expected lattice.ir_version = 2", "before it is used"];
    place.fail(&["artifact", "verify", "net"], &parts);
    let ran = place.run(&["artifact", "verify", "net", "--json"]);
    assert_eq!(ran.code, 1);
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&report["valid"], &report["diagnostics"][0]["line"]), (&false.into(), &2.into()));
    place.fail(&RUN, &["net: graph: 2:5"]);
    place.fail(&["artifact", "inspect", "no"], &["no: expected a folder"]);
}

#[test]
fn what_cannot_be_used_is_named() {
    let place = place();
    let run = |inputs: &str, out: &str, parts: &[&str]| {
        place.fail(&["artifact", "run", "net", "--inputs", inputs, "--out", out], parts);
    };
    run("none.safetensors", "o.safetensors", &["--inputs none.safetensors", "check the path"]);
    run("scan.xyz", "o.safetensors", &["--inputs scan.xyz", "complete .safetensors"]);
    run("sample/inputs.safetensors", "o.npz", &["--out", "ends in .safetensors"]);
    run("sample/inputs.safetensors", "sample/inputs.safetensors", &["--out", "another file"]);
    run("sample/expected.safetensors", "o.safetensors", &["input `scores.active`: expected one of x_coords"]);
    let export = |args: &[&str], parts: &[&str]| {
        place.fail(&[&["artifact", "export", "--out", "bad"], args].concat(), parts);
    };
    export(&["--model", "spvcnn"], &["--model spvcnn", "no operation of the format adds dense rows"]);
    export(&["--model", "voxelbackbone8x"], &["kernel_reach"]);
    export(&["--model", "resnet"], &["--model", "found `resnet`"]);
    export(&["--weights", "no.safetensors"], &["--weights no.safetensors", "--model"]);
    export(&["--model", "minkunet14a", "--dtype", "f64"], &["--dtype", "found f64"]);
    export(&["--in-channels", "3"], &["--in-channels: expected 5", "found 3"]);
    assert!(!place.path("bad").exists());
}

#[test]
fn the_shipped_weights_are_exported_in_half_precision() {
    let place = Place::new();
    place.write("scan.xyz", terrain(300));
    let report = place.json(&[
        "artifact", "export", "--out", "net", "--dtype", "f16", "--sample", "sample", "--scene", "scan.xyz",
        "--json",
    ]);
    assert_eq!(
        (&report["model"], &report["dtype"], &report["classes"]),
        (&"minkunet-small".into(), &"f16".into(), &7.into())
    );
    let expect = ["--expect", "sample/expected.safetensors", "--rtol", "3e-2", "--atol", "3e-2"];
    let text = place.succeed(&[&RUN[..], &expect].concat());
    assert!(text.contains("scores.features: f16"), "{text}");
    assert!(text.contains("scores: agrees"), "{text}");
}
