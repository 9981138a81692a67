//! What the tests share: tensors from and to `f64` slices, supports from a seed, and gradients against central differences.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub mod devices;

use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_lattice::{KernelSpec, SparseTensor, Support};
use lattice_testkit::gradcheck::assert_pullback;
use lattice_testkit::offsets::Kernel;
use lattice_testkit::tolerances::{BF16, F16, F32, F64, Tolerance};

pub type Coord = [i32; 4];

/// The element types of features on the device that suites run on.
pub fn dtypes() -> Vec<DType> {
    devices::dtypes()
}

/// The device that suites run on, without gradients: inference. The CPU, or what `LATTICE_TEST_DEVICE` names.
pub fn inference() -> Device {
    devices::chosen()
}

/// The same with gradients: training.
pub fn training() -> Device {
    inference().autodiff()
}

/// How close results of an element type come to their definition.
pub fn tolerance(dtype: DType) -> Tolerance {
    match dtype {
        DType::F64 => F64,
        DType::F16 => F16,
        DType::BF16 => BF16,
        _ => F32,
    }
}

pub fn tensor<const D: usize>(values: &[f64], shape: [usize; D], dtype: DType, device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), (device, dtype))
}

pub fn read<const D: usize>(tensor: &Tensor<D>) -> Vec<f64> {
    tensor.clone().into_data().iter::<f64>().collect()
}

pub fn support(coords: &[Coord]) -> Support {
    Support::try_new(coords.to_vec()).unwrap()
}

/// A tensor at a stride, in a manager of its own.
pub fn sparse_at(coords: &[Coord], feats: Tensor<2>, stride: [u32; 3]) -> SparseTensor {
    SparseTensor::from_support(support(coords), feats).unwrap().with_stride(stride).unwrap()
}

/// A tensor of f32 features at stride 1, from rows of equal length.
pub fn sparse(coords: &[Coord], feats: &[f64], device: &Device) -> SparseTensor {
    let channels = feats.len().checked_div(coords.len()).unwrap_or(1);
    sparse_at(coords, tensor(feats, [coords.len(), channels], DType::F32, device), [1; 3])
}

pub fn coords_of(x: &SparseTensor) -> Vec<Coord> {
    x.support().to_host().coords().to_vec()
}

/// Coordinates on the x axis of batch item 0.
pub fn line(xs: &[i32]) -> Vec<Coord> {
    xs.iter().map(|&x| [0, x, 0, 0]).collect()
}

pub fn spec(kernel: &Kernel) -> KernelSpec {
    KernelSpec::try_new(kernel.size, kernel.stride, kernel.padding, kernel.dilation).unwrap()
}

/// A small generator (SplitMix64), so that cases are the same everywhere.
pub struct Seeded(u64);

impl Seeded {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Values in `-1..1`, multiples of 1/64, which every element type holds exactly.
    pub fn values(&mut self, len: usize) -> Vec<f64> {
        (0..len).map(|_| (self.next() % 127) as f64 / 64.0 - 63.0 / 64.0).collect()
    }

    /// Up to `n` distinct rows in `-reach..reach` over `batches` items, in no order.
    pub fn coords(&mut self, n: usize, batches: i32, reach: i32) -> Vec<Coord> {
        let mut coords: Vec<Coord> = Vec::new();
        for _ in 0..n {
            let mut on = |low: i32, high: i32| low + (self.next() % (high - low) as u64) as i32;
            let c = [on(0, batches), on(-reach, reach), on(-reach, reach), on(-reach, reach)];
            if !coords.contains(&c) {
                coords.push(c);
            }
        }
        coords
    }
}

/// The widest element type of the device that suites run on.
pub fn widest() -> DType {
    if devices::has(DType::F64) { DType::F64 } else { DType::F32 }
}

/// Gradients of `<g, f(leaves)>` on a device with autodiff, one a leaf, in its [widest] element type.
pub fn gradients(
    device: &Device,
    leaves: &[Vec<f64>],
    g_seed: u64,
    f: impl Fn(&[Tensor<1>]) -> Tensor<2>,
) -> Vec<Vec<f64>> {
    let leaves: Vec<Tensor<1>> =
        leaves.iter().map(|v| tensor(v, [v.len()], widest(), device).require_grad()).collect();
    let y = f(&leaves);
    let [rows, channels] = y.dims();
    let g = tensor(&Seeded::new(g_seed).values(rows * channels), [rows, channels], widest(), device);
    let grads = (y * g).sum().backward();
    leaves.iter().map(|leaf| read(&leaf.grad(&grads).expect("every leaf takes part"))).collect()
}

/// Asserts that the gradients of `f` for every leaf are its central differences, in f64 on the training device.
#[track_caller]
pub fn check_gradients(leaves: &[Vec<f64>], f: impl Fn(&[Tensor<1>]) -> Tensor<2>) {
    if !devices::has(DType::F64) {
        // A GPU's gradients are in f32 and are compared with the CPU's in `tests/devices.rs`.
        return;
    }
    let device = training();
    let analytic = gradients(&device, leaves, 99, &f);
    let constants: Vec<Tensor<1>> =
        leaves.iter().map(|v| tensor(v, [v.len()], DType::F64, &device)).collect();
    let [rows, channels] = f(&constants).dims();
    let g = Seeded::new(99).values(rows * channels);
    for (at, leaf) in leaves.iter().enumerate() {
        let forward = |moved: &[f64]| {
            let mut inputs = constants.clone();
            inputs[at] = tensor(moved, [moved.len()], DType::F64, &device);
            read(&f(&inputs))
        };
        assert_pullback(forward, leaf, &g, &analytic[at]);
    }
}
