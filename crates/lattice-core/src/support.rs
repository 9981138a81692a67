//! Supports: distinct rows in a fixed order, with an identity.

mod blocks;
mod index;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use rayon::prelude::*;

pub use blocks::{Block, block_bit, block_key};
pub(crate) use blocks::{BlockTable, NO_BLOCK};
pub(crate) use index::Around;
pub use index::CoordIndex;

use crate::coord::{CHUNK_ROWS, SortedRows, bounds, sort_rows};
use crate::{Attachments, Coord, Error, Result, canonical_cmp};

/// Largest batch id that a row may have: items are counted by arrays over all ids below the largest.
pub const MAX_BATCH_ID: i32 = (1 << 20) - 1;

/// Identity of a support: two handles are equal exactly when they are clones of one support.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SupportId(u64);

/// Reads rows that were made elsewhere.
type ReadRows = Box<dyn Fn() -> Vec<Coord> + Send + Sync>;

struct Inner {
    id: SupportId,
    n_rows: usize,
    coords: OnceLock<Vec<Coord>>,
    /// Where the rows come from, unless they are here from the beginning.
    elsewhere: Option<ReadRows>,
    canonical: bool,
    bounds: Option<(Coord, Coord)>,
    index: OnceLock<CoordIndex>,
    attachments: Attachments,
}

/// An ordered set of distinct coordinates, without features. Immutable; clones share rows, identity and index.
///
/// Rows that a caller gives keep their order; rows that this crate creates are in canonical order (see
/// [`canonical_cmp`]). At most `i32::MAX` rows, since lookups answer in `i32`. Memory: 16 bytes a row, and
/// [`CoordIndex::bytes`] once something was looked up. Rows of a support that was [made elsewhere](Support::made_elsewhere), such as
/// on a GPU, are read when they are first asked for.
#[derive(Clone)]
pub struct Support(Arc<Inner>);

impl std::fmt::Debug for Support {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Support")
            .field("id", &self.0.id)
            .field("n_rows", &self.0.n_rows)
            .field("canonical", &self.0.canonical)
            .field("bounds", &self.0.bounds)
            .finish()
    }
}

impl Support {
    /// Takes distinct rows in the caller's order.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for a batch id below 0 or above [`MAX_BATCH_ID`], [`Error::DuplicateCoord`] naming the first row
    /// that repeats an earlier one, [`Error::Limit`] past `i32::MAX` rows.
    pub fn try_new(coords: Vec<Coord>) -> Result<Self> {
        const OP: &str = "Support::try_new";
        let bounds = check_rows(OP, &coords)?;
        if coords.par_windows(2).with_min_len(CHUNK_ROWS / 4).all(|w| canonical_cmp(&w[0], &w[1]).is_lt()) {
            return Ok(Self::bounded(coords, true, bounds));
        }
        let index = CoordIndex::try_new(&coords, bounds).map_err(|row| Error::DuplicateCoord {
            op: OP,
            row,
            coord: coords[row],
        })?;
        let support = Self::bounded(coords, false, bounds);
        support.0.index.get_or_init(|| index);
        Ok(support)
    }

    /// The distinct rows in canonical order.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for a batch id below 0 or above [`MAX_BATCH_ID`], [`Error::Limit`] past `i32::MAX` rows (duplicates counted).
    pub fn canonical(coords: Vec<Coord>) -> Result<Self> {
        check_rows("Support::canonical", &coords)?;
        if coords.par_windows(2).with_min_len(CHUNK_ROWS / 4).all(|w| canonical_cmp(&w[0], &w[1]).is_lt()) {
            return Ok(Self::trusted(coords, true));
        }
        Ok(Self::from_sorted(&coords, &sort_rows(&coords)))
    }

    /// The first row of each group of equal rows.
    pub(crate) fn from_sorted(coords: &[Coord], sorted: &SortedRows) -> Self {
        let starts = &sorted.starts[..sorted.starts.len() - 1];
        let first = |&start: &u32| coords[sorted.order[start as usize] as usize];
        Self::trusted(starts.par_iter().with_min_len(CHUNK_ROWS / 4).map(first).collect(), true)
    }

    /// Takes rows that are known to be distinct, in range and, where `canonical` says so, in canonical order.
    pub(crate) fn trusted(coords: Vec<Coord>, canonical: bool) -> Self {
        let bounds = bounds(&coords);
        Self::bounded(coords, canonical, bounds)
    }

    fn bounded(coords: Vec<Coord>, canonical: bool, bounds: Option<(Coord, Coord)>) -> Self {
        let support = Self::unread(coords.len(), canonical, bounds, None);
        support.0.coords.get_or_init(|| coords);
        support
    }

    /// Rows that were made elsewhere and lie there: `read` brings them here when they are first asked for.
    ///
    /// The maker vouches for them: `n_rows` distinct rows with batch ids within `0..=`[`MAX_BATCH_ID`], in canonical order where
    /// `canonical` says so, whose columns have exactly these `bounds` (none without rows). `read` gives the same rows every time.
    ///
    /// # Errors
    /// [`Error::Limit`] past `i32::MAX` rows.
    pub fn made_elsewhere(
        n_rows: usize,
        canonical: bool,
        bounds: Option<(Coord, Coord)>,
        read: impl Fn() -> Vec<Coord> + Send + Sync + 'static,
    ) -> Result<Self> {
        check_row_count("Support::made_elsewhere", n_rows)?;
        Ok(Self::unread(n_rows, canonical, bounds, Some(Box::new(read))))
    }

    fn unread(
        n_rows: usize,
        canonical: bool,
        bounds: Option<(Coord, Coord)>,
        elsewhere: Option<ReadRows>,
    ) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = SupportId(NEXT.fetch_add(1, Ordering::Relaxed));
        Self(Arc::new(Inner {
            id,
            n_rows,
            coords: OnceLock::new(),
            elsewhere,
            canonical,
            bounds,
            index: OnceLock::new(),
            attachments: Attachments::default(),
        }))
    }

    /// Number of rows.
    pub fn n_rows(&self) -> usize {
        self.0.n_rows
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.0.n_rows == 0
    }

    /// The rows, in order. Reads them, where they were made elsewhere and this is the first call.
    pub fn coords(&self) -> &[Coord] {
        self.0.coords.get_or_init(|| {
            let rows = self.0.elsewhere.as_ref().map(|read| read()).unwrap_or_default();
            assert_eq!(rows.len(), self.0.n_rows, "a support made elsewhere gives as many rows as it said");
            rows
        })
    }

    /// Whether the rows are in this memory: always, unless they were made elsewhere and nobody asked for them.
    pub fn is_read(&self) -> bool {
        self.0.coords.get().is_some()
    }

    /// Identity, unique within the process.
    pub fn id(&self) -> SupportId {
        self.0.id
    }

    /// Forms that other crates keep with these rows.
    pub fn attachments(&self) -> &Attachments {
        &self.0.attachments
    }

    /// Whether both are clones of one support.
    pub fn same_identity(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }

    /// Whether both hold equal rows in equal order. Linear, unless they are one support.
    pub fn same_rows(&self, other: &Self) -> bool {
        let comparable = self.n_rows() == other.n_rows() && self.bounds() == other.bounds();
        self.same_identity(other) || comparable && self.coords() == other.coords()
    }

    /// Whether the rows are in canonical order.
    pub fn is_canonical(&self) -> bool {
        self.0.canonical
    }

    /// Largest batch id plus one; 0 without rows.
    pub fn batch_size(&self) -> usize {
        self.0.bounds.map_or(0, |(_, high)| high[0] as usize + 1)
    }

    /// Rows of each batch id, [`Support::batch_size`] values; 0 for ids without rows.
    pub fn batch_counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.batch_size()];
        for run in self.coords().chunk_by(|a, b| a[0] == b[0]) {
            counts[run[0][0] as usize] += run.len();
        }
        counts
    }

    /// Ascending rows of each batch id, [`Support::batch_size`] lists.
    pub fn batch_rows(&self) -> Vec<Vec<u32>> {
        let mut rows = vec![Vec::new(); self.batch_size()];
        for (row, c) in self.coords().iter().enumerate() {
            rows[c[0] as usize].push(row as u32);
        }
        rows
    }

    /// Smallest and largest value of each column; `None` without rows.
    pub fn bounds(&self) -> Option<(Coord, Coord)> {
        self.0.bounds
    }

    /// The index of the rows, built by the first caller and kept.
    pub fn index(&self) -> &CoordIndex {
        // Built outside the cell's lock: a parallel build may run other tasks while it waits, and one of them may ask for the
        // same index. At worst two callers build it and one result is kept.
        if let Some(built) = self.0.index.get() {
            return built;
        }
        let built = match self.0.canonical {
            true => CoordIndex::of_canonical(self.coords()),
            false => {
                CoordIndex::try_new(self.coords(), self.0.bounds).expect("the rows of a support are distinct")
            }
        };
        self.0.index.get_or_init(|| built)
    }

    /// Row of a coordinate.
    pub fn lookup(&self, coord: &Coord) -> Option<u32> {
        self.index().row(coord)
    }

    /// Rows of coordinates in query order, -1 where absent. Parallel.
    pub fn lookup_all(&self, queries: &[Coord]) -> Vec<i32> {
        self.index().rows_of(queries)
    }

    /// Bytes of the rows, where they were read, and of the index, when it was built.
    pub fn bytes(&self) -> usize {
        self.0.coords.get().map_or(0, |rows| size_of_val(&rows[..]))
            + self.0.index.get().map_or(0, CoordIndex::bytes)
    }
}

/// Refuses too many rows and batch ids out of range; returns the bounds of the rows.
fn check_rows(op: &'static str, coords: &[Coord]) -> Result<Option<(Coord, Coord)>> {
    check_row_count(op, coords.len())?;
    let found = bounds(coords);
    let good = |batch: i32| (0..=MAX_BATCH_ID).contains(&batch);
    if found.is_none_or(|(low, high)| good(low[0]) && good(high[0])) {
        return Ok(found);
    }
    match coords.iter().position(|c| !good(c[0])) {
        Some(row) => {
            let found = coords[row][0];
            let what = format!(
                "expected a batch id within 0..={MAX_BATCH_ID}, found {found}; number the items of a batch from 0 (the \
                 columns are batch, x, y, z)"
            );
            Err(Error::OutOfRange { op, row, what })
        }
        None => Ok(found),
    }
}

/// Refuses more rows than `i32` can name.
pub(crate) fn check_row_count(op: &'static str, n_rows: usize) -> Result<()> {
    if i32::try_from(n_rows).is_ok() {
        return Ok(());
    }
    let what = format!("expected at most {} rows, found {n_rows}; split the batch", i32::MAX);
    Err(Error::Limit { op, what })
}
