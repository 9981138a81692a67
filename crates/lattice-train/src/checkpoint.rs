//! Checkpoints on the disk: the last one and the one before.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{Result, TensorFile, TrainError};

/// Name of the newest checkpoint in a run folder.
pub const LAST: &str = "last.safetensors";
/// Name of the checkpoint before it.
pub const PREVIOUS: &str = "previous.safetensors";
/// Where a checkpoint waits until the one before it has moved away.
pub(crate) const NEXT: &str = "next.safetensors";

/// Text that says what the file is, with the version of its content.
const KIND: (&str, &str) = ("lattice.checkpoint", "1");

/// Everything that the next step depends on: parameters, running statistics, the optimizer's state, the loss scale, the number of
/// steps. Which scenes come next, and how they are changed, follows from the run's seed and the step.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// Steps that were done.
    pub step: usize,
    /// Tensors by name, and texts of the run.
    pub tensors: TensorFile,
}

impl Checkpoint {
    /// Writes the newest checkpoint of a folder and keeps the one before it.
    ///
    /// A kill or a full disk at any moment leaves a complete checkpoint under one of the two names: the new file is complete on the
    /// disk before an old one moves.
    ///
    /// # Errors
    /// What the system refuses.
    pub fn save(mut self, folder: &Path) -> Result<()> {
        self.tensors.insert_text(KIND.0, KIND.1);
        self.tensors.insert_text("step", self.step.to_string());
        let [next, last, previous] = [NEXT, LAST, PREVIOUS].map(|name| folder.join(name));
        self.tensors.write(&next)?;
        let refuse =
            |e: std::io::Error| TrainError::folder(folder, format!("cannot be written: {e}; check the disk"));
        if last.exists() {
            fs::rename(&last, &previous).map_err(refuse)?;
        }
        fs::rename(&next, &last).map_err(refuse)?;
        // The names are on the disk, too; where folders cannot be opened there is nothing more to do.
        if let Ok(folder) = fs::File::open(folder) {
            let _ = folder.sync_all();
        }
        Ok(())
    }

    /// The checkpoint to go on from: the last one, or where saving was cut short the one before. `None` where there is none.
    pub fn find(folder: &Path) -> Option<PathBuf> {
        [LAST, PREVIOUS].map(|name| folder.join(name)).into_iter().find(|path| path.is_file())
    }

    /// Reads a checkpoint.
    ///
    /// # Errors
    /// A file that is cut off, is no checkpoint, or has a tensor of another type; the error says which.
    pub fn load(path: &Path) -> Result<Self> {
        let or_previous = |error: TrainError| match error {
            TrainError::Checkpoint { path, what } if path.ends_with(LAST) => {
                let other = path.with_file_name(PREVIOUS);
                let fix = if other.is_file() {
                    format!("; or remove it to go on from {PREVIOUS}")
                } else {
                    String::new()
                };
                TrainError::Checkpoint { path, what: what + &fix }
            }
            other => other,
        };
        let mut tensors = TensorFile::read(path).map_err(or_previous)?;
        let refuse = |what: &str| or_previous(TrainError::checkpoint(path, what));
        if tensors.texts.remove(KIND.0).as_deref() != Some(KIND.1) {
            return Err(refuse(
                "expected a checkpoint of version 1, found another file; weights alone cannot be resumed",
            ));
        }
        let step = tensors.texts.remove("step").and_then(|step| step.parse().ok());
        let step =
            step.ok_or_else(|| refuse("expected the number of its step, found none; save it again"))?;
        Ok(Self { step, tensors })
    }
}
