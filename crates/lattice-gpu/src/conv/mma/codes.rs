//! Packed codes in fragment order: the weights of [`Form::Codes`].

use cubecl::ir::{ElemType, FloatKind};
use cubecl::prelude::*;

use super::form::{Beside, BesideLaunch, CodeForm, Form, load_codes, place_of_word, words_at_a_time};
use super::pack::PackedWeights;
use super::plan::{LANES, MmaPlan};
use super::shape::MmaShape;
use super::unpack::{load_affine, unpack_codes};
use super::{After, Multiplied};
use crate::arena::Life;
use crate::gpu::{Buffer, Gpu};

/// A packed weight as it is stored: words `[taps, row words, c_out]`, scales and biases `[taps, row groups, c_out]`; those of one tap
/// `[c_out, row words]` and `[c_out, row groups]`.
///
/// Channel `c` of a row is in word `c · bits / 32` at bit `c · bits mod 32`; its value is `scale · code + bias` of group `c / group_size`.
#[derive(Clone, Debug)]
pub struct StoredCodes {
    /// u32.
    pub words: Buffer,
    /// f16, or f32.
    pub scales: Buffer,
    /// In the type of the scales.
    pub biases: Buffer,
    /// Whether scales and biases are f16.
    pub half_scales: bool,
    /// Bits of a code: 4 or 8.
    pub bits: u32,
    /// Input channels that share a scale and a bias: a multiple of 32.
    pub group_size: usize,
    /// Kernel taps.
    pub taps: u32,
    /// Input channels.
    pub c_in: usize,
    /// Output channels.
    pub c_out: usize,
}

impl StoredCodes {
    /// Groups of a row.
    pub(super) fn row_groups(&self) -> usize {
        self.c_in.div_ceil(self.group_size)
    }

    /// Words of a row.
    fn row_words(&self) -> usize {
        self.row_groups() * self.group_size * self.bits as usize / 32
    }

    /// Where codes and scales lie.
    pub(crate) fn layout(&self) -> CodeLayout {
        CodeLayout {
            bits: self.bits,
            group_size: self.group_size as u32,
            row_words: self.row_words() as u32,
            row_groups: self.row_groups() as u32,
            c_in: self.c_in as u32,
            c_out: self.c_out as u32,
            row_major: self.taps == 1,
        }
    }

    /// Panics where buffers do not have their lengths.
    pub(crate) fn check(&self) {
        assert!(
            matches!(self.bits, 4 | 8) && self.group_size > 0 && self.group_size.is_multiple_of(32),
            "packed codes: bits and group size"
        );
        let rows = self.taps as usize * self.c_out;
        assert_eq!(self.words.len, rows * self.row_words(), "packed codes: number of words");
        let scales = rows * self.row_groups();
        assert_eq!(
            (self.scales.len, self.biases.len),
            (scales, scales),
            "packed codes: number of scales and biases"
        );
    }

    /// Sizes of a kernel that reads these codes as `form`, over tiles of `span_words`.
    pub(super) fn shape(&self, form: Form, plan: MmaPlan, span_words: u32, after: After) -> MmaShape {
        let c_in = match form {
            // Two channels a half, whole pieces.
            Form::Bytes(_) => self.c_in.next_multiple_of(32 * plan.grain.min(2)) / 2,
            _ => self.c_in,
        };
        MmaShape { c_in, halves: 1, c_out: self.c_out, taps: self.taps, span_words, plan, after, form }
    }
}

/// Where codes and scales lie in storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CodeLayout {
    pub(crate) bits: u32,
    pub(crate) group_size: u32,
    pub(crate) row_words: u32,
    pub(crate) row_groups: u32,
    pub(crate) c_in: u32,
    pub(crate) c_out: u32,
    /// Rows lie together, rather than output channels.
    pub(crate) row_major: bool,
}

/// A stored code, 0 where there is none.
#[cube]
pub(crate) fn code_at(words: &[u32], tap: u32, c: u32, o: u32, #[comptime] layout: CodeLayout) -> u32 {
    let per_word = comptime!(32 / layout.bits);
    let mut code = 0u32;
    if c < comptime!(layout.c_in) && o < comptime!(layout.c_out) {
        let at = if comptime!(layout.row_major) {
            o * comptime!(layout.row_words) + c / per_word
        } else {
            (tap * comptime!(layout.row_words) + c / per_word) * comptime!(layout.c_out) + o
        };
        let mask = comptime!((1u32 << layout.bits) - 1);
        code = (words[at as usize] >> ((c % per_word) * comptime!(layout.bits))) & mask;
    }
    code
}

/// Where the scale of a group stands, whose output channel there is.
#[cube]
pub(crate) fn scale_at(tap: u32, group: u32, o: u32, #[comptime] layout: CodeLayout) -> u32 {
    if comptime!(layout.row_major) {
        o * comptime!(layout.row_groups) + group
    } else {
        (tap * comptime!(layout.row_groups) + group) * comptime!(layout.c_out) + o
    }
}

/// A lane's words `[tap, piece, slice block, vector, lane, W]`; one unit a word. See [`super::unpack`] for what is in a word.
#[cube(launch_unchecked)]
fn pack_codes_kernel(
    stored: &[u32],
    packed: &mut [u32],
    n_words: u32,
    #[comptime] at_a_time: u32,
    #[comptime] layout: CodeLayout,
    #[comptime] shape: MmaShape,
) {
    let at = ABSOLUTE_POS as u32;
    if at < n_words {
        let steps = comptime!(shape.piece_steps() as u32);
        let place = place_of_word(at, at_a_time, shape);
        let (tap, word) = (place.tap, place.word);
        let mut found = 0u32;
        #[unroll]
        for i in 0u32..comptime!(32 / layout.bits) {
            // Quad of the word, and channel of the quad, of its `i`th code.
            let (quad, of_quad) = if comptime!(layout.bits == 8) {
                (word, comptime!(i % 2 * 2 + i / 2).runtime())
            } else {
                let pair = comptime!(i % 4);
                (word * 2u32 + comptime!(pair / 2), comptime!(pair % 2 * 2 + i / 4).runtime())
            };
            let step = quad % steps;
            let row = (quad / steps) % 2u32;
            let slice = quad / (2u32 * steps);
            let o = place.output_channel(slice, row, shape);
            let c = place.piece * comptime!(16 * steps)
                + place.quarter() * comptime!(4 * steps)
                + step * 4u32
                + of_quad;
            found |= code_at(stored, tap, c, o, layout) << comptime!(i * layout.bits);
        }
        packed[at as usize] = found;
    }
}

/// Scale and bias `[tap, group, output channel]` next to each other, zeros where there is no group or channel; one unit a pair.
#[cube(launch_unchecked)]
fn pack_affine_kernel<S: Float, T: Float>(
    scales: &[S],
    biases: &[S],
    packed: &mut [Vector<T, Const<2>>],
    n_pairs: u32,
    #[comptime] layout: CodeLayout,
    #[comptime] shape: MmaShape,
) {
    let at = ABSOLUTE_POS as u32;
    if at < n_pairs {
        let outs = comptime!(shape.padded_out() as u32);
        let groups = comptime!(shape.groups() as u32);
        let o = at % outs;
        let group = (at / outs) % groups;
        let tap = at / (outs * groups);
        let mut both = Vector::<T, Const<2>>::new(T::from_int(0i64));
        if o < comptime!(layout.c_out) && group < comptime!(layout.row_groups) {
            let from = scale_at(tap, group, o, layout);
            both.insert(0usize, T::cast_from(scales[from as usize]));
            both.insert(1usize, T::cast_from(biases[from as usize]));
        }
        packed[at as usize] = both;
    }
}

/// Packed codes in fragment order, 4 or 8 bits each as stored.
#[derive(Clone, Debug)]
pub struct CodeWeights {
    pub(super) fragments: Buffer,
    /// Scales and biases.
    pub(super) affine: Buffer,
    pub(super) stored: StoredCodes,
    pub(super) form: Form,
    /// The [packing](MmaPlan::packing) of a plan.
    pub(super) plan: MmaPlan,
}

/// Launches the packing of codes.
pub(super) fn pack_fragments(gpu: &Gpu, stored: &StoredCodes, shape: MmaShape, life: Life) -> Buffer {
    let blocks = shape.all_slices() as usize / shape.plan.slices;
    let n = stored.taps as usize * shape.tap_pieces() * blocks * LANES as usize * shape.piece_words();
    let packed = gpu.room(n, 4, life);
    let (layout, at_a_time) = (stored.layout(), words_at_a_time(shape.piece_words()) as u32);
    // SAFETY: one unit a packed word; positions of codes are checked against the channel counts.
    unsafe {
        pack_codes_kernel::launch_unchecked(
            gpu.client(),
            Gpu::cubes(n, 256),
            CubeDim::new_1d(256),
            stored.words.arg(1),
            packed.arg(1),
            n as u32,
            at_a_time,
            layout,
            shape,
        );
    }
    packed
}

/// Packs codes for [`conv_codes`](super::conv_codes) with features of type `F`; two launches.
///
/// # Panics
/// Where a buffer does not have its length, elements do not have 16 bits, or no kernel has the form of the plan.
pub fn pack_codes<F: Multiplied>(gpu: &Gpu, stored: &StoredCodes, plan: MmaPlan, life: Life) -> CodeWeights {
    stored.check();
    plan.check();
    assert_eq!(F::HALVES, 1, "pack_codes: features of 16 bits");
    // f16 computes a value of f16 scales with one rounding; all others pass through f32.
    let wide = !(F::elem_type_native() == ElemType::Float(FloatKind::F16) && stored.half_scales);
    let form = Form::Codes(CodeForm { bits: stored.bits, group_size: stored.group_size, wide });
    let shape = stored.shape(form, plan.packing(), 0, After::Nothing);
    let fragments = pack_fragments(gpu, stored, shape, life);
    let n = stored.taps as usize * shape.groups() * shape.padded_out();
    let words = if wide { 2 } else { 1 };
    let affine = gpu.room(n * words, 4, life);
    macro_rules! launch {
        ($S:ty, $T:ty) => {
            // SAFETY: one unit a pair; the positions of scales are checked against the groups and channels that there are.
            unsafe {
                pack_affine_kernel::launch_unchecked::<$S, $T>(
                    gpu.client(),
                    Gpu::cubes(n, 256),
                    CubeDim::new_1d(256),
                    stored.scales.arg(1),
                    stored.biases.arg(1),
                    affine.arg(words),
                    n as u32,
                    stored.layout(),
                    shape,
                )
            }
        };
    }
    match (stored.half_scales, wide) {
        (true, false) => launch!(half::f16, half::f16),
        (true, true) => launch!(half::f16, f32),
        (false, _) => launch!(f32, f32),
    }
    CodeWeights { fragments, affine, stored: stored.clone(), form, plan: plan.packing() }
}

/// Codes in fragment order to elements in fragment order, as [`pack_weights`](super::pack_weights) lays them; one unit a lane of a piece.
#[cube(launch_unchecked)]
fn expand_codes_kernel<E: Float, W: Size, A: Size>(
    packed: &[Vector<u32, W>],
    beside: Beside<f32, Const<4>, A>,
    weights: &mut [Vector<u32, Const<4>>],
    n_units: u32,
    #[comptime] shape: MmaShape,
) {
    let at = ABSOLUTE_POS as u32;
    if at < n_units {
        let slices = comptime!(shape.plan.slices as u32);
        let all_slices = comptime!(shape.all_slices());
        let blocks = comptime!(all_slices / slices);
        let pieces = comptime!(shape.tap_pieces() as u32);
        let steps = comptime!(shape.piece_steps() as u32);
        let lane = at % LANES;
        let first_slice = (at / LANES) % blocks * slices;
        let piece = (at / (LANES * blocks)) % pieces;
        let tap = at / (LANES * blocks * pieces);
        let mut codes = Array::<u32>::new(comptime!(shape.piece_words()));
        let mut affine = Array::<u32>::new(comptime!(shape.affine_words()));
        // Where a grain is one piece, the pieces of a tap are the grains of one long part.
        load_codes(&mut codes, packed, tap, 0u32, piece, first_slice, lane, shape);
        load_affine(&mut affine, &beside, tap, 0u32, piece, first_slice, lane, shape);
        let mut found =
            Array::<Vector<u32, Const<4>>>::new(comptime!(shape.piece_steps() * shape.plan.slices));
        unpack_codes::<E>(&mut found, &codes, &affine, 0usize, shape);
        let first = ((tap * all_slices + first_slice) * pieces + piece * slices) * steps;
        #[unroll]
        for step in 0usize..comptime!(shape.piece_steps()) {
            #[unroll]
            for slice in 0usize..comptime!(shape.plan.slices) {
                let fragment = first + step as u32 * slices + slice as u32;
                weights[(fragment * LANES + lane) as usize] =
                    found[comptime!(step * shape.plan.slices + slice)];
            }
        }
    }
}

/// The elements that codes stand for, in fragment order, for the launches that follow; one launch.
///
/// # Panics
/// When the codes are packed for another type of elements.
pub fn expand_codes<F: Multiplied>(gpu: &Gpu, weights: &CodeWeights) -> PackedWeights {
    let stored = &weights.stored;
    let shape = stored.shape(weights.form, weights.plan, 0, After::Nothing);
    check_elements::<F>("expand_codes", shape);
    let blocks = shape.all_slices() as usize / shape.plan.slices;
    let n_units = stored.taps as usize * shape.tap_pieces() * blocks * LANES as usize;
    let n_lanes = n_units * shape.piece_steps() * shape.plan.slices;
    let buffer = gpu.room(8 * n_lanes, size_of::<F>(), Life::Passing);
    let (packed_lanes, affine_lanes) =
        (words_at_a_time(shape.piece_words()), words_at_a_time(shape.affine_words()));
    let affine = Some(weights.affine.arg(affine_lanes));
    // SAFETY: one unit a lane of a piece, of which there are as many as fragments; a vector of the buffer has eight elements.
    unsafe {
        expand_codes_kernel::launch_unchecked::<F::As>(
            gpu.client(),
            Gpu::cubes(n_units, 128),
            CubeDim::new_1d(128),
            packed_lanes,
            affine_lanes,
            weights.fragments.arg(packed_lanes),
            BesideLaunch::new(affine.into(), None.into(), None.into()),
            buffer.arg(8),
            n_units as u32,
            shape,
        );
    }
    PackedWeights::of_lanes(buffer, n_lanes, stored.taps, [stored.c_in, stored.c_out], weights.plan)
}

/// Panics where codes are packed for elements of another type.
pub(super) fn check_elements<F: Multiplied>(op: &str, shape: MmaShape) {
    assert_eq!(F::HALVES, 1, "{op}: features of 16 bits");
    assert!(
        shape.is_wide() || F::elem_type_native() == ElemType::Float(FloatKind::F16),
        "{op}: weights packed for f16"
    );
}
