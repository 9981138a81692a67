//! Dense grids and bird's-eye views against their definitions by loops.
#![allow(clippy::unwrap_used, reason = "tests")]

mod harness;

use burn::tensor::{DType, Tensor};
use burn_lattice::ops::{self, Axis, BevWindow};
use burn_lattice::{Error, SparseTensor};
use harness::*;
use lattice_testkit::bev::{self, Projection, Window};
use lattice_testkit::tolerances::{EXACT, F32, assert_close};
use lattice_testkit::{algebra, strategies};
use proptest::prelude::*;

const AXES: [(Axis, usize); 3] = [(Axis::X, 1), (Axis::Y, 2), (Axis::Z, 3)];

/// Rows moved so that no coordinate is negative, and the extents that hold them.
fn from_zero(coords: &[Coord]) -> (Vec<Coord>, [usize; 4]) {
    let low = [1, 2, 3].map(|a| coords.iter().map(|c| c[a]).min().unwrap_or(0));
    let moved: Vec<Coord> =
        coords.iter().map(|c| [c[0], c[1] - low[0], c[2] - low[1], c[3] - low[2]]).collect();
    let shape = [0, 1, 2, 3].map(|a| moved.iter().map(|c| c[a] as usize + 1).max().unwrap_or(1));
    (moved, shape)
}

#[test]
fn rows_are_written_to_their_cells() {
    let x = sparse(&[[0, 1, 0, 1], [1, 0, 0, 0]], &[1.0, 2.0, 3.0, 4.0], &inference());
    let grid = ops::to_dense(&x, [2, 2, 1, 2]).unwrap();
    assert_eq!(grid.dims(), [2, 2, 1, 2, 2]);
    let mut expected = [0.0; 16];
    expected[6..8].copy_from_slice(&[1.0, 2.0]);
    expected[8..10].copy_from_slice(&[3.0, 4.0]);
    assert_eq!(read(&grid), expected);
}

#[test]
fn rows_outside_the_grid_are_errors() {
    let x = sparse(&[[0, 0, 0, 0], [0, 1, -1, 0]], &[1.0, 2.0], &inference());
    assert!(matches!(ops::to_dense(&x, [1, 2, 2, 2]), Err(Error::OutOfRange { row: 1, .. })));
    let x = sparse(&[[1, 0, 0, 0]], &[1.0], &inference());
    assert!(matches!(ops::to_dense(&x, [1, 2, 2, 2]), Err(Error::OutOfRange { row: 0, .. })));
    assert!(matches!(ops::to_dense(&x, [2, usize::MAX, 2, 2]), Err(Error::Limit { .. })));
    assert!(matches!(ops::to_dense(&x, [2, 0, 2, 2]), Err(Error::OutOfRange { .. })));
    let empty = sparse_at(&[], Tensor::zeros([0, 3], &inference()), [1; 3]);
    assert_eq!(read(&ops::to_dense(&empty, [1, 1, 1, 2]).unwrap()), [0.0; 6]);
}

#[test]
fn rows_outside_a_window_are_errors() {
    let device = inference();
    let x = sparse(&[[0, 0, 0, 0], [0, 1, -1, 5]], &[1.0, 2.0], &device);
    let weight = |taps| Tensor::<3>::ones([taps, 1, 1], &device);
    assert!(matches!(
        ops::bev_convolution(&x, weight(5), None, 1, Axis::Z),
        Err(Error::OutOfRange { row: 1, .. })
    ));
    assert!(matches!(ops::bev_convolution(&x, weight(6), None, 0, Axis::Z), Err(Error::Value { .. })));
    assert!(matches!(
        ops::bev_convolution(&x, Tensor::ones([6, 2, 1], &device), None, 1, Axis::Z),
        Err(Error::Channels { expected: 2, found: 1, .. })
    ));
    let window = BevWindow::new([2, 2, 6]);
    assert!(matches!(
        ops::dense_bev_convolution(&x, weight(6), None, &window, Axis::Z),
        Err(Error::OutOfRange { row: 1, .. })
    ));
    assert!(matches!(
        ops::dense_bev_convolution(&x, weight(5), None, &window, Axis::Z),
        Err(Error::Shape { .. })
    ));
    assert!(matches!(
        ops::bev_height_compression(&x, &window, Axis::Z),
        Err(Error::OutOfRange { row: 1, .. })
    ));
    let flat = BevWindow::new([2, 2, 0]).with_offset([0, -1, 0]);
    assert!(matches!(ops::bev_height_compression(&x, &flat, Axis::Z), Err(Error::Value { .. })));
    let low = BevWindow::new([2, 2, 2]).with_offset([0, -1, 0]);
    assert_eq!(ops::bev_height_compression(&x, &low, Axis::Z).unwrap().dims(), [1, 2, 2, 2]);
}

#[test]
fn strides_grow_on_the_axes_that_stay() {
    let x = sparse_at(&[[0, 3, -1, 0]], Tensor::ones([1, 1], &inference()), [2; 3])
        .with_batch_counts(&[1, 0])
        .unwrap();
    let y = ops::bev_convolution(&x, Tensor::ones([1, 1, 2], &inference()), None, 2, Axis::Z).unwrap();
    assert_eq!(y.stride(), [4, 4, 2]);
    assert_eq!(coords_of(&y), [[0, 1, -1, 0]]);
    assert_eq!(y.batch_counts(), Some(&[1, 0][..]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn dense_grids_match_their_definition(coords in strategies::support(), seed in any::<u64>()) {
        let (coords, shape) = from_zero(&coords);
        let values = Seeded::new(seed).values(coords.len() * 2);
        for dtype in dtypes() {
            let x = sparse_at(&coords, tensor(&values, [coords.len(), 2], dtype, &inference()), [1; 3]);
            let expected = algebra::to_dense(&coords, &values, 2, shape).unwrap();
            assert_close(&expected, &read(&ops::to_dense(&x, shape).unwrap()), EXACT);
        }
    }

    #[test]
    fn views_from_above_match_their_definition(
        coords in strategies::support(), stride in 1u32..4, clamp in 1usize..6, seed in any::<u64>(),
    ) {
        let (coords, shape) = from_zero(&coords);
        let n = coords.len();
        let batches = coords.iter().map(|c| c[0] as usize + 1).max().unwrap_or(0);
        let mut random = Seeded::new(seed);
        let (values, bias) = (random.values(n * 2), random.values(3));
        let x = sparse_at(&coords, tensor(&values, [n, 2], DType::F32, &inference()), [1; 3]);
        for (axis, dim) in AXES {
            let (rows, expected) = bev::reduction(&coords, &values, 2, dim);
            let y = ops::bev_reduction(&x, axis).unwrap();
            prop_assert_eq!(coords_of(&y), rows);
            assert_close(&expected, &read(y.feats()), F32);

            let taps = shape[dim];
            let weight = random.values(taps * 6);
            let map = Projection { weight: &weight, bias: Some(&bias), c_in: 2, c_out: 3 };
            let device = inference();
            let weight_tensor = || tensor(&weight, [taps, 2, 3], DType::F32, &device);
            let bias_tensor = || Some(tensor(&bias, [3], DType::F32, &device));
            let y = ops::bev_convolution(&x, weight_tensor(), bias_tensor(), stride, axis).unwrap();
            let (rows, expected) = bev::convolution(&coords, &values, &map, stride, dim).unwrap();
            prop_assert_eq!(coords_of(&y), rows);
            assert_close(&expected, &read(y.feats()), F32.scaled(20.0));

            let offset = [3, -2, 1];
            let moved: Vec<Coord> = coords.iter().map(|c| [c[0], c[1] + 3, c[2] - 2, c[3] + 1]).collect();
            let x = sparse_at(&moved, tensor(&values, [n, 2], DType::F32, &device), [1; 3]);
            let extent = [shape[1], shape[2], shape[3]];
            let window = BevWindow::new(extent).with_offset(offset);
            let image = ops::dense_bev_convolution(&x, weight_tensor(), bias_tensor(), &window, axis).unwrap();
            let by_definition = Window { shape: extent, offset };
            let expected = bev::dense_convolution(&moved, &values, &map, by_definition, dim, batches).unwrap();
            assert_close(&expected, &read(&image), F32.scaled(20.0));

            let mut extent = extent;
            extent[dim - 1] = clamp;
            let window = BevWindow::new(extent).with_offset(offset);
            let image = ops::bev_height_compression(&x, &window, axis).unwrap();
            prop_assert_eq!(image.dims()[..2].to_vec(), vec![batches, clamp * 2]);
            let by_definition = Window { shape: extent, offset };
            let expected = bev::height_compression(&moved, &values, 2, by_definition, dim, batches).unwrap();
            assert_close(&expected, &read(&image), F32.scaled(20.0));
        }
    }
}

#[test]
fn gradients_are_central_differences() {
    let (coords, shape) = from_zero(&Seeded::new(2).coords(18, 2, 3));
    let n = coords.len();
    let mut random = Seeded::new(9);
    let taps = shape[3];
    let leaves = [random.values(n * 2), random.values(taps * 6), random.values(3)];
    let at = |leaf: &Tensor<1>| -> SparseTensor { sparse_at(&coords, leaf.clone().reshape([n, 2]), [1; 3]) };
    check_gradients(&leaves[..1], |l| {
        let grid = ops::to_dense(&at(&l[0]), shape).unwrap();
        grid.reshape([shape.iter().product::<usize>(), 2])
    });
    check_gradients(&leaves[..1], |l| ops::bev_reduction(&at(&l[0]), Axis::Y).unwrap().into_feats());
    check_gradients(&leaves, |l| {
        let (weight, bias) = (l[1].clone().reshape([taps, 2, 3]), l[2].clone());
        ops::bev_convolution(&at(&l[0]), weight, Some(bias), 2, Axis::Z).unwrap().into_feats()
    });
    let window = BevWindow::new([shape[1], shape[2], shape[3]]);
    check_gradients(&leaves, |l| {
        let (weight, bias) = (l[1].clone().reshape([taps, 2, 3]), l[2].clone());
        let image = ops::dense_bev_convolution(&at(&l[0]), weight, Some(bias), &window, Axis::Z).unwrap();
        let [b, c, h, w] = image.dims();
        image.reshape([b * c, h * w])
    });
    check_gradients(&leaves[..1], |l| {
        let image = ops::bev_height_compression(&at(&l[0]), &window, Axis::Z).unwrap();
        let [b, c, h, w] = image.dims();
        image.reshape([b * c, h * w])
    });
}
