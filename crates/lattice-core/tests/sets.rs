//! Set operations against their definitions, the worked examples and the corners.

#![allow(clippy::unwrap_used, reason = "tests")]

use lattice_core::{
    Alignment, Coord, Error, Join, Support, align, canonical_cmp, canonical_order, downsample,
    generative_union, intersection, inverse_map, morton_codes, morton_order, morton_sort, select, union,
};
use lattice_testkit::{algebra, coords as judge, strategies};
use proptest::prelude::*;
use rstest::rstest;

fn support(rows: &[Coord]) -> Support {
    Support::try_new(rows.to_vec()).unwrap()
}

fn judge_join(join: Join) -> algebra::Join {
    match join {
        Join::Inner => algebra::Join::Inner,
        Join::Left => algebra::Join::Left,
        Join::Right => algebra::Join::Right,
        Join::Outer => algebra::Join::Outer,
    }
}

fn assert_alignment(found: &Alignment, expected: &algebra::Alignment) {
    assert_eq!(found.support.coords(), expected.coords);
    assert_eq!(found.lhs_rows, expected.lhs_rows);
    assert_eq!(found.rhs_rows, expected.rhs_rows);
}

/// Random distinct rows, many of them: more than one chunk of the parallel loops.
fn many_rows(n: usize, seed: u64) -> Vec<Coord> {
    let mut state = seed;
    let mut next = |reach: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % (2 * reach)) as i32 - reach as i32
    };
    let rows: Vec<Coord> = (0..n).map(|_| [next(1).abs(), next(60), next(60), next(20)]).collect();
    // Distinct, in an order that is not canonical.
    let mut order = canonical_order(&rows);
    order.dedup_by_key(|row| rows[*row as usize]);
    order.sort_unstable();
    order.iter().map(|&row| rows[row as usize]).collect()
}

fn on_threads<R: Send>(threads: usize, f: impl FnOnce() -> R + Send) -> R {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(f)
}

#[test]
fn union_and_intersection_of_the_worked_example() {
    let lhs = support(&[[0, 4, 0, 0], [1, 4, 0, 0], [0, 7, -1, 2]]);
    let rhs = support(&[[0, 7, -1, 2], [0, 9, 9, 9], [1, 4, 0, 0]]);
    let both = union(&lhs, &rhs).unwrap();
    let expected = [[0, 4, 0, 0], [1, 4, 0, 0], [0, 7, -1, 2], [0, 9, 9, 9]];
    assert_eq!(both.coords(), judge::canonical(&expected));
    assert!(both.is_canonical());
    assert_eq!(intersection(&lhs, &rhs).coords(), [[1, 4, 0, 0], [0, 7, -1, 2]]);
    // The repeated row of the example is refused, so rows after it move up by one.
    assert_eq!(lhs.lookup_all(rhs.coords()), [2, -1, 1]);
    assert_eq!(inverse_map(&lhs, &rhs), [2, -1, 1]);
}

#[test]
fn a_repeated_row_is_refused_with_its_number() {
    let error = Support::try_new(vec![[0, 4, 0, 0], [1, 4, 0, 0], [0, 4, 0, 0], [0, 7, -1, 2]]).unwrap_err();
    assert_eq!(error, Error::DuplicateCoord { op: "Support::try_new", row: 2, coord: [0, 4, 0, 0] });
}

#[test]
fn downsample_of_the_worked_example_divides_downwards() {
    let fine = support(&[[0, -3, 0, 0], [0, -1, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0], [0, 4, 0, 0]]);
    let coarse = downsample(&fine, [2, 1, 1]).unwrap();
    assert_eq!(coarse.coords(), [[0, -2, 0, 0], [0, -1, 0, 0], [0, 0, 0, 0], [0, 2, 0, 0]]);
}

#[rstest]
#[case::outer(Join::Outer, &[[0, 0, 0, 0], [0, 5, 0, 0], [0, 9, 0, 0]], &[0, 1, -1], &[-1, 0, 1])]
#[case::right(Join::Right, &[[0, 5, 0, 0], [0, 9, 0, 0]], &[1, -1], &[0, 1])]
#[case::left(Join::Left, &[[0, 0, 0, 0], [0, 5, 0, 0]], &[0, 1], &[-1, 0])]
#[case::inner(Join::Inner, &[[0, 5, 0, 0]], &[1], &[0])]
fn alignment_of_the_worked_example(
    #[case] join: Join,
    #[case] coords: &[Coord],
    #[case] lhs_rows: &[i32],
    #[case] rhs_rows: &[i32],
) {
    let found = align(&support(&[[0, 0, 0, 0], [0, 5, 0, 0]]), &support(&[[0, 5, 0, 0], [0, 9, 0, 0]]), join)
        .unwrap();
    assert_eq!(
        (found.support.coords(), &found.lhs_rows[..], &found.rhs_rows[..]),
        (coords, lhs_rows, rhs_rows)
    );
}

/// Rows x = 0, 1, 2 and x = 2, 0, 5, whose joins the algebra examples list.
#[rstest]
#[case::inner(Some(Join::Inner), &[0, 2], &[0, 2], &[1, 0])]
#[case::left(Some(Join::Left), &[0, 1, 2], &[0, 1, 2], &[1, -1, 0])]
#[case::right(Some(Join::Right), &[2, 0, 5], &[2, 0, -1], &[0, 1, 2])]
#[case::outer(Some(Join::Outer), &[0, 1, 2, 5], &[0, 1, 2, -1], &[1, -1, 0, 2])]
#[case::generative(None, &[0, 1, 2, 5], &[0, 1, 2, -1], &[1, -1, 0, 2])]
fn alignment_of_the_algebra_examples(
    #[case] join: Option<Join>,
    #[case] xs: &[i32],
    #[case] lhs_rows: &[i32],
    #[case] rhs_rows: &[i32],
) {
    let line = |xs: &[i32]| support(&xs.iter().map(|&x| [0, x, 0, 0]).collect::<Vec<_>>());
    let (a, b) = (line(&[0, 1, 2]), line(&[2, 0, 5]));
    let found = match join {
        Some(join) => align(&a, &b, join),
        None => generative_union(&a, &b),
    }
    .unwrap();
    assert_eq!(found.support.coords(), line(xs).coords());
    assert_eq!((&found.lhs_rows[..], &found.rhs_rows[..]), (lhs_rows, rhs_rows));
}

#[test]
fn left_and_right_joins_keep_that_operands_identity() {
    let (a, b) = (support(&[[0, 1, 0, 0], [0, 2, 0, 0]]), support(&[[0, 2, 0, 0], [0, 1, 0, 0]]));
    assert!(align(&a, &b, Join::Left).unwrap().support.same_identity(&a));
    assert!(align(&a, &b, Join::Right).unwrap().support.same_identity(&b));
    for join in [Join::Inner, Join::Outer] {
        let found = align(&a, &b, join).unwrap().support;
        assert!(!found.same_identity(&a) && !found.same_identity(&b), "{join}");
    }
}

#[test]
fn generative_union_starts_with_the_larger_operand() {
    let small = support(&[[0, 9, 0, 0], [0, 1, 0, 0]]);
    let large = support(&[[0, 3, 0, 0], [0, 2, 0, 0], [0, 1, 0, 0]]);
    let found = generative_union(&small, &large).unwrap();
    assert_eq!(found.support.coords(), [[0, 3, 0, 0], [0, 2, 0, 0], [0, 1, 0, 0], [0, 9, 0, 0]]);
    assert_eq!((found.lhs_rows, found.rhs_rows), (vec![-1, -1, 1, 0], vec![0, 1, 2, -1]));
}

#[test]
fn joins_have_names() {
    for join in Join::ALL {
        assert_eq!(join.to_string().parse::<Join>().unwrap(), join);
    }
    assert!(matches!("cross".parse::<Join>(), Err(Error::Value { op: "join", .. })));
}

#[test]
fn stride_one_is_the_same_support_and_stride_zero_an_error() {
    let s = support(&[[0, 3, 0, 0], [0, 1, 0, 0]]);
    assert!(downsample(&s, [1; 3]).unwrap().same_identity(&s));
    assert!(matches!(downsample(&s, [2, 0, 2]), Err(Error::Value { op: "downsample", .. })));
}

#[rstest]
#[case::largest_power([1 << 31; 3])]
#[case::largest([u32::MAX; 3])]
#[case::mixed([1, u32::MAX, 3])]
fn extreme_strides_and_coordinates_stay_exact(#[case] stride: [u32; 3]) {
    let rows =
        [[0, i32::MIN, i32::MAX, 0], [0, i32::MAX, i32::MIN, -1], [0, -1, 1, i32::MIN], [0, 0, 0, i32::MAX]];
    let expected = judge::downsample(&rows, stride);
    assert_eq!(downsample(&support(&rows), stride).unwrap().coords(), expected);
    assert_eq!(downsample(&Support::canonical(rows.to_vec()).unwrap(), stride).unwrap().coords(), expected);
}

#[test]
fn empty_supports_join_and_shrink() {
    let (none, some) = (support(&[]), support(&[[2, 1, 1, 1]]));
    assert_eq!(downsample(&none, [2; 3]).unwrap().n_rows(), 0);
    for (a, b) in [(&none, &none), (&none, &some), (&some, &none)] {
        for join in Join::ALL {
            let expected = algebra::align(a.coords(), b.coords(), judge_join(join));
            assert_alignment(&align(a, b, join).unwrap(), &expected);
        }
        assert_alignment(
            &generative_union(a, b).unwrap(),
            &algebra::generative_union(a.coords(), b.coords()),
        );
    }
    assert_eq!(select(&none, &[]).unwrap().n_rows(), 0);
    assert_eq!(morton_sort(&[]).order, Vec::<u32>::new());
}

#[test]
fn select_keeps_the_callers_order_and_refuses_what_is_not_a_set_of_rows() {
    let s = support(&[[0, 5, 0, 0], [0, 4, 0, 0], [1, 3, 0, 0]]);
    assert_eq!(select(&s, &[2, 0]).unwrap().coords(), [[1, 3, 0, 0], [0, 5, 0, 0]]);
    let twice = select(&s, &[2, 0, 2]).unwrap_err();
    assert_eq!(twice, Error::DuplicateCoord { op: "select", row: 2, coord: [1, 3, 0, 0] });
    let again = select(&s, &[1, 1]).unwrap_err();
    assert_eq!(again, Error::DuplicateCoord { op: "select", row: 1, coord: [0, 4, 0, 0] });
    for rows in [&[0, 3][..], &[3, 0], &[u32::MAX]] {
        assert!(matches!(select(&s, rows), Err(Error::OutOfRange { op: "select", .. })), "{rows:?}");
    }
}

#[test]
fn select_and_inner_joins_know_whether_they_are_canonical() {
    let s = Support::canonical(many_rows(500, 3)).unwrap();
    let thirds: Vec<u32> = (0..s.n_rows() as u32).step_by(3).collect();
    let part = select(&s, &thirds).unwrap();
    assert!(part.is_canonical() && intersection(&s, &part).is_canonical());
    assert!(!select(&s, &[1, 0]).unwrap().is_canonical());
    let turned = support(&part.coords().iter().rev().copied().collect::<Vec<_>>());
    assert_eq!(intersection(&turned, &s).coords(), turned.coords());
}

#[rstest]
#[case([0, 1, 0, 0], 1)]
#[case([0, 0, 1, 0], 2)]
#[case([0, 0, 0, 1], 4)]
#[case([0, 3, 5, 1], 143)]
#[case([1, 0, 0, 0], 1_152_921_504_606_846_976)]
#[case([2, 7, 7, 7], 2_305_843_009_213_694_463)]
#[case([0, -1, 0, 0], 1_317_624_576_693_539_401)]
#[case([0, -1, -1, -1], i64::MAX)]
#[case([8, 0, 0, 0], i64::MIN)]
fn morton_codes_of_the_worked_example(#[case] row: Coord, #[case] code: i64) {
    assert_eq!(morton_codes(&[row]), [code]);
}

#[test]
fn canonical_order_takes_negative_batch_ids() {
    let rows = [[3, 0, 0, 0], [-2, 5, 0, 0], [i32::MIN, 0, 0, 0], [-2, 5, 0, 0], [i32::MAX, 0, 0, 1]];
    assert_eq!(canonical_order(&rows), [2, 1, 3, 0, 4]);
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let (a, b) = (support(&many_rows(60_000, 1)), support(&many_rows(45_000, 2)));
    let sorted = Support::canonical(a.coords().to_vec()).unwrap();
    let run = |threads| {
        on_threads(threads, || {
            let joins = Join::ALL.map(|join| align(&a, &b, join).unwrap());
            let joins = joins.map(|j| (j.support.coords().to_vec(), j.lhs_rows, j.rhs_rows));
            let strides = [[2; 3], [3; 3], [1, 2, 4]];
            let coarse: Vec<_> = strides
                .iter()
                .flat_map(|&s| [&a, &sorted].map(|a| downsample(a, s).unwrap().coords().to_vec()))
                .collect();
            (joins, coarse, morton_sort(a.coords()))
        })
    };
    let one = run(1);
    assert!(one == run(2) && one == run(7));
    let mut expected = [a.coords(), b.coords()].concat();
    expected.sort_by(canonical_cmp);
    expected.dedup();
    assert!(one.0[3].0 == expected);
    assert!(one.1[0] == one.1[1], "the shifted level is the sorted one");
}

proptest! {
    #[test]
    fn joins_match_their_definition((lhs, rhs) in strategies::support_pair(), canonical in any::<[bool; 2]>()) {
        let make = |rows: &[Coord], canonical| match canonical {
            true => Support::canonical(rows.to_vec()).unwrap(),
            false => support(rows),
        };
        let (a, b) = (make(&lhs, canonical[0]), make(&rhs, canonical[1]));
        for join in Join::ALL {
            let found = align(&a, &b, join).unwrap();
            assert_alignment(&found, &algebra::align(a.coords(), b.coords(), judge_join(join)));
        }
        assert_alignment(&generative_union(&a, &b).unwrap(), &algebra::generative_union(a.coords(), b.coords()));
        let (one, other) = (union(&a, &b).unwrap(), union(&b, &a).unwrap());
        prop_assert!(one.same_rows(&other));
        prop_assert_eq!(one.coords(), judge::union(&lhs, &rhs));
        let shared = intersection(&a, &b);
        prop_assert_eq!(shared.coords(), judge::intersection(a.coords(), b.coords()));
    }

    #[test]
    fn downsample_matches_its_definition(rows in strategies::any_support(), stride in [1u32..6, 1..6, 1..6], equal in any::<bool>()) {
        let stride = if equal { [stride[0]; 3] } else { stride };
        prop_assume!(stride != [1; 3]);
        let expected = judge::downsample(&rows, stride);
        let given = downsample(&support(&rows), stride).unwrap();
        let sorted = downsample(&Support::canonical(rows).unwrap(), stride).unwrap();
        prop_assert_eq!(given.coords(), &expected[..]);
        prop_assert_eq!(sorted.coords(), &expected[..]);
        prop_assert!(given.is_canonical() && sorted.is_canonical());
    }

    #[test]
    fn downsampling_twice_is_downsampling_once_by_the_product(rows in strategies::any_support()) {
        let s = Support::canonical(rows).unwrap();
        let twice = downsample(&downsample(&s, [2; 3]).unwrap(), [4; 3]).unwrap();
        prop_assert!(twice.same_rows(&downsample(&s, [8; 3]).unwrap()));
    }

    #[test]
    fn morton_and_canonical_orders_match_their_definitions(rows in strategies::any_support(), shift in 0i32..20) {
        let rows: Vec<Coord> = rows.iter().map(|c| [c[0] + shift, c[1], c[2], c[3]]).collect();
        prop_assert_eq!(morton_codes(&rows), judge::morton_codes(&rows));
        let order = morton_order(&rows);
        prop_assert_eq!(&order, &judge::morton_order(&rows));
        prop_assert_eq!(canonical_order(&rows), judge::canonical_order(&rows));
        let sorted = morton_sort(&rows);
        prop_assert_eq!(&sorted.order, &order);
        prop_assert_eq!(&sorted.inverse_rows, &judge::inverse_order(&order));
        prop_assert!(sorted.coords.iter().zip(&order).all(|(c, &row)| *c == rows[row as usize]));
    }

    #[test]
    fn selected_rows_are_the_named_ones(rows in strategies::any_support().prop_shuffle(), keep in any::<u64>()) {
        let s = support(&rows);
        let named: Vec<u32> = (0..rows.len() as u32).rev().filter(|row| keep >> (row % 64) & 1 == 1).collect();
        let expected: Vec<Coord> = named.iter().map(|&row| rows[row as usize]).collect();
        let found = select(&s, &named).unwrap();
        prop_assert_eq!(found.coords(), &expected[..]);
        prop_assert_eq!(found.lookup_all(&expected), (0..expected.len() as i32).collect::<Vec<_>>());
    }
}
