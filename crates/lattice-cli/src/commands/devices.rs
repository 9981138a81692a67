//! `lattice devices`: backends compiled in and devices found.

use anyhow::Result;
use serde::Serialize;

use crate::{Shared, device::BACKENDS, table};

/// Arguments of `lattice devices`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    shared: Shared,
}

#[derive(Serialize)]
struct Report {
    version: &'static str,
    backends: Vec<Backend>,
    devices: Vec<Found>,
}

#[derive(Serialize)]
struct Backend {
    name: &'static str,
    compiled: bool,
    feature: Option<&'static str>,
}

#[derive(Serialize)]
struct Found {
    name: String,
    kind: &'static str,
    threads: usize,
    instruction_set: String,
    dtypes: Vec<&'static str>,
}

/// Runs the command.
///
/// # Errors
/// An instruction set forced by the environment that this CPU does not have.
pub fn run(args: &Args) -> Result<()> {
    args.shared.prepare()?;
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        backends: BACKENDS
            .iter()
            .map(|&name| Backend { name, compiled: name == "cpu", feature: (name != "cpu").then_some(name) })
            .collect(),
        devices: vec![Found {
            name: "cpu".into(),
            kind: "cpu",
            threads: rayon::current_num_threads(),
            instruction_set: format!("{:?}", lattice_cpu::Isa::from_env()?).to_lowercase(),
            dtypes: vec!["f64", "f32", "f16", "bf16"],
        }],
    };
    if args.shared.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    println!("lattice {}\n", report.version);
    let rows: Vec<Vec<String>> = report
        .backends
        .iter()
        .map(|b| vec![b.name.into(), if b.compiled { "yes".into() } else { "no, not in this version".into() }])
        .collect();
    println!("{}\n", table::render(&["backend", "compiled in"], &rows));
    let rows: Vec<Vec<String>> = report
        .devices
        .iter()
        .map(|d| vec![d.name.clone(), d.threads.to_string(), d.instruction_set.clone(), d.dtypes.join(" ")])
        .collect();
    println!("{}", table::render(&["device", "threads", "instruction set", "features may be"], &rows));
    Ok(())
}
