//! Codes that are multiplied with bytes, in fragment order.

use cubecl::prelude::*;

use super::After;
use super::byte_rows::{ByteLayout, quantize_rows};
use super::bytes::{FACTORS, SUM_ORIGIN};
use super::codes::{CodeLayout, StoredCodes, code_at, scale_at};
use super::form::{CodeForm, Form, place_of_word, words_at_a_time};
use super::plan::{LANES, MmaPlan};
use super::shape::MmaShape;
use crate::arena::Life;
use crate::gpu::{Buffer, Gpu};

/// A lane's words `[tap, piece, slice block, vector, lane, W]`, one unit a word.
///
/// Of the 32 channels of a step lane `4 g + t` has eight from `8 t` on, for output channels `g` and `g + 8` of the fragment. Codes of 8 bits
/// less 128 are bytes of a word; of 4 bits the first four channels are the low digits of a word's bytes, the others the high ones.
#[cube(launch_unchecked)]
fn pack_bytes_kernel(
    stored: &[u32],
    packed: &mut [u32],
    n_words: u32,
    #[comptime] at_a_time: u32,
    #[comptime] layout: CodeLayout,
    #[comptime] shape: MmaShape,
) {
    let at = ABSOLUTE_POS as u32;
    if at < n_words {
        let slices = comptime!(shape.plan.slices as u32);
        let per_fragment = comptime!(layout.bits / 2);
        let place = place_of_word(at, at_a_time, shape);
        let (tap, word) = (place.tap, place.word);
        let row = word % 2u32;
        let slice = (word / per_fragment) % slices;
        let step = word / (per_fragment * slices);
        let o = place.output_channel(slice, row, shape);
        let first =
            (place.piece * comptime!(shape.piece_steps() as u32) + step) * 32u32 + place.quarter() * 8u32;
        let mut found = 0u32;
        #[unroll]
        for i in 0u32..4u32 {
            if comptime!(layout.bits == 8) {
                let side = (word / 2u32) % 2u32;
                found |= code_at(stored, tap, first + side * 4u32 + i, o, layout) << comptime!(8 * i);
            } else {
                found |= code_at(stored, tap, first + i, o, layout) << comptime!(8 * i);
                found |= code_at(stored, tap, first + 4u32 + i, o, layout) << comptime!(8 * i + 4);
            }
        }
        if comptime!(layout.bits == 8) {
            // Channels that there are none of have bytes of 0 in every row.
            found ^= 0x8080_8080u32;
        }
        packed[at as usize] = found;
    }
}

/// The [`FACTORS`] of every output channel and span, `[tap, span, factor, output channel]`; one unit a span and channel. `steps`: the
/// steps of the input channels, then their bytes of 0.
#[cube(launch_unchecked)]
fn pack_factors_kernel<S: Float>(
    stored: &[u32],
    scales: &[S],
    biases: &[S],
    steps: &[f32],
    factors: &mut [f32],
    n: u32,
    #[comptime] layout: CodeLayout,
    #[comptime] shape: MmaShape,
) {
    let at = ABSOLUTE_POS as u32;
    if at < n {
        let outs = comptime!(shape.padded_out() as u32);
        let spans = comptime!(shape.tap_spans() as u32);
        let o = at % outs;
        let span = (at / outs) % spans;
        let tap = at / (outs * spans);
        let width = comptime!(32 * shape.span_steps() as u32);
        let group = span * width / comptime!(layout.group_size);
        let offset = comptime!(if layout.bits == 8 { 128i32 } else { 0 });
        let (mut scale, mut bias, mut zeros) = (0.0f32.runtime(), 0.0f32.runtime(), 0.0f32.runtime());
        if o < comptime!(layout.c_out) && group < comptime!(layout.row_groups) {
            let mut largest = 0.0f32;
            for c in 0u32..comptime!(layout.c_in) {
                largest = max(largest, steps[c as usize]);
            }
            let from = scale_at(tap, group, o, layout);
            let step = f32::cast_from(scales[from as usize]);
            scale = largest * step;
            bias = largest * (f32::cast_from(biases[from as usize]) + step * comptime!(offset as f32));
            for i in 0u32..width {
                let c = span * width + i;
                if c < comptime!(layout.c_in) {
                    let code = i32::cast_from(code_at(stored, tap, c, o, layout)) - offset;
                    zeros += f32::cast_from(code) * steps[(c + comptime!(layout.c_in)) as usize];
                }
            }
        }
        let first = ((tap * spans + span) * comptime!(FACTORS as u32)) * outs + o;
        factors[first as usize] = scale;
        factors[(first + outs) as usize] = bias;
        factors[(first + 2u32 * outs) as usize] = zeros + comptime!(f32::from_bits(SUM_ORIGIN as u32));
    }
}

/// One over each step, and its byte of 0.
#[cube(launch_unchecked)]
fn invert_steps_kernel(steps: &[f32], codes: &mut [f32], c_in: u32) {
    let at = ABSOLUTE_POS as u32;
    if at < 2u32 * c_in {
        let value = steps[at as usize];
        codes[at as usize] = select(at < c_in, 1.0f32 / value, value);
    }
}

/// Codes for products with bytes, in fragment order, 4 or 8 bits each as stored, and what becomes of features.
#[derive(Clone, Debug)]
pub struct ByteWeights {
    pub(super) fragments: Buffer,
    pub(super) factors: Buffer,
    /// One over the step of each channel, then its byte of 0.
    pub(super) codes: Buffer,
    /// A row of bytes of 0.
    pub(super) zero_row: Buffer,
    pub(super) stored: StoredCodes,
    pub(super) form: Form,
    /// The [packing](MmaPlan::packing) of a plan.
    pub(super) plan: MmaPlan,
}

/// How the bytes of features lie for a kernel.
pub(super) fn byte_layout(stored: &StoredCodes, shape: MmaShape) -> ByteLayout {
    ByteLayout {
        c_in: stored.c_in,
        row_bytes: 2 * shape.c_in,
        single: shape.piece_steps() == 1,
        spans: shape.row_spans(),
    }
}

/// Packs codes for [`conv_bytes`](super::conv_bytes); four launches. `steps` `[2, c_in]` in f32: steps of the features, finite and above
/// 0, then bytes of 0. Stored values are those of the weight times `step / largest step` of their input channel.
///
/// # Panics
/// When a buffer does not have its length, or no kernel has the form of the plan.
pub fn pack_bytes(gpu: &Gpu, stored: &StoredCodes, steps: &Buffer, plan: MmaPlan, life: Life) -> ByteWeights {
    stored.check();
    plan.check();
    assert_eq!(steps.len, 2 * stored.c_in, "pack_bytes: steps and bytes of 0");
    let form = Form::Bytes(CodeForm { bits: stored.bits, group_size: stored.group_size, wide: true });
    let shape = stored.shape(form, plan.packing(), 0, After::Nothing);
    let blocks = shape.all_slices() as usize / shape.plan.slices;
    let n_words = stored.taps as usize * shape.tap_pieces() * blocks * LANES as usize * shape.piece_words();
    let fragments = gpu.room(n_words, 4, life);
    let n_factors = stored.taps as usize * shape.tap_spans() * shape.padded_out();
    let factors = gpu.room(FACTORS * n_factors, 4, life);
    let codes = gpu.room(2 * stored.c_in, 4, life);
    let at_a_time = words_at_a_time(shape.piece_words()) as u32;
    let (client, cube) = (gpu.client(), CubeDim::new_1d(256));
    macro_rules! pack_factors {
        ($S:ty) => {
            // SAFETY: one unit a span and channel; codes and scales are checked against the channels and groups that there are.
            unsafe {
                pack_factors_kernel::launch_unchecked::<$S>(
                    client,
                    Gpu::cubes(n_factors, 256),
                    cube,
                    stored.words.arg(1),
                    stored.scales.arg(1),
                    stored.biases.arg(1),
                    steps.arg(1),
                    factors.arg(1),
                    n_factors as u32,
                    stored.layout(),
                    shape,
                )
            }
        };
    }
    match stored.half_scales {
        true => pack_factors!(half::f16),
        false => pack_factors!(f32),
    }
    // SAFETY: one unit a packed word, whose codes are checked against the channel counts; one unit a step or byte.
    unsafe {
        pack_bytes_kernel::launch_unchecked(
            client,
            Gpu::cubes(n_words, 256),
            cube,
            stored.words.arg(1),
            fragments.arg(1),
            n_words as u32,
            at_a_time,
            stored.layout(),
            shape,
        );
        invert_steps_kernel::launch_unchecked(
            client,
            Gpu::cubes(codes.len, 256),
            cube,
            steps.arg(1),
            codes.arg(1),
            stored.c_in as u32,
        );
    }
    let nothing = gpu.upload(&vec![0.0f32; stored.c_in]);
    let zero_row = quantize_rows::<f32>(gpu, &nothing, &codes, 1, byte_layout(stored, shape), life).bytes;
    ByteWeights { fragments, factors, codes, zero_row, stored: stored.clone(), form, plan: plan.packing() }
}
