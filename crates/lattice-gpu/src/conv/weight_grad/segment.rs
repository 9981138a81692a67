//! Segments of pairs: how the pairs of each tap are cut, found from where they start.

use cubecl::prelude::*;

/// Number of segments when the pairs of each tap are cut into lengths of `length`.
pub(crate) fn count_segments(splits: &[usize], length: usize) -> usize {
    splits.windows(2).map(|tap| (tap[1] - tap[0]).div_ceil(length)).sum()
}

/// Taps whose splits are asked for at a time: one after the other, each would wait for memory.
const AHEAD: u32 = 8;

/// Where the pairs of [`AHEAD`] taps from `first` on start, and where the last of them end; a tap from `taps` on has none.
#[cube]
fn starts_of(splits: &[u32], first: u32, taps: u32) -> Array<u32> {
    let mut starts = Array::<u32>::new(comptime!(AHEAD as usize + 1));
    #[unroll]
    for i in 0u32..comptime!(AHEAD + 1) {
        starts[i as usize] = splits[min(first + i, taps) as usize];
    }
    starts
}

/// First pair of a segment and the end of its pairs; none of them spans two taps.
#[cube]
pub(crate) fn segment_bounds(splits: &[u32], taps: u32, length: u32, segment: u32) -> (u32, u32) {
    let mut begin = 0u32;
    let mut end = 0u32;
    let mut first = 0u32;
    for block in 0u32..taps.div_ceil(AHEAD) {
        let starts = starts_of(splits, block * AHEAD, taps);
        #[unroll]
        for i in 0usize..comptime!(AHEAD as usize) {
            let start = starts[i];
            let n = starts[comptime!(i + 1)] - start;
            let parts = n.div_ceil(length);
            if segment >= first && segment - first < parts {
                let skipped = (segment - first) * length;
                begin = start + skipped;
                end = begin + min(length, n - skipped);
            }
            first += parts;
        }
    }
    (begin, end)
}

/// First segment of a tap, and how many it has.
#[cube]
pub(crate) fn segments_of_tap(splits: &[u32], length: u32, tap: u32) -> (u32, u32) {
    let mut first = 0u32;
    for block in 0u32..tap.div_ceil(AHEAD) {
        let starts = starts_of(splits, block * AHEAD, tap);
        #[unroll]
        for i in 0usize..comptime!(AHEAD as usize) {
            first += (starts[comptime!(i + 1)] - starts[i]).div_ceil(length);
        }
    }
    (first, (splits[(tap + 1u32) as usize] - splits[tap as usize]).div_ceil(length))
}
