//! Points, the voxels that hold them and the voxels around them, against `lattice-core`, value for value and on every device.
#![cfg(feature = "cubecl")]
#![allow(clippy::unwrap_used, reason = "tests")]

mod harness;

use harness::{Numbers, devices, upload_support};
use lattice_core::{
    Coord, Error, Interpolation, NonFinite, RowEntries, RowMap, Support, VoxelGrid, point_voxel_map,
    quantize as quantize_on_host,
};
use lattice_gpu::index::BlockIndex;
use lattice_gpu::points::{Calculation, Quantized, Voxels, calculate, point_corners, quantize};
use lattice_gpu::rows::DeviceRowMap;
use lattice_gpu::{Buffer, Gpu};

type Point = [f32; 3];

/// Numbers that arithmetic gets wrong most easily, and random ones of every size.
fn hard_numbers(numbers: &mut Numbers, n: usize) -> Vec<f32> {
    let mut found =
        vec![0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 0.05, 0.1, 0.3, f32::MIN_POSITIVE, f32::MAX, f32::MIN];
    found.extend(
        [1u32, 2, 3, 0x7F_FFFF, 0x80_0001, 0x3F80_0001, 0x3F7F_FFFF, 0x4B00_0001].map(f32::from_bits),
    );
    while found.len() < n {
        let bits = numbers.next() as u32;
        let value = match numbers.below(4) {
            // Any number.
            0 => f32::from_bits(bits),
            // Denormal and nearly so.
            1 => f32::from_bits(bits & 0x81FF_FFFF),
            // Near 1, with few and with many bits.
            2 => f32::from_bits(bits & 0x807F_F000 | 0x3F80_0000),
            _ => f32::from_bits(bits & 0x807F_FFFF | (0x3D + bits / 7 % 6) << 23 | 0x4000_0000),
        };
        if value.is_finite() {
            found.push(value);
        }
    }
    found
}

fn assert_bits(what: &str, [a, b]: [&[f32]; 2], found: &[u32], expected: impl Fn(f32, f32) -> f32) {
    for ((&a, &b), &found) in a.iter().zip(b).zip(found) {
        let expected = expected(a, b);
        assert_eq!(found, expected.to_bits(), "{what}: {a:e}, {b:e} gives {expected:e}");
    }
}

#[test]
fn arithmetic_in_integers_has_the_bits_of_the_host() {
    for (device, gpu) in devices() {
        let mut numbers = Numbers(17);
        let (mut a, mut b) = (hard_numbers(&mut numbers, 40_000), hard_numbers(&mut numbers, 40_000));
        // All pairs of the special ones, and pairs a few units in the last place apart.
        for i in 0..20 {
            for j in 0..20 {
                a.push(a[i]);
                b.push(b[j]);
            }
        }
        for i in 0..5000 {
            let near = f32::from_bits(a[i].to_bits().wrapping_add(numbers.below(9) as u32).wrapping_sub(4));
            if near.is_finite() {
                a.push(a[i]);
                b.push(near);
            }
        }
        let (there_a, there_b) = (gpu.upload(&a), gpu.upload(&b));
        let differences = calculate(&gpu, [&there_a, &there_b], 0, Calculation::Difference);
        assert_bits(&format!("difference on {device}"), [&a, &b], &gpu.download(&differences), |a, b| a - b);

        b.iter_mut().filter(|b| **b == 0.0).for_each(|b| *b = 0.3);
        let there_b = gpu.upload(&b);
        // Estimates that are off as no device's are.
        for nudge in [0, 1, -1, 7, -60, 60] {
            let quotients = calculate(&gpu, [&there_a, &there_b], nudge, Calculation::Quotient);
            let what = format!("quotient with an estimate off by {nudge} on {device}");
            assert_bits(&what, [&a, &b], &gpu.download(&quotients), |a, b| a / b);
        }

        a.extend([
            2_147_483_648.0,
            -2_147_483_648.0,
            2_147_483_520.0,
            -2_147_483_904.0,
            8_388_607.5,
            -8_388_607.5,
        ]);
        a.extend([f32::INFINITY, f32::NEG_INFINITY, f32::NAN]);
        let there_a = gpu.upload(&a);
        let floors: Vec<u32> = gpu.download(&calculate(&gpu, [&there_a, &there_a], 0, Calculation::Floor));
        for (at, &value) in a.iter().enumerate() {
            let inside = (-2_147_483_648.0..2_147_483_648.0).contains(&value);
            assert_eq!(floors[a.len() + at] == 1, inside, "floor of {value:e} on {device}");
            assert!(!inside || floors[at] as i32 == value.floor() as i32, "floor of {value:e} on {device}");
        }
    }
}

/// Points within a few units in the last place of the borders of voxels, and in between.
fn border_points(numbers: &mut Numbers, n: usize, grid: &VoxelGrid, reach: i32) -> Vec<Point> {
    let mut axis = |a: usize| {
        let whole = numbers.below(2 * reach as usize) as i32 - reach;
        let border = whole as f32 * grid.voxel_size[a] + grid.origin[a];
        match numbers.below(3) {
            0 => border + numbers.unit() as f32 * grid.voxel_size[a],
            _ => {
                let steps = numbers.below(7) as i32 - 3;
                let bits = border.to_bits() as i32 + if border > 0.0 { steps } else { -steps };
                let near = f32::from_bits(bits as u32);
                if near.is_finite() { near } else { border }
            }
        }
    };
    (0..n).map(|_| [axis(0), axis(1), axis(2)]).collect()
}

fn grids() -> Vec<VoxelGrid> {
    vec![
        VoxelGrid::cubic(0.05).unwrap(),
        VoxelGrid::cubic(1.0).unwrap(),
        VoxelGrid::try_new([0.1, 0.3, 0.05], [0.0; 3]).unwrap(),
        VoxelGrid::try_new([0.1, 0.1, 0.2], [-51.2, -51.2, -5.0]).unwrap(),
        VoxelGrid::try_new([3.0, 0.7, 1e-3], [1e3, -0.1, 0.333]).unwrap(),
        VoxelGrid::cubic(1e-40).unwrap(),
        VoxelGrid::try_new([1e30; 3], [-1e32, 1.0, 0.0]).unwrap(),
    ]
}

fn batch_ids(numbers: &mut Numbers, n: usize) -> Vec<i32> {
    (0..n).map(|_| numbers.below(3) as i32 * 2).collect()
}

fn upload_points(gpu: &Gpu, points: &[Point]) -> Buffer {
    gpu.upload(points.as_flattened())
}

#[track_caller]
fn voxels(found: Quantized) -> Voxels {
    match found {
        Quantized::Voxels(voxels) => *voxels,
        other => panic!("expected voxels, found {other:?}"),
    }
}

#[track_caller]
fn assert_map(what: &str, gpu: &Gpu, found: &DeviceRowMap, expected: &RowMap) {
    assert_eq!((found.n_in(), found.n_out()), (expected.n_in(), expected.n_out()), "{what}: rows");
    let RowEntries { splits, rows, weights } = found.to_host(gpu);
    assert!(splits == expected.splits(), "{what}: splits");
    assert!(rows == expected.rows(), "{what}: entries");
    let bits = |weights: &[f32]| weights.iter().map(|w| w.to_bits()).collect::<Vec<_>>();
    assert!(weights.as_deref().map(bits) == expected.weights().map(bits), "{what}: weights");
}

fn check_voxels(
    what: &str,
    gpu: &Gpu,
    points: &[Point],
    batch: Option<&[i32]>,
    grid: &VoxelGrid,
    drop: NonFinite,
) {
    let expected = quantize_on_host(points, batch, grid, drop).unwrap();
    let batch = batch.map(|batch| gpu.upload(batch));
    let found = voxels(quantize(gpu, &upload_points(gpu, points), batch.as_ref(), grid, drop));
    assert_eq!(found.n_voxels, expected.support.n_rows(), "{what}");
    let coords: Vec<i32> = gpu.download(&found.coords);
    assert!(coords.as_chunks::<4>().0 == expected.support.coords(), "voxels, {what}");
    assert_eq!(Some(found.bounds), expected.support.bounds(), "{what}");
    assert!(
        gpu.download::<i32>(&found.voxel_of_point) == expected.voxel_of_point,
        "voxels of points, {what}"
    );
    assert!(gpu.download::<u32>(&found.counts) == expected.counts, "counts, {what}");
    assert_eq!(found.dropped, expected.dropped, "{what}");
    assert_eq!(found.longest as u32, *expected.counts.iter().max().unwrap(), "{what}");
    for (mean, map) in [(false, RowMap::voxel_sum(&expected)), (true, RowMap::voxel_mean(&expected))] {
        let what = format!("{}, {what}", if mean { "mean" } else { "sum" });
        assert_map(&what, gpu, &DeviceRowMap::voxels_of_points(gpu, &found, mean), &map);
        let back = DeviceRowMap::points_of_voxels(gpu, &found, mean);
        assert_map(&format!("transposed {what}"), gpu, &back, &map.transpose());
    }
}

#[test]
fn points_fall_into_the_voxels_of_the_host() {
    for (device, gpu) in devices() {
        let mut numbers = Numbers(23);
        for grid in grids() {
            for (n, reach) in [(1, 3), (600, 4), (20_000, 200), (9000, 1)] {
                let points = border_points(&mut numbers, n, &grid, reach);
                let batch = batch_ids(&mut numbers, n);
                let what = format!("{n} points, {grid:?} on {device}");
                check_voxels(&what, &gpu, &points, None, &grid, NonFinite::Error);
                check_voxels(&what, &gpu, &points, Some(&batch), &grid, NonFinite::Error);
            }
        }
    }
}

#[test]
fn points_that_are_not_finite_are_left_out() {
    for (device, gpu) in devices() {
        let mut numbers = Numbers(29);
        let grid = VoxelGrid::cubic(0.1).unwrap();
        for bad in [1, 40, 2999] {
            let mut points = border_points(&mut numbers, 3000, &grid, 10);
            for i in 0..bad {
                points[i * 7919 % 3000][i % 3] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][i / 3 % 3];
            }
            let batch = batch_ids(&mut numbers, 3000);
            let what = format!("{bad} bad points on {device}");
            check_voxels(&what, &gpu, &points, None, &grid, NonFinite::Drop);
            check_voxels(&what, &gpu, &points, Some(&batch), &grid, NonFinite::Drop);
        }
    }
}

#[test]
fn the_first_fault_is_the_hosts() {
    for (device, gpu) in devices() {
        let mut numbers = Numbers(31);
        let grid = VoxelGrid::cubic(0.1).unwrap();
        let good = border_points(&mut numbers, 2000, &grid, 10);
        let infinite = |points: &mut [Point], _: &mut [i32]| points[700][1] = f32::NAN;
        let far = |points: &mut [Point], _: &mut [i32]| points[1500][2] = 3e8;
        let batch = |_: &mut [Point], batch: &mut [i32]| batch[900] = -3;
        let far_and_infinite = |points: &mut [Point], batch: &mut [i32]| {
            (points[700][0], points[300][1]) = (1e30, f32::NAN);
            batch[800] = -1;
        };
        type Spoil = dyn Fn(&mut [Point], &mut [i32]);
        let cases: [(&Spoil, NonFinite); 6] = [
            (&infinite, NonFinite::Error),
            (&far, NonFinite::Error),
            (&far, NonFinite::Drop),
            (&batch, NonFinite::Drop),
            (&far_and_infinite, NonFinite::Drop),
            (&far_and_infinite, NonFinite::Error),
        ];
        for (spoil, non_finite) in cases {
            let (mut points, mut batch) = (good.clone(), vec![1; 2000]);
            spoil(&mut points, &mut batch);
            let expected = match quantize_on_host(&points, Some(&batch), &grid, non_finite) {
                Err(Error::OutOfRange { row, .. }) => row,
                other => panic!("expected a fault, found {other:?}"),
            };
            let there = (upload_points(&gpu, &points), gpu.upload(&batch));
            match quantize(&gpu, &there.0, Some(&there.1), &grid, non_finite) {
                Quantized::Fault(row) => assert_eq!(row, expected, "{device}"),
                other => panic!("expected a fault on {device}, found {other:?}"),
            }
        }
    }
}

#[test]
fn points_without_voxels_and_wide_keys_are_left_to_the_host() {
    for (device, gpu) in devices() {
        let grid = VoxelGrid::cubic(1.0).unwrap();
        for points in [vec![], vec![[f32::NAN; 3]; 5], vec![[-2e9; 3], [2e9; 3]]] {
            let found = quantize(&gpu, &upload_points(&gpu, &points), None, &grid, NonFinite::Drop);
            assert!(matches!(found, Quantized::Elsewhere), "{device}: {found:?}");
        }
    }
}

#[test]
fn voxels_of_many_points_are_cut() {
    for (device, gpu) in devices() {
        let mut numbers = Numbers(37);
        let grid = VoxelGrid::cubic(1.0).unwrap();
        let mut points: Vec<Point> = (0..4000).map(|_| [numbers.unit() as f32 * 1.5; 3]).collect();
        points[77][0] = f32::NAN;
        check_voxels(&format!("long rows on {device}"), &gpu, &points, None, &grid, NonFinite::Drop);
    }
}

/// Whether two weights are the same, or next to each other where a sum divided them.
fn same_weight(found: f32, expected: f32, renormalize: bool) -> bool {
    let apart = (i64::from(found.to_bits()) - i64::from(expected.to_bits())).abs();
    // Devices may take numbers below the smallest normal one for zero, also before they are divided by a sum of corners, which is small
    // itself where the near corners are missing. Weights sum to 1.
    let least = if renormalize { 1e-20 } else { f32::MIN_POSITIVE };
    let tiny = found.abs() <= least && expected.abs() <= least;
    apart <= if renormalize { 4 } else { 0 } || tiny
}

#[test]
fn corners_are_those_of_the_host() {
    for (device, gpu) in devices() {
        let mut numbers = Numbers(41);
        for grid in grids() {
            // Voxels of half of the points, so that corners are missing.
            let points = border_points(&mut numbers, 3000, &grid, 9);
            let batch = batch_ids(&mut numbers, 3000);
            let held =
                quantize_on_host(&points[..1500], Some(&batch[..1500]), &grid, NonFinite::Error).unwrap();
            let shuffled: Vec<Coord> = held.support.coords().iter().rev().copied().collect();
            for support in [held.support.clone(), Support::try_new(shuffled).unwrap()] {
                check_corners(&device, &gpu, &points, Some(&batch), &support, &grid);
                check_corners(&device, &gpu, &points, None, &support, &grid);
            }
        }
        // At the end of the lattice, and points that read nothing.
        let (low, high) = (i32::MIN, i32::MAX);
        let ends =
            vec![[0, high, high, high], [0, high, 0, 3], [0, low, low, low], [0, 4, 4, 4], [0, 3, 3, 3]];
        let support = Support::try_new(ends).unwrap();
        let far = 2_147_483_520.0;
        let points = [
            [far; 3],
            [3.25, 3.5, 3.75],
            [-2_147_483_648.0; 3],
            [f32::NAN, 0.0, 0.0],
            [0.0, f32::INFINITY, 0.0],
            [3e9, 0.0, 0.0],
            [-0.0, -1e-42, 1e-42],
        ];
        check_corners(&device, &gpu, &points, None, &support, &VoxelGrid::cubic(1.0).unwrap());
        check_corners(&device, &gpu, &[], None, &support, &VoxelGrid::cubic(1.0).unwrap());
        let none = Support::try_new(vec![]).unwrap();
        check_corners(&device, &gpu, &points, None, &none, &VoxelGrid::cubic(1.0).unwrap());
    }
}

fn check_corners(
    device: &str,
    gpu: &Gpu,
    points: &[Point],
    batch: Option<&[i32]>,
    support: &Support,
    grid: &VoxelGrid,
) {
    let coords = upload_support(gpu, support);
    let index = BlockIndex::build(gpu, &coords, support.n_rows());
    // Where all corners that are there weigh next to nothing, a device that takes tiny numbers for zero has nothing to divide by.
    let raw = point_voxel_map(points, batch, support, grid, Interpolation::Linear, false).unwrap();
    let weighs = |p: &usize| {
        let sum: f32 = raw.weights[*p].iter().sum();
        sum == 0.0 || sum > 1e-30
    };
    let kept: Vec<usize> = (0..points.len()).filter(weighs).collect();
    let kept_points: Vec<Point> = kept.iter().map(|&p| points[p]).collect();
    let kept_batch: Option<Vec<i32>> = batch.map(|batch| kept.iter().map(|&p| batch[p]).collect());
    for (interpolation, renormalize) in
        [(Interpolation::Nearest, false), (Interpolation::Linear, false), (Interpolation::Linear, true)]
    {
        let (points, batch) =
            if renormalize { (&kept_points[..], kept_batch.as_deref()) } else { (points, batch) };
        let (there, there_batch) = (upload_points(gpu, points), batch.map(|batch| gpu.upload(batch)));
        let what = format!("{interpolation:?}, renormalized: {renormalize}, {grid:?} on {device}");
        let expected = point_voxel_map(points, batch, support, grid, interpolation, renormalize).unwrap();
        let found =
            point_corners(gpu, &there, there_batch.as_ref(), &index, grid, interpolation, renormalize)
                .unwrap();
        let rows = gpu.download::<i32>(&found.rows);
        let differ = (0..points.len()).find(|&p| rows[8 * p..8 * p + 8] != expected.rows[p]);
        if let Some(p) = differ {
            let all = (0..points.len()).filter(|&p| rows[8 * p..8 * p + 8] != expected.rows[p]).count();
            panic!(
                "rows of point {p}, {:?} of item {:?}: {:?}, expected {:?}; {all} differ, {what}",
                points[p],
                batch.map(|batch| batch[p]),
                &rows[8 * p..8 * p + 8],
                expected.rows[p]
            );
        }
        let weights: Vec<f32> = gpu.download(&found.weights);
        for (&found, &expected) in weights.iter().zip(expected.weights.as_flattened()) {
            assert!(
                same_weight(found, expected, renormalize),
                "weight {found:e} is not {expected:e}, {what}"
            );
        }
        let map = RowMap::from_point_voxel_map(&expected, support.n_rows()).unwrap();
        assert_entries(&what, gpu, &found.map, &map, renormalize);
        let back = found.map.transposed(gpu, None);
        assert_entries(&format!("transposed, {what}"), gpu, &back, &map.transpose(), renormalize);
    }
}

#[track_caller]
fn assert_entries(what: &str, gpu: &Gpu, found: &DeviceRowMap, expected: &RowMap, renormalize: bool) {
    let entries = found.to_host(gpu);
    assert!(entries.splits == expected.splits(), "splits, {what}");
    assert!(entries.rows == expected.rows(), "entries, {what}");
    let weights = entries.weights.unwrap_or_default();
    assert_eq!(weights.len(), expected.rows().len(), "weights, {what}");
    for (&found, &expected) in weights.iter().zip(expected.weights().unwrap()) {
        assert!(same_weight(found, expected, renormalize), "weight {found:e} is not {expected:e}, {what}");
    }
}

#[test]
fn a_negative_batch_id_is_named() {
    for (device, gpu) in devices() {
        let index = BlockIndex::build(&gpu, &gpu.upload(&[0i32; 4]), 1);
        let (points, mut batch) = (vec![[0.5; 3]; 600], vec![0; 600]);
        (batch[300], batch[420]) = (-1, -7);
        let (points, batch) = (upload_points(&gpu, &points), gpu.upload(&batch));
        let grid = VoxelGrid::cubic(1.0).unwrap();
        let found = point_corners(&gpu, &points, Some(&batch), &index, &grid, Interpolation::Linear, false);
        assert_eq!(found.err(), Some(300), "{device}");
    }
}
