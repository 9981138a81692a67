//! From voxels back to points: which voxels a point reads, and reading them.
//!
//! Points are `[n, 3]` in f32, batch ids `[n]`, all 0 where they are left out. Features are differentiable; points, ids and weights
//! are not. Points on a GPU find their voxels there; what is found stays there until the host asks for it.

use std::sync::Arc;

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use lattice_core as core;
use lattice_core::VoxelGrid;

use super::integers::int_tensor;
use super::mix_rows;
use super::points::Cloud;
use super::row_groups::entries;
use super::row_trace::{ROW_MIX, RowTrace};
use crate::backend::{self, CornersOfPoints, Found, same_rows};
use crate::tensor::check_features;
use crate::{Error, Interpolation, Result, RowMap, SparseTensor, Support};

/// Which voxels each point reads, with what weight. Valid for any features on the same voxel rows, and only for the points,
/// batch ids, voxels, grid and interpolation it was built from.
#[derive(Clone, Debug)]
pub struct PointVoxelMap {
    voxels: Support,
    n_points: usize,
    found: Arc<CornersOfPoints>,
    map: RowMap,
    interpolation: Interpolation,
}

impl PointVoxelMap {
    /// Number of points.
    pub fn n_points(&self) -> usize {
        self.n_points
    }

    /// The voxels it reads.
    pub fn voxels(&self) -> &Support {
        &self.voxels
    }

    /// Voxel rows `[n_points, 8]`, -1 where a corner has no voxel; corner `j` has x in its lowest bit.
    pub fn rows(&self, device: &Device) -> Tensor<2, Int> {
        let there = self.found.on_device().and_then(|found| found.rows(device));
        let copied = || self.to_host().rows.iter().flatten().copied().collect();
        there.unwrap_or_else(|| int_tensor(copied(), [self.n_points, 8], device))
    }

    /// Weights `[n_points, 8]`, 0 where a corner has no voxel.
    pub fn weights(&self, device: &Device) -> Tensor<2> {
        if let Some(there) = self.found.on_device().and_then(|found| found.weights(device)) {
            return there;
        }
        let flat: Vec<f32> = self.to_host().weights.iter().flatten().copied().collect();
        Tensor::from_data(TensorData::new(flat, [self.n_points, 8]), (device, DType::F32))
    }

    /// The same entries as a row map.
    pub fn row_map(&self) -> &RowMap {
        &self.map
    }

    /// The map in host memory. Reads it, where it was made on a GPU and this is the first call.
    pub fn to_host(&self) -> &core::PointVoxelMap {
        self.found.host()
    }
}

/// Finds the voxels around each point.
///
/// A voxel's coordinate is taken as a *position*, its lower corner: to sample at centres move the origin by half a voxel.
/// [`Interpolation::Nearest`] reads the nearest position, halves upwards; [`Interpolation::Linear`] the eight corners around the
/// point. Missing voxels weaken the value unless `renormalize` divides by the sum of the weights found. The tensor's stride is
/// not used: give the voxel size of its level. A point that is not finite reads nothing.
///
/// # Errors
/// Shapes or element types that do not fit; negative batch ids; a grid that is not finite or not above 0.
pub fn build_point_voxel_map(
    points: Tensor<2>,
    batch: Option<Tensor<1, Int>>,
    voxels: &Support,
    grid: &VoxelGrid,
    interpolation: Interpolation,
    renormalize: bool,
) -> Result<PointVoxelMap> {
    let [n_points, _] = points.dims();
    let host = voxels.to_host();
    let found = match backend::point_corners(&points, batch.as_ref(), host, grid, interpolation, renormalize)
    {
        Some(found) => found,
        None => {
            let cloud = Cloud::new("build_point_voxel_map", points, batch)?;
            let ids = cloud.batch.as_deref();
            Found::Here(core::point_voxel_map(&cloud.points, ids, host, grid, interpolation, renormalize)?)
        }
    };
    let map = match &found {
        Found::Here(corners) => core::RowMap::from_point_voxel_map(corners, voxels.n_rows())?,
        Found::There { on_device, .. } => on_device.row_map(),
    };
    let (voxels, found) = (voxels.clone(), Arc::new(found));
    Ok(PointVoxelMap { voxels, n_points, found, map: map.into(), interpolation })
}

/// `out[p] = Σ weight[p, j] · feats[row[p, j]]` over the voxels that exist, 0 where there are none. Differentiable in `feats`.
///
/// # Shapes
/// `feats [voxels, c]`; result `[n_points, c]`.
/// # Errors
/// Another number of rows; a dtype that is not a float.
pub fn interpolate_point_features(feats: Tensor<2>, map: &PointVoxelMap) -> Result<Tensor<2>> {
    let op = "interpolate_point_features";
    check_features(op, &feats)?;
    let [rows, _] = feats.dims();
    if rows != map.voxels.n_rows() {
        return Err(Error::Shape {
            op,
            expected: format!("{} feature rows, one a voxel", map.voxels.n_rows()),
            found: format!("{rows} rows"),
        });
    }
    let trace = RowTrace::start("devoxelize", devoxelize_kind(map.interpolation)).mapped(&feats);
    let from = feats.dims();
    let out = mix_rows(feats, &map.map, 0.0);
    trace.finish(from, &out, |device| entries(&map.map, device), ROW_MIX);
    Ok(out)
}

fn devoxelize_kind(interpolation: Interpolation) -> &'static str {
    match interpolation {
        Interpolation::Nearest => "devoxelize.nearest",
        _ => "devoxelize.linear",
    }
}

/// How [`devoxelize`] reads voxels.
#[derive(Clone, Copy, Debug)]
pub struct DevoxelizeOptions {
    /// Size and place of the voxels at the tensor's level.
    pub grid: VoxelGrid,
    /// Nearest position or eight corners.
    pub interpolation: Interpolation,
    /// Divides by the sum of the weights found.
    pub renormalize: bool,
}

impl DevoxelizeOptions {
    /// Linear, not renormalized.
    pub fn new(grid: VoxelGrid) -> Self {
        Self { grid, interpolation: Interpolation::Linear, renormalize: false }
    }

    /// Chooses nearest position or eight corners.
    pub fn with_interpolation(self, interpolation: Interpolation) -> Self {
        Self { interpolation, ..self }
    }

    /// Chooses whether to divide by the sum of the weights found.
    pub fn with_renormalize(self, renormalize: bool) -> Self {
        Self { renormalize, ..self }
    }
}

/// Voxel features read at points; see [`build_point_voxel_map`]. Differentiable in the features.
///
/// # Shapes
/// `points [n, 3]`, `batch [n]`; result `[n, c]`.
/// # Errors
/// As [`build_point_voxel_map`].
pub fn devoxelize(
    voxels: &SparseTensor,
    points: Tensor<2>,
    batch: Option<Tensor<1, Int>>,
    options: &DevoxelizeOptions,
) -> Result<Tensor<2>> {
    let DevoxelizeOptions { grid, interpolation, renormalize } = options;
    let trace = RowTrace::start("devoxelize", devoxelize_kind(*interpolation));
    let map = build_point_voxel_map(points, batch, voxels.support(), grid, *interpolation, *renormalize)?;
    let trace = trace.mapped(voxels.feats());
    let out = mix_rows(voxels.feats().clone(), &map.map, 0.0);
    trace.finish(voxels.feats().dims(), &out, |device| entries(&map.map, device), ROW_MIX);
    Ok(out)
}

/// [`devoxelize`] with a map that was built before.
///
/// # Errors
/// [`Error::Identity`] for a map of another support.
pub fn devoxelize_with_map(voxels: &SparseTensor, map: &PointVoxelMap) -> Result<Tensor<2>> {
    if !same_rows(&voxels.device(), voxels.support().to_host(), map.voxels.to_host()) {
        return Err(Error::Identity {
            op: "devoxelize",
            what: "expected a map of this tensor's rows, found one of another support; build it from this tensor".into(),
        });
    }
    interpolate_point_features(voxels.feats().clone(), map)
}
