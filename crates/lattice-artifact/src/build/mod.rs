//! Building a graph, one operation after another.

mod builder;
mod convolutions;
mod operations;
mod values;

pub use builder::GraphBuilder;
pub use values::{ArrayValue, DenseValue, SparseInputValues, SparseValue, WeightValue};
