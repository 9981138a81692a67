//! The pairs of a relation, grouped by tap.

use lattice_core::{Error, Form, Relation, Result};

use super::list::list_pairs;
use crate::gpu::{Buffer, Gpu};
use crate::tiles::Tiles;

/// The pairs of a relation on the device, grouped by tap: in ascending order of the output rows where they come from the host, tile by
/// tile where they come from tiles.
///
/// # Layout
/// Pairs of tap `t` stand at `splits[t]..splits[t + 1]` of both row buffers. Memory: 8 bytes a pair, of as many pairs as there may be where
/// few enough are possible that nobody waits for their number.
#[derive(Clone, Debug)]
pub struct DevicePairs {
    pub(crate) in_rows: Buffer,
    pub(crate) out_rows: Buffer,
    pub(crate) splits: Buffer,
    n_in: usize,
    n_out: usize,
}

impl DevicePairs {
    /// Copies the pairs of a relation to the device.
    ///
    /// # Errors
    /// [`Error::Limit`] for a relation of 2^32 pairs or more.
    pub fn from_host(gpu: &Gpu, relation: &Relation) -> Result<Self> {
        let n = relation.n_pairs();
        let Ok(_) = u32::try_from(n) else {
            let what = format!("expected fewer than 2^32 pairs, found {n}; split the batch");
            return Err(Error::Limit { op: "DevicePairs::from_host", what });
        };
        let view = relation.by_tap();
        Ok(Self {
            in_rows: gpu.upload(&view.in_rows),
            out_rows: gpu.upload(&view.out_rows),
            splits: gpu.upload(&view.splits.iter().map(|&at| at as u32).collect::<Vec<_>>()),
            n_in: relation.n_in(),
            n_out: relation.n_out(),
        })
    }

    /// The pairs of tiles that were [built](Tiles::build) on the device. Five launches at most, and a wait for the number of pairs where
    /// nobody knows it and many are possible.
    pub fn from_tiles(gpu: &Gpu, tiles: &Tiles) -> Self {
        let [in_rows, out_rows, splits] = list_pairs(gpu, tiles);
        Self { in_rows, out_rows, splits, n_in: tiles.n_in(), n_out: tiles.n_out() }
    }

    /// Number of taps.
    pub fn taps(&self) -> usize {
        self.splits.len - 1
    }

    /// Input rows.
    pub fn n_in(&self) -> usize {
        self.n_in
    }

    /// Output rows.
    pub fn n_out(&self) -> usize {
        self.n_out
    }

    /// Pairs over all taps, at most.
    pub fn most_pairs(&self) -> usize {
        self.in_rows.len
    }

    /// Pairs `(in_row, out_row, tap)` in host memory, tap by tap. For tests and reports.
    pub fn pairs_to_host(&self, gpu: &Gpu) -> Vec<(u32, u32, u32)> {
        let (in_rows, out_rows) = (gpu.download::<u32>(&self.in_rows), gpu.download::<u32>(&self.out_rows));
        let splits = gpu.download::<u32>(&self.splits);
        let taps = (0u32..).zip(splits.windows(2)).flat_map(|(tap, s)| (s[0]..s[1]).map(move |_| tap));
        in_rows.into_iter().zip(out_rows).zip(taps).map(|((i, o), tap)| (i, o, tap)).collect()
    }
}

impl Form for DevicePairs {
    /// Bytes of all tables.
    fn bytes(&self) -> usize {
        4 * (self.in_rows.len + self.out_rows.len + self.splits.len)
    }
}
