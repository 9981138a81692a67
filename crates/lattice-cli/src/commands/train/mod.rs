//! `lattice train`: a network learns labelled scenes.

#[cfg(feature = "dashboard")]
mod dashboard;
mod options;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use burn::tensor::{DType, Device};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use lattice_train::{BEST, Event, Outcome, Ranks, Run, Validation};
use serde_json::json;

use crate::{Shared, output, routes, table};

pub use options::label_map;

/// Shown under `lattice train --help`.
const EXAMPLES: &str = "Examples:
  lattice train --steps 600 --out result            a small network on generated lidar sweeps
  lattice train scans --classes ground,tree,house   files with a `label` attribute: a tenth is held out
  lattice train dataset/sequences --steps 20000     SemanticKITTI sequences, as the seven lidar classes
  lattice train --devices cuda:0,1 --batch 8        each batch over two GPUs, four scenes each
  lattice train --resume result                     goes on where the run in that folder stopped";

/// Arguments of `lattice train`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    data: options::DataArgs,
    #[command(flatten)]
    learn: options::LearnArgs,
    #[command(flatten)]
    change: options::ChangeArgs,
    /// Folder of the run: config.json, metrics.csv, metrics.json, curves.png, best.safetensors and the checkpoints.
    #[arg(long, default_value = "training")]
    out: PathBuf,
    /// Goes on with the run of this folder, with its own configuration: of the options of a run --devices and --stop-at alone go with it.
    #[arg(long, value_name = "FOLDER", conflicts_with = "out", conflicts_with_all = options::OF_A_NEW_RUN)]
    resume: Option<PathBuf>,
    /// CUDA devices that share each batch, as in cuda:0,1; they are connected by NCCL (libnccl). A run may go on with other devices.
    #[arg(long, value_delimiter = ',', conflicts_with = "device")]
    devices: Option<Vec<String>>,
    /// Stops after this step with a checkpoint; the schedule is that of the whole run.
    #[arg(long, value_name = "STEP")]
    stop_at: Option<usize>,
    /// A bar and lines on a terminal, also where the build has Burn's dashboard (feature `dashboard`); what pipes always get.
    #[arg(long)]
    plain: bool,
    #[command(flatten)]
    shared: Shared,
}

/// Runs the command.
///
/// # Errors
/// Options, scenes or folders that cannot be used; a run that diverges; a device that is not there.
pub fn run(args: &Args) -> Result<()> {
    let chosen = args.shared.prepare_several(args.devices.as_deref())?;
    let devices: Vec<Device> = chosen.iter().map(|chosen| chosen.device.clone()).collect();
    for device in &devices {
        routes::check_for_networks(device, DType::F32)?;
    }
    let ranks = Ranks::over_devices(&devices)?;
    let device = chosen.iter().map(|chosen| &chosen.name[..]).collect::<Vec<_>>().join(",");
    let clock = Instant::now();
    let (folder, mut run) = match &args.resume {
        Some(folder) => (folder, Run::resume_on(folder, &ranks)?),
        None => {
            let config = options::config(&args.data, &args.learn, &args.change)?;
            (&args.out, Run::start_on(&args.out, config, &ranks)?)
        }
    };
    let config = run.config().clone();
    let parameters = run.trainer().layout().len();
    let lines = Lines::new(&config, args.shared.json);
    lines.say(&format!(
        "{} ({} parameters) on {}, voxels of {}: {} steps of {} scenes into {}",
        config.model,
        table::count(parameters),
        device,
        table::length(config.voxel_size),
        table::count(config.steps),
        config.batch * config.accumulate,
        folder.display()
    ))?;
    lines.bar.set_position(run.trainer().steps_done() as u64);
    let mut dashboard = match args.plain || args.shared.json {
        true => None,
        false => dashboard::Dashboard::open(&config, run.trainer().steps_done(), run.stop()),
    };
    let mut printed = Ok(());
    let mut pace = Vec::new();
    let outcome = run.train(args.stop_at, &mut |event| {
        if let Event::Steps { seconds, .. } = event {
            pace.push(*seconds);
        }
        if let Some(dashboard) = &mut dashboard {
            dashboard.tell(event);
            return;
        }
        if printed.is_ok() {
            printed = lines.tell(event);
        }
    });
    // The terminal is given back before anything is written to it.
    if let Some(dashboard) = dashboard {
        dashboard.close();
    }
    lines.bar.finish_and_clear();
    let outcome = outcome?;
    printed?;
    let best = run.history().best.clone();
    let seconds = clock.elapsed().as_secs_f64();
    // The first steps compile kernels: the median of the reports does not see them.
    pace.sort_by(f64::total_cmp);
    let per_step = pace.get(pace.len() / 2).copied();
    let per_second = per_step.map(|seconds| (config.batch * config.accumulate) as f64 / seconds);
    let ended = match outcome {
        Outcome::Complete => "complete",
        Outcome::Paused => "paused",
        _ => "stopped early",
    };
    if args.shared.json {
        return output::json(&json!({
            "folder": folder.display().to_string(), "outcome": ended, "device": device, "parameters": parameters,
            "seconds_per_step": per_step, "scenes_per_second": per_second, "steps": run.trainer().steps_done(), "seconds": seconds, "classes": config.classes, "best": best,
            "loss": run.history().rows.last().map(|row| row.loss),
        }));
    }
    let mut text = format!("{ended} at step {} after {}", run.trainer().steps_done(), duration(seconds));
    if let Some(best) = best {
        text += &format!(
            "; best mIoU {:.1} % at step {} in {}",
            100.0 * best.scores.miou,
            best.step,
            folder.join(BEST).display()
        );
    }
    output::line(text)
}

/// What a build without the dashboard has in its place.
#[cfg(not(feature = "dashboard"))]
mod dashboard {
    use lattice_train::{Event, Stop, TrainConfig};

    /// There is none.
    pub enum Dashboard {}

    impl Dashboard {
        /// `None`.
        pub fn open(_: &TrainConfig, _: usize, _: Stop) -> Option<Self> {
            None
        }

        /// Never called.
        pub fn tell(&mut self, _: &Event<'_>) {
            match *self {}
        }

        /// Never called.
        pub fn close(self) {
            match self {}
        }
    }
}

/// Minutes and seconds.
fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    if whole < 60 { format!("{seconds:.1} s") } else { format!("{} min {} s", whole / 60, whole % 60) }
}

/// A bar on a terminal; a line a validation, unless one document is asked for.
struct Lines {
    bar: ProgressBar,
    classes: Vec<String>,
    silent: bool,
}

impl Lines {
    fn new(config: &lattice_train::TrainConfig, silent: bool) -> Self {
        let bar = ProgressBar::with_draw_target(Some(config.steps as u64), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("[{pos}/{len}] {wide_bar} {msg} {elapsed} (eta {eta})");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self { bar, classes: config.classes.clone(), silent }
    }

    fn say(&self, text: &str) -> Result<()> {
        if self.silent { Ok(()) } else { self.bar.suspend(|| output::line(text)) }
    }

    fn tell(&self, event: &Event<'_>) -> Result<()> {
        match event {
            Event::Steps { reports, seconds, .. } => {
                if let Some(last) = reports.last() {
                    self.bar.set_position(last.step as u64);
                    let (loss, rate) = (last.loss, last.rate);
                    self.bar.set_message(format!("loss {loss:.3}  rate {rate:.1e}  {seconds:.2} s/step"));
                }
                Ok(())
            }
            Event::Scored { scenes, of } => {
                self.bar.set_message(format!("validation {scenes}/{of}"));
                Ok(())
            }
            Event::Validated { validation, loss, best } => {
                self.say(&self.validated(validation, *loss, *best))
            }
            _ => Ok(()),
        }
    }

    fn validated(&self, Validation { step, scores }: &Validation, loss: f64, best: bool) -> String {
        let percent = |share: &Option<f64>| share.map_or("-".into(), |v| format!("{:.0}", 100.0 * v));
        let each: Vec<String> = self
            .classes
            .iter()
            .zip(&scores.iou)
            .map(|(name, iou)| format!("{name} {}", percent(iou)))
            .collect();
        format!(
            "step {step:>6}  loss {loss:.3}  mIoU {:>4.1}  accuracy {:>4.1}  [{}]{}",
            100.0 * scores.miou,
            100.0 * scores.accuracy,
            each.join(", "),
            if best { "  best" } else { "" }
        )
    }
}
