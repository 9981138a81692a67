//! One rank of a run: its part of the batches, and the steps on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use burn_lattice::Group;

use crate::lead::Lead;
use crate::ranks::{Member, part_of_batch};
use crate::{
    Batch, Dataset, Event, LabelledScene, Loader, Outcome, Result, SampleOrder, SegmentationNet, TrainConfig,
    Trainer, make_batch,
};

/// Asks a run to pause, from any thread: it stops with a checkpoint after the steps that it reads next.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Asks, for the run that is under way or comes next.
    pub fn ask(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Forgets that it was asked.
    pub(crate) fn clear(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// A device of a run with its trainer; the first one leads.
pub(crate) struct Rank {
    pub(crate) trainer: Trainer<SegmentationNet>,
    pub(crate) config: Arc<TrainConfig>,
    pub(crate) scenes: Arc<Dataset>,
    pub(crate) lead: Option<Lead>,
    /// That of the run; the first rank's reading counts.
    pub(crate) stop: Stop,
}

impl Member for Rank {
    fn group(&self) -> Option<&Group> {
        self.trainer.group()
    }

    fn train(&mut self, until: Option<usize>, events: &mut dyn FnMut(&Event<'_>)) -> Result<Outcome> {
        let config = self.config.clone();
        let steps = config.steps;
        let until = until.unwrap_or(steps).min(steps);
        let mut loader = self.loader(until);
        let mut clock = Instant::now();
        let mut stops = self.stops_early()?;
        while self.trainer.steps_done() < until {
            if stops {
                return Ok(Outcome::StoppedEarly);
            }
            let next = (0..config.accumulate).map_while(|_| loader.next_batch());
            let batches = next.collect::<Result<Vec<_>>>()?;
            self.trainer.step(&batches)?;
            let done = self.trainer.steps_done();
            let validates = done.is_multiple_of(config.validate_every) || done == steps;
            let ends = done == until;
            if done.is_multiple_of(config.report_every) || validates || ends {
                let reports = self.trainer.drain()?;
                let is_asked = self.first_says(self.stop.is_asked())?;
                let seconds = clock.elapsed().as_secs_f64() / reports.len().max(1) as f64;
                if let Some(lead) = &mut self.lead {
                    lead.report(&reports, steps, seconds, events);
                    if validates {
                        lead.validate(&self.trainer, &config, events)?;
                    } else if ends || is_asked {
                        lead.save(&self.trainer, &config)?;
                    }
                }
                if is_asked && done < steps {
                    return Ok(Outcome::Paused);
                }
                if validates {
                    stops = self.stops_early()?;
                }
                clock = Instant::now();
            }
        }
        Ok(match (until == steps, stops) {
            (true, _) => Outcome::Complete,
            (false, true) => Outcome::StoppedEarly,
            (false, false) => Outcome::Paused,
        })
    }
}

impl Rank {
    /// Whether validation, which the first rank alone does, ends the run.
    fn stops_early(&self) -> Result<bool> {
        self.first_says(self.lead.as_ref().is_some_and(|lead| lead.stops_early(&self.config)))
    }

    /// What the first rank says; all ranks ask together.
    fn first_says(&self, own: bool) -> Result<bool> {
        match self.group() {
            None => Ok(own),
            Some(group) => Ok(group.exchange(&[f64::from(u8::from(own))])?[0] == [1.0]),
        }
    }

    fn loader(&self, until: usize) -> Loader {
        let (config, scenes) = (self.config.clone(), self.scenes.clone());
        let (rank, ranks) = self.group().map_or((0, 1), |group| (group.rank(), group.ranks()));
        let per_step = config.accumulate as u64;
        let [first, end] = [self.trainer.steps_done(), until].map(|step| step as u64 * per_step);
        let threads = config.threads / ranks;
        let make = move |number| training_batch(&config, &scenes, number, [rank, ranks]);
        Loader::start(first, end, threads, make)
    }
}

/// The part of batch `number` of a run that rank `rank` of `ranks` takes: its scenes, changed and voxelized. All parts together are the
/// batch of one device.
fn training_batch(
    config: &TrainConfig,
    scenes: &Dataset,
    number: u64,
    [rank, ranks]: [usize; 2],
) -> Result<Batch> {
    let order = SampleOrder::new(config.seed, scenes.len());
    let first = number * config.batch as u64;
    let changed = part_of_batch(config.batch, rank, ranks).map(|place| {
        let (index, seed) = order.at(first + place as u64);
        let scene = scenes.scene(index)?;
        let partner =
            config.augmentation.mixes(seed).then(|| scenes.scene(order.partner(first + place as u64, index)));
        Ok(config.augmentation.apply(&scene, partner.transpose()?.as_deref(), seed))
    });
    let changed = changed.collect::<Result<Vec<_>>>()?;
    let scenes: Vec<&LabelledScene> = changed.iter().collect();
    make_batch(&scenes, config.voxel_size as f32, config.classes.len()).map_err(|e| {
        let names: Vec<&str> = scenes.iter().map(|scene| scene.name.as_str()).collect();
        e.in_scene(&names.join(" and "))
    })
}
