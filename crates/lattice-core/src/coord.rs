//! Coordinate rows, their canonical order, and the integer keys that sort them.

mod radix;

use std::cmp::Ordering;

use rayon::prelude::*;

pub(crate) use radix::{CHUNK_ROWS, Keyed, SortKey, sort_keyed};

use crate::support::{block_bit, block_key};
use crate::{Error, Result};

/// One row of a support: `[batch, x, y, z]`, in voxels of its stride.
pub type Coord = [i32; 4];

/// Compares two rows in the canonical order: batch, then the bits of `(x, y, z) ^ 0x8000_0000` interleaved from the top bit,
/// z above y above x. A total order; equal only for equal rows.
pub fn canonical_cmp(a: &Coord, b: &Coord) -> Ordering {
    // Flipping the top bit of both sides leaves their difference as it is, so the deciding axis is the one with the highest
    // differing bit; z wins among equals, then y.
    let differ = |axis: usize| (a[axis] ^ b[axis]) as u32;
    let higher_bit = |lhs: u32, rhs: u32| lhs < rhs && lhs < (lhs ^ rhs);
    let mut axis = 3;
    for other in [2, 1] {
        if higher_bit(differ(axis), differ(other)) {
            axis = other;
        }
    }
    a[0].cmp(&b[0]).then_with(|| a[axis].cmp(&b[axis]))
}

/// Narrows 64-bit rows with a range check.
///
/// # Errors
/// [`Error::OutOfRange`] naming the first row that holds a value outside `i32`.
pub fn check_coords_i64(rows: &[[i64; 4]]) -> Result<Vec<Coord>> {
    let narrow = |(row, c): (usize, &[i64; 4])| {
        let mut out = [0; 4];
        for (to, &from) in out.iter_mut().zip(c) {
            *to = i32::try_from(from).map_err(|_| Error::OutOfRange {
                op: "coordinates",
                row,
                what: format!("expected values inside i32, found {c:?}; shift the scene towards the origin"),
            })?;
        }
        Ok(out)
    };
    rows.iter().enumerate().map(narrow).collect()
}

/// How wide the sort key of a set of rows is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyWidth {
    /// 64 bits hold every row.
    Narrow,
    /// 128 bits are needed; they always suffice, since 3 axes and the batch are 32 bits each.
    Wide,
}

/// Integer keys that sort as [`canonical_cmp`] does, with no more bits than the rows need.
///
/// # Layout
/// From the top: the batch id minus the smallest one, then for each bit level from the top z, y, x. Every axis keeps its low
/// `b` bits with the highest of them flipped, where all coordinates fit `b` bits as signed numbers.
///
/// Dropping the levels above keeps the order exactly: for a signed `b`-bit value the bits `b - 1 ..= 31` are copies of its
/// sign. In the biased form `v ^ 0x8000_0000` bit 31 is the flipped sign and bits `b - 1 ..= 30` equal the sign, so they
/// differ between two values only where bit 31 differs already, on the same axis. The canonical comparison meets level 31
/// first: when any axis differs there, the highest such axis decides, which is what the kept level `b - 1` (the flipped sign)
/// says too; when none does, levels `b - 1 ..= 30` are equal on all axes and the comparison goes on at level `b - 2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyLayout {
    axis_bits: u32,
    batch_bits: u32,
    first_batch: i32,
}

impl KeyLayout {
    /// Keys for rows between `low` and `high`, each column inclusive.
    pub fn new(low: &Coord, high: &Coord) -> Self {
        let signed_bits = |v: i32| 33 - ((v ^ (v >> 31)) as u32).leading_zeros();
        let axis_bits = (1..4).map(|a| signed_bits(low[a]).max(signed_bits(high[a]))).max().unwrap_or(1);
        let batches = i64::from(high[0]) - i64::from(low[0]);
        Self { axis_bits, batch_bits: 64 - batches.max(0).leading_zeros(), first_batch: low[0] }
    }

    /// Bits kept of each axis, 1 to 32.
    pub fn axis_bits(&self) -> u32 {
        self.axis_bits
    }

    /// Bits kept of the batch id, 0 to 32.
    pub fn batch_bits(&self) -> u32 {
        self.batch_bits
    }

    /// [`KeyWidth::Narrow`] where `3 · axis_bits + batch_bits <= 64`.
    pub fn width(&self) -> KeyWidth {
        if 3 * self.axis_bits + self.batch_bits <= 64 { KeyWidth::Narrow } else { KeyWidth::Wide }
    }

    /// Key of a row within the bounds of a narrow layout; `None` when the layout is wide.
    pub fn narrow_key(&self, c: &Coord) -> Option<u64> {
        (self.width() == KeyWidth::Narrow).then(|| u64::pack(self, c))
    }

    /// Key of a row within the bounds; equals the narrow key where there is one.
    pub fn wide_key(&self, c: &Coord) -> u128 {
        u128::pack(self, c)
    }

    fn axes(&self, c: &Coord) -> [u32; 3] {
        let top = 1 << (self.axis_bits - 1);
        let mask = u32::MAX >> (32 - self.axis_bits);
        [1, 2, 3].map(|a| (c[a] as u32 ^ top) & mask)
    }

    fn batch(&self, c: &Coord) -> u32 {
        c[0].wrapping_sub(self.first_batch) as u32
    }
}

/// Spreads 21 bits: bit `i` of `v` lands on bit `3 i`.
#[inline]
pub(crate) fn spread(v: u32) -> u64 {
    let mut v = u64::from(v & 0x1f_ffff);
    v = (v | v << 32) & 0x001f_0000_0000_ffff;
    v = (v | v << 16) & 0x001f_0000_ff00_00ff;
    v = (v | v << 8) & 0x100f_00f0_0f00_f00f;
    v = (v | v << 4) & 0x10c3_0c30_c30c_30c3;
    (v | v << 2) & 0x1249_2492_4924_9249
}

/// A sort key that can be made from a row.
pub(crate) trait PackedKey: SortKey {
    /// Key of a row within the layout's bounds.
    fn pack(layout: &KeyLayout, c: &Coord) -> Self;
}

impl PackedKey for u64 {
    #[inline]
    fn pack(layout: &KeyLayout, c: &Coord) -> Self {
        let [x, y, z] = layout.axes(c).map(spread);
        // 63 axis bits leave a shift below 64, so it cannot overflow
        u64::from(layout.batch(c)) << (3 * layout.axis_bits) | x | y << 1 | z << 2
    }
}

impl PackedKey for u128 {
    #[inline]
    fn pack(layout: &KeyLayout, c: &Coord) -> Self {
        let [x, y, z] = layout.axes(c).map(|v| u128::from(spread(v >> 21)) << 63 | u128::from(spread(v)));
        u128::from(layout.batch(c)) << (3 * layout.axis_bits) | x | y << 1 | z << 2
    }
}

/// Smallest and largest value of each column; `None` without rows.
pub(crate) fn bounds(coords: &[Coord]) -> Option<(Coord, Coord)> {
    let widen = |a: (Coord, Coord), b: (Coord, Coord)| {
        (std::array::from_fn(|k| a.0[k].min(b.0[k])), std::array::from_fn(|k| a.1[k].max(b.1[k])))
    };
    coords
        .par_chunks(CHUNK_ROWS)
        .map(|chunk| chunk.iter().fold(([i32::MAX; 4], [i32::MIN; 4]), |found, c| widen(found, (*c, *c))))
        .reduce_with(widen)
}

/// Rows in canonical order, equal ones next to each other.
#[derive(Debug, Default)]
pub(crate) struct SortedRows {
    /// Row ids in canonical order; equal coordinates in ascending row order.
    pub order: Vec<u32>,
    /// Where in `order` each distinct coordinate begins, then the number of rows: one more than there are coordinates.
    pub starts: Vec<u32>,
}

/// Sorts fewer than `u32::MAX` rows. Time: linear, a few passes over 16 or 32 bytes a row.
pub(crate) fn sort_rows(coords: &[Coord]) -> SortedRows {
    let Some((low, high)) = bounds(coords) else { return SortedRows { order: Vec::new(), starts: vec![0] } };
    let layout = KeyLayout::new(&low, &high);
    match layout.width() {
        KeyWidth::Narrow => sort_with::<u64>(coords, &layout),
        KeyWidth::Wide => sort_with::<u128>(coords, &layout),
    }
}

fn sort_with<K: PackedKey>(coords: &[Coord], layout: &KeyLayout) -> SortedRows {
    let keyed = coords.par_iter().with_min_len(CHUNK_ROWS / 4).enumerate();
    let sorted = sort_keyed(
        keyed.map(|(row, c)| Keyed { key: K::pack(layout, c), row: row as u32, tag: 0 }).collect(),
    );
    let starts_of_chunk = |(chunk, rows): (usize, &[Keyed<K>])| {
        let first = chunk * CHUNK_ROWS;
        let mut before = first.checked_sub(1).map(|at| sorted[at].key);
        let mut starts = Vec::with_capacity(rows.len());
        for (at, entry) in rows.iter().enumerate() {
            if before != Some(entry.key) {
                starts.push((first + at) as u32);
            }
            before = Some(entry.key);
        }
        starts
    };
    let mut starts =
        sorted.par_chunks(CHUNK_ROWS).enumerate().map(starts_of_chunk).collect::<Vec<_>>().concat();
    starts.push(sorted.len() as u32);
    SortedRows {
        order: sorted.par_iter().with_min_len(CHUNK_ROWS / 4).map(|entry| entry.row).collect(),
        starts,
    }
}

/// Rows by the block of 4 x 4 x 4 voxels that holds them, blocks in canonical order of their keys and the rows of one block
/// ascending. The tag is the bit within the block.
pub(crate) enum RowsByBlock {
    /// Keys of 64 bits.
    Narrow(Vec<Keyed<u64>>),
    /// Keys of 128 bits.
    Wide(Vec<Keyed<u128>>),
}

/// Sorts rows within `bounds` by their block.
pub(crate) fn sort_by_block(coords: &[Coord], bounds: Option<(Coord, Coord)>) -> RowsByBlock {
    let Some((low, high)) = bounds else { return RowsByBlock::Narrow(Vec::new()) };
    let layout = KeyLayout::new(&block_key(&low), &block_key(&high));
    match layout.width() {
        KeyWidth::Narrow => RowsByBlock::Narrow(order_by_block(coords, &layout)),
        KeyWidth::Wide => RowsByBlock::Wide(order_by_block(coords, &layout)),
    }
}

fn order_by_block<K: PackedKey>(coords: &[Coord], layout: &KeyLayout) -> Vec<Keyed<K>> {
    let keyed = coords.par_iter().with_min_len(CHUNK_ROWS / 4).enumerate();
    let keyed = keyed.map(|(row, c)| Keyed {
        key: K::pack(layout, &block_key(c)),
        row: row as u32,
        tag: block_bit(c) as u8,
    });
    sort_keyed(keyed.collect())
}
