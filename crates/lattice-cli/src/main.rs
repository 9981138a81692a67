//! The `lattice` command: sparse-voxel networks on point clouds, from a terminal.
//!
//! Every command takes `--device` and `--json`; exit status is 0 on success, 1 on failure with one clear line, 2 on wrong usage.

mod commands;
mod device;
mod progress;
mod scene;
mod table;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Sparse-voxel and point-cloud deep learning: scans in, classes out, on CPU and GPU.
#[derive(Parser)]
#[command(name = "lattice", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(clap::Args, Clone, Debug)]
pub struct Shared {
    /// Where to compute: auto, cpu, cuda[:i], rocm[:i], vulkan[:i], metal[:i], webgpu[:i].
    #[arg(long, default_value = "auto", global = true)]
    device: String,
    /// One JSON document on stdout; progress and logs stay on stderr.
    #[arg(long, global = true)]
    json: bool,
    /// Threads of the CPU kernels; all cores by default. Results do not depend on it.
    #[arg(long, global = true)]
    threads: Option<usize>,
}

#[derive(Subcommand)]
enum Command {
    /// Segment a scan: load, voxelize, network, devoxelize, picture and report.
    Run(commands::run::Args),
    /// Points, box, voxels and neighbour histogram of a scan.
    Info(commands::info::Args),
    /// Backends compiled in and devices found.
    Devices(commands::devices::Args),
    /// Which route an operation takes on a workload, and why.
    Explain(commands::explain::Args),
    /// Make a labelled synthetic scene.
    Generate(commands::generate::Args),
    /// Measure operations and networks on public shapes.
    Bench(commands::bench::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(args) => commands::run::run(&args),
        Command::Info(args) => commands::info::run(&args),
        Command::Devices(args) => commands::devices::run(&args),
        Command::Explain(args) => commands::explain::run(&args),
        Command::Generate(args) => commands::generate::run(&args),
        Command::Bench(args) => commands::bench::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", one_line(&format!("{error:#}")));
            ExitCode::FAILURE
        }
    }
}

/// A reader that closed its end, such as `head`, is not a failure.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl Shared {
    /// Sets the thread pool up; call once, before any work.
    ///
    /// # Errors
    /// A thread count of 0.
    fn prepare(&self) -> anyhow::Result<()> {
        if let Some(threads) = self.threads {
            anyhow::ensure!(threads > 0, "--threads: expected at least 1, found 0");
            rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
        }
        Ok(())
    }
}
