//! What can be wrong with input that the caller controls.

/// The error of the whole crate family. Every message names the operation, what was expected, what was found and the fix.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A length, rank or column count is wrong.
    #[error("{op}: expected {expected}, found {found}")]
    Shape {
        /// Operation that refused.
        op: &'static str,
        /// What the operation takes.
        expected: String,
        /// What came.
        found: String,
    },
    /// The number of feature channels is wrong.
    #[error("{op}: expected {expected} channels, found {found}")]
    Channels {
        /// Operation that refused.
        op: &'static str,
        /// Channels the operation takes.
        expected: usize,
        /// Channels that came.
        found: usize,
    },
    /// The element type is wrong.
    #[error("{op}: expected elements of type {expected}, found {found}; convert with `astype`")]
    Dtype {
        /// Operation that refused.
        op: &'static str,
        /// Types the operation takes.
        expected: &'static str,
        /// Type that came.
        found: String,
    },
    /// An argument has a value that the operation cannot take.
    #[error("{op}: {what}")]
    Value {
        /// Operation that refused.
        op: &'static str,
        /// Expected, found and the fix.
        what: String,
    },
    /// A coordinate occurs twice where rows must be distinct.
    #[error(
        "{op}: row {row} repeats coordinate {coord:?} (batch, x, y, z); merge duplicates first, for example with voxelize or a mean reduction"
    )]
    DuplicateCoord {
        /// Operation that refused.
        op: &'static str,
        /// Second row that holds the coordinate.
        row: usize,
        /// The coordinate.
        coord: [i32; 4],
    },
    /// A row holds a value outside the range that can be stored.
    #[error("{op}: row {row}: {what}")]
    OutOfRange {
        /// Operation that refused.
        op: &'static str,
        /// Row of the input.
        row: usize,
        /// Expected, found and the fix.
        what: String,
    },
    /// Two tensors stand on different lattices.
    #[error("{op}: expected tensor stride {expected:?}, found {found:?}")]
    StrideMismatch {
        /// Operation that refused.
        op: &'static str,
        /// Stride the operation needs.
        expected: [u32; 3],
        /// Stride that came.
        found: [u32; 3],
    },
    /// Something belongs to another support or manager.
    #[error("{op}: {what}")]
    Identity {
        /// Operation that refused.
        op: &'static str,
        /// Expected, found and the fix.
        what: String,
    },
    /// A stream of coded symbols is damaged, cut off or of another kind.
    #[error("{op}: byte {byte} of the stream: {what}")]
    Stream {
        /// Operation that refused.
        op: &'static str,
        /// Where, counted from 0.
        byte: usize,
        /// Expected, found and the fix.
        what: String,
    },
    /// A size passes what the data model can address.
    #[error("{op}: {what}")]
    Limit {
        /// Operation that refused.
        op: &'static str,
        /// Limit, size and the fix.
        what: String,
    },
}

/// Result of every fallible operation of the crate family.
pub type Result<T> = std::result::Result<T, Error>;
