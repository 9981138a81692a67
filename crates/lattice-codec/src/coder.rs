//! The binary arithmetic coder: one bit at a time, with the probability that a model gives it.
//!
//! It is not one of the frozen formats of `lattice_core::entropy`: those code whole symbols whose distribution is written down before,
//! with a division and a search each. Here the distribution changes with every bit, so all that is left of a step is one product and one
//! comparison, and bytes move four at a time.

/// Probabilities are of 65,536.
pub(crate) const ONE: u32 = 1 << 16;

/// One side of the coder; a model that is written against it serves the encoder and the decoder.
pub(crate) trait BitCoder {
    /// Codes a bit whose probability of being 1 is `p` of 65,536, `0 < p < 65536`: the encoder takes `bit` and gives it back, the decoder
    /// gives the bit of the stream, whatever `bit` says.
    fn code(&mut self, bit: bool, p: u32) -> bool;

    /// A bit of even chances.
    fn code_even(&mut self, bit: bool) -> bool {
        self.code(bit, ONE / 2)
    }
}

/// Range that is left below which 32 bits are settled but for a carry.
const LEAST: u64 = 1 << 32;

/// Writes bits.
pub(crate) struct Encoder {
    /// Lower end of the interval; the bytes before it are in `out`.
    low: u64,
    /// Its width, `LEAST` or more between bits.
    range: u64,
    out: Vec<u8>,
}

impl Encoder {
    pub(crate) fn new() -> Self {
        Self { low: 0, range: u64::MAX, out: Vec::new() }
    }

    /// Adds to the lower end; what leaves its 64 bits is added to the bytes before.
    #[inline]
    fn add(&mut self, amount: u64) {
        let (low, carried) = self.low.overflowing_add(amount);
        self.low = low;
        if carried {
            for byte in self.out.iter_mut().rev() {
                *byte = byte.wrapping_add(1);
                if *byte != 0 {
                    break;
                }
            }
        }
    }

    /// The stream: zeros at its end are left out, since the decoder reads zeros there.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        // The one multiple of 2^32 that is surely in the interval.
        self.add(LEAST - 1);
        self.out.extend(((self.low >> 32) as u32).to_be_bytes());
        while self.out.last() == Some(&0) {
            self.out.pop();
        }
        self.out
    }
}

impl BitCoder for Encoder {
    #[inline]
    fn code(&mut self, bit: bool, p: u32) -> bool {
        debug_assert!(0 < p && p < ONE);
        let part = (self.range >> 16) * u64::from(p);
        if bit {
            self.range = part;
        } else {
            self.add(part);
            self.range -= part;
        }
        if self.range < LEAST {
            self.out.extend(((self.low >> 32) as u32).to_be_bytes());
            self.low <<= 32;
            self.range <<= 32;
        }
        bit
    }
}

/// Reads bits; past the end of the stream it reads zeros. Any bytes are a stream of some bits: it never fails and never stops.
pub(crate) struct Decoder<'a> {
    /// The stream's number minus the lower end of the interval.
    code: u64,
    range: u64,
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    pub(crate) fn new(stream: &'a [u8]) -> Self {
        let mut decoder = Self { code: 0, range: u64::MAX, rest: stream };
        decoder.code = u64::from(decoder.word()) << 32 | u64::from(decoder.word());
        decoder
    }

    #[inline]
    fn word(&mut self) -> u32 {
        if let Some((word, rest)) = self.rest.split_first_chunk::<4>() {
            self.rest = rest;
            return u32::from_be_bytes(*word);
        }
        let mut word = [0; 4];
        word[..self.rest.len()].copy_from_slice(self.rest);
        self.rest = &[];
        u32::from_be_bytes(word)
    }

    /// Whether every byte was read.
    pub(crate) fn is_spent(&self) -> bool {
        self.rest.is_empty()
    }
}

impl BitCoder for Decoder<'_> {
    #[inline]
    fn code(&mut self, _: bool, p: u32) -> bool {
        let part = (self.range >> 16) * u64::from(p);
        let bit = self.code < part;
        // Both sides are computed: which one it is cannot be foretold, a branch would miss half the time.
        self.range = if bit { part } else { self.range - part };
        self.code = if bit { self.code } else { self.code - part };
        if self.range < LEAST {
            self.code = self.code << 32 | u64::from(self.word());
            self.range <<= 32;
        }
        bit
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use proptest::prelude::*;

    fn write(bits: &[(bool, u32)]) -> Vec<u8> {
        let mut encoder = Encoder::new();
        for &(bit, p) in bits {
            assert_eq!(encoder.code(bit, p), bit);
        }
        encoder.finish()
    }

    fn probability() -> impl Strategy<Value = u32> {
        prop_oneof![1..ONE, Just(1), Just(ONE - 1), 1u32..5]
    }

    proptest! {
        #[test]
        fn bits_come_back(bits in prop::collection::vec((any::<bool>(), probability()), 0..600)) {
            let stream = write(&bits);
            let mut decoder = Decoder::new(&stream);
            for &(bit, p) in &bits {
                prop_assert_eq!(decoder.code(!bit, p), bit);
            }
            prop_assert!(decoder.is_spent());
        }

        #[test]
        fn any_bytes_are_a_stream(bytes in prop::collection::vec(any::<u8>(), 0..40), p in probability()) {
            let mut decoder = Decoder::new(&bytes);
            let ones = (0..5000).filter(|_| decoder.code(false, p)).count();
            prop_assert!(ones <= 5000 && decoder.is_spent() == (bytes.len() <= 8 || decoder.rest.is_empty()));
        }
    }

    #[test]
    fn a_carry_runs_through_bytes_that_are_full() {
        // All ones up to the last bit, which lifts the lower end above a row of 0xff bytes.
        for n in 1..200 {
            let mut bits = vec![(false, 1); n];
            bits.push((true, ONE - 1));
            bits.extend(vec![(false, ONE - 1); 40]);
            let stream = write(&bits);
            let mut decoder = Decoder::new(&stream);
            assert!(bits.iter().all(|&(bit, p)| decoder.code(false, p) == bit), "{n}");
        }
    }

    #[test]
    fn a_likely_bit_costs_what_its_probability_says() {
        let stream = write(&vec![(false, 536); 100_000]);
        let expected = 100_000.0 * -(65_000f64 / 65_536.0).log2() / 8.0;
        assert!((stream.len() as f64 - expected).abs() < 8.0, "{} for {expected}", stream.len());
    }
}
