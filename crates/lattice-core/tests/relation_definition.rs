//! Every builder against its definition by loops, on random supports and on the corners of the coordinate range.
#![allow(clippy::unwrap_used, reason = "tests")]

use lattice_core::{Edge, Error, KernelSpec, Relation, RelationKind, Support, SupportPolicy};
use lattice_testkit::offsets::Kernel;
use lattice_testkit::relations::{self, Pairs};
use proptest::prelude::*;
use rstest::rstest;

type Coord = [i32; 4];

fn spec(k: &Kernel) -> KernelSpec {
    KernelSpec::try_new(k.size, k.stride, k.padding, k.dilation).unwrap()
}

fn support(rows: &[Coord]) -> Support {
    Support::try_new(rows.to_vec()).unwrap()
}

fn edges(relation: &Relation) -> Vec<(u32, u32, u16)> {
    relation.edges().iter().map(|e| (e.in_row, e.out_row, e.tap)).collect()
}

#[track_caller]
fn assert_same(relation: &Relation, definition: &Pairs) {
    assert_eq!(relation.source().coords(), definition.source);
    assert_eq!(relation.target().coords(), definition.target);
    assert_eq!(relation.taps(), definition.taps);
    assert_eq!(edges(relation), definition.edges);
    assert_eq!(relation.n_pairs(), definition.edges.len());
    assert!(!relation.input_exclusive() || definition.input_exclusive());
}

/// A relation that creates its output rows: an error where the definition finds a row outside `i32`.
#[track_caller]
fn assert_created(
    found: Result<Relation, Error>,
    outside: Option<usize>,
    definition: impl FnOnce() -> Pairs,
) {
    match (found, outside) {
        (Ok(relation), None) => assert_same(&relation, &definition()),
        (Err(Error::OutOfRange { row, .. }), Some(first)) => assert_eq!(row, first),
        (found, outside) => panic!("{found:?}, first row outside: {outside:?}"),
    }
}

/// Every builder that takes this kernel, against its definition.
#[track_caller]
fn assert_all_kinds(source: &[Coord], target: &[Coord], kernel: &Kernel) {
    let (s, t, spec) = (support(source), support(target), spec(kernel));
    if kernel.is_odd() {
        let centred = Kernel { stride: [1; 3], padding: [0; 3], ..*kernel };
        let own = KernelSpec { stride: [1; 3], padding: [0; 3], ..spec };
        assert_same(&Relation::submanifold(&s, &own).unwrap(), &relations::submanifold(source, &centred));
    }
    assert_same(
        &Relation::forward(&s, &spec, SupportPolicy::Floor).unwrap(),
        &relations::forward(source, kernel),
    );
    assert_same(&Relation::onto(&s, &t, &spec).unwrap(), &relations::target(source, target, kernel));
    let grown = Kernel { padding: [0; 3], dilation: [1; 3], ..*kernel };
    for (created, kernel) in [
        (Relation::transposed(&s, &spec), kernel),
        (Relation::generative(&s, kernel.size, kernel.stride), &grown),
    ] {
        assert_created(created, relations::transposed_outside(source, kernel), || {
            relations::transposed(source, kernel)
        });
    }
    assert_same(
        &Relation::target_transposed(&s, &t, &spec).unwrap(),
        &relations::target_transposed(source, target, kernel),
    );
    for range in [None, Some([7, 5, 9])] {
        let policy = SupportPolicy::KernelReach { range };
        let outside = relations::kernel_reach_outside(source, kernel, range);
        assert_created(Relation::forward(&s, &spec, policy), outside, || {
            relations::forward_kernel_reach(source, kernel, range)
        });
    }
    let forward = Relation::forward(&s, &spec, SupportPolicy::Floor).unwrap();
    let inverse = Relation::inverse(&forward);
    assert_same(&inverse, &relations::inverse(&relations::forward(source, kernel)));
    assert!(inverse.target().same_identity(&s) && inverse.source().same_identity(forward.target()));
}

fn rows(max: usize) -> impl Strategy<Value = Vec<Coord>> {
    let row = (prop_oneof![Just(0), Just(1), Just(5)], -6..7i32, -5..6i32, -3..9i32)
        .prop_map(|(b, x, y, z)| [b, x, y, z]);
    proptest::collection::hash_set(row, 0..max).prop_map(|set| {
        let mut rows: Vec<Coord> = set.into_iter().collect();
        rows.sort_by_key(|c| (c[1] * 7919 + c[2] * 104_729 + c[3] * 31 + c[0]).rem_euclid(1009)); // some order that is not sorted
        rows
    })
}

#[rstest]
#[case::cube_3(Kernel::cube(3, 1))]
#[case::down_2(Kernel::cube(2, 2))]
#[case::down_3(Kernel::cube(3, 2))]
#[case::even_stride_1(Kernel::cube(2, 1))]
#[case::point(Kernel::cube(1, 1))]
#[case::gap(Kernel::cube(2, 3))]
#[case::mixed(Kernel::new([2, 3, 1], [2, 1, 3], [1, 0, 2], [1, 2, 1]))]
#[case::padded(Kernel::new([3, 3, 3], [2, 2, 2], [1, 1, 1], [1, 1, 1]))]
#[case::padded_stride_1(Kernel::new([3, 3, 3], [1, 1, 1], [0, 1, 0], [1, 1, 1]))]
#[case::dilated(Kernel::new([3, 3, 3], [1, 1, 1], [0, 0, 0], [2, 3, 5]))]
#[case::more_than_32_taps(Kernel::cube(5, 1))]
#[case::large_and_dilated(Kernel::new([7, 1, 5], [2, 1, 4], [3, 0, 1], [4, 1, 2]))]
#[case::four_by_four(Kernel::cube(4, 4))]
#[case::short_of_its_stride(Kernel::cube(3, 4))]
#[case::long_for_its_stride(Kernel::new([5; 3], [4; 3], [2, 0, 1], [1; 3]))]
#[case::past_its_stride(Kernel::new([4, 3, 2], [2; 3], [1, 0, 3], [1, 2, 3]))]
#[case::seven(Kernel::cube(7, 1))]
#[case::as_wide_as_a_block(Kernel::new([5, 3, 1], [1; 3], [0; 3], [2, 4, 9]))]
#[case::wider_than_a_block(Kernel::new([11, 3, 1], [1; 3], [0; 3], [1, 5, 1]))]
#[case::eight(Kernel::cube(8, 8))]
#[case::far_apart(Kernel::new([2; 3], [9, 1, 9], [5, 3, 0], [1, 2, 3]))]
#[case::further_than_blocks_reach(Kernel::new([3; 3], [12; 3], [1; 3], [1; 3]))]
#[case::planar(Kernel::new([1, 3, 3], [1, 2, 2], [0, 1, 1], [1, 1, 1]))]
fn every_kind_matches_its_definition(#[case] kernel: Kernel) {
    proptest!(ProptestConfig::with_cases(24), |(source in rows(40), target in rows(40))| {
        assert_all_kinds(&source, &target, &kernel);
    });
}

#[test]
fn random_kernels_match_their_definition() {
    let axis = || (1..5u32, 1..4u32, 0..4u32, 1..4u32);
    proptest!(ProptestConfig::with_cases(96), |(source in rows(24), target in rows(24), x in axis(), y in axis(), z in axis())| {
        let kernel = Kernel::new([x.0, y.0, z.0], [x.1, y.1, z.1], [x.2, y.2, z.2], [x.3, y.3, z.3]);
        assert_all_kinds(&source, &target, &kernel);
    });
}

#[rstest]
#[case::empty(vec![])]
#[case::one_row(vec![[0, 3, -2, 7]])]
#[case::batch_gaps(vec![[9, 0, 0, 0], [2, 0, 0, 1], [9, 0, 0, 1], [2, 0, 0, 0], [4_000, 0, 0, 0]])]
#[case::far_corners(vec![[0, i32::MIN, i32::MAX, i32::MIN], [0, i32::MIN + 1, i32::MAX, i32::MIN], [0, i32::MAX, i32::MIN, i32::MAX],
    [0, i32::MAX, i32::MIN + 1, i32::MAX - 1], [0, 0, 0, 0], [1_048_575, i32::MAX, i32::MAX, i32::MAX]])]
fn corners_match_their_definition(#[case] source: Vec<Coord>) {
    let huge = 1_500_000_000;
    for kernel in [
        Kernel::cube(3, 1),
        Kernel::cube(2, 2),
        Kernel::new([3; 3], [2; 3], [1; 3], [1; 3]),
        Kernel::new([3, 2, 1], [1; 3], [0; 3], [1_073_741_823, 2_000_000_000, 5]),
        Kernel::new([2; 3], [huge; 3], [huge; 3], [huge; 3]),
        Kernel::new([1; 3], [i32::MAX as u32; 3], [i32::MAX as u32; 3], [1; 3]),
    ] {
        let target = [
            [0, 0, 0, 0],
            [0, i32::MIN, i32::MAX, i32::MIN],
            [2, 0, 0, 0],
            [0, i32::MAX, i32::MIN, i32::MAX],
        ];
        assert_all_kinds(&source, &target, &kernel);
        assert_all_kinds(&target, &source, &kernel);
    }
}

#[test]
fn many_rows_over_many_chunks_match_a_lookup() {
    // A curved sheet of 30,000 rows in an order with little locality: enough for many parallel pieces.
    let n = 30_000i32;
    let rows: Vec<Coord> = (0..n)
        .map(|i| i64::from(i) * 7919 % i64::from(n))
        .map(|i| i as i32)
        .map(|i| {
            let (x, y) = (i % 200 - 100, i / 200 - 75);
            [x.rem_euclid(2), x.div_euclid(2), y, (x * x + y * y) / 700]
        })
        .collect();
    let s = support(&rows);
    let place: std::collections::HashMap<Coord, u32> = rows.iter().copied().zip(0..).collect();
    let cube = KernelSpec::cube(3, 1).unwrap();
    let relation = Relation::submanifold(&s, &cube).unwrap();
    let mut expected = Vec::new();
    for (q, out_row) in rows.iter().zip(0..) {
        for (f, tap) in cube.centred_offsets().iter().zip(0..) {
            if let Some(&in_row) = place.get(&[q[0], q[1] + f[0], q[2] + f[1], q[3] + f[2]]) {
                expected.push(Edge { in_row, out_row, tap });
            }
        }
    }
    assert_eq!(relation.edges(), expected);
    let canonical = Support::canonical(rows).unwrap();
    assert_eq!(Relation::submanifold(&canonical, &cube).unwrap().n_pairs(), expected.len());
}

#[test]
fn many_rows_grow_over_many_chunks_as_their_formula_says() {
    let mut rows: Vec<Coord> =
        (0..30_000i32).map(|i| [i % 2, i * 31 % 211 - 90, i * 17 % 193 - 100, i / 900]).collect();
    rows.sort_unstable();
    rows.dedup();
    rows.sort_by_key(|c| (c[1] * 7919 + c[2] * 104_729 + c[3] * 31).rem_euclid(1009));
    let s = support(&rows);
    for (size, stride, padding) in [(3, 2, 1), (2, 3, 0), (5, 4, 2)] {
        let spec = KernelSpec::try_new([size; 3], [stride; 3], [padding; 3], [1; 3]).unwrap();
        let grown = Relation::transposed(&s, &spec).unwrap();
        let mut targets = Vec::new();
        for c in &rows {
            for f in spec.indexed_offsets() {
                let at = |a: usize| c[a + 1] * stride as i32 + f[a] - padding as i32;
                targets.push([c[0], at(0), at(1), at(2)]);
            }
        }
        let target = Support::canonical(targets.clone()).unwrap();
        assert_eq!(grown.target().coords(), target.coords());
        let edge = |(n, q): (usize, &Coord)| Edge {
            in_row: (n / spec.taps()) as u32,
            out_row: target.lookup(q).unwrap(),
            tap: (n % spec.taps()) as u16,
        };
        let mut expected: Vec<Edge> = targets.iter().enumerate().map(edge).collect();
        expected.sort_by_key(Edge::key);
        assert_eq!(grown.edges(), expected);
        // Onto the same rows in another order.
        let mut turned = target.coords().to_vec();
        turned.reverse();
        let onto = Relation::target_transposed(&s, &support(&turned), &spec).unwrap();
        let last = target.n_rows() as u32 - 1;
        expected.iter_mut().for_each(|e| e.out_row = last - e.out_row);
        expected.sort_by_key(Edge::key);
        assert_eq!(onto.edges(), expected);
    }
}

#[test]
fn the_order_of_the_rows_only_renames_them() {
    let mut rows: Vec<Coord> =
        (0..30_000i32).map(|i| [i % 2, i * 31 % 61, i * 17 % 53 - 20, i / 600 - 9]).collect();
    rows.sort_unstable();
    rows.dedup();
    rows.sort_by_key(|c| (c[1] * 7919 + c[2] * 104_729 + c[3] * 31).rem_euclid(1009));
    let (s, canonical) = (support(&rows), Support::canonical(rows).unwrap());
    let name: Vec<u32> = s.coords().iter().map(|c| canonical.lookup(c).unwrap()).collect();
    for (size, stride, dilation) in
        [(3, 1, 1), (5, 1, 1), (3, 1, 3), (9, 1, 1), (2, 2, 1), (3, 2, 1), (4, 4, 1), (3, 3, 1)]
    {
        let spec = KernelSpec::try_new([size; 3], [stride; 3], [0; 3], [dilation; 3]).unwrap();
        let given = Relation::forward(&s, &spec, SupportPolicy::Floor).unwrap();
        let sorted = Relation::forward(&canonical, &spec, SupportPolicy::Floor).unwrap();
        let onto = Relation::onto(&canonical, sorted.target(), &spec).unwrap();
        let mut renamed: Vec<Edge> = given
            .edges()
            .iter()
            .map(|e| Edge {
                in_row: name[e.in_row as usize],
                out_row: if stride == 1 { name[e.out_row as usize] } else { e.out_row },
                ..*e
            })
            .collect();
        renamed.sort_by_key(Edge::key);
        assert_eq!(renamed, sorted.edges());
        if stride > 1 {
            assert_eq!(sorted.edges(), onto.edges(), "found by looking every window up");
            assert_eq!(given.target().coords(), sorted.target().coords());
        }
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let rows: Vec<Coord> = (0..20_000i32).map(|i| [i % 3, i * 31 % 61, i * 17 % 53, i / 400]).collect();
    let mut rows = rows;
    rows.sort_unstable();
    rows.dedup();
    rows.reverse();
    let build = || {
        let s = support(&rows);
        let down = Relation::forward(&s, &KernelSpec::cube(3, 2).unwrap(), SupportPolicy::Floor).unwrap();
        let same = Relation::submanifold(&s, &KernelSpec::cube(3, 1).unwrap()).unwrap();
        let up = Relation::transposed(down.target(), &KernelSpec::cube(2, 2).unwrap()).unwrap();
        let dilated = KernelSpec::try_new([5, 3, 5], [1; 3], [0; 3], [1, 2, 1]).unwrap();
        let wide = Relation::submanifold(&s, &dilated).unwrap();
        let grown = Relation::generative(&s, [2; 3], [2; 3]).unwrap();
        let onto = Relation::target_transposed(down.target(), &s, &KernelSpec::cube(2, 2).unwrap()).unwrap();
        let overlapping = KernelSpec::try_new([3; 3], [2; 3], [1; 3], [1; 3]).unwrap();
        let overlap = Relation::transposed(&s, &overlapping).unwrap();
        let back = Relation::target_transposed(down.target(), &s, &overlapping).unwrap();
        [down, same, up, wide, grown, onto, overlap, back].map(|r| {
            let views =
                (r.by_input().clone(), r.by_tap().clone(), r.tap_tiles().clone(), r.transpose().edges());
            (r.edges(), r.target().coords().to_vec(), views, r.sorted_table().clone())
        })
    };
    let pool = |n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap();
    let one = pool(1).install(build);
    assert_eq!(one, pool(2).install(build));
    assert_eq!(one, pool(7).install(build));
}

#[test]
fn impossible_arguments_are_errors() {
    let s = support(&[[0, 0, 0, 0], [0, 1, 0, 0]]);
    let bad = KernelSpec { size: [3; 3], stride: [0; 3], padding: [0; 3], dilation: [1; 3] };
    let value = |r: Result<Relation, Error>| assert!(matches!(r, Err(Error::Value { .. })), "{r:?}");
    value(Relation::submanifold(&s, &KernelSpec::cube(2, 1).unwrap()));
    value(Relation::submanifold(&s, &KernelSpec::cube(3, 2).unwrap()));
    value(Relation::submanifold(&s, &KernelSpec::try_new([3; 3], [1; 3], [1; 3], [1; 3]).unwrap()));
    value(Relation::forward(&s, &bad, SupportPolicy::Floor));
    value(Relation::onto(&s, &s, &bad));
    value(Relation::transposed(&s, &bad));
    value(Relation::generative(&s, [0; 3], [1; 3]));
    value(Relation::target_transposed(&s, &s, &bad));
    let many = KernelSpec { size: [41; 3], stride: [1; 3], ..bad };
    assert!(matches!(Relation::submanifold(&s, &many), Err(Error::Limit { .. })));
    let cube = KernelSpec::cube(3, 1).unwrap();
    for (in_row, out_row, tap) in [(2, 0, 0), (0, 2, 0), (0, 0, 27)] {
        value(Relation::from_edges(&s, &s, &cube, RelationKind::Target, &[Edge { in_row, out_row, tap }]));
    }
    let twice = [Edge { in_row: 0, out_row: 0, tap: 5 }, Edge { in_row: 1, out_row: 0, tap: 5 }];
    value(Relation::from_edges(&s, &s, &cube, RelationKind::Target, &twice));
}

#[test]
fn a_relation_from_its_own_shuffled_edges_is_equal() {
    let s = support(&[[0, 0, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0], [1, 0, 0, 0]]);
    let cube = KernelSpec::cube(3, 1).unwrap();
    let relation = Relation::submanifold(&s, &cube).unwrap();
    let mut shuffled = relation.edges();
    shuffled.reverse();
    let copy = Relation::from_edges(&s, &s, &cube, RelationKind::Submanifold, &shuffled).unwrap();
    assert_eq!(copy.edges(), relation.edges());
    assert_eq!(copy.transpose().edges(), relation.transpose().edges());
    assert_ne!(copy.id(), relation.id());
}
