//! Packed affine weights: `value = scale · code + bias` a group of input channels, codes of 4 or 8 bits in 32-bit words.
//!
//! A *row* is the input channels of one tap and output channel, padded with zeros to whole groups. The storage is that of
//! [`PackedShape::word_dims`]; [`PackedTaps`] reads it with the output channel fastest, as kernels do.

mod quantize;
mod unpack;

use lattice_core::{Error, Result};

pub use quantize::{PackedWeights, quantize_rows};
pub(crate) use unpack::MOST_COLUMNS;
pub use unpack::PackedTaps;

/// Sizes of a packed weight, checked by [`try_new`](Self::try_new).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PackedShape {
    bits: u32,
    group_size: usize,
    taps: usize,
    c_in: usize,
    c_out: usize,
}

impl PackedShape {
    /// Bits of a code that can be stored.
    pub const BITS: [u32; 2] = [4, 8];
    /// Input channels that can share a scale and a bias.
    pub const GROUP_SIZES: [usize; 3] = [32, 64, 128];

    /// The sizes of `taps · c_out` rows of `c_in` channels; a convolution with channel groups has rows of `c_in / groups`.
    ///
    /// # Errors
    /// Other bits than 4 and 8; other group sizes than 32, 64 and 128; a size of 0, or one whose storage passes 32 bits an axis.
    pub fn try_new(
        op: &'static str,
        bits: u32,
        group_size: usize,
        taps: usize,
        [c_in, c_out]: [usize; 2],
    ) -> Result<Self> {
        let refuse = |what: String| Err(Error::Value { op, what });
        if !Self::BITS.contains(&bits) {
            return refuse(format!("expected codes of 4 or 8 bits, found {bits}"));
        }
        if !Self::GROUP_SIZES.contains(&group_size) {
            return refuse(format!("expected a group size of 32, 64 or 128, found {group_size}"));
        }
        let most = u32::MAX as usize / 2;
        if [taps, c_in, c_out].iter().any(|&n| n == 0 || n > most) {
            return refuse(format!(
                "expected taps, input and output channels from 1 to {most}, found {taps}, {c_in} and {c_out}"
            ));
        }
        Ok(Self { bits, group_size, taps, c_in, c_out })
    }

    /// The group size that is taken where none is asked for: 64, or 32 for rows of fewer channels.
    pub fn default_group_size(c_in: usize) -> usize {
        if c_in >= 64 { 64 } else { 32 }
    }

    /// Bits of a code.
    pub fn bits(&self) -> u32 {
        self.bits
    }

    /// Channels that share a scale and a bias.
    pub fn group_size(&self) -> usize {
        self.group_size
    }

    /// Kernel taps; 1 for a linear map.
    pub fn taps(&self) -> usize {
        self.taps
    }

    /// Channels of a row, without padding.
    pub fn c_in(&self) -> usize {
        self.c_in
    }

    /// Output channels.
    pub fn c_out(&self) -> usize {
        self.c_out
    }

    /// Channels of a row with its padding: whole groups.
    pub fn storage_channels(&self) -> usize {
        self.c_in.div_ceil(self.group_size) * self.group_size
    }

    /// Groups of a row.
    pub fn row_groups(&self) -> usize {
        self.c_in.div_ceil(self.group_size)
    }

    /// Codes of a word.
    pub fn codes_per_word(&self) -> usize {
        (32 / self.bits) as usize
    }

    /// Words of a row.
    pub fn row_words(&self) -> usize {
        self.storage_channels() / self.codes_per_word()
    }

    /// Largest code.
    pub fn largest_code(&self) -> u32 {
        (1 << self.bits) - 1
    }

    /// Dimensions of the words: `[1, c_out, row words]` for one tap, else `[taps, row words, c_out]`.
    pub fn word_dims(&self) -> [usize; 3] {
        self.dims(self.row_words())
    }

    /// Dimensions of scales and biases: `[1, c_out, row groups]` for one tap, else `[taps, row groups, c_out]`.
    pub fn scale_dims(&self) -> [usize; 3] {
        self.dims(self.row_groups())
    }

    fn dims(&self, per_row: usize) -> [usize; 3] {
        if self.taps == 1 { [1, self.c_out, per_row] } else { [self.taps, per_row, self.c_out] }
    }

    /// Words of the whole weight.
    pub fn words(&self) -> usize {
        self.taps * self.c_out * self.row_words()
    }

    /// Scales of the whole weight; there are as many biases.
    pub fn scales(&self) -> usize {
        self.taps * self.c_out * self.row_groups()
    }

    /// Bytes of words, scales and biases, where a scale takes `scale_bytes`.
    pub fn bytes(&self, scale_bytes: usize) -> usize {
        4 * self.words() + 2 * scale_bytes * self.scales()
    }

    /// Values of the weight that is stored.
    pub fn values(&self) -> usize {
        self.taps * self.c_in * self.c_out
    }
}
