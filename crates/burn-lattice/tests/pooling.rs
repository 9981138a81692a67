//! Local pooling, transposed pooling, trilinear upsampling and global pooling against their definitions by loops.
#![allow(clippy::unwrap_used, reason = "tests")]

mod harness;

use burn::tensor::{DType, Tensor};
use burn_lattice::ops::{self, ConvOptions, PoolMode, PoolOptions, Target};
use burn_lattice::{Error, KernelSpec, Result, SparseTensor, Support, SupportPolicy, trace};
use harness::*;
use lattice_testkit::offsets::Kernel;
use lattice_testkit::relations::{self, Edge};
use lattice_testkit::tolerances::{F32, PRINTED, assert_close};
use lattice_testkit::{pooling, strategies};
use proptest::prelude::*;
use rstest::rstest;

const XS: [i32; 5] = [-3, -1, 0, 1, 4];
const VALUES: [f64; 5] = [1.0, 4.0, 2.0, 2.0, 7.0];

fn pool(x: &SparseTensor, mode: PoolMode, kernel: &Kernel) -> Result<SparseTensor> {
    ops::pool3d(x, mode, &PoolOptions::new(spec(kernel)))
}

/// Single-channel features in the order of given coordinates.
fn at(y: &SparseTensor, coords: &[Coord]) -> Vec<f64> {
    let (rows, values) = (coords_of(y), read(y.feats()));
    assert_eq!(rows.len(), coords.len());
    coords.iter().map(|c| values[rows.iter().position(|r| r == c).unwrap()]).collect()
}

fn definition(mode: PoolMode, x: &[f64], c: usize, edges: &[Edge], n_out: usize) -> Vec<f64> {
    match mode {
        PoolMode::Sum => pooling::pool_sum(x, c, edges, n_out),
        PoolMode::Avg => pooling::pool_avg(x, c, edges, n_out),
        PoolMode::Max => pooling::pool_max(x, c, edges, n_out),
    }
}

#[rstest]
#[case::sum_2(PoolMode::Sum, 2, [1.0, 4.0, 4.0, 7.0])]
#[case::avg_2(PoolMode::Avg, 2, [1.0, 4.0, 2.0, 7.0])]
#[case::max_2(PoolMode::Max, 2, [1.0, 4.0, 2.0, 7.0])]
#[case::sum_3(PoolMode::Sum, 3, [1.0, 5.0, 8.0, 7.0])]
#[case::avg_3(PoolMode::Avg, 3, [1.0, 2.5, 2.666_666_7, 7.0])]
#[case::max_3(PoolMode::Max, 3, [1.0, 4.0, 4.0, 7.0])]
fn a_line_pools_to_the_worked_example(#[case] mode: PoolMode, #[case] size: u32, #[case] expected: [f64; 4]) {
    let x = sparse(&line(&XS), &VALUES, &inference());
    let spec = KernelSpec::try_new([size, 1, 1], [2, 1, 1], [0; 3], [1; 3]).unwrap();
    let y = ops::pool3d(&x, mode, &PoolOptions::new(spec)).unwrap();
    assert_eq!(y.stride(), [2, 1, 1]);
    assert_close(&expected, &at(&y, &line(&[-2, -1, 0, 2])), PRINTED);
}

#[test]
fn a_maximum_splits_its_gradient_over_ties() {
    let device = training();
    let spec = KernelSpec::try_new([2, 1, 1], [2, 1, 1], [0; 3], [1; 3]).unwrap();
    let feats = tensor(&VALUES, [5, 1], DType::F32, &device).require_grad();
    let x = sparse_at(&line(&XS), feats.clone(), [1; 3]);
    let y = ops::max_pool3d(&x, &PoolOptions::new(spec)).unwrap();
    let grads = y.into_feats().sum().backward();
    assert_close(&[1.0, 1.0, 0.5, 0.5, 1.0], &read(&feats.grad(&grads).unwrap()), PRINTED);
}

#[test]
fn transposed_pooling_averages_the_rows_that_reach_a_target() {
    let x = sparse_at(
        &line(&[-1, 0, 2]),
        tensor(&[10.0, 20.0, 40.0], [3, 1], DType::F32, &inference()),
        [2, 1, 1],
    );
    let target = support(&line(&[-3, -1, 0, 3, 8]));
    let spec = KernelSpec::try_new([3, 1, 1], [2, 1, 1], [1, 0, 0], [1; 3]).unwrap();
    let y = ops::pool_transpose3d(&x, &spec, Some(&Target::from(&target))).unwrap();
    assert!(y.support().same_identity(&target));
    assert_eq!(y.stride(), [1; 3]);
    assert_close(&[10.0, 15.0, 20.0, 40.0, 0.0], &read(y.feats()), PRINTED);
}

#[test]
fn trilinear_weights_are_shared_among_the_rows_that_exist() {
    let x = sparse_at(
        &line(&[-1, 0, 2]),
        tensor(&[10.0, 20.0, 40.0], [3, 1], DType::F32, &inference()),
        [2, 1, 1],
    );
    let target = support(&line(&[-3, -2, -1, 0, 1, 3, 6]));
    let y = ops::trilinear_upsample3d(&x, [2, 1, 1], Some(&Target::from(&target))).unwrap();
    assert_close(&[10.0, 10.0, 15.0, 20.0, 20.0, 40.0, 0.0], &read(y.feats()), PRINTED);
    let grown = ops::trilinear_upsample3d(&x, [2, 1, 1], None).unwrap();
    let rows = line(&[-3, -2, -1, 0, 1, 3, 4, 5]);
    assert_close(&[10.0, 10.0, 15.0, 20.0, 20.0, 40.0, 40.0, 40.0], &at(&grown, &rows), PRINTED);
}

#[test]
fn global_pooling_follows_the_worked_example() {
    let coords = [[0, 0, 0, 0], [0, 1, 0, 0], [2, 0, 0, 0]];
    let x = sparse(&coords, &[1.0, 3.0, 5.0], &inference());
    assert_close(&[4.0, 0.0, 5.0, 0.0], &read(&ops::global_sum_pool(&x, Some(4)).unwrap()), PRINTED);
    assert_close(&[2.0, 0.0, 5.0, 0.0], &read(&ops::global_avg_pool(&x, Some(4)).unwrap()), PRINTED);
    assert!(matches!(ops::global_max_pool(&x, Some(4)), Err(Error::Value { .. })));
    let dense = x.support().to_host().batch_rows();
    assert_eq!(dense.len(), 3);
    assert!(matches!(ops::global_max_pool(&x, None), Err(Error::Value { .. })));
}

#[test]
fn global_pooling_takes_its_batch_size_from_the_right_place() {
    let coords = [[0, 0, 0, 0], [1, 1, 0, 0]];
    let x = sparse(&coords, &[1.0, 3.0], &inference());
    assert_eq!(ops::global_sum_pool(&x, None).unwrap().dims(), [2, 1]);
    assert!(matches!(ops::global_sum_pool(&x, Some(1)), Err(Error::OutOfRange { row: 1, .. })));
    let declared = x.with_batch_counts(&[1, 1, 0]).unwrap();
    assert_eq!(ops::global_sum_pool(&declared, None).unwrap().dims(), [3, 1]);
    assert_eq!(ops::global_sum_pool(&declared, Some(3)).unwrap().dims(), [3, 1]);
    assert!(matches!(ops::global_sum_pool(&declared, Some(4)), Err(Error::Value { .. })));
    // A batch id that would ask for a row a batch item in gigabytes never becomes a support.
    assert!(matches!(Support::try_new(vec![[i32::MAX, 0, 0, 0]]), Err(Error::OutOfRange { row: 0, .. })));
    let empty = sparse_at(&[], Tensor::zeros([0, 2], &inference()), [1; 3]);
    assert_eq!(ops::global_avg_pool(&empty, None).unwrap().dims(), [0, 2]);
    assert_eq!(read(&ops::global_avg_pool(&empty, Some(2)).unwrap()), [0.0; 4]);
    assert!(matches!(ops::global_max_pool(&empty, None), Err(Error::Value { .. })));
}

#[test]
fn pooling_and_convolution_of_one_kernel_share_their_output() {
    let device = inference();
    let x = sparse(&line(&XS), &VALUES, &device);
    let spec = KernelSpec::cube(2, 2).unwrap();
    let pooled = ops::avg_pool3d(&x, &PoolOptions::new(spec)).unwrap();
    let convolved =
        ops::conv3d(&x, Tensor::ones([8, 1, 1], &device), None, &ConvOptions::new(spec), None).unwrap();
    assert!(pooled.same_coords(&convolved));
    assert_eq!(x.manager().relation_count(), 1);
    assert!(ops::max_pool3d(&x, &PoolOptions::new(KernelSpec::cube(3, 1).unwrap())).unwrap().same_coords(&x));
}

#[test]
fn batch_counts_are_recounted_after_pooling() {
    let coords = [[0, 0, 0, 0], [0, 1, 0, 0], [2, 5, 0, 0]];
    let x = sparse(&coords, &[1.0, 3.0, 5.0], &inference()).with_batch_counts(&[2, 0, 1, 0]).unwrap();
    let y = ops::max_pool3d(&x, &PoolOptions::default()).unwrap();
    assert_eq!(y.batch_counts(), Some(&[1, 0, 1, 0][..]));
}

#[test]
fn an_empty_window_is_0_and_nan_wins_a_maximum() {
    let x = sparse(&line(&[0, 3, 4]), &[-1.0, f64::NAN, -2.0], &inference());
    let spec = KernelSpec::try_new([2, 1, 1], [3, 1, 1], [0; 3], [1; 3]).unwrap();
    let y = ops::max_pool3d(&x, &PoolOptions::new(spec)).unwrap();
    let values = at(&y, &line(&[0, 1]));
    assert_eq!(values[0], -1.0);
    assert!(values[1].is_nan());
    let gaps = sparse(&line(&[2]), &[-3.0], &inference());
    let y = ops::max_pool3d(&gaps, &PoolOptions::new(spec)).unwrap();
    assert_eq!(read(y.feats()), [0.0]);
}

#[test]
fn an_empty_tensor_pools_to_an_empty_tensor() {
    let x = sparse_at(&[], Tensor::zeros([0, 3], &inference()), [2; 3]);
    for mode in [PoolMode::Sum, PoolMode::Avg, PoolMode::Max] {
        assert_eq!(ops::pool3d(&x, mode, &PoolOptions::default()).unwrap().feats().dims(), [0, 3]);
    }
    assert_eq!(ops::trilinear_upsample3d(&x, [2; 3], None).unwrap().n_rows(), 0);
}

#[test]
fn bad_arguments_are_errors() {
    let x = sparse_at(&line(&XS), tensor(&VALUES, [5, 1], DType::F32, &inference()), [2; 3]);
    assert!("median".parse::<PoolMode>().is_err());
    assert_eq!("avg".parse::<PoolMode>().unwrap(), PoolMode::Avg);
    assert!(PoolOptions::cube(0, 2).is_err());
    let options = PoolOptions {
        spec: KernelSpec { size: [2; 3], stride: [0, 2, 2], padding: [0; 3], dilation: [1; 3] },
        policy: SupportPolicy::Floor,
    };
    assert!(ops::sum_pool3d(&x, &options).is_err());
    let spec = KernelSpec::cube(3, 3).unwrap();
    assert!(matches!(ops::pool_transpose3d(&x, &spec, None), Err(Error::Value { .. })));
    assert!(matches!(ops::trilinear_upsample3d(&x, [0, 1, 1], None), Err(Error::Value { .. })));
    assert!(matches!(ops::trilinear_upsample3d(&x, [u32::MAX; 3], None), Err(Error::Limit { .. })));
    assert!(matches!(
        ops::pool_transpose3d(&x, &KernelSpec::cube(2, 2).unwrap(), Some(&Target::from(&x))),
        Err(Error::StrideMismatch { .. })
    ));
    let far = sparse_at(&line(&[0]), tensor(&[1.0], [1, 1], DType::F32, &inference()), [u32::MAX; 3]);
    assert!(matches!(ops::sum_pool3d(&far, &PoolOptions::default()), Err(Error::Limit { .. })));
}

#[test]
fn every_operation_leaves_a_record() {
    let x = sparse(&line(&XS), &VALUES, &inference());
    let (_, records) = trace::record(|| {
        let y = ops::max_pool3d(&x, &PoolOptions::default()).unwrap();
        ops::trilinear_upsample3d(&y, [2; 3], Some(&Target::from(&x))).unwrap();
        ops::global_avg_pool(&x, None).unwrap();
    });
    let kinds: Vec<_> = records.iter().map(|r| (r.kind.as_str(), r.route)).collect();
    assert_eq!(
        kinds,
        [("pool.max", "row_max"), ("upsample.trilinear", "row_mix"), ("global_pool.avg", "row_mix")]
    );
    assert_eq!((records[0].rows_in, records[0].rows_out, records[0].pairs), (5, 4, 5));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn pooling_matches_its_definition(
        coords in strategies::support(), kernel in strategies::kernel(), c in 1usize..6, seed in any::<u64>(),
    ) {
        let pairs = relations::forward(&coords, &kernel);
        for (mode, dtype) in [PoolMode::Sum, PoolMode::Avg, PoolMode::Max].into_iter().flat_map(|m| dtypes().into_iter().map(move |d| (m, d))) {
            let values = Seeded::new(seed).values(coords.len() * c);
            let x = sparse_at(&coords, tensor(&values, [coords.len(), c], dtype, &inference()), [1; 3]);
            let y = pool(&x, mode, &kernel).unwrap();
            prop_assert_eq!(coords_of(&y), pairs.target.clone());
            let expected = definition(mode, &values, c, &pairs.edges, pairs.target.len());
            // Weights of means are f32 for every element type.
            let close = if dtype == DType::F64 { F32 } else { tolerance(dtype) };
            assert_close(&expected, &read(y.feats()), close.scaled(4.0));
        }
    }

    #[test]
    fn upsampling_matches_its_definition(
        pair in strategies::support_pair(), stride in [1u32..4, 1..4, 1..3], seed in any::<u64>(),
    ) {
        let (coarse, fine) = pair;
        let kernel = pooling::trilinear_kernel(stride);
        let weights = pooling::trilinear_weights(stride);
        let values = Seeded::new(seed).values(coarse.len() * 2);
        let x = sparse_at(&coarse, tensor(&values, [coarse.len(), 2], widest(), &inference()), stride);
        let onto = relations::target_transposed(&coarse, &fine, &kernel);
        let target = Target::from(&support(&fine));
        let y = ops::trilinear_upsample3d(&x, stride, Some(&target)).unwrap();
        assert_close(&pooling::trilinear(&values, 2, &onto.edges, &weights, fine.len()), &read(y.feats()), F32);
        let y = ops::pool_transpose3d(&x, &spec(&kernel), Some(&target)).unwrap();
        assert_close(&pooling::pool_transpose(&values, 2, &onto.edges, fine.len()), &read(y.feats()), F32);
        let grown = relations::transposed(&coarse, &kernel);
        let y = ops::trilinear_upsample3d(&x, stride, None).unwrap();
        prop_assert_eq!(coords_of(&y), grown.target.clone());
        assert_close(&pooling::trilinear(&values, 2, &grown.edges, &weights, grown.target.len()), &read(y.feats()), F32);
    }

    #[test]
    fn global_pooling_matches_its_definition(coords in strategies::support(), seed in any::<u64>()) {
        let values = Seeded::new(seed).values(coords.len() * 3);
        let batch: Vec<i32> = coords.iter().map(|c| c[0]).collect();
        let items = batch.iter().max().map_or(0, |b| *b as usize + 1);
        let x = sparse(&coords, &values, &inference()).with_feats(tensor(&values, [coords.len(), 3], DType::F32, &inference())).unwrap();
        assert_close(&pooling::global_sum(&values, 3, &batch, items), &read(&ops::global_sum_pool(&x, None).unwrap()), F32.scaled(20.0));
        assert_close(&pooling::global_avg(&values, 3, &batch, items), &read(&ops::global_avg_pool(&x, None).unwrap()), F32);
        match (pooling::global_max(&values, 3, &batch, items), ops::global_max_pool(&x, None)) {
            (Some(expected), Ok(found)) => assert_close(&expected, &read(&found), F32),
            (None, Err(Error::Value { .. })) => {}
            (expected, found) => prop_assert!(false, "expected {expected:?}, found {found:?}"),
        }
    }
}

#[test]
fn gradients_are_central_differences() {
    let coords = Seeded::new(5).coords(30, 2, 4);
    let (n, fine) = (coords.len(), support(&Seeded::new(6).coords(25, 2, 8)));
    // Distinct values: a maximum has no derivative at a tie.
    let values: Vec<f64> = (0..n * 2).map(|i| ((i * 37) % (2 * n)) as f64 / 7.0).collect();
    let kernel = KernelSpec::cube(3, 2).unwrap();
    let at = |leaf: &Tensor<1>, stride| sparse_at(&coords, leaf.clone().reshape([n, 2]), stride);
    for mode in [PoolMode::Sum, PoolMode::Avg, PoolMode::Max] {
        check_gradients(std::slice::from_ref(&values), |leaves| {
            ops::pool3d(&at(&leaves[0], [1; 3]), mode, &PoolOptions::new(kernel)).unwrap().into_feats()
        });
        check_gradients(std::slice::from_ref(&values), |leaves| {
            let x = at(&leaves[0], [1; 3]);
            ops::global_pool(&x, mode, None).unwrap()
        });
    }
    check_gradients(std::slice::from_ref(&values), |leaves| {
        ops::trilinear_upsample3d(&at(&leaves[0], [2; 3]), [2; 3], Some(&Target::from(&fine)))
            .unwrap()
            .into_feats()
    });
    check_gradients(std::slice::from_ref(&values), |leaves| {
        ops::pool_transpose3d(&at(&leaves[0], [2; 3]), &kernel, None).unwrap().into_feats()
    });
}
