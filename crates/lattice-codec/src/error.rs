//! What can be wrong with a stream, or with what is to be compressed.

/// Why a cloud was not compressed or a stream not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The stream is not one of this codec, of another version, damaged or cut off.
    #[error("{place}: expected {expected}, found {found}; {fix}")]
    Damaged {
        /// Part of the stream.
        place: String,
        /// What should stand there.
        expected: String,
        /// What stands there.
        found: String,
        /// What to do about it.
        fix: &'static str,
    },
    /// The stream holds more than the reader was allowed to take.
    #[error("{place}: expected at most {limit} {what}, found {found}; {fix}")]
    Limit {
        /// Part of the stream.
        place: String,
        /// The limit.
        limit: u64,
        /// What is limited.
        what: &'static str,
        /// How many there are.
        found: u64,
        /// What to do about it.
        fix: &'static str,
    },
    /// What is to be compressed cannot be.
    #[error("{op}: expected {expected}, found {found}; {fix}")]
    Value {
        /// Operation that refused.
        op: &'static str,
        /// What it takes.
        expected: String,
        /// What it was given.
        found: String,
        /// What to do about it.
        fix: &'static str,
    },
    /// The operating system refused to read or write.
    #[error("{op}: {source}; check the disk and the path")]
    Io {
        /// Operation that failed.
        op: &'static str,
        /// The system's own error.
        #[source]
        source: std::io::Error,
    },
}

/// Result of this crate's operations.
pub type Result<T> = std::result::Result<T, CodecError>;

/// What to do about a stream that is not whole.
const COPY: &str = "the file is damaged or cut off: copy it again or compress the scan again";

impl CodecError {
    pub(crate) fn damaged(
        place: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self::Damaged { place: place.into(), expected: expected.into(), found: found.into(), fix: COPY }
    }

    pub(crate) fn value(
        op: &'static str,
        expected: impl Into<String>,
        found: impl Into<String>,
        fix: &'static str,
    ) -> Self {
        Self::Value { op, expected: expected.into(), found: found.into(), fix }
    }
}
