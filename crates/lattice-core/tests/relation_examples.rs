//! Worked examples, on a line unless they say otherwise. Rows of created supports are named by their coordinate.
#![allow(clippy::unwrap_used, reason = "tests")]

use lattice_core::{KernelSpec, Relation, RelationKind, Support, SupportPolicy};
use rstest::rstest;

fn line(xs: &[i32]) -> Support {
    Support::try_new(xs.iter().map(|&x| [0, x, 0, 0]).collect()).unwrap()
}

fn kernel(k: u32, s: u32, p: u32) -> KernelSpec {
    KernelSpec::try_new([k, 1, 1], [s, 1, 1], [p, 0, 0], [1; 3]).unwrap()
}

fn triples(relation: &Relation) -> Vec<(u32, u32, u16)> {
    relation.edges().iter().map(|e| (e.in_row, e.out_row, e.tap)).collect()
}

/// Asserts the output x and the edges of an example whose output rows are numbered in the order of `out_x`.
#[track_caller]
fn assert_example(relation: &Relation, out_x: &[i32], edges: &[(u32, u32, u16)]) {
    let found: Vec<i32> = relation.target().coords().iter().map(|c| c[1]).collect();
    let mut sorted = found.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, out_x, "output support");
    let row = |o: u32| found.iter().position(|&x| x == out_x[o as usize]).unwrap() as u32;
    let mut expected: Vec<_> = edges.iter().map(|&(i, o, k)| (i, row(o), k)).collect();
    expected.sort_by_key(|&(i, o, k)| (o, k, i));
    assert_eq!(triples(relation), expected);
}

#[test]
fn three_neighbours_on_a_line_in_all_views() {
    let s = line(&[0, 1, 2]);
    let relation = Relation::submanifold(&s, &kernel(3, 1, 0)).unwrap();
    let edges = [(0, 0, 1), (1, 0, 2), (0, 1, 0), (1, 1, 1), (2, 1, 2), (1, 2, 0), (2, 2, 1)];
    assert_eq!(triples(&relation), edges);
    assert_eq!(relation.out_splits(), [0, 2, 5, 7]);

    let by_input = relation.by_input();
    assert_eq!(by_input.splits, [0, 2, 5, 7]);
    let ids = |rows: &[u32], taps: &[u16]| -> Vec<usize> {
        rows.iter()
            .zip(taps)
            .map(|(&o, &k)| edges.iter().position(|e| (e.1, e.2) == (o, k)).unwrap())
            .collect()
    };
    assert_eq!(ids(&by_input.out_rows, &by_input.taps), [0, 2, 1, 3, 5, 4, 6]);

    let by_tap = relation.by_tap();
    assert_eq!(by_tap.splits, [0, 2, 5, 7]);
    assert_eq!(ids(&by_tap.out_rows, &[0, 0, 1, 1, 1, 2, 2]), [2, 5, 0, 3, 6, 1, 4]);
    assert_eq!(by_tap.in_rows, [0, 1, 0, 1, 2, 1, 2]);

    let table = relation.neighbour_table();
    assert_eq!(table.table, [-1, 0, 1, 0, 1, 2, 1, 2, -1]);
    assert_eq!(table.masks, [6, 7, 3]);
    let sorted = relation.sorted_table();
    assert_eq!(sorted.reorder_rows, [2, 0, 1]);
    assert_eq!(sorted.table, [1, 2, -1, -1, 0, 1, 0, 1, 2]);
    assert_eq!(sorted.table_by_tap, [1, -1, 0, 2, 0, 1, -1, 1, 2]);
    assert_eq!(sorted.tile_masks, [7, 0, 0, 0]);

    let tiles = relation.tap_tiles();
    assert_eq!(tiles.splits, [0, 2, 5, 7]);
    assert_eq!(tiles.in_rows, [0, 1, 0, 1, 2, 1, 2]);
    assert_eq!(tiles.out_local, [1, 2, 0, 1, 2, 0, 1]);
    assert_eq!(relation.tap_histogram(), [2, 3, 2]);
    assert_eq!(relation.neighbour_histogram(), [0, 0, 2, 1]);
}

#[rstest]
#[case::k2_s2(2, 2, 0, &[-2, -1, 0, 2], &[(0, 0, 1), (1, 1, 1), (2, 2, 0), (3, 2, 1), (4, 3, 0)])]
#[case::k3_s2(3, 2, 0, &[-2, -1, 0, 2], &[(0, 0, 2), (0, 1, 0), (1, 1, 2), (1, 2, 0), (2, 2, 1), (3, 2, 2), (4, 3, 1)])]
#[case::k3_s2_p1(3, 2, 1, &[-2, -1, 0, 2], &[(0, 1, 1), (1, 2, 1), (2, 2, 2), (4, 3, 2)])]
#[case::k3_s1_p1(3, 1, 1, &[-3, -1, 0, 1, 4],
    &[(0, 0, 2), (0, 1, 0), (1, 1, 2), (1, 2, 1), (2, 2, 2), (1, 3, 0), (2, 3, 1), (3, 3, 2), (4, 4, 2)])]
fn forward_relations_of_five_rows(
    #[case] k: u32,
    #[case] s: u32,
    #[case] p: u32,
    #[case] out_x: &[i32],
    #[case] edges: &[(u32, u32, u16)],
) {
    let relation =
        Relation::forward(&line(&[-3, -1, 0, 1, 4]), &kernel(k, s, p), SupportPolicy::Floor).unwrap();
    assert_example(&relation, out_x, edges);
}

#[test]
fn transposed_relations_of_three_rows() {
    let s = line(&[-1, 0, 1]);
    let exact = Relation::transposed(&s, &kernel(2, 2, 0)).unwrap();
    let edges = [(0, 0, 0), (0, 1, 1), (1, 2, 0), (1, 3, 1), (2, 4, 0), (2, 5, 1)];
    assert_example(&exact, &[-2, -1, 0, 1, 2, 3], &edges);
    assert_example(&Relation::generative(&s, [2, 1, 1], [2, 1, 1]).unwrap(), &[-2, -1, 0, 1, 2, 3], &edges);
    let overlapping = Relation::transposed(&s, &kernel(3, 2, 1)).unwrap();
    let edges =
        [(0, 0, 0), (0, 1, 1), (1, 2, 0), (0, 2, 2), (1, 3, 1), (2, 4, 0), (1, 4, 2), (2, 5, 1), (2, 6, 2)];
    assert_example(&overlapping, &[-3, -2, -1, 0, 1, 2, 3], &edges);
}

#[test]
fn target_transposed_map_of_two_rows() {
    let relation =
        Relation::target_transposed(&line(&[0, 1]), &line(&[-1, 0, 1, 2, 5]), &kernel(3, 2, 1)).unwrap();
    let table = relation.neighbour_table();
    assert_eq!(table.table, [0, -1, -1, -1, 0, -1, 1, -1, 0, -1, 1, -1, -1, -1, -1]);
    assert_eq!(table.masks, [1, 2, 5, 2, 0]);
}

#[test]
fn target_map_of_three_rows() {
    let relation = Relation::onto(&line(&[2, 3, 5]), &line(&[4, 1, 9]), &kernel(3, 1, 0)).unwrap();
    assert_eq!(relation.neighbour_table().table, [1, -1, 2, -1, -1, 0, -1, -1, -1]);
    assert_eq!(relation.neighbour_table().masks, [5, 4, 0]);
}

#[test]
fn masks_take_as_many_words_as_the_taps_need() {
    let relation = Relation::submanifold(&line(&[0, 10]), &kernel(41, 1, 0)).unwrap();
    let table = relation.neighbour_table();
    let mut expected = vec![-1; 82];
    (expected[20], expected[30], expected[41 + 10], expected[41 + 20]) = (0, 1, 0, 1);
    assert_eq!(table.table, expected);
    assert_eq!((table.words, &table.masks[..]), (2, &[1_074_790_400, 0, 1_049_600, 0][..]));
    assert_eq!(table.mask(1), [1_049_600, 0]);
    assert_eq!(relation.sorted_table().reorder_rows, [1, 0]);
}

#[test]
fn stride_one_without_padding_keeps_the_support() {
    let s = line(&[5, -3, 0]);
    for k in [1, 2, 3, 4] {
        let relation = Relation::forward(&s, &kernel(k, 1, 0), SupportPolicy::Floor).unwrap();
        assert!(relation.target().same_identity(&s), "size {k}");
    }
    let padded = Relation::forward(&s, &kernel(3, 1, 1), SupportPolicy::Floor).unwrap();
    assert!(!padded.target().same_identity(&s) && padded.n_out() == 3);
    let same = Relation::submanifold(&s, &kernel(3, 1, 0)).unwrap();
    let forward = Relation::forward(&s, &kernel(3, 1, 0), SupportPolicy::Floor).unwrap();
    assert_eq!(same.edges(), forward.edges());
}

#[rstest]
#[case::bounded_by_the_largest_input(2, 1, 0, None, &[0, 1, 3])]
#[case::bounded_by_the_range(2, 1, 0, Some(10), &[0, 1, 3, 4])]
#[case::a_small_range_cuts(2, 1, 0, Some(4), &[0, 1])]
#[case::padding_reaches_further(3, 2, 1, Some(6), &[0, 1, 2])]
#[case::a_range_below_the_kernel_leaves_nothing(5, 1, 0, Some(3), &[])]
fn kernel_reach_creates_what_the_window_touches(
    #[case] k: u32,
    #[case] s: u32,
    #[case] p: u32,
    #[case] range: Option<u32>,
    #[case] out_x: &[i32],
) {
    // inputs -4, 1, 4: the first is reached only from negative outputs
    let policy = SupportPolicy::KernelReach { range: range.map(|r| [r, 1, 1]) };
    let relation = Relation::forward(&line(&[-4, 1, 4]), &kernel(k, s, p), policy).unwrap();
    let mut found: Vec<i32> = relation.target().coords().iter().map(|c| c[1]).collect();
    found.sort_unstable();
    assert_eq!(found, out_x);
    assert_eq!(relation.offsets()[0], [0; 3], "offsets are indexed");
    assert!(relation.neighbour_histogram()[0] == 0, "every created row has an edge");
}

#[test]
fn an_inverse_runs_the_forward_relation_backwards() {
    let s = line(&[-3, -1, 0, 1, 4]);
    let forward = Relation::forward(&s, &kernel(3, 2, 0), SupportPolicy::Floor).unwrap();
    let inverse = Relation::inverse(&forward);
    assert_eq!(inverse.kind(), RelationKind::Inverse);
    assert!(inverse.target().same_identity(&s));
    let mut swapped: Vec<_> = triples(&forward).iter().map(|&(i, o, k)| (o, i, k)).collect();
    swapped.sort_by_key(|&(i, o, k)| (o, k, i));
    assert_eq!(triples(&inverse), swapped);
    assert_eq!(inverse.transpose().edges(), forward.edges());
    assert_eq!(inverse.offsets(), forward.offsets());
}
