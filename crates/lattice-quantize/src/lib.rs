//! Whole networks in packed weights.
//!
//! * [`fold_norms`] takes batch norms into the convolutions before them, [`plan`] decides layer by layer and says why, [`pack`] packs in
//!   place: the network's own `forward` then runs on the packed weights. [`kept_modules`] lists what else has parameters and stays float.
//! * [`calibrate`] finds how the input features of the layers become bytes, from runs on representative scenes.
//! * [`layer_errors`] compares every packed layer with the float layer on its own input.
//! * [`save`] and [`load`] keep packed tensors packed, in the layout of `docs/packed-weights.md`.
//!
//! Works on every network that walks over its layers ([`Layers`](burn_lattice::nn::Layers)). Not for training: packed weights have no
//! gradient.
#![forbid(unsafe_code)]

mod calibrate;
mod errors;
mod file;
mod kept;
mod pass;

pub use calibrate::{Ranges, calibrate};
pub use errors::{LayerError, layer_errors};
pub use file::{KEY, load, load_bytes, parameter_bytes, save, texts_of};
pub use kept::{KeptModule, kept_modules};
pub use pass::{Action, Decision, PassOptions, fold_norms, pack, plan, weights_of};

/// What can be wrong with a network or a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuantizeError {
    /// A layer that cannot be packed, run or restored.
    #[error("layer `{path}`: {source}")]
    Layer {
        /// Path of the layer.
        path: String,
        /// Why.
        #[source]
        source: burn_lattice::Error,
    },
    /// A file that cannot be used.
    #[error("{file}: {what}")]
    File {
        /// The file.
        file: String,
        /// Expected, found and the fix.
        what: String,
    },
    /// A file that cannot be written.
    #[error(transparent)]
    Write(#[from] lattice_io::WriteError),
    /// An option that the network cannot take.
    #[error("{0}")]
    Option(String),
}

/// Result of this crate.
pub type Result<T, E = QuantizeError> = std::result::Result<T, E>;
