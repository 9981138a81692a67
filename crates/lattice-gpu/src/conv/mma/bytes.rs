//! Products of features in bytes with codes: the kernel's side of [`Form::Bytes`](super::form::Form::Bytes).
//!
//! With bytes `q`, bytes of 0 `z`, the largest step `a`, signed codes `c` and values `s · c + b` of a group the sum of a tap is
//! `a · s · (Σ q · c - Σ z · c) + a · b · Σ (q - z)`. Integers are summed exactly a *span*, 32 or 64 channels of one group, from 1.5 · 2^23
//! on: the bits of such a number are those of the f32 with its value, so that nothing need be converted. A row that a tap lacks has
//! bytes of 0, and a sum of 0.

use cubecl::cmma::{MatrixIdent, MmaDefinition};
use cubecl::prelude::*;

use super::form::{Beside, words_at_a_time};
use super::shape::MmaShape;
use crate::tiles::HALO_ROWS;

/// Where sums of integers begin: the bits of 1.5 · 2^23.
pub(super) const SUM_ORIGIN: i32 = 0x4b40_0000;

/// Numbers of an output channel and span: `a · s`, `a · b`, and the value of [`SUM_ORIGIN`] with `Σ z · c`.
pub(super) const FACTORS: usize = 3;

impl MmaShape {
    /// Steps of 32 channels of a span.
    pub(super) fn span_steps(&self) -> usize {
        if self.group_size() == 32 { 1 } else { self.piece_steps() }
    }

    /// Spans of a grain.
    pub(super) fn grain_spans(&self) -> usize {
        self.plan.grain / self.span_steps()
    }

    /// Spans of a part of the channels.
    pub(super) fn part_spans(&self) -> usize {
        self.plan.depth / 16 / self.span_steps()
    }

    /// Spans of a tap, whole parts of channels counted.
    pub(super) fn tap_spans(&self) -> usize {
        self.parts() * self.part_spans()
    }

    /// Spans of a row of bytes.
    pub(super) fn row_spans(&self) -> usize {
        self.c_in / 16 / self.span_steps()
    }

    /// Sums of staged rows.
    pub(super) fn staged_sums(&self) -> usize {
        if self.is_bytes() { (HALO_ROWS + 1) * self.part_spans() } else { 1 }
    }

    /// Factors of a grain that a lane holds.
    pub(super) fn held_factors(&self) -> usize {
        if self.is_bytes() { self.grain_spans() * FACTORS * 2 * self.plan.slices } else { 1 }
    }

    /// Factors that a lane loads at a time.
    pub(super) fn factors_at_a_time(&self) -> usize {
        words_at_a_time(2 * self.plan.slices)
    }
}

/// The fragments of one piece; digits of 4 bits become bytes.
#[cube]
pub(super) fn unpack_bytes(
    weights: &mut Array<Vector<u32, Const<4>>>,
    words: &Array<u32>,
    #[comptime] piece: usize,
    #[comptime] shape: MmaShape,
) {
    let steps = comptime!(shape.piece_steps());
    let slices = comptime!(shape.plan.slices);
    let first = comptime!(piece * shape.piece_words());
    #[unroll]
    for step in 0usize..steps {
        #[unroll]
        for slice in 0usize..slices {
            let mut four = Vector::<u32, Const<4>>::empty();
            #[unroll]
            for row in 0usize..2usize {
                let fragment = comptime!(step * slices + slice);
                if comptime!(shape.bits() == 8) {
                    four.insert(row, words[comptime!(first + fragment * 4 + row)]);
                    four.insert(comptime!(2 + row), words[comptime!(first + fragment * 4 + 2 + row)]);
                } else {
                    let word = words[comptime!(first + fragment * 2 + row)];
                    four.insert(row, word & 0x0f0f_0f0fu32);
                    four.insert(comptime!(2 + row), (word >> 4u32) & 0x0f0f_0f0fu32);
                }
            }
            weights[comptime!((piece * steps + step) * slices + slice)] = four;
        }
    }
}

/// A lane's factors of a grain, `[span, factor, slice, row]`.
#[cube]
pub(super) fn load_factors<X: Float, P: Size, A: Size>(
    factors: &mut Array<f32>,
    beside: &Beside<X, P, A>,
    tap: u32,
    first_span: u32,
    first_out: u32,
    #[comptime] shape: MmaShape,
) {
    let a = A::value();
    let outs = comptime!(2 * shape.plan.slices);
    let rows = comptime!(shape.grain_spans() * FACTORS);
    let first_row = (tap * comptime!(shape.tap_spans() as u32) + first_span) * comptime!(FACTORS as u32);
    #[comptime]
    match beside.affine.clone() {
        ComptimeOption::Some(affine) =>
        {
            #[unroll]
            for row in 0usize..rows {
                let at = (first_row + row as u32) * comptime!(shape.padded_out() as u32) + first_out;
                #[unroll]
                for v in 0usize..comptime!(outs / a) {
                    let found = affine[(at / comptime!(a as u32) + v as u32) as usize];
                    #[unroll]
                    for i in 0usize..a {
                        factors[comptime!(row * outs + v * a + i)] = f32::reinterpret(found.extract(i));
                    }
                }
            }
        }
        ComptimeOption::None => {}
    }
}

/// Stages the sums of a part of the halo's rows, and those of rows that a tap lacks.
#[cube]
pub(super) fn stage_sums<X: Float, P: Size, A: Size>(
    staged: &mut Shared<[f32]>,
    beside: &Beside<X, P, A>,
    halo: &[u32],
    at_halo: u32,
    n_halo: u32,
    part: u32,
    #[comptime] shape: MmaShape,
) {
    let spans = comptime!(shape.part_spans() as u32);
    let row_spans = comptime!(shape.row_spans() as u32);
    #[comptime]
    match beside.row_sums.clone() {
        ComptimeOption::Some(row_sums) => {
            let mut at = UNIT_POS;
            while at < n_halo * spans {
                let row = halo[(at_halo + at / spans) as usize];
                let span = part * spans + at % spans;
                let mut sum = 0.0f32;
                if span < row_spans {
                    sum = row_sums[row as usize * comptime!(shape.row_spans()) + span as usize];
                }
                staged[at as usize] = sum;
                at += comptime!(shape.plan.units() as u32);
            }
            if UNIT_POS < spans {
                staged[(comptime!(HALO_ROWS as u32) * spans + UNIT_POS) as usize] = 0.0f32;
            }
        }
        ComptimeOption::None => {}
    }
}

/// Bytes of 0 of a part, 16 of them.
#[cube]
pub(super) fn zero_bytes<X: Float, P: Size, A: Size>(
    beside: &Beside<X, P, A>,
    part: u32,
    #[comptime] shape: MmaShape,
) -> Vector<X, P> {
    let mut found = Vector::<X, P>::new(X::from_int(0i64));
    let at = part * comptime!((shape.plan.depth / 8) as u32) + UNIT_POS;
    #[comptime]
    match beside.zero_row.clone() {
        ComptimeOption::Some(zeros) => {
            if at < comptime!((shape.c_in / 8) as u32) {
                found = zeros[at as usize];
            }
        }
        ComptimeOption::None => {}
    }
    found
}

/// Adds the products of a span to the sums of one fragment: eight voxels of a chunk by 16 output channels of a slice. `row_sums` are
/// those of the lane's two voxels.
#[cube]
pub(super) fn add_span<NC: Size>(
    sums: &mut Array<Vector<f32, NC>>,
    weights: &Array<Vector<u32, Const<4>>>,
    voxels: &Array<u32>,
    factors: &Array<f32>,
    row_sums: &Array<f32>,
    #[comptime] span: usize,
    #[comptime] chunk: usize,
    #[comptime] slice: usize,
    #[comptime] shape: MmaShape,
) {
    let def = MmaDefinition::<i8, u8, i32>::new(16usize, 8usize, 32usize);
    let size!(NA) = def.vector_size(MatrixIdent::A);
    let size!(NB) = def.vector_size(MatrixIdent::B);
    let ni = def.vector_size(MatrixIdent::Accumulator);
    let size!(NI) = ni;
    let nc = NC::value();
    let mut total = Array::<Vector<i32, NI>>::new(comptime!(4 / ni));
    #[unroll]
    for i in 0usize..comptime!(4 / ni) {
        total[i] = Vector::new(comptime!(SUM_ORIGIN));
    }
    #[unroll]
    for nth in 0usize..comptime!(shape.span_steps()) {
        let step = comptime!(span * shape.span_steps() + nth);
        let lanes = weights[comptime!(step * shape.plan.slices + slice)];
        let mut a = Array::<Vector<i8, NA>>::new(4usize);
        #[unroll]
        for i in 0usize..4usize {
            a[i] = Vector::<i8, NA>::reinterpret(lanes.extract(i));
        }
        let mut b = Array::<Vector<u8, NB>>::new(2usize);
        #[unroll]
        for i in 0usize..2usize {
            b[i] =
                Vector::<u8, NB>::reinterpret(voxels[comptime!((chunk * shape.plan.grain + step) * 2 + i)]);
        }
        def.execute_inplace(&a, &b, &mut total);
    }
    let outs = comptime!(2 * shape.plan.slices);
    let first = comptime!(span * FACTORS * outs + slice * 2);
    #[unroll]
    for nth in 0usize..4usize {
        let (row, side) = comptime!((nth / 2, nth % 2));
        let bits = total[comptime!(nth / ni)].extract(comptime!(nth % ni));
        let product = f32::reinterpret(bits) - factors[comptime!(first + 2 * outs + row)];
        let mut some = sums[comptime!(nth / nc)];
        let sum =
            fma(factors[comptime!(first + outs + row)], row_sums[side], some.extract(comptime!(nth % nc)));
        some.insert(comptime!(nth % nc), fma(factors[comptime!(first + row)], product, sum));
        sums[comptime!(nth / nc)] = some;
    }
}
