//! `lattice devices` and `--device`.
#![allow(clippy::unwrap_used, reason = "tests")]

mod command;

use command::{Place, Ran};

#[test]
fn the_cpu_is_always_there_and_each_backend_names_its_feature() {
    let report = Place::new().json(&["devices", "--json"]);
    let backends = report["backends"].as_array().unwrap();
    let names: Vec<&str> = backends.iter().map(|b| b["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["cuda", "metal", "rocm", "vulkan", "webgpu", "cpu"]);
    for backend in backends {
        let cpu = backend["name"] == "cpu";
        assert_eq!(backend["feature"].is_null(), cpu, "{backend}");
        assert!(!cpu || backend["compiled"] == true);
    }
    let cpu = report["devices"].as_array().unwrap().iter().find(|d| d["kind"] == "cpu").unwrap();
    assert!(cpu["threads"].as_u64().unwrap() > 0);
    assert!(!cpu["instruction_set"].as_str().unwrap().is_empty());
    assert!(cpu["memory_bytes"].as_f64().unwrap() > 0.0);
    let two = Place::new().json(&["devices", "--json", "--threads", "2"]);
    assert_eq!(two["devices"][0]["threads"], 2);
}

#[test]
fn the_text_is_a_table() {
    let text = Place::new().succeed(&["devices"]);
    for part in ["backend", "cuda", "cpu", "instruction set", "threads"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn every_command_refuses_a_backend_that_is_not_compiled_in() {
    let place = Place::new();
    let commands: [&[&str]; 6] = [
        &["run"],
        &["info", "scan.ply"],
        &["devices"],
        &["explain", "--coords", "c.npy"],
        &["generate", "--kind", "lidar", "--out", "scene.ply"],
        &["bench"],
    ];
    for command in commands {
        for device in ["cuda", "metal:1", "rocm:0", "vulkan", "webgpu"] {
            let feature = device.split(':').next().unwrap();
            place.fail(
                &[command, &["--device", device]].concat(),
                &["--device", "not compiled in", &format!("feature `{feature}`")],
            );
        }
    }
    assert!(place.names().is_empty());
}

#[test]
fn devices_that_are_none_are_refused() {
    let place = Place::new();
    for device in ["gpu", "", "cuda:x", "cpu:0", "cuda:-1", "CPU"] {
        place.fail(&["devices", "--device", device], &["--device", "expected"]);
    }
    for device in ["cpu", "auto"] {
        place.succeed(&["devices", "--device", device]);
    }
}

#[test]
fn an_instruction_set_that_is_not_there_is_refused_by_every_command() {
    let place = Place::new();
    place.write("scan.xyz", "0 0 0\n");
    for args in [&["devices"][..], &["info", "scan.xyz"], &["run", "scan.xyz"]] {
        let output = place.command(args).env("LATTICE_CPU_ISA", "quantum").output().unwrap();
        Ran::from(output).refused(args, &["LATTICE_CPU_ISA=quantum", "scalar"]);
    }
    let output = place.command(&["devices", "--json"]).env("LATTICE_CPU_ISA", "scalar").output().unwrap();
    assert!(String::from_utf8(output.stdout).unwrap().contains("\"scalar\""));
}
