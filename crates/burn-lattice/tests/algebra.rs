//! Joins, element-wise operations, concatenation and reindexing against their definitions by loops.
#![allow(clippy::unwrap_used, reason = "tests")]

mod harness;

use burn::tensor::{DType, Tensor};
use burn_lattice::ops::{self, BinaryOp, JoinOptions};
use burn_lattice::{Error, Join, Result, SparseTensor};
use harness::*;
use lattice_testkit::algebra::{self as oracle, Binary};
use lattice_testkit::strategies;
use lattice_testkit::tolerances::{EXACT, PRINTED, assert_close};
use proptest::prelude::*;
use rstest::rstest;

fn a() -> SparseTensor {
    sparse(&line(&[0, 1, 2]), &[1.0, 2.0, 3.0], &inference())
}

fn b() -> SparseTensor {
    sparse(&line(&[2, 0, 5]), &[10.0, 20.0, 30.0], &inference())
}

/// Rows and features of a result by ascending x.
fn by_x(y: &SparseTensor) -> (Vec<i32>, Vec<f64>) {
    let (values, c) = (read(y.feats()), y.channels());
    let mut rows: Vec<(i32, &[f64])> = coords_of(y).iter().map(|c| c[1]).zip(values.chunks(c)).collect();
    rows.sort_by_key(|row| row.0);
    (rows.iter().map(|r| r.0).collect(), rows.iter().flat_map(|r| r.1).copied().collect())
}

fn oracle_join(join: Join) -> oracle::Join {
    match join {
        Join::Inner => oracle::Join::Inner,
        Join::Left => oracle::Join::Left,
        Join::Right => oracle::Join::Right,
        Join::Outer => oracle::Join::Outer,
    }
}

const OPS: [(BinaryOp, Binary); 5] = [
    (BinaryOp::Add, Binary::Add),
    (BinaryOp::Sub, Binary::Sub),
    (BinaryOp::Mul, Binary::Mul),
    (BinaryOp::Maximum, Binary::Maximum),
    (BinaryOp::Minimum, Binary::Minimum),
];

const JOINS: [Join; 4] = [Join::Inner, Join::Left, Join::Right, Join::Outer];

#[rstest]
#[case::add_inner(BinaryOp::Add, JoinOptions::new(Join::Inner), &[0, 2], &[21.0, 13.0])]
#[case::add_left(BinaryOp::Add, JoinOptions::new(Join::Left), &[0, 1, 2], &[21.0, 2.0, 13.0])]
#[case::add_right(BinaryOp::Add, JoinOptions::new(Join::Right), &[0, 2, 5], &[21.0, 13.0, 30.0])]
#[case::add_outer(BinaryOp::Add, JoinOptions::new(Join::Outer), &[0, 1, 2, 5], &[21.0, 2.0, 13.0, 30.0])]
#[case::sub_outer(BinaryOp::Sub, JoinOptions::new(Join::Outer), &[0, 1, 2, 5], &[-19.0, 2.0, -7.0, -30.0])]
#[case::mul_inner(BinaryOp::Mul, JoinOptions::new(Join::Inner), &[0, 2], &[20.0, 30.0])]
#[case::mul_outer(BinaryOp::Mul, JoinOptions::new(Join::Outer).with_fills(0.0, 1.0), &[0, 1, 2, 5], &[20.0, 2.0, 30.0, 0.0])]
#[case::maximum_outer(BinaryOp::Maximum, JoinOptions::new(Join::Outer), &[0, 1, 2, 5], &[20.0, 2.0, 10.0, 30.0])]
#[case::minimum_inner(BinaryOp::Minimum, JoinOptions::new(Join::Inner), &[0, 2], &[1.0, 3.0])]
fn joins_give_the_worked_examples(
    #[case] op: BinaryOp,
    #[case] options: JoinOptions,
    #[case] xs: &[i32],
    #[case] values: &[f64],
) {
    let y = ops::sparse_binary(&a(), &b(), op, options).unwrap();
    assert_eq!(by_x(&y), (xs.to_vec(), values.to_vec()));
}

#[test]
fn operators_use_the_usual_joins() {
    let (a, b) = (a(), b());
    assert_eq!(by_x(&(&a + &b)).1, [21.0, 2.0, 13.0, 30.0]);
    assert_eq!(by_x(&(&a - b.clone())).1, [-19.0, 2.0, -7.0, -30.0]);
    assert_eq!(by_x(&(a.clone() * &b)).1, [20.0, 30.0]);
    assert_eq!(by_x(&(a.clone() & b.clone())).1, [20.0, 30.0]);
}

#[test]
#[should_panic(expected = "sparse_add: expected tensor stride")]
fn an_operator_panics_with_the_text_of_the_error() {
    let _ = &a() + &a().with_stride([2; 3]).unwrap();
}

#[test]
fn joins_come_in_the_documented_order_and_identity() {
    let (a, b) = (a(), b());
    assert!(ops::sparse_add(&a, &b, Join::Left).unwrap().same_coords(&a));
    let right = ops::sparse_add(&a, &b, Join::Right).unwrap();
    assert!(right.same_coords(&b));
    assert_close(&[13.0, 21.0, 30.0], &read(right.feats()), EXACT);
    let alignment = ops::align_sparse(&b, &a, Join::Inner).unwrap();
    assert_eq!(alignment.support.to_host().coords(), line(&[2, 0]));
    assert_eq!((alignment.lhs_rows(), alignment.rhs_rows()), (vec![0, 1], vec![2, 0]));
    let outer = ops::align_sparse(&a, &b, Join::Outer).unwrap();
    assert!(outer.support.to_host().is_canonical());
    let found = ops::gather_aligned_features(b.feats().clone(), &outer.rhs, -1.0).unwrap();
    assert_eq!(read(&found).iter().filter(|v| **v == -1.0).count(), 1);
}

#[test]
fn one_identity_is_combined_directly() {
    let a = a().with_batch_counts(&[3, 0]).unwrap();
    let doubled = a.with_feats(a.feats().clone() * 2.0).unwrap();
    let y =
        ops::sparse_binary(&a, &doubled, BinaryOp::Add, JoinOptions::new(Join::Outer).with_fills(9.0, 9.0))
            .unwrap();
    assert!(y.same_coords(&a) && y.manager().same_manager(a.manager()));
    assert_eq!(y.batch_counts(), Some(&[3, 0][..]));
    assert_eq!(read(y.feats()), [3.0, 6.0, 9.0]);
    assert_eq!(a.manager().report().joins, 0);
    let other_stride = a.with_stride([2; 3]).unwrap();
    assert!(matches!(ops::sparse_add(&a, &other_stride, Join::Inner), Err(Error::StrideMismatch { .. })));
}

#[test]
fn equal_rows_take_no_join() {
    let (a, copy) = (a(), a());
    for join in JOINS {
        let y = ops::sparse_add(&a, &copy, join).unwrap();
        assert_eq!(read(y.feats()), [2.0, 4.0, 6.0]);
        assert!(y.same_coords(if join == Join::Right { &copy } else { &a }));
    }
    assert_eq!(a.manager().report().joins, 0);
    let (c, d) = (b(), b());
    let y = ops::sparse_add(&c, &d, Join::Outer).unwrap();
    assert!(y.support().to_host().is_canonical(), "an outer join is canonical whatever path it takes");
    assert_eq!(by_x(&y), (vec![0, 2, 5], vec![40.0, 20.0, 60.0]));
}

#[test]
fn batch_counts_are_recounted_where_both_sides_have_as_many_items() {
    let a = sparse(&[[0, 0, 0, 0], [1, 0, 0, 0]], &[1.0, 2.0], &inference());
    let b = sparse(&[[0, 0, 0, 0], [0, 1, 0, 0]], &[1.0, 2.0], &inference());
    assert_eq!(ops::sparse_add(&a, &b, Join::Outer).unwrap().batch_counts(), None);
    let (a, b) = (a.with_batch_counts(&[1, 1]).unwrap(), b.with_batch_counts(&[2, 0]).unwrap());
    assert_eq!(ops::sparse_add(&a, &b, Join::Outer).unwrap().batch_counts(), Some(&[2, 1][..]));
    assert_eq!(ops::sparse_add(&a, &b, Join::Inner).unwrap().batch_counts(), Some(&[1, 0][..]));
}

#[test]
fn a_nan_in_row_0_does_not_leak_into_missing_rows() {
    let a = sparse(&line(&[7, 1]), &[f64::NAN, 2.0], &inference());
    let b = sparse(&line(&[3]), &[5.0], &inference());
    let y = ops::sparse_binary(&a, &b, BinaryOp::Add, JoinOptions::new(Join::Outer).with_fills(4.0, 0.5))
        .unwrap();
    let (xs, values) = by_x(&y);
    assert_eq!(xs, [1, 3, 7]);
    assert_eq!(values[..2], [2.5, 9.0]);
    assert!(values[2].is_nan());
    let y = ops::sparse_add(&a, &b, Join::Right).unwrap();
    assert_eq!(read(y.feats()), [5.0]);
    let y = ops::reindex_sparse(&a, &b, 0.0).unwrap();
    assert_eq!(read(y.feats()), [0.0]);
}

#[test]
fn a_nan_wins_maximum_and_minimum_and_infinities_stay() {
    let x = |values: &[f64]| sparse(&line(&[0, 1, 2, 3]), values, &inference());
    let (a, b) =
        (x(&[f64::NAN, 1.0, f64::INFINITY, 3.0]), x(&[1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY]));
    let largest = read(ops::sparse_maximum(&a, &b, Join::Inner).unwrap().feats());
    assert!(largest[0].is_nan() && largest[1].is_nan());
    assert_eq!(largest[2..], [f64::INFINITY, 3.0]);
    let smallest = read(ops::sparse_minimum(&a, &b, Join::Inner).unwrap().feats());
    assert!(smallest[0].is_nan() && smallest[1].is_nan());
    assert_eq!(smallest[2..], [f64::INFINITY, f64::NEG_INFINITY]);
}

#[test]
fn ties_share_the_gradient_of_maximum_and_minimum() {
    let device = training();
    for op in [BinaryOp::Maximum, BinaryOp::Minimum] {
        let a = tensor(&[1.0, 2.0, 3.0], [3, 1], DType::F32, &device).require_grad();
        let b = tensor(&[1.0, 5.0, 0.0], [3, 1], DType::F32, &device).require_grad();
        let coords = line(&[0, 1, 2]);
        let y = ops::sparse_binary(
            &sparse_at(&coords, a.clone(), [1; 3]),
            &sparse_at(&coords, b.clone(), [1; 3]),
            op,
            Join::Inner,
        );
        let grads = y.unwrap().into_feats().sum().backward();
        let larger = [[0.5, 0.0, 1.0], [0.5, 1.0, 0.0]];
        let [to_a, to_b] = if op == BinaryOp::Maximum { larger } else { [larger[1], larger[0]] };
        assert_close(&to_a, &read(&a.grad(&grads).unwrap()), EXACT);
        assert_close(&to_b, &read(&b.grad(&grads).unwrap()), EXACT);
    }
}

#[test]
fn concatenation_gives_the_worked_examples() {
    let inner = ops::cat(&[a(), b()], Join::Inner).unwrap();
    assert_eq!(by_x(&inner), (vec![0, 2], vec![1.0, 20.0, 3.0, 10.0]));
    let outer = ops::cat(&[&a(), &b()], Join::Outer).unwrap();
    assert_eq!(by_x(&outer), (vec![0, 1, 2, 5], vec![1.0, 20.0, 2.0, 0.0, 3.0, 10.0, 0.0, 30.0]));
    let a = a();
    let same = ops::cat(&[a.clone(), a.clone(), a.clone()], Join::Inner).unwrap();
    assert!(same.same_coords(&a));
    assert_eq!(same.channels(), 3);
    let folded = ops::cat(&[a.clone(), b(), a.clone()], Join::Outer).unwrap();
    assert_eq!(by_x(&folded).1, [1.0, 20.0, 1.0, 2.0, 0.0, 2.0, 3.0, 10.0, 3.0, 0.0, 30.0, 0.0]);
    assert!(ops::cat(&[&a], Join::Left).unwrap().same_coords(&a));
    assert!(matches!(ops::cat::<SparseTensor>(&[], Join::Inner), Err(Error::Shape { .. })));
}

#[test]
fn reindexing_takes_the_targets_rows() {
    let (a, b) = (a(), b().with_batch_counts(&[3]).unwrap());
    let y = ops::reindex_sparse(&a, &b, -1.0).unwrap();
    assert_eq!(read(y.feats()), [3.0, 1.0, -1.0]);
    assert!(y.same_coords(&b) && y.manager().same_manager(b.manager()));
    assert_eq!(y.batch_counts(), Some(&[3][..]));
    let same = ops::reindex_sparse(&a, &a.with_feats(b.feats().clone()).unwrap(), -1.0).unwrap();
    assert_eq!(read(same.feats()), [1.0, 2.0, 3.0]);
    assert!(matches!(
        ops::reindex_sparse(&a, &b.with_stride([2; 3]).unwrap(), 0.0),
        Err(Error::StrideMismatch { .. })
    ));
}

#[test]
fn generative_addition_keeps_the_larger_operands_rows_first() {
    let y = ops::generative_add(&a(), &b()).unwrap();
    assert_eq!(coords_of(&y), line(&[0, 1, 2, 5]));
    assert_eq!(read(y.feats()), [21.0, 2.0, 13.0, 30.0]);
    let longer = sparse(&line(&[9, 0, 5, 4]), &[1.0, 2.0, 3.0, 4.0], &inference());
    let y = ops::generative_add(&b(), &longer).unwrap();
    assert_eq!(coords_of(&y), line(&[9, 0, 5, 4, 2]));
    assert_eq!(read(y.feats()), [1.0, 22.0, 33.0, 4.0, 10.0]);
    let (a, copy) = (a(), a());
    assert!(ops::generative_add(&a, &copy).unwrap().same_coords(&a));
}

#[test]
fn operands_that_do_not_fit_are_errors() {
    let a = a();
    let wide = sparse(&line(&[0]), &[1.0, 2.0], &inference());
    assert!(matches!(
        ops::sparse_add(&a, &wide, Join::Outer),
        Err(Error::Channels { expected: 1, found: 2, .. })
    ));
    let half = a.astype(burn::tensor::FloatDType::F16);
    assert!(matches!(ops::sparse_add(&a, &half, Join::Outer), Err(Error::Dtype { .. })));
    assert!(matches!(ops::cat(&[&a, &half], Join::Outer), Err(Error::Dtype { .. })));
    let coarse = a.with_stride([1, 2, 1]).unwrap();
    assert!(matches!(ops::align_sparse(&a, &coarse, Join::Inner), Err(Error::StrideMismatch { .. })));
    let map = ops::align_sparse(&a, &b(), Join::Inner).unwrap().lhs;
    assert!(matches!(
        ops::gather_aligned_features(wide.feats().clone(), &map, 0.0),
        Err(Error::Shape { .. })
    ));
    assert!("divide".parse::<BinaryOp>().is_err() && "cross".parse::<Join>().is_err());
}

#[test]
fn empty_operands_are_legal() {
    let empty = sparse_at(&[], Tensor::zeros([0, 1], &inference()), [1; 3]);
    for (op, _) in OPS {
        assert_eq!(ops::sparse_binary(&a(), &empty, op, Join::Inner).unwrap().n_rows(), 0);
        assert_eq!(ops::sparse_binary(&empty, &a(), op, Join::Outer).unwrap().n_rows(), 3);
        assert_eq!(ops::sparse_binary(&empty, &empty, op, Join::Outer).unwrap().n_rows(), 0);
    }
    assert_eq!(ops::cat(&[&empty, &a()], Join::Right).unwrap().feats().dims(), [3, 2]);
    assert_eq!(ops::cat(&[&empty, &empty], Join::Right).unwrap().feats().dims(), [0, 2]);
    assert_eq!(read(ops::reindex_sparse(&empty, &a(), 2.0).unwrap().feats()), [2.0; 3]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn joined_operations_match_their_definition(
        pair in strategies::support_pair(), c in 1usize..5, seed in any::<u64>(), fills in [-2i8..3, -2..3],
    ) {
        let (left, right) = pair;
        let mut random = Seeded::new(seed);
        let (x, y) = (random.values(left.len() * c), random.values(right.len() * c));
        let fills = fills.map(f64::from);
        for dtype in dtypes() {
            let lhs = sparse_at(&left, tensor(&x, [left.len(), c], dtype, &inference()), [1; 3]);
            let rhs = sparse_at(&right, tensor(&y, [right.len(), c], dtype, &inference()), [1; 3]);
            for join in JOINS {
                let rows = oracle::align(&left, &right, oracle_join(join));
                for (op, by_definition) in OPS {
                    let options = JoinOptions::new(join).with_fills(fills[0] as f32, fills[1] as f32);
                    let found = ops::sparse_binary(&lhs, &rhs, op, options).unwrap();
                    prop_assert_eq!(coords_of(&found), rows.coords.clone());
                    let expected = oracle::binary(by_definition, &x, &y, c, &rows, fills);
                    assert_close(&expected, &read(found.feats()), tolerance(dtype));
                }
                let found = ops::cat(&[&lhs, &rhs], join).unwrap();
                assert_close(&oracle::cat(&x, &y, [c, c], &rows), &read(found.feats()), EXACT);
            }
            let found = ops::generative_add(&lhs, &rhs).unwrap();
            let rows = oracle::generative_union(&left, &right);
            prop_assert_eq!(coords_of(&found), rows.coords.clone());
            assert_close(&oracle::binary(Binary::Add, &x, &y, c, &rows, [0.0; 2]), &read(found.feats()), tolerance(dtype));
            let found = ops::reindex_sparse(&lhs, &rhs, 0.5).unwrap();
            assert_close(&oracle::reindex(&left, &x, c, &right, 0.5), &read(found.feats()), EXACT);
        }
    }
}

#[test]
fn gradients_are_central_differences() {
    let mut random = Seeded::new(8);
    let left = random.coords(20, 2, 3);
    let mut right = random.coords(12, 2, 3);
    right.extend(left.iter().skip(7).filter(|c| !right.contains(c)).copied().collect::<Vec<_>>());
    let (n, m) = (left.len(), right.len());
    // Never equal: a maximum has no derivative at a tie.
    let leaves = [random.values(n * 2), random.values(m * 2).iter().map(|v| v + 1.0 / 128.0).collect()];
    let operands = |leaves: &[Tensor<1>]| {
        let lhs = sparse_at(&left, leaves[0].clone().reshape([n, 2]), [1; 3]);
        (lhs, sparse_at(&right, leaves[1].clone().reshape([m, 2]), [1; 3]))
    };
    let check = |f: &dyn Fn(&SparseTensor, &SparseTensor) -> Result<SparseTensor>| {
        check_gradients(&leaves, |leaves| {
            let (lhs, rhs) = operands(leaves);
            f(&lhs, &rhs).unwrap().into_feats()
        });
    };
    for join in JOINS {
        for (op, _) in OPS {
            check(&|a, b| ops::sparse_binary(a, b, op, JoinOptions::new(join).with_fills(0.25, 0.75)));
        }
        check(&|a, b| ops::cat(&[a, b], join));
    }
    check(&ops::generative_add);
    check(&|a, b| ops::sparse_add(&ops::reindex_sparse(a, b, 0.0)?, b, Join::Left));
}

#[test]
fn a_repeated_join_is_found_again() {
    let (a, b) = (a(), b());
    let first = ops::sparse_add(&a, &b, Join::Outer).unwrap();
    let again = ops::sparse_mul(&a, &b, Join::Outer).unwrap();
    assert!(first.same_coords(&again), "two operations of one join share their rows");
    assert_close(&[20.0, 0.0, 30.0, 0.0], &by_x(&again).1, PRINTED);
    assert_eq!(a.manager().report().joins, 1);
}
