//! The sparse tensor: features bound to a support.

use std::sync::Arc;

use burn::tensor::{DType, Device, FloatDType, Int, Tensor, TensorData};

use crate::backend;
use crate::support::BatchCounts;
use crate::{CoordinateKey, CoordinateManager, Error, Result, Support};

/// Features `[rows, channels]` on the rows of a [`Support`], at a tensor stride, with the manager that caches their relations.
///
/// Coordinates are *logical*: divided by the stride. Two tensors share their *coordinate identity* when support and stride are
/// the same objects, not merely equal; caches are keyed by it, and operations on shared identities never align rows.
#[derive(Clone, Debug)]
pub struct SparseTensor {
    feats: Tensor<2>,
    support: Support,
    stride: [u32; 3],
    manager: CoordinateManager,
    batch_counts: BatchCounts,
}

/// Refuses element types that features may not have where they lie: f64 is for the CPU, and a GPU may lack f16 or bf16.
pub(crate) fn check_features<const D: usize>(op: &'static str, feats: &Tensor<D>) -> Result<()> {
    let dtype = feats.dtype();
    if !matches!(dtype, DType::F64 | DType::F32 | DType::F16 | DType::BF16) {
        return Err(Error::Dtype { op, expected: "f32, f16, bf16 or f64", found: format!("{dtype:?}") });
    }
    if !backend::takes_dtype(&feats.device(), dtype) {
        return Err(Error::Dtype {
            op,
            expected: "an element type that the device computes with: f32, or f16 and bf16 where it has them",
            found: format!("{dtype:?} on {:?}", feats.device()),
        });
    }
    Ok(())
}

impl SparseTensor {
    /// Binds features `[n, c]` to coordinates `[n, 4]` (batch, x, y, z) at stride 1, in a manager of its own.
    ///
    /// # Errors
    /// Lengths that differ, duplicate coordinates, negative batch ids, a dtype that is not a float.
    pub fn new(coords: Tensor<2, Int>, feats: Tensor<2>) -> Result<Self> {
        Self::from_support(Support::from_tensor(coords)?, feats)
    }

    /// Binds features `[n, c]` to a support at stride 1, in a manager of its own.
    ///
    /// # Errors
    /// Features that do not have one row a coordinate, or a dtype that is not a float.
    pub fn from_support(support: Support, feats: Tensor<2>) -> Result<Self> {
        Self::with_manager(support, feats, [1; 3], CoordinateManager::new())
    }

    /// Binds features `[n, c]` to a support at `stride`, sharing the caches of `manager`.
    ///
    /// # Errors
    /// As [`from_support`](Self::from_support); also a stride with a zero component.
    pub fn with_manager(
        support: Support,
        feats: Tensor<2>,
        stride: [u32; 3],
        manager: CoordinateManager,
    ) -> Result<Self> {
        let [rows, _] = feats.dims();
        if rows != support.n_rows() {
            return Err(Error::Shape {
                op: "SparseTensor",
                expected: format!("{} feature rows, one a coordinate", support.n_rows()),
                found: format!("{rows} rows"),
            });
        }
        check_features("SparseTensor", &feats)?;
        manager.insert(&support, stride)?;
        Ok(Self { feats, support, stride, manager, batch_counts: None })
    }

    /// Binds features to a registered support.
    ///
    /// # Errors
    /// As [`with_manager`](Self::with_manager); also a key of another manager.
    pub fn from_key(key: &CoordinateKey, feats: Tensor<2>, manager: &CoordinateManager) -> Result<Self> {
        Self::with_manager(manager.support(key)?, feats, key.stride, manager.clone())
    }

    /// Declares how many rows each batch item has; items without rows count as 0.
    ///
    /// # Errors
    /// Counts that differ from the batch column.
    pub fn with_batch_counts(mut self, counts: &[usize]) -> Result<Self> {
        let mut found = self.support.to_host().batch_counts();
        let used = found.len();
        if used <= counts.len() {
            found.resize(counts.len(), 0);
        }
        if found != counts {
            return Err(Error::Shape {
                op: "SparseTensor::with_batch_counts",
                expected: format!("the rows of each batch item, {found:?}"),
                found: format!("{counts:?}"),
            });
        }
        self.batch_counts = Some(counts.into());
        Ok(self)
    }

    /// Features `[n_rows, channels]`.
    pub fn feats(&self) -> &Tensor<2> {
        &self.feats
    }

    /// Takes the features out.
    pub fn into_feats(self) -> Tensor<2> {
        self.feats
    }

    /// The support.
    pub fn support(&self) -> &Support {
        &self.support
    }

    /// Coordinates `[n_rows, 4]` on the features' device.
    pub fn coords(&self) -> Tensor<2, Int> {
        self.support.to_tensor(&self.device())
    }

    /// Size of one voxel in voxels of the finest lattice, per axis.
    pub fn stride(&self) -> [u32; 3] {
        self.stride
    }

    /// The owner of the cached relations.
    pub fn manager(&self) -> &CoordinateManager {
        &self.manager
    }

    /// Token of the coordinate identity.
    pub fn key(&self) -> CoordinateKey {
        CoordinateKey { support: self.support.id(), stride: self.stride, manager: self.manager.id() }
    }

    /// Number of rows.
    pub fn n_rows(&self) -> usize {
        self.support.n_rows()
    }

    /// Number of feature channels.
    pub fn channels(&self) -> usize {
        self.feats.dims()[1]
    }

    /// Element type of the features.
    pub fn dtype(&self) -> DType {
        self.feats.dtype()
    }

    /// Device of the features.
    pub fn device(&self) -> Device {
        self.feats.device()
    }

    /// Declared rows per batch item, if any were declared or kept.
    pub fn batch_counts(&self) -> Option<&[usize]> {
        self.batch_counts.as_deref()
    }

    /// Number of batch items: the declared one, else the largest batch id plus one.
    pub fn batch_size(&self) -> usize {
        match &self.batch_counts {
            Some(counts) => counts.len(),
            None => self.support.to_host().batch_size(),
        }
    }

    /// Ascending rows of each batch item.
    pub fn batch_rows(&self) -> Vec<Vec<u32>> {
        let mut rows = self.manager.batch_rows(&self.support).as_ref().clone();
        rows.resize(self.batch_size(), Vec::new());
        rows
    }

    /// Coordinates of each batch item without the batch column, `[n_b, 3]` each.
    pub fn decomposed_coords(&self) -> Vec<Tensor<2, Int>> {
        let coords = self.support.to_host().coords();
        let device = self.device();
        let item = |rows: Vec<u32>| {
            let flat: Vec<i32> = rows.iter().flat_map(|&r| coords[r as usize][1..].to_vec()).collect();
            Tensor::from_data(TensorData::new(flat, [rows.len(), 3]), &device)
        };
        self.batch_rows().into_iter().map(item).collect()
    }

    /// Features of each batch item, `[n_b, channels]` each; differentiable.
    pub fn decomposed_feats(&self) -> Vec<Tensor<2>> {
        let gather = |rows: Vec<u32>| crate::ops::gather_rows(&self.feats, &rows);
        self.batch_rows().into_iter().map(gather).collect()
    }

    /// Same coordinate identity: one support at one stride.
    pub fn same_coords(&self, other: &Self) -> bool {
        self.support.same_identity(&other.support) && self.stride == other.stride
    }

    /// New features on the same identity.
    ///
    /// # Errors
    /// As [`with_manager`](Self::with_manager).
    pub fn with_feats(&self, feats: Tensor<2>) -> Result<Self> {
        let [rows, _] = feats.dims();
        if rows != self.n_rows() {
            return Err(Error::Shape {
                op: "SparseTensor::with_feats",
                expected: format!("{} feature rows, one a coordinate", self.n_rows()),
                found: format!("{rows} rows"),
            });
        }
        check_features("SparseTensor::with_feats", &feats)?;
        Ok(Self { feats, ..self.clone() })
    }

    /// Applies a map of features that keeps the number of rows.
    ///
    /// # Panics
    /// When `map` changes the number of rows.
    pub fn map_feats(self, map: impl FnOnce(Tensor<2>) -> Tensor<2>) -> Self {
        let rows = self.n_rows();
        let feats = map(self.feats);
        assert_eq!(feats.dims()[0], rows, "map_feats: a feature map keeps its rows");
        Self { feats, ..self }
    }

    /// The same rows at another stride: a new identity, without batch counts.
    ///
    /// # Errors
    /// A stride with a zero component.
    pub fn with_stride(&self, stride: [u32; 3]) -> Result<Self> {
        Self::with_manager(self.support.clone(), self.feats.clone(), stride, self.manager.clone())
    }

    /// Own features on the metadata of a tensor with the same identity.
    ///
    /// # Errors
    /// [`Error::Identity`] when the identities differ.
    pub fn reuse_coords_from(&self, other: &Self) -> Result<Self> {
        if !self.same_coords(other) {
            return Err(Error::Identity {
                op: "SparseTensor::reuse_coords_from",
                what: "expected one support at one stride, found two; align with a join or `reindex` first"
                    .into(),
            });
        }
        other.with_feats(self.feats.clone())
    }

    /// The same tensor with features of another element type.
    pub fn astype(&self, dtype: FloatDType) -> Self {
        Self { feats: self.feats.clone().cast(dtype), ..self.clone() }
    }

    /// The same tensor on another device; relations are shared where the device can use them.
    pub fn to_device(&self, device: &Device) -> Self {
        Self { feats: self.feats.clone().to_device(device), ..self.clone() }
    }

    /// The same tensor cut from the autodiff graph.
    pub fn detach(&self) -> Self {
        Self { feats: self.feats.clone().detach(), ..self.clone() }
    }

    /// The features on another identity of as many rows, in this tensor's manager.
    pub(crate) fn derived(
        &self,
        support: Support,
        feats: Tensor<2>,
        stride: [u32; 3],
        batch_counts: BatchCounts,
    ) -> Result<Self> {
        let mut tensor = Self::with_manager(support, feats, stride, self.manager.clone())?;
        tensor.batch_counts = batch_counts;
        Ok(tensor)
    }

    /// Batch counts of a derived support: recounted where this tensor had counts.
    pub(crate) fn recount(&self, support: &Support) -> BatchCounts {
        let items = self.batch_counts.as_ref()?.len();
        if support.same_identity(&self.support) {
            return self.batch_counts.clone();
        }
        if let Some(counts) = backend::batch_counts(&self.device(), support.to_host(), items) {
            return Some(Arc::from(counts));
        }
        let mut counts = support.to_host().batch_counts();
        counts.resize(items.max(counts.len()), 0);
        Some(Arc::from(counts))
    }
}
