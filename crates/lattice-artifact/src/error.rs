//! What can be wrong with an artifact, its inputs, or a graph that is being built.

use std::fmt;
use std::path::PathBuf;

use crate::ir::At;

/// One fault of a graph and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Diagnostic {
    /// Line and column.
    pub at: At,
    /// What was expected and what was found.
    pub message: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.at)?;
        // A message quotes the text, which may hold anything.
        for c in self.message.chars() {
            match c.is_control() {
                true => write!(f, "{}", c.escape_default())?,
                false => write!(f, "{c}")?,
            }
        }
        Ok(())
    }
}

/// Faults of a graph, in the order of its text.
#[derive(Clone, Debug, PartialEq)]
pub struct Diagnostics(pub Vec<Diagnostic>);

/// Faults that a message shows.
const SHOWN: usize = 8;

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, diagnostic) in self.0.iter().take(SHOWN).enumerate() {
            write!(f, "{}{diagnostic}", if i > 0 { "; " } else { "" })?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

/// Everything that the caller's files, inputs and graphs can have wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArtifactError {
    /// The text is not a graph.
    #[error("graph: {0}")]
    Syntax(Diagnostic),
    /// The graph breaks rules of the format.
    #[error("graph: {0}")]
    Invalid(Diagnostics),
    /// A file that cannot be read or written.
    #[error("{}: {what}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Expected, found and the fix.
        what: String,
    },
    /// A tensor of the weight file is missing or does not fit its use.
    #[error("weight `{key}`: {what}")]
    Weight {
        /// Name in the weight file.
        key: String,
        /// Expected, found and the fix.
        what: String,
    },
    /// An input of a call that does not fit the graph.
    #[error("input `{name}`: {what}")]
    Input {
        /// Name of the input.
        name: String,
        /// Expected, found and the fix.
        what: String,
    },
    /// An operation refused its operands.
    #[error("graph: {at}: %{label} = lattice.{op}: {what}")]
    Run {
        /// Where the operation stands.
        at: At,
        /// Its first result.
        label: String,
        /// Its name.
        op: &'static str,
        /// What the operation said.
        what: String,
    },
    /// A graph that cannot be built, or a module that the operations of the format cannot express.
    #[error("{what}")]
    Build {
        /// Expected, found and the fix.
        what: String,
    },
}

impl ArtifactError {
    pub(crate) fn build(what: impl Into<String>) -> Self {
        Self::Build { what: what.into() }
    }

    pub(crate) fn weight(key: &str, what: impl Into<String>) -> Self {
        Self::Weight { key: key.into(), what: what.into() }
    }

    pub(crate) fn input(name: &str, what: impl Into<String>) -> Self {
        Self::Input { name: name.into(), what: what.into() }
    }
}

impl From<burn_lattice::Error> for ArtifactError {
    fn from(error: burn_lattice::Error) -> Self {
        Self::Build { what: error.to_string() }
    }
}

/// Result of every fallible operation.
pub type Result<T, E = ArtifactError> = std::result::Result<T, E>;
