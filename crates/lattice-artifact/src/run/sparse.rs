//! Sparse tensors: made of arrays and taken apart, joined, pooled.

use burn::tensor::Tensor;
use burn_lattice::ops::{self, PoolOptions, Target};
use burn_lattice::{SparseTensor, Support};

use super::executor::{Call, CoordinateDomain, fault};
use super::outputs::physical_rows;
use super::value::Value;
use crate::error::Result;
use crate::plan::{Node, Op};

/// Rows divided by a stride. `what` are the rows in messages.
fn divided(rows: &mut [[i32; 4]], stride: [u32; 3], domain: CoordinateDomain) -> Result<(), String> {
    if domain == CoordinateDomain::Logical || stride == [1; 3] {
        return Ok(());
    }
    for (number, row) in rows.iter_mut().enumerate() {
        for axis in 0..3 {
            let (value, step) = (i64::from(row[axis + 1]), i64::from(stride[axis]));
            if domain == CoordinateDomain::Strict && value.rem_euclid(step) != 0 {
                return Err(format!(
                    "expected physical coordinates that are multiples of the stride {stride:?}, found row {number} with {} = {value}, \
                     not divisible by stride {step}; give logical rows with the logical coordinate domain",
                    ["x", "y", "z"][axis]
                ));
            }
            // A quotient is no larger than what was divided.
            row[axis + 1] = value.div_euclid(step) as i32;
        }
    }
    Ok(())
}

impl Call<'_> {
    /// Operations between arrays and sparse tensors.
    pub(super) fn boundary(&mut self, node: &Node) -> Result<()> {
        match node.op {
            Op::Make { stride } => {
                let made = self.make(node, stride)?;
                self.set(node.results[0], Value::Sparse(made));
            }
            Op::Decompose => {
                let x = self.sparse(node, 0)?;
                self.set(node.results[1], Value::Features(x.feats().clone()));
                self.set(node.results[2], Value::Count(x.clone()));
                self.set(node.results[0], Value::Rows(x));
            }
            _ => {
                let (x, features) = (self.sparse(node, 0)?, self.features(node, 1)?);
                let (rows, given) = (x.n_rows(), features.dims()[0]);
                // Features as long as those that the rows came with have the same padding.
                let features = match self.capacities.get(&x.support().id()) {
                    Some(&capacity) if given == capacity => first_rows(features, rows),
                    _ => features,
                };
                let y = x.with_feats(features).map_err(|e| fault(node, e))?;
                self.set(node.results[0], Value::Sparse(y));
            }
        }
        Ok(())
    }

    fn make(&mut self, node: &Node, stride: [u32; 3]) -> Result<SparseTensor> {
        let features = self.features(node, 1)?;
        let given = features.dims()[0];
        let (coords, count) = (self.value(node, 0)?, self.value(node, 2)?);
        if let (Value::Rows(rows), Value::Count(count)) = (coords, count)
            && rows.same_coords(count)
            && rows.stride() == stride
            && rows.n_rows() == given
        {
            return rows.with_feats(features).map_err(|e| fault(node, e));
        }
        let (mut rows, domain, own_stride) = match coords {
            // Rows of a tensor are physical in the graph, whatever callers give.
            Value::Rows(tensor) => {
                let rows = physical_rows(tensor).map_err(|what| fault(node, what))?;
                (rows, CoordinateDomain::Strict, Some(tensor.stride()))
            }
            Value::Array(array) => {
                let rows = array
                    .to_coords()
                    .ok_or_else(|| fault(node, "expected rows batch, x, y, z of i32, found others"))?;
                (rows, self.executor.options().domain, None)
            }
            other => return Err(fault(node, format!("expected coordinates, found {}", other.kind()))),
        };
        let is_argument = node.operands[0].0 < self.executor.artifact().plan().inputs.len();
        if let (true, Some(found)) = (is_argument, own_stride)
            && found != stride
        {
            let what = format!(
                "expected a sparse tensor of stride {stride:?}, which the graph declares, found {found:?}"
            );
            return Err(fault(node, what));
        }
        if rows.len() != given {
            return Err(fault(
                node,
                format!("expected {} feature rows, one a coordinate, found {given}", rows.len()),
            ));
        }
        let n = self.active(node, 2, given)?;
        let key = (node.operands[0], node.operands[2], stride);
        let support = match self.supports.get(&key) {
            Some(support) => support.clone(),
            None => {
                rows.truncate(n);
                divided(&mut rows, stride, domain).map_err(|what| fault(node, what))?;
                let support = Support::try_new(rows).map_err(|e| fault(node, e))?;
                self.supports.insert(key, support.clone());
                support
            }
        };
        self.capacities.insert(support.id(), given);
        let manager = self.manager.clone();
        SparseTensor::with_manager(support, first_rows(features, n), stride, manager)
            .map_err(|e| fault(node, e))
    }

    /// Two sparse tensors.
    pub(super) fn algebra(&self, node: &Node) -> Result<Value> {
        let (a, b) = (self.sparse(node, 0)?, self.sparse(node, 1)?);
        let made = match node.op {
            Op::Reindex { fill } => ops::reindex_sparse(&a, &b, fill),
            Op::Binary { op, options } => ops::sparse_binary(&a, &b, op, options),
            Op::Cat { join } => ops::cat(&[a, b], join),
            _ => return Err(fault(node, "expected an operation of two sparse tensors")),
        };
        made.map(Value::Sparse).map_err(|e| fault(node, e))
    }

    /// Pooling and upsampling.
    pub(super) fn pooling(&self, node: &Node) -> Result<Value> {
        let x = self.sparse(node, 0)?;
        let target = match node.operands.len() {
            2 => Some(Target::from(&self.sparse(node, 1)?)),
            _ => None,
        };
        match (node.op, &target) {
            (Op::PoolTranspose { spec }, None) => self.check_growth(node, x.n_rows(), spec.size)?,
            (Op::TrilinearUpsample { stride }, None) => {
                self.check_growth(node, x.n_rows(), stride.map(|step| step.saturating_mul(2) - 1))?;
            }
            _ => {}
        }
        let made = match node.op {
            Op::Pool { mode, spec } => ops::pool3d(&x, mode, &PoolOptions::new(spec)),
            Op::PoolTranspose { spec } => ops::pool_transpose3d(&x, &spec, target.as_ref()),
            Op::TrilinearUpsample { stride } => ops::trilinear_upsample3d(&x, stride, target.as_ref()),
            Op::GlobalPool { mode, batch_size } => {
                let pooled = ops::global_pool(&x, mode, batch_size).map_err(|e| fault(node, e))?;
                return Ok(Value::Features(pooled));
            }
            _ => return Err(fault(node, "expected a pooling")),
        };
        made.map(Value::Sparse).map_err(|e| fault(node, e))
    }
}

/// The first rows of features.
pub(super) fn first_rows(features: Tensor<2>, n: usize) -> Tensor<2> {
    let [rows, channels] = features.dims();
    match n == rows {
        true => features,
        false => features.slice([0..n, 0..channels]),
    }
}
