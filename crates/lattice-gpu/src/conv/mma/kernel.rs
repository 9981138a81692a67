//! The kernel of [`super`].

use cubecl::cmma::{MatrixIdent, MmaDefinition};
use cubecl::prelude::*;

use super::plan::{EDGE, LANES};
use crate::conv::finish::{Operands, finish_sum};
use crate::conv::mma::After;
use crate::tiles::{CHUNK_ROWS, HALO_ROWS, NO_ROW, SPAN_WORDS, TILE_ROWS};

/// Halo rows that most tiles stay below.
const USUAL_HALO: usize = 384;

/// Sizes and options that the kernel is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct MmaShape {
    pub(super) c_in: usize,
    pub(super) c_out: usize,
    pub(super) taps: u32,
    pub(super) span_words: u32,
    /// Input channels staged at a time.
    pub(super) depth: usize,
    /// Planes along rows, and pairs of chunks of each.
    pub(super) row_groups: usize,
    pub(super) pairs: usize,
    /// Planes along output channels, and fragments of each.
    pub(super) slice_groups: usize,
    pub(super) slices: usize,
    /// Steps of 16 input channels whose weights are held at a time.
    pub(super) grain: usize,
    pub(super) ahead: bool,
    pub(super) after: After,
}

impl MmaShape {
    /// Fragments of output channels, rounded up to whole blocks.
    fn all_slices(&self) -> u32 {
        (self.c_out.div_ceil(EDGE)).next_multiple_of(self.slice_groups * self.slices) as u32
    }

    /// Loads of staged rows that a unit has under way: one round for most tiles, within registers that leave room for two cubes of
    /// 256 units on a multiprocessor, where sums and weights do.
    fn loads_ahead(&self) -> usize {
        let units = self.row_groups * self.slice_groups * LANES as usize;
        let one_round = (USUAL_HALO * self.depth / 8).div_ceil(units);
        let held = 4 * self.slices * (2 * self.pairs + self.grain);
        let most = if held > 112 { 12 } else { ((112 - held) / 4).max(4) };
        one_round.clamp(1, most)
    }
}

/// Where 16 bytes `v` of row `local` stand among the staged rows of `width` such pieces. Where steps are read in pairs of 64 bytes,
/// rows of odd number swap their halves, so that two rows read together meet in different banks half of the time.
#[cube]
fn staged(local: u32, v: u32, #[comptime] shape: MmaShape) -> u32 {
    let width = comptime!((shape.depth / 8) as u32);
    if comptime!(shape.depth == 64 && shape.grain < 4) {
        local * width + (v ^ ((local % 2u32) * 4u32))
    } else {
        local * width + v
    }
}

/// Reads a lane's channels of a voxel: eight of every two steps, or four of a single one, in words of two.
///
/// Lane `4 g + t` reads row `g` of its chunk. Eight lanes are served together: two rows, of which the even one reads its first 64 bytes
/// and the odd one its second, then the other way about, so that they never meet in a bank.
#[cube]
fn read_voxels<F: Float>(
    voxels: &mut Array<u32>,
    stage: &Shared<[Vector<F, Const<8>>]>,
    local: u32,
    lane: u32,
    #[comptime] chunk: usize,
    #[comptime] grain: usize,
    #[comptime] shape: MmaShape,
) {
    let quad = lane % 4u32;
    let base = comptime!(chunk * shape.grain * 2);
    if comptime!(shape.grain == 1) {
        // A single step: 8 bytes a lane.
        let both = Vector::<u32, Const<4>>::reinterpret(
            stage[(local * comptime!((shape.depth / 8) as u32) + quad / 2u32) as usize],
        );
        let odd = quad % 2u32 == 1u32;
        voxels[base] = select(odd, both.extract(2usize), both.extract(0usize));
        voxels[comptime!(base + 1)] = select(odd, both.extract(3usize), both.extract(1usize));
    } else if comptime!(shape.grain == 2) {
        let at = staged(local, comptime!((grain * 4) as u32) + quad, shape);
        let words = Vector::<u32, Const<4>>::reinterpret(stage[at as usize]);
        #[unroll]
        for i in 0usize..4usize {
            voxels[comptime!(base + i)] = words.extract(i);
        }
    } else {
        let odd = (lane / 4u32) % 2u32;
        let at = local * 8u32 + quad;
        let one = Vector::<u32, Const<4>>::reinterpret(stage[(at + 4u32 * odd) as usize]);
        let two = Vector::<u32, Const<4>>::reinterpret(stage[(at + 4u32 * (1u32 - odd)) as usize]);
        #[unroll]
        for i in 0usize..4usize {
            voxels[comptime!(base + i)] = select(odd == 0u32, one.extract(i), two.extract(i));
            voxels[comptime!(base + 4 + i)] = select(odd == 0u32, two.extract(i), one.extract(i));
        }
    }
}

/// Asks for the weights of some steps of a tap: a lane's part of each fragment.
#[cube]
fn load_weights(
    weights: &mut Array<Vector<u32, Const<4>>>,
    packed: &[Vector<u32, Const<4>>],
    first_fragment: u32,
    lane: u32,
    #[comptime] shape: MmaShape,
) {
    let all_slices = comptime!(shape.all_slices());
    #[unroll]
    for step in 0usize..comptime!(shape.grain) {
        #[unroll]
        for slice in 0usize..comptime!(shape.slices) {
            let fragment = first_fragment + step as u32 * all_slices + slice as u32;
            weights[comptime!(step * shape.slices + slice)] = packed[(fragment * LANES + lane) as usize];
        }
    }
}

/// Words that hold the local numbers of a tap at a lane's places, one a chunk.
#[cube]
fn load_words(
    words: &mut Array<u32>,
    table: &[u32],
    tap: u32,
    tile: u32,
    first_place: u32,
    lane: u32,
    #[comptime] shape: MmaShape,
) {
    let word = (tile * comptime!(shape.taps.div_ceil(2)) + tap / 2u32) * comptime!(TILE_ROWS as u32);
    #[unroll]
    for chunk in 0usize..comptime!(2 * shape.pairs) {
        words[chunk] =
            table[(word + first_place + comptime!((chunk * CHUNK_ROWS) as u32) + lane / 4u32) as usize];
    }
}

/// `y[o] = epilogue(Σ x[i] · weight[tap])` for one tile a cube; every output row is written once.
#[cube(launch_unchecked, address_type = "dynamic")]
pub(super) fn conv_mma_kernel<F: Float, N: Size, Y: Size>(
    x: &[Vector<F, N>],
    packed: &[Vector<u32, Const<4>>],
    operands: Operands<F, Y>,
    y: &mut [Vector<F, Y>],
    tile_rows: &[u32],
    table: &[u32],
    chunk_bits: &[u32],
    halo: &[u32],
    spans: &[u32],
    n_tiles: u32,
    #[comptime] shape: MmaShape,
) {
    let tile = CUBE_POS_X + CUBE_POS_Y * 65_535u32;
    if tile >= n_tiles {
        terminate!();
    }
    let c_in = comptime!(shape.c_in as u32);
    let depth = comptime!(shape.depth as u32);
    let width = comptime!(depth / 8);
    let steps = comptime!(shape.depth / EDGE);
    let block = comptime!((shape.slice_groups * shape.slices) as u32);
    let n_phases = spans[(tile * comptime!(shape.span_words)) as usize];
    let units = comptime!((shape.row_groups * shape.slice_groups) as u32 * LANES);
    let ahead = comptime!(shape.loads_ahead());
    let lane = UNIT_POS % LANES;
    let plane = UNIT_POS / LANES;
    let row_group = plane / comptime!(shape.slice_groups as u32);
    let slice_group = plane % comptime!(shape.slice_groups as u32);
    let first_slice = CUBE_POS_Z * block + slice_group * comptime!(shape.slices as u32);
    let first_place = row_group * comptime!((2 * shape.pairs * CHUNK_ROWS) as u32);

    let def = MmaDefinition::<F, F, f32>::new(16usize, 8usize, 16usize);
    let na = def.vector_size(MatrixIdent::A);
    let size!(NA) = na;
    let size!(NB) = def.vector_size(MatrixIdent::B);
    let nc = def.vector_size(MatrixIdent::Accumulator);
    let size!(NC) = nc;
    let n_c = comptime!(4 / nc);
    let nx = N::value();
    let ny = Y::value();

    let mut sums = Sequence::<Array<Vector<f32, NC>>>::new();
    #[unroll]
    for _ in 0usize..comptime!(2 * shape.pairs * shape.slices) {
        let mut sum = Array::<Vector<f32, NC>>::new(n_c);
        #[unroll]
        for i in 0usize..n_c {
            sum[i] = Vector::new(0.0f32);
        }
        sums.push(sum);
    }

    // One row more than a halo may have: zeros, for rows that a tap lacks.
    let mut stage = Shared::<[Vector<F, Const<8>>]>::new_aligned_slice(
        comptime!((HALO_ROWS + 1) * shape.depth / 8),
        16usize,
    );
    if UNIT_POS < width {
        stage[(comptime!(HALO_ROWS as u32) * width + UNIT_POS) as usize] = Vector::new(F::from_int(0i64));
    }

    // Two elements a word: a register holds them as the instruction takes them.
    let mut weights = Array::<Vector<u32, Const<4>>>::new(comptime!(shape.grain * shape.slices));
    let mut next_weights = Array::<Vector<u32, Const<4>>>::new(comptime!(shape.grain * shape.slices));
    let mut words = Array::<u32>::new(comptime!(2 * shape.pairs));
    let mut next_words = Array::<u32>::new(comptime!(2 * shape.pairs));
    let parts = comptime!(shape.c_in.div_ceil(shape.depth) as u32);
    let grains = comptime!(steps / shape.grain);
    let all_slices = comptime!(shape.all_slices());
    let tap_fragments = comptime!(parts * steps as u32) * all_slices;

    for phase in 0u32..n_phases {
        let span = tile * comptime!(shape.span_words) + (phase + 1u32) * SPAN_WORDS;
        let at_halo = spans[span as usize];
        let n_halo = spans[(span + 1u32) as usize];
        let begin = spans[(span + 2u32) as usize];
        let end = spans[(span + 3u32) as usize];
        for part in 0u32..parts {
            sync_cube();
            // Several loads are under way at a time: first the rows, then their channels, then the stores.
            let mut first = UNIT_POS;
            while first < n_halo * width {
                let mut rows = Array::<u32>::new(ahead);
                let mut values = Array::<Vector<F, Const<8>>>::new(ahead);
                #[unroll]
                for i in 0usize..ahead {
                    let local = min((first + i as u32 * units) / width, n_halo - 1u32);
                    rows[i] = halo[(at_halo + local) as usize];
                }
                #[unroll]
                for i in 0usize..ahead {
                    let channel = part * depth + ((first + i as u32 * units) % width) * 8u32;
                    let mut value = Vector::<F, Const<8>>::new(F::from_int(0i64));
                    if comptime!(nx == 8) {
                        if channel < c_in {
                            value = Vector::cast_from(
                                x[rows[i] as usize * comptime!(shape.c_in / 8) + (channel / 8u32) as usize],
                            );
                        }
                    } else {
                        #[unroll]
                        for k in 0usize..8usize {
                            if channel + (k as u32) < c_in {
                                value.insert(
                                    k,
                                    x[rows[i] as usize * comptime!(shape.c_in) + channel as usize + k]
                                        .extract(0usize),
                                );
                            }
                        }
                    }
                    values[i] = value;
                }
                #[unroll]
                for i in 0usize..ahead {
                    let piece = first + i as u32 * units;
                    if piece < n_halo * width {
                        stage[staged(piece / width, piece % width, shape) as usize] = values[i];
                    }
                }
                first += comptime!(ahead as u32) * units;
            }
            sync_cube();
            // Which pairs of chunks of this plane have which taps: a lane holds one tap of the phase.
            let mut mine = 0u32;
            if begin + lane < end {
                let bits = chunk_bits[(tile * comptime!(shape.taps) + begin + lane) as usize];
                mine = (bits >> (row_group * comptime!(2 * shape.pairs as u32)))
                    & comptime!(((1u64 << (2 * shape.pairs)) - 1) as u32);
            }
            let part_fragment = part * comptime!(steps as u32) * all_slices + first_slice;
            let mut left = plane_ballot(mine != 0u32).extract(0usize);
            let mut at_tap = u32::cast_from(left.trailing_zeros());
            if left != 0u32 {
                load_words(&mut words, table, begin + at_tap, tile, first_place, lane, shape);
                if comptime!(shape.ahead) {
                    load_weights(
                        &mut weights,
                        packed,
                        (begin + at_tap) * tap_fragments + part_fragment,
                        lane,
                        shape,
                    );
                }
            }
            while left != 0u32 {
                // The next tap's operands are asked for before this one's are used.
                left &= left - 1u32;
                let tap = begin + at_tap;
                let bits = plane_shuffle(mine, at_tap);
                at_tap = select(left != 0u32, u32::cast_from(left.trailing_zeros()), at_tap);
                load_words(&mut next_words, table, begin + at_tap, tile, first_place, lane, shape);
                let half = 16u32 * (tap % 2u32);
                #[unroll]
                for grain in 0usize..grains {
                    let at_grain = comptime!((grain * shape.grain) as u32) * all_slices + part_fragment;
                    if comptime!(!shape.ahead) {
                        load_weights(&mut weights, packed, tap * tap_fragments + at_grain, lane, shape);
                    } else {
                        let last = comptime!(grain + 1 == grains);
                        if last {
                            load_weights(
                                &mut next_weights,
                                packed,
                                (begin + at_tap) * tap_fragments + part_fragment,
                                lane,
                                shape,
                            );
                        } else {
                            let next_grain =
                                comptime!(((grain + 1) * shape.grain) as u32) * all_slices + part_fragment;
                            load_weights(
                                &mut next_weights,
                                packed,
                                tap * tap_fragments + next_grain,
                                lane,
                                shape,
                            );
                        }
                    }
                    #[unroll]
                    for pair in 0usize..comptime!(shape.pairs) {
                        if (bits >> comptime!(2 * pair as u32)) & 3u32 != 0u32 {
                            let mut voxels = Array::<u32>::new(comptime!(2 * 2 * shape.grain));
                            #[unroll]
                            for chunk in 0usize..2usize {
                                let local = (words[comptime!(2 * pair + chunk)] >> half) & 0xFFFFu32;
                                read_voxels::<F>(&mut voxels, &stage, local, lane, chunk, grain, shape);
                            }
                            #[unroll]
                            for step in 0usize..comptime!(shape.grain) {
                                #[unroll]
                                for slice in 0usize..comptime!(shape.slices) {
                                    let lanes = weights[comptime!(step * shape.slices + slice)];
                                    let mut a = Array::<Vector<F, NA>>::new(comptime!(8 / na));
                                    #[unroll]
                                    for i in 0usize..comptime!(8 / na) {
                                        a[i] = Vector::<F, NA>::reinterpret(lanes.extract(i));
                                    }
                                    #[unroll]
                                    for chunk in 0usize..2usize {
                                        let mut b = Array::<Vector<F, NB>>::new(2usize);
                                        #[unroll]
                                        for i in 0usize..2usize {
                                            let word =
                                                voxels[comptime!((chunk * shape.grain + step) * 2 + i)];
                                            b[i] = Vector::<F, NB>::reinterpret(word);
                                        }
                                        let sum = sums
                                            .index_mut(comptime!((2 * pair + chunk) * shape.slices + slice));
                                        def.execute_inplace(&a, &b, sum);
                                    }
                                }
                            }
                        }
                    }
                    if comptime!(shape.ahead) {
                        #[unroll]
                        for i in 0usize..comptime!(shape.grain * shape.slices) {
                            weights[i] = next_weights[i];
                        }
                    }
                }
                #[unroll]
                for chunk in 0usize..comptime!(2 * shape.pairs) {
                    words[chunk] = next_words[chunk];
                }
            }
        }
    }

    // A lane holds two rows of two output channels, eight apart, of each fragment.
    let (row, col) = def.position_of_nth(lane, 0u32, MatrixIdent::Accumulator);
    let odd = row % 2u32;
    let mut outs = Array::<u32>::new(comptime!(4 * shape.pairs));
    #[unroll]
    for chunk in 0usize..comptime!(2 * shape.pairs) {
        let place =
            tile * comptime!(TILE_ROWS as u32) + first_place + comptime!((chunk * CHUNK_ROWS) as u32) + col;
        outs[comptime!(2 * chunk)] = tile_rows[place as usize];
        outs[comptime!(2 * chunk + 1)] = tile_rows[(place + 1u32) as usize];
    }
    #[unroll]
    for chunk in 0usize..comptime!(2 * shape.pairs) {
        let mut out = outs[comptime!(2 * chunk)];
        let next_out = outs[comptime!(2 * chunk + 1)];
        if comptime!(ny == 2) {
            out = select(odd == 1u32, next_out, out);
        }
        #[unroll]
        for slice in 0usize..comptime!(shape.slices) {
            let sum = sums.index(comptime!(chunk * shape.slices + slice));
            // A lane holds two rows of two output channels, eight apart. Where vectors have two channels, lanes of neighbouring
            // channels swap one row each.
            #[unroll]
            for half in 0usize..2usize {
                let first = sum[comptime!(2 * half / nc)].extract(comptime!(2 * half % nc));
                let second = sum[comptime!((2 * half + 1) / nc)].extract(comptime!((2 * half + 1) % nc));
                let channel = (first_slice + slice as u32) * 16u32 + comptime!(8 * half as u32) + row;
                if comptime!(ny == 2) {
                    let other = plane_shuffle_xor(select(odd == 1u32, first, second), 4u32);
                    let mut pair = Vector::<f32, Y>::empty();
                    pair.insert(0usize, select(odd == 1u32, other, first));
                    pair.insert(1usize, select(odd == 1u32, second, other));
                    write_sum(pair, out, channel - odd, &operands, y, shape);
                } else {
                    write_sum(Vector::<f32, Y>::new(first), out, channel, &operands, y, shape);
                    write_sum(Vector::<f32, Y>::new(second), next_out, channel, &operands, y, shape);
                }
            }
        }
    }
}

/// Ends the sum of one vector of channels and writes it, where there is an output row and it has the channel.
#[cube]
fn write_sum<F: Float, Y: Size>(
    sum: Vector<f32, Y>,
    out: u32,
    channel: u32,
    operands: &Operands<F, Y>,
    y: &mut [Vector<F, Y>],
    #[comptime] shape: MmaShape,
) {
    let lanes = Y::value();
    if out != NO_ROW && channel < comptime!(shape.c_out as u32) {
        let column = channel as usize / lanes;
        let at = out as usize * comptime!(shape.c_out / lanes) + column;
        y[at] = finish_sum(sum, column, at, operands, comptime!(shape.after));
    }
}
