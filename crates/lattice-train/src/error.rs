//! What can be wrong with scenes, options, checkpoints and training itself.

use std::path::PathBuf;

/// Result of everything fallible here.
pub type Result<T, E = TrainError> = std::result::Result<T, E>;

/// Why training or scoring could not go on. Each message names the place, what was expected, what was found and the fix.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A scene that cannot be learned from.
    #[error("{scene}: {what}")]
    Scene {
        /// File or generated scene.
        scene: String,
        /// Expected, found, fix.
        what: String,
    },
    /// An option that cannot be used.
    #[error("{option}: {what}")]
    Option {
        /// Name of the option.
        option: &'static str,
        /// Expected, found, fix.
        what: String,
    },
    /// A checkpoint or weights file that cannot be used.
    #[error("{}: {what}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// Expected, found, fix.
        what: String,
    },
    /// The run folder cannot be used.
    #[error("{}: {what}", path.display())]
    Folder {
        /// The folder or file.
        path: PathBuf,
        /// Expected, found, fix.
        what: String,
    },
    /// The loss or its gradient left the finite numbers.
    #[error(
        "step {step}: expected a finite loss and gradient, found loss {loss} and gradient norm {norm}; {fix}"
    )]
    Diverged {
        /// The first such step, from 1.
        step: usize,
        /// Its loss.
        loss: f32,
        /// Its gradient norm.
        norm: f32,
        /// What to change, and which state was kept.
        fix: String,
    },
    /// A thread that prepares batches stopped.
    #[error("loading batches: expected a batch, found that the thread which makes them stopped: {0}")]
    Loader(String),
    /// A rank of a run over several devices ended, or is not where the others are.
    #[error("rank {rank}: {what}")]
    Rank {
        /// Its number, from 0, in the order of the devices.
        rank: usize,
        /// Expected, found, fix.
        what: String,
    },
    /// A file that cannot be read.
    #[error("{0}")]
    Read(#[from] lattice_io::ReadError),
    /// A file that cannot be written.
    #[error("{0}")]
    Write(#[from] lattice_io::WriteError),
    /// An operation of the library refused.
    #[error("{0}")]
    Lattice(#[from] burn_lattice::Error),
}

impl TrainError {
    pub(crate) fn scene(scene: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Scene { scene: scene.into(), what: what.into() }
    }

    /// The same with the scene that an operation refused, where the error does not name it.
    pub(crate) fn in_scene(self, scene: &str) -> Self {
        match self {
            Self::Lattice(error) => Self::scene(scene, error.to_string()),
            Self::Option { option, what } => Self::scene(scene, format!("{option}: {what}")),
            other => other,
        }
    }

    pub(crate) fn option(option: &'static str, what: impl Into<String>) -> Self {
        Self::Option { option, what: what.into() }
    }

    pub(crate) fn checkpoint(path: impl Into<PathBuf>, what: impl Into<String>) -> Self {
        Self::Checkpoint { path: path.into(), what: what.into() }
    }

    pub(crate) fn folder(path: impl Into<PathBuf>, what: impl Into<String>) -> Self {
        Self::Folder { path: path.into(), what: what.into() }
    }
}
