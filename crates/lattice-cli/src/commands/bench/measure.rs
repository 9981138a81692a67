//! Timing, and the tensors that are timed.

use std::time::Instant;

use anyhow::{Result, anyhow};
use burn::tensor::{DType, Device, FloatDType, Tensor, TensorData};
use burn_lattice::core::{self, Relation};
use burn_lattice::{SparseTensor, ops};
use lattice_cpu::ConvShape;

/// Element types of features.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum FloatKind {
    /// 64 bits.
    F64,
    /// 32 bits.
    F32,
    /// IEEE half.
    F16,
    /// Brain float.
    Bf16,
}

impl FloatKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::F64, Self::F32, Self::F16, Self::Bf16];

    /// Name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::F64 => "f64",
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }

    /// Bytes of an element.
    pub fn bytes(self) -> usize {
        match self {
            Self::F64 => 8,
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// Burn's name.
    pub fn dtype(self) -> DType {
        match self {
            Self::F64 => DType::F64,
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
            Self::Bf16 => DType::BF16,
        }
    }

    /// Burn's name among floats.
    pub fn float(self) -> FloatDType {
        match self {
            Self::F64 => FloatDType::F64,
            Self::F32 => FloatDType::F32,
            Self::F16 => FloatDType::F16,
            Self::Bf16 => FloatDType::BF16,
        }
    }
}

/// The middle of the samples: the mean of both middles where their number is even.
pub fn median(samples: &[f64]) -> f64 {
    percentile(samples, 50.0)
}

/// Linear interpolation at rank `p / 100 · (n - 1)`.
pub fn percentile(samples: &[f64], p: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    if sorted.is_empty() {
        return f64::NAN;
    }
    let rank = p / 100.0 * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[rank.floor() as usize], sorted[rank.ceil() as usize]);
    low + (high - low) * rank.fract()
}

/// How often something is called.
#[derive(Clone, Copy, Debug)]
pub struct Calls {
    /// Calls before the first timed one.
    pub warmup: usize,
    /// Samples.
    pub repeats: usize,
    /// Calls of one sample, whose time is divided by them: the device is waited for once a sample.
    pub batch: usize,
}

impl Calls {
    /// Calls of a sample on a device: one on the CPU; on a GPU ten, which overlap launches with work as a network does.
    pub fn default_batch(is_gpu: bool) -> usize {
        if is_gpu { 10 } else { 1 }
    }
}

/// Milliseconds a call, of each sample; a sample ends when the device has finished.
pub(crate) fn time(device: &Device, calls: Calls, mut call: impl FnMut() -> Result<()>) -> Result<Vec<f64>> {
    let sync = || device.sync().map_err(|e| anyhow!("device: {e:?}"));
    for _ in 0..calls.warmup {
        call()?;
    }
    sync()?;
    let mut samples = Vec::with_capacity(calls.repeats);
    for _ in 0..calls.repeats {
        let start = Instant::now();
        for _ in 0..calls.batch {
            call()?;
        }
        sync()?;
        samples.push(start.elapsed().as_secs_f64() * 1e3 / calls.batch as f64);
    }
    Ok(samples)
}

/// Features of the public benchmark: `((row + 1)(channel + 3) mod 37) / 37`.
pub fn features(device: &Device, rows: usize, channels: usize, dtype: FloatKind) -> Tensor<2> {
    let values: Vec<f32> =
        (0..rows).flat_map(|r| (0..channels).map(move |c| ((r + 1) * (c + 3) % 37) as f32 / 37.0)).collect();
    Tensor::<2>::from_data(TensorData::new(values, [rows, channels]), device).cast(dtype.float())
}

/// Weights of the public benchmark: `((i mod 23) - 11) / 23`.
pub fn weights(device: &Device, shape: [usize; 3], dtype: FloatKind) -> Tensor<3> {
    let values: Vec<f32> =
        (0..shape.iter().product()).map(|i: usize| ((i % 23) as f32 - 11.0) / 23.0).collect();
    Tensor::<3>::from_data(TensorData::new(values, shape), device).cast(dtype.float())
}

/// Times a convolution over a cached relation, or the pointwise product without one.
///
/// # Errors
/// Shapes that do not fit.
pub fn time_conv(
    device: &Device,
    support: &core::Support,
    relation: Option<&Relation>,
    shape: ConvShape,
    dtype: FloatKind,
    calls: Calls,
) -> Result<Vec<f64>> {
    let taps = relation.map_or(1, Relation::taps);
    let feats = features(device, support.n_rows(), shape.c_in, dtype);
    let x = SparseTensor::from_support(support.clone().into(), feats)?;
    let weight = weights(device, [taps, shape.c_in / shape.groups, shape.c_out], dtype);
    let relation = relation.cloned().map(burn_lattice::Relation::from);
    let options = ops::ConvOptions::new(core::KernelSpec::cube(1, 1)?).with_groups(shape.groups);
    time(device, calls, || {
        match &relation {
            Some(r) => ops::sparse_conv(&x, weight.clone(), None, r, shape.groups, [1; 3])?,
            None => ops::subm_conv3d(&x, weight.clone(), None, &options)?,
        };
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_interpolate_between_ranks() {
        let samples = [5.0, 1.0, 4.0, 2.0, 3.0];
        assert_eq!(median(&samples), 3.0);
        assert!((percentile(&samples, 90.0) - 4.6).abs() < 1e-12);
        assert!((percentile(&samples, 95.0) - 4.8).abs() < 1e-12);
    }
}
