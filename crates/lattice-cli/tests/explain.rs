//! `lattice explain`: the route, the reasons, the prediction.
#![allow(clippy::unwrap_used, reason = "tests")]

mod command;

use command::{Place, Ran, coords, cube};
use serde_json::Value;

fn place() -> Place {
    let place = Place::new();
    place.write("cube.npy", cube());
    place
}

fn explain(place: &Place, more: &[&str]) -> Value {
    place.json(&[&["explain", "--coords", "cube.npy", "--repeats", "1", "--json"][..], more].concat())
}

#[test]
fn a_cube_has_its_pairs_and_its_prediction() {
    let report = explain(&place(), &["--op", "subm3", "--cin", "16", "--cout", "8"]);
    assert_eq!(
        (report["rows_in"].as_u64(), report["rows_out"].as_u64(), report["pairs"].as_u64()),
        (Some(125), Some(125), Some(2197))
    );
    assert_eq!(report["flop"], 2.0 * 2197.0 * 16.0 * 8.0);
    let bytes = 4.0 * (125.0 * 16.0 + 125.0 * 8.0 + 27.0 * 16.0 * 8.0) + 4.0 * 2197.0;
    assert_eq!(report["bytes"], bytes);
    assert!(report["measured_ms"].as_f64().unwrap() > 0.0);
    assert_eq!(report["relation_kind"], "submanifold");
}

#[test]
fn exactly_one_route_runs_and_the_others_say_why_not() {
    let place = place();
    for op in ["subm3", "k2s2", "k3s2", "transpose2", "generative2", "pointwise"] {
        for dtype in ["f64", "f32", "f16", "bf16"] {
            let report = explain(&place, &["--op", op, "--dtype", dtype]);
            let routes = report["routes"].as_array().unwrap();
            let chosen: Vec<_> = routes.iter().filter(|r| r["chosen"] == true).collect();
            assert_eq!(chosen.len(), 1, "{op} {dtype}");
            assert_eq!(chosen[0]["route"], report["route"]);
            for route in routes.iter().filter(|r| r["chosen"] == false) {
                assert!(!route["rejected"].as_str().unwrap().is_empty(), "{route}");
            }
        }
    }
    assert_eq!(explain(&place, &["--op", "pointwise"])["route"], "pointwise_gemm");
    assert_eq!(explain(&place, &["--groups", "32"])["route"], "depthwise_rows");
    assert_eq!(explain(&place, &["--dtype", "f64"])["route"], "edge_loop");
}

#[test]
fn the_text_names_route_rows_and_prediction() {
    let text = place().succeed(&["explain", "--coords", "cube.npy", "--repeats", "1"]);
    for part in
        ["subm3 f32 32->32 on cpu", "2,197 pairs", "predicted", "measured", "runs", "tap_tiles", "preferred"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn no_rows_and_far_rows_are_legal() {
    let place = Place::new();
    place.write("none.npy", coords(&[]));
    place.write("far.npy", coords(&[[0, i32::MAX, i32::MAX, i32::MAX], [3, i32::MIN, 0, i32::MIN]]));
    for file in ["none.npy", "far.npy"] {
        for op in ["subm3", "k2s2", "k3s2", "pointwise"] {
            place.json(&["explain", "--coords", file, "--op", op, "--repeats", "1", "--json"]);
        }
    }
}

#[test]
fn a_forced_route_runs_or_is_refused() {
    let place = place();
    let args = ["explain", "--coords", "cube.npy", "--repeats", "1", "--json"];
    let with = |route: &str| Ran::from(place.command(&args).env("LATTICE_ROUTE", route).output().unwrap());
    let report: Value = serde_json::from_str(&with("sparse_conv=edge_loop").stdout).unwrap();
    assert_eq!(report["route"], "edge_loop");
    with("sparse_conv=depthwise_rows").refused(&args, &["depthwise_rows", "does not fit", "groups"]);
    with("sparse_conv=nothing").refused(&args, &["nothing", "tap_tiles"]);
    with("nonsense").refused(&args, &["LATTICE_ROUTE", "nonsense"]);
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    let place = place();
    let refuse = |more: &[&str], parts: &[&str]| {
        place.fail(&[&["explain", "--coords", "cube.npy"][..], more].concat(), parts);
    };
    refuse(&["--cin", "3", "--groups", "2"], &["--groups", "divides", "3"]);
    refuse(&["--cin", "0"], &["--cin: expected at least 1"]);
    refuse(&["--groups", "0"], &["--groups: expected at least 1"]);
    refuse(&["--repeats", "0"], &["--repeats: expected 1 to"]);
    refuse(&["--repeats", "99999999999"], &["--repeats: expected 1 to"]);
    refuse(&["--cin", "1000000000", "--cout", "1000000000"], &["--cin and --cout", "GB", "fewer channels"]);
    refuse(&["--cin", "18446744073709551615", "--cout", "18446744073709551615"], &["--cin and --cout"]);
    assert_eq!(place.run(&["explain", "--coords", "cube.npy", "--op", "conv9"]).code, 2);
    assert_eq!(place.run(&["explain"]).code, 2);
}

#[test]
fn packed_weights_show_storage_ratio_and_route() {
    let place = place();
    let with = |more: &[&str]| explain(&place, &[&["--cin", "64", "--cout", "64"], more].concat());
    assert!(with(&[])["packed"].is_null());
    let four = with(&["--bits", "4"])["packed"].clone();
    assert_eq!((&four["route"], &four["group_size"]), (&Value::from("packed_panels"), &Value::from(64)));
    assert_eq!(four["storage_bytes"], 27 * 64 * (32 + 4));
    assert!((four["ratio_to_f16"].as_f64().unwrap() - 3.56).abs() < 0.01);
    let bytes = with(&["--bits", "8", "--activations", "int8"])["packed"].clone();
    assert_eq!(bytes["route"] == "packed_int8", lattice_cpu::multiplies_bytes());
    place.fail(&["explain", "--coords", "cube.npy", "--bits", "6"], &["4 or 8 bits, found 6"]);
}
