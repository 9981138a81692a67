//! The folder of a run: its names, its lock, and what a killed process left in it.

use std::fs::{File, TryLockError};
use std::path::Path;

use crate::checkpoint::NEXT;
use crate::{LAST, PREVIOUS, Result, TrainError};

/// Name of the weights of the best validation.
pub const BEST: &str = "best.safetensors";
pub(crate) const CONFIG: &str = "config.json";
pub(crate) const METRICS_CSV: &str = "metrics.csv";
pub(crate) const METRICS_JSON: &str = "metrics.json";
pub(crate) const CURVES: &str = "curves.png";

/// What a run folder holds in the end.
pub const FILES: [&str; 7] = [CONFIG, METRICS_CSV, METRICS_JSON, CURVES, BEST, LAST, PREVIOUS];

/// Held by the process that trains in the folder; the system lets it go when the process ends, however it ends.
const LOCK: &str = ".lock";

/// Takes the folder for this process, as long as the result lives.
///
/// # Errors
/// A folder that another process trains in, or that cannot be written.
pub(crate) fn lock(folder: &Path) -> Result<File> {
    let refuse = |found: String, fix: &str| {
        TrainError::folder(folder, format!("expected a folder that can be written to, found: {found}; {fix}"))
    };
    let file = File::options().create(true).truncate(false).write(true).open(folder.join(LOCK));
    let file = file.map_err(|e| refuse(e.to_string(), "name a folder that you may write to"))?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => {
            Err(refuse("a run that goes on in it".into(), "wait for its end, or name another folder"))
        }
        // A file system without locks cannot tell: what it holds is complete in any case.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(file),
    }
}

/// Removes the halves of files that a killed process was writing; to be called under the lock.
pub(crate) fn remove_halves(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let of_ours = |file: &&str| name.starts_with(&format!(".{file}."));
        if name.ends_with(".part") && FILES.iter().chain(&[NEXT]).any(of_ours) {
            // Nothing depends on it: a half that stays only takes space.
            let _ = std::fs::remove_file(folder.join(name));
        }
    }
}
