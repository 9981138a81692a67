//! Convolutions over tiles.
//!
//! * [`mma`]: f16 and bf16 on devices with 16 x 8 x 16 matrix instructions and `ldmatrix`; f32 sums.
//!   Packed weights become its fragments in registers or in one launch; features in bytes are multiplied by codes.
//! * [`cmma`]: the same types on devices with 16 x 16 x 16 matrix instructions whose layout is their own.
//! * [`plain`]: one group, any dtype and device; register-blocked f32 arithmetic.
//! * [`direct`]: always possible; groups, depthwise.
//! * [`dequantize()`]: packed weights to floats, for all of these.
//! * [`weight_grad`]: the gradient of a weight, any groups, dtype and device.

pub mod cmma;
mod dequantize;
pub mod direct;
mod finish;
mod load;
pub mod mma;
pub mod plain;
mod reverse;
mod shape;
pub mod weight_grad;

pub use dequantize::dequantize;
pub use reverse::reverse_taps;
pub use shape::ConvShape;
