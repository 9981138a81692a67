//! Row mixing and maxima against plain loops in `f64`, on every device.
#![cfg(feature = "cubecl")]
#![allow(clippy::unwrap_used, reason = "tests")]

mod harness;

use half::{bf16, f16};
use harness::{Element, Numbers, assert_close, devices, upload_support, wide};
use lattice_core::{KernelSpec, MapOrigin, Relation, RowEntries, RowMap, Support, SupportPolicy};
use lattice_gpu::Gpu;
use lattice_gpu::index::BlockIndex;
use lattice_gpu::rows::{DeviceRowMap, concat_columns, max_rows, max_rows_grad, mix_rows};
use lattice_gpu::support::canonical_order;
use lattice_gpu::tiles::{Geometry, Tiles};

const CHANNELS: [usize; 6] = [1, 3, 8, 20, 64, 70];

fn random_map(numbers: &mut Numbers, n_in: usize, lengths: &[usize], weighted: bool) -> RowMap {
    let (mut splits, mut rows) = (vec![0], Vec::new());
    for &length in lengths {
        rows.extend((0..length).map(|_| numbers.below(n_in) as u32));
        splits.push(rows.len());
    }
    let weights = weighted.then(|| rows.iter().map(|_| numbers.unit() as f32).collect());
    RowMap::try_new(n_in, splits, rows, weights).unwrap()
}

/// Entries of a row, as input rows and weights.
fn entries(map: &RowMap, row: usize) -> impl Iterator<Item = (usize, f64)> + '_ {
    let bounds = map.splits()[row]..map.splits()[row + 1];
    bounds.map(|e| (map.rows()[e] as usize, map.weights().map_or(1.0, |w| f64::from(w[e]))))
}

fn mixed(x: &[f64], c: usize, map: &RowMap, fill: f64) -> Vec<f64> {
    let mut out = vec![0.0; map.n_out() * c];
    for (o, out) in out.chunks_exact_mut(c).enumerate() {
        if entries(map, o).next().is_none() {
            out.fill(fill);
        }
        for (row, weight) in entries(map, o) {
            for (out, x) in out.iter_mut().zip(&x[row * c..]) {
                *out += weight * x;
            }
        }
    }
    out
}

fn maxima(x: &[f64], c: usize, map: &RowMap) -> Vec<f64> {
    let mut out = vec![0.0; map.n_out() * c];
    for (o, out) in out.chunks_exact_mut(c).enumerate() {
        for (j, out) in out.iter_mut().enumerate() {
            let larger = |a: f64, b: f64| {
                if a.is_nan() || b > a || b.is_nan() { if a.is_nan() { a } else { b } } else { a }
            };
            *out = entries(map, o).map(|(row, _)| x[row * c + j]).reduce(larger).unwrap_or(0.0);
        }
    }
    out
}

fn maxima_grad(x: &[f64], g: &[f64], c: usize, map: &RowMap) -> Vec<f64> {
    let y = maxima(x, c, map);
    let mut dx = vec![0.0; x.len()];
    for o in 0..map.n_out() {
        for j in 0..c {
            let wins = |row: usize| x[row * c + j] == y[o * c + j];
            let ties = entries(map, o).filter(|&(row, _)| wins(row)).count() as f64;
            for (row, _) in entries(map, o).filter(|&(row, _)| wins(row)) {
                dx[row * c + j] += g[o * c + j] / ties;
            }
        }
    }
    dx
}

fn check<T: Element>(device: &str, gpu: &Gpu, map: &RowMap, c: usize, numbers: &mut Numbers) {
    if !T::runs_on(gpu) {
        return;
    }
    let what = |op: &str| format!("{op} on {device}, {} to {} rows, {c} channels", map.n_in(), map.n_out());
    let on_device = DeviceRowMap::from_host(gpu, map).unwrap();
    let transpose = DeviceRowMap::from_host(gpu, &map.transpose()).unwrap();
    // Few distinct values, so that maxima tie.
    let mut x: Vec<T> = (0..map.n_in() * c).map(|_| T::of(numbers.below(9) as f64 - 4.0)).collect();
    let g: Vec<T> = numbers.values(map.n_out() * c);
    let absolute: Vec<f64> = wide(&x).iter().map(|v| v.abs()).collect();
    let no_weights = RowMap::try_new(map.n_in(), map.splits().to_vec(), map.rows().to_vec(), None).unwrap();
    let magnitude = mixed(&absolute, c, &no_weights, 0.0);
    let x_buffer = gpu.upload(&x);
    let found = mix_rows::<T>(gpu, &x_buffer, c, &on_device, -2.0);
    assert_close(&what("mix"), &gpu.download::<T>(&found), &mixed(&wide(&x), c, map, -2.0), &magnitude);
    let again = mix_rows::<T>(gpu, &x_buffer, c, &on_device, -2.0);
    let bits = |buffer| bytemuck::cast_slice::<T, u8>(&gpu.download::<T>(buffer)).to_vec();
    assert_eq!(bits(&found), bits(&again), "{}: two runs", what("mix"));

    for with_nan in [false, true] {
        if with_nan && !x.is_empty() {
            let at = numbers.below(x.len());
            x[at] = T::of(f64::NAN);
        }
        let x_buffer = gpu.upload(&x);
        let y = max_rows::<T>(gpu, &x_buffer, c, &on_device);
        let zeros = vec![0.0; y.len];
        assert_close(&what("max"), &gpu.download::<T>(&y), &maxima(&wide(&x), c, map), &zeros);
        let dx = max_rows_grad::<T>(gpu, [&x_buffer, &y, &gpu.upload(&g)], c, &on_device, &transpose);
        let expected = maxima_grad(&wide(&x), &wide(&g), c, map);
        let magnitude = mixed(&vec![1.0; map.n_out() * c], c, &no_weights.transpose(), 0.0);
        assert_close(&what("gradient of max"), &gpu.download::<T>(&dx), &expected, &magnitude);
    }
}

#[test]
fn maps_of_short_rows_match_the_loops() {
    let mut numbers = Numbers(3);
    for (device, gpu) in devices() {
        for c in CHANNELS {
            let lengths: Vec<usize> = (0..300).map(|_| numbers.below(7)).collect();
            for weighted in [false, true] {
                let map = random_map(&mut numbers, 90, &lengths, weighted);
                check::<f32>(&device, &gpu, &map, c, &mut numbers);
                check::<f16>(&device, &gpu, &map, c, &mut numbers);
                check::<bf16>(&device, &gpu, &map, c, &mut numbers);
            }
        }
    }
}

#[test]
fn maps_without_rows_or_entries_are_legal() {
    let mut numbers = Numbers(4);
    for (device, gpu) in devices() {
        for (n_in, lengths) in [(0, vec![]), (5, vec![]), (0, vec![0; 4]), (5, vec![0; 4]), (1, vec![1])] {
            let map = random_map(&mut numbers, n_in, &lengths, false);
            check::<f32>(&device, &gpu, &map, 3, &mut numbers);
        }
    }
}

#[test]
fn long_rows_are_cut_and_match_the_loops() {
    let mut numbers = Numbers(5);
    for (device, gpu) in devices() {
        for (lengths, n_in, c) in [
            // Two levels, three, and rows with none beside them; the transpose has long rows where few inputs serve many outputs.
            (vec![3, 0, 700, 1, 513], 1000, 8),
            (vec![0, 100_000, 2], 3, 3),
            (vec![2; 2000], 2, 20),
        ] {
            let map = random_map(&mut numbers, n_in, &lengths, n_in == 1000);
            check::<f32>(&device, &gpu, &map, c, &mut numbers);
            if n_in != 3 {
                check::<f16>(&device, &gpu, &map, c, &mut numbers);
            }
        }
    }
}

/// Entries equal, weights within two units in the last place.
#[track_caller]
fn assert_same_entries(what: &str, found: &RowEntries, expected: &RowEntries) {
    assert!(found.splits == expected.splits, "{what}: splits");
    assert!(found.rows == expected.rows, "{what}: rows");
    let weights = |entries: &RowEntries| {
        // No entries need no weights.
        entries.weights.clone().unwrap_or_else(|| vec![1.0; entries.rows.len()])
    };
    for (a, b) in weights(found).iter().zip(&weights(expected)) {
        assert!((a - b).abs() <= 2.0 * f32::EPSILON * b.abs(), "{what}: weight {a}, expected {b}");
    }
}

#[test]
fn maps_over_relations_are_listed_from_their_tiles() {
    let mut numbers = Numbers(6);
    let support = numbers.support(3000, 9);
    let spec = |size, stride| KernelSpec::cube(size, stride).unwrap();
    let strided =
        |size, stride| Relation::forward(&support, &spec(size, stride), SupportPolicy::Floor).unwrap();
    let wide = KernelSpec::try_new([3; 3], [2; 3], [1; 3], [1; 3]).unwrap();
    let relations = [
        strided(2, 2),
        strided(3, 2),
        Relation::submanifold(&support, &spec(3, 1)).unwrap(),
        Relation::transposed(&support, &wide).unwrap(),
        // More taps than a row may have entries in one piece.
        strided(9, 3),
        Relation::forward(&Support::try_new(Vec::new()).unwrap(), &spec(2, 2), SupportPolicy::Floor).unwrap(),
    ];
    for (device, gpu) in devices() {
        for relation in &relations {
            let what = |kind: &str| format!("{kind} of {} taps on {device}", relation.taps());
            let tiles = tiles_of(&gpu, relation);
            let maps = [
                ("sum", RowMap::from_relation_sum(relation)),
                ("mean", RowMap::from_relation_avg(relation)),
                ("trilinear", RowMap::trilinear(relation, [2; 3])),
            ];
            for (kind, map) in maps {
                let MapOrigin::Pairs(pairs) = map.origin() else { panic!("a map over a relation") };
                let found = DeviceRowMap::from_tiles(&tiles, &pairs.weights);
                assert_same_entries(&what(kind), &found.to_host(&gpu), map.entries());
                for longest in [None, Some(relation.taps())] {
                    let transpose = found.transposed(&gpu, longest);
                    assert_same_entries(
                        &what("transpose"),
                        &transpose.to_host(&gpu),
                        map.transpose().entries(),
                    );
                }
            }
        }
    }
}

/// The tiles of a relation that a formula describes.
fn tiles_of(gpu: &Gpu, relation: &Relation) -> Tiles {
    let (from, onto) = (upload_support(gpu, relation.source()), upload_support(gpu, relation.target()));
    let index = BlockIndex::build(gpu, &from, relation.n_in());
    let order = (relation.target().bounds().filter(|_| !relation.target().is_canonical()))
        .map(|bounds| canonical_order(gpu, &onto, &bounds).unwrap());
    Tiles::build(gpu, &index, &onto, relation.n_out(), order.as_ref(), Geometry::of(relation)).unwrap()
}

fn columns_side_by_side<T: Element>(device: &str, gpu: &Gpu) {
    if !T::runs_on(gpu) {
        return;
    }
    let mut numbers = Numbers(11);
    for (n, c_lhs, c_rhs) in
        [(1, 1, 1), (300, 3, 5), (257, 8, 16), (40, 8, 3), (7, 64, 96), (5, 0, 4), (5, 4, 0)]
    {
        let lhs: Vec<T> = numbers.values(n * c_lhs);
        let rhs: Vec<T> = numbers.values(n * c_rhs);
        let mut expected: Vec<T> = Vec::new();
        for row in 0..n {
            expected.extend(&lhs[row * c_lhs..][..c_lhs]);
            expected.extend(&rhs[row * c_rhs..][..c_rhs]);
        }
        let found = concat_columns::<T>(gpu, [&gpu.upload(&lhs), &gpu.upload(&rhs)], n, [c_lhs, c_rhs]);
        assert_eq!(
            wide(&gpu.download::<T>(&found)),
            wide(&expected),
            "{n} rows of {c_lhs} and {c_rhs} on {device}"
        );
    }
}

#[test]
fn columns_stand_side_by_side() {
    for (device, gpu) in devices() {
        columns_side_by_side::<f32>(&device, &gpu);
        columns_side_by_side::<f16>(&device, &gpu);
        columns_side_by_side::<bf16>(&device, &gpu);
    }
}

#[test]
fn maps_that_lie_on_a_device_are_gathered_transposed_and_averaged_there() {
    let mut numbers = Numbers(7);
    for (device, gpu) in devices() {
        for (n, n_groups) in [(1, 1), (700, 40), (5000, 3), (20_000, 30_000)] {
            let what = |kind: &str| format!("{kind}, {n} rows in {n_groups} groups on {device}");
            let groups: Vec<i32> = (0..n).map(|_| numbers.below(n_groups + 1) as i32 - 1).collect();
            let host = RowMap::gather(n_groups, &groups).unwrap();
            let gather = DeviceRowMap::gather(&gpu, &gpu.upload(&groups), n_groups);
            assert_same_entries(&what("gather"), &gather.to_host(&gpu), host.entries());
            let sum = gather.transposed(&gpu, None);
            assert_same_entries(&what("sum"), &sum.to_host(&gpu), host.transpose().entries());
            let expected = host.transpose().entries().clone();
            let share = expected.splits.windows(2).map(|s| (s[1] - s[0], 1.0 / (s[1] - s[0]) as f32));
            let weights = share.flat_map(|(count, weight)| std::iter::repeat_n(weight, count)).collect();
            let expected = RowEntries { weights: Some(weights), ..expected };
            let mean = sum.averaged(&gpu);
            assert_same_entries(&what("mean"), &mean.to_host(&gpu), &expected);
            let back = RowMap::try_new(n, expected.splits, expected.rows, expected.weights).unwrap();
            let found = mean.transposed(&gpu, Some(1));
            assert_same_entries(&what("mean and back"), &found.to_host(&gpu), back.transpose().entries());
            // Sums over them, also where rows are long.
            let x: Vec<f32> = numbers.values(n * 5);
            let y = mix_rows::<f32>(&gpu, &gpu.upload(&x), 5, &mean, 0.0);
            let expected = mixed(&wide(&x), 5, &back, 0.0);
            let magnitude = vec![n as f64; expected.len()];
            assert_close(&what("mixed"), &gpu.download::<f32>(&y), &expected, &magnitude);
        }
    }
}
