//! Building tensors: batches of clouds, clouds with duplicates, and the records of the batch column.
#![allow(clippy::unwrap_used, reason = "tests")]

mod harness;

use burn::tensor::{DType, Int, Tensor, TensorData};
use burn_lattice::ops::{self, DuplicateReduction};
use burn_lattice::{Error, SparseTensor};
use harness::*;
use lattice_testkit::algebra as oracle;
use lattice_testkit::tolerances::{EXACT, F32, assert_close};
use proptest::prelude::*;

fn integers<const D: usize>(rows: &[[i32; D]]) -> Tensor<2, Int> {
    let flat: Vec<i32> = rows.iter().flatten().copied().collect();
    Tensor::from_data(TensorData::new(flat, [rows.len(), D]), &inference())
}

fn feats(values: &[f64], c: usize) -> Tensor<2> {
    tensor(values, [values.len() / c, c], DType::F32, &inference())
}

/// Feature rows by coordinate.
fn value_at(x: &SparseTensor, coord: Coord) -> f64 {
    read(x.feats())[coords_of(x).iter().position(|c| *c == coord).unwrap()]
}

#[test]
fn clouds_become_the_items_of_a_batch() {
    let clouds = [integers(&[[1, 0, 0]]), integers(&[[4, 4, 4], [5, 5, 5]])];
    let x = ops::sparse_collate(
        &clouds,
        &[feats(&[1.0], 1), feats(&[2.0, 3.0], 1)],
        [2; 3],
        DuplicateReduction::None,
    )
    .unwrap();
    assert_eq!(coords_of(&x), [[0, 1, 0, 0], [1, 4, 4, 4], [1, 5, 5, 5]]);
    assert_eq!((x.batch_counts(), x.stride()), (Some(&[1, 2][..]), [2; 3]));
    assert_eq!(read(x.feats()), [1.0, 2.0, 3.0]);
}

#[test]
fn empty_clouds_keep_their_place() {
    let none = || (integers::<3>(&[]), Tensor::<2>::zeros([0, 1], &inference()));
    let (coords, values): (Vec<_>, Vec<_>) =
        [none(), (integers(&[[1, 0, 0]]), feats(&[7.0], 1)), none()].into_iter().unzip();
    for reduction in [DuplicateReduction::None, DuplicateReduction::Mean] {
        let x = ops::sparse_collate(&coords, &values, [1; 3], reduction).unwrap();
        assert_eq!(x.batch_counts(), Some(&[0, 1, 0][..]));
        assert_eq!(coords_of(&x), [[1, 1, 0, 0]]);
        assert_eq!(x.decomposed_feats().iter().map(|f| f.dims()[0]).collect::<Vec<_>>(), [0, 1, 0]);
    }
    let x = ops::sparse_collate(&coords[..1], &values[..1], [1; 3], DuplicateReduction::None).unwrap();
    assert_eq!((x.n_rows(), x.batch_size()), (0, 1));
}

#[test]
fn duplicates_are_averaged_or_refused() {
    let coords = || integers(&[[0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]);
    let values = || feats(&[1.0, 5.0, 3.0], 1);
    let x = ops::sparse_from_coordinates(coords(), values(), [1; 3], Some(&[3, 0]), DuplicateReduction::Mean)
        .unwrap();
    assert_eq!((value_at(&x, [0, 0, 0, 0]), value_at(&x, [0, 1, 0, 0])), (2.0, 5.0));
    assert_eq!(x.batch_counts(), Some(&[2, 0][..]));
    let refused = ops::sparse_from_coordinates(coords(), values(), [1; 3], None, DuplicateReduction::None);
    assert!(matches!(refused, Err(Error::DuplicateCoord { row: 2, coord: [0, 0, 0, 0], .. })));
    let clouds = [integers(&[[0; 3], [0; 3]])];
    let x = ops::sparse_collate(&clouds, &[feats(&[1.0, 2.0], 1)], [1; 3], DuplicateReduction::Mean).unwrap();
    assert_eq!((read(x.feats()), x.batch_counts()), (vec![1.5], Some(&[1][..])));
    assert_eq!("mean".parse::<DuplicateReduction>().unwrap(), DuplicateReduction::Mean);
    assert!("sum".parse::<DuplicateReduction>().is_err());
}

#[test]
fn tensors_of_one_item_are_collated_under_new_ids() {
    let a = sparse(&[[4, 0, 0, 0], [4, 1, 0, 0]], &[1.0, 2.0], &inference());
    let b = sparse(&[[0, 0, 0, 0]], &[3.0], &inference());
    let x = ops::sparse_collate_tensors(&[a.clone(), b.clone()]).unwrap();
    assert_eq!(coords_of(&x), [[0, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0]]);
    assert_eq!(x.batch_counts(), Some(&[2, 1][..]));
    assert!(matches!(ops::sparse_collate_tensors(&[]), Err(Error::Shape { .. })));
    let coarse = b.with_stride([2; 3]).unwrap();
    assert!(matches!(ops::sparse_collate_tensors(&[a, coarse]), Err(Error::StrideMismatch { .. })));
    assert!(matches!(ops::sparse_collate_tensors(&[x]), Err(Error::OutOfRange { row: 2, .. })));
}

#[test]
fn bad_batches_are_errors() {
    let one = || integers(&[[1, 0, 0]]);
    let collate = |coords: &[Tensor<2, Int>], values: &[Tensor<2>]| {
        ops::sparse_collate(coords, values, [1; 3], DuplicateReduction::None)
    };
    assert!(matches!(collate(&[], &[]), Err(Error::Shape { .. })));
    assert!(matches!(collate(&[one()], &[]), Err(Error::Shape { .. })));
    assert!(matches!(collate(&[integers(&[[0, 1, 0, 0]])], &[feats(&[1.0], 1)]), Err(Error::Shape { .. })));
    assert!(matches!(collate(&[one()], &[feats(&[1.0, 2.0], 1)]), Err(Error::Shape { .. })));
    assert!(matches!(
        collate(&[one(), one()], &[feats(&[1.0], 1), feats(&[1.0, 2.0], 2)]),
        Err(Error::Channels { .. })
    ));
    let double = tensor(&[1.0], [1, 1], DType::F64, &inference());
    assert!(matches!(collate(&[one(), one()], &[feats(&[1.0], 1), double]), Err(Error::Dtype { .. })));
    let zero_stride = ops::sparse_collate(&[one()], &[feats(&[1.0], 1)], [0; 3], DuplicateReduction::None);
    assert!(matches!(zero_stride, Err(Error::Value { .. })));

    let rows = || integers(&[[0, 1, 0, 0], [2, 1, 0, 0]]);
    let from = |coords, counts: Option<&[usize]>| {
        ops::sparse_from_coordinates(coords, feats(&[1.0, 2.0], 1), [1; 3], counts, DuplicateReduction::Mean)
    };
    assert!(matches!(from(rows(), Some(&[1, 0])), Err(Error::OutOfRange { row: 1, .. })));
    assert!(matches!(from(rows(), Some(&[1, 1, 0])), Err(Error::Shape { .. })));
    assert_eq!(from(rows(), Some(&[1, 0, 1, 0])).unwrap().batch_counts(), Some(&[1, 0, 1, 0][..]));
    assert!(matches!(
        from(integers(&[[0, 1, 0, 0], [-1, 1, 0, 0]]), None),
        Err(Error::OutOfRange { row: 1, .. })
    ));
    assert!(matches!(from(integers(&[[1, 0, 0], [2, 0, 0]]), None), Err(Error::Shape { .. })));
    let wide = Tensor::from_data(
        TensorData::new(vec![0i64, 1 << 40, 0, 0, 0, 0, 0, 0], [2, 4]),
        (&inference(), DType::I64),
    );
    assert!(matches!(from(wide, None), Err(Error::OutOfRange { row: 0, .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn merged_duplicates_match_their_definition(
        rows in prop::collection::vec((0..3, -2..2, -2..2, -1..1), 0..60), seed in any::<u64>(),
    ) {
        let coords: Vec<Coord> = rows.iter().map(|&(b, x, y, z)| [b, x, y, z]).collect();
        let values = Seeded::new(seed).values(coords.len() * 2);
        for dtype in dtypes() {
            let feats = tensor(&values, [coords.len(), 2], dtype, &inference());
            let x = ops::sparse_from_coordinates(integers(&coords), feats, [1; 3], None, DuplicateReduction::Mean).unwrap();
            let (expected_rows, expected) = oracle::mean_duplicates(&coords, &values, 2);
            prop_assert_eq!(coords_of(&x), expected_rows);
            // Weights of means are f32 for every element type.
            let close = if dtype == DType::F64 { F32 } else { tolerance(dtype) };
            assert_close(&expected, &read(x.feats()), close);
        }
    }

    #[test]
    fn collated_batches_match_their_definition(sizes in prop::collection::vec(0usize..20, 1..5), seed in any::<u64>()) {
        let mut random = Seeded::new(seed);
        let clouds: Vec<Vec<[i32; 3]>> = sizes.iter().map(|&n| random.coords(n, 1, 4).iter().map(|c| [c[1], c[2], c[3]]).collect()).collect();
        let values: Vec<Vec<f64>> = clouds.iter().map(|c| random.values(c.len())).collect();
        let coords: Vec<_> = clouds.iter().map(|c| integers(c)).collect();
        let feats: Vec<_> = values.iter().map(|v| feats(v, 1)).collect();
        let x = ops::sparse_collate(&coords, &feats, [1; 3], DuplicateReduction::None).unwrap();
        let (expected, counts) = oracle::collate(&clouds);
        prop_assert_eq!(coords_of(&x), expected);
        prop_assert_eq!(x.batch_counts(), Some(&counts[..]));
        assert_close(&values.concat(), &read(x.feats()), EXACT);
    }
}

#[test]
fn gradients_are_central_differences() {
    let coords = [[0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]];
    let values = Seeded::new(1).values(8);
    check_gradients(std::slice::from_ref(&values), |l| {
        let feats = l[0].clone().reshape([4, 2]);
        ops::sparse_from_coordinates(integers(&coords), feats, [1; 3], None, DuplicateReduction::Mean)
            .unwrap()
            .into_feats()
    });
    check_gradients(&[values[..2].to_vec(), values[2..].to_vec()], |l| {
        let feats = [l[0].clone().reshape([1, 2]), l[1].clone().reshape([3, 2])];
        let coords = [integers(&[[0; 3]]), integers(&[[0, 0, 0], [0, 1, 0], [0, 0, 2]])];
        ops::sparse_collate(&coords, &feats, [1; 3], DuplicateReduction::None).unwrap().into_feats()
    });
}
