//! How features become bytes: ranges found on representative features.

use burn::tensor::Tensor;

use crate::{Error, Result};

/// How the range of features is chosen from those that were seen.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum CalibrationMethod {
    /// From the smallest to the largest value.
    MinMax,
    /// Leaves out at each end the share of values past this percentile, such as 99.99: a few outliers do not coarsen all steps.
    Percentile(f64),
    /// The range, of 64 that shrink towards 0, whose bytes lose the least information (Kullback-Leibler divergence), after Migacz,
    /// "8-bit inference with TensorRT" (GTC 2017); here two-sided.
    Entropy,
}

/// Whether all input channels have one range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granularity {
    /// One range: weights stay as they are.
    PerTensor,
    /// A range a channel: weights are multiplied by the ratio of the steps, which moves the difference between channels into them.
    PerChannel,
}

/// Steps and bytes of 0 of input features, one a channel: `byte = round(clamp(x / step + zero, 0, 255))`.
#[derive(Clone, Debug, PartialEq)]
pub struct ActivationRange {
    steps: Vec<f32>,
    zeros: Vec<u8>,
    per_channel: bool,
}

/// Smallest ratio of a channel's step to the largest: what weights are multiplied with stays above the rounding of f16.
const LEAST_RATIO: f32 = 1.0 / 1024.0;

impl ActivationRange {
    /// The steps between the least and the greatest value of each channel; each range is widened to hold 0.
    ///
    /// # Errors
    /// No channels, ends that are not finite, a greatest value below the least.
    pub fn from_ends(ends: &[(f32, f32)], granularity: Granularity) -> Result<Self> {
        let refuse = |found: String| Error::Value {
            op: "ActivationRange",
            what: format!(
                "expected a finite least and greatest value a channel, found {found}; calibrate again"
            ),
        };
        if ends.is_empty() {
            return Err(refuse("no channels".into()));
        }
        if let Some(bad) = ends.iter().find(|(lo, hi)| !lo.is_finite() || !hi.is_finite() || lo > hi) {
            return Err(refuse(format!("{bad:?}")));
        }
        let ends: Vec<(f32, f32)> = match granularity {
            Granularity::PerChannel => ends.to_vec(),
            Granularity::PerTensor => {
                let all = ends.iter().fold((0.0f32, 0.0f32), |all, e| (all.0.min(e.0), all.1.max(e.1)));
                vec![all; ends.len()]
            }
        };
        let steps: Vec<f32> =
            ends.iter().map(|&(lo, hi)| (hi.max(0.0) / 255.0 - lo.min(0.0) / 255.0).max(1e-20)).collect();
        let largest = steps.iter().fold(0.0f32, |a, &b| a.max(b));
        let steps: Vec<f32> = steps.iter().map(|s| s.max(largest * LEAST_RATIO)).collect();
        let zero = |(&(lo, _), step): (&(f32, f32), &f32)| {
            (-lo.min(0.0) / step).round_ties_even().clamp(0.0, 255.0) as u8
        };
        let zeros = ends.iter().zip(&steps).map(zero).collect();
        Ok(Self { steps, zeros, per_channel: granularity == Granularity::PerChannel })
    }

    /// The range of stored values: steps, then bytes of 0, as many.
    ///
    /// # Errors
    /// Steps that are not finite and above 0, or differ where one should serve all; bytes of 0 that are no bytes.
    pub fn from_values(values: &[f32], per_channel: bool) -> Result<Self> {
        let refuse = |what: &str, found: f32| Error::Value {
            op: "activations of a packed weight",
            what: format!("expected {what}, found {found}; quantize the network again"),
        };
        let (steps, zeros) = values.split_at(values.len() / 2);
        if let Some(&bad) = steps.iter().find(|s| !s.is_finite() || **s <= 0.0) {
            return Err(refuse("finite steps above 0", bad));
        }
        if let Some(&bad) = zeros.iter().find(|z| !(0.0..=255.0).contains(*z) || z.fract() != 0.0) {
            return Err(refuse("bytes of 0 from 0 to 255", bad));
        }
        if !per_channel && steps.iter().any(|s| *s != steps[0]) {
            return Err(refuse("one step for all channels", steps[steps.len() - 1]));
        }
        Ok(Self { steps: steps.to_vec(), zeros: zeros.iter().map(|&z| z as u8).collect(), per_channel })
    }

    /// A step a channel.
    pub fn steps(&self) -> &[f32] {
        &self.steps
    }

    /// A byte of 0 a channel.
    pub fn zeros(&self) -> &[u8] {
        &self.zeros
    }

    /// Whether channels have ranges of their own.
    pub fn is_per_channel(&self) -> bool {
        self.per_channel
    }

    /// Step over largest step, a channel: what weights of these inputs are multiplied with before they are packed.
    pub fn ratios(&self) -> Vec<f32> {
        let largest = self.steps.iter().fold(0.0f32, |a, &b| a.max(b));
        self.steps.iter().map(|s| s / largest).collect()
    }
}

/// Bins of a histogram; half of them below 0.
const BINS: usize = 4096;

/// Counts of values in even bins from `-limit` to `limit`, a power of two that doubles where a value lies outside.
#[derive(Clone, Debug)]
struct Histogram {
    limit: f32,
    bins: Vec<u64>,
    ends: (f32, f32),
}

impl Histogram {
    fn new() -> Self {
        Self { limit: f32::MIN_POSITIVE * 1e6, bins: vec![0; BINS], ends: (f32::INFINITY, f32::NEG_INFINITY) }
    }

    fn widen(&mut self) {
        self.limit *= 2.0;
        let merged: Vec<u64> = self.bins.chunks_exact(2).map(|b| b[0] + b[1]).collect();
        self.bins.fill(0);
        self.bins[BINS / 4..BINS / 4 * 3].copy_from_slice(&merged);
    }

    fn add(&mut self, values: impl Iterator<Item = f32>) {
        for v in values {
            while v.abs() >= self.limit && self.limit < f32::MAX / 4.0 {
                self.widen();
            }
            let at = ((v / self.limit + 1.0) * (BINS / 2) as f32) as usize;
            self.bins[at.min(BINS - 1)] += 1;
            self.ends = (self.ends.0.min(v), self.ends.1.max(v));
        }
    }

    fn total(&self) -> u64 {
        self.bins.iter().sum()
    }

    /// Lower edge of a bin.
    fn edge(&self, bin: usize) -> f32 {
        (bin as f32 / (BINS / 2) as f32 - 1.0) * self.limit
    }

    /// The first of `bins` before which at most `most` values lie.
    fn past(&self, bins: Vec<usize>, most: u64) -> Option<usize> {
        let mut left = most;
        bins.into_iter().find(|&b| match left.checked_sub(self.bins[b]) {
            Some(rest) => {
                left = rest;
                false
            }
            None => true,
        })
    }

    /// Ends that leave out at most `share` of the values on either side.
    fn percentile(&self, share: f64) -> (f32, f32) {
        let most = (share * self.total() as f64) as u64;
        let low = self.past((0..BINS).collect(), most).map_or(0.0, |b| self.edge(b));
        let high = self.past((0..BINS).rev().collect(), most).map_or(0.0, |b| self.edge(b + 1));
        (low.max(self.ends.0), high.min(self.ends.1))
    }

    /// Ends whose 256 levels tell the most of the distribution.
    fn entropy(&self) -> (f32, f32) {
        const CANDIDATES: usize = 64;
        let (lo, hi) = (self.ends.0.min(0.0), self.ends.1.max(0.0));
        let mut best = (f64::INFINITY, (lo, hi));
        for i in (CANDIDATES / 8..=CANDIDATES).rev() {
            let part = i as f32 / CANDIDATES as f32;
            let ends = (lo * part, hi * part);
            let loss = self.divergence(ends);
            if loss < best.0 {
                best = (loss, ends);
            }
        }
        best.1
    }

    /// Divergence of the distribution, what lies outside folded into the ends, from its 256 levels.
    fn divergence(&self, (lo, hi): (f32, f32)) -> f64 {
        let bin = |v: f32| (((v / self.limit + 1.0) * (BINS / 2) as f32) as usize).min(BINS - 1);
        let (first, last) = (bin(lo), bin(hi));
        let inside = &self.bins[first..=last];
        let mut folded: Vec<f64> = inside.iter().map(|&n| n as f64).collect();
        folded[0] += self.bins[..first].iter().sum::<u64>() as f64;
        folded[last - first] += self.bins[last + 1..].iter().sum::<u64>() as f64;
        let levels = 256.min(inside.len());
        let mut spread = vec![0.0; inside.len()];
        for level in 0..levels {
            let range = level * inside.len() / levels..(level + 1) * inside.len() / levels;
            let used = inside[range.clone()].iter().filter(|&&n| n > 0).count();
            let sum = inside[range.clone()].iter().sum::<u64>() as f64;
            for at in range {
                if inside[at] > 0 {
                    spread[at] = sum / used as f64;
                }
            }
        }
        let (p_total, q_total) = (folded.iter().sum::<f64>(), spread.iter().sum::<f64>());
        if p_total == 0.0 || q_total == 0.0 {
            return f64::INFINITY;
        }
        // A bin that only holds what was folded into it has no level of its own: the smallest share there is.
        let smallest = 0.5 / p_total;
        let term = |(p, q): (&f64, &f64)| match *p > 0.0 {
            true => p / p_total * ((p / p_total) / (q / q_total).max(smallest)).ln(),
            false => 0.0,
        };
        folded.iter().zip(&spread).map(term).sum()
    }
}

/// Sees features and finds their range. Memory: 32 KB a channel, or in all where one range serves all.
#[derive(Clone, Debug)]
pub struct Calibrator {
    method: CalibrationMethod,
    granularity: Granularity,
    seen: Vec<Histogram>,
    channels: usize,
}

impl Calibrator {
    /// Nothing seen yet.
    ///
    /// # Errors
    /// A percentile outside 50 to 100.
    pub fn try_new(method: CalibrationMethod, granularity: Granularity) -> Result<Self> {
        if let CalibrationMethod::Percentile(p) = method
            && !(50.0..=100.0).contains(&p)
        {
            return Err(Error::Value {
                op: "Calibrator",
                what: format!("expected a percentile from 50 to 100, found {p}"),
            });
        }
        Ok(Self { method, granularity, seen: Vec::new(), channels: 0 })
    }

    /// Sees features `[n, channels]`, read from the device.
    ///
    /// # Errors
    /// Other channels than before; values that are not finite.
    pub fn observe(&mut self, feats: &Tensor<2>) -> Result<()> {
        let [_, channels] = feats.dims();
        if self.channels == 0 {
            self.channels = channels;
            let histograms = if self.granularity == Granularity::PerChannel { channels } else { 1 };
            self.seen = vec![Histogram::new(); histograms];
        }
        if channels != self.channels {
            return Err(Error::Channels { op: "Calibrator", expected: self.channels, found: channels });
        }
        let values: Vec<f32> = feats.clone().into_data().iter::<f32>().collect();
        if let Some(bad) = values.iter().find(|v| !v.is_finite()) {
            return Err(Error::Value {
                op: "Calibrator",
                what: format!(
                    "expected finite features, found {bad}; check the weights, or rescale the scan"
                ),
            });
        }
        match self.granularity {
            Granularity::PerTensor => self.seen[0].add(values.into_iter()),
            Granularity::PerChannel => {
                for (channel, seen) in self.seen.iter_mut().enumerate() {
                    seen.add(values.iter().skip(channel).step_by(channels).copied());
                }
            }
        }
        Ok(())
    }

    /// The range of what was seen.
    ///
    /// # Errors
    /// Where nothing was seen.
    pub fn range(&self) -> Result<ActivationRange> {
        if self.seen.iter().all(|h| h.total() == 0) {
            return Err(Error::Value {
                op: "Calibrator",
                what: "expected features to calibrate with, found none; give scenes that reach this layer"
                    .into(),
            });
        }
        let ends = |h: &Histogram| match (h.total(), self.method) {
            (0, _) => (0.0, 0.0),
            (_, CalibrationMethod::MinMax) => h.ends,
            (_, CalibrationMethod::Percentile(p)) => h.percentile((100.0 - p) / 100.0),
            (_, CalibrationMethod::Entropy) => h.entropy(),
        };
        let mut found: Vec<(f32, f32)> = self.seen.iter().map(ends).collect();
        if self.granularity == Granularity::PerTensor {
            found = vec![found[0]; self.channels];
        }
        ActivationRange::from_ends(&found, self.granularity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(range: &ActivationRange) -> (f32, f32) {
        let (step, zero) = (range.steps()[0], f32::from(range.zeros()[0]));
        (-zero * step, (255.0 - zero) * step)
    }

    fn range(method: CalibrationMethod, values: &[f32]) -> ActivationRange {
        let mut calibrator = Calibrator::try_new(method, Granularity::PerTensor).expect("a method");
        calibrator.channels = 1;
        calibrator.seen = vec![Histogram::new()];
        calibrator.seen[0].add(values.iter().copied());
        calibrator.range().expect("a range")
    }

    #[test]
    fn extremes_percentiles_and_entropy_cut_as_they_say() {
        // A thousand even values in -1..3, and one outlier.
        let mut values: Vec<f32> = (0..10_000).map(|i| i as f32 / 2_500.0 - 1.0).collect();
        let even = ends(&range(CalibrationMethod::MinMax, &values));
        assert!((even.0 + 1.0).abs() < 0.02 && (even.1 - 3.0).abs() < 0.02, "{even:?}");
        values.push(400.0);
        let all = ends(&range(CalibrationMethod::MinMax, &values));
        assert!((all.1 - 400.0).abs() < 2.0 && all.0 >= -2.0, "{all:?}");
        let cut = ends(&range(CalibrationMethod::Percentile(99.9), &values));
        assert!((cut.0 + 1.0).abs() < 0.4 && (cut.1 - 3.0).abs() < 0.4, "{cut:?}");
        // Most values near 0, which wide levels would not tell apart, and the outlier: far less than it is kept.
        let mut dense: Vec<f32> = (0..10_000).map(|i| 3.0 * (i as f32 / 5_000.0 - 1.0).powi(3)).collect();
        dense.push(400.0);
        let informed = ends(&range(CalibrationMethod::Entropy, &dense));
        assert!(informed.1 < 200.0 && informed.1 > 2.5, "{informed:?}");
    }

    #[test]
    fn zero_is_always_a_byte() {
        for ends in [(1.0, 2.0), (-3.0, -1.0), (0.0, 0.0), (-1e-30, 1e30)] {
            let range = ActivationRange::from_ends(&[ends], Granularity::PerTensor).expect("a range");
            assert!(range.steps()[0] > 0.0 && range.steps()[0].is_finite());
        }
        let range = ActivationRange::from_ends(&[(0.0, 5.1)], Granularity::PerTensor).expect("a range");
        assert_eq!((range.zeros(), range.steps()), (&[0u8][..], &[5.1 / 255.0][..]));
    }

    #[test]
    fn histograms_widen_without_losing_values() {
        let mut histogram = Histogram::new();
        histogram.add([1e-20, -1e-10, 3.0, -7e10, 0.0].into_iter());
        assert_eq!((histogram.total(), histogram.ends), (5, (-7e10, 3.0)));
    }
}
