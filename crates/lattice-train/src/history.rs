//! How a run went: rows for a table, a document and a picture.

use serde::{Deserialize, Serialize};

use crate::Scores;

/// Means of the steps since the row before, and a validation where one was due.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HistoryRow {
    /// Steps that were done.
    pub step: usize,
    /// Learning rate of the last step.
    pub rate: f64,
    /// Mean loss.
    pub loss: f64,
    /// Mean norm of the gradient over the steps that were not left out.
    pub norm: f64,
    /// Loss scale.
    pub scale: f32,
    /// Steps that were left out because their gradients overflowed.
    pub skipped: usize,
    /// Scores on the validation scenes.
    pub validation: Option<Validation>,
}

/// Scores on the validation scenes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    /// Steps that were done.
    pub step: usize,
    /// The figures.
    pub scores: Scores,
}

/// How a run went, and its best validation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// One row a report.
    pub rows: Vec<HistoryRow>,
    /// The validation of the best mean IoU, the first of equal ones.
    pub best: Option<Validation>,
    /// Validations since then.
    pub since_best: usize,
}

impl History {
    /// Takes a validation; true where it is the best so far.
    pub(crate) fn validate(&mut self, validation: Validation) -> bool {
        let better = self.best.as_ref().is_none_or(|best| validation.scores.miou > best.scores.miou);
        if better {
            self.best = Some(validation);
            self.since_best = 0;
        } else {
            self.since_best += 1;
        }
        better
    }

    /// A table of commas: one line a row, a column for the IoU of each class.
    pub fn to_csv(&self, classes: &[String]) -> String {
        let mut text = String::from("step,rate,loss,gradient_norm,loss_scale,skipped,miou,accuracy");
        for class in classes {
            text.push_str(",iou_");
            text.extend(class.chars().map(|c| if c == ',' || c.is_whitespace() { '_' } else { c }));
        }
        text.push('\n');
        for row in &self.rows {
            let HistoryRow { step, rate, loss, norm, scale, skipped, validation } = row;
            text.push_str(&format!("{step},{rate},{loss},{norm},{scale},{skipped}"));
            match validation {
                None => text.push_str(&",".repeat(2 + classes.len())),
                Some(Validation { scores, .. }) => {
                    text.push_str(&format!(",{},{}", scores.miou, scores.accuracy));
                    for iou in &scores.iou {
                        text.push(',');
                        text.extend(iou.map(|v| v.to_string()));
                    }
                }
            }
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_has_as_many_fields() {
        let scores = Scores { iou: vec![Some(0.5), None], miou: 0.5, accuracy: 0.75, points: 4 };
        let row = |step, validation| HistoryRow {
            step,
            rate: 0.1,
            loss: 1.5,
            norm: 2.0,
            scale: 1.0,
            skipped: 0,
            validation,
        };
        let mut history = History::default();
        assert!(history.validate(Validation { step: 2, scores: scores.clone() }));
        assert!(!history.validate(Validation { step: 4, scores: scores.clone() }));
        history.rows = vec![row(1, None), row(2, Some(Validation { step: 2, scores }))];
        let csv = history.to_csv(&["a, b".into(), "c".into()]);
        assert!(csv.lines().all(|line| line.split(',').count() == 10), "{csv}");
        assert!(csv.ends_with("2,0.1,1.5,2,1,0,0.5,0.75,0.5,\n"), "{csv}");
        assert_eq!((history.since_best, history.best.map(|b| b.step)), (1, Some(2)));
    }
}
