//! Loads of channels into registers, as f32.

use cubecl::prelude::*;

/// Four channels of row `row` from `channel`, a multiple of four, on; zeros past the last of `c`.
///
/// `x`: `[n, c]` in vectors of four where `c` is a multiple of it, else of one. The row must exist.
#[cube]
pub(crate) fn load_channels<F: Float, X: Size>(
    x: &[Vector<F, X>],
    row: u32,
    channel: u32,
    c: u32,
) -> Vector<f32, Const<4>> {
    let mut value = Vector::<f32, Const<4>>::new(0.0f32);
    let at = row as usize * c as usize + channel as usize;
    let lanes = X::value();
    if comptime!(lanes == 4) {
        if channel < c {
            value = Vector::cast_from(x[at / 4usize]);
        }
    } else {
        #[unroll]
        for lane in 0usize..4usize {
            if channel + (lane as u32) < c {
                value.insert(lane, f32::cast_from(x[at + lane].extract(0usize)));
            }
        }
    }
    value
}

/// Lanes of the vectors that [`load_channels`] reads.
pub(crate) fn load_lanes(c: usize) -> usize {
    if c.is_multiple_of(4) { 4 } else { 1 }
}
