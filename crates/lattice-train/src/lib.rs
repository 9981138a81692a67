//! Training and scoring of sparse segmentation networks.
//!
//! * Scenes: [`Dataset`] is generated scenes, a folder of labelled files, or SemanticKITTI sequences; [`Augmentation`] varies them.
//! * One step: [`make_batch`] voxelizes scenes on background threads, [`LossConfig`] combines cross-entropy and Lovász-softmax,
//!   [`Trainer`] runs forward, backward and the [`OptimizerConfig`]'s step without waiting for the device.
//! * A run: [`Run`] trains, validates, stops early, writes a [run folder](Run#run-folder) and resumes bit for bit.
//! * Several devices: [`Ranks`] share each batch of a run, one thread a device; samples, gradients and checkpoints are those of one device.
//! * [`Descent`] moves any module down the gradient of any loss.
//! * Scoring: [`segment`] classifies the points of a scene, [`ConfusionMatrix`] says how well.
//!
//! Input features are made of positions alone ([`input_features`]): networks trained here read any scan.
//!
//! Not for detection or generation, nor for several machines at once.
#![forbid(unsafe_code)]

mod augment;
mod batch;
mod checkpoint;
mod config;
mod dataset;
mod descent;
mod error;
mod history;
mod input;
mod labels;
mod lead;
mod loader;
mod loss;
mod metrics;
mod mix;
mod model;
mod optimizer;
mod parameters;
mod rank;
mod ranks;
mod run;
mod run_folder;
mod scale;
mod scene;
mod scene_files;
mod schedule;
mod segment;
mod tensor_file;
mod total;
mod trainer;
mod weights;

pub use augment::Augmentation;
pub use batch::{Batch, make_batch};
pub use checkpoint::{Checkpoint, LAST, PREVIOUS};
pub use config::{DataConfig, Precision, TrainConfig};
pub use dataset::{Dataset, GeneratedScenes, SampleOrder};
pub use descent::Descent;
pub use error::{Result, TrainError};
pub use history::{History, Validation};
pub use input::{INPUT_CHANNELS, INPUT_NAMES, ground_height, input_features, place_in_voxel};
pub use labels::LabelMap;
pub use lead::evaluate;
pub use loader::Loader;
pub use loss::{
    ClassWeights, LossConfig, LossShare, LossTargets, combined_loss, combined_loss_of_part, lovasz_slopes,
};
pub use metrics::{ConfusionMatrix, Scores};
pub use mix::Mix;
pub use model::{DEFAULT_MODEL, SegmentationNet, Segmenter, build_model};
pub use optimizer::{Optimizer, OptimizerConfig};
pub use parameters::ParameterLayout;
pub use rank::Stop;
pub use ranks::{Ranks, part_of_batch};
pub use run::{Event, Outcome, Run};
pub use run_folder::{BEST, FILES};
pub use scale::LossScale;
pub use scene::LabelledScene;
pub use scene_files::SceneFiles;
pub use schedule::Schedule;
pub use segment::{PointClasses, best_classes, segment};
pub use tensor_file::TensorFile;
pub use trainer::{StepReport, Trainer};
pub use weights::WeightsInfo;
