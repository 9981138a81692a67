//! Views against their definitions by loops.
#![allow(clippy::unwrap_used, reason = "tests")]

use lattice_core::{KernelSpec, Relation, Support, SupportPolicy, TapTiles};
use lattice_testkit::views;
use proptest::prelude::*;
use rstest::rstest;

type Coord = [i32; 4];

fn triples(relation: &Relation) -> Vec<(u32, u32, u16)> {
    relation.edges().iter().map(|e| (e.in_row, e.out_row, e.tap)).collect()
}

#[track_caller]
fn assert_views(relation: &Relation) {
    let (edges, taps) = (triples(relation), relation.taps());
    let (n_in, n_out) = (relation.n_in(), relation.n_out());
    let pick = |groups: &views::Groups| -> Vec<(u32, u32, u16)> {
        groups.edge_ids.iter().map(|&id| edges[id]).collect()
    };

    assert_eq!(relation.out_splits(), views::by_output(&edges, n_out).splits);
    let (groups, found) = (views::by_input(&edges, n_in), relation.by_input());
    assert_eq!(found.splits, groups.splits);
    assert_eq!(found.out_rows, pick(&groups).iter().map(|e| e.1).collect::<Vec<_>>());
    assert_eq!(found.taps, pick(&groups).iter().map(|e| e.2).collect::<Vec<_>>());
    let (groups, found) = (views::by_tap(&edges, taps), relation.by_tap());
    assert_eq!(found.splits, groups.splits);
    assert_eq!(found.in_rows, pick(&groups).iter().map(|e| e.0).collect::<Vec<_>>());
    assert_eq!(found.out_rows, pick(&groups).iter().map(|e| e.1).collect::<Vec<_>>());

    assert_eq!(relation.neighbour_table().table, views::neighbour_table(&edges, n_out, taps));
    assert_eq!(relation.neighbour_table().masks, views::masks(&edges, n_out, taps));
    let (expected, found) = (views::sorted_table(&edges, n_out, taps), relation.sorted_table());
    assert_eq!(found.reorder_rows, expected.rows);
    assert_eq!(found.table, expected.table);
    assert_eq!(found.table_by_tap, expected.tap_major);
    assert_eq!(found.tile_masks, expected.tile_masks);
    assert_eq!(relation.tap_histogram(), views::tap_histogram(&edges, taps));
    assert_eq!(relation.neighbour_histogram(), views::neighbour_histogram(&edges, n_out, taps));

    assert_tiles(relation);
    assert_transpose(relation);
}

#[track_caller]
fn assert_tiles(relation: &Relation) {
    let (tiles, taps) = (relation.tap_tiles(), relation.taps());
    assert_eq!(tiles.block, TapTiles::BLOCK);
    assert_eq!(tiles.n_blocks(taps), relation.n_out().div_ceil(TapTiles::BLOCK));
    assert_eq!((tiles.splits[0], tiles.splits[tiles.splits.len() - 1]), (0, relation.n_pairs()));
    let mut listed = Vec::new();
    for (cell, split) in tiles.splits.windows(2).enumerate() {
        let (block, tap) = (cell / taps, (cell % taps) as u16);
        let locals = &tiles.out_local[split[0]..split[1]];
        assert!(locals.is_sorted_by(|a, b| a < b), "rows of a tap ascend");
        for (&local, &in_row) in locals.iter().zip(&tiles.in_rows[split[0]..split[1]]) {
            listed.push((in_row, (block * TapTiles::BLOCK) as u32 + u32::from(local), tap));
        }
    }
    listed.sort_by_key(|&(i, o, k)| (o, k, i));
    assert_eq!(listed, triples(relation));
}

#[track_caller]
fn assert_transpose(relation: &Relation) {
    let adjoint = relation.transpose();
    let mut swapped: Vec<_> = triples(relation).iter().map(|&(i, o, k)| (o, i, k)).collect();
    swapped.sort_by_key(|&(i, o, k)| (o, k, i));
    assert_eq!(triples(&adjoint), swapped);
    assert!(
        adjoint.source().same_identity(relation.target())
            && adjoint.target().same_identity(relation.source())
    );
    assert!(adjoint.transpose().same_identity(relation), "the transpose of the transpose is the relation");
    assert!(relation.transpose().same_identity(&adjoint), "the transpose is kept");
    assert!(adjoint.is_adjoint() != relation.is_adjoint());
    assert_tiles(&adjoint);
}

fn rows(max: usize) -> impl Strategy<Value = Vec<Coord>> {
    let row = (0..3i32, -8..9i32, -5..6i32, -3..9i32).prop_map(|(b, x, y, z)| [b, x, y, z]);
    proptest::collection::hash_set(row, 0..max).prop_map(|set| {
        let mut rows: Vec<Coord> = set.into_iter().collect();
        rows.sort_by_key(|c| (c[1] * 7919 + c[2] * 104_729 + c[3] * 31 + c[0]).rem_euclid(1009));
        rows
    })
}

#[rstest]
#[case::submanifold([3, 3, 3], [1; 3])]
#[case::anisotropic([5, 1, 3], [1; 3])]
#[case::more_than_one_mask_word([5, 3, 3], [1; 3])]
#[case::down_2([2; 3], [2; 3])]
#[case::overlapping([3; 3], [2, 2, 1])]
fn views_match_their_definitions(#[case] size: [u32; 3], #[case] stride: [u32; 3]) {
    let spec = KernelSpec::try_new(size, stride, [0; 3], [1; 3]).unwrap();
    proptest!(ProptestConfig::with_cases(12), |(source in rows(120))| {
        let s = Support::try_new(source).unwrap();
        let forward = Relation::forward(&s, &spec, SupportPolicy::Floor).unwrap();
        assert_views(&forward);
        assert_views(&Relation::inverse(&forward));
        assert_views(&Relation::transposed(forward.target(), &spec).unwrap());
    });
}

#[test]
fn views_of_empty_relations_are_empty() {
    let (none, some) = (Support::try_new(vec![]).unwrap(), Support::try_new(vec![[0, 1, 2, 3]]).unwrap());
    let spec = KernelSpec::cube(3, 1).unwrap();
    for (source, target) in [(&none, &none), (&none, &some), (&some, &none)] {
        assert_views(&Relation::onto(source, target, &spec).unwrap());
        assert_views(&Relation::target_transposed(source, target, &spec).unwrap());
    }
    assert_views(&Relation::submanifold(&none, &spec).unwrap());
    assert_views(&Relation::generative(&none, [2; 3], [2; 3]).unwrap());
}

#[test]
fn views_of_many_blocks_agree_with_the_edges() {
    let mut rows: Vec<Coord> = (0..26_000i32).map(|i| [0, i * 31 % 61, i * 17 % 53, i / 600]).collect();
    rows.sort_unstable();
    rows.dedup();
    rows.sort_by_key(|c| (c[1] * 7919 + c[2] * 104_729 + c[3] * 31).rem_euclid(1009));
    let s = Support::try_new(rows).unwrap();
    for (size, stride) in [(3, 1), (3, 2), (2, 2), (5, 2)] {
        let relation =
            Relation::forward(&s, &KernelSpec::cube(size, stride).unwrap(), SupportPolicy::Floor).unwrap();
        let mut by_input: Vec<_> = triples(&relation);
        by_input.sort_by_key(|&(i, o, k)| (i, o, k));
        let view = relation.by_input();
        assert_eq!(view.out_rows, by_input.iter().map(|e| e.1).collect::<Vec<_>>());
        assert_eq!(view.taps, by_input.iter().map(|e| e.2).collect::<Vec<_>>());
        assert_eq!(view.splits[relation.n_in()], relation.n_pairs());
        let mut by_tap: Vec<_> = triples(&relation);
        by_tap.sort_by_key(|&(_, o, k)| (k, o));
        assert_eq!(relation.by_tap().in_rows, by_tap.iter().map(|e| e.0).collect::<Vec<_>>());
        assert_eq!(relation.by_tap().out_rows, by_tap.iter().map(|e| e.1).collect::<Vec<_>>());
        assert_tiles(&relation);
        assert_transpose(&relation);
    }
}

#[test]
fn an_adjoint_outlives_its_relation() {
    let s = Support::try_new(vec![[0, 0, 0, 0], [0, 1, 0, 0], [0, 3, 0, 0]]).unwrap();
    let forward = Relation::forward(&s, &KernelSpec::cube(3, 2).unwrap(), SupportPolicy::Floor).unwrap();
    let (adjoint, edges) = (forward.transpose(), forward.edges());
    drop(forward);
    assert_eq!(adjoint.transpose().edges(), edges);
}

#[test]
fn built_views_count_in_the_bytes() {
    let s = Support::try_new((0..100).map(|x| [0, x, 0, 0]).collect()).unwrap();
    let relation = Relation::submanifold(&s, &KernelSpec::cube(3, 1).unwrap()).unwrap();
    assert_eq!(relation.bytes(), 0, "pairs are listed when they are first read");
    let listed = relation.n_pairs() * 6 + 101 * 8;
    let mut before = relation.bytes();
    assert_eq!(before, listed);
    let views: [fn(&Relation) -> bool; 6] = [
        |r| !r.by_input().splits.is_empty(),
        |r| !r.by_tap().splits.is_empty(),
        |r| !r.neighbour_table().masks.is_empty(),
        |r| !r.sorted_table().tile_masks.is_empty(),
        |r| !r.tap_tiles().splits.is_empty(),
        |r| r.transpose().n_pairs() == r.n_pairs(),
    ];
    for view in views {
        assert!(view(&relation));
        assert!(relation.bytes() > before);
        before = relation.bytes();
        assert!(view(&relation));
        assert_eq!(relation.bytes(), before, "a view is built once");
    }
}

#[test]
fn views_may_be_asked_for_from_within_parallel_work() {
    use rayon::prelude::*;
    let rows = (0..60_000).map(|i| [0, i % 251, i / 251, i % 3]).collect();
    let s = Support::try_new(rows).unwrap();
    let relation = Relation::submanifold(&s, &KernelSpec::cube(3, 1).unwrap()).unwrap();
    let pairs: Vec<usize> = (0..64usize)
        .into_par_iter()
        .map(|i| match i % 3 {
            0 => relation.by_tap().in_rows.len(),
            1 => relation.tap_tiles().in_rows.len(),
            _ => relation.transpose().n_pairs(),
        })
        .collect();
    assert!(pairs.iter().all(|&n| n == relation.n_pairs()));
}
