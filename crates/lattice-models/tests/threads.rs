//! A whole network, forward and backward, has the same bits for 1, 2 and 7 threads.
#![allow(clippy::unwrap_used, reason = "tests")]

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use burn_lattice::{SparseTensor, Support};
use lattice_models::{MinkUNetConfig, seed_parameters};

/// A rough surface of several tiles and blocks of rows.
fn scene(device: &Device) -> SparseTensor {
    let mut rows = Vec::new();
    for x in 0..56 {
        for y in 0..56 {
            rows.push([0, x, y, (x * x + 3 * y) % 7]);
        }
    }
    let values: Vec<f32> = (0..rows.len() * 4).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect();
    let feats = Tensor::from_data(TensorData::new(values, [rows.len(), 4]), device);
    SparseTensor::from_support(Support::try_new(rows).unwrap(), feats.require_grad()).unwrap()
}

fn bits<const D: usize>(tensor: Tensor<D>) -> Vec<u32> {
    tensor.into_data().iter::<f32>().map(f32::to_bits).collect()
}

/// Bits of every parameter's gradient and of every running statistic.
struct Bits<'a> {
    grads: &'a Gradients,
    found: Vec<Vec<u32>>,
}

impl ModuleVisitor for Bits<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.val();
        let shown = if value.is_require_grad() { value.grad(self.grads).unwrap() } else { value };
        self.found.push(bits(shown));
    }
}

/// Scores, gradients of the input and of all parameters, and the statistics that the step moved.
fn step(threads: usize) -> Vec<Vec<u32>> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| {
        let device = Device::flex().autodiff();
        let config = MinkUNetConfig::named("minkunet14a", 4, 5).unwrap();
        let model = seed_parameters(config.init(&device), 1);
        let x = scene(&device);
        let y = model.forward(&x).into_feats();
        let grads = (y.clone() * y.clone()).mean().backward();
        let mut seen = Bits { grads: &grads, found: vec![bits(y), bits(x.feats().grad(&grads).unwrap())] };
        model.visit(&mut seen);
        seen.found
    })
}

#[test]
fn a_training_step_does_not_depend_on_the_number_of_threads() {
    let one = step(1);
    assert!(one.len() > 100, "{}", one.len());
    assert!(one[1].iter().any(|b| *b != 0), "the gradient is not all zero");
    assert!(one == step(2), "two threads differ from one");
    assert!(one == step(7), "seven threads differ from one");
}
