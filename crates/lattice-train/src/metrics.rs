//! How well classes were told apart.

use serde::{Deserialize, Serialize};

use crate::labels::IGNORED;

/// Counts of points by true class (row) and found class (column).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfusionMatrix {
    classes: usize,
    counts: Vec<u64>,
}

/// Figures of a [`ConfusionMatrix`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Intersection over union of each class; `None` where the class neither occurs nor was found.
    pub iou: Vec<Option<f64>>,
    /// Mean of `iou` over the classes that occur; 0 where none does.
    pub miou: f64,
    /// Share of points whose class was found; 0 without points.
    pub accuracy: f64,
    /// Points that were scored.
    pub points: u64,
}

impl ConfusionMatrix {
    /// No points yet.
    pub fn new(classes: usize) -> Self {
        Self { classes, counts: vec![0; classes * classes] }
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Points of true class `truth` that were found to be `found`.
    ///
    /// # Panics
    /// When either is not below `classes()`.
    pub fn count(&self, truth: usize, found: usize) -> u64 {
        assert!(truth < self.classes && found < self.classes, "ConfusionMatrix::count: no such class");
        self.counts[truth * self.classes + found]
    }

    /// Adds points; those with the label 255 are left out.
    ///
    /// # Panics
    /// Lengths that differ, a class that is not below `classes()`.
    pub fn add(&mut self, truth: &[u8], found: &[u8]) {
        assert_eq!(truth.len(), found.len(), "ConfusionMatrix::add: one found class a point");
        for (&truth, &found) in truth.iter().zip(found).filter(|(truth, _)| **truth != IGNORED) {
            let (truth, found) = (usize::from(truth), usize::from(found));
            assert!(truth < self.classes && found < self.classes, "ConfusionMatrix::add: no such class");
            self.counts[truth * self.classes + found] += 1;
        }
    }

    /// Adds the counts of another matrix of as many classes.
    ///
    /// # Panics
    /// When the classes differ.
    pub fn merge(&mut self, other: &Self) {
        assert_eq!(self.classes, other.classes, "ConfusionMatrix::merge: equal classes");
        for (sum, n) in self.counts.iter_mut().zip(&other.counts) {
            *sum += n;
        }
    }

    /// Rows of counts, one a true class.
    pub fn rows(&self) -> Vec<&[u64]> {
        self.counts.chunks_exact(self.classes.max(1)).collect()
    }

    /// The figures.
    pub fn scores(&self) -> Scores {
        let n = self.classes;
        let row = |c: usize| (0..n).map(|f| self.counts[c * n + f]).sum::<u64>();
        let column = |c: usize| (0..n).map(|t| self.counts[t * n + c]).sum::<u64>();
        let hit = |c: usize| self.counts[c * n + c];
        let iou = |c: usize| {
            let union = row(c) + column(c) - hit(c);
            (union > 0).then(|| hit(c) as f64 / union as f64)
        };
        let present: Vec<f64> = (0..n).filter(|&c| row(c) > 0).filter_map(iou).collect();
        let points: u64 = self.counts.iter().sum();
        let hits: u64 = (0..n).map(hit).sum();
        Scores {
            iou: (0..n).map(iou).collect(),
            miou: present.iter().sum::<f64>() / present.len().max(1) as f64,
            accuracy: hits as f64 / points.max(1) as f64,
            points,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_of_a_small_case_are_those_of_the_definition() {
        let mut matrix = ConfusionMatrix::new(4);
        matrix.add(&[0, 0, 0, 1, 1, IGNORED], &[0, 0, 1, 1, 2, 3]);
        let Scores { iou, miou, accuracy, points } = matrix.scores();
        // Class 2 was found but does not occur: it is wrong, yet no part of the mean. Class 3 is nowhere.
        assert_eq!(iou, [Some(2.0 / 3.0), Some(1.0 / 3.0), Some(0.0), None]);
        assert_eq!((miou, accuracy, points), (0.5, 0.6, 5));
        let mut twice = matrix.clone();
        twice.merge(&matrix);
        assert_eq!(twice.count(1, 2), 2);
        assert_eq!(twice.scores().iou, iou);
    }

    #[test]
    fn nothing_scored_is_no_division_by_zero() {
        let scores = ConfusionMatrix::new(2).scores();
        assert_eq!((scores.miou, scores.accuracy, scores.points), (0.0, 0.0, 0));
    }
}
