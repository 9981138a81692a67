//! What a weights file says about its network, so that it can be run without being told.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::input::{INPUT_CHANNELS, INPUT_NAMES};
use crate::{Result, TensorFile, TrainConfig, TrainError};

/// Name of the text that holds it.
const KEY: &str = "lattice.network";

/// Network, classes, voxel size and input of trained weights; stands in the metadata of the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WeightsInfo {
    /// Name of the network.
    pub model: String,
    /// Names of the classes, in the order of the scores.
    pub classes: Vec<String>,
    /// Edge of the voxels that it was trained with.
    pub voxel_size: f64,
    /// What the input channels hold.
    pub input: Vec<String>,
    /// Training steps behind the weights.
    pub steps: usize,
    /// Mean IoU on the validation scenes, where it was measured.
    pub miou: Option<f64>,
}

impl WeightsInfo {
    /// What a run trains.
    pub fn of(config: &TrainConfig, steps: usize, miou: Option<f64>) -> Self {
        Self {
            model: config.model.clone(),
            classes: config.classes.clone(),
            voxel_size: config.voxel_size,
            input: INPUT_NAMES.map(String::from).to_vec(),
            steps,
            miou,
        }
    }

    /// Adds it to a file.
    pub fn write_to(&self, file: &mut TensorFile) {
        let text = serde_json::to_string(self).expect("texts and numbers are always JSON");
        file.insert_text(KEY, text);
    }

    /// Reads it from a weights file; `None` where the file says nothing of a network.
    ///
    /// # Errors
    /// A file that is no safetensors file; a network whose input is none that can be computed here.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        let texts = TensorFile::read_texts(path)?;
        let Some(text) = texts.get(KEY) else { return Ok(None) };
        let refuse = |what: String| TrainError::checkpoint(path, what);
        let info: Self = serde_json::from_str(text).map_err(|e| {
            refuse(format!("expected the description of a network, found {e}; save the weights again"))
        })?;
        if info.input != INPUT_NAMES {
            return Err(refuse(format!(
                "expected a network whose {INPUT_CHANNELS} input channels are {}, found {}; use a version that has them",
                INPUT_NAMES.join(", "),
                info.input.join(", ")
            )));
        }
        if info.classes.is_empty() || !(info.voxel_size > 0.0 && info.voxel_size.is_finite()) {
            return Err(refuse(
                "expected classes and a voxel size above 0, found none; save the weights again".into(),
            ));
        }
        Ok(Some(info))
    }
}
