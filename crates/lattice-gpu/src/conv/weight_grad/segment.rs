//! Segments of pairs: how the pairs of each tap are cut, found from where they start.

use cubecl::prelude::*;

/// Number of segments when the pairs of each tap are cut into lengths of `length`.
pub(crate) fn count_segments(splits: &[usize], length: usize) -> usize {
    splits.windows(2).map(|tap| (tap[1] - tap[0]).div_ceil(length)).sum()
}

/// First pair of a segment and the end of its pairs; none of them spans two taps.
#[cube]
pub(crate) fn segment_bounds(splits: &[u32], taps: u32, length: u32, segment: u32) -> (u32, u32) {
    let mut begin = 0u32;
    let mut end = 0u32;
    let mut first = 0u32;
    for tap in 0u32..taps {
        let start = splits[tap as usize];
        let n = splits[(tap + 1u32) as usize] - start;
        let parts = n.div_ceil(length);
        if segment >= first && segment - first < parts {
            let skipped = (segment - first) * length;
            begin = start + skipped;
            end = begin + min(length, n - skipped);
        }
        first += parts;
    }
    (begin, end)
}

/// First segment of a tap, and how many it has.
#[cube]
pub(crate) fn segments_of_tap(splits: &[u32], length: u32, tap: u32) -> (u32, u32) {
    let mut first = 0u32;
    let mut start = splits[0];
    for before in 0u32..tap {
        let end = splits[(before + 1u32) as usize];
        first += (end - start).div_ceil(length);
        start = end;
    }
    (first, (splits[(tap + 1u32) as usize] - start).div_ceil(length))
}
