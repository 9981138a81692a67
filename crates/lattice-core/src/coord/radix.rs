//! A parallel, stable radix sort of keys with row ids, without data races by construction.
//!
//! One counting pass over the top differing bits deals the entries into groups of about [`GROUP_ROWS`] neighbouring keys;
//! each group then stays in cache while a least-significant-digit sort finishes it. Chunks and groups depend on the data
//! alone, never on the number of threads, and every step is stable, so the result is the same everywhere.

use std::ops::{BitOr, BitXor};

use rayon::prelude::*;

/// Rows that one task handles.
pub(crate) const CHUNK_ROWS: usize = 1 << 15;
/// Smallest number of rows that closes a group: two copies of 16-byte entries fit a second-level cache.
const GROUP_ROWS: usize = 1 << 13;
/// Bits that deal entries into groups.
const DEAL_BITS: u32 = 12;
/// Widest digit of the sort inside a group.
const DIGIT_BITS: u32 = 11;

/// An unsigned integer to sort by.
pub(crate) trait SortKey:
    Copy + Default + Ord + Send + Sync + BitXor<Output = Self> + BitOr<Output = Self>
{
    /// `bits` bits from bit `shift` on.
    fn digit(self, shift: u32, bits: u32) -> usize;
    /// Position after the highest set bit; 0 for 0.
    fn bit_length(self) -> u32;
    /// Position of the lowest set bit.
    fn lowest_bit(self) -> u32;
}

impl SortKey for u64 {
    #[inline]
    fn digit(self, shift: u32, bits: u32) -> usize {
        (self >> shift) as usize & ((1 << bits) - 1)
    }
    fn bit_length(self) -> u32 {
        u64::BITS - self.leading_zeros()
    }
    fn lowest_bit(self) -> u32 {
        self.trailing_zeros()
    }
}

impl SortKey for u128 {
    #[inline]
    fn digit(self, shift: u32, bits: u32) -> usize {
        (self >> shift) as usize & ((1 << bits) - 1)
    }
    fn bit_length(self) -> u32 {
        u128::BITS - self.leading_zeros()
    }
    fn lowest_bit(self) -> u32 {
        self.trailing_zeros()
    }
}

/// A key and the row it belongs to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Keyed<K> {
    /// What the sort compares.
    pub key: K,
    /// Row id, carried along.
    pub row: u32,
    /// Carried along too, in what would be padding.
    pub tag: u8,
}

/// Sorts by key; equal keys keep their order.
pub(crate) fn sort_keyed<K: SortKey>(mut entries: Vec<Keyed<K>>) -> Vec<Keyed<K>> {
    if entries.len() <= CHUNK_ROWS {
        let mut scratch = vec![Keyed::default(); entries.len()];
        sort_group(&mut entries, &mut scratch);
        return entries;
    }
    let first = entries[0].key;
    let differing = entries
        .par_chunks(CHUNK_ROWS)
        .map(|chunk| chunk.iter().fold(K::default(), |all, e| all | (e.key ^ first)))
        .reduce(K::default, |a, b| a | b);
    let shift = differing.bit_length().saturating_sub(DEAL_BITS);

    let histograms: Vec<Vec<u32>> = entries
        .par_chunks(CHUNK_ROWS)
        .map(|chunk| {
            let mut counts = vec![0; 1 << DEAL_BITS];
            chunk.iter().for_each(|e| counts[e.key.digit(shift, DEAL_BITS)] += 1);
            counts
        })
        .collect();
    let (group_of_digit, group_rows) = form_groups(&histograms);

    // each chunk is dealt into groups within its own part of the buffer
    let mut dealt = vec![Keyed::default(); entries.len()];
    let chunk_splits: Vec<Vec<u32>> = entries
        .par_chunks(CHUNK_ROWS)
        .zip(dealt.par_chunks_mut(CHUNK_ROWS))
        .zip(&histograms)
        .map(|((from, to), counts)| deal(from, to, counts, &group_of_digit, shift, group_rows.len()))
        .collect();

    // each group collects its pieces, in chunk order, and is sorted
    let mut rest = entries.as_mut_slice();
    let mut groups = Vec::with_capacity(group_rows.len());
    for &n in &group_rows {
        let (group, tail) = rest.split_at_mut(n);
        groups.push(group);
        rest = tail;
    }
    groups.into_par_iter().enumerate().with_max_len(1).for_each_init(Vec::new, |scratch, (id, group)| {
        let mut at = 0;
        for (chunk, splits) in dealt.chunks(CHUNK_ROWS).zip(&chunk_splits) {
            let piece = &chunk[splits[id] as usize..splits[id + 1] as usize];
            group[at..at + piece.len()].copy_from_slice(piece);
            at += piece.len();
        }
        if scratch.len() < group.len() {
            scratch.resize(group.len(), Keyed::default());
        }
        sort_group(group, &mut scratch[..at]);
    });
    entries
}

/// Joins neighbouring digits until a group holds [`GROUP_ROWS`] entries: group of each digit, and rows of each group.
fn form_groups(histograms: &[Vec<u32>]) -> (Vec<u16>, Vec<usize>) {
    let mut group_rows = vec![0];
    let group_of_digit = (0..1 << DEAL_BITS)
        .map(|digit| {
            if group_rows[group_rows.len() - 1] >= GROUP_ROWS {
                group_rows.push(0);
            }
            let group = group_rows.len() - 1;
            group_rows[group] += histograms.iter().map(|counts| counts[digit] as usize).sum::<usize>();
            group as u16
        })
        .collect();
    (group_of_digit, group_rows)
}

/// Writes a chunk's entries group by group; returns where each group begins.
fn deal<K: SortKey>(
    from: &[Keyed<K>],
    to: &mut [Keyed<K>],
    counts: &[u32],
    group_of_digit: &[u16],
    shift: u32,
    n_groups: usize,
) -> Vec<u32> {
    let mut splits = vec![0; n_groups + 1];
    for (&group, &count) in group_of_digit.iter().zip(counts) {
        splits[usize::from(group) + 1] += count;
    }
    for group in 0..n_groups {
        splits[group + 1] += splits[group];
    }
    let mut next = splits.clone();
    for entry in from {
        let slot = &mut next[usize::from(group_of_digit[entry.key.digit(shift, DEAL_BITS)])];
        to[*slot as usize] = *entry;
        *slot += 1;
    }
    splits
}

/// Serial least-significant-digit sort over the bits in which the keys differ; `scratch` is as long as `entries`.
fn sort_group<K: SortKey>(entries: &mut [Keyed<K>], scratch: &mut [Keyed<K>]) {
    let Some(first) = entries.first().map(|e| e.key) else { return };
    let differing = entries.iter().fold(K::default(), |all, e| all | (e.key ^ first));
    let (top, low) = (differing.bit_length(), differing.lowest_bit());
    if top == 0 || entries.is_sorted_by_key(|e| e.key) {
        return;
    }
    if entries.len() <= 64 {
        entries.sort_by_key(|e| e.key);
        return;
    }
    let passes = (top - low).div_ceil(DIGIT_BITS);
    let bits = (top - low).div_ceil(passes);
    let (mut from, mut to) = (entries, scratch);
    let mut swapped = false;
    let mut counts = [0u32; 1 << DIGIT_BITS];
    for pass in 0..passes {
        let shift = low + pass * bits;
        if differing.digit(shift, bits) == 0 {
            continue;
        }
        let counts = &mut counts[..1 << bits];
        counts.fill(0);
        from.iter().for_each(|e| counts[e.key.digit(shift, bits)] += 1);
        let mut next = 0;
        for count in counts.iter_mut() {
            (next, *count) = (next + *count, next);
        }
        for entry in from.iter() {
            let slot = &mut counts[entry.key.digit(shift, bits)];
            to[*slot as usize] = *entry;
            *slot += 1;
        }
        std::mem::swap(&mut from, &mut to);
        swapped = !swapped;
    }
    if swapped {
        to.copy_from_slice(from);
    }
}
