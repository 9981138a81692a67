//! Output coordinates that an operation creates lie inside `i32`, or the operation is an error that names the first row at fault.
//!
//! Relations once left such coordinates out, which gave a network fewer rows than its definition and no word about it. Matching
//! against rows that exist is another matter: a candidate outside `i32` cannot be a row, so it has no edge.

#![allow(clippy::unwrap_used, reason = "tests")]

use lattice_core::{
    Coord, Error, KernelSpec, Relation, Support, SupportPolicy, child_coords, downsample,
    occupancy_downsample, occupancy_expand,
};
use rstest::rstest;

const MAX: i32 = i32::MAX;
const MIN: i32 = i32::MIN;

/// A row at the origin, one at `at` along every axis in turn, in the axis' own batch item.
fn supports(at: i32) -> impl Iterator<Item = (usize, Support)> {
    (1..4usize).map(move |axis| {
        let mut row = [axis as i32, 0, 0, 0];
        row[axis] = at;
        (axis, Support::try_new(vec![[0, 0, 0, 0], row, [0, 1, 0, 0]]).unwrap())
    })
}

#[track_caller]
fn assert_refused<T: std::fmt::Debug>(found: Result<T, Error>, op: &str, row: usize) {
    let error = found.unwrap_err();
    assert!(matches!(error, Error::OutOfRange { row: found, .. } if found == row), "{error}");
    let text = error.to_string();
    for part in [op, "expected", "found", "; "] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[rstest]
#[case::largest_stride_2(MAX, 2, 2, 0)]
#[case::smallest_stride_2(MIN, 2, 2, 0)]
#[case::largest_stride_3(MAX, 3, 3, 0)]
#[case::smallest_stride_3(MIN, 3, 3, 0)]
#[case::largest_padded(MAX, 3, 2, 1)]
#[case::smallest_padded(MIN, 3, 2, 1)]
#[case::half_of_the_range_overlapping(1 << 30, 3, 2, 1)]
#[case::last_tap_outside(MAX / 2, 3, 2, 0)]
#[case::first_tap_outside(MIN / 2, 3, 2, 1)]
#[case::stride_1_above(MAX, 3, 1, 1)]
#[case::stride_1_below(MIN, 3, 1, 1)]
fn a_transposed_row_outside_i32_is_refused(#[case] at: i32, #[case] k: u32, #[case] s: u32, #[case] p: u32) {
    let spec = KernelSpec::try_new([k; 3], [s; 3], [p; 3], [1; 3]).unwrap();
    for (_, support) in supports(at) {
        assert_refused(Relation::transposed(&support, &spec), "transposed relation", 1);
    }
}

#[rstest]
#[case::largest_stride_2(MAX, 2, 2)]
#[case::smallest_stride_2(MIN, 2, 2)]
#[case::largest_stride_3(MAX, 3, 3)]
#[case::smallest_stride_3(MIN, 3, 3)]
#[case::overlapping(MAX / 2, 3, 2)]
#[case::stride_1(MAX, 2, 1)]
fn a_generative_row_outside_i32_is_refused(#[case] at: i32, #[case] k: u32, #[case] s: u32) {
    for (_, support) in supports(at) {
        assert_refused(Relation::generative(&support, [k; 3], [s; 3]), "generative relation", 1);
    }
}

#[rstest]
#[case::children_of_the_last_parent(MAX / 2, 2, 2, 0, MAX - 1, MAX)]
#[case::children_of_the_first_parent(MIN / 2, 2, 2, 0, MIN, MIN + 1)]
#[case::padding_brings_the_window_back(MAX / 2 + 1, 2, 2, 2, MAX - 1, MAX)]
#[case::padding_at_stride_1(MAX, 3, 1, 2, MAX - 2, MAX)]
#[case::smallest_at_stride_1(MIN, 2, 1, 0, MIN, MIN + 1)]
fn the_ends_of_i32_are_created(
    #[case] at: i32,
    #[case] k: u32,
    #[case] s: u32,
    #[case] p: u32,
    #[case] low: i32,
    #[case] high: i32,
) {
    let spec = KernelSpec::try_new([k; 3], [s; 3], [p; 3], [1; 3]).unwrap();
    for (axis, support) in supports(at) {
        let relation = Relation::transposed(&support, &spec).unwrap();
        let made = relation.target().coords().iter().filter(|q| q[0] == axis as i32);
        let (smallest, largest) =
            made.fold((MAX, MIN), |(low, high), q| (low.min(q[axis]), high.max(q[axis])));
        assert_eq!((smallest, largest), (low, high));
    }
}

#[rstest]
#[case::by_the_largest_input(None)]
#[case::by_a_range([u32::MAX; 3].into())]
fn a_row_outside_i32_that_a_kernel_reaches_is_refused(#[case] range: Option<[u32; 3]>) {
    let policy = SupportPolicy::KernelReach { range };
    let spec = |k: u32, s: u32, p: u32| KernelSpec::try_new([k; 3], [s; 3], [p; 3], [1; 3]).unwrap();
    for (_, support) in supports(MAX) {
        for (k, p) in [(1, 1), (2, 1), (3, 2)] {
            assert_refused(Relation::forward(&support, &spec(k, 1, p), policy), "forward relation", 1);
        }
        // Divided by the stride, every reached row lies inside.
        for (k, s, p) in [(3, 2, 1), (3, 3, 1), (2, 2, 0), (1, 1, 0)] {
            assert!(Relation::forward(&support, &spec(k, s, p), policy).is_ok());
        }
    }
    // Without a position along y there is no output row, whatever x does.
    let alone = Support::try_new(vec![[0, MAX, MIN, 0]]).unwrap();
    assert_eq!(Relation::forward(&alone, &spec(1, 1, 1), policy).unwrap().n_out(), 0);
}

#[rstest]
#[case(2)]
#[case(3)]
fn strided_rows_stay_inside_i32(#[case] stride: u32) {
    let rows: Vec<Coord> = vec![[0, MIN, MAX, 0], [0, MAX, MIN, -1], [1, MIN, MIN, MIN]];
    let support = Support::try_new(rows).unwrap();
    for k in [stride, 3] {
        let spec = KernelSpec::try_new([k; 3], [stride; 3], [1; 3], [1; 3]).unwrap();
        let down = Relation::forward(&support, &spec, SupportPolicy::Floor).unwrap();
        assert_eq!(down.target().coords(), downsample(&support, [stride; 3]).unwrap().coords());
        assert_eq!(down.n_out(), 3);
        // Onto rows that exist a candidate outside i32 is no match, and no error.
        assert!(Relation::target_transposed(&support, &support, &spec).is_ok());
        assert!(Relation::onto(&support, &support, &spec).is_ok());
    }
}

#[test]
fn children_outside_i32_are_refused() {
    for (_, support) in supports(MAX / 2 + 1) {
        let masks = [1; 3];
        assert_refused(occupancy_expand(support.coords(), &masks), "occupancy_expand", 1);
        assert_refused(child_coords(support.coords(), &masks), "child_coords", 1);
    }
    let edge = Support::try_new(vec![[0, MIN, MAX, MIN], [0, MAX, MIN, MAX]]).unwrap();
    let up = occupancy_downsample(&edge);
    assert_eq!(
        occupancy_expand(up.parents.coords(), &up.masks).unwrap().coords,
        Support::canonical(edge.coords().to_vec()).unwrap().coords()
    );
}
