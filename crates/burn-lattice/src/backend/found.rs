//! What a device finds of points and neighbours, as operations see it: results that stay there until the host asks for them.

use std::fmt::Debug;
use std::sync::OnceLock;

use burn::tensor::{Device, Int, Tensor};
use lattice_core as core;

/// Reads a result of a device.
pub(crate) trait ReadBack<T>: Debug + Send + Sync {
    /// The result in host memory. Waits for the device.
    fn read(&self) -> T;
}

/// A result in host memory, or one that lies on a device and is read when the host first asks.
#[derive(Debug)]
pub(crate) enum Found<T, D: ReadBack<T> + ?Sized> {
    /// Found by the host.
    Here(T),
    /// Found on a device.
    #[cfg_attr(not(feature = "gpu"), allow(dead_code, reason = "no device of this build finds anything"))]
    There {
        /// Where it lies.
        on_device: Box<D>,
        /// Its copy.
        read: OnceLock<T>,
    },
}

impl<T, D: ReadBack<T> + ?Sized> Found<T, D> {
    /// A result that lies on a device.
    #[cfg(feature = "gpu")]
    pub(crate) fn there(on_device: Box<D>) -> Self {
        Self::There { on_device, read: OnceLock::new() }
    }

    /// The result in host memory.
    pub(crate) fn host(&self) -> &T {
        match self {
            Self::Here(value) => value,
            Self::There { on_device, read } => read.get_or_init(|| on_device.read()),
        }
    }

    /// The result where a device found it.
    pub(crate) fn on_device(&self) -> Option<&D> {
        match self {
            Self::Here(_) => None,
            Self::There { on_device, .. } => Some(on_device),
        }
    }
}

/// Points that were assigned to voxels on a device. Tensors are `None` for another device.
pub(crate) trait DeviceVoxels: ReadBack<core::Voxelization> {
    /// Sum or mean of each voxel's points; made with its transpose for training.
    fn row_map(&self, mean: bool, training: bool) -> core::RowMap;
    /// Voxel row of every point.
    fn voxel_of_point(&self, device: &Device) -> Option<Tensor<1, Int>>;
    /// Points of every voxel.
    fn counts(&self, device: &Device) -> Option<Tensor<1, Int>>;
}

/// What an assignment of points to voxels consists of.
pub(crate) struct VoxelsOfPoints {
    /// The occupied voxels.
    pub(crate) support: core::Support,
    /// Points that were left out.
    pub(crate) dropped: usize,
    /// The assignment.
    pub(crate) found: Found<core::Voxelization, dyn DeviceVoxels>,
}

/// Voxels around points on a device. Tensors are `None` for another device.
pub(crate) trait DeviceCorners: ReadBack<core::PointVoxelMap> {
    /// The corners as a row map.
    fn row_map(&self) -> core::RowMap;
    /// Voxel rows `[n_points, 8]`.
    fn rows(&self, device: &Device) -> Option<Tensor<2, Int>>;
    /// Weights `[n_points, 8]`.
    fn weights(&self, device: &Device) -> Option<Tensor<2>>;
}

/// The voxels around points.
pub(crate) type CornersOfPoints = Found<core::PointVoxelMap, dyn DeviceCorners>;

/// A list of numbers, one a neighbour.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NeighbourColumn {
    /// Source row.
    Source,
    /// Query row.
    Query,
    /// Rank within the query.
    Rank,
}

/// Neighbours that were found on a device. Tensors are `None` for another device.
pub(crate) trait DeviceNeighbours: ReadBack<core::Neighbours> {
    /// Number of neighbours over all queries.
    fn n_pairs(&self) -> usize;
    /// The map that copies the source row of every neighbour.
    fn row_map(&self) -> core::RowMap;
    /// One of the lists.
    fn column(&self, column: NeighbourColumn, device: &Device) -> Option<Tensor<1, Int>>;
    /// Squared distances.
    fn distances(&self, device: &Device) -> Option<Tensor<1>>;
}

/// Neighbours of queries.
pub(crate) type NeighboursFound = Found<core::Neighbours, dyn DeviceNeighbours>;

/// How neighbours are asked for.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "gpu"), allow(dead_code, reason = "read on GPUs"))]
pub(crate) enum NeighbourSearch {
    /// The nearest ones, so many.
    Nearest(usize),
    /// Those within a radius, at most so many.
    Within(f64, Option<usize>),
}
