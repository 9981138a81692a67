//! A row map on the device.

use lattice_core::{Error, Form, Result, RowEntries, RowMap};

use crate::gpu::{Buffer, Gpu};

/// Entries above which a row is cut into pieces.
const LONG_ROW: usize = 512;
/// Entries of a piece, and pieces that one unit combines.
const PIECE: u32 = 128;

/// A [`RowMap`] on the device.
///
/// # Layout
/// CSR by output row in u32, with f32 weights where the map has them. Memory: 4 bytes a row and 4 or 8 an entry; where the longest
/// row has more than 512 entries, another 8 bytes for every 128 entries or part of them.
#[derive(Clone, Debug)]
pub struct DeviceRowMap {
    /// Input row of each entry.
    pub(crate) rows: Buffer,
    /// Weight of each entry.
    pub(crate) weights: Option<Buffer>,
    /// Bounds of each row's entries.
    pub(crate) splits: Buffer,
    /// How entries become rows: the first level combines entries, each further one the results of the level before.
    pub(crate) levels: Vec<Level>,
    /// Output row of each segment of the first level, where there are several levels.
    pub(crate) owners: Option<Buffer>,
    pub(super) n_in: usize,
    pub(super) n_out: usize,
    pub(super) longest: usize,
}

/// Segments of consecutive entries, or of consecutive results of the level before.
#[derive(Clone, Debug)]
pub(crate) struct Level {
    pub(crate) splits: Buffer,
    pub(crate) n_segments: usize,
}

impl DeviceRowMap {
    /// Copies a map to the device.
    ///
    /// # Errors
    /// [`Error::Limit`] for a map of 2^32 entries or more.
    pub fn from_host(gpu: &Gpu, map: &RowMap) -> Result<Self> {
        let n = map.rows().len();
        let Ok(_) = u32::try_from(n) else {
            let what = format!("expected fewer than 2^32 entries, found {n}; split the batch");
            return Err(Error::Limit { op: "DeviceRowMap::from_host", what });
        };
        let splits: Vec<u32> = map.splits().iter().map(|&split| split as u32).collect();
        let weights = map.weights().map(|weights| gpu.upload(weights));
        let there = gpu.upload(&splits);
        Ok(Self::cut(gpu, [map.n_in(), map.n_out()], gpu.upload(map.rows()), weights, there, &splits))
    }

    /// A map whose entries lie on the device; the buffers of entries may be longer than the last split says. `longest` bounds the entries
    /// of a row: where nobody knows, or rows are long, the splits are read, which waits for the device.
    pub(crate) fn from_parts(
        gpu: &Gpu,
        n: [usize; 2],
        rows: Buffer,
        weights: Option<Buffer>,
        splits: Buffer,
        longest: Option<usize>,
    ) -> Self {
        match longest {
            Some(longest) if longest <= LONG_ROW => {
                let levels = vec![Level { n_segments: n[1], splits: splits.clone() }];
                Self { rows, weights, splits, levels, owners: None, n_in: n[0], n_out: n[1], longest }
            }
            _ => {
                let known = gpu.download(&splits);
                Self::cut(gpu, n, rows, weights, splits, &known)
            }
        }
    }

    /// Cuts long rows into pieces, level by level. `there` is `splits` on the device.
    fn cut(
        gpu: &Gpu,
        [n_in, n_out]: [usize; 2],
        rows: Buffer,
        weights: Option<Buffer>,
        there: Buffer,
        splits: &[u32],
    ) -> Self {
        let longest = splits.windows(2).map(|w| (w[1] - w[0]) as usize).max().unwrap_or(0);
        let (mut levels, mut owners, mut left) = (Vec::new(), None, longest);
        let mut of_row = None;
        while left > LONG_ROW {
            let pieces = Pieces::cut(of_row.as_deref().unwrap_or(splits));
            levels.push(Level::upload(gpu, &pieces.splits));
            owners.get_or_insert_with(|| gpu.upload(&pieces.owners));
            of_row = Some(pieces.of_row);
            left = left.div_ceil(PIECE as usize);
        }
        levels.push(match of_row {
            Some(of_row) => Level::upload(gpu, &of_row),
            None => Level { n_segments: n_out, splits: there.clone() },
        });
        Self { rows, weights, splits: there, levels, owners, n_in, n_out, longest }
    }

    /// Rows it reads from.
    pub fn n_in(&self) -> usize {
        self.n_in
    }

    /// Rows it makes.
    pub fn n_out(&self) -> usize {
        self.n_out
    }

    /// Entries of the row that has most, or a number that no row passes.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// The map in host memory. Waits for the device.
    pub fn to_host(&self, gpu: &Gpu) -> RowEntries {
        let splits: Vec<usize> =
            gpu.download::<u32>(&self.splits).into_iter().map(|split| split as usize).collect();
        let n = splits.last().copied().unwrap_or(0);
        let mut rows = gpu.download::<u32>(&self.rows);
        rows.truncate(n);
        let weights = self.weights.as_ref().map(|weights| {
            let mut weights = gpu.download::<f32>(weights);
            weights.truncate(n);
            weights
        });
        RowEntries { splits, rows, weights }
    }
}

impl Form for DeviceRowMap {
    /// Bytes of all tables.
    fn bytes(&self) -> usize {
        let levels: usize = self.levels.iter().map(|level| level.splits.len).sum();
        let optional = |buffer: &Option<Buffer>| buffer.as_ref().map_or(0, |buffer| buffer.len);
        4 * (self.rows.len + optional(&self.weights) + self.splits.len + levels + optional(&self.owners))
    }
}

impl Level {
    fn upload(gpu: &Gpu, splits: &[u32]) -> Self {
        Self { splits: gpu.upload(splits), n_segments: splits.len() - 1 }
    }
}

/// Rows cut into pieces of at most [`PIECE`] entries.
struct Pieces {
    /// Bounds of the entries of each piece.
    splits: Vec<u32>,
    /// Row that each piece is of.
    owners: Vec<u32>,
    /// Bounds of the pieces of each row.
    of_row: Vec<u32>,
}

impl Pieces {
    fn cut(splits: &[u32]) -> Self {
        let mut pieces = Self { splits: vec![0], owners: Vec::new(), of_row: vec![0] };
        for (row, bounds) in splits.windows(2).enumerate() {
            let mut at = bounds[0];
            while at < bounds[1] {
                at = at.saturating_add(PIECE).min(bounds[1]);
                pieces.splits.push(at);
                pieces.owners.push(row as u32);
            }
            pieces.of_row.push(pieces.owners.len() as u32);
        }
        pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_every_row_in_order() {
        let pieces = Pieces::cut(&[0, 0, 3, 300, 300, 428]);
        assert_eq!(pieces.splits, [0, 3, 131, 259, 300, 428]);
        assert_eq!(pieces.owners, [1, 2, 2, 2, 4]);
        assert_eq!(pieces.of_row, [0, 0, 1, 4, 4, 5]);
    }
}
