//! How kernels of this crate address memory: integers wide enough for their buffers, vectors as wide as a load.

use cubecl::prelude::*;

use crate::gpu::{Buffer, Gpu};

/// Cubes along the first axis of a launch, at most; the rest go along the second.
const MOST_CUBES: usize = 65_535;
/// Units of a cube of kernels with one unit an element.
pub(crate) const UNITS: u32 = 256;

/// Address type that reaches every element of the given buffers, and the positions of the units of the last, partly idle cubes.
pub(crate) fn address_of(buffers: &[&Buffer]) -> AddressType {
    let longest = buffers.iter().map(|buffer| buffer.len).max().unwrap_or(0);
    AddressType::from_len(longest + 2 * MOST_CUBES * UNITS as usize)
}

/// Lanes of the widest vector that `channels` are whole multiples of: at most 16 bytes of `F`.
pub(crate) fn lanes_of<F>(gpu: &Gpu, channels: usize) -> usize {
    let widest = gpu.client().properties().hardware.max_vector_size.min(16 / size_of::<F>());
    let sizes = gpu.client().io_optimized_vector_sizes(size_of::<F>());
    sizes.filter(|&n| n <= widest && channels.is_multiple_of(n)).max().unwrap_or(1)
}

/// Room for `len` elements of type `F`.
pub(crate) fn room_for<F>(gpu: &Gpu, len: usize) -> Buffer {
    gpu.empty(len, size_of::<F>())
}
