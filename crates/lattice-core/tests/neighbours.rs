//! Nearest neighbours and radius search against their definitions, the worked example and the corners.

#![allow(clippy::unwrap_used, reason = "tests")]

use lattice_core::{Coord, Error, Neighbours, Support, knn, radius};
use lattice_testkit::{neighbours as judge, strategies};
use proptest::prelude::*;
use rstest::rstest;

fn support(rows: &[Coord]) -> Support {
    Support::try_new(rows.to_vec()).unwrap()
}

fn line(xs: &[i32]) -> Support {
    support(&xs.iter().map(|&x| [0, x, 0, 0]).collect::<Vec<_>>())
}

fn assert_same(found: &Neighbours, expected: &judge::Neighbours) {
    assert_eq!(found.splits, expected.splits);
    assert_eq!(found.source_rows, expected.source_rows);
    assert_eq!(found.distances, expected.distances);
    assert_eq!(found.neighbour_ids, expected.neighbour_ids);
}

#[test]
fn two_nearest_of_the_worked_example() {
    let s = line(&[0, 1, 3, 6]);
    let found = knn(&s, &s, 2).unwrap();
    assert_eq!(found.source_rows, [0, 1, 1, 0, 2, 1, 3, 2]);
    assert_eq!(found.distances, [0.0, 1.0, 0.0, 1.0, 0.0, 4.0, 0.0, 9.0]);
    assert_eq!(found.splits, [0, 2, 4, 6, 8]);
    assert_eq!(found.neighbour_ids, [0, 1, 0, 1, 0, 1, 0, 1]);
}

#[test]
fn radius_two_of_the_worked_example() {
    let s = line(&[0, 1, 3, 6]);
    let found = radius(&s, &s, 2.0, None).unwrap();
    assert_eq!(found.source_rows, [0, 1, 1, 0, 2, 2, 1, 3]);
    assert_eq!(found.distances, [0.0, 1.0, 0.0, 1.0, 4.0, 0.0, 4.0, 0.0]);
    assert_eq!(found.splits, [0, 2, 5, 7, 8]);
}

#[rstest]
#[case(0.0, 1)]
#[case(1.0, 7)]
#[case(2.0, 33)]
fn a_ball_holds_the_offsets_within_its_radius(#[case] r: f64, #[case] n: usize) {
    let cube: Vec<Coord> = (0..343).map(|i| [0, i % 7 - 3, i / 7 % 7 - 3, i / 49 - 3]).collect();
    assert_eq!(radius(&support(&cube), &line(&[0]), r, None).unwrap().source_rows.len(), n);
}

#[test]
fn equal_distances_come_in_row_order() {
    let ring =
        support(&[[0, 0, 1, 0], [0, 1, 0, 0], [0, -1, 0, 0], [0, 0, -1, 0], [0, 0, 0, 1], [0, 0, 0, -1]]);
    let middle = line(&[0]);
    for k in 1..8 {
        let expected: Vec<u32> = (0..k.min(6) as u32).collect();
        assert_eq!(knn(&ring, &middle, k).unwrap().source_rows, expected, "k = {k}");
        assert_eq!(radius(&ring, &middle, 1.0, Some(k)).unwrap().source_rows, expected, "at most {k}");
    }
}

#[test]
fn neighbours_never_cross_batches() {
    let source = support(&[[0, 0, 0, 0], [2, 1, 0, 0], [2, 5, 0, 0]]);
    let query = support(&[[2, 0, 0, 0], [1, 0, 0, 0], [0, 9, 0, 0], [7, 0, 0, 0]]);
    let found = knn(&source, &query, 5).unwrap();
    assert_eq!((found.splits, found.source_rows), (vec![0, 2, 2, 3, 3], vec![1, 2, 0]));
}

#[test]
fn bad_arguments_are_errors() {
    let s = line(&[0, 1]);
    assert!(matches!(knn(&s, &s, 0), Err(Error::Value { op: "knn", .. })));
    for r in [-1.0, f64::NAN, f64::INFINITY] {
        assert!(matches!(radius(&s, &s, r, None), Err(Error::Value { op: "radius", .. })), "{r}");
    }
    assert!(matches!(radius(&s, &s, 1.0, Some(0)), Err(Error::Value { op: "radius", .. })));
    assert_eq!(knn(&s, &s, usize::MAX).unwrap().source_rows, [0, 1, 1, 0]);
    assert_eq!(radius(&s, &s, 1e300, None).unwrap().source_rows, [0, 1, 1, 0]);
}

#[test]
fn empty_sides_have_no_neighbours() {
    let (none, some) = (line(&[]), line(&[3, 4]));
    assert_eq!(knn(&none, &some, 3).unwrap().splits, [0, 0, 0]);
    assert_eq!(knn(&some, &none, 3).unwrap().splits, [0]);
    assert_eq!(radius(&none, &none, 3.0, None).unwrap().splits, [0]);
}

#[test]
fn distances_past_64_bits_stay_exact() {
    let (low, high) = (i32::MIN, i32::MAX);
    let source = support(&[
        [0, high, high, high],
        [0, high, high, high - 1],
        [0, high - 1, high, high],
        [0, low, low, high],
    ]);
    let query = support(&[[0, low, low, low], [0, high, low, 0]]);
    assert_same(&knn(&source, &query, 3).unwrap(), &judge::knn(source.coords(), query.coords(), 3));
    // The second and third source stand one unit nearer than the first, which f32 cannot tell.
    assert_eq!(knn(&source, &query, 4).unwrap().source_rows[..4], [3, 1, 2, 0]);
    let wide = radius(&source, &query, 8e9, None).unwrap();
    assert_same(&wide, &judge::radius(source.coords(), query.coords(), 8e9, None));
}

#[test]
fn large_supports_agree_with_the_definition_on_any_number_of_threads() {
    let site = |i: i32| [i % 2, i * 7 % 61, i * 13 % 47, i * i % 5];
    let source = Support::canonical((0..4_000).map(site).collect()).unwrap();
    let given = Support::try_new(source.coords().iter().rev().copied().collect()).unwrap();
    let query: Vec<Coord> = (0..700).map(|i| [i % 2, i * 3 % 80 - 10, i / 8, i % 3]).collect();
    let query = Support::canonical(query).unwrap();
    for source in [&source, &given] {
        let nearest = judge::knn(source.coords(), query.coords(), 9);
        let within = judge::radius(source.coords(), query.coords(), 4.3, None);
        for threads in [1, 2, 7] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                assert_same(&knn(source, &query, 9).unwrap(), &nearest);
                assert_same(&radius(source, &query, 4.3, None).unwrap(), &within);
            });
        }
    }
}

proptest! {
    #[test]
    fn nearest_neighbours_match_their_definition(
        source in strategies::any_support(),
        query in strategies::any_support(),
        k in 1usize..12,
    ) {
        let found = knn(&support(&source), &support(&query), k).unwrap();
        assert_same(&found, &judge::knn(&source, &query, k));
    }

    #[test]
    fn radius_search_matches_its_definition(
        source in strategies::any_support(),
        query in strategies::any_support(),
        r in prop_oneof![0.0..6.0f64, Just(1.0), Just(2.0f64.sqrt()), Just(3.0f64.sqrt()), Just(2.0f64.powi(31)), 1e8..1e10f64],
        most in proptest::option::of(1usize..9),
    ) {
        let found = radius(&support(&source), &support(&query), r, most).unwrap();
        assert_same(&found, &judge::radius(&source, &query, r, most));
    }
}
