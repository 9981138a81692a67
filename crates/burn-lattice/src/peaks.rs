//! What a device can move and multiply at best: the floor that a convolution's time is held against.

use burn::tensor::{DType, Device};

use crate::backend;

/// Measured ceilings of a device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peaks {
    /// Bytes a second, read and written, by a copy of a large buffer.
    pub bytes_per_s: f64,
    /// Multiplications and additions a second: of a GPU's matrix units where they take the element type, else of its f32 arithmetic; on a
    /// CPU of a dense f32 product by the kernel of `lattice-cpu`.
    pub flop_per_s: f64,
}

impl Peaks {
    /// Measures a device for an element type: about a second, and nothing where the answer is kept on disk. NaN where a device
    /// cannot say.
    pub fn measure(device: &Device, dtype: DType) -> Self {
        let [bytes_per_s, flop_per_s] =
            backend::peaks(device, dtype).unwrap_or_else(lattice_cpu::measure_peaks);
        Self { bytes_per_s, flop_per_s }
    }

    /// Least time in seconds to move so many bytes and do so many operations, if both go on at once.
    pub fn floor_s(&self, bytes: f64, flop: f64) -> f64 {
        (bytes / self.bytes_per_s).max(flop / self.flop_per_s)
    }
}
