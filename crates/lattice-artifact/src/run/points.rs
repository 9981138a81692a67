//! From points to voxels and back.

use burn::tensor::Tensor;
use burn_lattice::core::SupportId;
use burn_lattice::ops::{self, NonFinite, VoxelGrid};
use burn_lattice::{Interpolation, SparseTensor};

use super::executor::{Call, fault};
use super::sparse::first_rows;
use super::value::Value;
use crate::error::Result;
use crate::plan::{Node, Op, ValueId, Voxels};

/// What a point-voxel map is of: points, batch ids and active rows, the voxels, the grid, and the way of reading.
pub(super) type MapKey = ([ValueId; 3], SupportId, [u32; 6], Interpolation);

/// A grid in f32, in which positions are computed, and its bits.
fn grid(node: &Node, voxels: &Voxels) -> Result<(VoxelGrid, [u32; 6])> {
    let [size, origin] = [voxels.size, voxels.origin].map(|three| three.map(|value| value as f32));
    let bits = std::array::from_fn(|i| if i < 3 { size[i].to_bits() } else { origin[i - 3].to_bits() });
    Ok((VoxelGrid::try_new(size, origin).map_err(|e| fault(node, e))?, bits))
}

impl Call<'_> {
    pub(super) fn points(&mut self, node: &Node) -> Result<Value> {
        let points = self.features(node, 0)?;
        let rows = points.dims()[0];
        let n = self.active(node, 3, rows)?;
        let batch_rows = self.array(node, 2)?.dims().first().copied().unwrap_or(0);
        if batch_rows != rows {
            return Err(fault(
                node,
                format!("expected {rows} batch indices, one a point, found {batch_rows}"),
            ));
        }
        let geometry = [node.operands[0], node.operands[2], node.operands[3]];
        let active = first_rows(points, n);
        match node.op {
            Op::Voxelize { voxels, reduction, stride } => {
                let (grid, bits) = grid(node, &voxels)?;
                let features = self.features(node, 1)?;
                if features.dims()[0] != rows {
                    let found = features.dims()[0];
                    return Err(fault(
                        node,
                        format!("expected {rows} feature rows, one a point, found {found}"),
                    ));
                }
                let found = match self.quantizations.get(&(geometry, bits)) {
                    Some(found) => found.clone(),
                    None => {
                        let batch = self.ids(node, 2, n)?;
                        let found = ops::sparse_quantize(active, Some(batch), &grid, NonFinite::Error);
                        let found = found.map_err(|e| fault(node, e))?;
                        self.quantizations.insert((geometry, bits), found.clone());
                        found
                    }
                };
                let features = first_rows(features, n);
                let made = ops::voxelize_with_quantization(&found, features, reduction, stride, None)
                    // Into the manager that the call shares.
                    .and_then(|x| {
                        let support = x.support().clone();
                        SparseTensor::with_manager(support, x.into_feats(), stride, self.manager.clone())
                    });
                made.map(Value::Sparse).map_err(|e| fault(node, e))
            }
            Op::Devoxelize { voxels, interpolation } => {
                let (grid, bits) = grid(node, &voxels)?;
                let x = self.sparse(node, 1)?;
                let key: MapKey = (geometry, x.support().id(), bits, interpolation);
                let map = match self.point_maps.iter().find(|(known, _)| *known == key) {
                    Some((_, map)) => map.clone(),
                    None => {
                        let batch = self.ids(node, 2, n)?;
                        let made = ops::build_point_voxel_map(
                            active,
                            Some(batch),
                            x.support(),
                            &grid,
                            interpolation,
                            false,
                        );
                        let map = made.map_err(|e| fault(node, e))?;
                        self.point_maps.push((key, map.clone()));
                        map
                    }
                };
                let read =
                    ops::interpolate_point_features(x.feats().clone(), &map).map_err(|e| fault(node, e))?;
                Ok(Value::Features(padded(read, rows)))
            }
            _ => Err(fault(node, "expected an operation on points")),
        }
    }
}

/// Rows of zeros after the given ones, up to `rows`.
fn padded(features: Tensor<2>, rows: usize) -> Tensor<2> {
    let [n, channels] = features.dims();
    if n == rows {
        return features;
    }
    let zeros = Tensor::zeros([rows - n, channels], (&features.device(), features.dtype()));
    Tensor::cat(vec![features, zeros], 0)
}
