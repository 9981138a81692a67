//! `lattice bench`: JSON lines with the contract's keys.
#![allow(clippy::unwrap_used, reason = "tests")]

mod command;

use command::{Place, Ran, cube};
use serde_json::Value;

const KEYS: [&str; 17] = [
    "lib",
    "version",
    "variant",
    "device",
    "threads",
    "workload",
    "op",
    "cin",
    "cout",
    "dtype",
    "ms_median",
    "ms_min",
    "rows",
    "n_out",
    "pairs",
    "tflops",
    "route",
];

fn check(line: &Value) {
    for key in KEYS {
        assert!(line.get(key).is_some(), "{key} in {line}");
    }
    assert_eq!(line["lib"], "burn-lattice");
    assert_eq!(line["device"], "cpu");
    assert!(["f16", "bf16", "f32", "tf32", "i32"].contains(&line["dtype"].as_str().unwrap()), "{line}");
    let (median, min) = (line["ms_median"].as_f64().unwrap(), line["ms_min"].as_f64().unwrap());
    assert!(0.0 < min && min <= median, "{line}");
}

#[test]
fn smoke_prints_json_lines_with_the_contract_s_keys() {
    let place = Place::new();
    let lines = place.json_lines(&[
        "bench",
        "--suite",
        "smoke",
        "--ops",
        "conv subm_k3",
        "pool sum",
        "--repeats",
        "2",
        "--json",
    ]);
    assert!(!lines.is_empty());
    for line in &lines {
        check(line);
        for key in ["case", "group", "mode", "params", "p90_ms", "workload_size", "units"] {
            assert!(line.get(key).is_some(), "{key} in {line}");
        }
    }
    let modes: Vec<&str> = lines.iter().map(|l| l["mode"].as_str().unwrap()).collect();
    for mode in ["cold_op", "hot_op", "backward"] {
        assert!(modes.contains(&mode), "{mode}");
    }
    assert!(place.names().is_empty(), "the bench writes no files");
}

#[test]
fn a_case_is_found_by_the_name_of_its_json_line() {
    let lines = Place::new().json_lines(&["bench", "--ops", "conv.subm_k3", "--repeats", "1", "--json"]);
    assert!(!lines.is_empty() && lines.iter().all(|l| l["op"] == "conv.subm_k3"));
}

#[test]
fn peers_run_on_coordinates_of_a_file() {
    let place = Place::new();
    place.write("cube.npy", cube());
    let args = [
        "bench",
        "--suite",
        "peers",
        "--coords",
        "cube.npy",
        "--channels",
        "8x8",
        "--repeats",
        "1",
        "--warmup",
        "0",
        "--json",
    ];
    let lines = place
        .json_lines(&[&args[..], &["--ops", "map", "subm3", "k2s2", "k3s2", "--dtype", "f32,bf16"]].concat());
    for line in &lines {
        check(line);
        assert_eq!(line["workload"], "cube");
        assert_eq!(line["rows"], 125);
    }
    let of = |op: &str| lines.iter().filter(|l| l["op"] == op).collect::<Vec<_>>();
    assert_eq!(of("map_subm3").len(), 1);
    assert_eq!(of("map_subm3")[0]["dtype"], "i32");
    assert_eq!(of("map_subm3")[0]["pairs"], 2197);
    assert_eq!(of("subm3_fwd").len(), 2, "one a dtype");
    assert_eq!(
        (of("subm3_fwd")[0]["cin"].as_u64(), of("subm3_fwd")[0]["pairs"].as_u64()),
        (Some(8), Some(2197))
    );
    assert!(of("subm3_fwd")[0]["tflops"].as_f64().unwrap() > 0.0);
    for op in [
        "map_subm3_train",
        "subm3_fwd_bwd",
        "k2s2_with_map",
        "k3s2_with_map",
        "pool_max_k2s2",
        "pool_avg_k2s2",
        "pool_max_k2s2_with_map",
        "pool_avg_k2s2_with_map",
    ] {
        assert!(!of(op).is_empty(), "{op}");
    }
    assert_eq!(of("k2s2_with_map")[0]["n_out"], 27);
}

#[test]
fn a_whole_operation_name_means_itself_alone() {
    let place = Place::new();
    place.write("cube.npy", cube());
    let list = |op: &str| {
        place.succeed(&["bench", "--suite", "peers", "--coords", "cube.npy", "--ops", op, "--list"])
    };
    assert!(list("subm3_fwd").lines().all(|l| !l.contains("bwd")));
    assert!(list("pool_max_k2s2").lines().count() == 1);
    assert_eq!(list("map_subm3").lines().count(), 1);
    assert_eq!(list("map").lines().filter(|l| l.contains("map_subm3")).count(), 2);
}

#[test]
fn networks_run_on_coordinates_of_a_file() {
    let place = Place::new();
    place.write("cube.npy", cube());
    let args = [
        "bench",
        "--suite",
        "peers",
        "--coords",
        "cube.npy",
        "--ops",
        "minkunet",
        "--repeats",
        "1",
        "--warmup",
        "0",
        "--json",
    ];
    let lines = place.json_lines(&args);
    let ops: Vec<&str> = lines.iter().map(|l| l["op"].as_str().unwrap()).collect();
    assert_eq!(ops, ["minkunet_fwd_with_maps", "minkunet_train_with_maps"]);
    lines.iter().for_each(check);
}

#[test]
fn points_of_a_scan_are_voxelized() {
    let place = Place::new();
    place.write("scan.xyz", command::terrain(300));
    place.write("cube.npy", cube());
    let args = [
        "bench",
        "--suite",
        "peers",
        "--coords",
        "cube.npy",
        "--points",
        "scan.xyz",
        "--ops",
        "voxelize_mean",
        "--repeats",
        "1",
        "--json",
    ];
    let lines = place.json_lines(&args);
    assert_eq!(lines.len(), 2);
    for line in &lines {
        check(line);
        assert_eq!(line["rows"], 300);
    }
}

#[test]
fn a_table_is_printed_without_json() {
    let text = Place::new().succeed(&["bench", "--ops", "relu", "--repeats", "1"]);
    assert!(
        text.contains("ms median") && text.contains("feature.relu") && text.contains("on cpu with"),
        "{text}"
    );
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    let place = Place::new();
    place.write("cube.npy", cube());
    place.fail(&["bench", "--ops", "teleport"], &["--ops teleport", "--list"]);
    place.fail(&["bench", "--coords", "cube.npy"], &["--coords", "--suite peers"]);
    for channels in ["16", "0x8", "axb", "16x16x16"] {
        place.fail(&["bench", "--channels", channels], &["--channels", "16x32"]);
    }
    place.fail(&["bench", "--repeats", "0"], &["--repeats: expected 1 to"]);
    place.fail(&["bench", "--repeats", "18446744073709551615"], &["--repeats: expected 1 to"]);
    place.fail(&["bench", "--warmup", "18446744073709551615"], &["--warmup: expected 0 to"]);
    place.fail(
        &["bench", "--ops", "conv.subm_k3", "--channels", "9999999x9999999"],
        &["bench case", "--channels", "GB"],
    );
    let peers = ["bench", "--suite", "peers", "--coords", "cube.npy"];
    place.fail(
        &[&peers[..], &["--ops", "subm3_fwd", "--channels", "9999999x9999999"]].concat(),
        &["--channels", "GB"],
    );
    place.fail(&["bench", "--suite", "peers", "--coords", "nowhere.npy"], &["nowhere.npy", "no such file"]);
    assert_eq!(place.run(&["bench", "--suite", "enormous"]).code, 2);
    assert_eq!(place.run(&["bench", "--dtype", "int4"]).code, 2);
    let args = [&peers[..], &["--ops", "minkunet_fwd"]].concat();
    let output = place.command(&args).env("LATTICE_ROUTE", "sparse_conv=depthwise_rows").output().unwrap();
    Ran::from(output).refused(&args, &["depthwise_rows", "does not fit"]);
}
