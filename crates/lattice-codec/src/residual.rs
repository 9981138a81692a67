//! Attribute values of a block's voxels: predicted from voxels coded before, differences coded adaptively.

use crate::coder::BitCoder;
use crate::mix::{Learn, Mixer, Slot, code_with, slots};

const LIMIT: usize = 250;
/// Voxels looked back at where none is adjacent.
const LOOK_BACK: usize = 4;
/// Sizes of differences and spreads: bits of a number of 64.
const SIZES: usize = 65;

/// Voxels of a block and which of those coded before surround each.
pub(crate) struct Surrounds<'a> {
    pub(crate) voxels: &'a [[u32; 3]],
    /// Where the neighbours of each voxel begin, then their number.
    pub(crate) first: &'a [u32],
    /// Voxels coded before that touch each voxel, with a weight of 1 (corner), 2 (edge) or 4 (face).
    pub(crate) neighbours: &'a [(u32, u8)],
}

/// What is expected of a value.
struct Expected {
    value: i64,
    /// Bits of the largest difference among the values it was made from.
    spread: usize,
    /// Number of them, up to 3.
    support: usize,
}

impl Surrounds<'_> {
    /// Predicts channel `k` of `width` of voxel `row` from the values before it.
    fn expect(&self, row: usize, values: &[i64], k: usize, width: usize) -> Expected {
        let near = &self.neighbours[self.first[row] as usize..self.first[row + 1] as usize];
        if near.is_empty() {
            let from = row.saturating_sub(LOOK_BACK);
            let distance = |other: &usize| {
                let [a, b] = [self.voxels[row], self.voxels[*other]];
                (0..3).map(|axis| u64::from(a[axis].abs_diff(b[axis]))).sum::<u64>()
            };
            let Some(nearest) = (from..row).rev().min_by_key(distance) else {
                return Expected { value: 0, spread: SIZES - 1, support: 0 };
            };
            let value = values[nearest * width + k];
            let spread =
                (from..row).map(|o| size(values[o * width + k].wrapping_sub(value))).max().unwrap_or(0);
            return Expected { value, spread, support: 0 };
        }
        let (mut sum, mut weights, mut least, mut most) = (0i128, 0i128, i64::MAX, i64::MIN);
        for &(other, weight) in near {
            let value = values[other as usize * width + k];
            sum += i128::from(value) * i128::from(weight);
            weights += i128::from(weight);
            (least, most) = (least.min(value), most.max(value));
        }
        let value = (2 * sum + weights).div_euclid(2 * weights) as i64;
        Expected { value, spread: size(most.wrapping_sub(least)), support: near.len().min(3) }
    }
}

/// Bits of a difference's magnitude: 0 for 0, 1 for 1 and -1, 2 up to 3 and so on.
fn size(difference: i64) -> usize {
    (64 - difference.unsigned_abs().leading_zeros()) as usize
}

/// A size as one of 20 classes: large ones share theirs.
fn class(size: usize) -> usize {
    if size <= 12 { size } else { 12 + (size - 5) / 8 }
}

/// Probabilities of differences that learn.
struct DifferenceModel {
    spread: Vec<Slot>,
    recent: Vec<Slot>,
    mixer: Mixer<3>,
    top: Vec<Slot>,
}

impl DifferenceModel {
    fn new() -> Self {
        Self { spread: slots(14), recent: slots(16), mixer: Mixer::new(128, 30_000), top: slots(11) }
    }

    /// Codes one bit of a size or a sign under the two contexts.
    fn bit(&mut self, coder: &mut impl BitCoder, [a, b]: [usize; 2], at: usize, bit: bool) -> bool {
        let (a, b) = (&mut self.spread[a << 7 | at], &mut self.recent[b << 7 | at]);
        let mixed = self.mixer.mix(at, [a.stretch(), b.stretch(), 256]);
        let bit = coder.code(bit, mixed.p);
        self.mixer.learn(&mixed, bit, 13);
        a.update(bit, LIMIT);
        b.update(bit, LIMIT);
        bit
    }

    /// Codes a difference: its size in unary, its sign, and the bits below the highest.
    fn code(&mut self, coder: &mut impl BitCoder, contexts: [usize; 2], difference: i64) -> i64 {
        let n = size(difference);
        let mut bits = 0;
        while bits < SIZES - 1 && self.bit(coder, contexts, bits, n > bits) {
            bits += 1;
        }
        if bits == 0 {
            return 0;
        }
        let negative = self.bit(coder, contexts, SIZES, difference < 0);
        let magnitude = difference.unsigned_abs();
        let mut read = 1u64;
        for k in (0..bits - 1).rev() {
            let bit = magnitude >> k & 1 == 1;
            // The bits next to the highest lean, the others are noise.
            let bit = if bits - 1 - k <= 3 {
                let slot = &mut self.top[bits << 4 | (read & 15) as usize];
                code_with(coder, slot, bit, LIMIT)
            } else {
                coder.code_even(bit)
            };
            read = read << 1 | u64::from(bit);
        }
        if negative { (read as i64).wrapping_neg() } else { read as i64 }
    }
}

/// Codes `width` whole numbers a voxel; the decoder passes zeros and gets the numbers.
///
/// The second and third channel of a colour expect the difference that the one before had.
pub(crate) fn code(coder: &mut impl BitCoder, around: &Surrounds<'_>, width: usize, values: &mut [i64]) {
    let mut models: Vec<DifferenceModel> = (0..width).map(|_| DifferenceModel::new()).collect();
    let mut recent = vec![0usize; width];
    for row in 0..around.voxels.len() {
        let mut before = 0i64;
        for (k, model) in models.iter_mut().enumerate() {
            let expected = around.expect(row, values, k, width);
            let value = expected.value.wrapping_add(before);
            let other = if k == 0 { recent[0] / 4 } else { size(before) };
            let spread = class(expected.spread) * 4 + expected.support;
            let contexts = [spread, class(recent[k] / 4) * 20 + class(other)];
            let at = row * width + k;
            let difference = model.code(coder, contexts, values[at].wrapping_sub(value));
            values[at] = value.wrapping_add(difference);
            before = if width == 3 { values[at].wrapping_sub(expected.value) } else { 0 };
            // A running mean of sizes, in quarters.
            recent[k] = (3 * recent[k] + 4 * size(difference)).div_ceil(4);
        }
    }
}
