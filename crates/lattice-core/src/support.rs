//! Supports: distinct rows in a fixed order, with an identity.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::{Coord, Error, Result, canonical_cmp};

/// Identity of a support.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SupportId(u64);

#[derive(Debug)]
struct Inner {
    id: SupportId,
    coords: Vec<Coord>,
    canonical: bool,
    index: OnceLock<CoordIndex>,
}

/// Lookup of rows by coordinate.
#[derive(Debug)]
pub struct CoordIndex {
    rows: HashMap<Coord, u32>,
}

/// An ordered set of distinct coordinates; clones share the identity.
#[derive(Clone, Debug)]
pub struct Support(Arc<Inner>);

impl Support {
    fn make(coords: Vec<Coord>, canonical: bool) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = SupportId(NEXT.fetch_add(1, Ordering::Relaxed));
        Self(Arc::new(Inner { id, coords, canonical, index: OnceLock::new() }))
    }

    /// Takes distinct rows in the caller's order.
    ///
    /// # Errors
    /// Duplicates, negative batch ids.
    pub fn try_new(coords: Vec<Coord>) -> Result<Self> {
        let mut seen = HashMap::new();
        for (row, &coord) in coords.iter().enumerate() {
            if coord[0] < 0 {
                return Err(Error::OutOfRange {
                    op: "Support::try_new",
                    row,
                    what: format!("expected a batch id of 0 or more, found {}", coord[0]),
                });
            }
            if seen.insert(coord, row).is_some() {
                return Err(Error::DuplicateCoord { op: "Support::try_new", row, coord });
            }
        }
        let canonical = coords.is_sorted_by(|a, b| canonical_cmp(a, b).is_lt());
        Ok(Self::make(coords, canonical))
    }

    /// Sorts and dedups.
    ///
    /// # Errors
    /// Negative batch ids.
    pub fn canonical(mut coords: Vec<Coord>) -> Result<Self> {
        coords.sort_by(canonical_cmp);
        coords.dedup();
        Ok(Self::make(coords, true))
    }

    /// Number of rows.
    pub fn n_rows(&self) -> usize {
        self.0.coords.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.0.coords.is_empty()
    }

    /// The rows.
    pub fn coords(&self) -> &[Coord] {
        &self.0.coords
    }

    /// Identity.
    pub fn id(&self) -> SupportId {
        self.0.id
    }

    /// One support.
    pub fn same_identity(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }

    /// Equal rows in equal order.
    pub fn same_rows(&self, other: &Self) -> bool {
        self.same_identity(other) || self.coords() == other.coords()
    }

    /// Canonical order.
    pub fn is_canonical(&self) -> bool {
        self.0.canonical
    }

    /// Largest batch id plus one.
    pub fn batch_size(&self) -> usize {
        self.coords().iter().map(|c| c[0] as usize + 1).max().unwrap_or(0)
    }

    /// Rows per batch id.
    pub fn batch_counts(&self) -> Vec<usize> {
        self.batch_rows().iter().map(Vec::len).collect()
    }

    /// Ascending rows of each batch id.
    pub fn batch_rows(&self) -> Vec<Vec<u32>> {
        let mut rows = vec![Vec::new(); self.batch_size()];
        for (row, c) in self.coords().iter().enumerate() {
            rows[c[0] as usize].push(row as u32);
        }
        rows
    }

    /// Smallest and largest value of each column.
    pub fn bounds(&self) -> Option<([i32; 4], [i32; 4])> {
        let first = *self.coords().first()?;
        Some(self.coords().iter().fold((first, first), |(mut low, mut high), c| {
            for k in 0..4 {
                low[k] = low[k].min(c[k]);
                high[k] = high[k].max(c[k]);
            }
            (low, high)
        }))
    }

    /// Index of rows.
    pub fn index(&self) -> &CoordIndex {
        self.0.index.get_or_init(|| CoordIndex {
            rows: self.coords().iter().enumerate().map(|(r, &c)| (c, r as u32)).collect(),
        })
    }

    /// Row of a coordinate.
    pub fn lookup(&self, coord: &Coord) -> Option<u32> {
        self.index().rows.get(coord).copied()
    }

    /// Rows of coordinates, -1 where absent.
    pub fn lookup_all(&self, queries: &[Coord]) -> Vec<i32> {
        queries.iter().map(|q| self.lookup(q).map_or(-1, |r| r as i32)).collect()
    }

    /// Bytes of the rows.
    pub fn bytes(&self) -> usize {
        std::mem::size_of_val(self.coords())
    }
}
