//! Segments of pairs: how the pairs of each tap are cut, found from where they start.

use cubecl::prelude::*;

/// How pairs are cut: into about `target` segments, none of fewer than `least` pairs and none of more than `most`. None spans two taps; a
/// tap without pairs has an empty one, whose sum is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Cutting {
    pub(crate) target: u32,
    pub(crate) least: u32,
    pub(crate) most: u32,
    /// Whether pair `i` is row `i` with itself, under a single tap.
    pub(crate) identity: bool,
}

impl Cutting {
    /// Segments that there are at most, for so many pairs of all taps at most.
    pub(crate) fn most_segments(&self, most_pairs: usize, taps: usize) -> usize {
        (self.target as usize).max(most_pairs.div_ceil(self.most as usize)) + taps
    }
}

/// Pairs of a segment, at most.
#[cube]
fn length_of(n_pairs: u32, #[comptime] cutting: Cutting) -> u32 {
    let (target, least, most) = comptime!((cutting.target, cutting.least, cutting.most));
    min(max(n_pairs.div_ceil(target), least), most)
}

/// Taps whose splits are asked for at a time: one after the other, each would wait for memory.
const AHEAD: u32 = 8;

/// Where the pairs of a tap start, and from `taps` on where they all end.
#[cube]
fn start_of(splits: &[u32], n_rows: u32, tap: u32, taps: u32, #[comptime] cutting: Cutting) -> u32 {
    if comptime!(cutting.identity) {
        select(tap == 0u32, 0u32, n_rows)
    } else {
        splits[min(tap, taps) as usize]
    }
}

/// A segment: its pairs, its tap, and how many segments the tap has from which on. One past the last is of no tap: it has no `parts`.
#[derive(CubeType, Clone, Copy)]
pub(crate) struct Segment {
    pub(crate) begin: u32,
    pub(crate) end: u32,
    pub(crate) tap: u32,
    pub(crate) first: u32,
    pub(crate) parts: u32,
}

/// Finds a segment by its number. `n_rows` counts where pairs are rows, else `splits`.
#[cube]
pub(crate) fn find_segment(
    splits: &[u32],
    n_rows: u32,
    taps: u32,
    segment: u32,
    #[comptime] cutting: Cutting,
) -> Segment {
    let length = length_of(start_of(splits, n_rows, taps, taps, cutting), cutting);
    let mut found = Array::<u32>::new(5usize);
    #[unroll]
    for i in 0usize..5usize {
        found[i] = 0u32;
    }
    let mut first = 0u32;
    for block in 0u32..taps.div_ceil(AHEAD) {
        let mut starts = Array::<u32>::new(comptime!(AHEAD as usize + 1));
        #[unroll]
        for i in 0u32..comptime!(AHEAD + 1) {
            starts[i as usize] = start_of(splits, n_rows, block * AHEAD + i, taps, cutting);
        }
        #[unroll]
        for i in 0usize..comptime!(AHEAD as usize) {
            let tap = block * AHEAD + i as u32;
            let start = starts[i];
            let n = starts[comptime!(i + 1)] - start;
            let parts = select(tap < taps, max(n.div_ceil(length), 1u32), 0u32);
            if segment >= first && segment - first < parts {
                let skipped = (segment - first) * length;
                found[0] = start + skipped;
                found[1] = start + skipped + min(length, n - skipped);
                found[2] = tap;
                found[3] = first;
                found[4] = parts;
            }
            first += parts;
        }
    }
    Segment { begin: found[0], end: found[1], tap: found[2], first: found[3], parts: found[4] }
}

/// First segment of a tap, and how many it has.
#[cube]
pub(crate) fn segments_of_tap(
    splits: &[u32],
    n_rows: u32,
    taps: u32,
    tap: u32,
    #[comptime] cutting: Cutting,
) -> (u32, u32) {
    let length = length_of(start_of(splits, n_rows, taps, taps, cutting), cutting);
    let mut first = 0u32;
    let mut parts = 0u32;
    for block in 0u32..(tap + 1u32).div_ceil(AHEAD) {
        let mut starts = Array::<u32>::new(comptime!(AHEAD as usize + 1));
        #[unroll]
        for i in 0u32..comptime!(AHEAD + 1) {
            starts[i as usize] = start_of(splits, n_rows, block * AHEAD + i, taps, cutting);
        }
        #[unroll]
        for i in 0usize..comptime!(AHEAD as usize) {
            let at = block * AHEAD + i as u32;
            if at <= tap {
                first += parts;
                parts = max((starts[comptime!(i + 1)] - starts[i]).div_ceil(length), 1u32);
            }
        }
    }
    (first, parts)
}
