//! The other ways to hold a relation's pairs: grouped by output, input or tap, and as a neighbour table.

use crate::relations::Edge;

/// Pairs grouped by one of their ends: group `g` holds the pair ids `edge_ids[splits[g]..splits[g + 1]]`, ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Groups {
    /// Bounds of the groups, one more than there are groups.
    pub splits: Vec<usize>,
    /// Positions in the list of pairs.
    pub edge_ids: Vec<usize>,
}

fn grouped(n_groups: usize, edges: &[Edge], group_of: impl Fn(&Edge) -> usize) -> Groups {
    let mut groups = Groups { splits: vec![0], edge_ids: Vec::new() };
    for group in 0..n_groups {
        for (id, edge) in edges.iter().enumerate() {
            if group_of(edge) == group {
                groups.edge_ids.push(id);
            }
        }
        groups.splits.push(groups.edge_ids.len());
    }
    groups
}

/// Pairs by output row.
pub fn by_output(edges: &[Edge], n_out: usize) -> Groups {
    grouped(n_out, edges, |e| e.1 as usize)
}

/// Pairs by input row.
pub fn by_input(edges: &[Edge], n_in: usize) -> Groups {
    grouped(n_in, edges, |e| e.0 as usize)
}

/// Pairs by tap.
pub fn by_tap(edges: &[Edge], taps: usize) -> Groups {
    grouped(taps, edges, |e| e.2 as usize)
}

/// `[n_out, taps]`: the input row of each output row under each tap, `-1` where there is none.
///
/// Panics when two pairs share output row and tap: no table can hold them.
pub fn neighbour_table(edges: &[Edge], n_out: usize, taps: usize) -> Vec<i32> {
    let mut table = vec![-1; n_out * taps];
    for &(i, o, k) in edges {
        let cell = &mut table[o as usize * taps + k as usize];
        assert_eq!(*cell, -1, "two input rows for output row {o}, tap {k}");
        *cell = i as i32;
    }
    table
}

/// Words that the mask of one row takes: `ceil(taps / 32)`.
pub fn mask_words(taps: usize) -> usize {
    taps.div_ceil(32)
}

/// `[n_out, mask_words]`: bit `k % 32` of word `k / 32` is set when the row has a pair under tap `k`.
pub fn masks(edges: &[Edge], n_out: usize, taps: usize) -> Vec<u32> {
    let words = mask_words(taps);
    let mut masks = vec![0; n_out * words];
    for &(_, o, k) in edges {
        masks[o as usize * words + k as usize / 32] |= 1 << (k % 32);
    }
    masks
}

/// A neighbour table with its rows sorted by mask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SortedTable {
    /// The public row that stands at each sorted position.
    pub rows: Vec<u32>,
    /// `[n_out, taps]`, rows in sorted order.
    pub table: Vec<i32>,
    /// The same, `[taps, n_out]`.
    pub tap_major: Vec<i32>,
    /// `[ceil(n_out / 64) · 4, mask_words]`: the union of the masks of 16 consecutive sorted rows, missing rows as 0.
    pub tile_masks: Vec<u32>,
}

/// Rows by ascending mask, equal masks in row order. Words compare as signed, word 0 first.
pub fn sorted_table(edges: &[Edge], n_out: usize, taps: usize) -> SortedTable {
    let words = mask_words(taps);
    let (plain, masks) = (neighbour_table(edges, n_out, taps), masks(edges, n_out, taps));
    let mut rows: Vec<u32> = (0..n_out as u32).collect();
    let key =
        |row: &u32| -> Vec<i32> { (0..words).map(|w| masks[*row as usize * words + w] as i32).collect() };
    rows.sort_by_key(key);
    let mut table = Vec::new();
    for &row in &rows {
        table.extend_from_slice(&plain[row as usize * taps..(row as usize + 1) * taps]);
    }
    let mut tap_major = Vec::new();
    for k in 0..taps {
        for position in 0..n_out {
            tap_major.push(table[position * taps + k]);
        }
    }
    let mut tile_masks = vec![0; n_out.div_ceil(64) * 4 * words];
    for (position, &row) in rows.iter().enumerate() {
        for w in 0..words {
            tile_masks[position / 16 * words + w] |= masks[row as usize * words + w];
        }
    }
    SortedTable { rows, table, tap_major, tile_masks }
}

/// Number of pairs of each tap.
pub fn tap_histogram(edges: &[Edge], taps: usize) -> Vec<usize> {
    (0..taps).map(|k| edges.iter().filter(|e| e.2 as usize == k).count()).collect()
}

/// Number of pairs of each output row.
pub fn neighbour_counts(edges: &[Edge], n_out: usize) -> Vec<usize> {
    (0..n_out).map(|o| edges.iter().filter(|e| e.1 as usize == o).count()).collect()
}

/// Number of output rows that have `n` pairs, for `n` in `0..=taps`.
pub fn neighbour_histogram(edges: &[Edge], n_out: usize, taps: usize) -> Vec<usize> {
    let counts = neighbour_counts(edges, n_out);
    (0..=taps).map(|n| counts.iter().filter(|&&count| count == n).count()).collect()
}
