//! Cropping to a box.

use burn::config::Config;
use burn::module::Module;

use super::or_panic;
use crate::ops;
use crate::{Result, SparseTensor};

/// Options of [`SparseCrop`].
#[derive(Config, Debug)]
pub struct SparseCropConfig {
    /// Lowest coordinate that stays, along x, y, z; left out, nothing is cut off below.
    pub min: Option<[i32; 3]>,
    /// First coordinate that goes, along x, y, z; left out, nothing is cut off above.
    pub max: Option<[i32; 3]>,
}

/// Keeps the rows with `min <= xyz < max` on every axis, in logical coordinates, of every batch item.
#[derive(Module, Debug)]
pub struct SparseCrop {
    #[module(skip)]
    min: Option<[i32; 3]>,
    #[module(skip)]
    max: Option<[i32; 3]>,
}

impl SparseCropConfig {
    /// The module.
    pub fn init(&self) -> SparseCrop {
        SparseCrop { min: self.min, max: self.max }
    }
}

impl SparseCrop {
    /// `[n, c]` to `[kept, c]` in the input's order.
    ///
    /// # Panics
    /// With the error of [`ops::crop_half_open`].
    pub fn forward(&self, x: &SparseTensor) -> SparseTensor {
        or_panic(self.try_forward(x))
    }

    /// [`forward`](Self::forward) that returns its error.
    ///
    /// # Errors
    /// As [`ops::crop_half_open`].
    pub fn try_forward(&self, x: &SparseTensor) -> Result<SparseTensor> {
        ops::crop_half_open(x, self.min, self.max)
    }
}
