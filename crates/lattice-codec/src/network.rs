//! A small trained network that says more about a cell's children than the contexts do, in integers alone.
//!
//! # How it works
//! The features of a cell (see [`crate::features`]) each have a row of weights; the rows of those that hold are summed into [`WIDTH`] hidden
//! numbers, cut at 0 and at [`MOST`]. A question (a [`Head`]) has a row of weights over the hidden numbers, whose product with them is the logarithm of
//! the odds. These last rows are shipped as they were trained and go on learning from every bit, in the encoder and the decoder alike. What comes
//! out is mixed with what the contexts say, by weights that learn in turn.
//!
//! Sums are of integers and never overflow (a test adds up the weights), so every machine computes the same.
//!
//! # Source
//! Summed rows of features that change little from one question to the next are Nasu's (2018, "efficiently updatable neural networks"); a network beside
//! contexts in a mixer is Mahoney's (2000, "Fast text compression with neural networks"). Features, heads and training are this crate's:
//! `examples/train_network` made the weights.

use std::sync::LazyLock;

use crate::coder::{BitCoder, ONE};
use crate::features;
use crate::judge::{Head, Judge, Sight};
use crate::mix::{Learn, Mixer, REACH, Slot, squash, stretch};

/// Hidden numbers.
pub(crate) const WIDTH: usize = 32;
/// Largest hidden number: 16 in units of 64, so that sums of products stay below 2^31.
const MOST: i16 = 1023;

/// Bits of a bias below a unit of the logistic domain.
const BIAS_BITS: u32 = 4;
/// A larger one makes smaller steps of the last rows.
const SHIFT: u32 = 13;
/// How many bits a slot follows before its probability moves no faster.
const LIMIT: usize = 250;
/// Inputs of the mixer: the odds of the contexts and of the network, what the latter and both came to, a constant.
const INPUTS: usize = 5;
/// Weights that they begin with: slots that have seen nothing say nothing.
const FIRST_WEIGHTS: [i32; INPUTS] = [26_000, 34_000, 6_000, 6_000, 0];

/// `2^bits` new slots for each of `n`.
fn slots_for(n: usize, bits: u32) -> Vec<Slot> {
    vec![0; n << bits]
}

/// Which of `n` parts of `units` odds lie in; what is beyond lies in the outermost.
#[inline]
fn part(odds: i32, units: i32, n: i32) -> usize {
    (odds + n / 2 * units).div_euclid(units).clamp(0, n - 1) as usize
}

/// The weights as they lie in the repository.
static BYTES: &[u8; BYTES_LEN] = include_bytes!("network.bin");
const BYTES_LEN: usize = features::COUNT * WIDTH + Head::COUNT * (WIDTH + 1) * 2;

/// The trained weights.
struct Network {
    /// A row for each feature, in units of 1/64.
    rows: Vec<[i16; WIDTH]>,
    /// A row for each head, in units of 1/65,536.
    heads: Vec<[i32; WIDTH]>,
    /// What each head begins with, in sixteenths of a unit of the logistic domain.
    bias: Vec<i32>,
}

static NETWORK: LazyLock<Network> = LazyLock::new(|| {
    let (rows, heads) = BYTES.split_at(features::COUNT * WIDTH);
    let rows = rows.as_chunks::<WIDTH>().0.iter().map(|row| row.map(|w| i16::from(w as i8))).collect();
    let halves: Vec<i16> = heads.as_chunks::<2>().0.iter().map(|w| i16::from_le_bytes(*w)).collect();
    let (heads, bias) = halves.split_at(Head::COUNT * WIDTH);
    Network {
        rows,
        heads: heads.as_chunks::<WIDTH>().0.iter().map(|row| row.map(|w| i32::from(w) << 4)).collect(),
        bias: bias.iter().map(|b| i32::from(*b)).collect(),
    }
});

/// Number by which a stream says which weights it needs.
pub(crate) fn checksum() -> u32 {
    crc32fast::hash(BYTES)
}

/// The network beside the contexts, while a block is coded.
pub(crate) struct Learned {
    network: &'static Network,
    /// Sums of the rows of the cell's features.
    sums: [i16; WIDTH],
    hidden: [i16; WIDTH],
    /// The last rows and their biases as they have learned.
    heads: Vec<[i32; WIDTH]>,
    bias: Vec<i32>,
    level: usize,
    /// What the network's odds, in steps of an eighth, came to.
    calibrated: Vec<Slot>,
    /// What its odds and those of the contexts, in steps of a third, came to together.
    joint: Vec<Slot>,
    mixer: Mixer<INPUTS>,
}

impl Learned {
    pub(crate) fn new() -> Self {
        let network = &*NETWORK;
        Self {
            network,
            sums: [0; WIDTH],
            hidden: [0; WIDTH],
            heads: network.heads.clone(),
            bias: network.bias.clone(),
            level: 0,
            calibrated: slots_for(Head::COUNT, 6),
            joint: slots_for(Head::COUNT, 10),
            mixer: Mixer::of(Head::COUNT * 4, FIRST_WEIGHTS),
        }
    }

    #[inline]
    fn cut(&mut self) {
        for (hidden, sum) in self.hidden.iter_mut().zip(&self.sums) {
            *hidden = (*sum).clamp(0, MOST);
        }
    }
}

impl Judge for Learned {
    const LOOKS: bool = true;

    #[inline]
    fn look(&mut self, sight: &Sight<'_>) {
        let mut sums = [0i16; WIDTH];
        features::of(sight, |feature| {
            for (sum, w) in sums.iter_mut().zip(&self.network.rows[usize::from(feature)]) {
                *sum += w;
            }
        });
        self.sums = sums;
        self.level = sight.around.levels_left.clamp(1, 4) as usize - 1;
        self.cut();
    }

    #[inline]
    fn code(&mut self, coder: &mut impl BitCoder, head: Head, bit: bool, p: u32) -> bool {
        let h = head.number();
        let weights = &mut self.heads[h];
        let mut sum = 0i32;
        for (x, w) in self.hidden.iter().zip(weights.iter()) {
            sum += i32::from(*x) * i32::from((w >> 4) as i16);
        }
        let odds = ((sum >> 10) + (self.bias[h] >> BIAS_BITS)).clamp(-REACH, REACH);
        let says = stretch(p);
        let calibrated = &mut self.calibrated[h << 6 | part(odds, 32, 64)];
        let joint = &mut self.joint[h << 10 | part(odds, 80, 32) << 5 | part(i32::from(says), 80, 32)];
        let inputs = [says, odds as i16, calibrated.stretch(), joint.stretch(), 256];
        let mixed = self.mixer.mix(h << 2 | self.level, inputs);
        let bit = coder.code(bit, mixed.p.clamp(1, ONE - 1));
        self.mixer.learn(&mixed, bit, 13);
        calibrated.update(bit, LIMIT);
        joint.update(bit, LIMIT);
        let error = (if bit { ONE as i32 } else { 0 } - squash(odds) as i32) >> 2;
        for (x, w) in self.hidden.iter().zip(weights.iter_mut()) {
            let step = (i32::from(*x) * error + (1 << (SHIFT - 1))) >> SHIFT;
            *w = (*w + step).clamp(-(1 << 19), (1 << 19) - 16);
        }
        self.bias[h] = (self.bias[h] + (error >> 6)).clamp(-(REACH << BIAS_BITS), REACH << BIAS_BITS);
        if let Some(feature) = features::answered(head, bit) {
            for (sum, w) in self.sums.iter_mut().zip(&self.network.rows[usize::from(feature)]) {
                *sum += w;
            }
            self.cut();
        }
        bit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_the_shipped_weights_fit() {
        for k in 0..WIDTH {
            let all =
                |sign: i32| NETWORK.rows.iter().map(|row| (i32::from(row[k]) * sign).max(0)).sum::<i32>();
            assert!(
                all(1).max(all(-1)) <= i32::from(i16::MAX),
                "hidden number {k}: {} and -{}",
                all(1),
                all(-1)
            );
        }
        // The last rows change, within the mixer's bounds: 15 bits and a sign.
        assert!(i64::from(MOST) * i64::from(i16::MAX) * (WIDTH as i64) <= i64::from(i32::MAX));
        assert!(NETWORK.heads.iter().flatten().all(|w| (-(1 << 19)..1 << 19).contains(w)));
        assert!(NETWORK.bias.iter().all(|b| b.abs() <= REACH << BIAS_BITS));
        assert_eq!(
            (NETWORK.rows.len(), NETWORK.heads.len(), NETWORK.bias.len()),
            (features::COUNT, Head::COUNT, Head::COUNT)
        );
    }

    #[test]
    fn odds_are_sorted_into_parts() {
        assert_eq!(
            [-2816, -1024, -33, -32, -1, 0, 31, 32, 1023, 2816].map(|odds| part(odds, 32, 64)),
            [0, 0, 30, 31, 31, 32, 32, 33, 63, 63]
        );
    }

    /// The arithmetic by its definition, in wide integers: rows of all features that hold, cut, times the head.
    #[test]
    fn odds_of_a_fresh_network_follow_their_definition() {
        use crate::judge::Sight;
        use crate::occupancy::Surroundings;
        struct Heard(Vec<u32>);
        impl BitCoder for Heard {
            fn code(&mut self, bit: bool, p: u32) -> bool {
                self.0.push(p);
                bit
            }
        }
        let around = Surroundings {
            cells: 1 << 13 | 1 << 4,
            known: 0x30,
            open: 0,
            later: 1 << 22,
            siblings: 3,
            levels_left: 2,
            elevation: [0; 2],
        };
        let sight = Sight {
            around: &around,
            octant: 5,
            window: 0x0123_4567_89ab_cdef,
            parents: 1 << 13 | 7,
            centre: [-40, 9, -8],
            range: 41,
        };
        let mut list = Vec::new();
        features::of(&sight, |f| list.push(f));
        let (mut learned, mut heard) = (Learned::new(), Heard(Vec::new()));
        learned.look(&sight);
        learned.code(&mut heard, Head::Child(0), true, 40_000);
        let odds = |list: &[u16], h: usize| {
            let sum = |k: usize| {
                list.iter().map(|f| i64::from(BYTES[usize::from(*f) * WIDTH + k] as i8)).sum::<i64>()
            };
            let heads = &BYTES[features::COUNT * WIDTH..];
            let weight = |at: usize| i64::from(i16::from_le_bytes([heads[2 * at], heads[2 * at + 1]]));
            let product: i64 = (0..WIDTH).map(|k| sum(k).clamp(0, 1023) * weight(h * WIDTH + k)).sum();
            (product.div_euclid(1024) + weight(Head::COUNT * WIDTH + h).div_euclid(16)).clamp(-2816, 2816)
        };
        let mixed = |odds: i64, p: u32| {
            squash(((i64::from(stretch(p)) * (26_000 >> 4) + odds * (34_000 >> 4)) >> 12) as i32)
        };
        assert_eq!(heard.0[0], mixed(odds(&list, 9), 40_000));
        // The answer is a feature of the next question, whose head has seen nothing.
        list.push(features::COUNT as u16 - 8);
        learned.code(&mut heard, Head::Child(1), false, 9_000);
        assert_eq!(heard.0[1], mixed(odds(&list, 10), 9_000));
    }
}
