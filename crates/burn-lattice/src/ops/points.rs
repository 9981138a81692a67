//! From points to voxels: quantize and voxelize.
//!
//! Points are `[n, 3]` in f32, batch ids `[n]`, all 0 where they are left out. A voxel of the grid holds the points with
//! `floor((p - origin) / voxel_size)` equal to its coordinate, evaluated in f32. Features are differentiable; points, ids and
//! weights are not. Points on a GPU are assigned there, to the voxels that the CPU would find; what is found stays there until the host
//! asks for it.

use std::str::FromStr;
use std::sync::{Arc, OnceLock};

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use lattice_core as core;
pub use lattice_core::{NonFinite, VoxelGrid};

use super::integers::{batch_ids, int_tensor};
use super::mix_rows;
use super::row_groups::entries;
use super::row_trace::{ROW_MIX, RowTrace};
use crate::backend::{self, DeviceVoxels, Found, VoxelsOfPoints};
use crate::tensor::check_features;
use crate::{CoordinateManager, Error, Result, RowMap, SparseTensor, Support};

/// Points and their batch ids in host memory.
pub(crate) struct Cloud {
    pub(crate) points: Vec<[f32; 3]>,
    pub(crate) batch: Option<Vec<i32>>,
}

impl Cloud {
    /// Reads `points [n, 3]` and `batch [n]`.
    pub(crate) fn new(op: &'static str, points: Tensor<2>, batch: Option<Tensor<1, Int>>) -> Result<Self> {
        let [n, columns] = points.dims();
        if columns != 3 {
            return Err(Error::Shape {
                op,
                expected: "points of shape [n, 3]".into(),
                found: format!("[{n}, {columns}]"),
            });
        }
        if points.dtype() != DType::F32 {
            return Err(Error::Dtype { op, expected: "f32", found: format!("points {:?}", points.dtype()) });
        }
        let batch = batch.map(|ids| batch_ids(op, ids, n)).transpose()?;
        let data = points.into_data();
        let values = data.as_slice::<f32>().expect("the dtype was checked above");
        Ok(Self { points: values.as_chunks::<3>().0.to_vec(), batch })
    }
}

/// Points that were assigned to voxels: the geometry of voxelization, to be reused for any features of the same points.
#[derive(Clone, Debug)]
pub struct SparseQuantization {
    support: Support,
    n_points: usize,
    dropped: usize,
    found: Arc<Found<core::Voxelization, dyn DeviceVoxels>>,
    sum: Arc<OnceLock<RowMap>>,
    mean: Arc<OnceLock<RowMap>>,
}

impl SparseQuantization {
    /// The occupied voxels, in canonical order.
    pub fn support(&self) -> &Support {
        &self.support
    }

    /// Number of points.
    pub fn n_points(&self) -> usize {
        self.n_points
    }

    /// Points left out because they were not finite.
    pub fn dropped(&self) -> usize {
        self.dropped
    }

    /// Voxel row of every point `[n_points]`, -1 for a point left out.
    pub fn voxel_of_point(&self, device: &Device) -> Tensor<1, Int> {
        let there = self.found.on_device().and_then(|found| found.voxel_of_point(device));
        there.unwrap_or_else(|| int_tensor(self.to_host().voxel_of_point.clone(), [self.n_points], device))
    }

    /// Points of every voxel `[n_voxels]`.
    pub fn counts(&self, device: &Device) -> Tensor<1, Int> {
        if let Some(there) = self.found.on_device().and_then(|found| found.counts(device)) {
            return there;
        }
        let counts: Vec<i64> = self.to_host().counts.iter().map(|&count| i64::from(count)).collect();
        let n = counts.len();
        Tensor::from_data(TensorData::new(counts, [n]), device)
    }

    /// The assignment in host memory. Reads it, where it was made on a GPU and this is the first call.
    pub fn to_host(&self) -> &core::Voxelization {
        self.found.host()
    }

    fn map(&self, reduction: VoxelReduction, training: bool) -> RowMap {
        let mean = reduction == VoxelReduction::Mean;
        let build = || match self.found.on_device() {
            Some(found) => found.row_map(mean, training).into(),
            None if mean => core::RowMap::voxel_mean(self.to_host()).into(),
            None => core::RowMap::voxel_sum(self.to_host()).into(),
        };
        if mean { &self.mean } else { &self.sum }.get_or_init(build).clone()
    }
}

/// Assigns points to voxels.
///
/// # Shapes
/// `points [n, 3]`, `batch [n]`.
/// # Errors
/// Shapes or element types that do not fit; negative batch ids; voxels outside i32; a point that is not finite, unless
/// `non_finite` drops it.
pub fn sparse_quantize(
    points: Tensor<2>,
    batch: Option<Tensor<1, Int>>,
    grid: &VoxelGrid,
    non_finite: NonFinite,
) -> Result<SparseQuantization> {
    let [n_points, _] = points.dims();
    let VoxelsOfPoints { support, dropped, found } =
        match backend::quantize(&points, batch.as_ref(), grid, non_finite) {
            Some(voxels) => voxels,
            None => {
                let cloud = Cloud::new("sparse_quantize", points, batch)?;
                let host = core::quantize(&cloud.points, cloud.batch.as_deref(), grid, non_finite)?;
                VoxelsOfPoints {
                    support: host.support.clone(),
                    dropped: host.dropped,
                    found: Found::Here(host),
                }
            }
        };
    Ok(SparseQuantization {
        support: support.into(),
        n_points,
        dropped,
        found: Arc::new(found),
        sum: Arc::default(),
        mean: Arc::default(),
    })
}

/// How the features of a voxel's points become the voxel's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum VoxelReduction {
    /// Their mean.
    #[default]
    Mean,
    /// Their sum.
    Sum,
}

impl FromStr for VoxelReduction {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        match word {
            "mean" => Ok(Self::Mean),
            "sum" => Ok(Self::Sum),
            _ => Err(Error::Value {
                op: "voxelize",
                what: format!("expected one of mean, sum, found `{word}`"),
            }),
        }
    }
}

/// How [`voxelize`] makes voxels.
#[derive(Clone, Copy, Debug)]
pub struct VoxelizeOptions {
    /// Size and place of the voxels.
    pub grid: VoxelGrid,
    /// How features are reduced.
    pub reduction: VoxelReduction,
    /// What happens to points that are not finite.
    pub non_finite: NonFinite,
    /// Tensor stride of the result; it does not enter the arithmetic.
    pub stride: [u32; 3],
}

impl VoxelizeOptions {
    /// Means, at stride 1; points that are not finite are errors.
    pub fn new(grid: VoxelGrid) -> Self {
        Self { grid, reduction: VoxelReduction::Mean, non_finite: NonFinite::Error, stride: [1; 3] }
    }

    /// Voxels of one size from the origin of the points.
    ///
    /// # Errors
    /// A size that is not a finite number above 0.
    pub fn cubic(voxel_size: f32) -> Result<Self> {
        Ok(Self::new(VoxelGrid::cubic(voxel_size)?))
    }

    /// Chooses how features are reduced.
    pub fn with_reduction(self, reduction: VoxelReduction) -> Self {
        Self { reduction, ..self }
    }

    /// Chooses what happens to points that are not finite.
    pub fn with_non_finite(self, non_finite: NonFinite) -> Self {
        Self { non_finite, ..self }
    }

    /// Chooses the tensor stride of the result.
    pub fn with_stride(self, stride: [u32; 3]) -> Self {
        Self { stride, ..self }
    }
}

/// Points and their features to a sparse tensor in a manager of its own. Differentiable in the features.
///
/// # Shapes
/// `points [n, 3]`, `feats [n, c]`, `batch [n]`; result `[voxels, c]` in canonical order, without batch counts.
/// # Errors
/// As [`sparse_quantize`] and [`voxelize_with_quantization`].
pub fn voxelize(
    points: Tensor<2>,
    feats: Tensor<2>,
    batch: Option<Tensor<1, Int>>,
    options: &VoxelizeOptions,
) -> Result<SparseTensor> {
    let quantization = sparse_quantize(points, batch, &options.grid, options.non_finite)?;
    voxelize_with_quantization(&quantization, feats, options.reduction, options.stride, None)
}

/// Features of points on the voxels of an earlier assignment. Differentiable in the features.
///
/// A template that an earlier call made from the same assignment gives its manager, identity and batch counts, so cached
/// relations are found again.
///
/// # Shapes
/// `feats [n_points, c]`; result `[voxels, c]`.
/// # Errors
/// Another number of rows, a dtype that is not a float, a stride with a zero component; a template of another support or stride.
pub fn voxelize_with_quantization(
    quantization: &SparseQuantization,
    feats: Tensor<2>,
    reduction: VoxelReduction,
    stride: [u32; 3],
    template: Option<&SparseTensor>,
) -> Result<SparseTensor> {
    let op = "voxelize";
    check_features(op, &feats)?;
    let [rows, _] = feats.dims();
    if rows != quantization.n_points() {
        return Err(Error::Shape {
            op,
            expected: format!("{} feature rows, one a point", quantization.n_points()),
            found: format!("{rows} rows"),
        });
    }
    if let Some(template) = template {
        if !template.support().same_identity(&quantization.support) {
            return Err(Error::Identity {
                op,
                what: "expected a template made from this quantization, found another support; leave it out"
                    .into(),
            });
        }
        if template.stride() != stride {
            return Err(Error::StrideMismatch { op, expected: stride, found: template.stride() });
        }
    }
    let kind = match reduction {
        VoxelReduction::Mean => "voxelize.mean",
        VoxelReduction::Sum => "voxelize.sum",
    };
    let trace = RowTrace::start(op, kind);
    let map = quantization.map(reduction, feats.device().is_autodiff());
    let trace = trace.mapped(&feats);
    let from = feats.dims();
    let feats = mix_rows(feats, &map, 0.0);
    trace.finish(from, &feats, |device| entries(&map, device), ROW_MIX);
    match template {
        Some(template) => template.with_feats(feats),
        None => {
            SparseTensor::with_manager(quantization.support.clone(), feats, stride, CoordinateManager::new())
        }
    }
}
