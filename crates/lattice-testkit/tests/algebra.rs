//! The worked examples of joins, selection, collation, dense grids and bird's-eye views.

use lattice_testkit::algebra::*;
use lattice_testkit::bev::{self, Projection, Window};
use lattice_testkit::coords::{Coord, canonical, row_of};
use lattice_testkit::gradcheck::assert_pullback;

fn line(xs: &[i32]) -> Vec<Coord> {
    xs.iter().map(|&x| [0, x, 0, 0]).collect()
}

fn a() -> (Vec<Coord>, Vec<f64>) {
    (line(&[0, 1, 2]), vec![1.0, 2.0, 3.0])
}

fn b() -> (Vec<Coord>, Vec<f64>) {
    (line(&[2, 0, 5]), vec![10.0, 20.0, 30.0])
}

/// Asserts the rows by coordinate, and their order for the joins that keep one.
#[track_caller]
fn assert_rows(found: (&[Coord], &[f64]), xs: &[i32], feats: &[f64], join: Join) {
    let c = feats.len() / xs.len();
    assert_eq!(found.0.len(), xs.len());
    for (row, x) in xs.iter().enumerate() {
        let at = row_of(found.0, &[0, *x, 0, 0]).expect("the row exists");
        assert_eq!(found.1[at * c..(at + 1) * c], feats[row * c..(row + 1) * c], "x = {x}");
    }
    let expected = if join == Join::Outer { canonical(&line(xs)) } else { line(xs) };
    assert_eq!(found.0, expected);
}

#[test]
fn alignments_give_the_worked_example() {
    let (lhs, rhs) = (line(&[0, 5]), line(&[5, 9]));
    let outer = align(&lhs, &rhs, Join::Outer);
    assert_eq!(outer.coords, canonical(&line(&[0, 5, 9])));
    assert_eq!((outer.lhs_rows, outer.rhs_rows), (vec![0, 1, -1], vec![-1, 0, 1]));
    let right = align(&lhs, &rhs, Join::Right);
    assert_eq!(right, Alignment { coords: rhs.clone(), lhs_rows: vec![1, -1], rhs_rows: vec![0, 1] });
}

#[test]
fn binary_operations_give_the_worked_example() {
    let ((a, x), (b, y)) = (a(), b());
    type Case = (Binary, Join, [f64; 2], &'static [i32], &'static [f64]);
    let table: [Case; 7] = [
        (Binary::Add, Join::Inner, [0.0; 2], &[0, 2], &[21.0, 13.0]),
        (Binary::Add, Join::Left, [0.0; 2], &[0, 1, 2], &[21.0, 2.0, 13.0]),
        (Binary::Add, Join::Right, [0.0; 2], &[2, 0, 5], &[13.0, 21.0, 30.0]),
        (Binary::Add, Join::Outer, [0.0; 2], &[0, 1, 2, 5], &[21.0, 2.0, 13.0, 30.0]),
        (Binary::Sub, Join::Outer, [0.0; 2], &[0, 1, 2, 5], &[-19.0, 2.0, -7.0, -30.0]),
        (Binary::Mul, Join::Inner, [0.0; 2], &[0, 2], &[20.0, 30.0]),
        (Binary::Mul, Join::Outer, [0.0, 1.0], &[0, 1, 2, 5], &[20.0, 2.0, 30.0, 0.0]),
    ];
    for (op, join, fills, xs, feats) in table {
        let at = align(&a, &b, join);
        let found = binary(op, &x, &y, 1, &at, fills);
        assert_rows((&at.coords, &found), xs, feats, join);
    }
}

#[test]
fn concatenation_reindexing_and_generative_addition_give_the_worked_example() {
    let ((a, x), (b, y)) = (a(), b());
    let inner = align(&a, &b, Join::Inner);
    assert_rows((&inner.coords, &cat(&x, &y, [1, 1], &inner)), &[0, 2], &[1.0, 20.0, 3.0, 10.0], Join::Inner);
    let outer = align(&a, &b, Join::Outer);
    let feats = [1.0, 20.0, 2.0, 0.0, 3.0, 10.0, 0.0, 30.0];
    assert_rows((&outer.coords, &cat(&x, &y, [1, 1], &outer)), &[0, 1, 2, 5], &feats, Join::Outer);
    assert_eq!(reindex(&a, &x, 1, &b, -1.0), [3.0, 1.0, -1.0]);

    let grown = generative_union(&a, &b);
    assert_eq!(grown.coords, line(&[0, 1, 2, 5]));
    assert_eq!(binary(Binary::Add, &x, &y, 1, &grown, [0.0; 2]), [21.0, 2.0, 13.0, 30.0]);
    assert_eq!(generative_union(&line(&[7]), &b).coords, line(&[2, 0, 5, 7]), "the larger operand leads");
}

#[test]
fn crops_give_the_worked_example() {
    let (a, _) = a();
    assert_eq!(crop_closed(&a, [1, 0, 0], [2, 0, 0]), [1, 2]);
    assert_eq!(crop_half_open(&a, Some([1, 0, 0]), Some([2, 1, 1])), [1]);
    assert_eq!(crop_half_open(&a, None, None), [0, 1, 2]);
    assert_eq!(mask_rows(&[true, false, true]), [0, 2]);
}

#[test]
fn topk_gives_the_worked_example() {
    let scores = [5.0, 1.0, 5.0, 3.0, 2.0, 9.0];
    assert_eq!(topk_rows(&scores, &[4, 2], &[2, 1], 1.0), [0, 2, 5]);
    assert_eq!(topk_rows(&scores, &[4, 2], &[2, 1], 0.5), [2]);
}

#[test]
fn collation_and_merging_give_the_worked_example() {
    let (coords, counts) = collate(&[vec![[1, 0, 0]], vec![[4, 4, 4], [5, 5, 5]]]);
    assert_eq!(coords, [[0, 1, 0, 0], [1, 4, 4, 4], [1, 5, 5, 5]]);
    assert_eq!(counts, [1, 2]);
    let (kept, mean) = mean_duplicates(&line(&[0, 1, 0]), &[1.0, 5.0, 3.0], 1);
    assert_eq!((kept, mean), (line(&[0, 1]), vec![2.0, 5.0]));
}

#[test]
fn dense_grids_are_row_major_and_bounded() {
    let coords = [[0, 0, 0, 1], [1, 1, 0, 0]];
    let grid = to_dense(&coords, &[1.0, 2.0, 3.0, 4.0], 2, [2, 2, 1, 2]).expect("inside");
    assert_eq!(grid.len(), 16);
    assert_eq!((&grid[2..4], &grid[12..14]), (&[1.0, 2.0][..], &[3.0, 4.0][..]));
    assert_eq!(grid.iter().sum::<f64>(), 10.0);
    assert_eq!(to_dense(&[[0, -1, 0, 0]], &[1.0], 1, [1, 2, 2, 2]), None);
}

#[test]
fn binary_gradients_agree_with_central_differences() {
    let ((a, x), (b, y)) = (a(), b());
    for op in Binary::ALL {
        for join in Join::ALL {
            let (at, fills) = (align(&a, &b, join), [0.5, 1.5]);
            let g: Vec<f64> = (0..at.coords.len()).map(|row| row as f64 - 0.7).collect();
            let (da, db) = binary_grads(op, &x, &y, &g, 1, &at, fills);
            assert_pullback(|x| binary(op, x, &y, 1, &at, fills), &x, &g, &da);
            assert_pullback(|y| binary(op, &x, y, 1, &at, fills), &y, &g, &db);
        }
    }
    assert_eq!(Binary::Maximum.derivatives(2.0, 2.0), (0.5, 0.5));
}

#[test]
fn bird_eye_views_drop_the_column() {
    let coords = [[0, 1, 0, 0], [0, 1, 0, 2], [0, 3, 1, 1]];
    let x = [1.0, 3.0, 10.0];
    assert_eq!(bev::reduction(&coords, &x, 1, 3), (vec![[0, 1, 0, 0], [0, 3, 1, 0]], vec![2.0, 10.0]));
    // weights 1, 10, 100 for z = 0, 1, 2
    let map = Projection { weight: &[1.0, 10.0, 100.0], bias: Some(&[0.5]), c_in: 1, c_out: 1 };
    let (flat, y) = bev::convolution(&coords, &x, &map, 2, 3).expect("inside");
    assert_eq!((flat, y), (vec![[0, 0, 0, 0], [0, 1, 0, 0]], vec![302.0, 100.5]));
    assert_eq!(bev::convolution(&[[0, 0, 0, 3]], &x, &map, 1, 3), None);

    let window = Window { shape: [2, 2, 3], offset: [1, 0, 0] };
    let inside = &coords[..2];
    let grid = bev::dense_convolution(inside, &x, &map, window, 3, 1).expect("inside");
    assert_eq!(grid, [302.0, 0.0, 0.0, 0.0]);
    assert_eq!(bev::dense_convolution(&coords, &x, &map, window, 3, 1), None, "x = 3 is the third cell");
    let folded = bev::height_compression(inside, &x, 1, Window { shape: [2, 2, 2], ..window }, 3, 1);
    assert_eq!(folded, Some(vec![1.0, 0.0, 0.0, 0.0, 3.0, 0.0, 0.0, 0.0]), "z = 2 is clamped to 1");
}
