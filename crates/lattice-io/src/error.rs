//! What can be wrong with a file: which file, what, where, what was expected, what was found, and the fix.

use std::fmt;
use std::path::{Path, PathBuf};

/// Where in a file something is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// The file as a whole.
    File,
    /// A line of text, counted from 1.
    Line(u64),
    /// A byte, counted from 0.
    Byte(u64),
    /// A member of an archive.
    Member(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File => Ok(()),
            Self::Line(n) => write!(f, ", line {n}"),
            Self::Byte(n) => write!(f, ", byte {n}"),
            Self::Member(name) => write!(f, ", member `{name}`"),
        }
    }
}

/// What a parser found wrong; becomes a [`ReadError::Malformed`] once the file's name is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub place: Place,
    /// What should have stood there.
    pub expected: String,
    /// What stood there.
    pub found: String,
    /// What to do about it.
    pub fix: String,
}

impl Fault {
    /// A fault at `place`.
    pub(crate) fn new(
        place: Place,
        expected: impl Into<String>,
        found: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { place, expected: expected.into(), found: found.into(), fix: fix.into() }
    }

    /// The file ends before what its header promises.
    pub(crate) fn truncated(byte: usize, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(
            Place::Byte(byte as u64),
            expected,
            found,
            "the file is cut off or its header is wrong: copy or export it again",
        )
    }
}

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The operating system refused: no such file, a folder, no permission.
    #[error("{}: cannot be read: expected a readable file, found: {found}; {fix}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        found: String,
        /// What to do about it.
        fix: &'static str,
        /// The system's own error, where there is one.
        #[source]
        source: Option<std::io::Error>,
    },
    /// Neither the extension nor the first bytes name a known format.
    #[error("{}: unknown format: expected one of {expected}, found {found}; rename the file or name its format", path.display())]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// Known extensions.
        expected: &'static str,
        /// Extension found.
        found: String,
    },
    /// The file is not what its format demands.
    #[error("{}{}: bad {format}: expected {}, found {}; {}", path.display(), fault.place, fault.expected, fault.found, fault.fix)]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Name of the format.
        format: &'static str,
        /// What is wrong, and where.
        fault: Box<Fault>,
    },
    /// An option does not fit the file.
    #[error("{}: option `{option}`: expected {expected}, found {found}", path.display())]
    Option {
        /// The file.
        path: PathBuf,
        /// The option's name.
        option: &'static str,
        /// What it takes.
        expected: String,
        /// What it was given.
        found: String,
    },
}

impl ReadError {
    pub(crate) fn from_io(path: &Path, source: std::io::Error) -> Self {
        use std::io::ErrorKind as K;
        let (found, fix) = match source.kind() {
            K::NotFound => ("no such file".to_owned(), "check the path"),
            K::PermissionDenied => ("permission denied".to_owned(), "allow reading it (chmod +r)"),
            K::IsADirectory => ("a folder".to_owned(), "name a file in it"),
            _ => (source.to_string(), "check the disk and the path"),
        };
        Self::Open { path: path.to_owned(), found, fix, source: Some(source) }
    }

    /// The file that could not be read.
    pub fn path(&self) -> &Path {
        match self {
            Self::Open { path, .. }
            | Self::UnknownFormat { path, .. }
            | Self::Malformed { path, .. }
            | Self::Option { path, .. } => path,
        }
    }
}

/// Why a file could not be written. Nothing stands under the final name then that did not stand there before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The operating system refused.
    #[error("{}: cannot be written: {source}; {fix}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What to do about it.
        fix: &'static str,
        /// The system's own error.
        #[source]
        source: std::io::Error,
    },
    /// The data cannot be stored in this format.
    #[error("{}: cannot be written: expected {expected}, found {found}; {fix}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// What the format takes.
        expected: String,
        /// What it was given.
        found: String,
        /// What to do about it.
        fix: &'static str,
    },
}

impl WriteError {
    pub(crate) fn from_io(path: &Path, source: std::io::Error) -> Self {
        use std::io::ErrorKind as K;
        let fix = match source.kind() {
            K::NotFound => "make its folder first",
            K::PermissionDenied | K::ReadOnlyFilesystem => "choose a folder that you may write to",
            K::StorageFull | K::QuotaExceeded => "free some disk space",
            K::IsADirectory | K::AlreadyExists => "choose a name that is not a folder",
            K::NotADirectory => "a part of its path is a file: choose another folder",
            _ => "check the disk and the path",
        };
        Self::Io { path: path.to_owned(), fix, source }
    }

    pub(crate) fn value(
        path: &Path,
        expected: impl Into<String>,
        found: impl Into<String>,
        fix: &'static str,
    ) -> Self {
        Self::Value { path: path.to_owned(), expected: expected.into(), found: found.into(), fix }
    }
}

/// Quotes at most 40 characters of what was found, for messages.
pub(crate) fn quote(text: &str) -> String {
    let short: String = text.chars().take(40).collect();
    let dots = if short.len() < text.len() { "…" } else { "" };
    format!("`{}{dots}`", short.escape_debug())
}
