//! Two scenes in one.

use lattice_scenes::Random;
use serde::{Deserialize, Serialize};

use crate::LabelledScene;

/// How two scenes become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mix {
    /// Not at all.
    #[default]
    None,
    /// The points of both.
    Concat,
    /// Sectors around the origin in turn: the directions that a sensor looks in come from one scene each.
    Sectors,
    /// Rings around the origin in turn, each a few metres wide: what stands at a distance comes from one scene.
    Cylinders,
}

/// Pieces that sectors and rings cut the plane into.
const PIECES: usize = 6;

impl Mix {
    /// All ways.
    pub const ALL: [Self; 4] = [Self::None, Self::Concat, Self::Sectors, Self::Cylinders];

    /// Name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Concat => "concat",
            Self::Sectors => "sectors",
            Self::Cylinders => "cylinders",
        }
    }

    /// `scene` and `other` in one.
    pub(crate) fn of(
        self,
        scene: &LabelledScene,
        other: &LabelledScene,
        random: &mut Random,
    ) -> LabelledScene {
        let mut out =
            LabelledScene { name: format!("{} with {}", scene.name, other.name), ..Default::default() };
        let mut take = |from: &LabelledScene, keep: &dyn Fn(&[f32; 3]) -> bool| {
            for (p, &label) in from.positions.iter().zip(&from.labels).filter(|(p, _)| keep(p)) {
                out.positions.push(*p);
                out.labels.push(label);
            }
        };
        match self {
            Self::None => take(scene, &|_| true),
            Self::Concat => {
                take(scene, &|_| true);
                take(other, &|_| true);
            }
            Self::Sectors => {
                let turn = random.unit();
                let odd = |p: &[f32; 3]| {
                    let angle = f64::from(p[1]).atan2(f64::from(p[0])) / std::f64::consts::TAU + turn;
                    ((angle.rem_euclid(1.0)) * PIECES as f64) as usize % 2 == 1
                };
                take(scene, &|p| !odd(p));
                take(other, &odd);
            }
            Self::Cylinders => {
                let reach = scene.positions.iter().map(radius).fold(0.0, f64::max);
                let shift = random.unit();
                let odd = |p: &[f32; 3]| {
                    // Rings widen with the distance, as the spacing of points does.
                    let place = (radius(p) / reach.max(f64::MIN_POSITIVE)).sqrt();
                    (place * PIECES as f64 + shift) as usize % 2 == 1
                };
                take(scene, &|p| !odd(p));
                take(other, &odd);
            }
        }
        if out.is_empty() { scene.clone() } else { out }
    }
}

fn radius(p: &[f32; 3]) -> f64 {
    f64::from(p[0]).hypot(f64::from(p[1]))
}
