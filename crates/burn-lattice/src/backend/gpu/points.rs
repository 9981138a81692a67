//! Points, the voxels around them and neighbours on a GPU.
//!
//! As for supports, functions answer `None` for another device and where the host must answer: where something is wrong, the host says
//! what, and keys or distances past what kernels compute with are its own.

use burn::tensor::{DType, Device, Int, Tensor};
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{CubeBackend, CubeDevice};
use lattice_core::{self as core, Interpolation, MAX_BATCH_ID, NonFinite, VoxelGrid};
use lattice_gpu::neighbours::{self, Neighbours, SearchRows};
use lattice_gpu::points::{self, PointCorners, Quantized, Voxels};
use lattice_gpu::rows::DeviceRowMap;
use lattice_gpu::{Buffer, Gpu};

use super::device::gpu_device;
use super::forms::{MAX_ROWS, key};
use super::made::{DeviceSupport, Rows as KnownRows, int_buffer, int_tensor, made, support};
use super::maps::made_map;
use super::rows::{Rows, tensor_of};
use crate::backend::found::{
    CornersOfPoints, DeviceCorners, DeviceNeighbours, DeviceVoxels, Found, NeighbourColumn, NeighbourSearch,
    NeighboursFound, ReadBack, VoxelsOfPoints,
};

/// Most points on a device: eight numbers each are counted in 32 bits.
const MAX_POINTS: usize = (1 << 29) - 1;

/// A device that results lie on.
#[derive(Clone, Debug)]
struct Place {
    gpu: Gpu,
    device: CubeDevice,
}

impl Place {
    fn is(&self, device: &Device) -> bool {
        gpu_device(device).is_some_and(|device| key(&device) == key(&self.device))
    }

    /// A buffer as integers of this device, with autodiff where `device` has it; `None` for another one.
    fn integers<const D: usize>(
        &self,
        device: &Device,
        buffer: &Buffer,
        dims: [usize; D],
    ) -> Option<Tensor<D, Int>> {
        self.tensor(device, buffer, dims, DType::I32).map(|tensor| int_tensor(device, tensor))
    }

    /// As [`Self::integers`], of f32.
    fn floats<const D: usize>(
        &self,
        device: &Device,
        buffer: &Buffer,
        dims: [usize; D],
    ) -> Option<Tensor<D>> {
        let tensor = Tensor::from_primitive::<CubeBackend>(self.tensor(device, buffer, dims, DType::F32)?);
        Some(if device.is_autodiff() { Tensor::from_inner(tensor) } else { tensor })
    }

    fn tensor<const D: usize>(
        &self,
        device: &Device,
        buffer: &Buffer,
        dims: [usize; D],
        dtype: DType,
    ) -> Option<CubeTensor> {
        // Memory without bytes is no tensor's.
        (buffer.len > 0 && self.is(device))
            .then(|| tensor_of(&self.gpu, &self.device, buffer.clone(), dims, dtype))
    }

    /// A row map whose entries lie here, as [`made_map`] makes it: there are fewer rows than it refuses.
    fn row_map(
        &self,
        form: DeviceRowMap,
        longest: [Option<usize>; 2],
        transpose: Option<DeviceRowMap>,
    ) -> core::RowMap {
        let made = made_map(&self.gpu, &self.device, form, longest, transpose);
        made.expect("points and rows of a device are numbered in 32 bits")
    }
}

/// Points `[n, 3]` in f32 that lie on a GPU, with their batch ids in i32 on the same one.
struct Cloud {
    place: Place,
    points: Buffer,
    batch: Option<Buffer>,
}

impl Cloud {
    fn new(points: &Tensor<2>, batch: Option<&Tensor<1, Int>>) -> Option<Self> {
        let device = gpu_device(&points.device())?;
        let [n, columns] = points.dims();
        if columns != 3 || n == 0 || n > MAX_POINTS || points.dtype() != DType::F32 {
            return None;
        }
        let tensor = Rows::new(points.clone().without_autodiff().try_into_primitive::<CubeBackend>().ok()?);
        let place = Place { gpu: tensor.gpu.clone(), device };
        let batch = match batch {
            None => None,
            Some(ids) if place.is(&ids.device()) && ids.dims() == [n] => Some(int_buffer(ids)?),
            Some(_) => return None,
        };
        Some(Self { place, points: tensor.buffer(), batch })
    }
}

/// The voxels of points, found where the points lie.
pub(crate) fn quantize(
    points: &Tensor<2>,
    batch: Option<&Tensor<1, Int>>,
    grid: &VoxelGrid,
    non_finite: NonFinite,
) -> Option<VoxelsOfPoints> {
    let Cloud { place, points, batch } = Cloud::new(points, batch)?;
    VoxelGrid::try_new(grid.voxel_size, grid.origin).ok()?;
    let Quantized::Voxels(voxels) = points::quantize(&place.gpu, &points, batch.as_ref(), grid, non_finite)
    else {
        return None;
    };
    if voxels.bounds.1[0] > MAX_BATCH_ID {
        return None;
    }
    let rows = KnownRows { n: voxels.n_voxels, canonical: true, bounds: Some(voxels.bounds) };
    let support = made(&place.gpu, &place.device, DeviceSupport::new(voxels.coords.clone(), rows))?;
    let dropped = voxels.dropped;
    let there = VoxelsThere { place, voxels, support: support.clone() };
    Some(VoxelsOfPoints { support, dropped, found: Found::there(Box::new(there)) })
}

#[derive(Debug)]
struct VoxelsThere {
    place: Place,
    voxels: Box<Voxels>,
    support: core::Support,
}

impl ReadBack<core::Voxelization> for VoxelsThere {
    fn read(&self) -> core::Voxelization {
        core::Voxelization {
            support: self.support.clone(),
            voxel_of_point: self.place.gpu.download(&self.voxels.voxel_of_point),
            counts: self.place.gpu.download(&self.voxels.counts),
            dropped: self.voxels.dropped,
        }
    }
}

impl DeviceVoxels for VoxelsThere {
    fn row_map(&self, mean: bool, training: bool) -> core::RowMap {
        let Self { place, voxels, .. } = self;
        let longest = [Some(voxels.longest), Some(1)];
        let map = DeviceRowMap::voxels_of_points(&place.gpu, voxels, mean);
        let back = training.then(|| DeviceRowMap::points_of_voxels(&place.gpu, voxels, mean));
        place.row_map(map, longest, back)
    }

    fn voxel_of_point(&self, device: &Device) -> Option<Tensor<1, Int>> {
        self.place.integers(device, &self.voxels.voxel_of_point, [self.voxels.n_points()])
    }

    fn counts(&self, device: &Device) -> Option<Tensor<1, Int>> {
        self.place.integers(device, &self.voxels.counts, [self.voxels.n_voxels])
    }
}

/// The voxels around points, found where the points lie.
pub(crate) fn point_corners(
    points: &Tensor<2>,
    batch: Option<&Tensor<1, Int>>,
    voxels: &core::Support,
    grid: &VoxelGrid,
    interpolation: Interpolation,
    renormalize: bool,
) -> Option<CornersOfPoints> {
    let Cloud { place, points, batch } = Cloud::new(points, batch)?;
    VoxelGrid::try_new(grid.voxel_size, grid.origin).ok()?;
    if voxels.n_rows() > MAX_ROWS {
        return None;
    }
    let form = support(&place.gpu, &place.device, voxels);
    let index = form.index(&place.gpu);
    let found =
        points::point_corners(&place.gpu, &points, batch.as_ref(), index, grid, interpolation, renormalize);
    Some(Found::there(Box::new(CornersThere { corners: found.ok()?, place })))
}

#[derive(Debug)]
struct CornersThere {
    place: Place,
    corners: PointCorners,
}

impl CornersThere {
    fn dims(&self) -> [usize; 2] {
        [self.corners.rows.len / 8, 8]
    }
}

impl ReadBack<core::PointVoxelMap> for CornersThere {
    fn read(&self) -> core::PointVoxelMap {
        let gpu = &self.place.gpu;
        core::PointVoxelMap {
            rows: gpu.download::<i32>(&self.corners.rows).as_chunks::<8>().0.to_vec(),
            weights: gpu.download::<f32>(&self.corners.weights).as_chunks::<8>().0.to_vec(),
        }
    }
}

impl DeviceCorners for CornersThere {
    fn row_map(&self) -> core::RowMap {
        self.place.row_map(self.corners.map.clone(), [Some(8), None], None)
    }

    fn rows(&self, device: &Device) -> Option<Tensor<2, Int>> {
        self.place.integers(device, &self.corners.rows, self.dims())
    }

    fn weights(&self, device: &Device) -> Option<Tensor<2>> {
        self.place.floats(device, &self.corners.weights, self.dims())
    }
}

/// The neighbours of queries, found on a device.
pub(crate) fn find_neighbours(
    device: &Device,
    source: &core::Support,
    query: &core::Support,
    search: NeighbourSearch,
) -> Option<NeighboursFound> {
    let place = gpu_device(device).map(|device| Place { gpu: Gpu::new(device.client()), device })?;
    let (source_bounds, query_bounds) = (source.bounds()?, query.bounds()?);
    if source.n_rows().max(query.n_rows()) > MAX_ROWS {
        return None;
    }
    let gpu = &place.gpu;
    let (from, queries) = (support(gpu, &place.device, source), support(gpu, &place.device, query));
    let rows = SearchRows { coords: &from.coords, order: from.order(gpu), bounds: source_bounds };
    let queries = SearchRows { coords: &queries.coords, order: None, bounds: query_bounds };
    let found = match search {
        NeighbourSearch::Nearest(0) | NeighbourSearch::Within(_, Some(0)) => None,
        NeighbourSearch::Nearest(k) => neighbours::knn(gpu, rows, queries, k),
        NeighbourSearch::Within(radius, _) if !radius.is_finite() || radius < 0.0 => None,
        NeighbourSearch::Within(radius, most) => neighbours::radius(gpu, rows, queries, radius, most),
    }?;
    Some(Found::there(Box::new(NeighboursThere { n_source: source.n_rows(), found, place })))
}

#[derive(Debug)]
struct NeighboursThere {
    place: Place,
    found: Neighbours,
    n_source: usize,
}

impl ReadBack<core::Neighbours> for NeighboursThere {
    fn read(&self) -> core::Neighbours {
        let (gpu, found) = (&self.place.gpu, &self.found);
        core::Neighbours {
            splits: gpu.download::<u32>(&found.splits).into_iter().map(|split| split as usize).collect(),
            source_rows: gpu.download(&found.source_rows),
            distances: gpu.download(&found.distances),
            neighbour_ids: gpu.download(&found.neighbour_ids),
        }
    }
}

impl DeviceNeighbours for NeighboursThere {
    fn n_pairs(&self) -> usize {
        self.found.n_pairs
    }

    fn row_map(&self) -> core::RowMap {
        let map = DeviceRowMap::gather(&self.place.gpu, &self.found.source_rows, self.n_source);
        self.place.row_map(map, [Some(1), None], None)
    }

    fn column(&self, column: NeighbourColumn, device: &Device) -> Option<Tensor<1, Int>> {
        let buffer = match column {
            NeighbourColumn::Source => &self.found.source_rows,
            NeighbourColumn::Query => &self.found.query_rows,
            NeighbourColumn::Rank => &self.found.neighbour_ids,
        };
        self.place.integers(device, buffer, [self.found.n_pairs])
    }

    fn distances(&self, device: &Device) -> Option<Tensor<1>> {
        self.place.floats(device, &self.found.distances, [self.found.n_pairs])
    }
}
