//! The worked examples of kernel offsets, relations and their views.

use lattice_testkit::coords::{Coord, canonical, row_of};
use lattice_testkit::offsets::{Kernel, centred, indexed};
use lattice_testkit::relations::*;
use lattice_testkit::strategies;
use lattice_testkit::views::*;
use proptest::prelude::*;

fn line(xs: &[i32]) -> Vec<Coord> {
    xs.iter().map(|&x| [0, x, 0, 0]).collect()
}

fn xs(coords: &[Coord]) -> Vec<i32> {
    coords.iter().map(|c| c[1]).collect()
}

#[test]
fn offsets_enumerate_z_fastest() {
    assert_eq!(centred(&Kernel::line(3, 1, 0, 1)), [[-1, 0, 0], [0, 0, 0], [1, 0, 0]]);
    let mixed = Kernel::new([2, 3, 1], [1; 3], [0; 3], [1; 3]);
    assert_eq!(centred(&mixed), [[0, -1, 0], [0, 0, 0], [0, 1, 0], [1, -1, 0], [1, 0, 0], [1, 1, 0]]);
    let cube = centred(&Kernel::cube(3, 1));
    for (tap, offset) in [
        (0, [-1, -1, -1]),
        (1, [-1, -1, 0]),
        (2, [-1, -1, 1]),
        (3, [-1, 0, -1]),
        (13, [0; 3]),
        (14, [0, 0, 1]),
        (26, [1; 3]),
    ] {
        assert_eq!(cube[tap], offset);
    }
    let dilated = centred(&Kernel::line(4, 1, 0, 2));
    assert_eq!(dilated, [[0, 0, 0], [2, 0, 0], [4, 0, 0], [6, 0, 0]]);
    assert_eq!(indexed(&Kernel::line(3, 1, 0, 2)), [[0, 0, 0], [2, 0, 0], [4, 0, 0]]);
    let octants = indexed(&Kernel::cube(2, 2));
    for (tap, offset) in octants.iter().enumerate() {
        assert_eq!(tap as i64, 4 * offset[0] + 2 * offset[1] + offset[2]);
    }
}

#[test]
fn three_sites_in_a_row_have_the_published_views() {
    let pairs = forward(&line(&[0, 1, 2]), &Kernel::line(3, 1, 0, 1));
    let edges = [(0, 0, 1), (1, 0, 2), (0, 1, 0), (1, 1, 1), (2, 1, 2), (1, 2, 0), (2, 2, 1)];
    assert_eq!(pairs.edges, edges);
    assert_eq!(pairs, submanifold(&line(&[0, 1, 2]), &Kernel::line(3, 1, 0, 1)));
    assert_eq!(by_output(&edges, 3), Groups { splits: vec![0, 2, 5, 7], edge_ids: (0..7).collect() });
    assert_eq!(by_input(&edges, 3), Groups { splits: vec![0, 2, 5, 7], edge_ids: vec![0, 2, 1, 3, 5, 4, 6] });
    assert_eq!(by_tap(&edges, 3), Groups { splits: vec![0, 2, 5, 7], edge_ids: vec![2, 5, 0, 3, 6, 1, 4] });
    assert_eq!(neighbour_table(&edges, 3, 3), [-1, 0, 1, 0, 1, 2, 1, 2, -1]);
    assert_eq!(masks(&edges, 3, 3), [6, 7, 3]);
    assert_eq!(
        sorted_table(&edges, 3, 3),
        SortedTable {
            rows: vec![2, 0, 1],
            table: vec![1, 2, -1, -1, 0, 1, 0, 1, 2],
            tap_major: vec![1, -1, 0, 2, 0, 1, -1, 1, 2],
            tile_masks: vec![7, 0, 0, 0],
        }
    );
    assert_eq!(tap_histogram(&edges, 3), [2, 3, 2]);
    assert_eq!(neighbour_histogram(&edges, 3, 3), [0, 0, 2, 1]);
}

#[test]
fn strided_relations_give_the_published_pairs() {
    let source = line(&[-3, -1, 0, 1, 4]);
    let cases: [(Kernel, &[i32], &[Edge]); 4] = [
        (Kernel::line(2, 2, 0, 1), &[-2, -1, 0, 2], &[(0, 0, 1), (1, 1, 1), (2, 2, 0), (3, 2, 1), (4, 3, 0)]),
        (
            Kernel::line(3, 2, 0, 1),
            &[-2, -1, 0, 2],
            &[(0, 0, 2), (0, 1, 0), (1, 1, 2), (1, 2, 0), (2, 2, 1), (3, 2, 2), (4, 3, 1)],
        ),
        (Kernel::line(3, 2, 1, 1), &[-2, -1, 0, 2], &[(0, 1, 1), (1, 2, 1), (2, 2, 2), (4, 3, 2)]),
        (
            Kernel::line(3, 1, 1, 1),
            &[-3, -1, 0, 1, 4],
            &[
                (0, 0, 2),
                (0, 1, 0),
                (1, 1, 2),
                (1, 2, 1),
                (2, 2, 2),
                (1, 3, 0),
                (2, 3, 1),
                (3, 3, 2),
                (4, 4, 2),
            ],
        ),
    ];
    for (kernel, out, edges) in cases {
        let pairs = forward(&source, &kernel);
        assert_eq!(xs(&pairs.target), out, "{kernel:?}");
        assert_eq!(pairs.edges, edges, "{kernel:?}");
    }
    assert!(forward(&source, &Kernel::line(2, 2, 0, 1)).input_exclusive());
    assert!(!forward(&source, &Kernel::line(3, 2, 0, 1)).input_exclusive());
}

#[test]
fn transposed_relations_give_the_published_pairs() {
    let source = line(&[-1, 0, 1]);
    let up = transposed(&source, &Kernel::line(2, 2, 0, 1));
    assert_eq!(xs(&up.target), [-2, -1, 0, 1, 2, 3]);
    assert_eq!(up.edges, [(0, 0, 0), (0, 1, 1), (1, 2, 0), (1, 3, 1), (2, 4, 0), (2, 5, 1)]);
    assert_eq!(up, generative(&source, [2, 1, 1], [2, 1, 1]));

    let overlapping = transposed(&source, &Kernel::line(3, 2, 1, 1));
    assert_eq!(xs(&overlapping.target), [-3, -2, -1, 0, 1, 2, 3]);
    assert_eq!(
        overlapping.edges,
        [(0, 0, 0), (0, 1, 1), (1, 2, 0), (0, 2, 2), (1, 3, 1), (2, 4, 0), (1, 4, 2), (2, 5, 1), (2, 6, 2)]
    );
}

#[test]
fn given_targets_have_the_published_tables() {
    let targets = line(&[-1, 0, 1, 2, 5]);
    let up = target_transposed(&line(&[0, 1]), &targets, &Kernel::line(3, 2, 1, 1));
    let table = [[0, -1, -1], [-1, 0, -1], [1, -1, 0], [-1, 1, -1], [-1, -1, -1]];
    assert_eq!(neighbour_table(&up.edges, 5, 3), table.concat());
    assert_eq!(masks(&up.edges, 5, 3), [1, 2, 5, 2, 0]);

    let onto = target(&line(&[2, 3, 5]), &line(&[4, 1, 9]), &Kernel::line(3, 1, 0, 1));
    assert_eq!(neighbour_table(&onto.edges, 3, 3), [[1, -1, 2], [-1, -1, 0], [-1, -1, -1]].concat());
    assert_eq!(masks(&onto.edges, 3, 3), [5, 4, 0]);
}

#[test]
fn kernels_of_more_than_32_taps_have_several_mask_words() {
    let pairs = submanifold(&line(&[0, 10]), &Kernel::line(41, 1, 0, 1));
    let table = neighbour_table(&pairs.edges, 2, 41);
    for (at, row) in table.iter().enumerate() {
        let expected = match (at / 41, at % 41) {
            (0, 20) => 0,
            (0, 30) => 1,
            (1, 10) => 0,
            (1, 20) => 1,
            _ => -1,
        };
        assert_eq!(*row, expected);
    }
    assert_eq!(masks(&pairs.edges, 2, 41), [1074790400, 0, 1049600, 0]);
    assert_eq!(sorted_table(&pairs.edges, 2, 41).rows, [1, 0]);
}

#[test]
fn kernel_reach_keeps_outputs_whose_window_lies_within_the_bound() {
    let kernel = Kernel::line(3, 2, 0, 1);
    let source = line(&[0, 1, 4]);
    // windows 0..=2, 2..=4, 4..=6: without a range the last may start at floor((4 - 2) / 2) = 1
    assert_eq!(xs(&kernel_reach_support(&source, &kernel, None)), [0, 1]);
    // range 7: q < floor((7 - 2 - 1) / 2) + 1 = 3
    let ranged = forward_kernel_reach(&source, &kernel, Some([7, 1, 1]));
    assert_eq!(xs(&ranged.target), [0, 1, 2]);
    assert_eq!(ranged.edges, [(0, 0, 0), (1, 0, 1), (2, 1, 2), (2, 2, 0)]);
    assert!(kernel_reach_support(&line(&[-5]), &kernel, None).is_empty());
}

#[test]
fn padding_never_crosses_batches() {
    let source = [[0, 0, 0, 0], [1, 1, 0, 0]];
    assert_eq!(submanifold(&source, &Kernel::cube(3, 1)).edges, [(0, 0, 13), (1, 1, 13)]);
}

#[test]
fn candidates_outside_the_range_of_i32_match_nothing_and_cannot_be_created() {
    let source = [[0, 7, 0, 0], [0, i32::MAX, 0, 0], [0, i32::MIN, 0, 0]];
    assert_eq!(submanifold(&source, &Kernel::line(3, 1, 0, 1)).edges, [(0, 0, 1), (1, 1, 1), (2, 2, 1)]);
    assert_eq!(transposed_outside(&source, &Kernel::line(2, 2, 0, 1)), Some(1));
    assert_eq!(transposed_outside(&source[..1], &Kernel::line(2, 2, 0, 1)), None);
    assert_eq!(kernel_reach_outside(&source, &Kernel::line(1, 1, 1, 1), None), Some(1));
    assert_eq!(kernel_reach_outside(&source, &Kernel::line(1, 1, 0, 1), None), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_inverse_relation_is_the_target_transposed_one_for_indexed_offsets(
        source in strategies::support(), kernel in strategies::kernel(),
    ) {
        let pairs = target_indexed(&source, &floor_support(&source, &kernel), &kernel);
        let back = target_transposed(&pairs.target, &source, &kernel);
        prop_assert_eq!(inverse(&pairs), back);
    }

    #[test]
    fn the_transposed_relation_is_the_target_transposed_one_on_its_own_support(
        source in strategies::any_support(), kernel in strategies::kernel(),
    ) {
        prop_assume!(transposed_outside(&source, &kernel).is_none());
        let up = transposed(&source, &kernel);
        prop_assert_eq!(&canonical(&up.target), &up.target);
        prop_assert_eq!(target_transposed(&source, &up.target, &kernel), up);
    }

    #[test]
    fn every_source_row_reaches_its_floor_under_a_kernel_that_fills_the_stride(
        source in strategies::support(), stride in 1u32..4,
    ) {
        let pairs = forward(&source, &Kernel::new([stride; 3], [stride; 3], [0; 3], [1; 3]));
        if stride % 2 == 0 {
            prop_assert_eq!(pairs.edges.len(), source.len());
        }
        for c in &source {
            prop_assert!(row_of(&pairs.target, &lattice_testkit::coords::coarser(c, [stride; 3])).is_some());
        }
    }

    #[test]
    fn supports_of_the_strategies_are_distinct(source in strategies::any_support()) {
        prop_assert_eq!(canonical(&source).len(), source.len());
        prop_assert!(source.iter().all(|c| c[0] >= 0));
    }
}
