//! Features in bytes: `byte = round(clamp(x / step + zero, 0, 255))`, ties to even.

use cubecl::prelude::*;

use crate::address::address_of;
use crate::arena::Life;
use crate::gpu::{Buffer, Gpu};

/// How rows of bytes are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ByteLayout {
    pub(super) c_in: usize,
    /// Bytes of a row: whole pieces of 64 channels, or of 32 where `single`.
    pub(super) row_bytes: usize,
    /// Whether a piece is one step of 32 channels, not two.
    pub(super) single: bool,
    /// Sums of a row: one a span of channels whose products are converted together.
    pub(super) spans: usize,
}

impl ByteLayout {
    fn piece_bytes(&self) -> usize {
        if self.single { 32 } else { 64 }
    }

    /// Spans of a piece: one or two.
    fn piece_spans(&self) -> usize {
        self.spans / (self.row_bytes / self.piece_bytes())
    }
}

/// `x [n, c_in]` in bytes `[n, row_bytes]`, 16 a unit, and `Σ (byte - zero)` a span, NaN where a value is not finite.
///
/// The 16 bytes of a unit are what one lane multiplies of a piece: eight channels of each of its two steps, so that a step has 32
/// consecutive channels. `codes`: one over the step of each channel, then its byte of 0.
#[cube(launch_unchecked, address_type = "dynamic")]
fn quantize_rows_kernel<F: Float, N: Size>(
    x: &[Vector<F, N>],
    codes: &[f32],
    bytes: &mut [Vector<u32, Const<4>>],
    sums: &mut [f32],
    n_units: u32,
    #[comptime] layout: ByteLayout,
) {
    let n = N::value();
    let unit = ABSOLUTE_POS as u32;
    // Lanes of a piece add up their sums together, so that none leaves.
    let at = min(unit, n_units - 1u32);
    let row_units = comptime!((layout.row_bytes / 16) as u32);
    let row = at / row_units;
    let of_row = at % row_units;
    let lanes = comptime!((layout.piece_bytes() / 16) as u32);
    let piece = of_row / lanes;
    let quad = of_row % lanes;
    let c_in = comptime!(layout.c_in as u32);
    let mut found = Vector::<u32, Const<4>>::empty();
    let mut of_half = Array::<f32>::new(2usize);
    #[unroll]
    for half in 0usize..2usize {
        let mut sum = 0.0f32;
        let mut exponents = 0u32;
        #[unroll]
        for side in 0usize..2usize {
            let first = if comptime!(layout.single) {
                piece * 32u32 + quad * 16u32 + comptime!((half * 8 + side * 4) as u32)
            } else {
                piece * 64u32 + quad * 8u32 + comptime!((half * 32 + side * 4) as u32)
            };
            let mut word = 0u32;
            #[unroll]
            for v in 0usize..comptime!(4 / n) {
                let channel = first + comptime!((v * n) as u32);
                if channel < c_in {
                    let values = x[row as usize * comptime!(layout.c_in / n) + channel as usize / n];
                    #[unroll]
                    for i in 0usize..n {
                        let c = (channel + i as u32) as usize;
                        let value = f32::cast_from(values.extract(i));
                        let zero = codes[c + comptime!(layout.c_in)];
                        let scaled = clamp(value * codes[c] + zero, 0.0f32, 255.0f32);
                        // The lowest bits of 1.5 · 2^23 count ones.
                        let byte = u32::reinterpret(scaled + 12_582_912.0f32) & 0xffu32;
                        sum += f32::cast_from(byte) - zero;
                        exponents = max(exponents, u32::reinterpret(value) & 0x7f80_0000u32);
                        word |= byte << comptime!((8 * (v * n + i)) as u32);
                    }
                }
            }
            found.insert(comptime!(half * 2 + side), word);
        }
        of_half[half] = select(exponents == 0x7f80_0000u32, f32::reinterpret(0x7fc0_0000u32), sum);
    }
    if unit < n_units {
        bytes[at as usize] = found;
    }
    // Shuffles take the lanes that have arrived: all of them have to.
    sync_cube();
    let piece_spans = comptime!(layout.piece_spans());
    let first_span = row * comptime!(layout.spans as u32) + piece * comptime!(piece_spans as u32);
    let mut of_spans = Array::<f32>::new(piece_spans);
    #[unroll]
    for span in 0usize..piece_spans {
        let mut sum = if comptime!(piece_spans == 2) { of_half[span] } else { of_half[0] + of_half[1] };
        sum += plane_shuffle_xor(sum, 1u32);
        if comptime!(!layout.single) {
            sum += plane_shuffle_xor(sum, 2u32);
        }
        of_spans[span] = sum;
    }
    if unit < n_units && quad == 0u32 {
        #[unroll]
        for span in 0usize..piece_spans {
            sums[(first_span + comptime!(span as u32)) as usize] = of_spans[span];
        }
    }
}

/// Features in bytes, and their sums.
pub(super) struct ByteRows {
    pub(super) bytes: Buffer,
    pub(super) sums: Buffer,
}

/// Quantizes `rows` rows; one launch. `codes` as the kernel has them. The bytes are counted in words.
pub(super) fn quantize_rows<F: Float + CubeElement>(
    gpu: &Gpu,
    x: &Buffer,
    codes: &Buffer,
    rows: usize,
    layout: ByteLayout,
    life: Life,
) -> ByteRows {
    assert_eq!(x.len, rows * layout.c_in, "quantize_rows: length of the features");
    let units = rows * layout.row_bytes / 16;
    let bytes = gpu.room(4 * units, 4, life);
    let sums = gpu.room(rows * layout.spans, 4, life);
    let lanes = if layout.c_in.is_multiple_of(4) { 4 } else { 1 };
    if units > 0 {
        // SAFETY: one unit 16 bytes of a row; channels are checked against their number.
        unsafe {
            quantize_rows_kernel::launch_unchecked::<F>(
                gpu.client(),
                Gpu::cubes(units, 256),
                CubeDim::new_1d(256),
                address_of(&[x, &bytes]),
                lanes,
                x.arg(lanes),
                codes.arg(1),
                bytes.arg(4),
                sums.arg(1),
                units as u32,
                layout,
            );
        }
    }
    ByteRows { bytes, sums }
}
