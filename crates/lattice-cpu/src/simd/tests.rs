#![allow(clippy::unwrap_used, reason = "tests")]

use half::{bf16, f16};
use rayon::prelude::*;

use super::{Engine, IntEngine, IntProduct, Outer, Product, scalar, split_tiles};
use crate::Isa;

fn engines() -> Vec<Engine> {
    Isa::ALL.into_iter().filter_map(Engine::new).collect()
}

fn ramp(n: usize) -> Vec<f32> {
    (0..n).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect()
}

#[test]
fn products_equal_their_scalar_twin() {
    for engine in engines() {
        for vectors in 1..=engine.max_vectors() {
            for pairs in 1..40 {
                for k in [1, 4, 7] {
                    let n = vectors * engine.lanes();
                    let (x, b) = (ramp(50 * (k + 3)), ramp(k * n));
                    let rows: Vec<u32> = (0..pairs).map(|p| p * 7 % 50).collect();
                    let out_local: Vec<u16> = (0..pairs as u16).map(|p| pairs as u16 - 1 - p).collect();
                    let (rows, out_local) = (&rows[..], &out_local[..]);
                    let tile_stride = n + engine.lanes();
                    let product = Product {
                        x: &x,
                        stride: k + 3,
                        at: 2,
                        rows,
                        out_local,
                        b: &b,
                        k,
                        vectors,
                        tile_stride,
                        tile_at: engine.lanes(),
                    };
                    let mut tile = ramp(pairs as usize * tile_stride);
                    let mut twin = tile.clone();
                    engine.product(&product, &mut tile);
                    scalar::product(&product, engine.lanes(), &mut twin);
                    for (found, expected) in tile.iter().zip(&twin) {
                        assert!((found - expected).abs() < 1e-5, "{engine:?} {vectors} {pairs} {k}");
                    }
                }
            }
        }
    }
}

#[test]
fn outer_sums_equal_their_scalar_twin() {
    for engine in engines() {
        for vectors in 1..=engine.max_vectors() {
            for pairs in [1, 3, 20] {
                for k in 1..40 {
                    let n = vectors * engine.lanes();
                    let g_stride = n + engine.lanes();
                    let (x, g) = (ramp(30 * (k + 1)), ramp(30 * g_stride));
                    let at = engine.lanes();
                    let x_rows: Vec<u32> = (0..pairs).map(|p| p * 7 % 30).collect();
                    let g_rows: Vec<u16> = (0..pairs as u16).map(|p| p * 11 % 30).collect();
                    let outer = Outer {
                        x: &x,
                        x_stride: k + 1,
                        x_at: 1,
                        x_rows: &x_rows,
                        g: &g,
                        g_stride,
                        g_at: at,
                        g_rows: &g_rows,
                        sum_stride: g_stride,
                        sum_at: at,
                        k,
                        vectors,
                    };
                    let mut sum = ramp(k * g_stride);
                    let mut twin = sum.clone();
                    engine.outer(&outer, &mut sum);
                    scalar::outer(&outer, engine.lanes(), &mut twin);
                    for (found, expected) in sum.iter().zip(&twin) {
                        assert!((found - expected).abs() < 1e-4, "{engine:?} {vectors} {pairs} {k}");
                    }
                }
            }
        }
    }
}

#[test]
fn products_of_bytes_equal_their_scalar_twin() {
    for engine in engines().into_iter().map(IntEngine::new) {
        for vectors in 1..=engine.max_vectors() {
            for pairs in 1..40 {
                for quads in [1, 4, 7] {
                    let n = vectors * engine.lanes();
                    let byte = |i: usize| (i * 89 % 256) as u8;
                    let x: Vec<u8> = (0..50 * (4 * quads + 8)).map(byte).collect();
                    let b: Vec<u32> = (0..quads * n).map(|i| (i as u32).wrapping_mul(0x9e37_79b9)).collect();
                    let begin: Vec<i32> = (0..n as i32).map(|j| j * 1001 - 7000).collect();
                    let rows: Vec<u32> = (0..pairs).map(|p| p * 7 % 50).collect();
                    let out_local: Vec<u16> = (0..pairs as u16).map(|p| pairs as u16 - 1 - p).collect();
                    let (scales, offsets, sums) = (ramp(n), ramp(n), ramp(100));
                    let tile_stride = n + engine.lanes();
                    let product = IntProduct {
                        x: &x,
                        stride: 4 * quads + 8,
                        at: 4,
                        rows: &rows,
                        out_local: &out_local,
                        b: &b,
                        quads,
                        vectors,
                        begin: &begin,
                        scales: &scales,
                        offsets: &offsets,
                        sums: &sums,
                        sum_stride: 2,
                        sum_at: 1,
                        tile_stride,
                        tile_at: engine.lanes(),
                    };
                    let mut tile = ramp(pairs as usize * tile_stride);
                    let mut twin = tile.clone();
                    engine.product(&product, &mut tile);
                    scalar::int_product(&product, engine.lanes(), &mut twin);
                    for (found, expected) in tile.iter().zip(&twin) {
                        let allowed = 1e-6 * expected.abs().max(1.0);
                        assert!((found - expected).abs() <= allowed, "{engine:?} {vectors} {pairs} {quads}");
                    }
                }
            }
        }
    }
}

#[test]
#[should_panic(expected = "outside the features")]
fn a_row_outside_the_features_is_refused() {
    let product = Product {
        x: &[0.0; 8],
        stride: 4,
        at: 0,
        rows: &[2],
        out_local: &[0],
        b: &[0.0; 64],
        k: 4,
        vectors: 1,
        tile_stride: 16,
        tile_at: 0,
    };
    Engine::Scalar.product(&product, &mut [0.0; 16]);
}

#[test]
fn every_f16_widens_exactly_and_comes_back() {
    let all: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).collect();
    for engine in engines() {
        let mut wide = vec![0.0; all.len()];
        engine.widen_f16(&all, &mut wide);
        let mut back = vec![f16::ZERO; all.len()];
        engine.narrow_f16(&wide, &mut back);
        for ((half, wide), back) in all.iter().zip(&wide).zip(&back) {
            assert!(
                half.is_nan() && wide.is_nan() && back.is_nan() || half.to_f32() == *wide && half == back,
                "{half:?}"
            );
        }
    }
}

#[test]
fn narrowing_rounds_to_nearest_even_and_keeps_nan() {
    let values: Vec<f32> = (0..200_000u32)
        .map(|i| f32::from_bits(i.wrapping_mul(0x9e37_79b9)))
        .chain([
            f32::INFINITY,
            f32::NAN,
            f32::from_bits(0x7f80_0001),
            f32::MAX,
            65519.9,
            65520.0,
            1.0 + 1.0 / 256.0,
        ])
        .collect();
    for engine in engines() {
        let (mut halves, mut brains) = (vec![f16::ZERO; values.len()], vec![bf16::ZERO; values.len()]);
        engine.narrow_f16(&values, &mut halves);
        engine.narrow_bf16(&values, &mut brains);
        let mut wide = vec![0.0; values.len()];
        engine.widen_bf16(&brains, &mut wide);
        for (i, &value) in values.iter().enumerate() {
            let (half, brain) = (f16::from_f32(value), bf16::from_f32(value));
            assert!(half == halves[i] || half.is_nan() && halves[i].is_nan(), "{engine:?} {value}");
            assert!(brain == brains[i] || brain.is_nan() && brains[i].is_nan(), "{engine:?} {value}");
            assert!(wide[i] == brains[i].to_f32() || wide[i].is_nan(), "{engine:?} {value}");
        }
    }
}

#[test]
fn miri_tiles_are_disjoint_and_cover_the_matrix() {
    let (rows, width) = (7, 10);
    let mut matrix = vec![0u32; rows * width];
    let columns = [0..3, 3..4, 6..10];
    let tiles = split_tiles(&mut matrix, width, 3, &columns);
    assert_eq!(tiles.len(), 9);
    tiles.into_par_iter().enumerate().for_each(|(i, mut tile)| {
        for row in 0..tile.rows() {
            for v in tile.row_mut(row) {
                *v += i as u32 + 1;
            }
        }
    });
    for (at, &v) in matrix.iter().enumerate() {
        let (row, col) = (at / width, at % width);
        let expected =
            columns.iter().position(|c| c.contains(&col)).map_or(0, |c| (row / 3 * 3 + c) as u32 + 1);
        assert_eq!(v, expected, "row {row} column {col}");
    }
}

#[test]
#[should_panic(expected = "column ranges overlap")]
fn overlapping_columns_are_refused() {
    split_tiles(&mut [0u8; 20], 10, 1, &[0..5, 4..10]);
}
