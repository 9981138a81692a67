//! From codes to values, a panel at a time.

use std::borrow::Cow;
use std::ops::Range;

use rayon::prelude::*;

use super::PackedShape;
use crate::Scalar;
use crate::simd::Engine;

/// Most columns of a panel.
pub(crate) const MOST_COLUMNS: usize = 64;

/// The top bit of every byte: what codes of 8 bits differ by from signed bytes.
const SIGN_BITS: u32 = 0x8080_8080;

/// A packed weight with the output channel fastest: words `[taps, row words, c_out]`, scales and biases `[taps, row groups, c_out]`.
///
/// The storage of several taps is taken as it is; that of one tap, which has the rows' words together, is transposed once.
#[derive(Clone, Debug)]
pub struct PackedTaps<'a, S: Clone> {
    shape: PackedShape,
    words: Cow<'a, [u32]>,
    scales: Cow<'a, [S]>,
    biases: Cow<'a, [S]>,
}

/// `[rows, columns]` to `[columns, rows]`.
fn transposed<V: Copy>(values: &[V], columns: usize) -> Vec<V> {
    let rows = values.len() / columns;
    (0..values.len()).map(|i| values[i % rows * columns + i / rows]).collect()
}

impl<'a, S: Scalar<Acc = f32>> PackedTaps<'a, S> {
    /// Reads the storage of [`PackedShape::word_dims`] and [`PackedShape::scale_dims`].
    ///
    /// # Panics
    /// When a slice does not have its length.
    pub fn new(shape: PackedShape, words: &'a [u32], scales: &'a [S], biases: &'a [S]) -> Self {
        assert_eq!(words.len(), shape.words(), "packed weight: number of words");
        assert_eq!(
            (scales.len(), biases.len()),
            (shape.scales(), shape.scales()),
            "packed weight: number of scales and biases"
        );
        if shape.taps == 1 && shape.c_out > 1 {
            let by_group = |values| Cow::Owned(transposed(values, shape.row_groups()));
            return Self {
                shape,
                words: Cow::Owned(transposed(words, shape.row_words())),
                scales: by_group(scales),
                biases: by_group(biases),
            };
        }
        Self { shape, words: words.into(), scales: scales.into(), biases: biases.into() }
    }

    /// Sizes.
    pub fn shape(&self) -> PackedShape {
        self.shape
    }

    /// All values in f32, `[taps, c_in, c_out]`: `scale · code + bias`, two roundings.
    pub fn dequantize(&self) -> Vec<f32> {
        let PackedShape { c_in, c_out, .. } = self.shape;
        let mut out = vec![0.0; self.shape.values()];
        out.par_chunks_mut(c_in * c_out).enumerate().for_each(|(tap, out)| {
            for first in (0..c_out).step_by(MOST_COLUMNS) {
                let cols = first..c_out.min(first + MOST_COLUMNS);
                let mut panel = vec![0.0; c_in * cols.len()];
                self.panel(Engine::Scalar, tap, 0..c_in, cols.clone(), cols.len(), &mut panel);
                for (row, panel) in out.chunks_exact_mut(c_out).zip(panel.chunks_exact(cols.len())) {
                    row[cols.clone()].copy_from_slice(panel);
                }
            }
        });
        out
    }

    /// Scales and biases of one group and some columns, widened; columns past the end are 0.
    #[inline(always)]
    pub(crate) fn affine(
        &self,
        engine: Engine,
        tap: usize,
        group: usize,
        cols: &Range<usize>,
    ) -> ([f32; MOST_COLUMNS], [f32; MOST_COLUMNS]) {
        let at = (tap * self.shape.row_groups() + group) * self.shape.c_out;
        let range = at + cols.start..at + cols.end;
        let (mut scales, mut biases) = ([0.0; MOST_COLUMNS], [0.0; MOST_COLUMNS]);
        S::widen(engine, &self.scales[range.clone()], &mut scales[..cols.len()]);
        S::widen(engine, &self.biases[range], &mut biases[..cols.len()]);
        (scales, biases)
    }

    /// The words of a row of words and some columns.
    #[inline(always)]
    fn words(&self, tap: usize, word: usize, cols: &Range<usize>) -> &[u32] {
        let at = (tap * self.shape.row_words() + word) * self.shape.c_out;
        &self.words[at + cols.start..at + cols.end]
    }

    /// Values of some channels of a row and at most 64 columns, `[channels, width]`; columns past the end are 0. The first channel is
    /// the first of a word.
    pub(crate) fn panel(
        &self,
        engine: Engine,
        tap: usize,
        channels: Range<usize>,
        cols: Range<usize>,
        width: usize,
        out: &mut [f32],
    ) {
        let (bits, per_word, group_size) =
            (self.shape.bits, self.shape.codes_per_word(), self.shape.group_size);
        let mask = self.shape.largest_code();
        assert!(channels.start.is_multiple_of(per_word) && cols.len() <= width.min(MOST_COLUMNS));
        let mut at = channels.start;
        while at < channels.end {
            let group = at / group_size;
            let end = channels.end.min((group + 1) * group_size);
            let (scales, biases) = self.affine(engine, tap, group, &cols);
            engine.vectorize(|| {
                for first in (at..end).step_by(per_word) {
                    let words = self.words(tap, first / per_word, &cols);
                    for channel in first..end.min(first + per_word) {
                        let shift = bits * (channel - first) as u32;
                        let row = &mut out[(channel - channels.start) * width..][..width];
                        let (row, pad) = row.split_at_mut(words.len());
                        for (((v, word), scale), bias) in row.iter_mut().zip(words).zip(&scales).zip(&biases)
                        {
                            *v = scale * (word >> shift & mask) as i32 as f32 + bias;
                        }
                        pad.fill(0.0);
                    }
                }
            });
            at = end;
        }
    }

    /// What codes of 8 bits are less 128 to fit signed bytes; codes of 4 bits fit as they are.
    pub(crate) fn code_offset(&self) -> f32 {
        if self.shape.bits == 8 { 128.0 } else { 0.0 }
    }

    /// Signed codes of one group of a row and at most 64 columns, four channels a word, `[quads, width]`; columns past the end are 0.
    pub(crate) fn quads(
        &self,
        engine: Engine,
        tap: usize,
        group: usize,
        cols: Range<usize>,
        width: usize,
        out: &mut [u32],
    ) {
        let first = group * self.shape.group_size;
        let quads = (self.shape.c_in - first).min(self.shape.group_size).div_ceil(4);
        assert!(cols.len() <= width && quads * width <= out.len());
        engine.vectorize(|| {
            for (quad, row) in out.chunks_exact_mut(width).take(quads).enumerate() {
                let (row, pad) = row.split_at_mut(cols.len());
                pad.fill(0);
                if self.shape.bits == 8 {
                    for (v, word) in row.iter_mut().zip(self.words(tap, first / 4 + quad, &cols)) {
                        *v = word ^ SIGN_BITS;
                    }
                } else {
                    let shift = 16 * (quad as u32 % 2);
                    for (v, word) in row.iter_mut().zip(self.words(tap, first / 8 + quad / 2, &cols)) {
                        let w = word >> shift;
                        *v = w & 0xf | (w & 0xf0) << 4 | (w & 0xf00) << 8 | (w & 0xf000) << 12;
                    }
                }
            }
        });
    }

    /// `Σ zeros · signed code` over the channels of every group of a row, `[taps, row groups, c_out]`; `zeros` has the row of each
    /// channel group after another.
    pub(crate) fn weighted_sums(&self, zeros: &[u8]) -> Vec<i32> {
        let PackedShape { bits, group_size, taps, c_in, c_out } = self.shape;
        let (per_word, groups) = (self.shape.codes_per_word(), self.shape.row_groups());
        let per_group = c_out / (zeros.len() / c_in).max(1);
        let mut sums = vec![0; taps * groups * c_out];
        if zeros.iter().all(|&z| z == 0) {
            return sums;
        }
        let (mask, offset) = (self.shape.largest_code(), self.code_offset() as i32);
        sums.par_chunks_mut(c_out).enumerate().for_each(|(at, sums)| {
            let (tap, group) = (at / groups, at % groups);
            for channel in group * group_size..c_in.min((group + 1) * group_size) {
                let words = self.words(tap, channel / per_word, &(0..c_out));
                let shift = bits * (channel % per_word) as u32;
                for ((co, sum), word) in sums.iter_mut().enumerate().zip(words) {
                    let zero = i32::from(zeros[co / per_group * c_in + channel]);
                    *sum += zero * ((word >> shift & mask) as i32 - offset);
                }
            }
        });
        sums
    }
}
