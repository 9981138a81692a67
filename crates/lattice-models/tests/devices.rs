//! Whole networks on every GPU that is found, against the CPU: scores, and gradients of every parameter.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../../burn-lattice/tests/harness/devices.rs"]
mod devices;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Device, FloatDType, Gradients, Tensor, TensorData};
use burn_lattice::{DeviceInfo, SparseTensor, Support};
use lattice_models::{MinkUNetConfig, SecondEncoderConfig, seed_parameters};

/// Rows of a rough surface in two batch items, x and y from 0 on.
fn rows(side: i32) -> Vec<[i32; 4]> {
    let cell = |b: i32, x: i32, y: i32| [b, x, y, (x * x + 3 * y + b) % 7];
    (0..2).flat_map(|b| (0..side).flat_map(move |x| (0..side).map(move |y| cell(b, x, y)))).collect()
}

fn input(device: &Device, side: i32, channels: usize) -> SparseTensor {
    let rows = rows(side);
    let values: Vec<f32> =
        (0..rows.len() * channels).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect();
    let feats = Tensor::from_data(TensorData::new(values, [rows.len(), channels]), device);
    SparseTensor::from_support(Support::try_new(rows).unwrap(), feats).unwrap()
}

fn read<const D: usize>(tensor: &Tensor<D>) -> Vec<f64> {
    tensor.clone().into_data().iter::<f64>().collect()
}

/// Largest difference as a part of the root mean square of what is expected.
fn distance(expected: &[f64], found: &[f64]) -> f64 {
    assert_eq!(expected.len(), found.len());
    let square: f64 = expected.iter().map(|v| v * v).sum();
    let scale = (square / expected.len().max(1) as f64).sqrt().max(1e-6);
    expected.iter().zip(found).fold(0.0f64, |most, (a, b)| most.max((a - b).abs() / scale))
}

/// Gradients of every parameter, in order.
struct Collected<'a> {
    grads: &'a Gradients,
    found: Vec<Vec<f64>>,
}

impl ModuleVisitor for Collected<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.found.push(param.val().grad(self.grads).map(|grad| read(&grad)).unwrap_or_default());
    }
}

/// Casts parameters; norms stay in f32, as they do in mixed precision.
struct Cast(FloatDType);

impl ModuleMapper for Cast {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let dtype = self.0;
        param.map(|t| if D == 3 { t.cast(dtype) } else { t })
    }
}

#[test]
fn a_minkunet_agrees_with_the_cpu() {
    let config = MinkUNetConfig::named("minkunet14", 4, 6).unwrap();
    let scores = |device: &Device, dtype: FloatDType| {
        let model = seed_parameters(config.init(device), 3).map(&mut Cast(dtype));
        read(model.try_forward(&input(device, 40, 4).astype(dtype)).unwrap().feats())
    };
    for (name, device) in devices::gpus() {
        let expected = scores(&Device::flex(), FloatDType::F32);
        let info = DeviceInfo::of(&device);
        for (dtype, float, bound) in [
            (DType::F32, FloatDType::F32, 1e-3),
            (DType::F16, FloatDType::F16, 0.1),
            (DType::BF16, FloatDType::BF16, 0.6),
        ] {
            if info.takes(dtype) {
                let away = distance(&expected, &scores(&device, float));
                println!("minkunet14 on {name} in {dtype:?}: {away:.2e} of the scores' size away");
                assert!(away < bound, "{name} in {dtype:?}: {away}");
            }
        }
    }
}

#[test]
fn gradients_of_a_minkunet_agree_with_the_cpu() {
    let config = MinkUNetConfig::named("minkunet14", 4, 6).unwrap();
    let train = |device: &Device| {
        let device = device.clone().autodiff();
        let model = seed_parameters(config.init(&device), 3);
        let y = model.try_forward(&input(&device, 24, 4)).unwrap().into_feats();
        let loss = (y.clone() * y).mean();
        let mut collected = Collected { grads: &loss.backward(), found: Vec::new() };
        model.visit(&mut collected);
        collected.found
    };
    for (name, device) in devices::gpus() {
        for (at, (expected, found)) in train(&Device::flex()).iter().zip(&train(&device)).enumerate() {
            let away = distance(expected, found);
            // Batch norms of few rows amplify the last bits of sums.
            assert!(away < 5e-2, "{name}: gradient of parameter {at} is {away} away");
        }
    }
}

#[test]
fn a_second_encoder_agrees_with_the_cpu() {
    let run = |device: &Device| {
        let config = SecondEncoderConfig::new(4, [32, 32, 41]);
        let model = seed_parameters(config.init(device), 5);
        read(&model.try_forward(&input(device, 32, 4)).unwrap().image)
    };
    for (name, device) in devices::gpus() {
        let away = distance(&run(&Device::flex()), &run(&device));
        println!("second on {name}: {away:.2e} away");
        assert!(away < 1e-3, "{name}: {away}");
    }
}
