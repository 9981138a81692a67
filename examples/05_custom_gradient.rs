//! An operation of one's own with a gradient of one's own: a gate that is 0 or 1 forward and a slope backward.
//!
//! A step has derivative 0 nearly everywhere, so nothing could be learned through it; the backward pass here is that of `clamp(x, -1, 1)`
//! instead (a straight-through estimator: Bengio, Léonard, Courville, arXiv:1308.3432). A network learns with it which channels
//! of its input to read.
//!
//! `cargo run --release --example 05_custom_gradient`

use std::error::Error;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::module::{Module, Param};
use burn::tensor::BoolDType;
use burn_lattice::prelude::*;
use lattice_scenes::Random;
use lattice_train::{Descent, OptimizerConfig};

/// What a backend must bring for the gate; the macro sends tensors to the backend that they live on.
#[backend_extension(Flex, Autodiff)]
trait GateBackend: Backend {
    /// 1 where `x` is above 0, else 0.
    fn gate(x: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl GateBackend for Flex {
    fn gate(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let above = Self::float_greater_elem(x.clone(), 0.0.into(), BoolDType::Native);
        let below = Self::float_lower_equal_elem(x.clone(), 0.0.into(), BoolDType::Native);
        Self::float_mask_fill(Self::float_mask_fill(x, above, 1.0.into()), below, 0.0.into())
    }
}

/// The backward pass: the gradient goes through where the input is within -1..1.
#[derive(Debug)]
struct GateBackward;

impl<B: Backend> Backward<B, 1> for GateBackward {
    /// The input.
    type State = FloatTensor<B>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let x = ops.state;
        unary::<B, _>(ops.parents, ops.node, grads, |grad| {
            let outside = B::float_greater_elem(B::float_abs(x), 1.0.into(), BoolDType::Native);
            B::float_mask_fill(grad, outside, 0.0.into())
        });
    }
}

impl<B: GateBackend, C: CheckpointStrategy> GateBackend for Autodiff<B, C> {
    fn gate(x: FloatTensor<Self>) -> FloatTensor<Self> {
        match GateBackward.prepare::<C>([x.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let x = x.into_primitive();
                prep.finish(x.clone(), B::gate(x))
            }
            OpsKind::UnTracked(prep) => prep.finish(B::gate(x.into_primitive())),
        }
    }
}

/// 1 where `x` is above 0, else 0; its gradient is that of `clamp(x, -1, 1)`.
fn gate<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as GateBackend>::gate(x.into_dispatch()))
}

/// A sparse convolution that reads the channels whose gate is open.
#[derive(Module, Debug)]
struct Gated {
    gates: Param<Tensor<1>>,
    conv: SubmConv3d,
}

const CHANNELS: usize = 8;
/// Channels that the target depends on.
const TRUE_CHANNELS: [usize; 2] = [2, 5];

fn main() -> Result<(), Box<dyn Error>> {
    let device = Device::flex().autodiff();

    // The gradient is ours: 1 within -1..1, 0 outside, at a step.
    let x = Tensor::<1>::from_floats([-2.0, -0.5, 0.25, 3.0], &device).require_grad();
    let y = gate(x.clone());
    println!("gate     {:?}", y.to_data().iter::<f32>().collect::<Vec<_>>());
    let gradient = x.grad(&y.sum().backward()).ok_or("x requires a gradient")?;
    println!("gradient {:?}", gradient.to_data().iter::<f32>().collect::<Vec<_>>());

    let mut random = Random::new(&[5]);
    let rows: Vec<[i32; 4]> = (0..1000).map(|i| [0, i % 10, i / 10 % 10, i / 100]).collect();
    let support = Support::try_new(rows)?;
    let values: Vec<f32> = (0..1000 * CHANNELS).map(|_| random.normal() as f32).collect();
    let x = Tensor::<2>::from_data(TensorData::new(values, [1000, CHANNELS]), &device);
    let target = TRUE_CHANNELS.map(|c| x.clone().narrow(1, c, 1)).into_iter().reduce(|a, b| a + b);
    let target = target.ok_or("there are two channels")?;

    let gates = Param::from_tensor(Tensor::from_floats([0.5; CHANNELS], &device));
    let conv = SubmConv3dConfig::new([CHANNELS, 1]).with_kernel_size([1; 3]).init(&device);
    let conv = lattice_models::seed_parameters(conv, 1);
    let mut training = Descent::new(Gated { gates, conv }, OptimizerConfig::adamw())?;
    for step in 0..300 {
        let model = training.model();
        let open = gate(model.gates.val());
        let gated = SparseTensor::from_support(support.clone(), x.clone() * open.clone().unsqueeze())?;
        let error = model.conv.forward(&gated).into_feats() - target.clone();
        // Each open channel costs something: those that do not help are closed.
        let loss = (error.clone() * error).mean() + open.sum() * 0.02;
        let loss = training.step(loss, 0.02);
        if step % 100 == 99 {
            println!("step {}: loss {:.3}", step + 1, loss.into_scalar::<f32>());
        }
    }
    let gates = gate(training.trained().gates.val()).into_data();
    let open: Vec<usize> =
        gates.iter::<f32>().enumerate().filter(|(_, g)| *g > 0.0).map(|(c, _)| c).collect();
    println!("open channels: {open:?}, the target depends on {TRUE_CHANNELS:?}");
    Ok(())
}
