//! A whole run: training, validation, early stop, checkpoints, and the folder that keeps them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use burn::tensor::Device;
use lattice_models::MinkUNet;

use crate::history::HistoryRow;
use crate::run_folder::{BEST, CONFIG, CURVES, METRICS_CSV, METRICS_JSON, lock, remove_halves};
use crate::{
    Batch, Checkpoint, ConfusionMatrix, Dataset, History, LAST, LabelledScene, Loader, Result, SampleOrder,
    Segmenter, StepReport, TrainConfig, TrainError, Trainer, Validation, WeightsInfo, build_model,
    make_batch, segment,
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
    /// The step that was asked for was reached before the end.
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
    config: TrainConfig,
    trainer: Trainer<MinkUNet>,
    train: Arc<Dataset>,
    validation: Dataset,
    history: History,
    device: Device,
    /// Nobody else trains in the folder while this is open.
    _lock: Option<File>,
}

impl Run {
    /// A new run in a folder that has none yet.
    ///
    /// # Errors
    /// Options that train nothing; scenes that cannot be used; a folder that holds a run, is trained in, or cannot be written.
    pub fn start(folder: &Path, config: TrainConfig, device: &Device) -> Result<Self> {
        config.check()?;
        if let Some(path) = Checkpoint::find(folder) {
            let what = "expected no run in the folder, found a checkpoint; resume it, or name another folder";
            return Err(TrainError::folder(path, what));
        }
        let mut run = Self::build(folder, config, device)?;
        std::fs::create_dir_all(folder).map_err(|e| {
            TrainError::folder(
                folder,
                format!("expected a folder that can be written to, found: {e}; name another one"),
            )
        })?;
        run._lock = Some(lock(folder)?);
        remove_halves(folder);
        let text = serde_json::to_string_pretty(&run.config).expect("texts and numbers are always JSON");
        lattice_io::write_text(folder.join(CONFIG), &text)?;
        Ok(run)
    }

    /// The run of a folder, to go on from its newest checkpoint.
    ///
    /// # Errors
    /// A folder without a run, or that another process trains in; a configuration or checkpoint that is damaged or does not fit.
    pub fn resume(folder: &Path, device: &Device) -> Result<Self> {
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
        let mut run = Self::build(folder, config, device)?;
        run.trainer.restore(checkpoint, &path)?;
        run.history = history;
        run._lock = Some(taken);
        Ok(run)
    }

    fn build(folder: &Path, config: TrainConfig, device: &Device) -> Result<Self> {
        config.precision.check(device)?;
        let (train, validation) = config.datasets()?;
        let classes = config.classes.len();
        let counts = match config.loss.class_weights.needs_counts() {
            true => train.class_counts(COUNTED_SCENES)?,
            false => vec![0; classes],
        };
        let weights = config.loss.class_weights.resolve(&counts)?;
        let model = build_model(&config.model, classes, config.seed, &device.clone().autodiff())?;
        let trainer = Trainer::new(model, &config, weights, device)?;
        Ok(Self {
            folder: folder.to_path_buf(),
            trainer,
            train: Arc::new(train),
            validation,
            history: History::default(),
            device: device.clone(),
            config,
            _lock: None,
        })
    }

    /// Everything the run depends on.
    pub fn config(&self) -> &TrainConfig {
        &self.config
    }

    /// How it went so far.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// The network in training.
    pub fn trainer(&self) -> &Trainer<MinkUNet> {
        &self.trainer
    }

    /// Trains up to step `until`, or to the end. Validates, and writes a checkpoint and the metrics, every `validate_every` steps and
    /// at the end.
    ///
    /// # Errors
    /// Scenes that cannot be read; [`TrainError::Diverged`], which leaves the last good checkpoint in place; a folder that cannot be
    /// written any more.
    pub fn train(&mut self, until: Option<usize>, events: &mut dyn FnMut(&Event<'_>)) -> Result<Outcome> {
        let steps = self.config.steps;
        let until = until.unwrap_or(steps).min(steps);
        let per_step = self.config.accumulate as u64;
        let mut loader = self.loader(until);
        let mut since: Vec<StepReport> = Vec::new();
        let mut clock = Instant::now();
        while self.trainer.steps_done() < until {
            if self.stops_early() {
                return Ok(Outcome::StoppedEarly);
            }
            let batches = (0..per_step).map_while(|_| loader.next_batch()).collect::<Result<Vec<_>>>()?;
            self.trainer.step(&batches)?;
            let done = self.trainer.steps_done();
            let validates = done.is_multiple_of(self.config.validate_every) || done == steps;
            let ends = done == until;
            if done.is_multiple_of(self.config.report_every) || validates || ends {
                let reports = self.trainer.drain().map_err(|e| self.with_kept_state(e))?;
                let seconds = clock.elapsed().as_secs_f64() / reports.len().max(1) as f64;
                events(&Event::Steps { reports: &reports, of: steps, seconds });
                since.extend(reports);
                self.history.rows.extend(row(&since));
                let loss = self.history.rows.last().map_or(0.0, |row| row.loss);
                since.clear();
                if validates {
                    self.validate(loss, events)?;
                } else if ends {
                    self.save()?;
                }
                clock = Instant::now();
            }
        }
        Ok(match (until == steps, self.stops_early()) {
            (true, _) => Outcome::Complete,
            (false, true) => Outcome::StoppedEarly,
            (false, false) => Outcome::Paused,
        })
    }

    fn stops_early(&self) -> bool {
        self.config.patience.is_some_and(|patience| self.history.since_best >= patience.max(1))
    }

    fn loader(&self, until: usize) -> Loader {
        let config = self.config.clone();
        let train = self.train.clone();
        let per_step = config.accumulate as u64;
        let [first, end] = [self.trainer.steps_done(), until].map(|step| step as u64 * per_step);
        let threads = config.threads;
        Loader::start(first, end, threads, move |number| training_batch(&config, &train, number))
    }

    /// Says which state is left on the disk.
    fn with_kept_state(&self, error: TrainError) -> TrainError {
        match error {
            TrainError::Diverged { step, loss, norm, fix } => {
                let kept = match Checkpoint::find(&self.folder) {
                    Some(path) => format!("; the last good state is in {}", path.display()),
                    None => "; no checkpoint was written yet".into(),
                };
                TrainError::Diverged { step, loss, norm, fix: fix + &kept }
            }
            other => other,
        }
    }

    fn validate(&mut self, loss: f64, events: &mut dyn FnMut(&Event<'_>)) -> Result<()> {
        let step = self.trainer.steps_done();
        let (model, mut file) = self.trainer.trained();
        let mut progress = |scenes, of| events(&Event::Scored { scenes, of });
        let voxel_size = self.config.voxel_size as f32;
        let matrix = evaluate(&model, &self.validation, voxel_size, &self.device, &mut progress)?;
        let validation = Validation { step, scores: matrix.scores() };
        if let Some(row) = self.history.rows.last_mut() {
            row.validation = Some(validation.clone());
        }
        let best = self.history.validate(validation.clone());
        if best {
            WeightsInfo::of(&self.config, step, Some(validation.scores.miou)).write_to(&mut file);
            file.write(&self.folder.join(BEST))?;
        }
        self.save()?;
        events(&Event::Validated { validation: &validation, loss, best });
        Ok(())
    }

    /// Writes the checkpoint, then what is made from it.
    fn save(&self) -> Result<()> {
        let json = |value: serde_json::Result<String>| value.expect("texts and numbers are always JSON");
        let mut checkpoint = self.trainer.checkpoint();
        checkpoint.tensors.insert_text("config", json(serde_json::to_string(&self.config)));
        checkpoint.tensors.insert_text("history", json(serde_json::to_string(&self.history)));
        checkpoint.save(&self.folder)?;
        let file = |name: &str| self.folder.join(name);
        lattice_io::write_text(file(METRICS_CSV), &self.history.to_csv(&self.config.classes))?;
        lattice_io::write_text(file(METRICS_JSON), &json(serde_json::to_string_pretty(&self.history)))?;
        self.draw(&file(CURVES))
    }

    fn draw(&self, path: &Path) -> Result<()> {
        let rows = &self.history.rows;
        let loss = rows.iter().map(|row| [row.step as f64, row.loss]).collect();
        let scored = rows.iter().filter_map(|row| row.validation.as_ref());
        let miou = scored.map(|v| [v.step as f64, v.scores.miou]).collect();
        let panels = [
            lattice_io::Curve { name: "training loss".into(), points: loss, from_zero: true },
            lattice_io::Curve { name: "validation mIoU".into(), points: miou, from_zero: true },
        ];
        Ok(lattice_io::curves_png(path, "step", &panels)?)
    }
}

/// The mean of steps as a row; `None` where there are none.
fn row(reports: &[StepReport]) -> Option<HistoryRow> {
    let last = reports.last()?;
    let mean = |values: &mut dyn Iterator<Item = f32>| {
        let (sum, n) = values.fold((0.0, 0usize), |(sum, n), v| (sum + f64::from(v), n + 1));
        sum / n.max(1) as f64
    };
    Some(HistoryRow {
        step: last.step,
        rate: last.rate,
        loss: mean(&mut reports.iter().map(|r| r.loss)),
        norm: mean(&mut reports.iter().filter(|r| !r.skipped).map(|r| r.norm)),
        scale: last.scale,
        skipped: reports.iter().filter(|r| r.skipped).count(),
        validation: None,
    })
}

/// Batch `number` of a run: its scenes, changed and voxelized.
fn training_batch(config: &TrainConfig, scenes: &Dataset, number: u64) -> Result<Batch> {
    let order = SampleOrder::new(config.seed, scenes.len());
    let first = number * config.batch as u64;
    let changed = (first..first + config.batch as u64).map(|sample| {
        let (index, seed) = order.at(sample);
        let scene = scenes.scene(index)?;
        let partner = config.augmentation.mixes(seed).then(|| scenes.scene(order.partner(sample, index)));
        Ok(config.augmentation.apply(&scene, partner.transpose()?.as_deref(), seed))
    });
    let changed = changed.collect::<Result<Vec<_>>>()?;
    let scenes: Vec<&LabelledScene> = changed.iter().collect();
    make_batch(&scenes, config.voxel_size as f32, config.classes.len()).map_err(|e| {
        let names: Vec<&str> = scenes.iter().map(|scene| scene.name.as_str()).collect();
        e.in_scene(&names.join(" and "))
    })
}

/// Scores a network, on a device without autodiff, at the points of scenes; `progress` hears of scenes done and in all.
///
/// # Errors
/// Scenes that cannot be read; scores that are not finite.
pub fn evaluate<M: Segmenter>(
    model: &M,
    scenes: &Dataset,
    voxel_size: f32,
    device: &Device,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<ConfusionMatrix> {
    let mut matrix = ConfusionMatrix::new(scenes.classes());
    for index in 0..scenes.len() {
        let scene = scenes.scene(index)?;
        let found =
            segment(model, &scene.positions, voxel_size, device).map_err(|e| e.in_scene(&scene.name))?;
        matrix.add(&scene.labels, &found.classes);
        progress(index + 1, scenes.len());
    }
    Ok(matrix)
}
