//! Orders along curves, and patches.
#![allow(clippy::unwrap_used, reason = "tests")]

use burn_lattice::Support;
use lattice_models::{PatchRun, Patches, SerialOrder, serialize};

fn cube(side: u32) -> Vec<[u32; 3]> {
    (0..side).flat_map(|x| (0..side).flat_map(move |y| (0..side).map(move |z| [x, y, z]))).collect()
}

#[test]
fn every_order_visits_each_cell_of_a_cube_once() {
    for order in SerialOrder::ALL {
        let mut codes: Vec<u128> = cube(8).into_iter().map(|c| order.code(c, 3)).collect();
        codes.sort_unstable();
        assert!(codes.iter().copied().eq(0..512), "{order:?}");
    }
}

#[test]
fn cells_that_follow_each_other_on_the_hilbert_curve_touch() {
    for order in [SerialOrder::Hilbert, SerialOrder::HilbertSwapped] {
        for depth in [1, 2, 4] {
            let mut cells = cube(1 << depth);
            cells.sort_by_key(|&c| order.code(c, depth));
            for pair in cells.windows(2) {
                let steps: u32 = (0..3).map(|a| pair[0][a].abs_diff(pair[1][a])).sum();
                assert_eq!(steps, 1, "{order:?} at depth {depth}: {pair:?}");
            }
        }
    }
}

#[test]
fn codes_have_the_published_bits() {
    // Bit 0 of x is bit 2 of the code, of y bit 1, of z bit 0.
    assert_eq!(SerialOrder::Morton.code([1, 0, 0], 1), 4);
    assert_eq!(SerialOrder::Morton.code([0, 2, 1], 2), 17);
    assert_eq!(SerialOrder::MortonSwapped.code([1, 0, 0], 1), 2);
    // A coarser level has the same order: the code of the halved cell is the code without its last three bits.
    for order in SerialOrder::ALL {
        for c in [[5, 0, 7], [3, 6, 1], [7, 7, 7]] {
            let halved = c.map(|v| v / 2);
            assert_eq!(order.code(c, 3) >> 3, order.code(halved, 2), "{order:?} {c:?}");
        }
    }
    assert_eq!(SerialOrder::Morton.code([u32::MAX; 3], 32), (1 << 96) - 1);
}

#[test]
fn a_cloud_is_ordered_from_its_smallest_coordinate() {
    let rows: Vec<[i32; 4]> =
        cube(4).into_iter().map(|c| c.map(|v| v as i32)).map(|[x, y, z]| [0, x, y, z]).collect();
    let shifted = rows.iter().map(|&[b, x, y, z]| [b, x - 1_000_000, y + 77, z - 3]).collect();
    for order in SerialOrder::ALL {
        let here = serialize(&Support::try_new(rows.clone()).unwrap(), order);
        assert_eq!(here, serialize(&Support::try_new(Vec::clone(&shifted)).unwrap(), order));
    }
    let ends = vec![[0, i32::MIN, 0, 0], [0, i32::MAX, 0, 0], [0, 0, 0, 0]];
    let order = serialize(&Support::try_new(ends).unwrap(), SerialOrder::Morton);
    assert_eq!(order.rows, [0, 2, 1]);
}

#[test]
fn the_last_patch_is_filled_from_the_one_before() {
    // Item 0 has 10 rows, item 1 none, item 2 has 3, item 3 has 4.
    let mut rows: Vec<[i32; 4]> = (0..10).map(|x| [0, x, 0, 0]).collect();
    rows.extend((0..3).map(|x| [2, x, 0, 0]));
    rows.extend((0..4).map(|x| [3, x, 0, 0]));
    let support = Support::try_new(rows).unwrap();
    let patches = Patches::new(&support, SerialOrder::Morton, 4).unwrap();
    assert_eq!(patches.slots(), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 6, 7, 10, 11, 12, 13, 14, 15, 16]);
    let run = |first, patches, length| PatchRun { first, patches, length };
    assert_eq!(patches.runs(), [run(0, 3, 4), run(12, 1, 3), run(15, 1, 4)]);
    assert!(Patches::new(&support, SerialOrder::Morton, 0).is_err());
}
