//! `lattice quantize`: the report, and every command that takes its file.

#![allow(clippy::unwrap_used, reason = "tests")]

mod command;

use command::Place;
use serde_json::Value;

fn json(place: &Place, args: &[&str]) -> Value {
    let ran = place.run(args);
    assert_eq!(ran.code, 0, "{args:?}: {}", ran.stderr);
    serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{args:?}: {e}: {}", ran.stdout))
}

const QUICK: [&str; 4] = ["--scene-count", "1", "--repeats", "1"];

fn quantize(place: &Place, more: &[&str]) -> Value {
    let mut args = vec!["quantize", "shipped", "--json"];
    args.extend(QUICK);
    args.extend(more);
    json(place, &args)
}

#[test]
fn shipped_weights_in_eight_bits_run_everywhere() {
    let place = Place::new();
    let report = quantize(&place, &["--bits", "8", "--out", "q8.safetensors"]);
    assert_eq!(report["file_bytes"], place.bytes("q8.safetensors").len());
    assert!(report["share_of_f32"].as_f64().unwrap() < 0.30, "{}", report["share_of_f32"]);
    let change = report["accuracy"]["change"].as_f64().unwrap();
    assert!(change.abs() < 0.5, "mIoU moved by {change} points");
    let layers = report["layers"].as_array().unwrap();
    let packed: Vec<_> = layers.iter().filter(|l| l["packed"] == true).collect();
    assert!(packed.len() > 15 && packed.len() < layers.len());
    for layer in packed {
        assert!(layer["error_to_dequantized"].as_f64().unwrap() < 1e-5, "{layer}");
        let error = layer["error_to_float"].as_f64().unwrap();
        assert!(error > 0.0 && error < 0.03, "{layer}");
    }
    let kept = layers.iter().filter(|l| l["packed"] == false);
    assert!(
        kept.clone().count() >= 2
            && kept.clone().all(|l| l["reason"].as_str().is_some_and(|r| !r.is_empty()))
    );
    let routes: Vec<_> = report["speeds"].as_array().unwrap().iter().map(|s| s["route"].clone()).collect();
    assert_eq!(routes, ["float", "packed_panels", "dequantize"]);
    let devices = report["devices"].as_array().unwrap();
    let cpu = devices.iter().find(|d| d["device"] == "cpu").unwrap();
    assert_eq!((&cpu["dtype"], &cpu["routes"][0]), (&Value::from("f32"), &Value::from("packed_panels")));
    for device in devices {
        let of = |key: &str| device[key].as_f64().unwrap();
        assert!(of("float_ms") > 0.0 && of("packed_ms") > 0.0, "{device}");
        assert!((of("ratio") - of("float_ms") / of("packed_ms")).abs() < 1e-9, "{device}");
    }

    let ran = json(&place, &["run", "--weights", "q8.safetensors", "--out", "out", "--json"]);
    assert_eq!(ran["model"], "minkunet-small");
    let stage = &ran["stages"].as_array().unwrap()[6];
    assert_eq!((&stage["name"], &stage["status"]), (&Value::from("quantize"), &Value::from("done")));
    assert!(ran["layers"].as_array().unwrap().iter().any(|l| l["route"] == "packed_panels"));
    let scores = json(&place, &["eval", "--weights", "q8.safetensors", "--scene-count", "1", "--json"]);
    let after = report["accuracy"]["miou_after"].as_f64().unwrap();
    assert!((scores["miou"].as_f64().unwrap() - after).abs() < 0.005, "{} {after}", scores["miou"]);
    let once = ["bench", "--weights", "q8.safetensors", "--repeats", "1", "--warmup", "0", "--json"];
    let both = place.json_lines(&[&once[..], &["--dtype", "f32,f16"]].concat());
    let dtypes: Vec<_> = both.iter().map(|row| row["dtype"].as_str().unwrap()).collect();
    assert_eq!(dtypes, ["f32", "f16"]);
    for bench in &both {
        let ran = (&bench["op"], &bench["route"]);
        assert_eq!(ran, (&Value::from("network_fwd"), &Value::from("packed_panels")));
    }
    place.fail(&[&once[..], &["--dtype", "bf16"]].concat(), &["--dtype", "f32 or f16"]);
    let refused = place.run(&["quantize", "q8.safetensors", "--out", "again.safetensors"]);
    assert!(refused.code == 1 && refused.stderr.contains("packed layers"), "{}", refused.stderr);
    assert!(!place.names().contains(&"again.safetensors".to_owned()));
}

#[test]
fn four_bits_are_smaller_and_bytes_of_features_are_calibrated() {
    let place = Place::new();
    let four = quantize(&place, &["--bits", "4", "--group-size", "32", "--out", "q4.safetensors"]);
    assert!(four["share_of_f32"].as_f64().unwrap() < 0.19, "{}", four["share_of_f32"]);
    assert!(four["accuracy"]["change"].as_f64().unwrap().abs() < 2.5, "{}", four["accuracy"]);
    std::fs::create_dir(place.path("scans")).unwrap();
    for seed in ["5", "6"] {
        let file = format!("scans/{seed}.npz");
        let made = place.run(&["generate", "--kind", "lidar", "--seed", seed, "--out", &file]);
        assert_eq!(made.code, 0, "{}", made.stderr);
    }
    let calibrated = ["--activations", "int8", "--calibrate", "scans", "--out", "a8.safetensors"];
    let bytes = quantize(&place, &calibrated);
    assert_eq!(
        (&bytes["calibration_scenes"], &bytes["method"]),
        (&Value::from(2), &Value::from("percentile"))
    );
    assert!(bytes["accuracy"]["change"].as_f64().unwrap().abs() < 1.5, "{}", bytes["accuracy"]);
    let routes: Vec<_> = bytes["speeds"].as_array().unwrap().iter().map(|s| s["route"].clone()).collect();
    assert!(routes.contains(&Value::from("packed_int8")), "{routes:?}");
    let ran = json(&place, &["run", "--weights", "a8.safetensors", "--out", "out", "--json"]);
    let bytes = ran["layers"].as_array().unwrap().iter().any(|l| l["route"] == "packed_int8");
    assert_eq!(bytes, lattice_cpu::multiplies_bytes());
    let mut forced = place.command(&["eval", "--weights", "q4.safetensors", "--scene-count", "1"]);
    let output = forced.env("LATTICE_ROUTE", "packed_conv=packed_int8").output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("was forced but does not fit"), "{text}");
}

#[test]
fn arguments_that_do_not_fit_are_refused_and_nothing_is_written() {
    let place = Place::new();
    std::fs::create_dir(place.path("empty")).unwrap();
    place.write("text.safetensors", "no tensors");
    let out = ["--out", "q.safetensors"];
    let cases: [(&[&str], i32, &str); 12] = [
        (&["quantize", "shipped", "--bits", "5"], 1, "--bits: expected 4 or 8, found 5"),
        (&["quantize", "shipped", "--group-size", "48"], 1, "--group-size: expected 32, 64 or 128, found 48"),
        (&["quantize", "nowhere.safetensors"], 1, "expected a .safetensors file, `shipped`"),
        (&["quantize", "text.safetensors"], 1, "text.safetensors"),
        (&["quantize", "shipped", "--activations", "int8"], 2, "--calibrate"),
        (&["quantize", "shipped", "--activations", "int4", "--calibrate", "empty"], 2, "int8"),
        (&["quantize", "shipped", "--activations", "int8", "--calibrate", "empty"], 1, "no scan in it"),
        (
            &["quantize", "shipped", "--activations", "int8", "--calibrate", "nowhere"],
            1,
            "expected a folder of scans",
        ),
        (&["quantize", "shipped", "--score", "nowhere"], 1, "expected labelled scenes"),
        (&["quantize", "shipped", "--scene-count", "0"], 1, "--scene-count"),
        (&["quantize", "shipped", "--voxel-size", "0"], 1, "--voxel-size"),
        (&["quantize", "shipped", "--repeats", "0"], 1, "--repeats"),
    ];
    for (args, code, says) in cases {
        let args: Vec<&str> = args.iter().chain(&out).copied().collect();
        let ran = place.run(&args);
        assert_eq!(ran.code, code, "{args:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(says), "{args:?}: expected `{says}` in {}", ran.stderr);
    }
    for bad in ["q.bin", "nowhere/q.safetensors"] {
        let ran = place.run(&["quantize", "shipped", "--out", bad]);
        assert!(ran.code == 1 && ran.stderr.contains("--out: expected"), "{bad}: {}", ran.stderr);
    }
    assert_eq!(place.names(), ["empty", "text.safetensors"]);
}

#[test]
fn drawn_weights_of_a_named_network_name_it_in_their_file() {
    let place = Place::new();
    let args =
        ["quantize", "minkunet14b", "--bits", "4", "--group-size", "32", "--out", "q.safetensors", "--json"];
    let report = json(&place, &[&args[..], &QUICK].concat());
    assert!(report["share_of_f32"].as_f64().unwrap() < 0.17, "{}", report["share_of_f32"]);
    assert_eq!(report["seed"], 0);
    let ran =
        json(&place, &["bench", "--weights", "q.safetensors", "--repeats", "1", "--warmup", "0", "--json"]);
    assert_eq!(ran["model"], "minkunet14b");
}
