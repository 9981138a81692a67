//! Rows along a space-filling curve, and patches of consecutive rows.
//!
//! Source: Wu et al., "Point Transformer V3" (CVPR 2024, arXiv:2312.10035) for the four orders and the padding of patches; Skilling,
//! "Programming the Hilbert curve" (AIP 2004) for the transform between axes and the curve.

use burn_lattice::core::{self as lattice_core, Coord};
use burn_lattice::{Error, PatchRun, Result, RowMap, Support};

/// A curve through the voxels of a cloud.
///
/// Coordinates are taken from the cloud's smallest one per axis; clouds that start at 0 keep their cells through pooling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SerialOrder {
    /// Bits interleaved, x above y above z.
    #[default]
    Morton,
    /// Morton with x and y exchanged.
    MortonSwapped,
    /// The Hilbert curve: rows that follow each other are neighbours where the cube is full.
    Hilbert,
    /// Hilbert with x and y exchanged.
    HilbertSwapped,
}

impl SerialOrder {
    /// All four, in the order in which the published network's blocks take turns.
    pub const ALL: [Self; 4] = [Self::Morton, Self::MortonSwapped, Self::Hilbert, Self::HilbertSwapped];

    /// Place of a cell on the curve through a cube of `2^depth` cells a side.
    ///
    /// # Panics
    /// A depth above 32.
    pub fn code(self, cell: [u32; 3], depth: u32) -> u128 {
        assert!(depth <= 32, "SerialOrder::code: expected a depth of at most 32, found {depth}");
        let [x, y, z] = cell;
        match self {
            Self::Morton => interleave([x, y, z]),
            Self::MortonSwapped => interleave([y, x, z]),
            Self::Hilbert => hilbert([x, y, z], depth),
            Self::HilbertSwapped => hilbert([y, x, z], depth),
        }
    }
}

/// Bit `3 i + 2` is bit `i` of the first value, `3 i + 1` of the second, `3 i` of the third.
fn interleave(values: [u32; 3]) -> u128 {
    let mut code = 0;
    for (axis, value) in values.into_iter().enumerate() {
        for bit in 0..32 {
            code |= u128::from(value >> bit & 1) << (3 * bit + 2 - axis);
        }
    }
    code
}

fn hilbert(mut axes: [u32; 3], depth: u32) -> u128 {
    // From the top bit: where an axis has it, the lower bits of the first axis are inverted, else exchanged with this axis'.
    for bit in (0..depth).rev() {
        let low = (1u32 << bit) - 1;
        for axis in 0..3 {
            if axes[axis] >> bit & 1 == 1 {
                axes[0] ^= low;
            } else {
                let exchange = (axes[0] ^ axes[axis]) & low;
                axes[0] ^= exchange;
                axes[axis] ^= exchange;
            }
        }
    }
    // The interleaved bits are the Gray code of the place.
    let mut code = interleave(axes);
    for shift in [1, 2, 4, 8, 16, 32, 64] {
        code ^= code >> shift;
    }
    code
}

/// Rows of a support along a curve, batch item after batch item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serialization {
    /// Row at each place.
    pub rows: Vec<u32>,
    /// Places of item `b` are `splits[b]..splits[b + 1]`.
    pub splits: Vec<usize>,
}

/// Orders the rows of every batch item along a curve. Reads the coordinates on the host; `O(n log n)`.
pub fn serialize(support: &Support, order: SerialOrder) -> Serialization {
    let host = support.to_host();
    let coords = host.coords();
    let items = host.batch_size();
    let mut lowest = vec![[i32::MAX; 3]; items];
    for c in coords {
        let low = &mut lowest[c[0] as usize];
        (0..3).for_each(|a| low[a] = low[a].min(c[a + 1]));
    }
    let cell = |c: &Coord| {
        let low = lowest[c[0] as usize];
        // A difference of two i32 fits u32.
        std::array::from_fn(|a| (i64::from(c[a + 1]) - i64::from(low[a])) as u32)
    };
    let largest = coords.iter().flat_map(&cell).max().unwrap_or(0);
    let depth = 32 - largest.leading_zeros();
    let mut keyed: Vec<(i32, u128, u32)> =
        coords.iter().enumerate().map(|(row, c)| (c[0], order.code(cell(c), depth), row as u32)).collect();
    keyed.sort_unstable();
    let mut splits = vec![0; items + 1];
    for &(item, ..) in &keyed {
        splits[item as usize + 1] += 1;
    }
    for i in 1..splits.len() {
        splits[i] += splits[i - 1];
    }
    Serialization { rows: keyed.into_iter().map(|(.., row)| row).collect(), splits }
}

/// Rows of a support cut into patches along a curve.
///
/// An item of at most `size` rows is one patch of its own length. Of a longer one each patch has `size` slots, and where the rows do
/// not divide, the last patch is filled with the rows at the same slots of the patch before it. Every row is read back from its own
/// slot, so filled slots only lend their keys and values.
#[derive(Clone, Debug)]
pub struct Patches {
    n_rows: usize,
    slots: Vec<u32>,
    runs: Vec<PatchRun>,
    slots_from_rows: RowMap,
    rows_from_slots: RowMap,
}

impl Patches {
    /// Cuts the rows of a support.
    ///
    /// # Errors
    /// A size of 0; more slots than a row map holds.
    pub fn new(support: &Support, order: SerialOrder, size: usize) -> Result<Self> {
        if size == 0 {
            return Err(Error::Value {
                op: "Patches",
                what: "expected a patch size above 0, found 0".into(),
            });
        }
        let n_rows = support.n_rows();
        let Serialization { rows, splits } = serialize(support, order);
        let mut slots: Vec<u32> = Vec::with_capacity(n_rows + size);
        let mut own = vec![0i32; n_rows];
        let mut runs: Vec<PatchRun> = Vec::new();
        for item in splits.windows(2) {
            let rows = &rows[item[0]..item[1]];
            if rows.is_empty() {
                continue;
            }
            let first = slots.len();
            for (i, &row) in rows.iter().enumerate() {
                own[row as usize] = (first + i) as i32;
            }
            slots.extend_from_slice(rows);
            let length = size.min(rows.len());
            if rows.len() > size {
                let over = rows.len() % size;
                if over > 0 {
                    let end = rows.len();
                    slots.extend_from_slice(&rows[end - size..end - over]);
                }
            }
            let patches = (slots.len() - first) / length;
            match runs.last_mut() {
                Some(run) if run.length == length => run.patches += patches,
                _ => runs.push(PatchRun { first, patches, length }),
            }
        }
        if i32::try_from(slots.len()).is_err() {
            return Err(Error::Limit {
                op: "Patches",
                what: format!("expected fewer than 2^31 slots, found {}; use fewer rows", slots.len()),
            });
        }
        let splits = (0..=slots.len()).collect();
        let slots_from_rows = lattice_core::RowMap::try_new(n_rows, splits, slots.clone(), None)?.into();
        let rows_from_slots = lattice_core::RowMap::gather(slots.len(), &own)?.into();
        Ok(Self { n_rows, slots, runs, slots_from_rows, rows_from_slots })
    }

    /// Rows of the support.
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// Row in each slot.
    pub fn slots(&self) -> &[u32] {
        &self.slots
    }

    /// Patches of equal length, in slot order; together they are all slots.
    pub fn runs(&self) -> &[PatchRun] {
        &self.runs
    }

    /// Copies rows to slots, for [`mix_rows`](burn_lattice::ops::mix_rows).
    pub fn slots_from_rows(&self) -> &RowMap {
        &self.slots_from_rows
    }

    /// Copies each row back from its own slot.
    pub fn rows_from_slots(&self) -> &RowMap {
        &self.rows_from_slots
    }
}
