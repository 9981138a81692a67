//! `lattice devices`: backends compiled in and devices found.

use anyhow::Result;
use burn::tensor::Device;
use burn_lattice::DeviceInfo;
use burn_lattice::routes::DeviceClass;
use serde::Serialize;

use crate::commands::bench::FloatKind;
use crate::device::{BACKENDS, compiled, found};
use crate::{Shared, memory, output, table};

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
    /// What `--device` takes.
    name: String,
    kind: &'static str,
    /// Name that the system or the driver gives it.
    model: String,
    /// Of the CPU.
    threads: Option<usize>,
    /// Free memory of the CPU; drivers of GPUs do not tell.
    memory_bytes: Option<f64>,
    /// Of the CPU.
    instruction_set: Option<String>,
    /// Of a GPU: whether convolutions in f16 and bf16 run on matrix instructions.
    matrix_units: Option<bool>,
    dtypes: Vec<&'static str>,
}

fn names_of(info: &DeviceInfo) -> Vec<&'static str> {
    FloatKind::ALL.into_iter().filter(|kind| info.takes(kind.dtype())).map(FloatKind::name).collect()
}

/// The GPUs that the compiled backends find; several backends may find one card.
fn gpus() -> Vec<Found> {
    let mut all = Vec::new();
    for backend in BACKENDS.into_iter().filter(|&backend| backend != "cpu") {
        for (number, device) in found(backend).iter().enumerate() {
            let info = DeviceInfo::of(device);
            all.push(Found {
                name: if number == 0 { backend.into() } else { format!("{backend}:{number}") },
                kind: if info.software { "software" } else { "gpu" },
                model: info.name.clone(),
                threads: None,
                memory_bytes: None,
                instruction_set: None,
                matrix_units: match info.class {
                    DeviceClass::Gpu(units) => Some(units.any()),
                    DeviceClass::Cpu => None,
                },
                dtypes: names_of(&info),
            });
        }
    }
    all
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
    let cpu = Found {
        name: "cpu".into(),
        kind: "cpu",
        model: model(),
        memory_bytes: Some(memory::available_bytes()),
        threads: Some(rayon::current_num_threads()),
        instruction_set: Some(format!("{:?}", lattice_cpu::Isa::from_env()?).to_lowercase()),
        matrix_units: None,
        dtypes: names_of(&DeviceInfo::of(&Device::flex())),
    };
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        backends: BACKENDS
            .iter()
            .map(|&name| Backend { name, compiled: compiled(name), feature: (name != "cpu").then_some(name) })
            .collect(),
        devices: std::iter::once(cpu).chain(gpus()).collect(),
    };
    if args.shared.json {
        return output::json(&report);
    }
    let rows: Vec<Vec<String>> = report
        .backends
        .iter()
        .map(|b| {
            vec![b.name.into(), if b.compiled { "yes".into() } else { format!("no: --features {}", b.name) }]
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
                d.threads.map(|n| n.to_string()).unwrap_or_default(),
                d.memory_bytes.map(|bytes| format!("{:.1}", bytes / 1e9)).unwrap_or_default(),
                d.instruction_set.clone().unwrap_or_default(),
                d.matrix_units.map_or("", |has| if has { "yes" } else { "no" }).into(),
                d.dtypes.join(" "),
            ]
        })
        .collect();
    let devices = table::render(
        &["device", "model", "threads", "memory GB", "instruction set", "matrix units", "features may be"],
        &rows,
    );
    output::line(format!("lattice {}\n\n{backends}\n\n{devices}", report.version))
}
