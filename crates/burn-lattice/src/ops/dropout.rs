//! Dropout by a counter-based generator: element `i` of call `c` under seed `s` is kept or not, whatever runs where.

use burn::tensor::{Tensor, TensorData};

use super::precision::widened;
use crate::tensor::check_features;
use crate::{Error, Result, SparseTensor};

/// Which random mask a [`dropout`] draws.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DropoutKey {
    /// The network's or layer's seed.
    pub seed: u64,
    /// Number of the call; each has a mask of its own.
    pub call: u64,
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection of 64 bits in which every input bit reaches every output bit.
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

impl DropoutKey {
    /// Whether each of `len` elements is kept, with probability `1 - p` each, independently.
    pub fn mask(&self, len: usize, p: f64) -> Vec<bool> {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let start = mix(mix(self.seed.wrapping_add(STEP)).wrapping_add(self.call.wrapping_mul(STEP)));
        let uniform = |i: usize| {
            let bits = mix(start.wrapping_add((i as u64).wrapping_add(1).wrapping_mul(STEP)));
            // The top 53 bits, exactly representable in [0, 1).
            (bits >> 11) as f64 / (1u64 << 53) as f64
        };
        (0..len).map(|i| uniform(i) >= p).collect()
    }
}

/// Sets each element to 0 with probability `p` and divides the others by `1 - p`; the gradient takes the same mask.
///
/// Elements are counted in row-major order. Keeps identity and element type. Identity for `p = 0`.
///
/// # Errors
/// `p` outside `[0, 1)`.
pub fn dropout(x: &SparseTensor, p: f64, key: DropoutKey) -> Result<SparseTensor> {
    x.with_feats(dropout_features(x.feats().clone(), p, key)?)
}

/// [`dropout`] on bare features `[n, c]`.
///
/// # Errors
/// As [`dropout`].
pub fn dropout_features(feats: Tensor<2>, p: f64, key: DropoutKey) -> Result<Tensor<2>> {
    check_dropout("dropout", p)?;
    check_features("dropout", &feats)?;
    if p == 0.0 {
        return Ok(feats);
    }
    let [rows, channels] = feats.dims();
    let keep: Vec<f32> =
        key.mask(rows * channels, p).into_iter().map(|kept| f32::from(u8::from(kept))).collect();
    Ok(widened(feats, |x| {
        let options = (&x.device(), x.dtype());
        let keep = Tensor::<2>::from_data(TensorData::new(keep, [rows, channels]), options);
        x * keep * (1.0 / (1.0 - p))
    }))
}

pub(crate) fn check_dropout(op: &'static str, p: f64) -> Result<()> {
    match (0.0..1.0).contains(&p) {
        true => Ok(()),
        false => Err(Error::Value { op, what: format!("expected a probability in [0, 1), found {p}") }),
    }
}
