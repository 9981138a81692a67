//! The worked examples of coordinate sets, Morton codes and occupancy.

use lattice_testkit::coords::*;

const LHS: [Coord; 4] = [[0, 4, 0, 0], [1, 4, 0, 0], [0, 4, 0, 0], [0, 7, -1, 2]];
const RHS: [Coord; 3] = [[0, 7, -1, 2], [0, 9, 9, 9], [1, 4, 0, 0]];

#[test]
fn set_operations_give_the_worked_example() {
    let expected = [[0, 4, 0, 0], [1, 4, 0, 0], [0, 7, -1, 2], [0, 9, 9, 9]];
    assert_eq!(union(&LHS, &RHS), canonical(&expected));
    assert_eq!(intersection(&LHS, &RHS), [[1, 4, 0, 0], [0, 7, -1, 2]]);
    assert_eq!(lookup(&LHS, &RHS), [3, -1, 1]);
    let line = [-3, -1, 0, 1, 4].map(|x| [0, x, 0, 0]);
    assert_eq!(downsample(&line, [2, 1, 1]), [-2, -1, 0, 2].map(|x| [0, x, 0, 0]));
}

#[test]
fn floor_division_rounds_down() {
    assert_eq!([floor_div(-1, 2), floor_div(-3, 2), floor_div(-4, 2), floor_div(3, 2)], [-1, -2, -2, 1]);
}

#[test]
fn canonical_order_compares_batch_then_the_top_bits_z_first() {
    let rows = [
        [0, 0, 0, -1],
        [0, -1, -1, 0],
        [0, 0, 0, 0],
        [0, 1, 0, 0],
        [0, 0, 1, 0],
        [0, 1, 1, 0],
        [0, 0, 0, 1],
        [0, 2, 0, 0],
        [1, i32::MIN, i32::MIN, i32::MIN],
    ];
    assert_eq!(canonical_order(&rows), [0, 1, 2, 3, 4, 5, 6, 7, 8]);
    let mut backwards = rows;
    backwards.reverse();
    assert_eq!(canonical(&backwards), rows);
    assert_eq!(canonical_order(&backwards), [8, 7, 6, 5, 4, 3, 2, 1, 0]);
}

#[test]
fn morton_codes_have_the_published_bits() {
    let table: [(Coord, i64); 9] = [
        ([0, 1, 0, 0], 1),
        ([0, 0, 1, 0], 2),
        ([0, 0, 0, 1], 4),
        ([0, 3, 5, 1], 143),
        ([1, 0, 0, 0], 1152921504606846976),
        ([2, 7, 7, 7], 2305843009213694463),
        ([0, -1, 0, 0], 1317624576693539401),
        ([0, -1, -1, -1], 9223372036854775807),
        ([8, 0, 0, 0], -9223372036854775808),
    ];
    for (coord, code) in table {
        assert_eq!(morton_code(&coord), code, "{coord:?}");
    }
    let rows = table.map(|(coord, _)| coord);
    let order = morton_order(&rows);
    assert_eq!(order[0], 8, "batch 8 has the negative code");
    let inverse = inverse_order(&order);
    assert!((0..9).all(|j| inverse[order[j] as usize] == j as u32));
}

#[test]
fn occupancy_goes_down_and_comes_back() {
    let coords = [[0, 0, 0, 0], [0, 1, 0, 0], [0, 1, 1, 1], [0, -1, 0, 0], [0, 2, 0, 1]];
    let (parents, masks) = occupancy_downsample(&coords);
    for (parent, mask) in [([0, 0, 0, 0], 131), ([0, -1, 0, 0], 2), ([0, 1, 0, 0], 16)] {
        assert_eq!(masks[row_of(&parents, &parent).expect("a parent")], mask);
    }
    let children = occupancy_expand(&parents, &masks);
    assert_eq!(children.coords, canonical(&coords));
    for (coord, parent, child) in [
        ([0, 0, 0, 0], [0, 0, 0, 0], 0),
        ([0, 1, 0, 0], [0, 0, 0, 0], 1),
        ([0, 1, 1, 1], [0, 0, 0, 0], 7),
        ([0, -1, 0, 0], [0, -1, 0, 0], 1),
        ([0, 2, 0, 1], [0, 1, 0, 0], 4),
    ] {
        let row = row_of(&children.coords, &coord).expect("a child");
        assert_eq!(parents[children.parent_rows[row] as usize], parent);
        assert_eq!(children.child_indices[row], child);
        assert_eq!(child_coord(&parent, child), Some(coord));
    }
}

#[test]
fn bits_above_the_eighth_name_no_child() {
    assert_eq!(occupancy_expand(&[[0, 3, 3, 3]], &[0x100 | 2]).coords, [[0, 7, 6, 6]]);
    assert_eq!(child_coord(&[0, i32::MAX, 0, 0], 0), None);
}
