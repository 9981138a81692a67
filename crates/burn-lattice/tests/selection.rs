//! Selection of rows by number, mask, box and score; and operations on coordinates alone.
#![allow(clippy::unwrap_used, reason = "tests")]

mod harness;

use burn::tensor::{Bool, DType, Int, Tensor, TensorData};
use burn_lattice::{Error, SparseTensor, ops};
use harness::*;
use lattice_testkit::tolerances::{EXACT, assert_close};
use lattice_testkit::{algebra as oracle, coords as sets, strategies};
use proptest::prelude::*;

fn rows(values: &[i64]) -> Tensor<1, Int> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), &inference())
}

fn mask(values: &[bool]) -> Tensor<1, Bool> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), &inference())
}

fn coords_tensor(coords: &[Coord]) -> Tensor<2, Int> {
    let flat: Vec<i32> = coords.iter().flatten().copied().collect();
    Tensor::from_data(TensorData::new(flat, [coords.len(), 4]), &inference())
}

fn ints<const D: usize>(tensor: Tensor<D, Int>) -> Vec<i64> {
    tensor.into_data().iter::<i64>().collect()
}

fn a() -> SparseTensor {
    sparse(&line(&[0, 1, 2]), &[1.0, 2.0, 3.0], &inference())
}

fn found(x: &SparseTensor) -> (Vec<i32>, Vec<f64>) {
    (coords_of(x).iter().map(|c| c[1]).collect(), read(x.feats()))
}

#[test]
fn crops_give_the_worked_examples() {
    assert_eq!(found(&ops::crop(&a(), [1, 0, 0], [2, 0, 0]).unwrap()), (vec![1, 2], vec![2.0, 3.0]));
    assert_eq!(
        found(&ops::crop_half_open(&a(), Some([1, 0, 0]), Some([2, 1, 1])).unwrap()),
        (vec![1], vec![2.0])
    );
    assert_eq!(ops::crop_half_open(&a(), None, None).unwrap().n_rows(), 3);
    assert_eq!(ops::crop_half_open(&a(), Some([1; 3]), Some([1; 3])).unwrap().n_rows(), 0);
    assert!(matches!(ops::crop(&a(), [1, 0, 0], [0, 0, 0]), Err(Error::Value { .. })));
    assert!(matches!(ops::crop_half_open(&a(), Some([0, 0, 1]), Some([0; 3])), Err(Error::Value { .. })));
}

#[test]
fn pruning_keeps_the_callers_order_and_masks_ascend() {
    let x = a();
    let y = ops::prune(&x, rows(&[2, 0])).unwrap();
    assert_eq!(found(&y), (vec![2, 0], vec![3.0, 1.0]));
    assert!(y.manager().same_manager(x.manager()) && y.batch_counts().is_none());
    let y = ops::prune_mask(&x, mask(&[true, false, true])).unwrap();
    assert_eq!(found(&y), (vec![0, 2], vec![1.0, 3.0]));
    assert_eq!(ops::prune(&x, rows(&[])).unwrap().feats().dims(), [0, 1]);
}

#[test]
fn batch_counts_are_recounted_over_the_selected_rows() {
    let coords = [[0, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0]];
    let x = sparse(&coords, &[1.0, 2.0, 3.0], &inference()).with_batch_counts(&[2, 1, 0]).unwrap();
    assert_eq!(ops::prune(&x, rows(&[1])).unwrap().batch_counts(), Some(&[1, 0, 0][..]));
    assert_eq!(ops::crop(&x, [0; 3], [0; 3]).unwrap().batch_counts(), Some(&[1, 1, 0][..]));
}

#[test]
fn bad_selections_are_errors() {
    let x = a();
    assert!(matches!(ops::prune(&x, rows(&[0, 3])), Err(Error::OutOfRange { row: 1, .. })));
    assert!(matches!(ops::prune(&x, rows(&[-1])), Err(Error::OutOfRange { row: 0, .. })));
    assert!(ops::prune(&x, rows(&[1, 1])).is_err());
    assert!(matches!(ops::prune_mask(&x, mask(&[true])), Err(Error::Shape { .. })));
}

fn scored() -> SparseTensor {
    let coords = [[0, 0, 0, 0], [0, 1, 0, 0], [0, 2, 0, 0], [0, 3, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0]];
    sparse(&coords, &[5.0, 1.0, 5.0, 3.0, 2.0, 9.0], &inference()).with_batch_counts(&[4, 2]).unwrap()
}

#[test]
fn the_best_rows_of_each_item_are_those_of_the_worked_example() {
    assert_eq!(ints(ops::topk_rows(&scored(), &[2, 1], 1.0).unwrap()), [0, 2, 5]);
    assert_eq!(ints(ops::topk_rows(&scored(), &[2, 1], 0.5).unwrap()), [2]);
    assert_eq!(ints(ops::topk_rows(&scored(), &[9, 0], 1.0).unwrap()), [1, 3, 0, 2]);
    let best = ops::prune(&scored(), ops::topk_rows(&scored(), &[2, 1], 1.0).unwrap()).unwrap();
    assert_eq!(read(best.feats()), [5.0, 5.0, 9.0]);
}

#[test]
fn bad_scores_are_errors() {
    assert!(matches!(ops::topk_rows(&a(), &[1], 1.0), Err(Error::Value { .. })));
    assert!(matches!(ops::topk_rows(&scored(), &[1], 1.0), Err(Error::Shape { .. })));
    for rho in [0.0, -1.0, f64::NAN] {
        assert!(matches!(ops::topk_rows(&scored(), &[1, 1], rho), Err(Error::Value { .. })));
    }
    let bare = scored().with_feats(Tensor::zeros([6, 0], &inference())).unwrap();
    assert!(matches!(ops::topk_rows(&bare, &[1, 1], 1.0), Err(Error::Channels { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn selections_match_their_definition(
        coords in strategies::support(), bits in any::<u64>(), low in [-4i32..1, -4..1, -4..1], extent in [0i32..6, 0..6, 0..6],
    ) {
        let values = Seeded::new(bits).values(coords.len() * 2);
        let high = [0, 1, 2].map(|a| low[a] + extent[a]);
        let keep: Vec<bool> = (0..coords.len()).map(|row| bits >> (row % 64) & 1 == 1).collect();
        for dtype in dtypes() {
            let x = sparse_at(&coords, tensor(&values, [coords.len(), 2], dtype, &inference()), [1; 3]);
            let check = |y: SparseTensor, expected: Vec<u32>| {
                let wanted: Vec<Coord> = expected.iter().map(|&row| coords[row as usize]).collect();
                assert_eq!(coords_of(&y), wanted);
                let signed: Vec<i32> = expected.iter().map(|&row| row as i32).collect();
                assert_close(&oracle::gather(&values, 2, &signed, 0.0), &read(y.feats()), EXACT);
            };
            check(ops::prune_mask(&x, mask(&keep)).unwrap(), oracle::mask_rows(&keep));
            check(ops::crop(&x, low, high).unwrap(), oracle::crop_closed(&coords, low, high));
            check(ops::crop_half_open(&x, Some(low), Some(high)).unwrap(), oracle::crop_half_open(&coords, Some(low), Some(high)));
            check(ops::crop_half_open(&x, None, Some(high)).unwrap(), oracle::crop_half_open(&coords, None, Some(high)));
        }
    }

    #[test]
    fn the_best_rows_match_their_definition(scores in strategies::tied_values(30), split in 0usize..30, counts in [0usize..20, 0..20]) {
        let coords: Vec<Coord> = (0..30).map(|i| [i32::from(i >= split), i as i32, 0, 0]).collect();
        let x = sparse(&coords, &scores, &inference()).with_batch_counts(&[split, 30 - split]).unwrap();
        for rho in [0.3, 1.0, 2.0] {
            let expected: Vec<i64> = oracle::topk_rows(&scores, &[split, 30 - split], &counts, rho).iter().map(|&r| i64::from(r)).collect();
            prop_assert_eq!(ints(ops::topk_rows(&x, &counts, rho).unwrap()), expected);
        }
    }

    #[test]
    fn coordinate_operations_match_their_definition(pair in strategies::support_pair(), stride in [1u32..4, 1..4, 1..4]) {
        let (left, right) = pair;
        let (a, b) = (support(&left), support(&right));
        let halved = ops::downsample_coords(&a, stride).unwrap();
        prop_assert_eq!(halved.to_host().coords(), &sets::downsample(&left, stride)[..]);
        let both = ops::union_coords(&a, &b).unwrap();
        prop_assert_eq!(both.to_host().coords(), &sets::union(&left, &right)[..]);
        let shared = ops::intersection_coords(&a, &b);
        prop_assert_eq!(shared.to_host().coords(), &sets::intersection(&left, &right)[..]);
        let expected: Vec<i64> = sets::lookup(&left, &right).iter().map(|&r| i64::from(r)).collect();
        prop_assert_eq!(ints(ops::lookup_coords(&a, coords_tensor(&right)).unwrap()), expected.clone());
        prop_assert_eq!(ints(ops::inverse_map(&a, &b, &inference())), expected);
        prop_assert_eq!(ints(ops::morton_codes(coords_tensor(&left)).unwrap()), sets::morton_codes(&left));
        let order = sets::morton_order(&left);
        let sorted = ops::morton_sort_coords(coords_tensor(&left)).unwrap();
        prop_assert_eq!(ints(sorted.order), order.iter().map(|&r| i64::from(r)).collect::<Vec<_>>());
        prop_assert_eq!(ints(ops::morton_order(coords_tensor(&left)).unwrap()), order.iter().map(|&r| i64::from(r)).collect::<Vec<_>>());
        prop_assert_eq!(ints(sorted.inverse_rows), sets::inverse_order(&order).iter().map(|&r| i64::from(r)).collect::<Vec<_>>());

        let up = ops::occupancy_downsample(&a, &inference());
        let (parents, masks) = sets::occupancy_downsample(&left);
        prop_assert_eq!(up.parents.to_host().coords(), &parents[..]);
        prop_assert_eq!(ints(up.masks.clone()), masks.iter().map(|&m| i64::from(m)).collect::<Vec<_>>());
        let down = ops::occupancy_expand(&up.parents, up.masks).unwrap();
        prop_assert_eq!(down.support.to_host().coords(), &sets::canonical(&left)[..]);
        let parents_of: Vec<Coord> = ints(down.parent_rows).iter().map(|&r| parents[r as usize]).collect();
        let children = ops::child_coords_from_indices(coords_tensor(&parents_of), down.child_indices).unwrap();
        prop_assert_eq!(ints(children), ints(down.support.to_tensor(&inference())));
    }
}

#[test]
fn bad_coordinates_are_errors() {
    let a = support(&line(&[0, 1]));
    assert!(ops::downsample_coords(&a, [0, 1, 1]).is_err());
    assert!(matches!(ops::lookup_coords(&a, Tensor::zeros([2, 3], &inference())), Err(Error::Shape { .. })));
    let wide: Tensor<2, Int> =
        Tensor::from_data(TensorData::new(vec![0i64, 1 << 40, 0, 0], [1, 4]), (&inference(), DType::I64));
    assert!(matches!(ops::lookup_coords(&a, wide), Err(Error::OutOfRange { row: 0, .. })));
    assert!(ops::occupancy_expand(&a, rows(&[1])).is_err());
    assert!(ops::child_coords_from_indices(coords_tensor(&line(&[0])), rows(&[8])).is_err());
}

#[test]
fn gradients_go_to_the_selected_rows() {
    let coords = Seeded::new(4).coords(20, 2, 3);
    let n = coords.len();
    let values = Seeded::new(5).values(n * 2);
    let at = |leaf: &Tensor<1>| sparse_at(&coords, leaf.clone().reshape([n, 2]), [1; 3]);
    check_gradients(std::slice::from_ref(&values), |l| {
        ops::prune(&at(&l[0]), rows(&[7, 2, 5])).unwrap().into_feats()
    });
    check_gradients(std::slice::from_ref(&values), |l| {
        ops::crop(&at(&l[0]), [-2; 3], [2; 3]).unwrap().into_feats()
    });
}
