//! The textual form of a graph: reading and writing.

mod cursor;
mod parse;
mod print;

pub(crate) use parse::MOST_BYTES;
pub use parse::parse;
