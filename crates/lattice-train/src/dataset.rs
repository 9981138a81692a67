//! Scenes by number, wherever they come from.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use lattice_scenes::{Random, SceneKind, SceneOptions, generate};

use crate::{LabelMap, LabelledScene, Result, SceneFiles};

/// Scenes made by `lattice-scenes`: number `i` is the scene of seed `first_seed + i`.
#[derive(Clone, Debug)]
pub struct GeneratedScenes {
    /// Kind of the scenes.
    pub kind: SceneKind,
    /// Seed of scene 0.
    pub first_seed: u64,
    /// Number of scenes.
    pub count: usize,
    /// Sensor and density.
    pub options: SceneOptions,
}

impl GeneratedScenes {
    fn make(&self, index: usize, classes: usize) -> Result<LabelledScene> {
        let seed = self.first_seed.wrapping_add(index as u64);
        let cloud = generate(self.kind, seed, &self.options);
        LabelledScene::from_cloud(
            &format!("generated {} {seed}", self.kind),
            &cloud,
            LabelMap::Classes,
            classes,
        )
    }
}

#[derive(Debug)]
enum Source {
    Generated(GeneratedScenes),
    Files(SceneFiles),
    Given(Vec<LabelledScene>),
}

/// Scenes by number, each kept in memory once it was made while the budget lasts. May be shared among threads.
#[derive(Debug)]
pub struct Dataset {
    source: Source,
    classes: usize,
    budget_bytes: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    scenes: BTreeMap<usize, Arc<LabelledScene>>,
    bytes: usize,
}

/// Memory that a data set may keep scenes in: 600 sweeps of 64 beams.
const BUDGET_BYTES: usize = 1 << 30;

impl Dataset {
    fn new(source: Source, classes: usize) -> Self {
        Self { source, classes, budget_bytes: BUDGET_BYTES, kept: Mutex::default() }
    }

    /// Scenes that are made when they are first asked for.
    pub fn generated(scenes: GeneratedScenes, classes: usize) -> Self {
        Self::new(Source::Generated(scenes), classes)
    }

    /// Scenes of files.
    pub fn files(files: SceneFiles, classes: usize) -> Self {
        Self::new(Source::Files(files), classes)
    }

    /// Scenes in memory, whose labels are below `classes` or 255.
    pub fn given(scenes: Vec<LabelledScene>, classes: usize) -> Self {
        Self::new(Source::Given(scenes), classes)
    }

    /// Bounds the memory that scenes are kept in.
    #[must_use]
    pub fn with_budget_bytes(mut self, bytes: usize) -> Self {
        self.budget_bytes = bytes;
        self
    }

    /// Number of scenes.
    pub fn len(&self) -> usize {
        match &self.source {
            Source::Generated(scenes) => scenes.count,
            Source::Files(files) => files.len(),
            Source::Given(scenes) => scenes.len(),
        }
    }

    /// Whether there are no scenes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Scene `index`.
    ///
    /// # Errors
    /// A file that cannot be read or learned from.
    ///
    /// # Panics
    /// When `index` is not below `len()`.
    pub fn scene(&self, index: usize) -> Result<Arc<LabelledScene>> {
        assert!(index < self.len(), "Dataset::scene: expected a number below {}, found {index}", self.len());
        // Scenes are inserted whole, so a panic elsewhere leaves the map as it should be.
        let lock = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(scene) = lock().scenes.get(&index) {
            return Ok(scene.clone());
        }
        let scene = Arc::new(match &self.source {
            Source::Generated(scenes) => scenes.make(index, self.classes)?,
            Source::Files(files) => files.read(index, self.classes)?,
            Source::Given(scenes) => scenes[index].clone(),
        });
        let mut kept = lock();
        if kept.bytes + scene.bytes() <= self.budget_bytes
            && kept.scenes.insert(index, scene.clone()).is_none()
        {
            kept.bytes += scene.bytes();
        }
        Ok(scene)
    }

    /// Points of each class in the first `most` scenes.
    ///
    /// # Errors
    /// As [`scene`](Self::scene).
    pub fn class_counts(&self, most: usize) -> Result<Vec<u64>> {
        let mut counts = vec![0; self.classes];
        for index in 0..self.len().min(most) {
            for (sum, n) in counts.iter_mut().zip(self.scene(index)?.class_counts(self.classes)) {
                *sum += n;
            }
        }
        Ok(counts)
    }
}

/// Which scene comes when: every scene once an epoch, in an order that the seed and the epoch draw.
///
/// A pure function of the sample's number, so that a resumed run goes on where the first one stopped.
#[derive(Clone, Copy, Debug)]
pub struct SampleOrder {
    seed: u64,
    scenes: usize,
}

impl SampleOrder {
    /// The order of a seed over `scenes` scenes.
    pub fn new(seed: u64, scenes: usize) -> Self {
        Self { seed, scenes }
    }

    /// Scene of sample `sample`, and the seed of its changes.
    pub fn at(&self, sample: u64) -> (usize, u64) {
        let scenes = self.scenes.max(1) as u64;
        let (epoch, place) = (sample / scenes, (sample % scenes) as usize);
        let mut random = Random::new(&[self.seed, 0x0de4, epoch]);
        let mut order: Vec<usize> = (0..self.scenes).collect();
        for i in (1..order.len()).rev() {
            order.swap(i, random.below(i + 1));
        }
        (order.get(place).copied().unwrap_or(0), self.change_seed(sample))
    }

    /// Another scene than `scene` for sample `sample`, where there are two; and the seed of its changes.
    pub fn partner(&self, sample: u64, scene: usize) -> usize {
        let mut random = Random::new(&[self.seed, 0x9a47, sample]);
        match self.scenes {
            0 | 1 => scene,
            n => (scene + 1 + random.below(n - 1)) % n,
        }
    }

    fn change_seed(&self, sample: u64) -> u64 {
        let mut random = Random::new(&[self.seed, 0xc4a9, sample]);
        (random.unit() * (1u64 << 53) as f64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_shows_every_scene_once_and_epochs_differ() {
        let order = SampleOrder::new(3, 20);
        let epoch = |e: u64| (0..20).map(|i| order.at(e * 20 + i).0).collect::<Vec<_>>();
        let mut first = epoch(0);
        assert_ne!(first, epoch(1));
        assert_eq!(first, epoch(0));
        first.sort_unstable();
        assert_eq!(first, (0..20).collect::<Vec<_>>());
        assert!((0..100).all(|sample| order.partner(sample, 7) != 7));
        assert_ne!(order.at(0).1, order.at(20).1);
    }
}
