//! How weights lie before the kernel: as elements, or as codes of 4 or 8 bits that it unpacks.

use cubecl::prelude::*;

use super::plan::{EDGE, LANES};
use super::shape::MmaShape;

/// What the kernel finds in its weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Form {
    /// Elements, as they are multiplied.
    Floats,
    /// Codes that become elements in registers.
    Codes(CodeForm),
    /// Codes that are multiplied with features in bytes.
    Bytes(CodeForm),
}

/// Codes of a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CodeForm {
    /// 4 or 8.
    pub(super) bits: u32,
    /// Input channels that share a scale and a bias.
    pub(super) group_size: usize,
    /// Whether values are computed in f32, and rounded then, rather than in f16.
    pub(super) wide: bool,
}

/// What comes with packed codes; absent for elements.
#[derive(CubeType, CubeLaunch)]
pub(super) struct Beside<X: Float, P: Size, A: Size> {
    /// Scales and biases, or factors of sums of bytes, in words.
    pub(super) affine: ComptimeOption<Box<[Vector<u32, A>]>>,
    /// Sums of each row of bytes, `[rows, spans]`.
    pub(super) row_sums: ComptimeOption<Box<[f32]>>,
    /// A row of bytes of 0.
    pub(super) zero_row: ComptimeOption<Box<[Vector<X, P>]>>,
}

impl MmaShape {
    /// Steps of 16 halves whose codes a lane finds together: two, whose channels lie next to one another, or a single one.
    pub(super) fn piece_steps(&self) -> usize {
        self.plan.grain.min(2)
    }

    /// Pieces of a grain.
    pub(super) fn grain_pieces(&self) -> usize {
        self.plan.grain / self.piece_steps()
    }

    /// Parts that the channels are staged in.
    pub(super) fn parts(&self) -> usize {
        self.c_in.div_ceil(self.plan.depth)
    }

    /// Pieces of a tap.
    pub(super) fn tap_pieces(&self) -> usize {
        self.parts() * self.plan.depth / EDGE / self.piece_steps()
    }

    /// Output channels, rounded up to whole blocks.
    pub(super) fn padded_out(&self) -> usize {
        self.all_slices() as usize * EDGE
    }

    /// Codes, where weights are codes.
    pub(super) fn codes(&self) -> Option<CodeForm> {
        match self.form {
            Form::Floats => None,
            Form::Codes(codes) | Form::Bytes(codes) => Some(codes),
        }
    }

    /// Bits of a code.
    pub(super) fn bits(&self) -> u32 {
        self.codes().map_or(0, |codes| codes.bits)
    }

    /// Whether values of codes are computed in f32.
    pub(super) fn is_wide(&self) -> bool {
        self.codes().is_some_and(|codes| codes.wide)
    }

    /// Whether features are bytes.
    pub(super) fn is_bytes(&self) -> bool {
        matches!(self.form, Form::Bytes(_))
    }

    /// Words of codes that a lane has of a piece.
    pub(super) fn piece_words(&self) -> usize {
        let per_half = self.plan.slices * self.piece_steps() * self.bits() as usize / 4;
        if self.is_bytes() { 2 * per_half } else { per_half }
    }

    /// Words of scales and biases that a lane has of a piece.
    pub(super) fn affine_words(&self) -> usize {
        2 * self.plan.slices * if self.is_wide() { 2 } else { 1 }
    }

    /// Input channels of a group.
    pub(super) fn group_size(&self) -> usize {
        self.codes().map_or(1, |codes| codes.group_size)
    }

    /// Groups of a tap, whole parts of channels counted.
    pub(super) fn groups(&self) -> usize {
        (self.parts() * self.plan.depth).div_ceil(self.group_size())
    }
}

/// The largest number of words that a lane loads at a time, where it loads `n` in a row.
pub(super) fn words_at_a_time(n: usize) -> usize {
    [4, 2].into_iter().find(|&lanes| n.is_multiple_of(lanes)).unwrap_or(1)
}

/// Where a word of packed codes stands, among `[tap, piece, slice block, vector, lane, word of the vector]`.
#[derive(CubeType)]
pub(super) struct WordPlace {
    pub(super) tap: u32,
    pub(super) piece: u32,
    /// Which of the blocks of a plane's output channels.
    block: u32,
    lane: u32,
    /// The word among those that its lane has of the piece.
    pub(super) word: u32,
}

/// The place of word `at`, of which a lane loads `at_a_time` in a row.
#[cube]
pub(super) fn place_of_word(at: u32, #[comptime] at_a_time: u32, #[comptime] shape: MmaShape) -> WordPlace {
    let of_lane = comptime!(shape.piece_words() as u32);
    let vectors = comptime!(of_lane / at_a_time);
    let blocks = comptime!(shape.all_slices() / shape.plan.slices as u32);
    let pieces = comptime!(shape.tap_pieces() as u32);
    let vector = (at / (at_a_time * LANES)) % vectors;
    WordPlace {
        tap: at / (LANES * of_lane * blocks * pieces),
        piece: (at / (LANES * of_lane * blocks)) % pieces,
        block: (at / (LANES * of_lane)) % blocks,
        lane: (at / at_a_time) % LANES,
        word: vector * at_a_time + at % at_a_time,
    }
}

#[cube]
impl WordPlace {
    /// The output channel of one of the two rows that the lane has of a slice.
    pub(super) fn output_channel(&self, slice: u32, row: u32, #[comptime] shape: MmaShape) -> u32 {
        let slices = comptime!(shape.plan.slices as u32);
        self.block * comptime!(16 * slices) + (self.lane / 4u32) * comptime!(2 * slices) + slice * 2u32 + row
    }

    /// Which quarter of the channels of a step the lane has.
    pub(super) fn quarter(&self) -> u32 {
        self.lane % 4u32
    }
}

/// A lane's words of the pieces of a grain. `first_slice`: the first of the plane's fragments of output channels.
#[cube]
pub(super) fn load_codes<W: Size>(
    words: &mut Array<u32>,
    packed: &[Vector<u32, W>],
    tap: u32,
    part: u32,
    grain: u32,
    first_slice: u32,
    lane: u32,
    #[comptime] shape: MmaShape,
) {
    let w = W::value();
    let vectors = comptime!(shape.piece_words() / w);
    let slices = comptime!(shape.plan.slices as u32);
    let blocks = comptime!(shape.all_slices() / slices);
    let first = tap * comptime!(shape.tap_pieces() as u32) + piece_of(part, grain, shape);
    #[unroll]
    for piece in 0usize..comptime!(shape.grain_pieces()) {
        let block = (first + piece as u32) * blocks + first_slice / slices;
        let at = block * comptime!(vectors as u32) * LANES + lane;
        #[unroll]
        for v in 0usize..vectors {
            let found = packed[(at + comptime!(v as u32 * LANES)) as usize];
            #[unroll]
            for i in 0usize..w {
                words[comptime!(piece * shape.piece_words() + v * w + i)] = found.extract(i);
            }
        }
    }
}

/// The first piece of a grain among those of its tap.
#[cube]
pub(super) fn piece_of(part: u32, grain: u32, #[comptime] shape: MmaShape) -> u32 {
    part * comptime!((shape.plan.depth / EDGE / shape.piece_steps()) as u32)
        + grain * comptime!(shape.grain_pieces() as u32)
}
