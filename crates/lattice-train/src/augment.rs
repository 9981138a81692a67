//! Random changes of a scene that keep its meaning.

use lattice_scenes::Random;
use serde::{Deserialize, Serialize};

use crate::mix::Mix;
use crate::{LabelledScene, Result, TrainError};

/// Which changes are made. Equal seeds make equal changes; each change can be left out on its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Augmentation {
    /// Turns the scene about z by any angle.
    pub rotate: bool,
    /// Mirrors x and y, each with chance 1/2.
    pub flip: bool,
    /// Multiplies coordinates by a factor in this range.
    pub scale: Option<[f64; 2]>,
    /// Standard deviation of a shift of each coordinate, in the scene's unit; cut off at three of it. 0 leaves it out.
    pub jitter: f64,
    /// The largest share of points that is left out, drawn anew a scene, in `[0, 1)`. 0 leaves it out.
    pub dropout: f64,
    /// How a second scene is mixed in.
    pub mix: Mix,
    /// Chance that a second scene is mixed in.
    pub mix_chance: f64,
}

impl Default for Augmentation {
    fn default() -> Self {
        Self {
            rotate: true,
            flip: true,
            scale: Some([0.95, 1.05]),
            jitter: 0.01,
            dropout: 0.2,
            mix: Mix::None,
            mix_chance: 0.5,
        }
    }
}

/// Purposes of random streams: a change that is switched off does not move the others.
const ROTATE: u64 = 1;
const FLIP: u64 = 2;
const SCALE: u64 = 3;
const JITTER: u64 = 4;
const DROPOUT: u64 = 5;
const MIX: u64 = 6;

impl Augmentation {
    /// Changes nothing.
    pub fn none() -> Self {
        Self {
            rotate: false,
            flip: false,
            scale: None,
            jitter: 0.0,
            dropout: 0.0,
            mix: Mix::None,
            mix_chance: 0.0,
        }
    }

    /// Refuses ranges that make no scene.
    ///
    /// # Errors
    /// A scale that is not two factors above 0 in order, a negative jitter, shares outside `[0, 1)`, a chance outside `[0, 1]`.
    pub fn check(&self) -> Result<()> {
        let refuse = |what: String| Err(TrainError::option("augmentation", what));
        if let Some([low, high]) = self.scale
            && !(low > 0.0 && low <= high && high.is_finite())
        {
            return refuse(format!("scale: expected two factors above 0 in order, found {low} and {high}"));
        }
        if !(self.jitter >= 0.0 && self.jitter.is_finite()) {
            return refuse(format!("jitter: expected a length of 0 or more, found {}", self.jitter));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return refuse(format!(
                "dropout: expected a share of at least 0 and below 1, found {}",
                self.dropout
            ));
        }
        if !(0.0..=1.0).contains(&self.mix_chance) {
            return refuse(format!("mix chance: expected 0 to 1, found {}", self.mix_chance));
        }
        Ok(())
    }

    /// Whether the scene of this seed wants a second one.
    pub fn mixes(&self, seed: u64) -> bool {
        self.mix != Mix::None && Random::new(&[seed, MIX]).chance(self.mix_chance)
    }

    /// The changed scene; `other` is mixed in where it is given.
    pub fn apply(&self, scene: &LabelledScene, other: Option<&LabelledScene>, seed: u64) -> LabelledScene {
        let mut out = self.move_points(scene, seed);
        if let Some(other) = other {
            let mut random = Random::new(&[seed, MIX, 1]);
            out = self.mix.of(&out, &self.move_points(other, seed ^ MIX.rotate_right(8)), &mut random);
        }
        out
    }

    fn move_points(&self, scene: &LabelledScene, seed: u64) -> LabelledScene {
        let mut out = self.dropped(scene, seed);
        let (mut cos, mut sin) = (1.0, 0.0);
        if self.rotate {
            (sin, cos) = Random::new(&[seed, ROTATE]).range(0.0, std::f64::consts::TAU).sin_cos();
        }
        let mut signs = [1.0, 1.0];
        if self.flip {
            let mut random = Random::new(&[seed, FLIP]);
            signs = [random.sign(), random.sign()];
        }
        let factor = self.scale.map_or(1.0, |[low, high]| Random::new(&[seed, SCALE]).range(low, high));
        // What is switched off leaves coordinates as they were, to the bit.
        if self.rotate || self.flip || self.scale.is_some() {
            for p in &mut out.positions {
                let [x, y, z] = p.map(f64::from);
                let (x, y) = (cos * x - sin * y, sin * x + cos * y);
                *p = [x * signs[0] * factor, y * signs[1] * factor, z * factor].map(|v| v as f32);
            }
        }
        if self.jitter > 0.0 {
            let mut random = Random::new(&[seed, JITTER]);
            for v in out.positions.iter_mut().flatten() {
                *v += (random.normal().clamp(-3.0, 3.0) * self.jitter) as f32;
            }
        }
        out
    }

    /// Without a random share of points; at least one stays.
    fn dropped(&self, scene: &LabelledScene, seed: u64) -> LabelledScene {
        if self.dropout == 0.0 || scene.is_empty() {
            return scene.clone();
        }
        let mut random = Random::new(&[seed, DROPOUT]);
        let share = random.range(0.0, self.dropout);
        let kept: Vec<usize> = (0..scene.len()).filter(|_| !random.chance(share)).collect();
        let kept = if kept.is_empty() { vec![0] } else { kept };
        LabelledScene {
            name: scene.name.clone(),
            positions: kept.iter().map(|&i| scene.positions[i]).collect(),
            labels: kept.iter().map(|&i| scene.labels[i]).collect(),
        }
    }
}
