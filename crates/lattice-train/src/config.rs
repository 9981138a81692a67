//! Everything that a run depends on, as `config.json` keeps it.

use std::path::PathBuf;

use burn::tensor::{DType, Device, FloatDType};
use burn_lattice::DeviceInfo;
use lattice_scenes::{SceneKind, SceneOptions};
use serde::{Deserialize, Serialize};

use crate::{
    Augmentation, Dataset, GeneratedScenes, LabelMap, LossConfig, OptimizerConfig, Result, SceneFiles,
    Schedule, TrainError,
};

/// Element type that convolutions compute in; parameters and their sums stay in f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Single precision.
    #[default]
    F32,
    /// Half precision with loss scaling.
    F16,
    /// Half precision with the range of f32: no loss scaling.
    Bf16,
}

impl Precision {
    /// Its element type.
    pub fn dtype(self) -> FloatDType {
        match self {
            Self::F32 => FloatDType::F32,
            Self::F16 => FloatDType::F16,
            Self::Bf16 => FloatDType::BF16,
        }
    }

    /// Refuses a type that a device does not compute with.
    ///
    /// # Errors
    /// As said; the message names those that it takes.
    pub fn check(self, device: &Device) -> Result<()> {
        let info = DeviceInfo::of(&device.clone().inner());
        if info.takes(DType::from(self.dtype())) {
            return Ok(());
        }
        let takes: Vec<String> =
            info.dtypes.iter().map(|dtype| format!("{dtype:?}").to_lowercase()).collect();
        let what = format!(
            "expected an element type that {} computes with ({}), found {:?}; use f32",
            info.name,
            takes.join(", "),
            self
        );
        Err(TrainError::option("--precision", what))
    }
}

/// Where scenes come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum DataConfig {
    /// Made by `lattice-scenes`, from seeds that follow the run's.
    Generated {
        /// `lidar` or `indoor`.
        scenes: String,
        /// Scenes to learn from.
        train: usize,
        /// Scenes to validate on; their seeds are far from those above.
        validation: usize,
        /// Factor on the number of points.
        density: f64,
    },
    /// Files; see [`SceneFiles::open`].
    Files {
        /// Scenes to learn from.
        train: PathBuf,
        /// Scenes to validate on; without, every tenth scene of `train` (of fewer than ten, the last one).
        validation: Option<PathBuf>,
        /// How labels become classes; found from the files where it is not given.
        label_map: Option<LabelMap>,
        /// Columns of `.bin` files.
        columns: Option<usize>,
    },
}

/// Distance of the seeds of validation scenes from those of training scenes.
const VALIDATION_SEEDS: u64 = 1 << 32;

/// Everything that a run depends on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainConfig {
    /// Where scenes come from.
    pub data: DataConfig,
    /// Name of the network.
    pub model: String,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// Edge of a voxel, in the scenes' unit.
    pub voxel_size: f64,
    /// Seed of weights, order and changes.
    pub seed: u64,
    /// Optimizer steps of the whole run: the length of the schedule.
    pub steps: usize,
    /// Scenes in a batch.
    pub batch: usize,
    /// Batches whose mean gradient makes a step.
    pub accumulate: usize,
    /// The rule that moves parameters.
    pub optimizer: OptimizerConfig,
    /// The learning rate.
    pub schedule: Schedule,
    /// Largest norm of the gradient; larger ones are shortened to it.
    pub clip_norm: Option<f64>,
    /// Element type of the convolutions.
    pub precision: Precision,
    /// The loss.
    pub loss: LossConfig,
    /// Changes of the training scenes.
    pub augmentation: Augmentation,
    /// Steps between validations; each writes a checkpoint and the metrics.
    pub validate_every: usize,
    /// Steps between reports: losses are read from the device only then.
    pub report_every: usize,
    /// Validations without a better mean IoU that end the run.
    pub patience: Option<usize>,
    /// Threads that prepare batches, over all devices.
    pub threads: usize,
    /// Whether batch norms take the statistics of a batch over all devices that share it; else each takes those of its own part, and the running
    /// ones are those of the first. Without effect on one device.
    #[serde(default = "shared")]
    pub shared_norms: bool,
}

/// What runs of earlier versions did.
fn shared() -> bool {
    true
}

impl TrainConfig {
    /// A run on generated scenes of one kind with the defaults of `lattice train`.
    pub fn generated(kind: SceneKind) -> Self {
        Self {
            data: DataConfig::Generated {
                scenes: kind.name().into(),
                train: 200,
                validation: 8,
                density: 1.0,
            },
            model: crate::DEFAULT_MODEL.into(),
            classes: lattice_scenes::class_names(kind).iter().map(ToString::to_string).collect(),
            voxel_size: if kind == SceneKind::Lidar { 0.1 } else { 0.05 },
            seed: 0,
            steps: 2000,
            batch: 2,
            accumulate: 1,
            optimizer: OptimizerConfig::adamw(),
            schedule: Schedule { peak: 4e-3, warmup_steps: 50, final_share: 0.01 },
            clip_norm: Some(10.0),
            precision: Precision::F32,
            loss: LossConfig::default(),
            augmentation: Augmentation::default(),
            validate_every: 200,
            report_every: 10,
            patience: None,
            threads: 2,
            shared_norms: true,
        }
    }

    /// Refuses options that train nothing.
    ///
    /// # Errors
    /// Counts of 0, and what the parts of the configuration refuse.
    pub fn check(&self) -> Result<()> {
        for (name, count) in [
            ("steps", self.steps),
            ("batch", self.batch),
            ("accumulate", self.accumulate),
            ("validate every", self.validate_every),
            ("report every", self.report_every),
        ] {
            if count == 0 {
                return Err(TrainError::option(name, "expected a number above 0, found 0"));
            }
        }
        if let Some(clip) = self.clip_norm
            && !(clip > 0.0 && clip.is_finite())
        {
            return Err(TrainError::option(
                "clip norm",
                format!("expected a finite number above 0, found {clip}"),
            ));
        }
        if !(self.voxel_size > 0.0 && (self.voxel_size as f32).is_normal()) {
            let what = format!("expected a finite length above 0, found {}", self.voxel_size);
            return Err(TrainError::option("voxel size", what));
        }
        if !(1..255).contains(&self.classes.len()) {
            let what = format!("expected 1 to 254 classes, found {}", self.classes.len());
            return Err(TrainError::option("classes", what));
        }
        self.schedule.check()?;
        self.optimizer.check()?;
        self.loss.check()?;
        self.augmentation.check()
    }

    /// The scenes to learn from and those to validate on.
    ///
    /// # Errors
    /// No scenes; files that cannot be listed; classes that the generated scenes do not have.
    pub fn datasets(&self) -> Result<(Dataset, Dataset)> {
        let classes = self.classes.len();
        let (train, validation) = match &self.data {
            DataConfig::Generated { scenes, train, validation, density } => {
                let kind: SceneKind =
                    scenes.parse().map_err(|e| TrainError::option("scenes", format!("{e}")))?;
                if lattice_scenes::class_names(kind).len() > classes {
                    let what = format!(
                        "expected the {} classes of {kind} scenes, found {classes}",
                        lattice_scenes::class_names(kind).len()
                    );
                    return Err(TrainError::option("classes", what));
                }
                let options = SceneOptions::default().with_density(*density);
                let first_seed = self.seed.wrapping_mul(1 << 20);
                let part = |first_seed: u64, count: usize| {
                    let scenes = GeneratedScenes { kind, first_seed, count, options: options.clone() };
                    Dataset::generated(scenes, classes)
                };
                (part(first_seed, *train), part(first_seed.wrapping_add(VALIDATION_SEEDS), *validation))
            }
            DataConfig::Files { train, validation, label_map, columns } => {
                let open = |path: &PathBuf| -> Result<SceneFiles> {
                    Ok(SceneFiles::open(path, *label_map)?.with_columns(*columns))
                };
                let scenes = open(train)?;
                let (scenes, validation) = match validation {
                    Some(path) => (scenes, open(path)?),
                    None => {
                        let every = scenes.len().clamp(2, 10);
                        let held_out = move |number: usize| number % every == every - 1;
                        let others = open(train)?.filter(held_out);
                        (scenes.filter(move |number| !held_out(number)), others)
                    }
                };
                (Dataset::files(scenes, classes), Dataset::files(validation, classes))
            }
        };
        for (name, part) in [("training scenes", &train), ("validation scenes", &validation)] {
            if part.is_empty() {
                let what = "expected at least one, found none; give more scenes, or a folder of them with --validation";
                return Err(TrainError::option(name, what));
            }
        }
        Ok((train, validation))
    }
}
