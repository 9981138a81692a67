//! What a build without GPUs knows of devices: all are CPUs, and take everything.

use burn::tensor::{Bool, DType, Device, FloatDType, Int, Tensor};
use lattice_core::{
    self as core, Interpolation, KernelSpec, NonFinite, RelationKind, SupportPolicy, VoxelGrid,
};

use super::{CornersOfPoints, Grid, NeighbourSearch, NeighboursFound, VoxelsOfPoints};
use crate::Result;
use crate::routes::{ConvWork, DeviceClass};

pub(crate) fn device_class(_device: &Device) -> DeviceClass {
    DeviceClass::Cpu
}

pub(crate) fn device_name(_device: &Device) -> String {
    "cpu".into()
}

pub(crate) fn is_software(_device: &Device) -> bool {
    false
}

pub(crate) fn takes_dtype(_device: &Device, _dtype: DType) -> bool {
    true
}

pub(crate) fn check_relation(_op: &'static str, _device: &Device, _relation: &core::Relation) -> Result<()> {
    Ok(())
}

pub(crate) fn check_room(_op: &'static str, _device: &Device, _bytes: u64) -> Result<()> {
    Ok(())
}

pub(crate) fn check_row_map(_op: &'static str, _device: &Device, _map: &core::RowMap) -> Result<()> {
    Ok(())
}

pub(crate) fn prepare(_device: &Device, _relation: &core::Relation, _training: bool) {}

pub(crate) fn n_pairs(_device: &Device, relation: &core::Relation) -> usize {
    relation.n_pairs()
}

pub(crate) fn conv_work(_device: &Device, _relation: &core::Relation) -> Option<ConvWork> {
    None
}

pub(crate) fn peaks(_device: &Device, _dtype: DType) -> Option<[f64; 2]> {
    None
}

pub(crate) fn concat_columns(_lhs: &Tensor<2>, _rhs: &Tensor<2>) -> Option<Tensor<2>> {
    None
}

pub(crate) fn folded(
    statistics: [Tensor<1>; 2],
    affine: [Option<Tensor<1>>; 2],
    _eps: f64,
    fold: impl FnOnce([Tensor<1>; 2], [Option<Tensor<1>>; 2]) -> (Tensor<1>, Tensor<1>),
) -> (Tensor<1>, Tensor<1>) {
    fold(statistics, affine)
}

pub(crate) fn cast_bias(bias: Tensor<1>, dtype: FloatDType) -> Tensor<1> {
    if bias.dtype() == DType::from(dtype) { bias } else { bias.cast(dtype) }
}

pub(crate) fn created_support(
    _device: &Device,
    _kind: RelationKind,
    _source: &core::Support,
    _spec: &KernelSpec,
    _policy: SupportPolicy,
) -> Option<core::Support> {
    None
}

pub(crate) fn support_from_tensor(_coords: &Tensor<2, Int>) -> Option<core::Support> {
    None
}

pub(crate) fn support_to_tensor(_device: &Device, _host: &core::Support) -> Option<Tensor<2, Int>> {
    None
}

pub(crate) fn quantize(
    _points: &Tensor<2>,
    _batch: Option<&Tensor<1, Int>>,
    _grid: &VoxelGrid,
    _non_finite: NonFinite,
) -> Option<VoxelsOfPoints> {
    None
}

pub(crate) fn point_corners(
    _points: &Tensor<2>,
    _batch: Option<&Tensor<1, Int>>,
    _voxels: &core::Support,
    _grid: &VoxelGrid,
    _interpolation: Interpolation,
    _renormalize: bool,
) -> Option<CornersOfPoints> {
    None
}

pub(crate) fn find_neighbours(
    _device: &Device,
    _source: &core::Support,
    _query: &core::Support,
    _search: NeighbourSearch,
) -> Option<NeighboursFound> {
    None
}

/// Never made: the host joins.
pub(crate) struct JoinedMaps {
    pub(crate) support: core::Support,
    pub(crate) lhs: core::RowMap,
    pub(crate) rhs: core::RowMap,
}

pub(crate) fn joined(
    _device: &Device,
    _lhs: &core::Support,
    _rhs: &core::Support,
    _join: Option<core::Join>,
) -> Option<JoinedMaps> {
    None
}

pub(crate) fn same_rows(_device: &Device, a: &core::Support, b: &core::Support) -> bool {
    a.same_rows(b)
}

pub(crate) fn batch_counts(_device: &Device, _source: &core::Support, _items: usize) -> Option<Vec<usize>> {
    None
}

type Chosen = (core::Support, core::RowMap);

pub(crate) fn rows_where(
    _device: &Device,
    _source: &core::Support,
    _mask: &Tensor<1, Bool>,
) -> Option<Chosen> {
    None
}

pub(crate) fn rows_inside(
    _device: &Device,
    _source: &core::Support,
    _low: [i32; 3],
    _high: [i32; 3],
) -> Option<Chosen> {
    None
}

pub(crate) fn rows_named(
    _device: &Device,
    _source: &core::Support,
    _numbers: &Tensor<1, Int>,
) -> Option<Chosen> {
    None
}

pub(crate) fn top_rows(
    _source: &core::Support,
    _scores: &Tensor<1>,
    _rows: &[usize],
    _wanted: &[usize],
) -> Option<Tensor<1, Int>> {
    None
}

pub(crate) fn cell_map(
    _device: &Device,
    _source: &core::Support,
    _grid: &Grid,
    _single: bool,
) -> Option<core::RowMap> {
    None
}

pub(crate) fn batch_map(
    _device: &Device,
    _source: &core::Support,
    _items: usize,
    _mean: bool,
) -> Option<core::RowMap> {
    None
}

pub(crate) fn flat_map(
    _device: &Device,
    _source: &core::Support,
    _step: [u32; 3],
    _axis: usize,
    _mean: bool,
) -> Option<Chosen> {
    None
}
