//! Model artifacts: a trained sparse network as a folder of a text graph (`graph.mlir`) and a weight file (`weights.safetensors`), which
//! mlx-lattice and torch-lattice read and write, too.
//!
//! * [`parse`], [`verify`], [`status`]: from a text to a [`Graph`](ir::Graph), which says what is written, to a [`Plan`], which kept every rule.
//!   Faults have line and column. The canonical text is the graph's `Display`.
//! * [`Artifact`]: a plan with weights that fit it; [`Artifact::load`] and [`Artifact::save`].
//! * [`Executor`]: runs an artifact on any device. [`Inputs`] and [`Outputs`] are by name; [`describe`] says what each node does there.
//! * [`GraphBuilder`], [`Export`]: graphs made here, by hand or from modules; [`export_network`] for those of `lattice-models`.
//! * [`compare`](fn@compare): results against expected ones, sparse ones as sets of rows.
//!
//! Coordinates are *physical* (times the stride) in arrays that go into or come out of a graph, and logical in every [`SparseTensor`]: the
//! executor divides and multiplies where the two meet. Rows past the number of active ones are dropped where they enter.
//!
//! Packed weights stay packed: operations read the words of the file, put on the device by `weights/place.rs`.
//! Graphs are for inference: nothing here is differentiable.
//!
//! ```
//! use burn_lattice::KernelSpec;
//! use lattice_artifact::ir::Element;
//! use lattice_artifact::{Array, ExecuteOptions, Executor, Family, GraphBuilder, Inputs};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut graph = GraphBuilder::new(Element::F32)?;
//! let x = graph.sparse_input("x", Some(1), [1; 3]);
//! let kernel = Array::from_f32(&[1, 3, 1, 1, 1], &[1.0, 10.0, 100.0])?; // [c_out, kx, ky, kz, c_in]
//! let weight = graph.weight("w", Family::Conv3d, &kernel)?;
//! let y = graph.subm_conv3d(x, (weight, None), &KernelSpec::try_new([3, 1, 1], [1; 3], [0; 3], [1; 3])?, None);
//! graph.sparse_output("y", y);
//! let artifact = graph.finish()?;
//! assert!(artifact.graph().to_string().contains("lattice.subm_conv3d"));
//!
//! let executor = Executor::new(artifact, &burn::tensor::Device::flex(), ExecuteOptions::default());
//! let inputs = Inputs::new()
//!     .array("x_coords", Array::from_coords(&[[0, 0, 0, 0], [0, 1, 0, 0], [0, 3, 0, 0]]))
//!     .array("x_features", Array::from_f32(&[3, 1], &[1.0, 3.0, 5.0])?)
//!     .array("x_active", Array::from_i32(&[1], &[3])?);
//! let arrays = executor.run(&inputs)?.to_arrays()?;
//! assert_eq!(arrays[1].1.to_f32().as_deref(), Some(&[310.0, 31.0, 50.0][..]));
//! # Ok(())
//! # }
//! ```
//!
//! [`SparseTensor`]: burn_lattice::SparseTensor
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
