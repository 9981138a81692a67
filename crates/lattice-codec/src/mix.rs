//! Adaptive probabilities and how several of them become one: all in integers, so that every machine computes the same.
//!
//! Probabilities of several contexts are mixed in the logistic domain: a weighted sum of `stretch(p) = ln(p / (1 - p))`, squashed back, with
//! weights that follow the gradient of the coding cost.
//!
//! # Source
//! Mahoney, "Adaptive weighing of context models for lossless data compression" (2005), whose scheme of counters and a gated linear mixer
//! this follows; tables, rates and confidence weights are this crate's.

use crate::coder::{BitCoder, ONE};

/// Units of the logistic domain per e-fold.
const UNIT: usize = 256;
/// Largest magnitude in the logistic domain: 11 e-folds, a probability of 1.1 of 65,536.
const REACH_UNITS: usize = 11 * UNIT;
/// The same, signed.
pub(crate) const REACH: i32 = REACH_UNITS as i32;

/// `65,536 / (1 + exp(-x / 256))` for x in `-REACH..=REACH`, inside `1..=65535`.
static SQUASH: [u16; 2 * REACH_UNITS + 1] = squash_table();
/// The inverse at the middle of each of 4,096 equal parts.
static STRETCH: [i16; 4096] = stretch_table();
/// `65,536 / (n + 1.5)`: how far a probability that has seen `n` bits follows the next.
static RATE: [u32; 1024] = rate_table();

const fn squash_table() -> [u16; 2 * REACH_UNITS + 1] {
    // exp(-1/256) in units of 2^-62, from its series; then one product a step.
    let one: u128 = 1 << 62;
    let mut term = one;
    let (mut down, mut k) = (one, 1);
    while k < 12 {
        term /= UNIT as u128 * k;
        down = if k % 2 == 1 { down - term } else { down + term };
        k += 1;
    }
    let mut table = [0; 2 * REACH_UNITS + 1];
    let (mut power, mut x) = (one, 0);
    while x <= REACH_UNITS {
        let p = ((one << 16) + (one + power) / 2) / (one + power);
        let p = if p > 65_535 { 65_535 } else { p };
        table[REACH_UNITS + x] = p as u16;
        table[REACH_UNITS - x] = (65_536 - p) as u16;
        power = (power * down) >> 62;
        x += 1;
    }
    table
}

const fn stretch_table() -> [i16; 4096] {
    let squash = squash_table();
    let (mut table, mut i, mut at) = ([0; 4096], 0, 0);
    while i < 4096 {
        while at < 2 * REACH_UNITS && (squash[at] as usize) < 16 * i + 8 {
            at += 1;
        }
        table[i] = (at as i32 - REACH_UNITS as i32) as i16;
        i += 1;
    }
    table
}

const fn rate_table() -> [u32; 1024] {
    let (mut table, mut n) = ([0; 1024], 0);
    while n < 1024 {
        table[n] = (2 * 65_536 / (2 * n + 3)) as u32;
        n += 1;
    }
    table
}

/// A probability of a 1 that learns: 22 bits of it above a count of 10 bits, the top bit flipped so that even chances, nothing seen, are 0:
/// memory that nobody touched is a table of new slots.
///
/// The step towards each bit falls as `1 / (n + 1.5)` until the count reaches its limit: fast at first, since a scan has few bits for a
/// context, and exact later.
pub(crate) type Slot = u32;

/// A table of `2^bits` new slots.
pub(crate) fn slots(bits: u32) -> Vec<Slot> {
    vec![0; 1 << bits]
}

/// The slot's number with its top bit as it is meant.
const FLIP: u32 = 1 << 31;

/// What slots do.
pub(crate) trait Learn {
    /// Moves towards `bit`.
    fn update(&mut self, bit: bool, limit: usize);
    /// The logarithmic odds.
    fn stretch(&self) -> i16;
    /// The probability of 65,536, far enough inside for one context alone.
    fn p16(&self) -> u32;
}

impl Learn for Slot {
    #[inline]
    fn update(&mut self, bit: bool, limit: usize) {
        let value = *self ^ FLIP;
        let (n, p) = ((value & 1023) as usize, i64::from(value >> 10));
        let target = if bit { (1 << 22) - 1 } else { 0 };
        let p = p + (((target - p) * i64::from(RATE[n])) >> 16);
        *self = ((p as u32) << 10 | (n + usize::from(n < limit)) as u32) ^ FLIP;
    }

    #[inline]
    fn stretch(&self) -> i16 {
        STRETCH[((*self ^ FLIP) >> 20) as usize]
    }

    #[inline]
    fn p16(&self) -> u32 {
        ((*self ^ FLIP) >> 16).clamp(32, ONE - 32)
    }
}

/// The probability of 65,536 of logarithmic odds within [`REACH`].
#[inline]
pub(crate) fn squash(odds: i32) -> u32 {
    u32::from(SQUASH[(odds.clamp(-REACH, REACH) + REACH) as usize])
}

/// The logarithmic odds of a probability of 65,536.
#[inline]
pub(crate) fn stretch(p: u32) -> i16 {
    STRETCH[(p >> 4).min(4095) as usize]
}

/// Codes a bit with one learning probability alone.
#[inline]
pub(crate) fn code_with(coder: &mut impl BitCoder, slot: &mut Slot, bit: bool, limit: usize) -> bool {
    let bit = coder.code(bit, slot.p16());
    slot.update(bit, limit);
    bit
}

/// Weights of `N` inputs, a set for each selector.
pub(crate) struct Mixer<const N: usize> {
    weights: Vec<[i32; N]>,
}

/// What a mixture said of a bit, kept until the bit is known.
pub(crate) struct Mixed<const N: usize> {
    inputs: [i16; N],
    set: usize,
    /// Probability of 65,536.
    pub(crate) p: u32,
}

impl<const N: usize> Mixer<N> {
    /// `n_sets` sets of weights that begin at `weight` of 65,536.
    pub(crate) fn new(n_sets: usize, weight: i32) -> Self {
        Self::of(n_sets, [weight; N])
    }

    /// `n_sets` sets that begin at these weights of 65,536.
    pub(crate) fn of(n_sets: usize, weights: [i32; N]) -> Self {
        const { assert!(N <= 16, "sums must fit") };
        Self { weights: vec![weights; n_sets] }
    }

    /// Mixes logarithmic odds.
    #[inline]
    pub(crate) fn mix(&self, set: usize, inputs: [i16; N]) -> Mixed<N> {
        let weights = &self.weights[set];
        let mut sum = 0i32;
        for (&input, &weight) in inputs.iter().zip(weights) {
            // Below 2^12 times 2^15 each, so that sixteen of them fit.
            sum += i32::from(input) * i32::from((weight >> 4) as i16);
        }
        Mixed { inputs, set, p: squash(sum >> 12) }
    }

    /// Moves the weights against the error of `mixed`; a larger `shift` makes smaller steps.
    #[inline]
    pub(crate) fn learn(&mut self, mixed: &Mixed<N>, bit: bool, shift: u32) {
        // Seventeen bits with a sign, less two, so that products of 16 bits do.
        let error = ((if bit { ONE as i32 } else { 0 } - mixed.p as i32) >> 2) as i16;
        let weights = &mut self.weights[mixed.set];
        for (weight, &input) in weights.iter_mut().zip(&mixed.inputs) {
            let step = (i32::from(input) * i32::from(error) + (1 << (shift - 1))) >> shift;
            *weight = (*weight + step).clamp(-(1 << 19), (1 << 19) - 16);
        }
    }
}
