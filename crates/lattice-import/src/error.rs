//! What can be wrong with a checkpoint or a mapping.

use std::fmt;
use std::path::PathBuf;

/// Names of a kind that a message shows.
const SHOWN: usize = 12;

/// Everything that the caller's files can have wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// A file that cannot be read or is no checkpoint.
    #[error("{}: expected a complete .pth or .safetensors file, found: {found}; save or download it again", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the reader said.
        found: String,
    },
    /// A mapping file that cannot be read.
    #[error("{}: expected a mapping in TOML or JSON, found: {found}", path.display())]
    MappingFile {
        /// The file.
        path: PathBuf,
        /// What the reader said.
        found: String,
    },
    /// A value of a mapping that means nothing.
    #[error("mapping: {0}")]
    Mapping(String),
    /// A network that cannot be made.
    #[error("{0}")]
    Model(String),
    /// Tensors that do not fit the network.
    #[error("{0}")]
    Mismatch(Box<Mismatch>),
    /// Convolution weights whose shapes fit several layouts.
    #[error(
        "weights fit the layouts {}, as {} of shape {shape:?} does; say which the library used with `layout = \"...\"` in a mapping (--map) or --layout",
        candidates.join(" and "), name
    )]
    Ambiguous {
        /// The first such weight.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Layouts that fit every weight.
        candidates: Vec<String>,
    },
    /// A result that cannot be written.
    #[error("{0}")]
    Write(String),
}

/// All names that do not fit, each list sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mismatch {
    /// The network.
    pub model: String,
    /// Tensors of another shape, type or value than their parameter takes, with what was expected and found.
    pub misfits: Vec<String>,
    /// Parameters for which the checkpoint has no tensor.
    pub missing: Vec<String>,
    /// Tensors for which the network has no parameter, with the name they were given.
    pub unknown: Vec<String>,
}

impl Mismatch {
    /// True when everything fits.
    pub fn is_empty(&self) -> bool {
        self.misfits.is_empty() && self.missing.is_empty() && self.unknown.is_empty()
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the checkpoint does not fit {}:", self.model)?;
        let lists =
            [("do not fit", &self.misfits), ("are missing", &self.missing), ("are unknown", &self.unknown)];
        let mut first = true;
        for (what, names) in lists.into_iter().filter(|(_, names)| !names.is_empty()) {
            write!(f, "{} {} tensors {what}: ", if first { "" } else { ";" }, names.len())?;
            write!(f, "{}", names[..names.len().min(SHOWN)].join(", "))?;
            if names.len() > SHOWN {
                write!(f, " and {} more", names.len() - SHOWN)?;
            }
            first = false;
        }
        write!(f, "; choose the model it was trained as, or rename and ignore tensors in a mapping (--map)")
    }
}

/// Result of every fallible operation.
pub type Result<T, E = ImportError> = std::result::Result<T, E>;
