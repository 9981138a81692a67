//! A network with weights of a file, packed or float, on a scan.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use burn::tensor::FloatDType;
use burn_lattice::nn::Layers;
use burn_lattice::routes::PACKED_ROUTES;
use burn_lattice::trace;
use lattice_scenes::{SceneKind, SceneOptions};
use lattice_train::INPUT_CHANNELS;

use super::measure::{FloatKind, time};
use super::{Case, Plan, Row};
use crate::segmenter::{self, Segmenter};
use crate::sweep::Sweep;
use crate::{routes, scene};

/// Edge of the voxels where the weights name none.
const VOXEL_SIZE: f64 = 0.15;

/// One case: the forward pass on kept relations, on a scan or a generated sweep.
///
/// # Errors
/// Weights that are of no network that scores voxels or points.
pub fn cases(plan: &Plan, weights: &Path, points: Option<&Path>) -> Result<Vec<Case>> {
    let choice = segmenter::choose(None, Some(weights), INPUT_CHANNELS, segmenter::DEFAULT)?;
    let name = format!("{} {}", choice.spec.name, points.map_or("lidar".into(), |p| p.display().to_string()));
    let (weights, points) = (weights.to_path_buf(), points.map(PathBuf::from));
    ensure!(plan.channels.is_empty(), "--channels: expected none beside --weights, which have their own");
    ensure!(
        plan.dtypes.iter().all(|dtype| matches!(dtype, FloatKind::F32 | FloatKind::F16)),
        "--dtype: expected f32 or f16 beside --weights, which are kept in them"
    );
    let case = |&dtype: &FloatKind| {
        let (weights, points) = (weights.clone(), points.clone());
        Case::new(name.clone(), move |plan| measured(plan, dtype, &weights, points.as_deref()))
    };
    Ok(plan.dtypes.iter().map(case).collect())
}

fn measured(plan: &Plan, dtype: FloatKind, weights: &Path, points: Option<&Path>) -> Result<Row> {
    routes::check_for_networks(&plan.device, dtype.dtype())?;
    let choice = segmenter::choose(None, Some(weights), INPUT_CHANNELS, segmenter::DEFAULT)?;
    let mut model = Segmenter::load(&choice, 0, &plan.device)?;
    let (cloud, workload) = match points {
        Some(path) => (scene::load(path, None)?, path.display().to_string()),
        None => (lattice_scenes::generate(SceneKind::Lidar, 0, &SceneOptions::default()), "lidar".into()),
    };
    ensure!(!cloud.is_empty(), "{workload}: expected points, found none; check the file");
    let voxel_size = scene::voxel_size(choice.voxel_size.or(Some(VOXEL_SIZE)), &cloud)?;
    let mut sweep = Sweep::of_points(&scene::positions_f32(&cloud), voxel_size as f32, &plan.device)?;
    if dtype == FloatKind::F16 {
        model.cast_weights(FloatDType::F16);
        sweep = sweep.in_f16()?;
    }
    let (ran, records) = trace::record(|| sweep.forward(&model).map(|_| ()));
    ran?;
    let samples_ms = time(&plan.device, plan.calls, || sweep.forward(&model).map(|_| ()))?;
    let packed = |route: &str| PACKED_ROUTES.iter().find(|r| r.name == route);
    let route = records.iter().find_map(|r| packed(r.route)).map_or("network", |r| r.name);
    let mut layers = 0;
    model.visit_layers("", &mut |layer| layers += usize::from(layer.packed().is_some()));
    let mut row = Row {
        workload,
        op: "network_fwd".into(),
        variant: if plan.device_name == "cpu" { "cpu".into() } else { "gpu".into() },
        dtype: dtype.name(),
        samples_ms,
        rows: sweep.n_rows(),
        n_out: sweep.n_rows(),
        pairs: records.iter().filter(|r| r.kind.starts_with("conv")).map(|r| r.pairs).sum(),
        flop: records.iter().map(|r| 2.0 * r.pairs as f64 * (r.c_in * r.c_out) as f64).sum(),
        route,
        ..Row::default()
    };
    row.extra.insert("model".into(), choice.spec.name.clone().into());
    row.extra.insert("packed_layers".into(), layers.into());
    Ok(row)
}
