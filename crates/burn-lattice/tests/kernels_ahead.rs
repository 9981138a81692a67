//! Kernels that other threads compile before a device's own comes to them give what they give anywhere. A process of its own: kernels are
//! kept, in a folder of its own.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "harness/devices.rs"]
mod devices;

use std::time::Duration;

use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_lattice::ops::{ConvOptions, subm_conv3d};
use burn_lattice::{
    KernelSpec, SparseTensor, Support, keep_kernels, kernels_compiled_ahead, without_compilers,
};

/// A convolution of numbers whose sums are exact in f32, and rounded once to the features' type.
fn convolved((device, dtype): (&Device, DType), c_in: usize, c_out: usize) -> Tensor<2> {
    let coords: Vec<[i32; 4]> = (0..600).map(|i| [0, i % 20, i / 20, i % 3]).collect();
    let whole = |len: usize, step: usize| -> Vec<f32> {
        (0..len).map(|i| (i * step % 9) as f32 / 4.0 - 1.0).collect()
    };
    let tensor = |shape: &[usize], step| {
        let values = TensorData::new(whole(shape.iter().product(), step), shape.to_vec());
        values.convert_dtype(dtype)
    };
    let feats = Tensor::from_data(tensor(&[coords.len(), c_in], 5), (device, dtype));
    let weight = Tensor::from_data(tensor(&[27, c_in, c_out], 7), (device, dtype));
    let x = SparseTensor::from_support(Support::try_new(coords).unwrap(), feats).unwrap();
    subm_conv3d(&x, weight, None, &ConvOptions::new(KernelSpec::cube(3, 1).unwrap())).unwrap().into_feats()
}

fn values(y: &Tensor<2>) -> Vec<f32> {
    y.clone().into_data().iter::<f32>().collect()
}

#[test]
fn kernels_that_were_compiled_ahead_give_the_same_results() {
    let folder = std::env::temp_dir().join(format!("lattice-kernels-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    // SAFETY: the only test of this process, before it starts anything that reads the environment.
    unsafe { std::env::set_var("XDG_CACHE_HOME", &folder) };
    let kept = keep_kernels();
    let cpu = Device::flex();
    let close = |(found, expected): (&f32, &f32)| (found - expected).abs() <= expected.abs() / 1024.0 + 1e-3;
    for (name, device) in devices::gpus() {
        assert!(kept, "{name}: kernels are kept where there is a GPU");
        // What a software device does not have is not asked of it.
        let dtype = if name == "cuda" { DType::F16 } else { DType::F32 };
        let (on, on_cpu) = ((&device, dtype), (&cpu, dtype));
        // The first kernel that is not known starts the compilers; they are there when the others come.
        values(&convolved(on, 16, 16));
        std::thread::sleep(Duration::from_secs(1));
        let channels = [(16, 32), (32, 16), (5, 8), (64, 64), (32, 96), (128, 32)];
        let found = channels.map(|(c_in, c_out)| convolved(on, c_in, c_out));
        for (y, (c_in, c_out)) in found.iter().zip(channels) {
            let (found, expected) = (values(y), values(&convolved(on_cpu, c_in, c_out)));
            assert_eq!(found.len(), expected.len());
            assert!(found.iter().zip(&expected).all(close), "{name}: {c_in} to {c_out} channels");
        }
        let several = std::thread::available_parallelism().is_ok_and(|n| n.get() > 1);
        if name == "cuda" && several {
            assert!(kernels_compiled_ahead() > 0, "other threads compiled nothing");
        }
        // With compilers at rest the device's own thread compiles.
        let before = kernels_compiled_ahead();
        let (found, expected) =
            (without_compilers(|| values(&convolved(on, 48, 24))), convolved(on_cpu, 48, 24));
        assert!(found.iter().zip(&values(&expected)).all(close), "{name}: 48 to 24 channels");
        assert_eq!(kernels_compiled_ahead(), before);
    }
    std::fs::remove_dir_all(folder).unwrap();
}
