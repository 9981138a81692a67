//! What a plan does on a device: every node with its operands, kernel and route.

use burn::tensor::Device;
use burn_lattice::routes::{ConvProblem, DeviceClass, PackedProblem, conv_route, packed_route};
use lattice_cpu::ConvShape;
use serde::Serialize;

use crate::artifact::Artifact;
use crate::ir::Type;
use crate::plan::{Convolution, Node, Op, Plan};

/// One node of a plan.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeReport {
    /// Label of its first result.
    pub label: String,
    /// Its operation.
    pub op: &'static str,
    /// Labels of its operands.
    pub operands: Vec<String>,
    /// Its kernel, mode or other attributes, in short.
    pub detail: String,
    /// What runs there: a route of convolutions, `row_mix` or `row_max` of row maps, `rows` of operations on single rows, `host` where
    /// coordinates are read there, `identity` where rows are only passed on, `fused` of what runs in the pass of a convolution before it.
    pub route: &'static str,
    /// Line in the graph's text.
    pub line: u32,
}

fn kernel(conv: &Convolution) -> String {
    let spec = &conv.spec;
    let by = |values: [u32; 3]| format!("{}x{}x{}", values[0], values[1], values[2]);
    let mut text = format!("kernel {}", by(spec.size));
    for (name, values, plain) in [
        ("stride", spec.stride, [1; 3]),
        ("padding", spec.padding, [0; 3]),
        ("dilation", spec.dilation, [1; 3]),
    ] {
        if values != plain {
            text += &format!(", {name} {}", by(values));
        }
    }
    text
}

fn detail(op: &Op) -> String {
    match op {
        Op::Make { stride } => format!("stride {stride:?}"),
        Op::Reindex { fill } => format!("fill {fill}"),
        Op::Convolution(conv) => kernel(conv),
        Op::Pool { mode, spec } => {
            format!("{}, kernel {:?}, stride {:?}", mode.name(), spec.size, spec.stride)
        }
        Op::PoolTranspose { spec } => format!("kernel {:?}, stride {:?}", spec.size, spec.stride),
        Op::TrilinearUpsample { stride } => format!("stride {stride:?}"),
        Op::GlobalPool { mode, batch_size } => match batch_size {
            Some(n) => format!("{}, {n} items", mode.name()),
            None => mode.name().into(),
        },
        Op::Voxelize { voxels, reduction, .. } => {
            format!("{}, voxels {:?}", format!("{reduction:?}").to_lowercase(), voxels.size)
        }
        Op::Devoxelize { voxels, interpolation } => {
            format!("{}, voxels {:?}", format!("{interpolation:?}").to_lowercase(), voxels.size)
        }
        Op::Exp => "exp".into(),
        Op::Round => "round".into(),
        Op::Activation(kind) => kind.name().into(),
        Op::BatchNorm { eps } | Op::LayerNorm { eps } | Op::RmsNorm { eps } => format!("eps {eps}"),
        Op::Binary { op, options } => {
            format!("{}, {}", op.name(), format!("{:?}", options.join).to_lowercase())
        }
        Op::Cat { join } => format!("{join:?}").to_lowercase(),
        _ => String::new(),
    }
}

/// Channels of a convolution's weight: in, out.
fn channels(artifact: &Artifact, node: &Node, at: usize) -> ConvShape {
    let plan = artifact.plan();
    let place = plan.values[node.operands[at].0].weight;
    let stored = place.map(|i| artifact.stored(i));
    let dims = stored.map(|stored| stored.dims).unwrap_or_default();
    match dims[..] {
        [c_out, .., c_in] if dims.len() == 5 => ConvShape { c_in, c_out, groups: 1 },
        // Of a packed weight: its words say output channels alone.
        _ => ConvShape { c_in: 1, c_out: 1, groups: 1 },
    }
}

/// Bits of a packed weight.
fn packed_bits(artifact: &Artifact, node: &Node, at: usize) -> Option<u32> {
    let place = artifact.plan().values[node.operands[at].0].weight?;
    artifact.stored(place).bits
}

fn route(artifact: &Artifact, node: &Node, device: DeviceClass) -> &'static str {
    let plan: &Plan = artifact.plan();
    match node.op {
        Op::Convolution(conv) => {
            let Type::Sparse(ty) = plan.ty(node.operands[0]) else { return "none" };
            let problem = ConvProblem {
                // A weight-normalized sum is computed in f32 before it is rounded.
                dtype: crate::run::dtype_of(if conv.eps.is_some() {
                    crate::ir::Element::F32
                } else {
                    ty.element
                }),
                rows: 1,
                shape: channels(artifact, node, 1 + usize::from(conv.targeted)),
                pointwise: conv.spec.is_pointwise() && !conv.targeted,
                device,
            };
            match packed_bits(artifact, node, 1 + usize::from(conv.targeted)) {
                Some(bits) => {
                    let taps = conv.spec.taps();
                    packed_route(&PackedProblem { conv: problem, taps, bits, activations: false }).name
                }
                None => conv_route(&problem).name,
            }
        }
        Op::Pool { mode, .. } | Op::GlobalPool { mode, .. } if mode == burn_lattice::ops::PoolMode::Max => {
            "row_max"
        }
        Op::Pool { .. }
        | Op::GlobalPool { .. }
        | Op::PoolTranspose { .. }
        | Op::TrilinearUpsample { .. }
        | Op::Voxelize { .. }
        | Op::Devoxelize { .. }
        | Op::Binary { .. }
        | Op::Cat { .. }
        | Op::Reindex { .. }
        | Op::EmbeddingLookup => "row_mix",
        Op::Make { .. } => "host",
        Op::Decompose | Op::WithFeatures => "identity",
        _ => "rows",
    }
}

/// Every node of an artifact's plan, in order, with the route that it takes on a device.
pub fn describe(artifact: &Artifact, device: &Device) -> Vec<NodeReport> {
    let (plan, class) = (artifact.plan(), DeviceClass::of(device));
    let mut fused = vec![false; plan.nodes.len()];
    for step in crate::run::steps(plan, true) {
        step.nodes.iter().skip(1).for_each(|&node| fused[node] = true);
    }
    let report = |(node, fused): (&Node, bool)| NodeReport {
        label: node.label.clone(),
        op: node.name,
        operands: node.operands.iter().map(|&value| plan.label(value).to_owned()).collect(),
        detail: detail(&node.op),
        route: if fused { "fused" } else { route(artifact, node, class) },
        line: node.at.line,
    };
    plan.nodes.iter().zip(fused).map(report).collect()
}
