//! The canonical order and the keys that stand for it.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::cmp::Ordering;

use lattice_core::{
    Coord, Error, KeyLayout, KeyWidth, MAX_BATCH_ID, Support, canonical_cmp, check_coords_i64,
};
use lattice_testkit::coords as definition;
use proptest::collection::vec;
use proptest::prelude::*;
use rstest::rstest;

fn value() -> impl Strategy<Value = i32> {
    let edges = vec![i32::MIN, i32::MIN + 1, -1, 0, 1, i32::MAX - 1, i32::MAX];
    prop_oneof![
        proptest::sample::select(edges),
        -5..5i32,
        (0u32..31).prop_map(|b| -(1 << b)),
        (0u32..31).prop_map(|b| 1 << b),
        any::<i32>()
    ]
}

fn coord() -> impl Strategy<Value = Coord> {
    (prop_oneof![0..3i32, Just(i32::MAX)], value(), value(), value()).prop_map(|(b, x, y, z)| [b, x, y, z])
}

fn bounds(rows: &[Coord]) -> (Coord, Coord) {
    let column = |k: usize| rows.iter().map(move |c| c[k]);
    (std::array::from_fn(|k| column(k).min().unwrap()), std::array::from_fn(|k| column(k).max().unwrap()))
}

proptest! {
    #[test]
    fn comparison_follows_the_interleaved_bits(a in coord(), b in coord()) {
        prop_assert_eq!(canonical_cmp(&a, &b), definition::canonical_cmp(&a, &b));
    }

    #[test]
    fn keys_sort_as_the_canonical_order(rows in vec(coord(), 2..12), shift in 0u32..31) {
        for rows in [rows.clone(), rows.iter().map(|c| [c[0], c[1] >> shift, c[2] >> shift, c[3] >> shift]).collect()] {
            let (low, high) = bounds(&rows);
            let layout = KeyLayout::new(&low, &high);
            for a in &rows {
                for b in &rows {
                    let expected = definition::canonical_cmp(a, b);
                    prop_assert_eq!(layout.wide_key(a).cmp(&layout.wide_key(b)), expected);
                    if let Some((a, b)) = layout.narrow_key(a).zip(layout.narrow_key(b)) {
                        prop_assert_eq!(a.cmp(&b), expected);
                    }
                }
            }
        }
    }

    #[test]
    fn canonical_supports_are_sorted_and_distinct(rows in vec(coord(), 0..80)) {
        let rows: Vec<Coord> = rows.into_iter().map(|c| [c[0].min(MAX_BATCH_ID), c[1], c[2], c[3]]).collect();
        let support = Support::canonical(rows.clone()).unwrap();
        prop_assert_eq!(support.coords(), definition::canonical(&rows));
    }
}

#[rstest]
#[case::lidar([0, -2000, -2000, -60], [3, 2000, 2000, 60], KeyWidth::Narrow, 12)]
#[case::last_narrow([0, -(1 << 20), 0, 0], [1, (1 << 20) - 1, 0, 0], KeyWidth::Narrow, 21)]
#[case::one_batch_bit_more([0, -(1 << 20), 0, 0], [2, 0, 0, 0], KeyWidth::Wide, 21)]
#[case::one_axis_bit_more([0, 0, 0, 0], [0, 1 << 20, 0, 0], KeyWidth::Wide, 22)]
#[case::everything([0, i32::MIN, 0, 0], [i32::MAX, 0, 0, i32::MAX], KeyWidth::Wide, 32)]
#[case::one_point([5, 0, -1, 0], [5, 0, 0, 0], KeyWidth::Narrow, 1)]
fn the_key_is_as_wide_as_the_bounds_need(
    #[case] low: Coord,
    #[case] high: Coord,
    #[case] width: KeyWidth,
    #[case] bits: u32,
) {
    let layout = KeyLayout::new(&low, &high);
    assert_eq!((layout.width(), layout.axis_bits()), (width, bits));
    assert_eq!(layout.narrow_key(&low).is_some(), width == KeyWidth::Narrow);
    assert!(layout.wide_key(&low) <= layout.wide_key(&high));
}

#[rstest]
#[case::lidar(1500, 0)]
#[case::all_in_one_cell(2, 0)]
#[case::far_from_the_origin(1500, 1 << 30)]
fn many_rows_sort_the_same_on_any_number_of_threads(#[case] reach: i64, #[case] offset: i32) {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as i64
    };
    let mut value = || (next() % (2 * reach) - reach) as i32 + offset;
    let rows: Vec<Coord> = (0..150_000).map(|i| [i % 3, value(), value(), value()]).collect();
    let mut expected = rows.clone();
    expected.sort_by(canonical_cmp);
    expected.dedup();
    for threads in [1, 2, 7] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let support = pool.install(|| Support::canonical(rows.clone()).unwrap());
        assert!(support.coords() == expected, "{threads} threads");
    }
}

#[test]
fn wide_rows_are_narrowed_or_refused() {
    let edge = [[0, i64::from(i32::MIN), i64::from(i32::MAX), -1]];
    assert_eq!(check_coords_i64(&edge).unwrap(), [[0, i32::MIN, i32::MAX, -1]]);
    let error = check_coords_i64(&[[0; 4], [0, 0, 1 << 31, 0]]).unwrap_err();
    assert!(matches!(error, Error::OutOfRange { row: 1, .. }), "{error}");
    assert_eq!(canonical_cmp(&[0, -1, 0, 0], &[0, 0, 0, 0]), Ordering::Less);
}
