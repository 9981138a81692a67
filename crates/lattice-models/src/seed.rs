//! Weights from a seed, the same on every device.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Tensor, TensorData};

/// Draws every weight matrix of a module anew from a seed.
///
/// Weights of rank 2 and above are uniform in ±sqrt(6 / fan_in), which keeps the size of ReLU activations; `fan_in` is the product
/// of all dimensions but the last. Biases are 0; other vectors, those of norms, stay as they are. Values depend on the seed and the parameter's place
/// alone, not on the device or its generator.
pub fn seed_parameters<M: Module>(module: M, seed: u64) -> M {
    module.map(&mut Seeder { seed, index: 0, at: Vec::new() })
}

struct Seeder {
    seed: u64,
    index: u64,
    /// Names on the way to the parameter.
    at: Vec<String>,
}

/// One step of SplitMix64 (Steele, Lea, Flood 2014): a counter in, 64 well-mixed bits out.
fn mix(counter: u64) -> u64 {
    let mut z = counter.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl ModuleMapper for Seeder {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.at.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.at.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        self.index += 1;
        let is_bias = D == 1 && self.at.last().is_some_and(|name| name == "bias");
        if D < 2 && !is_bias {
            return param;
        }
        if is_bias {
            let (id, tensor, mapper) = param.consume();
            let zeros = Tensor::zeros(tensor.dims(), (&tensor.device(), tensor.dtype()));
            return Param::from_mapped_value(id, zeros.set_require_grad(tensor.is_require_grad()), mapper);
        }
        let stream = mix(self.seed ^ mix(self.index));
        let (id, tensor, mapper) = param.consume();
        let dims = tensor.dims();
        let fan_in: usize = dims[..D - 1].iter().product();
        let bound = (6.0 / fan_in.max(1) as f64).sqrt();
        let unit = |i: u64| (mix(stream.wrapping_add(i)) >> 11) as f64 / (1u64 << 53) as f64;
        let values: Vec<f32> = (0..dims.iter().product::<usize>())
            .map(|i| ((unit(i as u64) * 2.0 - 1.0) * bound) as f32)
            .collect();
        let dtype = tensor.dtype();
        let fresh = Tensor::from_data(TensorData::new(values, dims), (&tensor.device(), dtype));
        let fresh = fresh.set_require_grad(tensor.is_require_grad());
        Param::from_mapped_value(id, fresh, mapper)
    }
}
