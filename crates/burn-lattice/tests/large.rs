//! Sizes that only a real GPU has room and time for: ten million rows, more than 2^31 elements, and more memory than there is.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "harness/devices.rs"]
mod devices;

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use burn_lattice::ops::{self, ConvOptions};
use burn_lattice::{DeviceInfo, Error, KernelSpec, Result, SparseTensor, Support};

/// Cards that compute in f16; prints a line where there is none.
fn cards() -> Vec<(String, Device)> {
    let takes = |(_, device): &(String, Device)| {
        let info = DeviceInfo::of(device);
        !info.software && info.takes(DType::F16)
    };
    let found: Vec<_> = devices::gpus().into_iter().filter(takes).collect();
    if found.is_empty() {
        println!("no card: large sizes are not tested");
    }
    found
}

/// Rows of a full cube, z fastest, as a tensor of the device.
fn cube(side: i32, device: &Device) -> Tensor<2, Int> {
    let cell = |at: i32| [0, at / (side * side), at / side % side, at % side];
    let rows: Vec<i32> = (0..side.pow(3)).flat_map(cell).collect();
    let shape = [rows.len() / 4, 4];
    Tensor::from_data(TensorData::new(rows, shape), (device, DType::I32))
}

/// Rows of a full cube that a 3 x 3 x 3 kernel meets from cell `at`.
fn neighbours(side: usize, at: usize) -> usize {
    let along = |v: usize| 3 - usize::from(v == 0) - usize::from(v + 1 == side);
    along(at / (side * side)) * along(at / side % side) * along(at % side)
}

fn ones<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::ones(shape, (device, DType::F16))
}

fn read<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

/// A convolution of ones counts the neighbours of each row; an error where a result is larger than a buffer may be.
fn counted(side: usize, channels: usize, device: &Device) -> Result<(SparseTensor, SparseTensor)> {
    let support = Support::from_tensor(cube(side as i32, device)).unwrap();
    let x = SparseTensor::from_support(support, ones([side.pow(3), channels], device)).unwrap();
    let weight = ones([27, channels, channels], device);
    let options = ConvOptions::new(KernelSpec::cube(3, 1).unwrap());
    let y = ops::subm_conv3d(&x, weight, None, &options)?;
    Ok((x, y))
}

#[test]
fn ten_million_rows() {
    let (side, channels) = (216, 16);
    for (name, device) in cards() {
        let (x, y) = counted(side, channels, &device).unwrap();
        let found = read(y.feats().clone());
        for (at, row) in found.chunks_exact(channels).enumerate() {
            let expected = (channels * neighbours(side, at)) as f32;
            assert!(
                row.iter().all(|&v| v == expected),
                "row {at} on {name}: expected {expected}, found {row:?}"
            );
        }
        let relation = x.manager().submanifold(x.support(), &KernelSpec::cube(3, 1).unwrap()).unwrap();
        assert_eq!(relation.n_pairs_on(&device), (3 * side - 2).pow(3), "pairs on {name}");

        // The rows of the next level stand in the order of their Morton codes.
        let options = ConvOptions::new(KernelSpec::cube(2, 2).unwrap());
        let halved = ops::conv3d(&x, ones([8, channels, channels], &device), None, &options, None).unwrap();
        let code = |row: &[i32; 4]| {
            let spread = |v: i32| (0..10).map(|bit| u64::from(v as u32 >> bit & 1) << (3 * bit)).sum::<u64>();
            spread(row[3]) << 2 | spread(row[2]) << 1 | spread(row[1])
        };
        let codes: Vec<u64> = halved.support().to_host().coords().iter().map(code).collect();
        assert_eq!(codes.len(), (side / 2).pow(3), "rows of the next level on {name}");
        assert!(codes.is_sorted_by(|a, b| a < b), "order of the next level on {name}");
        assert!(read(halved.feats().clone()).iter().all(|&v| v == 8.0 * channels as f32), "{name}");
    }
}

#[test]
fn more_elements_than_31_bits_count() {
    // 257^3 rows of 128 channels: 2.17e9 elements, in and out.
    let (side, channels) = (257, 128);
    for (name, device) in cards() {
        let y = match counted(side, channels, &device) {
            Ok((_, y)) => y,
            // Vulkan's buffers end at 2^31 bytes.
            Err(Error::Limit { what, .. }) => {
                assert_ne!(name, "cuda", "{what}");
                println!("not on {name}: {what}");
                continue;
            }
            Err(other) => panic!("{name}: {other}"),
        };
        let rows = side.pow(3);
        assert!(rows * channels > 1 << 31);
        for first in [0, (1 << 31) / channels - 500, rows - 1000] {
            let found = read(y.feats().clone().narrow(0, first, 1000));
            for (at, row) in found.chunks_exact(channels).enumerate() {
                let expected = (channels * neighbours(side, first + at)) as f32;
                assert!(row.iter().all(|&v| v == expected), "row {} on {name}: {row:?}", first + at);
            }
        }
    }
}

#[test]
fn a_device_without_room_says_so_and_goes_on() {
    for (name, device) in cards() {
        let side = 100;
        let support = Support::from_tensor(cube(side, &device)).unwrap();
        let x = SparseTensor::from_support(support, ones([side.pow(3) as usize, 16], &device)).unwrap();
        let widened = |channels: usize| {
            let options = ConvOptions::new(KernelSpec::cube(1, 1).unwrap());
            ops::subm_conv3d(&x, ones([1, 16, channels], &device), None, &options)
        };
        // Larger than any buffer: refused before anything is asked of the device.
        let refused = widened(1 << 18);
        assert!(matches!(refused, Err(Error::Limit { .. })), "{name}");
        // Each has room, all together have not: whoever reads one that was not made gets an error.
        let most = 8192;
        let Some(channels) = [most, most / 8].into_iter().find(|&channels| widened(channels).is_ok()) else {
            panic!("a buffer on {name} has no room for a row of {} channels of a million", most / 8);
        };
        let many: Vec<SparseTensor> = (0..16 * most / channels).map(|_| widened(channels).unwrap()).collect();
        let read_some = |y: &SparseTensor| y.feats().clone().narrow(0, 0, 10).try_into_data();
        let failed = many.iter().filter(|y| read_some(y).is_err()).count();
        assert!(failed > 0 && failed < many.len(), "{failed} of {} failed on {name}", many.len());
        drop(many);
        device.memory_cleanup();
        let y = widened(32).unwrap();
        assert!(read(y.feats().clone()).iter().all(|&v| v == 16.0), "after running out of memory on {name}");
    }
}
