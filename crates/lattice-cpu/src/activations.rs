//! Features in bytes, for products of integers.

use rayon::prelude::*;

use crate::Scalar;
use crate::isa::engine;
use crate::simd::Engine;

/// How features become bytes: `byte = round(clamp(x / step + zero, 0, 255))` a channel, ties to even.
#[derive(Clone, Debug, PartialEq)]
pub struct ActivationCodes {
    inverse: Vec<f32>,
    zeros: Vec<u8>,
    step: f32,
}

impl ActivationCodes {
    /// Steps, finite and above 0, and bytes of 0, one a channel.
    ///
    /// # Panics
    /// Lengths that differ, or no channels.
    pub fn new(steps: &[f32], zeros: &[u8]) -> Self {
        assert!(
            !steps.is_empty() && steps.len() == zeros.len(),
            "activation codes: one step and zero a channel"
        );
        Self {
            inverse: steps.iter().map(|s| 1.0 / s).collect(),
            zeros: zeros.to_vec(),
            step: steps.iter().fold(0.0, |a, &b| a.max(b)),
        }
    }

    /// The largest step: what the products of bytes are multiplied with. Where channels have smaller ones, the weights hold the ratio.
    pub fn step(&self) -> f32 {
        self.step
    }

    /// The bytes of 0.
    pub fn zeros(&self) -> &[u8] {
        &self.zeros
    }
}

/// Rows of features in bytes, and what each row's groups sum to.
#[derive(Clone, Debug, PartialEq)]
pub struct ByteRows {
    pub(crate) codes: Vec<u8>,
    pub(crate) sums: Vec<f32>,
    /// Bytes of a channel group: its channels, rounded up to four.
    pub(crate) group_bytes: usize,
    /// Scale groups of a channel group.
    pub(crate) row_groups: usize,
    groups: usize,
}

impl ByteRows {
    /// Bytes of features `[n, c_in]` in channel groups, for weights with `group_size` channels a scale.
    ///
    /// A row with a value that is not finite has sums of NaN, so that results of it are NaN.
    ///
    /// # Panics
    /// When the codes are not for `c_in` channels, or `groups` does not divide them.
    pub fn quantize<T: Scalar<Acc = f32>>(
        x: &[T],
        codes: &ActivationCodes,
        groups: usize,
        group_size: usize,
    ) -> Self {
        let c_in = codes.zeros.len();
        assert!(
            x.len().is_multiple_of(c_in) && groups > 0 && c_in.is_multiple_of(groups),
            "byte rows: shape"
        );
        let k = c_in / groups;
        let (group_bytes, row_groups) = (k.div_ceil(4) * 4, k.div_ceil(group_size));
        let rows = x.len() / c_in;
        let mut found = Self {
            codes: vec![0; rows * groups * group_bytes],
            sums: vec![0.0; rows * groups * row_groups],
            group_bytes,
            row_groups,
            groups,
        };
        let engine = engine();
        const BLOCK: usize = 64;
        found
            .codes
            .par_chunks_mut(BLOCK * groups * group_bytes)
            .zip(found.sums.par_chunks_mut(BLOCK * groups * row_groups))
            .zip(x.par_chunks(BLOCK * c_in))
            .for_each(|((bytes, sums), x)| {
                let mut wide = vec![0.0; c_in];
                let rows = bytes
                    .chunks_exact_mut(groups * group_bytes)
                    .zip(sums.chunks_exact_mut(groups * row_groups));
                for ((bytes, sums), x) in rows.zip(x.chunks_exact(c_in)) {
                    let x = match T::as_acc(x) {
                        Some(x) => x,
                        None => {
                            T::widen(engine, x, &mut wide);
                            &wide
                        }
                    };
                    for group in 0..groups {
                        let channels = group * k..(group + 1) * k;
                        let bytes = &mut bytes[group * group_bytes..][..k];
                        let (inverse, zeros) =
                            (&codes.inverse[channels.clone()], &codes.zeros[channels.clone()]);
                        to_bytes(engine, &x[channels], inverse, zeros, bytes);
                        let sums = &mut sums[group * row_groups..][..row_groups];
                        let parts = bytes.chunks(group_size).zip(zeros.chunks(group_size));
                        for (sum, (bytes, zeros)) in sums.iter_mut().zip(parts) {
                            *sum = engine.vectorize(|| {
                                bytes
                                    .iter()
                                    .zip(zeros)
                                    .map(|(&b, &z)| i32::from(b) - i32::from(z))
                                    .sum::<i32>()
                            }) as f32;
                        }
                    }
                    // The sum of products with 0 is 0, unless a value is not finite.
                    let finite = engine.vectorize(|| x.iter().map(|v| v * 0.0).sum::<f32>()) == 0.0;
                    if !finite {
                        sums.fill(f32::NAN);
                    }
                }
            });
        found
    }

    /// Bytes of a row: channel groups one after another, each rounded up to four with zeros.
    pub fn row_bytes(&self) -> usize {
        self.groups * self.group_bytes
    }

    /// All bytes, row by row.
    pub fn codes(&self) -> &[u8] {
        &self.codes
    }

    /// `Σ (byte - zero)` a row, channel group and scale group.
    pub fn sums(&self) -> &[f32] {
        &self.sums
    }

    pub(crate) fn row_sums(&self) -> usize {
        self.groups * self.row_groups
    }
}

/// 1.5 · 2^23: a number below 2^22 that is added to it is rounded to an integer, ties to even, in the lowest bits.
const ROUND: f32 = 12_582_912.0;

fn to_bytes(engine: Engine, x: &[f32], inverse: &[f32], zeros: &[u8], bytes: &mut [u8]) {
    engine.vectorize(|| {
        for (((byte, &x), &inverse), &zero) in bytes.iter_mut().zip(x).zip(inverse).zip(zeros) {
            let v = (x * inverse + f32::from(zero)).clamp(0.0, 255.0);
            *byte = (v + ROUND).to_bits() as u8;
        }
    });
}
