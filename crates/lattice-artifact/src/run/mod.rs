//! Running an artifact: inputs by name, operations in order, outputs by name.

mod convolution;
mod dense;
mod executor;
mod fuse;
mod inputs;
mod outputs;
mod points;
mod sparse;
mod value;

pub(crate) use fuse::steps;
pub(crate) use value::dtype_of;

pub use executor::{CoordinateDomain, ExecuteOptions, Executor};
pub use inputs::Inputs;
pub use outputs::{OutputValue, Outputs, physical_rows};
