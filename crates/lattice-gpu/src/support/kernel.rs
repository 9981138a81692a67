//! Kernels that make supports.

use cubecl::prelude::*;

use crate::index::{describe_row, find_block, lookup_row};
use crate::sort::{SUM_UNITS, cube_exclusive_sum};

/// Rows that a unit marks.
pub(crate) const ITEMS: u32 = 4;
/// Rows that a cube marks.
pub(crate) const MARKED: u32 = SUM_UNITS * ITEMS;
/// Says of a place that its row is a marked one.
pub(crate) const MARK: u32 = 1 << 31;
/// The description of rows; see [`describe_row`].
#[cube(launch_unchecked)]
pub(crate) fn describe_kernel(coords: &[Vector<i32, Const<4>>], description: &mut [Atomic<i32>], n: u32) {
    describe_row(coords, description, ABSOLUTE_POS as u32, n);
}

/// Keys that sort as the canonical order does: the bits of x, y, z interleaved, x lowest, under those of the batch id, without bits that all
/// rows share. Along each axis rows of one sign differ in the low `used` bits; bits of `signs` tell axes that hold both signs, which come
/// above all other bits: those between are copies of them. Batch ids count from the first. One unit a row.
#[cube(launch_unchecked)]
pub(crate) fn pack_keys_kernel(
    coords: &[Vector<i32, Const<4>>],
    low: &mut [u32],
    high: &mut [u32],
    n: u32,
    used_x: u32,
    used_y: u32,
    used_z: u32,
    signs: u32,
    first_batch: i32,
) {
    let row = ABSOLUTE_POS as u32;
    if row < n {
        let c = coords[row as usize];
        let mut words = Array::<u32>::new(2usize);
        words[0] = 0u32;
        words[1] = 0u32;
        let mut used = Array::<u32>::new(3usize);
        used[0] = used_x;
        used[1] = used_y;
        used[2] = used_z;
        let mut place = 0u32;
        for bit in 0u32..max(used_x, max(used_y, used_z)) {
            #[unroll]
            for axis in 0usize..3usize {
                if bit < used[axis] {
                    let value = (u32::cast_from(c.extract(comptime!(axis + 1))) >> bit) & 1u32;
                    put_bits(&mut words, value, place);
                    place += 1u32;
                }
            }
        }
        #[unroll]
        for axis in 0usize..3usize {
            if (signs >> comptime!(axis as u32)) & 1u32 == 1u32 {
                // Negative ones come first.
                let value = select(c.extract(comptime!(axis + 1)) < 0i32, 0u32, 1u32);
                put_bits(&mut words, value, place);
                place += 1u32;
            }
        }
        put_bits(&mut words, u32::cast_from(c.extract(0usize) - first_batch), place);
        low[row as usize] = words[0];
        high[row as usize] = words[1];
    }
}

/// Adds a value to two words, its lowest bit at `place`.
#[cube]
fn put_bits(words: &mut Array<u32>, value: u32, place: u32) {
    if place < 32u32 {
        words[0] |= value << place;
        // A shift by all bits is undefined.
        if place > 0u32 {
            words[1] |= value >> (32u32 - place);
        }
    } else if place < 64u32 {
        words[1] |= value << (place - 32u32);
    }
}

/// The row at position `at` of the order, divided by `2^shift`.
#[cube]
pub(super) fn shifted_row(
    coords: &[Vector<i32, Const<4>>],
    order: &[u32],
    at: u32,
    shift: i32,
    #[comptime] ordered: bool,
) -> Vector<i32, Const<4>> {
    let mut row = at;
    if ordered {
        row = order[at as usize];
    }
    let mut c = coords[row as usize];
    let x = c.extract(1usize) >> shift;
    let y = c.extract(2usize) >> shift;
    let z = c.extract(3usize) >> shift;
    c.insert(1usize, x);
    c.insert(2usize, y);
    c.insert(3usize, z);
    c
}

/// Writes the places of a unit's rows and the total of the cube: `own` holds the marked rows before each among those of the unit, with
/// the bit of its own mark, and `sum` counts those of the unit.
#[cube]
fn write_places(
    own: &Array<u32>,
    sum: u32,
    places: &mut [u32],
    totals: &mut [u32],
    n: u32,
    tile: u32,
    #[comptime] lanes: u32,
) {
    let mut sums = Shared::<[u32]>::new_slice(comptime!(SUM_UNITS as usize));
    let (start, total) = cube_exclusive_sum(sum, &mut sums, lanes);
    let first = (tile * SUM_UNITS + UNIT_POS) * ITEMS;
    #[unroll]
    for item in 0u32..ITEMS {
        if first + item < n {
            places[(first + item) as usize] = own[item as usize] + start;
        }
    }
    if UNIT_POS == SUM_UNITS - 1u32 {
        totals[tile as usize] = total;
    }
}

/// Marks rows that differ from the one before: `places[p]` counts the marked rows before `p` among those of the cube, with
/// a bit for its own mark; `totals[cube]` counts those of the cube.
#[cube(launch_unchecked)]
pub(crate) fn mark_heads_kernel(
    coords: &[Vector<i32, Const<4>>],
    order: &[u32],
    places: &mut [u32],
    totals: &mut [u32],
    n: u32,
    n_tiles: u32,
    shift: i32,
    #[comptime] ordered: bool,
    #[comptime] lanes: u32,
) {
    let tile = CUBE_POS as u32;
    if tile >= n_tiles {
        terminate!();
    }
    let first = (tile * SUM_UNITS + UNIT_POS) * ITEMS;
    let mut before = Vector::<i32, Const<4>>::new(-1i32);
    if first > 0u32 && first < n {
        before = shifted_row(coords, order, first - 1u32, shift, ordered);
    }
    let mut own = Array::<u32>::new(comptime!(ITEMS as usize));
    let mut sum = 0u32;
    #[unroll]
    for item in 0u32..ITEMS {
        let at = first + item;
        let mut mark = 0u32;
        if at < n {
            let c = shifted_row(coords, order, at, shift, ordered);
            let same = c.extract(0usize) == before.extract(0usize)
                && c.extract(1usize) == before.extract(1usize)
                && c.extract(2usize) == before.extract(2usize)
                && c.extract(3usize) == before.extract(3usize);
            mark = select(same, 0u32, 1u32);
            before = c;
        }
        own[item as usize] = sum | (mark << 31u32);
        sum += mark;
    }
    write_places(&own, sum, places, totals, n, tile, lanes);
}

/// [`mark_heads_kernel`] with the marks given: a row is marked where its flag is not 0.
#[cube(launch_unchecked)]
pub(crate) fn mark_flags_kernel(
    flags: &[u32],
    places: &mut [u32],
    totals: &mut [u32],
    n: u32,
    n_tiles: u32,
    #[comptime] lanes: u32,
) {
    let tile = CUBE_POS as u32;
    if tile >= n_tiles {
        terminate!();
    }
    let first = (tile * SUM_UNITS + UNIT_POS) * ITEMS;
    let mut own = Array::<u32>::new(comptime!(ITEMS as usize));
    let mut sum = 0u32;
    #[unroll]
    for item in 0u32..ITEMS {
        let at = first + item;
        let mut mark = 0u32;
        if at < n {
            mark = select(flags[at as usize] != 0u32, 1u32, 0u32);
        }
        own[item as usize] = sum | (mark << 31u32);
        sum += mark;
    }
    write_places(&own, sum, places, totals, n, tile, lanes);
}

/// Moves marked rows to their places and says which of them each row stands under. One unit a position.
///
/// `group_of_row[row]`: number of the marked row at or before it, where `grouped`; `rows_out[place]`: the row that was marked.
#[cube(launch_unchecked)]
pub(crate) fn move_marked_kernel(
    coords: &[Vector<i32, Const<4>>],
    order: &[u32],
    places: &[u32],
    starts: &[u32],
    coords_out: &mut [Vector<i32, Const<4>>],
    rows_out: &mut [u32],
    n: u32,
    shift: i32,
    #[comptime] ordered: bool,
    #[comptime] grouped: bool,
) {
    let at = ABSOLUTE_POS as u32;
    if at < n {
        let place = places[at as usize];
        let marked = place >= MARK;
        let before = (place & comptime!(MARK - 1)) + starts[(at / MARKED) as usize];
        if marked {
            coords_out[before as usize] = shifted_row(coords, order, at, shift, ordered);
        }
        let mut row = at;
        if ordered {
            row = order[at as usize];
        }
        if comptime!(grouped) {
            rows_out[row as usize] = select(marked, before, before - 1u32);
        } else if marked {
            rows_out[before as usize] = row;
        }
    }
}

/// The rows divided by a stride, rounding down; 0 along a dropped axis. One unit a row.
#[cube(launch_unchecked)]
pub(crate) fn divide_kernel(
    coords: &[Vector<i32, Const<4>>],
    out: &mut [Vector<i32, Const<4>>],
    n: u32,
    sx: i32,
    sy: i32,
    sz: i32,
    #[comptime] dropped: Option<usize>,
) {
    let row = ABSOLUTE_POS as u32;
    if row < n {
        let mut c = coords[row as usize];
        let mut x = floor_div(c.extract(1usize), sx);
        let mut y = floor_div(c.extract(2usize), sy);
        let mut z = floor_div(c.extract(3usize), sz);
        if comptime!(dropped == Some(0)) {
            x = 0i32;
        }
        if comptime!(dropped == Some(1)) {
            y = 0i32;
        }
        if comptime!(dropped == Some(2)) {
            z = 0i32;
        }
        c.insert(1usize, x);
        c.insert(2usize, y);
        c.insert(3usize, z);
        out[row as usize] = c;
    }
}

/// `a / b` rounded down, for `b` above 0.
#[cube]
fn floor_div(a: i32, b: i32) -> i32 {
    let quotient = a / b;
    // Division rounds towards zero.
    select(quotient * b > a, quotient - 1i32, quotient)
}

/// What [`expand_kernel`] and [`reach_kernel`] are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ExpandShape {
    pub(crate) size: [u32; 3],
    pub(crate) stride: [i32; 3],
    pub(crate) dilation: [i32; 3],
    pub(crate) padding: [i32; 3],
    /// Taps in the order of Morton codes, x lowest, instead of z fastest: sizes are one power of two.
    pub(crate) morton: bool,
    /// Whether rows are taken in a given order.
    pub(crate) ordered: bool,
}

impl ExpandShape {
    pub(crate) fn taps(&self) -> u32 {
        self.size.iter().product()
    }
}

/// Positions of a tap along the three axes.
#[cube]
fn tap_positions(tap: u32, #[comptime] shape: ExpandShape) -> Array<i32> {
    let mut at = Array::<i32>::new(3usize);
    if comptime!(shape.morton) {
        #[unroll]
        for axis in 0u32..3u32 {
            let mut position = 0u32;
            #[unroll]
            for bit in 0u32..comptime!(shape.size[0].trailing_zeros()) {
                position |= ((tap >> comptime!(3 * bit + axis)) & 1u32) << comptime!(bit);
            }
            at[axis as usize] = i32::cast_from(position);
        }
    } else {
        let ky = comptime!(shape.size[1]);
        let kz = comptime!(shape.size[2]);
        at[0] = i32::cast_from(tap / comptime!(ky * kz));
        at[1] = i32::cast_from((tap / kz) % ky);
        at[2] = i32::cast_from(tap % kz);
    }
    at
}

/// All `c * stride + position * dilation - padding`, tap by tap of every row. One unit a row and tap.
#[cube(launch_unchecked)]
pub(crate) fn expand_kernel(
    coords: &[Vector<i32, Const<4>>],
    order: &[u32],
    out: &mut [Vector<i32, Const<4>>],
    n: u32,
    #[comptime] shape: ExpandShape,
) {
    let at = ABSOLUTE_POS as u32;
    let taps = comptime!(shape.taps());
    if at < n {
        let mut row = at / taps;
        if comptime!(shape.ordered) {
            row = order[row as usize];
        }
        let positions = tap_positions(at % taps, shape);
        let mut c = coords[row as usize];
        #[unroll]
        for axis in 0usize..3usize {
            let q = c.extract(comptime!(axis + 1)) * comptime!(shape.stride[axis])
                + positions[axis] * comptime!(shape.dilation[axis])
                - comptime!(shape.padding[axis]);
            c.insert(comptime!(axis + 1), q);
        }
        out[at as usize] = c;
    }
}

/// All `q` with `q * stride + position * dilation - padding = c` and `0 <= q <= last`; a flag says whether there is one. One unit
/// a row and tap.
#[cube(launch_unchecked)]
pub(crate) fn reach_kernel(
    coords: &[Vector<i32, Const<4>>],
    out: &mut [Vector<i32, Const<4>>],
    flags: &mut [u32],
    n: u32,
    last_x: i32,
    last_y: i32,
    last_z: i32,
    #[comptime] shape: ExpandShape,
) {
    let at = ABSOLUTE_POS as u32;
    let taps = comptime!(shape.taps());
    if at < n {
        let positions = tap_positions(at % taps, shape);
        let mut last = Array::<i32>::new(3usize);
        last[0] = last_x;
        last[1] = last_y;
        last[2] = last_z;
        let mut c = coords[(at / taps) as usize];
        let mut fits = true;
        #[unroll]
        for axis in 0usize..3usize {
            let stride = comptime!(shape.stride[axis]);
            let scaled = c.extract(comptime!(axis + 1)) + comptime!(shape.padding[axis])
                - positions[axis] * comptime!(shape.dilation[axis]);
            let q = floor_div(scaled, stride);
            fits = fits && q * stride == scaled && q >= 0i32 && q <= last[axis];
            c.insert(comptime!(axis + 1), q);
        }
        out[at as usize] = c;
        flags[at as usize] = select(fits, 1u32, 0u32);
    }
}

/// Row of every query in an index, -1 where it has none. One unit a query.
#[cube(launch_unchecked)]
pub(crate) fn lookup_kernel(
    queries: &[Vector<i32, Const<4>>],
    source: &[Vector<i32, Const<4>>],
    slots: &[u32],
    occupancy: &[u32],
    first: &[u32],
    rows: &[u32],
    found: &mut [i32],
    n: u32,
    mask: u32,
) {
    let at = ABSOLUTE_POS as u32;
    if at < n {
        let q = queries[at as usize];
        let (batch, x, y, z) = (q.extract(0usize), q.extract(1usize), q.extract(2usize), q.extract(3usize));
        let slot = find_block(source, slots, 0u32, mask, batch, x >> 2i32, y >> 2i32, z >> 2i32);
        // No row has the number that stands for none, which is -1 in signed terms.
        found[at as usize] = i32::cast_from(lookup_row(occupancy, first, rows, slot, x, y, z));
    }
}
