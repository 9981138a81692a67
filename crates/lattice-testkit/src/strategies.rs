//! Random inputs for property tests: supports of every awkward kind, kernels, channel counts, feature values.
//!
//! Coordinate sets are distinct and come in no particular order; batch ids are at least 0.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::coords::{Coord, distinct};
use crate::offsets::Kernel;

/// Channel counts worth testing: 1, odd ones, one below and above vector widths, powers of two.
pub const CHANNELS: [usize; 12] = [1, 2, 3, 5, 7, 8, 13, 16, 17, 31, 33, 64];

/// No rows at all.
pub fn empty() -> impl Strategy<Value = Vec<Coord>> {
    Just(Vec::new())
}

/// A single row, anywhere near the origin.
pub fn one_row() -> impl Strategy<Value = Vec<Coord>> {
    (0..3, -9..9, -9..9, -9..9).prop_map(|(b, x, y, z)| vec![[b, x, y, z]])
}

/// Every cell of a small box, which may straddle the origin; shuffled.
pub fn dense_block() -> impl Strategy<Value = Vec<Coord>> {
    let corner = (-4..4, -4..4, -4..4);
    let edges = (1..6, 1..6, 1..6);
    (corner, edges)
        .prop_map(|((x, y, z), (nx, ny, nz))| {
            let mut coords = Vec::new();
            for i in x..x + nx {
                for j in y..y + ny {
                    for k in z..z + nz {
                        coords.push([0, i, j, k]);
                    }
                }
            }
            coords
        })
        .prop_shuffle()
}

/// Consecutive sites along one axis.
pub fn line() -> impl Strategy<Value = Vec<Coord>> {
    (1usize..4, -20..20, 1..40).prop_map(|(axis, first, n)| {
        (first..first + n)
            .map(|at| {
                let mut coord = [0; 4];
                coord[axis] = at;
                coord
            })
            .collect()
    })
}

/// Sites too far apart to be neighbours under a kernel of size 3.
pub fn isolated() -> impl Strategy<Value = Vec<Coord>> {
    scattered(8, 40)
        .prop_map(|coords| coords.into_iter().map(|[b, x, y, z]| [b, 5 * x, 5 * y, 5 * z]).collect())
}

/// A ground plane with gaps, walls standing on it, stray points above; all of one scan.
pub fn lidar_like() -> impl Strategy<Value = Vec<Coord>> {
    let ground = vec((-16..16, -16..16, -1..1), 10..80);
    let walls = vec((-16..16, -16..16, 2..8), 0..4);
    let strays = vec((-16..16, -16..16, 1..9), 0..8);
    (ground, walls, strays).prop_map(|(ground, walls, strays)| {
        let mut coords: Vec<Coord> = ground.iter().map(|&(x, y, z)| [0, x, y, z]).collect();
        for (x, y, height) in walls {
            coords.extend((0..height).flat_map(|z| (0..4).map(move |along| [0, x + along, y, z])));
        }
        coords.extend(strays.iter().map(|&(x, y, z)| [0, x, y, z]));
        distinct(&coords)
    })
}

/// Up to `n` rows with coordinates in `-reach..reach`, two batch items.
pub fn scattered(reach: i32, n: usize) -> impl Strategy<Value = Vec<Coord>> {
    vec((0..2, -reach..reach, -reach..reach, -reach..reach), 0..n)
        .prop_map(|rows| distinct(&rows.iter().map(|&(b, x, y, z)| [b, x, y, z]).collect::<Vec<_>>()))
}

/// Rows within a few cells of the ends of the range of `i32`, mixed with rows at the origin.
pub fn extreme() -> impl Strategy<Value = Vec<Coord>> {
    let end = || prop_oneof![i32::MIN..i32::MIN + 4, i32::MAX - 3..=i32::MAX, -2..2];
    vec((0..2, end(), end(), end()), 1..30)
        .prop_map(|rows| distinct(&rows.iter().map(|&(b, x, y, z)| [b, x, y, z]).collect::<Vec<_>>()))
}

/// Batch items 0, 2, 3 and 7 only: items between them are empty. Rows of the items are mixed.
pub fn batches_with_gaps() -> impl Strategy<Value = Vec<Coord>> {
    vec((prop::sample::select(vec![0, 2, 3, 7]), -4..4, -4..4, -4..4), 1..60)
        .prop_map(|rows| distinct(&rows.iter().map(|&(b, x, y, z)| [b, x, y, z]).collect::<Vec<_>>()))
}

/// Any of the supports above whose coordinates stay small.
pub fn support() -> impl Strategy<Value = Vec<Coord>> {
    prop_oneof![
        1 => empty(),
        1 => one_row(),
        2 => dense_block(),
        1 => line(),
        1 => isolated(),
        2 => lidar_like(),
        4 => scattered(5, 80),
        2 => batches_with_gaps(),
    ]
}

/// Any of the supports above, those at the ends of the range of `i32` included.
pub fn any_support() -> impl Strategy<Value = Vec<Coord>> {
    prop_oneof![4 => support(), 1 => extreme()]
}

/// Two supports that overlap in part.
pub fn support_pair() -> impl Strategy<Value = (Vec<Coord>, Vec<Coord>)> {
    (support(), support(), any::<u64>()).prop_map(|(a, b, choice)| {
        let shared = a.iter().enumerate().filter(|(row, _)| choice >> (row % 64) & 1 == 1).map(|(_, c)| *c);
        let second = distinct(&b.iter().copied().chain(shared).collect::<Vec<_>>());
        (a, second)
    })
}

/// Odd sizes, stride 1, no padding: what submanifold relations accept. Some have more than 32 taps.
pub fn submanifold_kernel() -> impl Strategy<Value = Kernel> {
    let size = prop_oneof![
        4 => Just([3, 3, 3]),
        1 => Just([1, 1, 1]),
        1 => Just([5, 5, 3]),
        1 => Just([1, 3, 5]),
        1 => Just([41, 1, 1]),
    ];
    (size, [1u32..3, 1..3, 1..3]).prop_map(|(size, dilation)| Kernel::new(size, [1; 3], [0; 3], dilation))
}

/// Any geometry: even, odd and anisotropic sizes, strides 1 to 3, paddings 0 to 2, dilations 1 and 2, sometimes more
/// than 32 taps.
pub fn kernel() -> impl Strategy<Value = Kernel> {
    let size = prop_oneof![
        2 => Just([2, 2, 2]),
        2 => Just([3, 3, 3]),
        1 => Just([1, 1, 1]),
        1 => Just([4, 3, 3]),
        1 => Just([1, 3, 1]),
        4 => [1u32..5, 1..5, 1..4],
    ];
    let stride = prop_oneof![2 => Just([1, 1, 1]), 3 => Just([2, 2, 2]), 3 => [1u32..4, 1..4, 1..4]];
    let padding = prop_oneof![2 => Just([0, 0, 0]), 1 => [0u32..3, 0..3, 0..3]];
    let dilation = prop_oneof![2 => Just([1, 1, 1]), 1 => [1u32..3, 1..3, 1..3]];
    (size, stride, padding, dilation)
        .prop_map(|(size, stride, padding, dilation)| Kernel::new(size, stride, padding, dilation))
}

/// A channel count of [`CHANNELS`].
pub fn channels() -> impl Strategy<Value = usize> {
    prop::sample::select(CHANNELS.to_vec())
}

/// `len` feature values in `-2..2`, multiples of 1/64, so that every float format holds them exactly.
pub fn values(len: usize) -> impl Strategy<Value = Vec<f64>> {
    vec((-128..=128).prop_map(|v| f64::from(v) / 64.0), len)
}

/// `len` values with many ties: small integers, zero often.
pub fn tied_values(len: usize) -> impl Strategy<Value = Vec<f64>> {
    vec((-2..=2).prop_map(f64::from), len)
}

/// A support and `c` features for each of its rows.
pub fn support_with_values(c: usize) -> impl Strategy<Value = (Vec<Coord>, Vec<f64>)> {
    support().prop_flat_map(move |coords| {
        let len = coords.len() * c;
        (Just(coords), values(len))
    })
}

/// Points in `-reach..reach`, some on voxel borders, with batch ids 0 and 1.
pub fn points(reach: f32, n: usize) -> impl Strategy<Value = (Vec<[f32; 3]>, Vec<i32>)> {
    let at = move || prop_oneof![3 => -reach..reach, 1 => (-8..8).prop_map(|v| v as f32 * 0.5)];
    vec(([at(), at(), at()], 0..2), 0..n).prop_map(|rows| rows.into_iter().unzip())
}
