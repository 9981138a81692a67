//! The operations that every backend must bring: kernels over relations and row maps, and their gradients.
//!
//! [`LatticeBackend`] is what tensors are dispatched to; [`LatticeKernels`] holds the plain kernels that its autodiff form
//! calls in the backward pass. `flex.rs` implements both on the CPU, `gpu/` on GPUs, `autodiff.rs` once for every backend.

mod autodiff;
mod flex;
mod found;
#[cfg(feature = "gpu")]
mod gpu;
#[cfg(not(feature = "gpu"))]
mod no_gpu;

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, ExtensionType, backend_extension};

#[cfg(feature = "gpu")]
pub(crate) use gpu::{
    batch_counts, batch_map, cast_bias, cell_map, check_relation, check_room, check_row_map, concat_columns,
    conv_work, created_support, device_class, device_name, find_neighbours, flat_map, folded, gpu_device,
    is_software, joined, n_pairs, peaks, point_corners, prepare, quantize, rows_inside, rows_named,
    rows_where, same_rows, support_from_tensor, support_to_tensor, takes_dtype, top_rows,
};
#[cfg(not(feature = "gpu"))]
pub(crate) use no_gpu::{
    batch_counts, batch_map, cast_bias, cell_map, check_relation, check_room, check_row_map, concat_columns,
    conv_work, created_support, device_class, device_name, find_neighbours, flat_map, folded, is_software,
    joined, n_pairs, peaks, point_corners, prepare, quantize, rows_inside, rows_named, rows_where, same_rows,
    support_from_tensor, support_to_tensor, takes_dtype, top_rows,
};

pub(crate) use flex::{attend_on_cpu, gelu_on_cpu};
pub(crate) use found::{
    CornersOfPoints, DeviceVoxels, Found, NeighbourColumn, NeighbourSearch, NeighboursFound, VoxelsOfPoints,
};

use crate::routes::PackedKernel;
use crate::{Group, Relation, RowMap};
use lattice_cpu::PackedShape;
pub use lattice_cpu::{Activation, PatchRun};

/// An operand that may be left out.
#[derive(ExtensionType)]
pub enum Operand<B: Backend> {
    /// The operand.
    Given(FloatTensor<B>),
    /// Left out.
    Absent,
}

/// What a convolution adds before its one rounding; inference only.
#[derive(ExtensionType)]
pub struct FusedOperands<B: Backend> {
    /// `[c_out]`, in the features' type, added to the sum.
    #[extension_type]
    pub bias: Operand<B>,
    /// `[c_out]` in f32: multiplies the biased sum (a folded norm).
    #[extension_type]
    pub scale: Operand<B>,
    /// `[c_out]` in f32: added after `scale`.
    #[extension_type]
    pub shift: Operand<B>,
    /// `[n_out, c_out]`, added before the activation.
    #[extension_type]
    pub residual: Operand<B>,
}

impl<B: Backend> FusedOperands<B> {
    /// A bias, where there is one, and nothing else.
    pub fn bias_alone(bias: Operand<B>) -> Self {
        Self { bias, scale: Operand::Absent, shift: Operand::Absent, residual: Operand::Absent }
    }
}

/// Rows of a batch norm and the statistics that it found.
#[derive(ExtensionType)]
pub struct BatchNormOutput<B: Backend> {
    /// `[n, c]`.
    pub y: FloatTensor<B>,
    /// Mean `[c]`, in f32 (f64 for f64 features); has no gradient.
    pub mean: FloatTensor<B>,
    /// Biased variance `[c]`, likewise.
    pub var: FloatTensor<B>,
    /// The running mean moved by `mean`, or `mean` where none was given.
    pub moved_mean: FloatTensor<B>,
    /// The running variance moved by `var`, or `var` where none was given.
    pub moved_var: FloatTensor<B>,
    /// Rows of the batch, `[1]` in the statistics' type, where ranks share it.
    #[extension_type]
    pub count: Operand<B>,
}

/// Running statistics `[c]` of a batch norm, in the type of its statistics; both or neither.
#[derive(ExtensionType)]
pub struct RunningOperands<B: Backend> {
    /// Mean.
    #[extension_type]
    pub mean: Operand<B>,
    /// Variance.
    #[extension_type]
    pub var: Operand<B>,
}

/// Numbers of a batch norm.
#[derive(Clone, Debug)]
pub struct BatchNormOptions {
    /// Added to the variance.
    pub eps: f64,
    /// Comes last.
    pub activation: Activation,
    /// Running statistics become `old * (1 - momentum) + found * momentum`.
    pub momentum: f64,
    /// Whether the variance found is multiplied by `n / (n - 1)` before it moves the running one.
    pub unbiased: bool,
    /// The ranks whose rows are the batch together with those here.
    pub group: Option<Group>,
}

/// What the backward pass of a batch norm reads.
#[derive(Clone, Debug)]
pub struct BatchNormTape<B: Backend> {
    /// The rows that came out, where an activation follows.
    pub y: Option<FloatTensor<B>>,
    /// Mean `[c]`.
    pub mean: FloatTensor<B>,
    /// Biased variance `[c]`.
    pub var: FloatTensor<B>,
    /// Scale `[c]`.
    pub gamma: FloatTensor<B>,
    /// Added to the variance.
    pub eps: f64,
    /// Came last.
    pub activation: Activation,
    /// The ranks that share the batch, and its rows `[1]`.
    pub shared: Option<(Group, FloatTensor<B>)>,
}

/// Gradients of a batch norm.
pub struct BatchNormGrads<B: Backend> {
    /// For the rows.
    pub x: FloatTensor<B>,
    /// For the scale.
    pub gamma: FloatTensor<B>,
    /// For the bias.
    pub beta: FloatTensor<B>,
    /// For the residual, where it was asked for.
    pub residual: Option<FloatTensor<B>>,
}

/// Where a convolution finds its pairs.
#[derive(Clone, Debug)]
pub enum ConvMap {
    /// One tap, every row to itself: a plain product.
    Pointwise,
    /// The pairs of a relation.
    Relation(Relation),
}

/// A packed weight and how input features become bytes.
#[derive(ExtensionType)]
pub struct PackedOperands<B: Backend> {
    /// Codes, u32.
    pub words: IntTensor<B>,
    /// Steps between codes, f16 or f32.
    pub scales: FloatTensor<B>,
    /// Values of code 0, in the type of the scales.
    pub biases: FloatTensor<B>,
    /// `[2, c_in]` in f32: steps and bytes of 0; where they are given, products are of bytes.
    #[extension_type]
    pub activations: Operand<B>,
}

/// Sizes of a convolution with packed weights.
#[derive(Clone, Copy, Debug)]
pub struct PackedCall {
    /// Sizes and bits of the weight.
    pub weight: PackedShape,
    /// Channel groups.
    pub groups: usize,
    /// Comes last.
    pub activation: Activation,
    /// What runs.
    #[cfg_attr(not(feature = "gpu"), allow(dead_code, reason = "read on GPUs"))]
    pub(crate) kernel: PackedKernel,
}

/// Operations dispatched to the backend of their tensors. Differentiable on autodiff devices, but for `sparse_conv_fused`.
#[backend_extension(Flex, Cube: cfg(feature = "gpu"), Autodiff)]
pub trait LatticeBackend: Backend {
    /// `y[o] = Σ x[i] · weight[tap] + bias` over the pairs of `map`; `x [n_in, c_in]`, `weight [taps, c_in / groups, c_out]`.
    fn sparse_conv(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        #[extension_type] bias: Operand<Self>,
        map: ConvMap,
        groups: usize,
    ) -> FloatTensor<Self>;

    /// As `sparse_conv`, with norm, residual and activation applied before the one rounding. Not differentiable.
    fn sparse_conv_fused(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        #[extension_type] operands: FusedOperands<Self>,
        map: ConvMap,
        groups: usize,
        activation: Activation,
    ) -> FloatTensor<Self>;

    /// `sparse_conv_fused` with a packed weight, by the kernels of `routes::PACKED_ROUTES`. Not differentiable.
    fn packed_conv(
        x: FloatTensor<Self>,
        #[extension_type] weight: PackedOperands<Self>,
        #[extension_type] operands: FusedOperands<Self>,
        map: ConvMap,
        call: PackedCall,
    ) -> FloatTensor<Self>;

    /// `y[o] = Σ weight[e] · x[row[e]]`, and `fill` where a row has no entry.
    fn row_mix(x: FloatTensor<Self>, map: RowMap, fill: f32) -> FloatTensor<Self>;

    /// `y[o] = max x[row[e]]` per channel, and 0 where a row has no entry; NaN wins.
    fn row_max(x: FloatTensor<Self>, map: RowMap) -> FloatTensor<Self>;

    /// `activation((x - mean) / sqrt(var + eps) · gamma + beta + residual)` with the mean and biased variance of `x [n, c]` itself.
    ///
    /// Where ranks share the batch, the moments are those of the rows of all.
    /// `gamma` and `beta` `[c]` are in f32 (f64 for f64 features), as statistics and sums are; one rounding. The slope of a leaky
    /// ReLU is at least 0, so that the sign of a result tells what the activation let through.
    fn sparse_batch_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        #[extension_type] residual: Operand<Self>,
        #[extension_type] running: RunningOperands<Self>,
        options: BatchNormOptions,
    ) -> BatchNormOutput<Self>;
}

/// Gradient kernels of one concrete backend.
pub trait LatticeKernels: LatticeBackend {
    /// Gradient of `sparse_conv` for `x`.
    fn sparse_conv_input_grad(
        grad: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        map: ConvMap,
        groups: usize,
        c_in: usize,
    ) -> FloatTensor<Self>;

    /// Gradient of `sparse_conv` for `weight`.
    fn sparse_conv_weight_grad(
        x: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        map: ConvMap,
        groups: usize,
    ) -> FloatTensor<Self>;

    /// Gradient of `row_max`: split evenly over ties.
    fn row_max_grad(
        x: FloatTensor<Self>,
        y: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        map: RowMap,
    ) -> FloatTensor<Self>;

    /// Gradients of `sparse_batch_norm`, whose statistics depend on `x`; that of the residual where `residual` asks for it. Where ranks share
    /// the batch, those of scale and bias are this rank's share: their sum over the ranks is the whole.
    fn sparse_batch_norm_grad(
        grad: FloatTensor<Self>,
        x: FloatTensor<Self>,
        tape: BatchNormTape<Self>,
        residual: bool,
    ) -> BatchNormGrads<Self>;
}

/// A dense grid over the columns of a row: batch, x, y, z.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "gpu"), allow(dead_code, reason = "read on GPUs"))]
pub(crate) struct Grid {
    /// Value of each column at the first cell.
    pub(crate) offset: [i32; 4],
    /// Cells along each column.
    pub(crate) extent: [usize; 4],
    /// Cells between neighbours along each column.
    pub(crate) step: [usize; 4],
    /// Column whose values are brought inside, instead of being outside.
    pub(crate) clamped: Option<usize>,
    /// Cells in all.
    pub(crate) cells: usize,
}
