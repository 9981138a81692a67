//! One training step, without a wait for the device.

use burn::tensor::{Device, FloatDType, Tensor, TensorData};
use burn_lattice::Group;

use crate::checkpoint::Checkpoint;
use crate::parameters::{running_values, with_values};
use crate::total::Totals;
use crate::{
    Batch, LossConfig, LossScale, LossShare, LossTargets, Optimizer, ParameterLayout, Precision, Result,
    Schedule, Segmenter, TensorFile, TrainConfig, TrainError, combined_loss_of_part,
};

/// A network in training: its parameters as one f32 vector, the optimizer's state, the loss scale.
///
/// Losses stay on the device until [`drain`](Self::drain) reads those of many steps at once. A step whose gradient is not finite
/// changes no parameter; `drain` reports it.
///
/// Several trainers, each on a thread of its own, can share their batches ([`with_group`](Self::with_group)): each computes the gradient
/// of its part, and all take the same step on the sum. What decides about a step (norm, loss scale) follows from that sum, so the parameters have the
/// same bits everywhere; [`drain`](Self::drain) makes sure.
pub struct Trainer<M> {
    model: M,
    layout: ParameterLayout,
    values: Tensor<1>,
    optimizer: Optimizer,
    scale: LossScale,
    class_weights: Vec<f32>,
    loss: LossConfig,
    schedule: Schedule,
    steps: usize,
    clip_norm: Option<f64>,
    precision: Precision,
    /// With autodiff.
    device: Device,
    step: usize,
    pending: Vec<Pending>,
    totals: Totals,
    group: Option<Group>,
    shared_norms: bool,
}

struct Pending {
    rate: f64,
    /// Loss, gradient norm and loss scale, `[1]` each.
    scalars: [Tensor<1>; 3],
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// Number of the step, from 1.
    pub step: usize,
    /// Loss of its batches, the mean where it accumulated several.
    pub loss: f32,
    /// Learning rate.
    pub rate: f64,
    /// Norm of the gradient before it was clipped.
    pub norm: f32,
    /// Factor that the loss was scaled by.
    pub scale: f32,
    /// Whether the step was left out because its gradient overflowed half precision.
    pub skipped: bool,
}

impl<M: Segmenter> Trainer<M> {
    /// Takes a network on a device with autodiff.
    ///
    /// # Errors
    /// Options that train nothing; an element type that the device does not compute with.
    pub fn new(model: M, config: &TrainConfig, class_weights: Vec<f32>, device: &Device) -> Result<Self> {
        config.check()?;
        config.precision.check(device)?;
        let layout = ParameterLayout::of(&model);
        if layout.is_empty() {
            return Err(TrainError::option(
                "network",
                "expected parameters on a device with autodiff, found none",
            ));
        }
        let values = layout.values(&model);
        let plain = values.device();
        let totals = Totals::new(values.dims()[0])?;
        let mut trainer = Self {
            optimizer: Optimizer::new(config.optimizer, &layout, &plain),
            scale: LossScale::new(config.precision == Precision::F16, &plain),
            model,
            layout,
            values,
            class_weights,
            loss: config.loss.clone(),
            schedule: config.schedule,
            steps: config.steps,
            clip_norm: config.clip_norm,
            precision: config.precision,
            device: device.clone().autodiff(),
            step: 0,
            pending: Vec::new(),
            totals,
            group: None,
            shared_norms: config.shared_norms,
        };
        trainer.install();
        Ok(trainer)
    }

    /// Shares batches with the other trainers of the group, which were made alike: from now on a batch is this one's part of them.
    pub fn with_group(mut self, group: Group) -> Self {
        self.group = Some(group);
        self
    }

    /// The ranks that this one shares batches with.
    pub fn group(&self) -> Option<&Group> {
        self.group.as_ref()
    }

    /// Steps that were done.
    pub fn steps_done(&self) -> usize {
        self.step
    }

    /// Where each parameter lies.
    pub fn layout(&self) -> &ParameterLayout {
        &self.layout
    }

    /// All parameters, in f32.
    pub fn values(&self) -> Vec<f32> {
        self.values.clone().into_data().iter::<f32>().collect()
    }

    fn install(&mut self) {
        self.model = self.layout.install(self.model.clone(), &self.values, self.precision.dtype());
    }

    /// What parts of each batch make of its loss: asked of all ranks before they begin a step.
    fn shares(&self, batches: &[Batch]) -> Result<Vec<LossShare>> {
        let weight = |batch: &Batch| self.targets(batch).weight();
        let Some(group) = &self.group else {
            return Ok(batches.iter().map(|b| LossShare { weight: weight(b), lovasz: 1.0 }).collect());
        };
        let own: Vec<f64> = batches.iter().flat_map(|b| [weight(b), b.scenes as f64]).collect();
        let all = group.add(&own)?;
        let share = |(batch, all): (&Batch, &[f64])| LossShare {
            weight: all[0],
            lovasz: batch.scenes as f64 / all[1].max(1.0),
        };
        Ok(batches.iter().zip(all.chunks_exact(2)).map(share).collect())
    }

    fn targets<'a>(&'a self, batch: &'a Batch) -> LossTargets<'a> {
        LossTargets { labels: &batch.labels, class_weights: &self.class_weights }
    }

    /// Number of the pass of batch `at` of `batches` in this step: none other has it, on any rank.
    fn pass(&self, at: usize, batches: usize) -> u64 {
        let (rank, ranks) = self.group.as_ref().map_or((0, 1), |group| (group.rank(), group.ranks()));
        ((self.step * batches + at) * ranks + rank) as u64
    }

    /// Scores of a batch; in a group, with the statistics of all ranks' rows in its norms.
    fn scores(&self, batch: &Batch) -> Result<Tensor<2>> {
        let x = batch.to_sparse(&self.device)?.astype(self.precision.dtype());
        let scores = || self.model.scores(&x);
        let scores = match self.group.as_ref().filter(|_| self.shared_norms) {
            Some(group) => group.share_norms(scores)?,
            None => scores()?,
        };
        Ok(scores.into_feats())
    }

    /// One optimizer step on the mean gradient of `batches`.
    ///
    /// # Errors
    /// No batches; what the network refuses; in a group, another rank that has ended. Where one ends within the step, norms unwind with an
    /// error of [`burn_lattice`] as their payload.
    pub fn step(&mut self, batches: &[Batch]) -> Result<()> {
        if batches.is_empty() {
            return Err(TrainError::option("batch", "expected at least one batch a step, found none"));
        }
        let shares = self.shares(batches)?;
        let per_batch = 1.0 / batches.len() as f64;
        let factor = self.scale.factor();
        let mut sum: Option<(Tensor<1>, Tensor<1>)> = None;
        for (at, (batch, share)) in batches.iter().zip(shares).enumerate() {
            self.model.begin_pass(self.pass(at, batches.len()));
            let scores = self.scores(batch)?;
            let loss = combined_loss_of_part(scores, self.targets(batch), &self.loss, share) * per_batch;
            let found = loss.clone().inner();
            let scaled = if self.scale.moves() { loss * Tensor::from_inner(factor.clone()) } else { loss };
            let gradient = self.layout.gradient(&self.model, &mut scaled.backward());
            sum = Some(match sum {
                None => (found, gradient),
                Some((losses, gradients)) => (losses + found, gradients + gradient),
            });
        }
        let (loss, mut gradient) = sum.expect("there is at least one batch");
        if let Some(group) = &self.group {
            gradient = group.sum(gradient)?;
        }
        if self.scale.moves() {
            gradient = gradient / factor.clone();
        }
        let norm = self.totals.of(gradient.clone() * gradient.clone()).sqrt();
        let finite = norm.clone().is_finite();
        if let Some(clip) = self.clip_norm {
            gradient = gradient * (norm.clone() + 1e-6).recip().mul_scalar(clip).clamp_max(1.0);
        }
        let rate = self.schedule.rate(self.step, self.steps);
        self.values = self.optimizer.step(self.values.clone(), gradient, self.step, rate, &finite);
        self.scale.update(&finite);
        self.step += 1;
        self.pending.push(Pending { rate, scalars: [loss, norm, factor] });
        self.install();
        Ok(())
    }

    /// What the steps since the last call did. Waits for the device, once; in a group all ranks call it after the same step.
    ///
    /// # Errors
    /// [`TrainError::Diverged`] at the first step with a loss that is not finite, with a gradient that is not finite in f32 or bf16,
    /// or where half precision overflows at every loss scale. In a group, the same on all ranks; [`TrainError::Rank`] where the parameters of
    /// one are not those of the first.
    pub fn drain(&mut self) -> Result<Vec<StepReport>> {
        let pending = std::mem::take(&mut self.pending);
        if pending.is_empty() {
            return Ok(Vec::new());
        }
        let first = self.step - pending.len();
        let mut scalars: Vec<_> = pending.iter().flat_map(|p| p.scalars.iter().cloned()).collect();
        if self.group.is_some() {
            scalars.extend(self.checksums());
        }
        let mut read: Vec<f32> = Tensor::cat(scalars, 0).into_data().iter::<f32>().collect();
        if let Some(group) = &self.group {
            agree(group, &mut read, pending.len(), self.step)?;
        }
        let mut reports = Vec::with_capacity(pending.len());
        for (i, (Pending { rate, .. }, scalars)) in pending.iter().zip(read.chunks_exact(3)).enumerate() {
            let [loss, norm, scale] = [scalars[0], scalars[1], scalars[2]];
            let step = first + i + 1;
            let diverged = |fix: &str| Err(TrainError::Diverged { step, loss, norm, fix: fix.into() });
            if !loss.is_finite() {
                return diverged("lower the learning rate, clip the gradient, or use f32");
            }
            let skipped = !norm.is_finite();
            if skipped && !self.scale.moves() {
                return diverged("lower the learning rate or clip the gradient");
            }
            if scale < SMALLEST_SCALE {
                return diverged("its gradients overflow f16 at every loss scale: use bf16 or f32");
            }
            reports.push(StepReport { step, loss, rate: *rate, norm, scale, skipped });
        }
        Ok(reports)
    }

    /// Sums of the parameters and of their squares, `[1]` each: they tell one state from another.
    fn checksums(&self) -> [Tensor<1>; 2] {
        [self.totals.of(self.values.clone()), self.totals.of(self.values.clone() * self.values.clone())]
    }

    /// The network with its present parameters in f32, in memory of its own on a device without autodiff, and the same as a file.
    pub fn trained(&self) -> (M, TensorFile) {
        let plain = self.model.valid();
        let values = self.values();
        let mut file = TensorFile::default();
        for entry in self.layout.entries() {
            file.insert(&entry.path, &entry.dims, values[entry.range.clone()].to_vec());
        }
        let plain = with_values(plain, |path| file.tensors.get(path).map(|tensor| tensor.values.clone()));
        for (path, dims, values) in running_values(&plain, &self.layout) {
            file.insert(path, &dims, values);
        }
        (plain, file)
    }

    /// Everything that the next step depends on.
    pub fn checkpoint(&self) -> Checkpoint {
        let (_, trained) = self.trained();
        let mut tensors = TensorFile::default();
        for (name, tensor) in trained.tensors {
            tensors.insert(format!("network.{name}"), &tensor.dims, tensor.values);
        }
        for (name, state) in self.optimizer.state_names().iter().zip(&self.optimizer.state) {
            let values: Vec<f32> = state.clone().into_data().iter::<f32>().collect();
            for entry in self.layout.entries() {
                let name = format!("optimizer.{name}.{}", entry.path);
                tensors.insert(name, &entry.dims, values[entry.range.clone()].to_vec());
            }
        }
        for (name, value) in [("factor", &self.scale.factor), ("good_steps", &self.scale.good_steps)] {
            tensors.insert(format!("scale.{name}"), &[1], value.clone().into_data().iter::<f32>().collect());
        }
        Checkpoint { step: self.step, tensors }
    }

    /// Goes on from a checkpoint; afterwards each step gives the bits that it would have given without the stop.
    ///
    /// # Errors
    /// A tensor that is missing, has another shape, or belongs to nothing here; the trainer is then as it was.
    pub fn restore(&mut self, checkpoint: Checkpoint, path: &std::path::Path) -> Result<()> {
        let Checkpoint { step, mut tensors } = checkpoint;
        let plain = self.values.device();
        let vector =
            |parts: &[f32], n: usize| Tensor::from_data(TensorData::new(parts.to_vec(), [n]), &plain);
        let mut whole = |prefix: &str| -> Result<Tensor<1>> {
            let mut all = Vec::with_capacity(self.layout.len());
            for entry in self.layout.entries() {
                all.extend(tensors.take(path, &format!("{prefix}.{}", entry.path), &entry.dims)?);
            }
            Ok(vector(&all, self.layout.len()))
        };
        let values = whole("network")?;
        let state = self
            .optimizer
            .state_names()
            .iter()
            .map(|name| whole(&format!("optimizer.{name}")))
            .collect::<Result<Vec<_>>>()?;
        let mut running = std::collections::BTreeMap::new();
        for (place, dims, _) in running_values(&self.model.valid(), &self.layout) {
            running.insert(place.clone(), tensors.take(path, &format!("network.{place}"), &dims)?);
        }
        let factor = tensors.take(path, "scale.factor", &[1])?;
        let good_steps = tensors.take(path, "scale.good_steps", &[1])?;
        if let Some(name) = tensors.names().next() {
            let what = format!(
                "tensor `{name}`: expected none of this name, found one; it belongs to another network"
            );
            return Err(TrainError::checkpoint(path, what));
        }
        self.values = values;
        self.optimizer.state = state;
        self.scale.factor = vector(&factor, 1);
        self.scale.good_steps = vector(&good_steps, 1);
        self.step = step;
        self.pending.clear();
        self.model = with_values(self.model.clone(), |place| running.get(place).cloned());
        self.install();
        Ok(())
    }

    /// The element type that convolutions compute in.
    pub fn compute_dtype(&self) -> FloatDType {
        self.precision.dtype()
    }
}

/// Below this loss scale no gradient that f16 holds is left.
const SMALLEST_SCALE: f32 = 1.0 / 1024.0;

/// Puts the sums over the ranks in the place of this rank's losses, which stand before norm and scale of each of `steps` steps; behind them stand
/// the checksums of the parameters.
fn agree(group: &Group, read: &mut [f32], steps: usize, step: usize) -> Result<()> {
    let (scalars, checksums) = read.split_at_mut(3 * steps);
    let losses = scalars.iter().step_by(3).map(|&loss| f64::from(loss));
    let bits = checksums.iter().map(|sum| f64::from(sum.to_bits()));
    let given = group.exchange(&losses.chain(bits).collect::<Vec<_>>())?;
    for (at, loss) in scalars.iter_mut().step_by(3).enumerate() {
        *loss = given.iter().map(|part| part[at]).sum::<f64>() as f32;
    }
    match given.iter().position(|part| part[steps..] != given[0][steps..]) {
        None => Ok(()),
        Some(rank) => Err(TrainError::Rank {
            rank,
            what: format!(
                "expected the parameters of rank 0 after step {step}, found others; one of the devices computes wrong: resume from the \
                 last checkpoint without it"
            ),
        }),
    }
}
