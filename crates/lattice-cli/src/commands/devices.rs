//! `lattice devices`: backends compiled in and devices found.

use anyhow::Result;
use serde::Serialize;

use crate::{Shared, device::BACKENDS, memory, output, table};

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
    /// Name that the system gives the processor.
    model: String,
    threads: usize,
    /// Free memory.
    memory_bytes: f64,
    instruction_set: String,
    dtypes: Vec<&'static str>,
}

/// The processor's name, where the system tells.
fn model() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|l| l.starts_with("model name"));
    line.and_then(|l| l.split_once(':'))
        .map_or_else(|| std::env::consts::ARCH.into(), |(_, name)| name.trim().into())
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
            model: model(),
            memory_bytes: memory::available_bytes(),
            threads: rayon::current_num_threads(),
            instruction_set: format!("{:?}", lattice_cpu::Isa::from_env()?).to_lowercase(),
            dtypes: vec!["f64", "f32", "f16", "bf16"],
        }],
    };
    if args.shared.json {
        return output::json(&report);
    }
    let rows: Vec<Vec<String>> = report
        .backends
        .iter()
        .map(|b| {
            vec![b.name.into(), if b.compiled { "yes".into() } else { "no (not in this version)".into() }]
        })
        .collect();
    let backends = table::render(&["backend", "compiled in"], &rows);
    let rows: Vec<Vec<String>> = report
        .devices
        .iter()
        .map(|d| {
            vec![
                d.name.clone(),
                d.model.clone(),
                d.threads.to_string(),
                format!("{:.1}", d.memory_bytes / 1e9),
                d.instruction_set.clone(),
                d.dtypes.join(" "),
            ]
        })
        .collect();
    let devices = table::render(
        &["device", "model", "threads", "memory GB", "instruction set", "features may be"],
        &rows,
    );
    output::line(format!("lattice {}\n\n{backends}\n\n{devices}", report.version))
}
