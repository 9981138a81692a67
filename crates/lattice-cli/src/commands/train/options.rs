//! From arguments to the configuration of a run.

use std::path::PathBuf;

use anyhow::{Result, anyhow, bail, ensure};
use lattice_scenes::SceneKind;
use lattice_train::{
    Augmentation, ClassWeights, DataConfig, LabelMap, LossConfig, Mix, OptimizerConfig, Precision, Schedule,
    TrainConfig,
};

use crate::commands::generate::kind;

/// Every option here: none of them goes with a run that is resumed.
pub const OF_A_NEW_RUN: [&str; 39] = [
    "scenes",
    "kind",
    "scene_count",
    "validation_count",
    "density",
    "validation",
    "label_map",
    "columns",
    "classes",
    "model",
    "voxel_size",
    "seed",
    "steps",
    "epochs",
    "batch",
    "accumulate",
    "optimizer",
    "learning_rate",
    "weight_decay",
    "warmup",
    "final_share",
    "clip",
    "precision",
    "cross_entropy",
    "lovasz",
    "class_weights",
    "validate_every",
    "report_every",
    "patience",
    "workers",
    "local_norms",
    "no_augment",
    "no_rotate",
    "no_flip",
    "scale",
    "jitter",
    "dropout",
    "mix",
    "mix_chance",
];

/// Where scenes come from.
#[derive(clap::Args)]
pub struct DataArgs {
    /// Scenes: a folder of files with a `label` attribute, or of SemanticKITTI sequences; without one they are generated.
    scenes: Option<PathBuf>,
    /// Kind of generated scenes, and the classes of files unless --classes names them.
    #[arg(long, default_value = "lidar", value_parser = ["lidar", "indoor"])]
    kind: String,
    /// Generated scenes to learn from.
    #[arg(long, default_value_t = 200)]
    scene_count: usize,
    /// Generated scenes to validate on.
    #[arg(long, default_value_t = 8)]
    validation_count: usize,
    /// Factor on the points of generated scenes.
    #[arg(long, default_value_t = 1.0)]
    density: f64,
    /// Folder of scenes to validate on; without, every tenth scene of the training folder.
    #[arg(long)]
    validation: Option<PathBuf>,
    /// How labels of files become classes: classes, semantic-kitti (indices 0 to 19) or semantic-kitti-raw (ids of .label files).
    #[arg(long)]
    label_map: Option<String>,
    /// Columns of .bin files.
    #[arg(long)]
    columns: Option<usize>,
    /// Names of the classes of files, with commas between.
    #[arg(long, value_delimiter = ',')]
    classes: Option<Vec<String>>,
}

/// How the network learns.
#[derive(clap::Args)]
pub struct LearnArgs {
    /// Network; see `lattice run --help`.
    #[arg(long, default_value = lattice_train::DEFAULT_MODEL)]
    model: String,
    /// Edge of a voxel; 0.1 for lidar and 0.05 for indoor scenes by default.
    #[arg(long, allow_negative_numbers = true)]
    voxel_size: Option<f64>,
    /// Seed of weights, order, changes and generated scenes.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Optimizer steps.
    #[arg(long, default_value_t = 2000)]
    steps: usize,
    /// Passes over the training scenes, in place of --steps.
    #[arg(long, conflicts_with = "steps")]
    epochs: Option<usize>,
    /// Scenes in a batch.
    #[arg(long, default_value_t = 2)]
    batch: usize,
    /// Batches a step.
    #[arg(long, default_value_t = 1)]
    accumulate: usize,
    /// adamw or sgd.
    #[arg(long, default_value = "adamw", value_parser = ["adamw", "sgd"])]
    optimizer: String,
    /// Highest learning rate; 0.004 for adamw, 0.1 for sgd by default.
    #[arg(long, allow_negative_numbers = true)]
    learning_rate: Option<f64>,
    /// Weight decay; 0.01 for adamw, 0.0001 for sgd by default.
    #[arg(long, allow_negative_numbers = true)]
    weight_decay: Option<f64>,
    /// Steps over which the rate climbs; it then falls along a cosine.
    #[arg(long, default_value_t = 50)]
    warmup: usize,
    /// Share of the highest rate that is left at the end.
    #[arg(long, default_value_t = 0.01, allow_negative_numbers = true)]
    final_share: f64,
    /// Largest norm of the gradient; 0 does not clip.
    #[arg(long, default_value_t = 10.0, allow_negative_numbers = true)]
    clip: f64,
    /// Element type of the convolutions: f32, f16 (with loss scaling) or bf16.
    #[arg(long, default_value = "f32", value_parser = ["f32", "f16", "bf16"])]
    precision: String,
    /// Factor of cross-entropy.
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    cross_entropy: f64,
    /// Factor of Lovász-softmax; 0 saves a wait for the device in each step.
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    lovasz: f64,
    /// Weights of the classes in cross-entropy: none, inverse, inverse-root, or one number a class with commas between.
    #[arg(long, default_value = "inverse-root")]
    class_weights: String,
    /// Steps between validations; each writes the checkpoint and the metrics.
    #[arg(long, default_value_t = 200)]
    validate_every: usize,
    /// Steps between readings of the loss.
    #[arg(long, default_value_t = 10)]
    report_every: usize,
    /// Validations without a better mIoU that end the run.
    #[arg(long)]
    patience: Option<usize>,
    /// Threads that prepare batches, over all devices.
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// Batch norms take the statistics of their own device's part of a batch, in place of those of the whole batch.
    #[arg(long)]
    local_norms: bool,
}

/// How scenes are changed.
#[derive(clap::Args)]
pub struct ChangeArgs {
    /// Changes no scene.
    #[arg(long)]
    no_augment: bool,
    /// Leaves out the rotation about z.
    #[arg(long)]
    no_rotate: bool,
    /// Leaves out the flips of x and y.
    #[arg(long)]
    no_flip: bool,
    /// Range of the scale; 1,1 leaves it out.
    #[arg(long, value_delimiter = ',', default_values_t = [0.95, 1.05])]
    scale: Vec<f64>,
    /// Standard deviation of the shift of a coordinate.
    #[arg(long, default_value_t = 0.01, allow_negative_numbers = true)]
    jitter: f64,
    /// Largest share of points that is left out.
    #[arg(long, default_value_t = 0.2, allow_negative_numbers = true)]
    dropout: f64,
    /// How a second scene is mixed in: none, concat, sectors or cylinders.
    #[arg(long, default_value = "none", value_parser = ["none", "concat", "sectors", "cylinders"])]
    mix: String,
    /// Chance that a second scene is mixed in.
    #[arg(long, default_value_t = 0.5, allow_negative_numbers = true)]
    mix_chance: f64,
}

/// The label map of a word.
///
/// # Errors
/// Another word than a map's name.
pub fn label_map(word: &str) -> Result<LabelMap> {
    LabelMap::ALL.into_iter().find(|map| map.name() == word).ok_or_else(|| {
        let names = LabelMap::ALL.map(LabelMap::name).join(", ");
        anyhow!("--label-map: expected one of {names}, found `{word}`")
    })
}

impl DataArgs {
    fn config(&self) -> Result<DataConfig> {
        let Some(train) = &self.scenes else {
            ensure!(
                self.validation.is_none() && self.classes.is_none() && self.label_map.is_none(),
                "--validation, --classes and --label-map: expected a folder of scenes beside them, found none; name it first"
            );
            return Ok(DataConfig::Generated {
                scenes: self.kind.clone(),
                train: self.scene_count,
                validation: self.validation_count,
                density: self.density,
            });
        };
        Ok(DataConfig::Files {
            train: train.clone(),
            validation: self.validation.clone(),
            label_map: self.label_map.as_deref().map(label_map).transpose()?,
            columns: self.columns,
        })
    }
}

impl LearnArgs {
    fn optimizer(&self) -> (OptimizerConfig, f64) {
        let (mut config, rate) = match self.optimizer.as_str() {
            "sgd" => (OptimizerConfig::sgd(), 0.1),
            _ => (OptimizerConfig::adamw(), 4e-3),
        };
        if let Some(given) = self.weight_decay {
            match &mut config {
                OptimizerConfig::AdamW { weight_decay, .. } | OptimizerConfig::Sgd { weight_decay, .. } => {
                    *weight_decay = given;
                }
            }
        }
        (config, self.learning_rate.unwrap_or(rate))
    }

    fn class_weights(&self) -> Result<ClassWeights> {
        Ok(match self.class_weights.as_str() {
            "none" => ClassWeights::None,
            "inverse" => ClassWeights::InverseFrequency,
            "inverse-root" => ClassWeights::InverseRoot,
            list => {
                let parsed: Result<Vec<f32>, _> = list.split(',').map(|w| w.trim().parse()).collect();
                let Ok(weights) = parsed else {
                    bail!(
                        "--class-weights: expected none, inverse, inverse-root or numbers with commas between, found `{list}`"
                    );
                };
                ClassWeights::Given(weights)
            }
        })
    }
}

impl ChangeArgs {
    fn config(&self) -> Result<Augmentation> {
        if self.no_augment {
            return Ok(Augmentation::none());
        }
        let [low, high] = self.scale[..] else {
            bail!("--scale: expected two factors such as 0.95,1.05, found {}", self.scale.len());
        };
        let mix = Mix::ALL.into_iter().find(|mix| mix.name() == self.mix).unwrap_or_default();
        Ok(Augmentation {
            rotate: !self.no_rotate,
            flip: !self.no_flip,
            scale: ([low, high] != [1.0, 1.0]).then_some([low, high]),
            jitter: self.jitter,
            dropout: self.dropout,
            mix,
            mix_chance: self.mix_chance,
        })
    }
}

/// The configuration that the arguments ask for.
///
/// # Errors
/// Words that are none of those that an option takes; a folder of scenes that cannot be listed, where epochs are counted.
pub fn config(data: &DataArgs, learn: &LearnArgs, change: &ChangeArgs) -> Result<TrainConfig> {
    let kind: SceneKind = kind(&data.kind)?;
    let (optimizer, peak) = learn.optimizer();
    let defaults = TrainConfig::generated(kind);
    let mut config = TrainConfig {
        data: data.config()?,
        model: learn.model.clone(),
        classes: data.classes.clone().unwrap_or(defaults.classes),
        voxel_size: learn.voxel_size.unwrap_or(defaults.voxel_size),
        seed: learn.seed,
        steps: learn.steps,
        batch: learn.batch,
        accumulate: learn.accumulate,
        optimizer,
        schedule: Schedule { peak, warmup_steps: learn.warmup, final_share: learn.final_share },
        clip_norm: (learn.clip != 0.0).then_some(learn.clip),
        precision: match learn.precision.as_str() {
            "f16" => Precision::F16,
            "bf16" => Precision::Bf16,
            _ => Precision::F32,
        },
        loss: LossConfig {
            cross_entropy: learn.cross_entropy,
            lovasz: learn.lovasz,
            class_weights: learn.class_weights()?,
        },
        augmentation: change.config()?,
        validate_every: learn.validate_every,
        report_every: learn.report_every,
        patience: learn.patience,
        threads: learn.workers,
        shared_norms: !learn.local_norms,
    };
    if let Some(epochs) = learn.epochs {
        config.check()?;
        let (train, _) = config.datasets()?;
        config.steps = (epochs * train.len()).div_ceil(config.batch * config.accumulate).max(1);
    }
    Ok(config)
}
