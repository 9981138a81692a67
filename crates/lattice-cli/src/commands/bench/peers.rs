//! The operations that other libraries were measured with, on the same coordinates.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Result, anyhow};
use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Device, FloatDType, Int, Tensor, TensorData};
use burn_lattice::core::{self, Coord, KernelSpec, SupportPolicy};
use burn_lattice::ops::{self, ConvOptions, PoolMode, PoolOptions};
use burn_lattice::routes::DeviceClass;
use burn_lattice::{Relation, SparseTensor, Support};
use lattice_models::{MinkUNet, MinkUNetConfig, seed_parameters};
use lattice_scenes::{SceneKind, SceneOptions};

use super::device_memory::watched;
use super::graph;
use super::measure::{Calls, features, time, weights};
use super::workload::{self, Workload};
use super::{Case, FloatKind, Plan, Row};
use crate::{memory, routes, scene};

/// Input and output channels of the benchmark network.
const NETWORK: (usize, usize) = (4, 20);

/// All cases that `plan` asks for.
pub fn cases(plan: &Plan, coords: &[PathBuf], points: Option<&Path>) -> Result<Vec<Case>> {
    let loads = workload::load_all(coords)?;
    let mut cases = Vec::new();
    for load in loads {
        let load = Rc::new(load);
        for op in ["map_subm3", "map_subm3_train"] {
            push(plan, &mut cases, &load, op, None, FloatKind::F32, map_case);
        }
        for &dtype in &plan.dtypes {
            for (op, defaults) in [
                ("subm3_fwd", &[(16, 16), (32, 32), (64, 64), (128, 128)][..]),
                ("subm3_fwd_bwd", &[(32, 32), (64, 64), (128, 128)]),
                ("k2s2_with_map", &[(32, 64)]),
                ("k3s2_with_map", &[(32, 64)]),
                ("pool_max_k2s2", &[(64, 64)]),
                ("pool_avg_k2s2", &[(64, 64)]),
                ("pool_max_k2s2_with_map", &[(64, 64)]),
                ("pool_avg_k2s2_with_map", &[(64, 64)]),
                ("minkunet_fwd_with_maps", &[NETWORK]),
                ("minkunet_train_with_maps", &[NETWORK]),
                ("minkunet_fwd", &[NETWORK]),
                ("minkunet_fwd_graph", &[NETWORK]),
            ] {
                let network = op.starts_with("minkunet");
                let channels =
                    if plan.channels.is_empty() || network { defaults } else { &plan.channels[..] };
                for &pair in channels {
                    let run = match op {
                        "subm3_fwd" => conv_forward,
                        "subm3_fwd_bwd" => conv_backward,
                        "k2s2_with_map" | "k3s2_with_map" => strided,
                        "minkunet_fwd_with_maps" => network_forward,
                        "minkunet_train_with_maps" => network_train,
                        "minkunet_fwd" | "minkunet_fwd_graph" => network_again,
                        _ => pool,
                    };
                    push(plan, &mut cases, &load, op, Some(pair), dtype, run);
                }
            }
        }
    }
    if wants(plan, "voxelize_mean") {
        for size in [0.05, 0.2] {
            let path = points.map(Path::to_path_buf);
            let name = format!("points@{size} voxelize_mean");
            cases.push(Case::new(name, move |plan| voxelize(plan, path.as_deref(), size)));
        }
    }
    Ok(cases)
}

type Run = fn(&Plan, &Workload, &Job) -> Result<Row>;

/// What one case is asked for.
struct Job {
    op: &'static str,
    channels: (usize, usize),
    dtype: FloatKind,
}

/// Operations whose name begins another's: asked for by their whole name they mean themselves alone.
const WHOLE_NAMES: [&str; 4] = ["map_subm3", "subm3_fwd", "pool_max_k2s2", "pool_avg_k2s2"];

/// Operations that other libraries were not measured with: run where they are asked for by their whole name.
const ON_REQUEST: [&str; 2] = ["minkunet_fwd", "minkunet_fwd_graph"];

fn wants(plan: &Plan, op: &str) -> bool {
    if ON_REQUEST.contains(&op) {
        return plan.ops.iter().any(|name| name == op);
    }
    let part_of = |part: &String| {
        let whole = WHOLE_NAMES.contains(&part.as_str()) || ON_REQUEST.contains(&part.as_str());
        if whole { op == part } else { op.contains(part.as_str()) }
    };
    plan.ops.is_empty() || plan.ops.iter().any(part_of)
}

fn push(
    plan: &Plan,
    cases: &mut Vec<Case>,
    load: &Rc<Workload>,
    op: &'static str,
    channels: Option<(usize, usize)>,
    dtype: FloatKind,
    run: Run,
) {
    if !wants(plan, op) {
        return;
    }
    let (cin, cout) = channels.unwrap_or((0, 0));
    let name = match channels {
        Some(_) => format!("{} {op} {cin}x{cout} {}", load.name, dtype.name()),
        None => format!("{} {op}", load.name),
    };
    let load = load.clone();
    let job = Job { op, channels: (cin, cout), dtype };
    cases.push(Case::new(name, move |plan| {
        let rows = load.coords.len();
        memory::ensure_fits(memory::conv_bytes(rows, rows, 27, [cin, cout], 1), "--channels")?;
        run(plan, &load, &job)
    }));
}

fn base(load: &Workload, job: &Job) -> Row {
    Row {
        workload: load.name.clone(),
        op: job.op.into(),
        variant: "cpu".into(),
        cin: Some(job.channels.0).filter(|&c| c > 0),
        cout: Some(job.channels.1).filter(|&c| c > 0),
        dtype: job.dtype.name(),
        rows: load.coords.len(),
        n_out: load.coords.len(),
        ..Row::default()
    }
}

/// The submanifold relation from raw coordinates with what a convolution on the device reads; for training, what gradients read too.
fn map_case(plan: &Plan, load: &Workload, job: &Job) -> Result<Row> {
    let spec = KernelSpec::cube(3, 1)?;
    let rows = Rows::new(&plan.device, load)?;
    let mut relation = None;
    let samples_ms = time(&plan.device, plan.calls, || {
        let support = rows.fresh()?;
        let found = Relation::from(core::Relation::submanifold(support.to_host(), &spec)?);
        found.prepare(&plan.device, job.op == "map_subm3_train")?;
        relation = Some(found);
        Ok(())
    })?;
    let pairs = relation.map_or(0, |relation| relation.n_pairs());
    Ok(Row { dtype: "i32", pairs, samples_ms, route: "block_index", ..base(load, job) })
}

/// Raw coordinates where an operation finds them: in this memory for a CPU, else on the device.
struct Rows {
    host: Vec<Coord>,
    checked: Support,
    on_device: Option<Tensor<2, Int>>,
}

impl Rows {
    fn new(device: &Device, load: &Workload) -> Result<Self> {
        let on_device = DeviceClass::of(device).is_gpu().then(|| {
            let flat: Vec<i32> = load.coords.iter().flatten().copied().collect();
            Tensor::from_data(TensorData::new(flat, [load.coords.len(), 4]), (device, DType::I32))
        });
        Ok(Self { host: load.coords.clone(), checked: Support::try_new(load.coords.clone())?, on_device })
    }

    /// A support for an operation that builds its own relations: checked before on a CPU, from the raw rows in each call on a device.
    fn unrelated(&self) -> Result<Support> {
        match &self.on_device {
            Some(_) => self.fresh(),
            None => Ok(self.checked.clone()),
        }
    }

    /// A support that nothing was cached for.
    fn fresh(&self) -> Result<Support> {
        Ok(match &self.on_device {
            Some(rows) => Support::from_tensor(rows.clone())?,
            None => Support::try_new(self.host.clone())?,
        })
    }
}

fn tensor(plan: &Plan, coords: &[Coord], channels: usize, dtype: FloatKind) -> Result<SparseTensor> {
    let support = Support::try_new(coords.to_vec())?;
    Ok(SparseTensor::from_support(support, features(&plan.device, coords.len(), channels, dtype))?)
}

fn subm_pairs(x: &SparseTensor) -> Result<usize> {
    Ok(x.manager().submanifold(x.support(), &KernelSpec::cube(3, 1)?)?.n_pairs())
}

/// Bytes of inputs that no cache of a GPU holds.
const PAST_CACHES: usize = 256 << 20;

/// Inputs that calls take in turn, so that on a GPU none finds its own in a cache: the same rows with features of their own.
fn in_turn(plan: &Plan, x: SparseTensor, dtype: FloatKind) -> Result<Vec<SparseTensor>> {
    let [rows, channels] = x.feats().dims();
    let bytes = (rows * channels * dtype.dtype().size()).max(1);
    let is_gpu = DeviceClass::of(&plan.device).is_gpu();
    let n = if is_gpu { PAST_CACHES.div_ceil(bytes).clamp(1, 64) } else { 1 };
    let mut inputs = vec![x];
    while inputs.len() < n {
        inputs.push(inputs[0].with_feats(features(&plan.device, rows, channels, dtype))?);
    }
    Ok(inputs)
}

fn conv_forward(plan: &Plan, load: &Workload, job: &Job) -> Result<Row> {
    let (cin, cout) = job.channels;
    let x = tensor(plan, &load.coords, cin, job.dtype)?;
    let weight = weights(&plan.device, [27, cin, cout], job.dtype);
    let options = ConvOptions::new(KernelSpec::cube(3, 1)?);
    let pairs = subm_pairs(&x)?;
    let inputs = in_turn(plan, x, job.dtype)?;
    let mut turns = inputs.iter().cycle();
    let samples_ms = time(&plan.device, plan.calls, || {
        let x = turns.next().unwrap_or(&inputs[0]);
        ops::subm_conv3d(x, weight.clone(), None, &options)?;
        Ok(())
    })?;
    Ok(Row {
        extra: [("inputs".to_string(), inputs.len().into())].into_iter().collect(),
        pairs,
        samples_ms,
        flop: 2.0 * (pairs * cin * cout) as f64,
        route: plan.conv_route(job.dtype, job.channels),
        ..base(load, job)
    })
}

fn conv_backward(plan: &Plan, load: &Workload, job: &Job) -> Result<Row> {
    let (cin, cout) = job.channels;
    let device = plan.device.clone().autodiff();
    let support = Support::try_new(load.coords.clone())?;
    let feats = Tensor::from_inner(features(&plan.device, load.coords.len(), cin, job.dtype)).require_grad();
    let x = SparseTensor::from_support(support, feats)?;
    let weight = Tensor::from_inner(weights(&plan.device, [27, cin, cout], job.dtype)).require_grad();
    let options = ConvOptions::new(KernelSpec::cube(3, 1)?);
    let pairs = subm_pairs(&x)?;
    let samples_ms = time(&device, plan.calls, || {
        let y = ops::subm_conv3d(&x, weight.clone(), None, &options)?;
        let grads = y.into_feats().sum().backward();
        let both = x.feats().grad(&grads).is_some() && weight.grad(&grads).is_some();
        if both { Ok(()) } else { Err(anyhow!("a gradient is missing")) }
    })?;
    Ok(Row {
        pairs,
        samples_ms,
        flop: 6.0 * (pairs * cin * cout) as f64,
        route: plan.conv_route(job.dtype, job.channels),
        ..base(load, job)
    })
}

fn strided(plan: &Plan, load: &Workload, job: &Job) -> Result<Row> {
    let (cin, cout) = job.channels;
    let size = if job.op == "k2s2_with_map" { 2 } else { 3 };
    let spec = KernelSpec::cube(size, 2)?;
    let feats = features(&plan.device, load.coords.len(), cin, job.dtype);
    let weight = weights(&plan.device, [spec.taps(), cin, cout], job.dtype);
    let rows = Rows::new(&plan.device, load)?;
    let options = ConvOptions::new(spec);
    let mut relation = None;
    let samples_ms = time(&plan.device, plan.calls, || {
        // A fresh manager: the relation is built anew in every call.
        let x = SparseTensor::from_support(rows.unrelated()?, feats.clone())?;
        ops::conv3d(&x, weight.clone(), None, &options, None)?;
        relation = Some(x.manager().forward(x.support(), &options.spec, SupportPolicy::Floor)?);
        Ok(())
    })?;
    let (n_out, pairs) = relation.map_or((0, 0), |relation| (relation.n_out(), relation.n_pairs()));
    let flop = 2.0 * (pairs * cin * cout) as f64;
    Ok(Row {
        n_out,
        pairs,
        samples_ms,
        flop,
        route: plan.conv_route(job.dtype, job.channels),
        ..base(load, job)
    })
}

fn pool(plan: &Plan, load: &Workload, job: &Job) -> Result<Row> {
    let channels = job.channels.0;
    let mode = if job.op.starts_with("pool_max") { PoolMode::Max } else { PoolMode::Avg };
    let options = PoolOptions::cube(2, 2)?;
    let feats = features(&plan.device, load.coords.len(), channels, job.dtype);
    let rows = Rows::new(&plan.device, load)?;
    let cold = job.op.ends_with("_with_map");
    let kept = SparseTensor::from_support(rows.unrelated()?, feats.clone())?;
    let mut n_out = 0;
    let samples_ms = time(&plan.device, plan.calls, || {
        let x =
            if cold { SparseTensor::from_support(rows.unrelated()?, feats.clone())? } else { kept.clone() };
        n_out = ops::pool3d(&x, mode, &options)?.n_rows();
        Ok(())
    })?;
    let route = if mode == PoolMode::Max { "row_max" } else { "row_mix" };
    Ok(Row { n_out, pairs: load.coords.len(), cout: None, samples_ms, route, ..base(load, job) })
}

/// Whole networks take long: fewer calls of them.
fn few(calls: Calls, most: usize) -> Calls {
    Calls { warmup: calls.warmup.min(1), repeats: calls.repeats.min(most), ..calls }
}

/// Casts the weights of convolutions; norms keep their f32.
struct CastWeights(FloatDType);

impl ModuleMapper for CastWeights {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let dtype = self.0;
        // A leaf of its own: a cast that the graph knows of could be walked backwards only once.
        param.map(|t| match (D, t.is_require_grad()) {
            (3, true) => Tensor::from_inner(t.inner().cast(dtype)).require_grad(),
            (3, false) => t.cast(dtype),
            _ => t,
        })
    }
}

fn network(device: &Device, dtype: FloatKind) -> Result<MinkUNet> {
    routes::check_for_networks(device, dtype.dtype())?;
    let config = MinkUNetConfig::named("minkunet-bench", NETWORK.0, NETWORK.1)?;
    let model = seed_parameters(config.init(device), 0);
    Ok(if dtype == FloatKind::F32 { model } else { model.map(&mut CastWeights(dtype.float())) })
}

fn network_forward(plan: &Plan, load: &Workload, job: &Job) -> Result<Row> {
    let model = network(&plan.device, job.dtype)?;
    let feats = features(&plan.device, load.coords.len(), NETWORK.0, job.dtype);
    let rows = Rows::new(&plan.device, load)?;
    let samples_ms = time(&plan.device, few(plan.calls, 5), || {
        let x = SparseTensor::from_support(rows.unrelated()?, feats.clone())?;
        model.try_forward(&x)?;
        Ok(())
    })?;
    Ok(Row { samples_ms, route: "network", ..base(load, job) })
}

/// Forward over relations that are known; replayed from a recorded graph where the name says so.
fn network_again(plan: &Plan, load: &Workload, job: &Job) -> Result<Row> {
    let model = network(&plan.device, job.dtype)?;
    let feats = features(&plan.device, load.coords.len(), NETWORK.0, job.dtype);
    let x = SparseTensor::from_support(Rows::new(&plan.device, load)?.unrelated()?, feats)?;
    let calls = few(plan.calls, 5);
    let (samples_ms, route) = match job.op {
        "minkunet_fwd_graph" => (graph::time_replay(&plan.device, &model, &x, calls)?, "graph"),
        _ => (graph::time_forward(&plan.device, &model, &x, calls)?, "network"),
    };
    Ok(Row { samples_ms, route, ..base(load, job) })
}

/// Forward, mean of squares, backward.
fn network_train(plan: &Plan, load: &Workload, job: &Job) -> Result<Row> {
    let model = network(&plan.device.clone().autodiff(), job.dtype)?;
    let feats = Tensor::from_inner(features(&plan.device, load.coords.len(), NETWORK.0, job.dtype));
    let rows = Rows::new(&plan.device, load)?;
    let step = || -> Result<()> {
        let x = SparseTensor::from_support(rows.unrelated()?, feats.clone())?;
        let y = model.try_forward(&x)?.into_feats();
        (y.clone() * y).mean().backward();
        Ok(())
    };
    let samples_ms = time(&plan.device, few(plan.calls, 3), step)?;
    let extra = watched(&plan.device, || (0..3).try_for_each(|_| step()))?;
    Ok(Row { samples_ms, route: "network", extra, ..base(load, job) })
}

/// Points with 4 features to voxels.
fn voxelize(plan: &Plan, path: Option<&Path>, size: f64) -> Result<Row> {
    let (cloud, name) = match path {
        Some(path) => (scene::load(path, None)?, path.display().to_string()),
        None => (
            lattice_scenes::generate(SceneKind::Lidar, 0, &SceneOptions::default()),
            "generated lidar".into(),
        ),
    };
    let flat: Vec<f32> = scene::positions_f32(&cloud).into_iter().flatten().collect();
    let points = Tensor::<2>::from_data(TensorData::new(flat, [cloud.len(), 3]), &plan.device);
    let feats = features(&plan.device, cloud.len(), 4, FloatKind::F32);
    let options = ops::VoxelizeOptions::cubic(size as f32)?;
    let mut voxels = 0;
    let samples_ms = time(&plan.device, plan.calls, || {
        voxels = ops::voxelize(points.clone(), feats.clone(), None, &options)?.n_rows();
        Ok(())
    })?;
    Ok(Row {
        workload: format!("{name}@{size}"),
        op: "voxelize_mean".into(),
        variant: "cpu".into(),
        cin: Some(4),
        dtype: "f32",
        samples_ms,
        rows: cloud.len(),
        n_out: voxels,
        pairs: cloud.len(),
        route: "row_mix",
        ..Row::default()
    })
}
