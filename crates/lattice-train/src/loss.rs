//! Losses of per-voxel scores: weighted cross-entropy, Lovász-softmax, and their sum.
//!
//! Both are linear in `log p` and in `p` once labels and the order of the errors are known, so each is one product and one sum on
//! the device, and its backward pass one product.

use burn::tensor::activation::log_softmax;
use burn::tensor::{DType, FloatDType, Tensor, TensorData};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::labels::IGNORED;
use crate::total::total;
use crate::{Result, TrainError};

/// What a class counts in cross-entropy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClassWeights {
    /// All alike.
    None,
    /// One weight a class.
    Given(Vec<f32>),
    /// In inverse proportion to the points of the class in the training scenes.
    InverseFrequency,
    /// In inverse proportion to the square root of them: rare classes count more, without drowning the others.
    #[default]
    InverseRoot,
}

impl ClassWeights {
    /// Whether weights follow from the points of each class.
    pub fn needs_counts(&self) -> bool {
        matches!(self, Self::InverseFrequency | Self::InverseRoot)
    }

    /// One weight a class, of mean 1 over the classes with points where they follow from `counts`; a class without points gets the
    /// largest weight.
    ///
    /// # Errors
    /// Given weights that are not one a class, finite and not negative.
    pub fn resolve(&self, counts: &[u64]) -> Result<Vec<f32>> {
        let power = match self {
            Self::None => return Ok(vec![1.0; counts.len()]),
            Self::Given(weights) => {
                let fits =
                    weights.len() == counts.len() && weights.iter().all(|w| w.is_finite() && *w >= 0.0);
                if !fits {
                    let what = format!(
                        "expected {} finite numbers of 0 or more, one a class, found {weights:?}",
                        counts.len()
                    );
                    return Err(TrainError::option("class weights", what));
                }
                return Ok(weights.clone());
            }
            Self::InverseFrequency => 1.0,
            Self::InverseRoot => 0.5,
        };
        let raw = |n: u64| (n > 0).then(|| (n as f64).powf(-power));
        let present: Vec<f64> = counts.iter().filter_map(|&n| raw(n)).collect();
        let mean = present.iter().sum::<f64>() / present.len().max(1) as f64;
        let largest = present.iter().copied().fold(0.0, f64::max);
        let weight = |&n: &u64| if mean > 0.0 { (raw(n).unwrap_or(largest) / mean) as f32 } else { 1.0 };
        Ok(counts.iter().map(weight).collect())
    }
}

/// Shares of the losses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LossConfig {
    /// Factor of cross-entropy; 0 leaves it out.
    pub cross_entropy: f64,
    /// Factor of Lovász-softmax; 0 leaves it out, and with it the read-back of probabilities in each step.
    pub lovasz: f64,
    /// Weights of classes in cross-entropy.
    pub class_weights: ClassWeights,
}

impl Default for LossConfig {
    fn default() -> Self {
        Self { cross_entropy: 1.0, lovasz: 1.0, class_weights: ClassWeights::default() }
    }
}

impl LossConfig {
    /// Refuses factors that train nothing.
    ///
    /// # Errors
    /// A negative factor or one that is not finite; two zeros.
    pub fn check(&self) -> Result<()> {
        let fits = |factor: f64| factor.is_finite() && factor >= 0.0;
        if fits(self.cross_entropy) && fits(self.lovasz) && self.cross_entropy + self.lovasz > 0.0 {
            return Ok(());
        }
        let what = format!(
            "expected factors of 0 or more, not both 0, found {} for cross-entropy and {} for Lovász-softmax",
            self.cross_entropy, self.lovasz
        );
        Err(TrainError::option("loss", what))
    }
}

/// What scores should have been.
#[derive(Clone, Copy, Debug)]
pub struct LossTargets<'a> {
    /// Class of each row, 255 where the row does not count.
    pub labels: &'a [u8],
    /// Weight of each class in cross-entropy.
    pub class_weights: &'a [f32],
}

/// How much of a batch's loss its part makes, where ranks share the batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossShare {
    /// Sum of the class weights of all rows of the batch that count.
    pub weight: f64,
    /// This part's share of the batch, by which its own Lovász-softmax counts.
    pub lovasz: f64,
}

impl LossTargets<'_> {
    /// Sum of the class weights of the rows that count: what cross-entropy is divided by.
    pub fn weight(&self) -> f64 {
        let counted = self.labels.iter().filter(|&&label| label != IGNORED);
        counted.map(|&label| f64::from(self.class_weights[usize::from(label)])).sum()
    }
}

/// The combined loss `[1]` of scores `[n, classes]`; 0 where no row counts. Differentiable, in f32 (f64 for f64 scores).
///
/// Cross-entropy is `Σ w[y] · -log p[y] / Σ w[y]`. Lovász-softmax is the mean over the classes that occur of the Lovász extension of
/// `1 - IoU` at the errors `|[y = c] - p[c]|`; it reads the probabilities back once, since Burn has no sort on GPUs: the host sorts, on all threads.
///
/// # Panics
/// Labels that are not one a row and below the number of classes (or 255), weights that are not one a class.
/// # Source
/// Berman, Triki, Blaschko, "The Lovász-Softmax loss" (CVPR 2018, arXiv:1705.08790), equations 8 and 11, over all items of a batch.
pub fn combined_loss(scores: Tensor<2>, targets: LossTargets<'_>, config: &LossConfig) -> Tensor<1> {
    let whole = LossShare { weight: targets.weight(), lovasz: 1.0 };
    combined_loss_of_part(scores, targets, config, whole)
}

/// [`combined_loss`] of a part of a batch: the sum over the parts is the loss of the batch.
///
/// That is exact for cross-entropy. Lovász-softmax has no sum over parts, since it sorts the errors of all rows: each part has its own, and
/// the batch the mean of them, weighted by their shares.
///
/// # Panics
/// As [`combined_loss`].
pub fn combined_loss_of_part(
    scores: Tensor<2>,
    targets: LossTargets<'_>,
    config: &LossConfig,
    share: LossShare,
) -> Tensor<1> {
    let [rows, classes] = scores.dims();
    let LossTargets { labels, class_weights } = targets;
    assert_eq!(labels.len(), rows, "combined_loss: one label a row");
    assert_eq!(class_weights.len(), classes, "combined_loss: one weight a class");
    let dtype = if scores.dtype() == DType::F64 { FloatDType::F64 } else { FloatDType::F32 };
    let device = scores.device();
    if labels.iter().all(|&label| label == IGNORED) {
        return scores.cast(dtype).sum() * 0.0;
    }
    let on_device = |values: Vec<f64>| {
        Tensor::<2>::from_data(TensorData::new(values, [rows, classes]), (&device, DType::from(dtype)))
    };
    let log_p = log_softmax(scores.cast(dtype), 1);
    let mut parts = Vec::new();
    if config.cross_entropy > 0.0 {
        let factors =
            on_device(cross_entropy_factors(labels, class_weights, config.cross_entropy, share.weight));
        parts.push(total(log_p.clone() * factors));
    }
    if config.lovasz > 0.0 {
        let p = log_p.exp();
        let host: Vec<f64> = p.clone().into_data().iter::<f64>().collect();
        let (mut slopes, constant) = lovasz_slopes(&host, labels, classes);
        let factor = config.lovasz * share.lovasz;
        slopes.iter_mut().for_each(|slope| *slope *= factor);
        parts.push(total(p * on_device(slopes)) + constant * factor);
    }
    parts.into_iter().reduce(|a, b| a + b).unwrap_or_else(|| Tensor::zeros([1], &device))
}

/// `-share · w[y] / sum` at the class of each row that counts.
fn cross_entropy_factors(labels: &[u8], class_weights: &[f32], share: f64, sum: f64) -> Vec<f64> {
    let classes = class_weights.len();
    let weight = |label: u8| f64::from(class_weights[usize::from(label)]);
    let mut factors = vec![0.0; labels.len() * classes];
    if sum > 0.0 {
        for (row, &label) in labels.iter().enumerate().filter(|(_, label)| **label != IGNORED) {
            factors[row * classes + usize::from(label)] = -share * weight(label) / sum;
        }
    }
    factors
}

/// Lovász-softmax as a linear function of the probabilities, valid while the order of the errors stays: slopes `[n, classes]` and a
/// constant, so that the loss is `Σ p · slope + constant`. The slopes are the gradient.
///
/// Equal errors are taken in the order of their rows. Cost: one sort a class, on all threads; the result does not depend on them.
///
/// # Panics
/// Lengths that differ, labels of `classes` or more other than 255.
pub fn lovasz_slopes(p: &[f64], labels: &[u8], classes: usize) -> (Vec<f64>, f64) {
    assert_eq!(p.len(), labels.len() * classes, "lovasz_slopes: one probability a row and class");
    let present = |class: usize| labels.iter().any(|&label| usize::from(label) == class);
    let occurring: Vec<usize> = (0..classes).filter(|&class| present(class)).collect();
    let share = 1.0 / occurring.len().max(1) as f64;
    let columns: Vec<(usize, Vec<(u32, f64)>)> = occurring
        .into_par_iter()
        .map(|class| (class, class_slopes(p, labels, classes, class, share)))
        .collect();
    let mut slopes = vec![0.0; p.len()];
    let mut constant = 0.0;
    for (class, column) in columns {
        for (row, slope) in column {
            slopes[row as usize * classes + class] = slope;
            // An error of the class itself is 1 - p: its slope is negative.
            if usize::from(labels[row as usize]) == class {
                constant -= slope;
            }
        }
    }
    (slopes, constant)
}

/// Rows of one class and their slopes.
fn class_slopes(p: &[f64], labels: &[u8], classes: usize, class: usize, share: f64) -> Vec<(u32, f64)> {
    let own = |row: usize| usize::from(labels[row]) == class;
    let counts = (0..labels.len()).filter(|&row| labels[row] != IGNORED);
    // Largest error first: errors are not negative, so their bits are in their order.
    let key = |row: usize| {
        let p = p[row * classes + class];
        let error = if own(row) { 1.0 - p } else { p };
        (!error.max(0.0).to_bits(), row as u32)
    };
    let mut order: Vec<(u64, u32)> = counts.map(key).collect();
    order.par_sort_unstable();
    let total = order.iter().filter(|(_, row)| own(*row as usize)).count() as f64;
    let (mut hits, mut before) = (0.0, 0.0);
    let step = |(i, (_, row)): (usize, (u64, u32))| {
        hits += f64::from(u8::from(own(row as usize)));
        // Jaccard loss of taking the first i + 1 rows for wrong.
        let loss = 1.0 - (total - hits) / (total + (i + 1) as f64 - hits);
        let slope = (loss - before) * share;
        before = loss;
        (row, if own(row as usize) { -slope } else { slope })
    };
    order.into_iter().enumerate().map(step).collect()
}
