//! Backward passes, once for every backend.

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, NodeGuard, Ops, OpsKind, unary};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend, TensorMetadata};

use super::{
    Activation, BatchNormGrads, BatchNormOptions, BatchNormOutput, BatchNormTape, ConvMap, FusedOperands,
    LatticeBackend, LatticeKernels, Operand, PackedCall, PackedOperands, RunningOperands,
};
use crate::RowMap;

/// What the backward pass of a convolution needs.
#[derive(Clone, Debug)]
struct ConvState {
    /// Node of `x`, kept where the weight is tracked.
    x: Option<NodeId>,
    /// Node of the weight, kept where `x` is tracked.
    weight: Option<NodeId>,
    map: ConvMap,
    groups: usize,
    c_in: usize,
}

/// Hands the gradients of `x` and `weight` to their nodes, if they are tracked.
fn conv_backward<B: LatticeKernels>(
    state: ConvState,
    grad: FloatTensor<B>,
    parents: [Option<NodeId>; 2],
    grads: &mut Gradients,
    checkpointer: &mut Checkpointer,
) {
    let ConvState { x, weight, map, groups, c_in } = state;
    let [x_node, weight_node] = parents;
    // Both are fetched even where one is unused: a checkpoint counts its readers.
    let x = x.map(|id| checkpointer.retrieve_node_output::<FloatTensor<B>>(id));
    let weight = weight.map(|id| checkpointer.retrieve_node_output::<FloatTensor<B>>(id));
    if let (Some(node), Some(weight)) = (x_node, weight) {
        let dx = B::sparse_conv_input_grad(grad.clone(), weight, map.clone(), groups, c_in);
        grads.register::<B>(node, dx);
    }
    if let (Some(node), Some(x)) = (weight_node, x) {
        grads.register::<B>(node, B::sparse_conv_weight_grad(x, grad, map, groups));
    }
}

/// Convolution without bias.
#[derive(Debug)]
struct Conv;

impl<B: LatticeKernels> Backward<B, 2> for Conv {
    type State = ConvState;

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let parents = ops.parents.map(|node| node.map(|node| node.id));
        conv_backward::<B>(ops.state, grad, parents, grads, checkpointer);
    }
}

/// Convolution with bias.
#[derive(Debug)]
struct ConvBias;

impl<B: LatticeKernels> Backward<B, 3> for ConvBias {
    type State = ConvState;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let [x, weight, bias] = ops.parents;
        if let Some(node) = bias {
            // The weight gradient of a column of ones: summed in blocks and in f32, which a plain sum of columns need not be.
            let [rows, channels] = [grad.shape()[0], grad.shape()[1]];
            let ones = B::float_ones([rows, 1].into(), &grad.device(), grad.dtype().into());
            let sums = B::sparse_conv_weight_grad(ones, grad.clone(), ConvMap::Pointwise, 1);
            let sums = B::float_reshape(sums, [channels].into());
            grads.register::<B>(node.id, sums);
        }
        let parents = [x, weight].map(|node| node.map(|node| node.id));
        conv_backward::<B>(ops.state, grad, parents, grads, checkpointer);
    }
}

/// A linear map of rows; its backward pass is the adjoint map.
#[derive(Debug)]
struct RowMix;

impl<B: LatticeKernels> Backward<B, 1> for RowMix {
    type State = RowMap;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let map = ops.state;
        unary::<B, _>(ops.parents, ops.node, grads, |grad| B::row_mix(grad, map.transpose(), 0.0));
    }
}

/// Maximum over rows.
#[derive(Debug)]
struct RowMax;

impl<B: LatticeKernels> Backward<B, 1> for RowMax {
    type State = (NodeId, FloatTensor<B>, RowMap);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let (x, y, map) = ops.state;
        let x = checkpointer.retrieve_node_output::<FloatTensor<B>>(x);
        unary::<B, _>(ops.parents, ops.node, grads, |grad| B::row_max_grad(x, y, grad, map));
    }
}

/// Batch norm of training; parents are `x`, gamma, beta and, where there is one, the residual.
#[derive(Debug)]
struct BatchNorm;

impl<B: LatticeKernels, const N: usize> Backward<B, N> for BatchNorm {
    type State = (NodeId, BatchNormTape<B>);

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let (x, tape) = ops.state;
        let x = checkpointer.retrieve_node_output::<FloatTensor<B>>(x);
        let asked = |at: usize| ops.parents.get(at).is_some_and(Option::is_some);
        let BatchNormGrads { x, gamma, beta, residual } = B::sparse_batch_norm_grad(grad, x, tape, asked(3));
        let found = [Some(x), Some(gamma), Some(beta), residual];
        for (node, grad) in ops.parents.into_iter().zip(found) {
            if let (Some(node), Some(grad)) = (node, grad) {
                grads.register::<B>(node.id, grad);
            }
        }
    }
}

/// A batch norm with its node; `nodes` are its parents.
fn sparse_batch_norm<B: LatticeKernels, C: CheckpointStrategy, const N: usize>(
    nodes: [NodeGuard; N],
    x: FloatTensor<Autodiff<B, C>>,
    [gamma, beta]: [FloatTensor<B>; 2],
    residual: Operand<B>,
    running: RunningOperands<B>,
    options: BatchNormOptions,
) -> BatchNormOutput<Autodiff<B, C>> {
    let BatchNormOptions { eps, activation, ref group, .. } = options;
    let group = group.clone();
    let with_statistics = |y, found: BatchNormOutput<B>| {
        let statistic = <Autodiff<B, C> as AutodiffBackend>::from_inner;
        BatchNormOutput {
            y,
            mean: statistic(found.mean),
            var: statistic(found.var),
            moved_mean: statistic(found.moved_mean),
            moved_var: statistic(found.moved_var),
            count: match found.count {
                Operand::Given(count) => Operand::Given(statistic(count)),
                Operand::Absent => Operand::Absent,
            },
        }
    };
    match BatchNorm.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(mut prep) => {
            let node = prep.checkpoint(&x);
            let found =
                B::sparse_batch_norm(x.into_primitive(), gamma.clone(), beta, residual, running, options);
            let kept = (activation != Activation::None).then(|| found.y.clone());
            let (mean, var) = (found.mean.clone(), found.var.clone());
            let shared = match (group, &found.count) {
                (Some(group), Operand::Given(count)) => Some((group, count.clone())),
                _ => None,
            };
            let tape = BatchNormTape { y: kept, mean, var, gamma, eps, activation, shared };
            with_statistics(prep.finish((node, tape), found.y.clone()), found)
        }
        OpsKind::UnTracked(prep) => {
            let found = B::sparse_batch_norm(x.into_primitive(), gamma, beta, residual, running, options);
            with_statistics(prep.finish(found.y.clone()), found)
        }
    }
}

impl<B: LatticeKernels, C: CheckpointStrategy> LatticeBackend for Autodiff<B, C> {
    fn sparse_conv(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: Operand<Self>,
        map: ConvMap,
        groups: usize,
    ) -> FloatTensor<Self> {
        let c_in = x.primitive().shape()[1];
        let (x_tracked, weight_tracked) = (x.is_tracked(), weight.is_tracked());
        match bias {
            Operand::Absent => {
                let nodes = [x.node(), weight.node()];
                match Conv.prepare::<C>(nodes).compute_bound().stateful() {
                    OpsKind::Tracked(mut prep) => {
                        let state = ConvState {
                            x: weight_tracked.then(|| prep.checkpoint(&x)),
                            weight: x_tracked.then(|| prep.checkpoint(&weight)),
                            map: map.clone(),
                            groups,
                            c_in,
                        };
                        let y = B::sparse_conv(
                            x.into_primitive(),
                            weight.into_primitive(),
                            Operand::Absent,
                            map,
                            groups,
                        );
                        prep.finish(state, y)
                    }
                    OpsKind::UnTracked(prep) => prep.finish(B::sparse_conv(
                        x.into_primitive(),
                        weight.into_primitive(),
                        Operand::Absent,
                        map,
                        groups,
                    )),
                }
            }
            Operand::Given(bias) => {
                let nodes = [x.node(), weight.node(), bias.node()];
                match ConvBias.prepare::<C>(nodes).compute_bound().stateful() {
                    OpsKind::Tracked(mut prep) => {
                        let state = ConvState {
                            x: weight_tracked.then(|| prep.checkpoint(&x)),
                            weight: x_tracked.then(|| prep.checkpoint(&weight)),
                            map: map.clone(),
                            groups,
                            c_in,
                        };
                        let bias = Operand::Given(bias.into_primitive());
                        prep.finish(
                            state,
                            B::sparse_conv(x.into_primitive(), weight.into_primitive(), bias, map, groups),
                        )
                    }
                    OpsKind::UnTracked(prep) => {
                        let bias = Operand::Given(bias.into_primitive());
                        prep.finish(B::sparse_conv(
                            x.into_primitive(),
                            weight.into_primitive(),
                            bias,
                            map,
                            groups,
                        ))
                    }
                }
            }
        }
    }

    fn sparse_conv_fused(
        _x: FloatTensor<Self>,
        _weight: FloatTensor<Self>,
        _operands: FusedOperands<Self>,
        _map: ConvMap,
        _groups: usize,
        _activation: Activation,
    ) -> FloatTensor<Self> {
        // `ops::conv` asks the device first, so this is a bug of this crate and of nobody else.
        panic!("sparse_conv_fused: it has no gradient and is for devices without autodiff")
    }

    fn packed_conv(
        _x: FloatTensor<Self>,
        _weight: PackedOperands<Self>,
        _operands: FusedOperands<Self>,
        _map: ConvMap,
        _call: PackedCall,
    ) -> FloatTensor<Self> {
        // `ops::packed` refuses such devices, so this is a bug of this crate and of nobody else.
        panic!("packed_conv: it has no gradient and is for devices without autodiff")
    }

    fn row_mix(x: FloatTensor<Self>, map: RowMap, fill: f32) -> FloatTensor<Self> {
        match RowMix.prepare::<C>([x.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let y = B::row_mix(x.into_primitive(), map.clone(), fill);
                prep.finish(map, y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::row_mix(x.into_primitive(), map, fill)),
        }
    }

    fn row_max(x: FloatTensor<Self>, map: RowMap) -> FloatTensor<Self> {
        match RowMax.prepare::<C>([x.node()]).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let node = prep.checkpoint(&x);
                let y = B::row_max(x.into_primitive(), map.clone());
                prep.finish((node, y.clone(), map), y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::row_max(x.into_primitive(), map)),
        }
    }

    fn sparse_batch_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        residual: Operand<Self>,
        running: RunningOperands<Self>,
        options: BatchNormOptions,
    ) -> BatchNormOutput<Self> {
        let inner = |operand: Operand<Self>| match operand {
            Operand::Given(tensor) => Operand::Given(tensor.into_primitive()),
            Operand::Absent => Operand::Absent,
        };
        let running = RunningOperands { mean: inner(running.mean), var: inner(running.var) };
        let [x_node, gamma_node, beta_node] = [x.node(), gamma.node(), beta.node()];
        let vectors = [gamma.into_primitive(), beta.into_primitive()];
        match residual {
            Operand::Absent => {
                let nodes = [x_node, gamma_node, beta_node];
                sparse_batch_norm::<B, C, 3>(nodes, x, vectors, Operand::Absent, running, options)
            }
            Operand::Given(residual) => {
                let nodes = [x_node, gamma_node, beta_node, residual.node()];
                let residual = Operand::Given(residual.into_primitive());
                sparse_batch_norm::<B, C, 4>(nodes, x, vectors, residual, running, options)
            }
        }
    }
}
