//! Checkpoints of other sparse convolution libraries, brought to networks of [`lattice_models`].
//!
//! [`import_file`] reads a `.pth` or `.safetensors` file, renames its tensors, turns every convolution weight into
//! `[taps, c_in, c_out]` with z fastest among taps, and checks that each parameter of the network got exactly one tensor that fits.
//! [`Mapping`] says how a library lays its weights out and names them: [`Library`] has one for each, a TOML or JSON file changes it.
//! [`Imported::save`] writes a `.safetensors` file that says which network it is for.
//!
//! Only tensors are read; nothing in a checkpoint is executed. Not for formats of scans (`lattice-io`).

mod checkpoint;
mod error;
mod import;
mod layout;
mod mapping;
mod names;
mod paths;
mod weights_file;

pub use checkpoint::*;
pub use error::*;
pub use import::*;
pub use layout::*;
pub use mapping::*;
pub use paths::paths;
pub use weights_file::*;
