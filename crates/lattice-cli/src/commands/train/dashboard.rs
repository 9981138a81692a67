//! Burn's terminal dashboard over a run: curves of losses and scores, progress, and keys that pause it.

use std::io::{IsTerminal, stdout};
use std::sync::Arc;

use burn_train::Interrupter;
use burn_train::logger::TrainingProgressLogger;
use burn_train::metric::{
    MetricAttributes, MetricDefinition, MetricEntry, MetricId, NumericAttributes, NumericEntry,
    SerializedEntry,
};
use burn_train::renderer::tui::TuiMetricsRendererWrapper as Tui;
use burn_train::renderer::{MetricState, MetricsRenderer, MetricsRendererTraining};
use lattice_train::{Event, Stop, TrainConfig};

/// A curve of the dashboard.
struct Curve {
    name: String,
    unit: Option<&'static str>,
    higher_is_better: bool,
}

impl Curve {
    fn new(name: impl Into<String>, unit: Option<&'static str>, higher_is_better: bool) -> Self {
        Self { name: name.into(), unit, higher_is_better }
    }

    fn id(&self) -> MetricId {
        MetricId::new(Arc::new(self.name.clone()))
    }

    fn register(&self, tui: &mut Tui) {
        let unit = self.unit.map(Into::into);
        tui.register_metric(MetricDefinition {
            metric_id: self.id(),
            name: Arc::new(self.name.clone()),
            description: None,
            attributes: MetricAttributes::Numeric(NumericAttributes {
                unit,
                higher_is_better: self.higher_is_better,
            }),
        });
    }

    fn at(&self, value: f64) -> MetricState {
        let shown = match value.abs() {
            0.0 | 0.001.. => format!("{value:.3}"),
            _ => format!("{value:.2e}"),
        };
        let unit = self.unit.map(|unit| format!(" {unit}")).unwrap_or_default();
        let entry = SerializedEntry { formatted: format!("{shown}{unit}"), serialized: value.to_string() };
        MetricState::Numeric(MetricEntry::new(self.id(), entry), Some(NumericEntry::Value(value)))
    }
}

/// The dashboard of a run.
pub struct Dashboard {
    tui: Tui,
    interrupter: Interrupter,
    stop: Stop,
    steps: usize,
    done: usize,
    /// Of training: loss, learning rate, seconds a step.
    of_training: [Curve; 3],
    /// Of validation: mean intersection over union, accuracy, and one a class.
    of_validation: [Curve; 2],
    classes: Vec<Curve>,
}

impl Dashboard {
    /// The dashboard of a run that has done so many steps. `None` where the output is no terminal.
    pub fn open(config: &TrainConfig, done: usize, stop: Stop) -> Option<Self> {
        if !stdout().is_terminal() {
            return None;
        }
        let interrupter = Interrupter::new();
        let mut tui = Tui::new(interrupter.clone(), None);
        let of_training = [
            Curve::new("Loss", None, false),
            Curve::new("Learning rate", None, true),
            Curve::new("Step", Some("s"), false),
        ];
        let of_validation = [Curve::new("mIoU", Some("%"), true), Curve::new("Accuracy", Some("%"), true)];
        let classes: Vec<Curve> =
            config.classes.iter().map(|class| Curve::new(format!("IoU {class}"), Some("%"), true)).collect();
        of_training.iter().chain(&of_validation).chain(&classes).for_each(|curve| curve.register(&mut tui));
        tui.start(0, 0, Some(config.steps), Some(&config.model));
        let mut opened =
            Self { tui, interrupter, stop, steps: config.steps, done, of_training, of_validation, classes };
        opened.go_on(done);
        Some(opened)
    }

    /// Shows an event, and hands on what keys asked for.
    pub fn tell(&mut self, event: &Event<'_>) {
        match event {
            Event::Steps { reports, seconds, .. } => {
                for report in *reports {
                    let values = [f64::from(report.loss), report.rate, *seconds];
                    for (curve, value) in self.of_training.iter().zip(values) {
                        self.tui.update_train(curve.at(value));
                    }
                    self.done = report.step;
                    self.tui.update_split(report.step);
                }
            }
            Event::Scored { scenes, of } => {
                if *scenes <= 1 {
                    self.tui.start_split("valid", *of);
                }
                self.tui.update_split(*scenes);
            }
            Event::Validated { validation, .. } => {
                let scores = &validation.scores;
                for (curve, share) in self.of_validation.iter().zip([scores.miou, scores.accuracy]) {
                    self.tui.update_valid(curve.at(100.0 * share));
                }
                for (curve, share) in self.classes.iter().zip(&scores.iou) {
                    if let Some(share) = share {
                        self.tui.update_valid(curve.at(100.0 * share));
                    }
                }
                self.go_on(self.done);
            }
            _ => {}
        }
        if self.interrupter.should_stop() {
            self.stop.ask();
        }
    }

    /// Leaves the terminal as it was before.
    pub fn close(self) {
        drop(self.tui);
    }

    /// Progress of training again.
    fn go_on(&mut self, done: usize) {
        self.tui.start_split("train", self.steps);
        self.tui.update_split(done);
    }
}
