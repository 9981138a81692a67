//! Convolutions with the norm, residual and activation that follow them: what a graph writes as several operations, in one pass.
//!
//! A group is a convolution whose result nothing else reads than a decomposition, a batch norm, an activation and the binding of the new features,
//! each read by the next alone; for a submanifold one also a sum with another tensor, and an activation after it.

use std::collections::HashSet;

use burn_lattice::Activation;
use burn_lattice::ops::{ActivationKind, BinaryOp};

use crate::plan::{ConvolutionKind, Op, Plan, ValueId};

/// Nodes that run together.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    /// The convolution.
    pub(crate) conv: usize,
    /// Its batch norm.
    pub(crate) norm: Option<usize>,
    /// What is added before the activation.
    pub(crate) residual: Option<ValueId>,
    /// What comes last.
    pub(crate) activation: Activation,
    /// What the last node makes.
    pub(crate) result: ValueId,
}

/// What runs at once: the nodes, in order, and how, where they are several.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) nodes: Vec<usize>,
    pub(crate) group: Option<Group>,
}

/// Who reads a value.
struct Uses {
    readers: Vec<Vec<usize>>,
    returned: Vec<bool>,
}

impl Uses {
    fn of(plan: &Plan) -> Self {
        let mut uses =
            Self { readers: vec![Vec::new(); plan.values.len()], returned: vec![false; plan.values.len()] };
        for (i, node) in plan.nodes.iter().enumerate() {
            node.operands.iter().for_each(|value| uses.readers[value.0].push(i));
        }
        plan.outputs.iter().for_each(|output| uses.returned[output.value.0] = true);
        uses
    }

    /// The readers of a value that the graph does not return.
    fn inner(&self, value: ValueId) -> Option<&[usize]> {
        (!self.returned[value.0]).then(|| self.readers[value.0].as_slice())
    }

    fn only(&self, value: ValueId) -> Option<usize> {
        match self.inner(value)? {
            &[reader] => Some(reader),
            _ => None,
        }
    }
}

/// What follows a sparse value on its features.
struct Tail {
    nodes: Vec<usize>,
    norm: Option<usize>,
    activation: Activation,
    result: ValueId,
}

fn activation_of(kind: ActivationKind) -> Option<Activation> {
    match kind {
        ActivationKind::Relu => Some(Activation::Relu),
        ActivationKind::LeakyRelu { negative_slope } => Some(Activation::LeakyRelu(negative_slope as f32)),
        _ => None,
    }
}

/// Decomposition, batch norm, activation and the binding of the features, norm and activation where they are.
fn tail(plan: &Plan, uses: &Uses, x: ValueId) -> Option<Tail> {
    let &[first, last] = uses.inner(x)? else { return None };
    let (apart, bound) = (&plan.nodes[first], &plan.nodes[last]);
    let takes_apart =
        matches!(apart.op, Op::Decompose) && matches!(bound.op, Op::WithFeatures) && bound.operands[0] == x;
    if !takes_apart
        || [0, 2].iter().any(|&i| uses.inner(apart.results[i]).is_none_or(|readers| !readers.is_empty()))
    {
        return None;
    }
    let mut found =
        Tail { nodes: vec![first], norm: None, activation: Activation::None, result: bound.results[0] };
    let mut features = apart.results[1];
    loop {
        let next = uses.only(features)?;
        found.nodes.push(next);
        let node = &plan.nodes[next];
        match node.op {
            _ if next == last => return Some(found),
            Op::BatchNorm { .. } if found.norm.is_none() && found.activation == Activation::None => {
                found.norm = Some(next);
            }
            Op::Activation(kind) if found.activation == Activation::None => {
                found.activation = activation_of(kind)?;
            }
            _ => return None,
        }
        features = node.results[0];
    }
}

/// The groups that a convolution may begin, the longest first.
fn groups(plan: &Plan, uses: &Uses, conv: usize) -> Vec<Step> {
    let node = &plan.nodes[conv];
    let Op::Convolution(convolution) = node.op else { return Vec::new() };
    if convolution.eps.is_some() {
        return Vec::new();
    }
    let own = tail(plan, uses, node.results[0]);
    let mut nodes = vec![conv];
    let mut group =
        Group { conv, norm: None, residual: None, activation: Activation::None, result: node.results[0] };
    let mut found = Vec::new();
    if let Some(own) = own {
        nodes.extend(own.nodes);
        group = Group { norm: own.norm, activation: own.activation, result: own.result, ..group };
        found.push(Step { nodes: nodes.clone(), group: Some(group.clone()) });
    }
    // The rows of a sum are known before the convolution runs only where they are its input's.
    if convolution.kind != ConvolutionKind::Submanifold || group.activation != Activation::None {
        return found;
    }
    let Some(sum) = uses.only(group.result) else { return found };
    let Op::Binary { op: BinaryOp::Add, .. } = plan.nodes[sum].op else { return found };
    let &[a, b] = plan.nodes[sum].operands.as_slice() else { return found };
    nodes.push(sum);
    group.residual = Some(if a == group.result { b } else { a });
    group.result = plan.nodes[sum].results[0];
    found.insert(0, Step { nodes: nodes.clone(), group: Some(group.clone()) });
    if let Some(after) = tail(plan, uses, group.result).filter(|after| after.norm.is_none()) {
        nodes.extend(after.nodes);
        group = Group { activation: after.activation, result: after.result, ..group };
        found.insert(0, Step { nodes, group: Some(group) });
    }
    found
}

/// The steps of a plan, in an order in which each reads only what was made. Where nothing is fused each node is a step.
pub(crate) fn steps(plan: &Plan, fuse: bool) -> Vec<Step> {
    let mut ends: Vec<Option<Step>> = vec![None; plan.nodes.len()];
    let mut taken = HashSet::new();
    if fuse {
        let uses = Uses::of(plan);
        // From the end: of two branches that are summed, the later one takes the sum.
        for conv in (0..plan.nodes.len()).rev() {
            let free = |step: &Step| step.nodes.iter().all(|node| !taken.contains(node));
            let Some(step) = groups(plan, &uses, conv).into_iter().find(free) else { continue };
            taken.extend(step.nodes.iter().copied());
            let last = step.nodes.iter().copied().max().unwrap_or(conv);
            ends[last] = Some(step);
        }
    }
    ends.into_iter()
        .enumerate()
        .filter_map(|(i, end)| match end {
            Some(step) => Some(step),
            None if taken.contains(&i) => None,
            None => Some(Step { nodes: vec![i], group: None }),
        })
        .collect()
}
