//! The `lattice` command: sparse-voxel networks on point clouds, from a terminal.
//!
//! Every command takes `--device` and `--json`; exit status is 0 on success, 1 on failure with one clear line, 2 on wrong usage.

#[cfg(any(feature = "cuda", feature = "vulkan", feature = "metal", feature = "webgpu", feature = "rocm"))]
mod allocator;
mod commands;
mod device;
mod features;
mod folder;
mod memory;
mod output;
mod progress;
mod routes;
mod scene;
mod segmenter;
mod shipped;
mod sweep;
mod table;
mod weights;

use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;

use clap::{Parser, Subcommand};

/// Shown under `lattice --help`.
const EXAMPLES: &str = "Examples:
  lattice run scan.ply --out result      classes, a picture and a report of a scan
  lattice info scan.bin --voxel-size 0.05 0.1
  lattice bench --suite smoke --ops subm_k3
  lattice quantize shipped --bits 8 --out small.safetensors
  lattice import net.pth --from minkowski --model minkunet34c --out net.safetensors
  lattice artifact run net --inputs inputs.safetensors --out outputs.safetensors";

/// Sparse-voxel and point-cloud deep learning: scans in, classes out, on CPU and GPU.
#[derive(Parser)]
#[command(name = "lattice", bin_name = "lattice", version, max_term_width = 110,  after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(clap::Args, Clone, Debug)]
pub struct Shared {
    /// Where to compute: auto, cpu, cuda, rocm, vulkan, metal or webgpu; with a number among several, as in cuda:1.
    #[arg(long, default_value = "auto", global = true)]
    device: String,
    /// JSON on stdout, one document (bench: one a line); progress and logs stay on stderr.
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
    /// Train a network on labelled scenes: files, SemanticKITTI sequences or generated ones.
    Train(Box<commands::train::Args>),
    /// Score trained weights on labelled scenes.
    Eval(commands::eval::Args),
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
    /// Turn a checkpoint of another library into weights of a network here.
    Import(commands::import::Args),
    /// Write a scan's voxels, and attributes, in few bits.
    Compress(commands::compress::Args),
    /// Read a compressed scan back into a point file.
    Decompress(commands::decompress::Args),
    /// Trained networks as a text graph and a weight file: inspect, verify, run, export.
    Artifact(commands::artifact::Args),
    /// Pack a network's weights into 4 or 8 bits, and report size, errors, scores and speed.
    Quantize(Box<commands::quantize::Args>),
}

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(note_panic));
    let command = Cli::parse().command;
    // Advice: where the allocator does not take it, large outputs are only slower.
    lattice_cpu::keep_pages();
    // Likewise: kernels that cannot be kept are compiled anew.
    burn_lattice::keep_kernels();
    // Threads of a command hand tensors to each other.
    burn_lattice::share_one_stream();
    let work = || match command {
        Command::Run(args) => commands::run::run(&args),
        Command::Train(args) => commands::train::run(&args),
        Command::Eval(args) => commands::eval::run(&args),
        Command::Info(args) => commands::info::run(&args),
        Command::Devices(args) => commands::devices::run(&args),
        Command::Explain(args) => commands::explain::run(&args),
        Command::Generate(args) => commands::generate::run(&args),
        Command::Bench(args) => commands::bench::run(&args),
        Command::Import(args) => commands::import::run(&args),
        Command::Compress(args) => commands::compress::run(&args),
        Command::Decompress(args) => commands::decompress::run(&args),
        Command::Artifact(args) => commands::artifact::run(&args),
        Command::Quantize(args) => commands::quantize::run(&args),
    };
    let text = match catch_unwind(AssertUnwindSafe(work)) {
        // First, since anything else may come of it.
        _ if let Some(what) = burn_lattice::lost_work() => {
            format!(
                "the device gave up work that it was asked for ({what}): do not trust what this run gave; run it again"
            )
        }
        Ok(Ok(())) => return ExitCode::SUCCESS,
        Ok(Err(error)) if is_closed_pipe(&error) => return ExitCode::SUCCESS,
        Ok(Err(error)) => chain(&error),
        Err(_) => {
            let fault = PANIC.lock().ok().and_then(|mut text| text.take()).unwrap_or_default();
            format!("fault inside lattice: {fault}; please report it with the command and its input")
        }
    };
    eprintln!("error: {}", one_line(&text));
    ExitCode::FAILURE
}

/// The first panic's text and place.
static PANIC: Mutex<Option<String>> = Mutex::new(None);

/// Keeps a panic for the one line that the user gets in place of a trace.
fn note_panic(info: &PanicHookInfo<'_>) {
    let text = info.payload_as_str().unwrap_or_default();
    let place = info.location().map(|l| format!(" ({}:{})", l.file(), l.line())).unwrap_or_default();
    if let Ok(mut kept) = PANIC.lock() {
        kept.get_or_insert(format!("{text}{place}"));
    }
}

/// A reader that closed its end, such as `head`, is not a failure.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
}

/// An error and its causes; a cause that the text before it quotes is not repeated.
fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl Shared {
    /// Most threads that `--threads` takes.
    const MAX_THREADS: usize = 1024;

    /// Sets the thread pool up, checks what the environment forces and finds the device; call once, before any work.
    ///
    /// # Errors
    /// A thread count of 0 or above 1,024, a device that is not there, an instruction set that this CPU does not have.
    fn prepare(&self) -> anyhow::Result<device::Chosen> {
        let chosen = device::choose(&self.device)?;
        self.set_up()?;
        Ok(chosen)
    }

    /// [`prepare`](Self::prepare) for several devices, or for the one of `--device` where none are named.
    ///
    /// # Errors
    /// As there, and what [`device::choose_several`] refuses.
    fn prepare_several(&self, devices: Option<&[String]>) -> anyhow::Result<Vec<device::Chosen>> {
        let Some(devices) = devices else { return Ok(vec![self.prepare()?]) };
        let chosen = device::choose_several(devices)?;
        self.set_up()?;
        Ok(chosen)
    }

    fn set_up(&self) -> anyhow::Result<()> {
        lattice_cpu::Isa::from_env()?;
        if let Some(threads) = self.threads {
            let most = Self::MAX_THREADS;
            anyhow::ensure!(
                (1..=most).contains(&threads),
                "--threads: expected 1 to {most}, found {threads}"
            );
            rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Context, anyhow};
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn causes_that_are_quoted_are_not_repeated() {
        let twice: anyhow::Error = Err::<(), _>(anyhow!("disk full"))
            .context("cannot write: disk full; free some")
            .expect_err("is one");
        assert_eq!(chain(&twice), "cannot write: disk full; free some");
        let once = Err::<(), _>(anyhow!("disk full")).context("cannot write").expect_err("is one");
        assert_eq!(chain(&once), "cannot write: disk full");
        assert_eq!(one_line("a\n  b\tc"), "a b c");
    }
}
