//! The same operation with packed weights: what is stored, which route runs, how long it takes.

use anyhow::{Result, ensure};
use burn::tensor::Device;
use burn_lattice::core::{Relation, Support};
use burn_lattice::quantized::{
    ActivationRange, CalibrationMethod, Calibrator, Granularity, QuantizeOptions, QuantizedWeight,
    quantize_weight,
};
use burn_lattice::routes::{self, ConvProblem, PackedProblem};
use burn_lattice::{SparseTensor, ops};
use serde::Serialize;

use super::{Args, RouteLine};
use crate::commands::bench::{self, Calls, FloatKind};
use crate::table;

/// The packed form of an operation.
#[derive(Serialize)]
pub struct Packed {
    bits: u32,
    group_size: usize,
    activations: Option<&'static str>,
    storage_bytes: usize,
    f16_bytes: usize,
    /// How many times smaller than f16.
    ratio_to_f16: f64,
    measured_ms: f64,
    route: &'static str,
    routes: Vec<RouteLine>,
}

/// Packs the weights that the float operation was timed with, and times the packed one; nothing without `--bits`.
///
/// # Errors
/// Bits, group sizes or channels that cannot be packed; a forced route that does not fit.
pub fn explain(
    args: &Args,
    device: &Device,
    support: &Support,
    relation: Option<&Relation>,
    conv: &ConvProblem,
    calls: Calls,
) -> Result<Option<Packed>> {
    let Some(bits) = args.bits else { return Ok(None) };
    ensure!(
        args.groups == 1 || relation.is_some(),
        "--bits: expected one group for a pointwise product, found {}",
        args.groups
    );
    let taps = relation.map_or(1, Relation::taps);
    let feats = bench::features(device, support.n_rows(), args.cin, args.dtype);
    let float = bench::fixed_weights(device, [taps, args.cin / args.groups, args.cout], FloatKind::F16);
    let mut options = QuantizeOptions::new(bits);
    options.group_size = args.group_size;
    let mut weight = quantize_weight(float, &options)?;
    let activations = args.activations.is_some();
    if activations {
        weight = weight.with_activations(&range(&feats)?);
    }
    let problem = PackedProblem { conv: *conv, taps: weight.record().shape().taps(), bits, activations };
    routes::check_forced_packed(&problem)?;
    let samples = time(device, support, relation, feats, &weight, args.groups, calls)?;
    let (storage_bytes, f16_bytes) = (weight.nbytes(), 2 * weight.record().shape().values());
    Ok(Some(Packed {
        bits,
        group_size: weight.record().shape().group_size(),
        activations: activations.then_some("int8"),
        storage_bytes,
        f16_bytes,
        ratio_to_f16: f16_bytes as f64 / storage_bytes as f64,
        measured_ms: bench::median(&samples),
        route: routes::packed_route(&problem).name,
        routes: routes::explain_packed(&problem).into_iter().map(RouteLine::from).collect(),
    }))
}

fn range(feats: &burn::tensor::Tensor<2>) -> Result<ActivationRange> {
    let mut calibrator = Calibrator::try_new(CalibrationMethod::MinMax, Granularity::PerTensor)?;
    calibrator.observe(feats)?;
    Ok(calibrator.range()?)
}

fn time(
    device: &Device,
    support: &Support,
    relation: Option<&Relation>,
    feats: burn::tensor::Tensor<2>,
    weight: &QuantizedWeight,
    groups: usize,
    calls: Calls,
) -> Result<Vec<f64>> {
    let x = SparseTensor::from_support(support.clone().into(), feats)?;
    let relation = relation.cloned().map(burn_lattice::Relation::from);
    bench::time(device, calls, || {
        match &relation {
            Some(r) => ops::packed_conv(&x, weight, None, r, groups, [1; 3])?,
            None => ops::packed_linear(&x, weight, None)?,
        };
        Ok(())
    })
}

impl Packed {
    /// For people; the float operation took `float_ms`.
    pub fn text(&self, float_ms: f64) -> String {
        format!(
            "\npacked     {} bits, groups of {}{}: {} bytes, {:.2} times smaller than f16 ({})\nmeasured   {:.3} ms by {}: {:.2} times the speed of float weights\n\n{}",
            self.bits,
            self.group_size,
            if self.activations.is_some() { ", features in bytes" } else { "" },
            table::count(self.storage_bytes),
            self.ratio_to_f16,
            table::count(self.f16_bytes),
            self.measured_ms,
            self.route,
            float_ms / self.measured_ms,
            table::render(
                &["", "route", "reason"],
                &self.routes.iter().map(RouteLine::cells).collect::<Vec<_>>()
            )
        )
    }
}
