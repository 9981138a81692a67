//! Packed weights: codes of 4 or 8 bits with a scale and a bias a group of input channels, as a storage type that layers run on.
//!
//! * [`quantize_weight`] and [`dequantize_weight`] go between float weights and [`QuantizedWeight`]s; `docs/packed-weights.md` has the rule
//!   and the layout.
//! * [`QuantizedLinear`], [`QuantizedSubmConv3d`] and the like stand in for the float modules. The layers of a network hold packed weights
//!   in place ([`LayerWeight`](crate::nn::LayerWeight)), so that the network's own `forward` runs on them.
//! * [`Calibrator`] finds how the input features of a layer become bytes, where the products are of integers.
//!
//! Which route runs is in [`routes::PACKED_ROUTES`](crate::routes::PACKED_ROUTES). Packed weights have no gradient. Coordinates are those of
//! the float layers.

mod calibration;
pub(crate) mod modules;
mod record;
pub(crate) mod weight;

pub use calibration::{ActivationRange, CalibrationMethod, Calibrator, Granularity};
pub use modules::*;
pub use record::{PackedLayout, PackedRecord};
pub use weight::{QuantizeOptions, QuantizedWeight, dequantize_weight, quantize_weight};
