//! From values to codes.

use lattice_core::{Error, Result};
use rayon::prelude::*;

use super::PackedShape;

/// Smallest step between two codes: a group of zeros has this one, negative.
const SMALLEST_STEP: f32 = 1e-7;

/// Codes, scales and biases in the order of [`PackedShape::word_dims`] and [`PackedShape::scale_dims`].
#[derive(Clone, Debug, PartialEq)]
pub struct PackedWeights {
    /// Codes, the lowest channel in the lowest bits.
    pub words: Vec<u32>,
    /// Steps between codes, in f32 before any rounding to the storage type.
    pub scales: Vec<f32>,
    /// Values of code 0, likewise.
    pub biases: Vec<f32>,
}

/// Step, bias and codes of one group, by the rule of `docs/packed-weights.md`.
fn quantize_group(values: &[f32], largest: u32, codes: &mut [u32]) -> (f32, f32) {
    let (lo, hi) =
        values.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(lo, hi), &v| (lo.min(v), hi.max(v)));
    let negative = lo.abs() > hi.abs();
    let step = ((hi - lo) / largest as f32).max(SMALLEST_STEP);
    let (step, edge) = if negative { (step, lo) } else { (-step, hi) };
    // The edge of the larger magnitude gets a whole code, so that zero is one of the values, or nearly so.
    let code_of_edge = (edge / step).round_ties_even();
    let (step, bias) = if code_of_edge != 0.0 { (edge / code_of_edge, edge) } else { (step, 0.0) };
    for (code, &v) in codes.iter_mut().zip(values) {
        *code = ((v - bias) / step).round_ties_even().clamp(0.0, largest as f32) as u32;
    }
    (step, bias)
}

/// Quantizes rows `[taps · c_out, c_in]`; padding zeros count in the groups' extremes.
///
/// Codes depend on the values in f32 alone: whoever stores scales and biases in another type rounds them afterwards.
///
/// # Errors
/// A value that is not finite, or a group whose extremes are further apart than f32 holds.
///
/// # Panics
/// When `rows` does not have its length.
pub fn quantize_rows(op: &'static str, rows: &[f32], shape: &PackedShape) -> Result<PackedWeights> {
    let (c_in, c_out) = (shape.c_in, shape.c_out);
    assert_eq!(rows.len(), shape.values(), "{op}: length of the rows");
    if let Some(at) = rows.iter().position(|v| !v.is_finite()) {
        let (row, channel) = (at / c_in, at % c_in);
        return Err(Error::Value {
            op,
            what: format!(
                "expected finite weights, found {} at tap {}, output channel {}, input channel {channel}; repair the weights first",
                rows[at],
                row / c_out,
                row % c_out
            ),
        });
    }
    let (per_word, per_row, groups) = (shape.codes_per_word(), shape.row_words(), shape.row_groups());
    let mut found = PackedWeights {
        words: vec![0; shape.words()],
        scales: vec![0.0; shape.scales()],
        biases: vec![0.0; shape.scales()],
    };
    // One tap's part is contiguous in either layout.
    let place = |per_row: usize, row: usize, i: usize| match shape.taps {
        1 => row * per_row + i,
        _ => i * c_out + row,
    };
    let parts = rows
        .par_chunks(c_in * c_out)
        .zip(found.words.par_chunks_mut(per_row * c_out))
        .zip(found.scales.par_chunks_mut(groups * c_out))
        .zip(found.biases.par_chunks_mut(groups * c_out));
    let overflow = parts.map(|(((rows, words), scales), biases)| {
        let mut row = vec![0.0; shape.storage_channels()];
        let mut codes = vec![0u32; shape.group_size];
        for (r, values) in rows.chunks_exact(c_in).enumerate() {
            row[..c_in].copy_from_slice(values);
            for (g, values) in row.chunks_exact(shape.group_size).enumerate() {
                let (step, bias) = quantize_group(values, shape.largest_code(), &mut codes);
                if !step.is_finite() {
                    return true;
                }
                scales[place(groups, r, g)] = step;
                biases[place(groups, r, g)] = bias;
                for (i, codes) in codes.chunks_exact(per_word).enumerate() {
                    let word = codes.iter().rev().fold(0, |word, code| word << shape.bits | code);
                    words[place(per_row, r, g * shape.group_size / per_word + i)] = word;
                }
            }
        }
        false
    });
    if overflow.reduce(|| false, |a, b| a | b) {
        return Err(Error::Value {
            op,
            what: "expected groups whose largest and smallest weight differ by less than 3.4e38, found more; rescale the weights"
                .into(),
        });
    }
    Ok(found)
}
