//! Model artifacts: a trained sparse network as a directory of a text graph and a weight file.
#![forbid(unsafe_code)]

mod array;
mod artifact;
mod build;
mod compare;
mod error;
mod export;
mod inspect;
mod plan;
mod run;
mod tensor_file;
mod text;
mod verify;
mod weights;

pub mod ir;
pub mod schema;

pub use array::Array;
pub use artifact::Artifact;
pub use build::*;
pub use compare::*;
pub use error::*;
pub use export::*;
pub use inspect::*;
pub use plan::*;
pub use run::*;
pub use tensor_file::{TensorFile, write_arrays};
pub use text::parse;
pub use verify::{Status, status, verify};
pub use weights::{PackedWeight, StoredKind};
