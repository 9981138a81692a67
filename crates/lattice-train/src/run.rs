//! A whole run: training, validation, early stop, checkpoints, and the folder that keeps them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::Device;

use crate::lead::Lead;
use crate::rank::Rank;
use crate::rank::Stop;
use crate::ranks::Member;
use crate::run_folder::{CONFIG, lock, remove_halves};
use crate::{
    Checkpoint, History, LAST, Ranks, Result, SegmentationNet, StepReport, TrainConfig, TrainError, Trainer,
    Validation, build_model, ranks,
};

/// Scenes whose points weigh the classes, where weights follow from them.
const COUNTED_SCENES: usize = 32;

/// What a run tells while it goes on.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Steps were read from the device.
    Steps {
        /// All of them since the last time.
        reports: &'a [StepReport],
        /// Steps of the whole run.
        of: usize,
        /// Seconds a step.
        seconds: f64,
    },
    /// A validation scene was scored.
    Scored {
        /// Scenes that were scored.
        scenes: usize,
        /// Scenes in all.
        of: usize,
    },
    /// A validation ended; the checkpoint is on the disk.
    Validated {
        /// Its scores.
        validation: &'a Validation,
        /// Mean loss since the row before.
        loss: f64,
        /// Whether it is the best so far.
        best: bool,
    },
}

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All steps were done.
    Complete,
    /// The step that was asked for was reached before the end, or somebody asked for a pause ([`Stop`]).
    Paused,
    /// Validation did not improve any more.
    StoppedEarly,
}

/// A run in its folder.
///
/// # Run folder
/// `config.json` (everything the run depends on), `metrics.csv` and `metrics.json` (losses and scores by step), `curves.png`,
/// `best.safetensors` (weights of the best validation, with what `lattice run` needs to know), `last.safetensors` (the newest
/// checkpoint) and `previous.safetensors` (the one before).
pub struct Run {
    folder: PathBuf,
    config: Arc<TrainConfig>,
    /// The first leads. Empty where a rank's thread did not come back.
    ranks: Vec<Rank>,
    stop: Stop,
    /// Nobody else trains in the folder while this is open.
    _lock: Option<File>,
}

impl Run {
    /// A new run in a folder that has none yet.
    ///
    /// # Errors
    /// Options that train nothing; scenes that cannot be used; a folder that holds a run, is trained in, or cannot be written.
    pub fn start(folder: &Path, config: TrainConfig, device: &Device) -> Result<Self> {
        Self::start_on(folder, config, &Ranks::one(device))
    }

    /// [`start`](Self::start) on several devices, which share each batch: the same samples, the same gradient up to its rounding, the same
    /// checkpoints.
    ///
    /// # Errors
    /// As [`start`](Self::start); fewer scenes in a batch than devices.
    pub fn start_on(folder: &Path, config: TrainConfig, ranks: &Ranks) -> Result<Self> {
        config.check()?;
        if let Some(path) = Checkpoint::find(folder) {
            let what = "expected no run in the folder, found a checkpoint; resume it, or name another folder";
            return Err(TrainError::folder(path, what));
        }
        let mut run = Self::build(folder, config, ranks)?;
        std::fs::create_dir_all(folder).map_err(|e| {
            TrainError::folder(
                folder,
                format!("expected a folder that can be written to, found: {e}; name another one"),
            )
        })?;
        run._lock = Some(lock(folder)?);
        remove_halves(folder);
        let text = serde_json::to_string_pretty(&*run.config).expect("texts and numbers are always JSON");
        lattice_io::write_text(folder.join(CONFIG), &text)?;
        Ok(run)
    }

    /// The run of a folder, to go on from its newest checkpoint.
    ///
    /// # Errors
    /// A folder without a run, or that another process trains in; a configuration or checkpoint that is damaged or does not fit.
    pub fn resume(folder: &Path, device: &Device) -> Result<Self> {
        Self::resume_on(folder, &Ranks::one(device))
    }

    /// [`resume`](Self::resume) on several devices, whatever the run was on before.
    ///
    /// # Errors
    /// As [`resume`](Self::resume); fewer scenes in a batch than devices.
    pub fn resume_on(folder: &Path, ranks: &Ranks) -> Result<Self> {
        let path = folder.join(CONFIG);
        let text = std::fs::read_to_string(&path).map_err(|e| {
            TrainError::folder(
                &path,
                format!("expected the configuration of a run, found: {e}; name a run's folder"),
            )
        })?;
        let config: TrainConfig = serde_json::from_str(&text).map_err(|e| {
            TrainError::folder(
                &path,
                format!("expected the configuration of a run, found: {e}; restore the file"),
            )
        })?;
        config.check()?;
        let taken = lock(folder)?;
        remove_halves(folder);
        let Some(path) = Checkpoint::find(folder) else {
            let what = format!("expected a checkpoint {LAST} to resume from, found none; start a new run");
            return Err(TrainError::folder(folder, what));
        };
        let mut checkpoint = Checkpoint::load(&path)?;
        let damaged = |what: &str| {
            TrainError::checkpoint(&path, format!("expected {what}, found none; restore the file"))
        };
        let history = checkpoint.tensors.text("history").and_then(|text| serde_json::from_str(text).ok());
        let history = history.ok_or_else(|| damaged("the history of its run"))?;
        let saved =
            checkpoint.tensors.text("config").ok_or_else(|| damaged("the configuration of its run"))?;
        if serde_json::from_str::<TrainConfig>(saved).ok().as_ref() != Some(&config) {
            let what = format!(
                "expected the configuration of {CONFIG}, found that of another run; restore one of them"
            );
            return Err(TrainError::checkpoint(&path, what));
        }
        checkpoint.tensors.texts.clear();
        let mut run = Self::build(folder, config, ranks)?;
        for rank in &mut run.ranks {
            rank.trainer.restore(checkpoint.clone(), &path)?;
        }
        if let Some(lead) = run.ranks.first_mut().and_then(|rank| rank.lead.as_mut()) {
            lead.history = history;
        }
        run._lock = Some(taken);
        Ok(run)
    }

    fn build(folder: &Path, config: TrainConfig, ranks: &Ranks) -> Result<Self> {
        if config.batch < ranks.len() || ranks.is_empty() {
            let what = format!(
                "expected at least one scene a device, found {} for {} devices; take larger batches or fewer devices",
                config.batch,
                ranks.len()
            );
            return Err(TrainError::option("batch", what));
        }
        let (scenes, validation) = config.datasets()?;
        let classes = config.classes.len();
        let counts = match config.loss.class_weights.needs_counts() {
            true => scenes.class_counts(COUNTED_SCENES)?,
            false => vec![0; classes],
        };
        let weights = config.loss.class_weights.resolve(&counts)?;
        let (config, scenes) = (Arc::new(config), Arc::new(scenes));
        let mut validation = Some(validation);
        let stop = Stop::default();
        let made = ranks.members.iter().map(|(device, group)| {
            config.precision.check(device)?;
            let model = build_model(&config.model, classes, config.seed, &device.clone().autodiff())?;
            let trainer = Trainer::new(model, &config, weights.clone(), device)?;
            let trainer = match group {
                Some(group) => trainer.with_group(group.clone()),
                None => trainer,
            };
            let lead = validation.take().map(|validation| Lead {
                folder: folder.to_path_buf(),
                validation,
                history: History::default(),
                device: device.clone(),
            });
            Ok(Rank { trainer, config: config.clone(), scenes: scenes.clone(), lead, stop: stop.clone() })
        });
        let ranks = made.collect::<Result<Vec<_>>>()?;
        Ok(Self { folder: folder.to_path_buf(), ranks, config, stop, _lock: None })
    }

    /// Everything the run depends on.
    pub fn config(&self) -> &TrainConfig {
        &self.config
    }

    /// How it went so far.
    ///
    /// # Panics
    /// After [`train`](Self::train) on several devices lost a thread.
    pub fn history(&self) -> &History {
        let lead = self.first().lead.as_ref();
        &lead.expect("the first rank leads").history
    }

    /// The network in training, on the first device.
    ///
    /// # Panics
    /// As [`history`](Self::history).
    pub fn trainer(&self) -> &Trainer<SegmentationNet> {
        &self.first().trainer
    }

    /// The networks in training, in the order of the devices: their parameters are the same.
    pub fn trainers(&self) -> impl Iterator<Item = &Trainer<SegmentationNet>> {
        self.ranks.iter().map(|rank| &rank.trainer)
    }

    /// What asks this run to pause while it trains.
    pub fn stop(&self) -> Stop {
        self.stop.clone()
    }

    fn first(&self) -> &Rank {
        self.ranks.first().expect("a run whose threads came back has its ranks")
    }

    /// Trains up to step `until`, or to the end. Validates, and writes a checkpoint and the metrics, every `validate_every` steps and
    /// at the end. On several devices each has a thread of its own; the first alone validates, writes and tells.
    ///
    /// # Errors
    /// Scenes that cannot be read; [`TrainError::Diverged`], which leaves the last good checkpoint in place; a folder that cannot be
    /// written any more. Where one of several devices fails, its error ends the run on all of them, and the run goes on from its folder alone.
    pub fn train(&mut self, until: Option<usize>, events: &mut dyn FnMut(&Event<'_>)) -> Result<Outcome> {
        let outcome = match &mut self.ranks[..] {
            [rank] if rank.group().is_none() => rank.train(until, events),
            [] => {
                let what = "expected a thread a device, found that one did not come back; resume the run from its folder";
                Err(TrainError::folder(&self.folder, what))
            }
            _ => ranks::train(&mut self.ranks, until, ranks::GRACE, events),
        };
        self.stop.clear();
        outcome.map_err(|error| with_kept_state(error, &self.folder))
    }
}

/// Says which state is left on the disk.
fn with_kept_state(error: TrainError, folder: &Path) -> TrainError {
    match error {
        TrainError::Diverged { step, loss, norm, fix } => {
            let kept = match Checkpoint::find(folder) {
                Some(path) => format!("; the last good state is in {}", path.display()),
                None => "; no checkpoint was written yet".into(),
            };
            TrainError::Diverged { step, loss, norm, fix: fix + &kept }
        }
        other => other,
    }
}
