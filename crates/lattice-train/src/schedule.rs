//! The learning rate over the steps of a run.

use serde::{Deserialize, Serialize};

use crate::{Result, TrainError};

/// Linear warm-up, then half a cosine down to a share of the peak.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// The highest rate.
    pub peak: f64,
    /// Steps that climb to it.
    pub warmup_steps: usize,
    /// Share of the peak that is left at the end; 1 keeps the peak.
    pub final_share: f64,
}

impl Schedule {
    /// The rate of step `step` of `steps`, both from 0.
    pub fn rate(&self, step: usize, steps: usize) -> f64 {
        if step < self.warmup_steps {
            return self.peak * (step + 1) as f64 / self.warmup_steps as f64;
        }
        let rest = steps.saturating_sub(self.warmup_steps).max(1);
        let t = ((step - self.warmup_steps) as f64 / rest as f64).min(1.0);
        let share = 0.5 * (1.0 + (std::f64::consts::PI * t).cos());
        self.peak * (self.final_share + (1.0 - self.final_share) * share)
    }

    /// Refuses rates that train nothing.
    ///
    /// # Errors
    /// A peak that is not above 0, a final share outside `[0, 1]`.
    pub fn check(&self) -> Result<()> {
        if !(self.peak > 0.0 && self.peak.is_finite()) {
            return Err(TrainError::option(
                "learning rate",
                format!("expected a finite number above 0, found {}", self.peak),
            ));
        }
        if !(0.0..=1.0).contains(&self.final_share) {
            return Err(TrainError::option(
                "final share of the learning rate",
                format!("expected 0 to 1, found {}", self.final_share),
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_climbs_then_falls_to_its_final_share() {
        let schedule = Schedule { peak: 2.0, warmup_steps: 4, final_share: 0.1 };
        let rates: Vec<f64> = (0..=104).map(|step| schedule.rate(step, 104)).collect();
        assert_eq!(&rates[..5], &[0.5, 1.0, 1.5, 2.0, 2.0]);
        assert!(rates[4..].windows(2).all(|pair| pair[1] < pair[0]));
        assert!((rates[54] - 1.1).abs() < 1e-12 && (rates[104] - 0.2).abs() < 1e-12);
        let flat = Schedule { peak: 1.0, warmup_steps: 0, final_share: 1.0 };
        assert!((0..10).all(|step| flat.rate(step, 10) == 1.0));
    }
}
