//! The radix sort and the sums it stands on, against the standard library, on every device.
#![cfg(feature = "cubecl")]
#![allow(clippy::unwrap_used, reason = "tests")]

mod harness;

use harness::{Numbers, devices};
use lattice_gpu::sort::{Keys, exclusive_sum, sort_rows};

#[test]
fn rows_come_out_in_the_order_of_their_keys() {
    for (device, gpu) in devices() {
        for (n, bits) in [(0, 8), (1, 8), (2, 64), (700, 3), (2048, 17), (5000, 40), (70_000, 64)] {
            let mut numbers = Numbers(n as u64);
            // Few distinct keys as well as many: equal ones keep their order.
            let keep = if bits == 64 { u64::MAX } else { (1 << bits) - 1 };
            let values: Vec<u64> = (0..n).map(|_| numbers.next() & keep).collect();
            let low: Vec<u32> = values.iter().map(|&v| v as u32).collect();
            let high: Vec<u32> = values.iter().map(|&v| (v >> 32) as u32).collect();
            let keys = Keys { low: gpu.upload(&low), high: gpu.upload(&high), bits };
            let (sorted, rows) = sort_rows(&gpu, &keys);
            let mut expected: Vec<u32> = (0..n as u32).collect();
            expected.sort_by_key(|&row| values[row as usize]);
            assert_eq!(gpu.download::<u32>(&rows), expected, "rows, {n} keys of {bits} bits on {device}");
            let [low, high] = [&sorted.low, &sorted.high].map(|words| gpu.download::<u32>(words));
            let found: Vec<u64> =
                low.iter().zip(&high).map(|(&l, &h)| u64::from(h) << 32 | u64::from(l)).collect();
            let expected: Vec<u64> = expected.iter().map(|&row| values[row as usize]).collect();
            assert_eq!(found, expected, "keys, {n} keys of {bits} bits on {device}");
        }
    }
}

#[test]
fn sums_are_exclusive() {
    for (device, gpu) in devices() {
        for n in [1usize, 7, 2048, 2049, 100_000, 5_000_000] {
            let mut numbers = Numbers(n as u64);
            let values: Vec<u32> = (0..n).map(|_| (numbers.next() % 7) as u32).collect();
            let buffer = gpu.upload(&values);
            let total = exclusive_sum(&gpu, &buffer);
            let mut sum = 0;
            let mut expected = Vec::with_capacity(n);
            for &value in &values {
                expected.push(sum);
                sum += value;
            }
            assert!(gpu.download::<u32>(&buffer) == expected, "{n} values on {device}");
            assert_eq!(gpu.download::<u32>(&total), [sum], "{n} values on {device}");
        }
    }
}
