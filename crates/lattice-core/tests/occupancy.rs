//! Occupancy masks against their definition and the worked example.

#![allow(clippy::unwrap_used, reason = "tests")]

use lattice_core::{Coord, Error, Support, child_coords, occupancy_downsample, occupancy_expand};
use lattice_testkit::{coords as judge, strategies};
use proptest::prelude::*;

const ROWS: [Coord; 5] = [[0, 0, 0, 0], [0, 1, 0, 0], [0, 1, 1, 1], [0, -1, 0, 0], [0, 2, 0, 1]];

#[test]
fn occupancy_of_the_worked_example() {
    let found = occupancy_downsample(&Support::try_new(ROWS.to_vec()).unwrap());
    // The example lists parents by first occurrence: [0,0,0,0], [0,-1,0,0], [0,1,0,0] with 131, 2, 16.
    assert_eq!(found.parents.coords(), [[0, -1, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0]]);
    assert_eq!(found.masks, [2, 131, 16]);
    let back = occupancy_expand(found.parents.coords(), &found.masks).unwrap();
    assert_eq!(back.coords, judge::canonical(&ROWS));
    assert_eq!(back.coords, [[0, -1, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0], [0, 1, 1, 1], [0, 2, 0, 1]]);
    assert_eq!(back.parent_rows, [0, 1, 1, 1, 2]);
    assert_eq!(back.child_indices, [1, 0, 1, 7, 4]);
}

#[test]
fn child_coords_follow_the_bits_of_the_number() {
    let parents = [[0, 0, 0, 0], [0, -1, 0, 0], [1, 2, 3, 4]];
    assert_eq!(child_coords(&parents, &[7, 1, 4]).unwrap(), [[0, 1, 1, 1], [0, -1, 0, 0], [1, 4, 6, 9]]);
    assert!(matches!(child_coords(&parents, &[0, 1]), Err(Error::Shape { op: "child_coords", .. })));
    for bad in [8, -1, i32::MIN] {
        assert!(matches!(child_coords(&parents, &[0, 0, bad]), Err(Error::OutOfRange { row: 2, .. })));
    }
}

#[test]
fn bits_above_the_seventh_are_ignored() {
    let found = occupancy_expand(&[[0, 1, 1, 1]], &[0x7fff_ff01]).unwrap();
    assert_eq!(found.coords, [[0, 2, 2, 2]]);
    assert_eq!(occupancy_expand(&[[0, 1, 1, 1]], &[i32::MIN]).unwrap().coords, Vec::<Coord>::new());
}

#[test]
fn expansion_names_what_is_wrong() {
    let far = [[0, 0, 0, 0], [0, 0, 1 << 30, 0]];
    assert!(matches!(
        occupancy_expand(&far, &[1, 1]),
        Err(Error::OutOfRange { op: "occupancy_expand", row: 1, .. })
    ));
    assert!(matches!(child_coords(&far, &[0, 0]), Err(Error::OutOfRange { row: 1, .. })));
    assert!(matches!(occupancy_expand(&far, &[1]), Err(Error::Shape { .. })));
    let twice = occupancy_expand(&[[0, 3, 0, 0], [0, 5, 0, 0], [0, 3, 0, 0]], &[1, 255, 3]);
    assert_eq!(twice, Err(Error::DuplicateCoord { op: "occupancy_expand", row: 2, coord: [0, 6, 0, 0] }));
    // Equal parents that name different children are a valid way to list them.
    assert_eq!(occupancy_expand(&[[0, 3, 0, 0], [0, 3, 0, 0]], &[1, 2]).unwrap().parent_rows, [0, 1]);
}

#[test]
fn empty_in_empty_out() {
    let none = occupancy_downsample(&Support::try_new(vec![]).unwrap());
    assert!(none.parents.is_empty() && none.masks.is_empty());
    assert_eq!(occupancy_expand(&[], &[]).unwrap().coords, Vec::<Coord>::new());
}

#[test]
fn large_supports_agree_on_any_number_of_threads() {
    let site = |i: i32| [i % 2, i * 7 % 211 - 100, i * 13 % 97 - 40, i / 211 - 90];
    let support = Support::canonical((0..70_000).map(site).collect()).unwrap();
    let given = Support::try_new(support.coords().iter().rev().copied().collect()).unwrap();
    let run = |threads: usize, support: &Support| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let found = pool.install(|| occupancy_downsample(support));
        let back = pool.install(|| occupancy_expand(found.parents.coords(), &found.masks).unwrap());
        (found.parents.coords().to_vec(), found.masks, back)
    };
    let one = run(1, &support);
    assert!(one.2.coords == support.coords());
    assert!([1, 2, 7].iter().all(|&threads| run(threads, &support) == one && run(threads, &given) == one));
}

proptest! {
    #[test]
    fn masks_match_their_definition_and_expand_back(rows in strategies::any_support()) {
        let support = Support::try_new(rows.clone()).unwrap();
        let (parents, masks) = judge::occupancy_downsample(&rows);
        for support in [&support, &Support::canonical(rows.clone()).unwrap()] {
            let found = occupancy_downsample(support);
            prop_assert_eq!(found.parents.coords(), &parents[..]);
            prop_assert_eq!(&found.masks, &masks);
        }
        let back = occupancy_expand(&parents, &masks).unwrap();
        let expected = judge::occupancy_expand(&parents, &masks);
        prop_assert_eq!(&back.coords, &judge::canonical(&rows));
        prop_assert_eq!(&back.coords, &expected.coords);
        prop_assert_eq!(&back.parent_rows, &expected.parent_rows);
        prop_assert_eq!(&back.child_indices, &expected.child_indices);
        let named: Vec<Coord> = back.parent_rows.iter().map(|&row| parents[row as usize]).collect();
        prop_assert_eq!(child_coords(&named, &back.child_indices).unwrap(), back.coords);
    }
}
