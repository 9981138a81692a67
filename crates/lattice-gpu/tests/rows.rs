//! Row mixing and maxima against plain loops in `f64`, on every device.
#![cfg(feature = "cubecl")]
#![allow(clippy::unwrap_used, reason = "tests")]

mod harness;

use half::{bf16, f16};
use harness::{Element, Numbers, assert_close, devices, wide};
use lattice_core::RowMap;
use lattice_gpu::Gpu;
use lattice_gpu::rows::{DeviceRowMap, max_rows, max_rows_grad, mix_rows};

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
