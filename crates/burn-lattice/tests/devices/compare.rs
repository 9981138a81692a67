//! What the tests share: the same work on the CPU and on every GPU, and how far results may be apart.

use super::devices;
use burn::module::{ModuleMapper, Param};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use burn_lattice::ops::ConvOptions;
use burn_lattice::{DeviceInfo, KernelSpec, SparseTensor, Support};

pub type Coord = [i32; 4];

/// Named results of one device.
pub type Results = Vec<(String, Vec<f64>)>;

/// Values in -1..1, multiples of 1/64, which every element type holds exactly.
pub fn values(len: usize, seed: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 37 + seed * 101 + i / 7 * 13) % 127) as f32 / 64.0 - 63.0 / 64.0).collect()
}

pub fn tensor<const D: usize>(shape: [usize; D], seed: usize, dtype: DType, device: &Device) -> Tensor<D> {
    let values: Vec<f64> = values(shape.iter().product(), seed).into_iter().map(f64::from).collect();
    Tensor::from_data(TensorData::new(values, shape), (device, dtype))
}

pub fn read<const D: usize>(tensor: &Tensor<D>) -> Vec<f64> {
    tensor.clone().into_data().iter::<f64>().collect()
}

/// Whole numbers of a tensor.
pub fn whole<const D: usize>(tensor: Tensor<D, Int>) -> Vec<i64> {
    tensor.into_data().iter::<i64>().collect()
}

/// Rows of a rough surface in two batch items, in no order.
pub fn surface(side: i32) -> Vec<Coord> {
    let mut rows = Vec::new();
    for b in 0..2 {
        for x in -side / 2..side - side / 2 {
            for y in 0..side {
                rows.push([b, x, y - 3, (x * x + 3 * y + b).rem_euclid(7) - 2]);
            }
        }
    }
    let n = rows.len();
    (0..n).map(|i| rows[i * 7919 % n]).collect()
}

pub fn sparse(coords: &[Coord], feats: Tensor<2>) -> SparseTensor {
    SparseTensor::from_support(Support::try_new(coords.to_vec()).unwrap(), feats).unwrap()
}

/// Coordinates as an integer tensor of 32 bits.
pub fn coordinates(coords: &[Coord], device: &Device) -> Tensor<2, Int> {
    let flat: Vec<i32> = coords.iter().flatten().copied().collect();
    Tensor::from_data(TensorData::new(flat, [coords.len(), 4]), (device, DType::I32))
}

/// A tensor on coordinates that were made on the device, and autodiff where the features have it.
pub fn made(coords: &[Coord], feats: Tensor<2>) -> SparseTensor {
    let rows = coordinates(coords, &feats.device());
    SparseTensor::from_support(Support::from_tensor(rows).unwrap(), feats).unwrap()
}

/// How far results may be apart, of their largest value.
pub fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => 4e-3,
        DType::BF16 => 3e-2,
        _ => 2e-5,
    }
}

#[track_caller]
pub fn compare(device: &str, dtype: DType, expected: &Results, found: &Results) {
    assert_eq!(expected.len(), found.len());
    for ((name, expected), (_, found)) in expected.iter().zip(found) {
        assert_eq!(expected.len(), found.len(), "{name} on {device} in {dtype:?}: length");
        let largest = expected.iter().fold(1.0f64, |most, v| most.max(v.abs()));
        for (at, (a, b)) in expected.iter().zip(found).enumerate() {
            let close = (a - b).abs() <= tolerance(dtype) * largest;
            assert!(close, "{name} on {device} in {dtype:?}: element {at} is {b}, on the CPU {a}");
        }
    }
}

/// Runs `work` on the CPU and on every GPU in the element types of both, and compares.
#[track_caller]
pub fn on_every_device(work: impl Fn(&Device, DType) -> Results) {
    for (name, device) in devices::gpus() {
        for dtype in DeviceInfo::of(&device).dtypes {
            compare(&name, dtype, &work(&Device::flex(), dtype), &work(&device, dtype));
        }
    }
}

/// Values of `f` without gradients, and values and gradients of all its inputs with them.
pub fn with_gradients<const N: usize>(
    results: &mut Results,
    name: &str,
    inputs: [Tensor<2>; N],
    f: impl Fn([Tensor<2>; N]) -> Tensor<2>,
) {
    results.push((format!("{name}, inference"), read(&f(inputs.clone()))));
    let leaves = inputs.map(|input| Tensor::from_inner(input).require_grad());
    let y = f(leaves.clone());
    results.push((format!("{name}, training"), read(&y)));
    let g = Tensor::from_inner(tensor(y.dims(), 99, y.dtype(), &y.device().without_autodiff()));
    let grads = (y * g).sum().backward();
    for (at, leaf) in leaves.iter().enumerate() {
        let grad = leaf.grad(&grads).unwrap_or_else(|| panic!("{name}: input {at} has no gradient"));
        results.push((format!("{name}, gradient {at}"), read(&grad)));
    }
}

pub fn options(size: u32, stride: u32) -> ConvOptions {
    ConvOptions::new(KernelSpec::cube(size, stride).unwrap())
}

/// Sets parameters that do not depend on a device's random numbers, in one element type.
pub struct Seed {
    pub seed: usize,
    pub dtype: DType,
}

impl ModuleMapper for Seed {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        self.seed += 1;
        param.map(|t| tensor(t.dims(), self.seed, self.dtype, &t.device()))
    }
}
