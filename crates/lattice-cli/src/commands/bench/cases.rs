//! The public suite: deterministic patterns, every family of operations, cold, hot and backward.
//!
//! `cold_op` makes the tensor objects anew for every call, so relations are rebuilt; `hot_op` keeps them, so caches hit; `backward` adds
//! the gradients for features and weight. Inputs exist before the clock starts.

use anyhow::{Result, anyhow};
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_lattice::core::KernelSpec;
use burn_lattice::ops::{
    self, ConvOptions, DevoxelizeOptions, DropoutKey, DuplicateReduction, GeluApproximation, NonFinite,
    NormAffine, PoolMode, PoolOptions, SparseQuantization, Target, VoxelGrid, VoxelReduction,
    VoxelizeOptions,
};
use burn_lattice::{Interpolation, Join, SparseTensor, Support};
use serde_json::json;

use super::measure::{features, median, percentile, time, weights};
use super::workload::{Pattern, points};
use super::{Calls, Case, FloatKind, Plan, Row};
use crate::memory;

/// How a case is called.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Cold,
    Hot,
    Backward,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Self::Cold => "cold_op",
            Self::Hot => "hot_op",
            Self::Backward => "backward",
        }
    }
}

/// Sizes of one case.
#[derive(Clone, Copy)]
struct Size {
    pattern: Pattern,
    n: usize,
    batches: usize,
    c_in: usize,
    c_out: usize,
    dtype: FloatKind,
}

/// What a case works on; made anew for each cold call.
struct Inputs {
    device: Device,
    size: Size,
    x: SparseTensor,
    other: SparseTensor,
    points: Tensor<2>,
    point_feats: Tensor<2>,
    weight3: Tensor<3>,
    weight2: Tensor<3>,
    weight1: Tensor<3>,
    linear: Tensor<2>,
    /// The points' voxels, for the cases that reuse an assignment.
    quantization: SparseQuantization,
}

impl Inputs {
    /// `tracked` puts features and weights on the autodiff graph.
    fn new(device: &Device, size: Size, tracked: bool) -> Result<Self> {
        let leaf2 = |t: Tensor<2>| if tracked { Tensor::from_inner(t).require_grad() } else { t };
        let leaf3 = |t: Tensor<3>| if tracked { Tensor::from_inner(t).require_grad() } else { t };
        let coords = size.pattern.coords(size.n, size.batches);
        // The other operand holds every second row of the first, moved by one along x: some rows are shared, some are not.
        let mut shifted: Vec<_> = coords.iter().step_by(2).map(|c| [c[0], c[1] + 1, c[2], c[3]]).collect();
        shifted.sort_unstable();
        shifted.dedup();
        let feats = |rows, channels| leaf2(features(device, rows, channels, size.dtype));
        let x =
            SparseTensor::from_support(Support::try_new(coords.clone())?, feats(coords.len(), size.c_in))?;
        let other_feats = feats(shifted.len(), size.c_in);
        let manager = x.manager().clone();
        let other = SparseTensor::with_manager(Support::try_new(shifted)?, other_feats, [1; 3], manager)?;
        let n_points = size.n * size.batches;
        let flat: Vec<f32> = points(n_points).into_iter().flatten().collect();
        let points = Tensor::from_data(TensorData::new(flat, [n_points, 3]), device);
        let quantization = ops::sparse_quantize(points.clone(), None, &unit_grid()?, NonFinite::Error)?;
        let kernel = |taps| leaf3(weights(device, [taps, size.c_in, size.c_out], size.dtype));
        Ok(Self {
            device: device.clone(),
            size,
            x,
            other,
            points,
            point_feats: leaf2(features(device, n_points, size.c_in, FloatKind::F32)),
            weight3: kernel(27),
            weight2: kernel(8),
            weight1: kernel(1),
            linear: leaf2(weights(device, [1, size.c_out, size.c_in], size.dtype).squeeze_dim(0)),
            quantization,
        })
    }

    /// `x` on the coarser lattice, in its manager.
    fn coarse(&self) -> Result<SparseTensor> {
        Ok(ops::pool3d(&self.x, PoolMode::Sum, &PoolOptions::cube(2, 2)?)?)
    }
}

/// What a call made.
#[derive(Default)]
struct Made {
    feats: Option<Tensor<2>>,
    n_out: usize,
    edges: usize,
    taps: usize,
    points: usize,
    conv: bool,
}

impl Made {
    fn rows(y: &SparseTensor) -> Self {
        Self { feats: Some(y.feats().clone()), n_out: y.n_rows(), ..Self::default() }
    }

    fn conv(x: &SparseTensor, y: &SparseTensor, taps: usize) -> Self {
        // The newest relation of the cache that leads to these rows.
        let edges = x
            .manager()
            .relations()
            .newest(|r| r.target().id() == y.support().id() && r.taps() == taps)
            .map_or(y.n_rows(), |r| r.n_pairs());
        Self { edges, taps, conv: true, ..Self::rows(y) }
    }

    fn count(n_out: usize) -> Self {
        Self { n_out, ..Self::default() }
    }
}

type Run = fn(&Inputs) -> Result<Made>;

/// One case of the suite.
struct Entry {
    group: &'static str,
    name: &'static str,
    pattern: Pattern,
    channels: Channels,
    backward: bool,
    run: Run,
}

#[derive(Clone, Copy)]
enum Channels {
    /// 16 and 64.
    Wide,
    /// 16.
    Conv,
    /// 32 and 64.
    Density,
    /// 8 and 32.
    Point,
    /// 8.
    Relation,
}

impl Channels {
    fn list(self) -> &'static [usize] {
        match self {
            Self::Wide => &[16, 64],
            Self::Conv => &[16],
            Self::Density => &[32, 64],
            Self::Point => &[8, 32],
            Self::Relation => &[8],
        }
    }
}

fn k3() -> Result<ConvOptions> {
    Ok(ConvOptions::new(KernelSpec::cube(3, 1)?))
}

fn k2s2() -> Result<ConvOptions> {
    Ok(ConvOptions::new(KernelSpec::cube(2, 2)?))
}

fn subm(i: &Inputs) -> Result<Made> {
    Ok(Made::conv(&i.x, &ops::subm_conv3d(&i.x, i.weight3.clone(), None, &k3()?)?, 27))
}

fn generic(i: &Inputs) -> Result<Made> {
    Ok(Made::conv(&i.x, &ops::conv3d(&i.x, i.weight3.clone(), None, &k3()?, None)?, 27))
}

fn onto(i: &Inputs, target: &SparseTensor) -> Result<Made> {
    let y = ops::conv3d(&i.x, i.weight3.clone(), None, &k3()?, Some(&Target::from(target)))?;
    Ok(Made::conv(&i.x, &y, 27))
}

fn unit_grid() -> Result<VoxelGrid> {
    Ok(VoxelGrid::try_new([1.0; 3], [0.0; 3])?)
}

fn voxelized(i: &Inputs, reduction: VoxelReduction) -> Result<SparseTensor> {
    let options = VoxelizeOptions::new(unit_grid()?).with_reduction(reduction);
    Ok(ops::voxelize(i.points.clone(), i.point_feats.clone(), None, &options)?)
}

/// Features on the kept assignment.
fn voxelized_fixed(i: &Inputs, reduction: VoxelReduction) -> Result<SparseTensor> {
    Ok(ops::voxelize_with_quantization(&i.quantization, i.point_feats.clone(), reduction, [1; 3], None)?)
}

fn voxel_stem(i: &Inputs, voxels: &SparseTensor) -> Result<Made> {
    let voxels = voxels.astype(i.size.dtype.float());
    Ok(Made {
        points: i.points.dims()[0],
        ..Made::rows(&ops::relu(&ops::linear(&voxels, i.linear.clone(), None)?))
    })
}

fn mini_encoder(i: &Inputs, voxels: &SparseTensor) -> Result<Made> {
    let y = voxels.astype(i.size.dtype.float());
    let y = ops::relu(&ops::subm_conv3d(&y, i.weight3.clone(), None, &k3()?)?);
    let y = ops::relu(&ops::conv3d(&y, i.weight2.clone(), None, &k2s2()?, None)?);
    Ok(Made { points: i.points.dims()[0], ..Made::rows(&ops::avg_pool3d(&y, &PoolOptions::cube(2, 2)?)?) })
}

fn neighbours(i: &Inputs, voxels: &SparseTensor) -> Result<Made> {
    let r = ops::knn_relation(voxels, None, 8)?;
    Ok(Made { edges: r.n_pairs(), points: i.points.dims()[0], ..Made::count(r.n_queries()) })
}

fn devoxelized(i: &Inputs, interpolation: Interpolation) -> Result<Made> {
    let voxels = voxelized(i, VoxelReduction::Mean)?;
    let options = DevoxelizeOptions::new(unit_grid()?).with_interpolation(interpolation);
    let feats = ops::devoxelize(&voxels, i.points.clone(), None, &options)?;
    Ok(Made { n_out: feats.dims()[0], points: feats.dims()[0], feats: Some(feats), ..Made::default() })
}

fn pooled(i: &Inputs, mode: PoolMode) -> Result<Made> {
    Ok(Made { edges: i.x.n_rows(), ..Made::rows(&ops::pool3d(&i.x, mode, &PoolOptions::cube(2, 2)?)?) })
}

fn global(i: &Inputs, mode: PoolMode) -> Result<Made> {
    let feats = ops::global_pool(&i.x, mode, Some(i.size.batches))?;
    Ok(Made { n_out: i.size.batches, feats: Some(feats), ..Made::default() })
}

/// `[rows, 4]` coordinates of the input, each twice.
fn doubled(i: &Inputs) -> (Tensor<2, Int>, Tensor<2>) {
    let coords = i.x.coords();
    (
        Tensor::cat(vec![coords.clone(), coords], 0),
        Tensor::cat(vec![i.x.feats().clone(), i.x.feats().clone()], 0),
    )
}

macro_rules! entries {
    ($($group:literal $name:literal $pattern:ident $channels:ident $backward:literal => $run:expr;)*) => {
        vec![$(Entry {
            group: $group, name: $name, pattern: Pattern::$pattern, channels: Channels::$channels, backward: $backward, run: $run,
        },)*]
    };
}

fn entries() -> Vec<Entry> {
    let mut all = entries! {
        "quantization" "sparse_quantize" Line Point false => |i| {
            let q = ops::sparse_quantize(i.points.clone(), None, &unit_grid()?, NonFinite::Error)?;
            Ok(Made { points: q.n_points(), ..Made::count(q.support().n_rows()) })
        };
        "quantization" "voxelize_mean" Line Point false => |i| Ok(Made { points: i.points.dims()[0], ..Made::rows(&voxelized(i, VoxelReduction::Mean)?) });
        "quantization" "voxelize_sum" Line Point false => |i| Ok(Made { points: i.points.dims()[0], ..Made::rows(&voxelized(i, VoxelReduction::Sum)?) });
        "quantization" "voxelize_mean_fixed" Line Point false => |i| Ok(Made { points: i.points.dims()[0], ..Made::rows(&voxelized_fixed(i, VoxelReduction::Mean)?) });
        "quantization" "voxelize_sum_fixed" Line Point false => |i| Ok(Made { points: i.points.dims()[0], ..Made::rows(&voxelized_fixed(i, VoxelReduction::Sum)?) });
        "quantization" "point_voxel_map_linear" Line Point false => |i| {
            let voxels = voxelized(i, VoxelReduction::Mean)?;
            let map = ops::build_point_voxel_map(i.points.clone(), None, voxels.support(), &unit_grid()?, Interpolation::Linear, false)?;
            Ok(Made { points: map.n_points(), ..Made::count(map.n_points()) })
        };
        "quantization" "devoxelize_linear" Line Point false => |i| devoxelized(i, Interpolation::Linear);
        "quantization" "devoxelize_nearest" Line Point false => |i| devoxelized(i, Interpolation::Nearest);
        "coords" "downsample" Grid Relation false => |i| Ok(Made::count(ops::downsample_coords(i.x.support(), [2; 3])?.n_rows()));
        "coords" "union" Grid Relation false => |i| Ok(Made::count(ops::union_coords(i.x.support(), i.other.support())?.n_rows()));
        "coords" "intersection" Grid Relation false => |i| Ok(Made::count(ops::intersection_coords(i.x.support(), i.other.support()).n_rows()));
        "coords" "lookup" Grid Relation false => |i| Ok(Made::count(ops::lookup_coords(i.x.support(), i.other.coords())?.dims()[0]));
        "coords" "morton_codes" Grid Relation false => |i| Ok(Made::count(ops::morton_codes(i.x.coords())?.dims()[0]));
        "coords" "morton_sort" Grid Relation false => |i| { ops::morton_sort_coords(i.x.coords())?; Ok(Made::count(i.x.n_rows())) };
        "coords" "occupancy_downsample" Grid Relation false => |i| { ops::occupancy_downsample(i.x.support(), &i.device); Ok(Made::count(i.x.n_rows())) };
        "coords" "occupancy_expand" Grid Relation false => |i| {
            let found = ops::occupancy_downsample(i.x.support(), &i.device);
            let children = ops::occupancy_expand(&found.parents, found.masks)?;
            Ok(Made::count(children.support.n_rows()))
        };
        "coords" "child_coords" Grid Relation false => |i| {
            let children = i.x.coords().slice([0..i.x.n_rows(), 1..2]).remainder_scalar(8).squeeze_dim(1);
            Ok(Made::count(ops::child_coords_from_indices(i.x.coords(), children)?.dims()[0]))
        };
        "relations" "kernel_k3" Grid Relation false => |i| {
            let r = i.x.manager().submanifold(i.x.support(), &KernelSpec::cube(3, 1)?)?;
            Ok(Made { edges: r.n_pairs(), taps: r.taps(), ..Made::count(r.n_out()) })
        };
        "relations" "generative_k2s2" Grid Relation false => |i| {
            let r = i.x.manager().generative(i.x.support(), &KernelSpec::cube(2, 2)?)?;
            Ok(Made { edges: r.n_pairs(), taps: r.taps(), ..Made::count(r.n_out()) })
        };
        "relations" "transposed_k2s2" Grid Relation false => |i| {
            let r = i.x.manager().transposed(i.x.support(), &KernelSpec::cube(2, 2)?)?;
            Ok(Made { edges: r.n_pairs(), taps: r.taps(), ..Made::count(r.n_out()) })
        };
        "relations" "knn_8" Grid Relation false => |i| {
            let r = ops::knn_relation(&i.x, None, 8)?;
            Ok(Made { edges: r.n_pairs(), ..Made::count(r.n_queries()) })
        };
        "relations" "knn_gather" Grid Relation false => |i| {
            let r = ops::knn_relation(&i.x, None, 8)?;
            let feats = ops::gather_neighbor_features(&i.x, &r)?;
            Ok(Made { edges: r.n_pairs(), n_out: feats.dims()[0], feats: Some(feats), ..Made::default() })
        };
        "relations" "radius_2" Grid Relation false => |i| {
            let r = ops::radius_relation(&i.x, None, 2.0, None)?;
            Ok(Made { edges: r.n_pairs(), ..Made::count(r.n_queries()) })
        };
        "conv" "pointwise" Grid Conv true => |i| {
            let y = ops::subm_conv3d(&i.x, i.weight1.clone(), None, &ConvOptions::new(KernelSpec::cube(1, 1)?))?;
            Ok(Made { edges: y.n_rows(), taps: 1, conv: true, ..Made::rows(&y) })
        };
        "conv" "generic_k3" Grid Conv true => generic;
        "conv" "subm_k3" Grid Conv true => subm;
        "conv" "target_same" Grid Conv true => |i| onto(i, &i.x);
        "conv" "target_subset" Grid Conv true => |i| onto(i, &ops::crop(&i.x, [0; 3], [48, 96, 96])?);
        "conv" "target_superset" Grid Conv true => |i| onto(i, &ops::sparse_add(&i.x, &i.other, Join::Outer)?);
        "conv" "transpose_k2s2" Grid Conv true => |i| {
            let y = ops::conv_transpose3d(&i.x.with_stride([2; 3])?, i.weight2.clone(), None, &k2s2()?, None)?;
            Ok(Made::conv(&i.x, &y, 8))
        };
        "conv" "target_transpose" Grid Conv true => |i| {
            let y = ops::conv_transpose3d(&i.coarse()?, i.weight2.clone(), None, &k2s2()?, Some(&Target::from(&i.x)))?;
            Ok(Made::conv(&i.x, &y, 8))
        };
        "conv" "generative" Grid Conv true => |i| {
            let y = ops::generative_conv_transpose3d(&i.x.with_stride([2; 3])?, i.weight2.clone(), None, &k2s2()?, None)?;
            Ok(Made::conv(&i.x, &y, 8))
        };
        "conv" "normalized_subm" Grid Conv true => |i| {
            Ok(Made::conv(&i.x, &ops::normalized_subm_conv3d(&i.x, i.weight3.clone(), None, &k3()?, 1e-8)?, 27))
        };
        "conv" "normalized_target_transpose" Grid Conv true => |i| {
            let target = Target::from(&i.x);
            let y = ops::normalized_conv_transpose3d(&i.coarse()?, i.weight2.clone(), None, &k2s2()?, Some(&target), 1e-8)?;
            Ok(Made::conv(&i.x, &y, 8))
        };
        "pool" "sum_k2s2" Grid Wide true => |i| pooled(i, PoolMode::Sum);
        "pool" "max_k2s2" Grid Wide true => |i| pooled(i, PoolMode::Max);
        "pool" "avg_k2s2" Grid Wide true => |i| pooled(i, PoolMode::Avg);
        "pool" "global_sum" Grid Wide true => |i| global(i, PoolMode::Sum);
        "pool" "global_avg" Grid Wide true => |i| global(i, PoolMode::Avg);
        "pool" "global_max" Grid Wide true => |i| global(i, PoolMode::Max);
        "pool" "pool_transpose_generated" Grid Wide true => |i| Ok(Made::rows(&ops::pool_transpose3d(&i.coarse()?, &KernelSpec::cube(2, 2)?, None)?));
        "pool" "pool_transpose_target" Grid Wide true => |i| Ok(Made::rows(&ops::pool_transpose3d(&i.coarse()?, &KernelSpec::cube(2, 2)?, Some(&Target::from(&i.x)))?));
        "pool" "trilinear_generated" Grid Wide true => |i| Ok(Made::rows(&ops::trilinear_upsample3d(&i.coarse()?, [2; 3], None)?));
        "pool" "trilinear_target" Grid Wide true => |i| Ok(Made::rows(&ops::trilinear_upsample3d(&i.coarse()?, [2; 3], Some(&Target::from(&i.x)))?));
        "feature" "linear" Grid Wide true => |i| Ok(Made::rows(&ops::linear(&i.x, i.linear.clone(), None)?));
        "feature" "relu" Grid Wide true => |i| Ok(Made::rows(&ops::relu(&i.x)));
        "feature" "sigmoid" Grid Wide true => |i| Ok(Made::rows(&ops::sigmoid(&i.x)));
        "feature" "tanh" Grid Wide true => |i| Ok(Made::rows(&ops::tanh(&i.x)));
        "feature" "silu" Grid Wide true => |i| Ok(Made::rows(&ops::silu(&i.x)));
        "feature" "gelu" Grid Wide true => |i| Ok(Made::rows(&ops::gelu(&i.x, GeluApproximation::None)));
        "feature" "dropout" Grid Wide true => |i| Ok(Made::rows(&ops::dropout(&i.x, 0.5, DropoutKey { seed: 7, call: 0 })?));
        "feature" "batch_norm" Grid Wide true => |i| Ok(Made::rows(&ops::batch_norm(&i.x, NormAffine::default(), None, 1e-5)?));
        "feature" "leaky_relu" Grid Wide true => |i| Ok(Made::rows(&ops::leaky_relu(&i.x, 0.01)?));
        "feature" "softplus" Grid Wide true => |i| Ok(Made::rows(&ops::softplus(&i.x, 1.0, 20.0)?));
        "feature" "layer_norm" Grid Wide true => |i| Ok(Made::rows(&ops::layer_norm(&i.x, NormAffine::default(), 1e-5)?));
        "feature" "rms_norm" Grid Wide true => |i| Ok(Made::rows(&ops::rms_norm(&i.x, None, 1e-5)?));
        "tensor" "construct_mean" Grid Wide false => |i| {
            let (coords, feats) = doubled(i);
            Ok(Made::rows(&ops::sparse_from_coordinates(coords, feats, [1; 3], None, DuplicateReduction::Mean)?))
        };
        "tensor" "prune_mask" Grid Wide true => |i| {
            let mask = i.x.coords().slice([0..i.x.n_rows(), 1..2]).remainder_scalar(2).equal_elem(0).squeeze_dim(1);
            Ok(Made::rows(&ops::prune_mask(&i.x, mask)?))
        };
        "tensor" "reindex" Grid Wide true => |i| Ok(Made::rows(&ops::reindex_sparse(&i.x, &i.other, 0.0)?));
        "tensor" "add_outer" Grid Wide true => |i| Ok(Made::rows(&ops::sparse_add(&i.x, &i.other, Join::Outer)?));
        "tensor" "cat_outer" Grid Wide true => |i| Ok(Made::rows(&ops::cat(&[&i.x, &i.other], Join::Outer)?));
        "tensor" "crop" Grid Wide true => |i| Ok(Made::rows(&ops::crop(&i.x, [0; 3], [48, 96, 96])?));
        "workloads" "subm_block" Grid Conv true => |i| {
            let y = ops::subm_conv3d(&i.x, i.weight3.clone(), None, &k3()?)?;
            let y = ops::relu(&ops::layer_norm(&y, NormAffine::default(), 1e-5)?);
            Ok(Made::conv(&i.x, &ops::subm_conv3d(&y, i.weight3.clone(), None, &k3()?)?, 27))
        };
        "workloads" "downsample_block" Grid Conv true => |i| {
            let y = ops::relu(&ops::conv3d(&i.x, i.weight2.clone(), None, &k2s2()?, None)?);
            Ok(Made::rows(&ops::sum_pool3d(&y, &PoolOptions::cube(2, 2)?)?))
        };
        "workloads" "mini_encoder" Grid Conv true => |i| mini_encoder(i, &voxelized(i, VoxelReduction::Mean)?);
        "workloads" "mini_encoder_fixed" Grid Conv true => |i| mini_encoder(i, &voxelized_fixed(i, VoxelReduction::Mean)?);
        "workloads" "voxel_stem" Grid Conv true => |i| voxel_stem(i, &voxelized(i, VoxelReduction::Mean)?);
        "workloads" "voxel_stem_fixed" Grid Conv true => |i| voxel_stem(i, &voxelized_fixed(i, VoxelReduction::Mean)?);
        "workloads" "neighbor_pipeline" Grid Relation false => |i| neighbours(i, &voxelized(i, VoxelReduction::Mean)?);
        "workloads" "neighbor_pipeline_fixed" Grid Relation false => |i| neighbours(i, &voxelized_fixed(i, VoxelReduction::Mean)?);
    };
    for pattern in Pattern::ALL {
        all.push(Entry {
            group: "density",
            name: "generic_k3",
            pattern,
            channels: Channels::Density,
            backward: true,
            run: generic,
        });
        all.push(Entry {
            group: "density",
            name: "subm_k3",
            pattern,
            channels: Channels::Density,
            backward: true,
            run: subm,
        });
    }
    all
}

/// All cases of a preset that `plan` asks for.
pub fn cases(plan: &Plan, preset: &str) -> Result<Vec<Case>> {
    let (sizes, batches): (&[usize], &[usize]) = match preset {
        "standard" => (&[2048], &[1, 4]),
        "full" => (&[2048, 8192], &[1, 4]),
        _ => (&[256], &[1]),
    };
    let mut cases = Vec::new();
    for entry in entries() {
        let entry = std::rc::Rc::new(entry);
        for (&n, &batches) in sizes.iter().flat_map(|n| batches.iter().map(move |b| (n, b))) {
            for &dtype in &plan.dtypes {
                let pairs: Vec<(usize, usize)> = match plan.channels.is_empty() {
                    true => entry.channels.list().iter().map(|&c| (c, c)).collect(),
                    false => plan.channels.clone(),
                };
                for (c_in, c_out) in pairs {
                    let size = Size { pattern: entry.pattern, n, batches, c_in, c_out, dtype };
                    let mut modes = vec![Mode::Cold, Mode::Hot];
                    if entry.backward {
                        modes.push(Mode::Backward);
                    }
                    for mode in modes {
                        let name = format!(
                            "{} {} {} n={n} b={batches} {c_in}x{c_out} {} {}",
                            entry.group,
                            entry.name,
                            entry.pattern.name(),
                            dtype.name(),
                            mode.name()
                        );
                        // As the list names it, or as a JSON line does.
                        if plan.wants(&name) || plan.wants(&format!("{}.{}", entry.group, entry.name)) {
                            let entry = entry.clone();
                            cases.push(Case::new(name, move |plan| measure(plan, &entry, size, mode)));
                        }
                    }
                }
            }
        }
    }
    Ok(cases)
}

fn measure(plan: &Plan, entry: &Entry, size: Size, mode: Mode) -> Result<Row> {
    let tracked = mode == Mode::Backward;
    let device = if tracked { plan.device.clone().autodiff() } else { plan.device.clone() };
    let rows = size.n * size.batches;
    memory::ensure_fits(memory::conv_bytes(rows, 8 * rows, 36, [size.c_in, size.c_out], 1), "--channels")?;
    let kept = Inputs::new(&plan.device, size, tracked)?;
    let mut last = Made::default();
    let mut call = |inputs: &Inputs| -> Result<()> {
        let made = (entry.run)(inputs)?;
        if tracked {
            let feats =
                made.feats.clone().ok_or_else(|| anyhow!("the case has no features to differentiate"))?;
            feats.sum().backward();
        }
        last = made;
        Ok(())
    };
    let samples_ms = if mode == Mode::Cold {
        // Making the inputs is not timed: each timed call gets fresh ones that were made before it.
        let mut samples = Vec::new();
        let once = Calls { warmup: 0, repeats: 1, batch: 1 };
        for round in 0..plan.calls.warmup + plan.calls.repeats {
            let fresh = Inputs::new(&plan.device, size, false)?;
            let sample = time(&device, once, || call(&fresh))?;
            if round >= plan.calls.warmup {
                samples.extend(sample);
            }
        }
        samples
    } else {
        time(&device, plan.calls, || call(&kept))?
    };
    Ok(row(plan, entry, size, mode, &last, samples_ms, kept.x.n_rows()))
}

fn row(
    plan: &Plan,
    entry: &Entry,
    size: Size,
    mode: Mode,
    made: &Made,
    samples: Vec<f64>,
    n_in: usize,
) -> Row {
    let (n_out, edges) = (made.n_out, made.edges);
    let per_second = |count: usize| count as f64 / (median(&samples) / 1e3);
    let elements = n_out * size.c_out;
    let flop = if made.conv { 2.0 * (edges * size.c_in * size.c_out) as f64 } else { 0.0 };
    let mut units = serde_json::Map::new();
    for (unit, count) in
        [("edges", edges), ("elements", elements), ("points", made.points), ("n_out", n_out), ("n_in", n_in)]
    {
        if count > 0 {
            units.insert(format!("{unit}_per_s"), json!(per_second(count)));
        }
    }
    let mut extra = serde_json::Map::new();
    for (key, value) in [
        ("case", json!(entry.name)),
        ("group", json!(entry.group)),
        ("mode", json!(mode.name())),
        ("params", json!({ "n": size.n, "batches": size.batches, "pattern": size.pattern.name() })),
        ("warmup", json!(plan.calls.warmup)),
        ("repeats", json!(plan.calls.repeats)),
        ("median_ms", json!(median(&samples))),
        ("min_ms", json!(samples.iter().copied().fold(f64::INFINITY, f64::min))),
        ("p90_ms", json!(percentile(&samples, 90.0))),
        ("p95_ms", json!(percentile(&samples, 95.0))),
        ("samples_ms", json!(samples)),
        (
            "workload_size",
            json!({
                "N": size.n * size.batches, "points": made.points, "n_in": n_in, "n_out": n_out, "edges": edges,
                "channels_in": size.c_in, "channels_out": size.c_out, "kernel_volume": made.taps,
                "batches": size.batches, "elements": elements, "avg_neighbors": edges as f64 / n_out.max(1) as f64,
                "expected_neighbors": size.pattern.expected_neighbours(),
            }),
        ),
        ("units", serde_json::Value::Object(units)),
    ] {
        extra.insert(key.to_string(), value);
    }
    Row {
        workload: format!("{} n={} b={}", size.pattern.name(), size.n, size.batches),
        op: format!("{}.{}", entry.group, entry.name),
        variant: mode.name().into(),
        cin: Some(size.c_in),
        cout: Some(size.c_out),
        dtype: size.dtype.name(),
        samples_ms: samples,
        rows: n_in,
        n_out,
        pairs: edges,
        flop,
        route: if made.conv { plan.conv_route(size.dtype, (size.c_in, size.c_out)) } else { "" },
        extra,
    }
}
