//! Supports: identity, order, checks and look-up.
#![allow(clippy::unwrap_used, reason = "tests")]

use lattice_core::{Coord, Error, MAX_BATCH_ID, Support, canonical_cmp};
use proptest::prelude::*;

fn rows() -> impl Strategy<Value = Vec<Coord>> {
    let value = || prop_oneof![-4..4i32, Just(i32::MIN), Just(i32::MAX)];
    proptest::collection::vec(
        (0..3i32, value(), value(), value()).prop_map(|(b, x, y, z)| [b, x, y, z]),
        0..60,
    )
}

fn distinct(rows: Vec<Coord>) -> Vec<Coord> {
    let mut out: Vec<Coord> = Vec::new();
    for row in rows {
        if !out.contains(&row) {
            out.push(row);
        }
    }
    out
}

#[test]
fn clones_share_the_identity_and_copies_do_not() {
    let a = Support::try_new(vec![[0, 1, 2, 3]]).unwrap();
    let b = Support::try_new(vec![[0, 1, 2, 3]]).unwrap();
    assert!(a.same_identity(&a.clone()));
    assert!(!a.same_identity(&b) && a.same_rows(&b));
}

#[test]
fn the_second_row_of_the_first_repetition_is_named() {
    let error = Support::try_new(vec![[0, 5, 0, 0], [0, 1, 0, 0], [0, 5, 0, 0], [0, 1, 0, 0]]).unwrap_err();
    assert!(matches!(error, Error::DuplicateCoord { row: 2, coord: [0, 5, 0, 0], .. }), "{error}");
}

#[test]
fn a_negative_batch_id_is_refused_with_its_row() {
    let error = Support::try_new(vec![[0; 4], [-1, 0, 0, 0]]).unwrap_err();
    assert!(matches!(error, Error::OutOfRange { row: 1, .. }), "{error}");
    assert!(Support::canonical(vec![[-1, 0, 0, 0]]).is_err());
}

#[test]
fn a_batch_id_above_the_largest_is_refused_with_its_row() {
    let rows = |batch| vec![[0; 4], [batch, 0, 0, 0]];
    for support in [Support::try_new(rows(MAX_BATCH_ID + 1)), Support::canonical(rows(i32::MAX))] {
        let error = support.unwrap_err();
        assert!(matches!(error, Error::OutOfRange { row: 1, .. }), "{error}");
        assert!(error.to_string().contains("1048575"), "{error}");
    }
    assert_eq!(Support::try_new(rows(MAX_BATCH_ID)).unwrap().batch_counts().len(), 1 << 20);
}

#[test]
fn the_first_repetition_is_named_among_many() {
    // Every row of a full block many times over, so that one block runs over several chunks of the index.
    let cell = |i: i32| [0, i & 3, i >> 2 & 3, i >> 4 & 3];
    let mut rows: Vec<Coord> = (0..20_000).map(|i| [1, i % 141, i / 141, 5]).rev().collect();
    rows.extend((0..64).map(cell));
    let first = rows.len();
    rows.extend((0..40_000).map(|i| cell(63 - i % 64)));
    let error = Support::try_new(rows).unwrap_err();
    assert!(
        matches!(error, Error::DuplicateCoord { row, coord: [0, 3, 3, 3], .. } if row == first),
        "{error}"
    );
}

#[test]
fn an_empty_support_answers_everything() {
    let s = Support::try_new(vec![]).unwrap();
    assert!(s.is_empty() && s.is_canonical());
    assert_eq!((s.n_rows(), s.batch_size(), s.bounds()), (0, 0, None));
    assert_eq!(s.lookup(&[0; 4]), None);
    assert_eq!(s.lookup_all(&[[0; 4]]), [-1]);
    assert!(s.batch_rows().is_empty());
}

#[test]
fn gaps_between_batch_ids_are_items_without_rows() {
    let s = Support::try_new(vec![[3, 0, 0, 0], [1, 0, 0, 0], [3, 1, 0, 0]]).unwrap();
    assert_eq!(s.batch_counts(), [0, 1, 0, 2]);
    assert_eq!(s.batch_rows(), [vec![], vec![1], vec![], vec![0, 2]]);
}

/// More rows than one part of the index holds.
#[test]
fn a_large_support_finds_each_of_its_rows_on_any_number_of_threads() {
    let scatter = |i: i32| [i % 3, i.wrapping_mul(7919) % 1009, (i / 1009) % 997, i / 1_000_003];
    let coords: Vec<Coord> = distinct_by_sort((0..300_000).map(scatter).collect());
    for threads in [1, 2, 7] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let s = Support::try_new(coords.clone()).unwrap();
            let found = s.lookup_all(&coords);
            assert!(found.iter().enumerate().all(|(row, &f)| f == row as i32));
            let mut repeated = coords.clone();
            repeated.push(coords[77]);
            let error = Support::try_new(repeated).unwrap_err();
            assert!(matches!(error, Error::DuplicateCoord { row, .. } if row == coords.len()), "{error}");
        });
    }
}

fn distinct_by_sort(mut rows: Vec<Coord>) -> Vec<Coord> {
    rows.sort_unstable();
    rows.dedup();
    rows.reverse();
    rows
}

proptest! {
    #[test]
    fn a_given_support_keeps_its_order_and_finds_its_rows(rows in rows(), queries in rows()) {
        let rows = distinct(rows);
        let s = Support::try_new(rows.clone()).unwrap();
        prop_assert_eq!(s.coords(), &rows[..]);
        prop_assert_eq!(s.is_canonical(), rows.is_sorted_by(|a, b| canonical_cmp(a, b).is_lt()));
        for q in rows.iter().chain(&queries) {
            prop_assert_eq!(s.lookup(q), rows.iter().position(|r| r == q).map(|r| r as u32));
        }
    }

    #[test]
    fn a_canonical_support_is_sorted_and_distinct(rows in rows()) {
        let mut expected = distinct(rows.clone());
        expected.sort_by(canonical_cmp);
        let s = Support::canonical(rows).unwrap();
        prop_assert_eq!(s.coords(), &expected[..]);
        prop_assert!(s.is_canonical());
    }
}
