//! What the first rank of a run does besides training: reports, validation, checkpoints.

use std::path::{Path, PathBuf};

use burn::tensor::Device;

use crate::history::HistoryRow;
use crate::run_folder::{BEST, CURVES, METRICS_CSV, METRICS_JSON};
use crate::{
    ConfusionMatrix, Dataset, Event, History, Result, Segmenter, StepReport, TrainConfig, Trainer,
    Validation, WeightsInfo, segment,
};

/// The folder of a run, and what is measured on the way. Nobody else writes, validates or reports.
pub(crate) struct Lead {
    pub(crate) folder: PathBuf,
    pub(crate) validation: Dataset,
    pub(crate) history: History,
    pub(crate) device: Device,
}

impl Lead {
    /// Whether validation has not improved for too long.
    pub(crate) fn stops_early(&self, config: &TrainConfig) -> bool {
        config.patience.is_some_and(|patience| self.history.since_best >= patience.max(1))
    }

    /// Takes steps that were read, tells of them, and makes a row of them.
    pub(crate) fn report(
        &mut self,
        reports: &[StepReport],
        of: usize,
        seconds: f64,
        events: &mut dyn FnMut(&Event<'_>),
    ) {
        events(&Event::Steps { reports, of, seconds });
        self.history.rows.extend(row(reports));
    }

    /// Scores the network, keeps the best weights, and writes a checkpoint.
    ///
    /// # Errors
    /// As [`evaluate`]; a folder that cannot be written any more.
    pub(crate) fn validate<M: Segmenter>(
        &mut self,
        trainer: &Trainer<M>,
        config: &TrainConfig,
        events: &mut dyn FnMut(&Event<'_>),
    ) -> Result<()> {
        let loss = self.history.rows.last().map_or(0.0, |row| row.loss);
        let step = trainer.steps_done();
        let (model, mut file) = trainer.trained();
        let mut progress = |scenes, of| events(&Event::Scored { scenes, of });
        let voxel_size = config.voxel_size as f32;
        let matrix = evaluate(&model, &self.validation, voxel_size, &self.device, &mut progress)?;
        let validation = Validation { step, scores: matrix.scores() };
        if let Some(row) = self.history.rows.last_mut() {
            row.validation = Some(validation.clone());
        }
        let best = self.history.validate(validation.clone());
        if best {
            WeightsInfo::of(config, step, Some(validation.scores.miou)).write_to(&mut file);
            file.write(&self.folder.join(BEST))?;
        }
        self.save(trainer, config)?;
        events(&Event::Validated { validation: &validation, loss, best });
        Ok(())
    }

    /// Writes the checkpoint, then what is made from it.
    ///
    /// # Errors
    /// A folder that cannot be written any more.
    pub(crate) fn save<M: Segmenter>(&self, trainer: &Trainer<M>, config: &TrainConfig) -> Result<()> {
        let json = |value: serde_json::Result<String>| value.expect("texts and numbers are always JSON");
        let mut checkpoint = trainer.checkpoint();
        checkpoint.tensors.insert_text("config", json(serde_json::to_string(config)));
        checkpoint.tensors.insert_text("history", json(serde_json::to_string(&self.history)));
        checkpoint.save(&self.folder)?;
        let file = |name: &str| self.folder.join(name);
        lattice_io::write_text(file(METRICS_CSV), &self.history.to_csv(&config.classes))?;
        lattice_io::write_text(file(METRICS_JSON), &json(serde_json::to_string_pretty(&self.history)))?;
        self.draw(&file(CURVES))
    }

    fn draw(&self, path: &Path) -> Result<()> {
        let rows = &self.history.rows;
        let loss = rows.iter().map(|row| [row.step as f64, row.loss]).collect();
        let scored = rows.iter().filter_map(|row| row.validation.as_ref());
        let miou = scored.map(|v| [v.step as f64, v.scores.miou]).collect();
        let panels = [
            lattice_io::Curve { name: "training loss".into(), points: loss, from_zero: true },
            lattice_io::Curve { name: "validation mIoU".into(), points: miou, from_zero: true },
        ];
        Ok(lattice_io::curves_png(path, "step", &panels)?)
    }
}

/// The mean of steps as a row; `None` where there are none.
fn row(reports: &[StepReport]) -> Option<HistoryRow> {
    let last = reports.last()?;
    let mean = |values: &mut dyn Iterator<Item = f32>| {
        let (sum, n) = values.fold((0.0, 0usize), |(sum, n), v| (sum + f64::from(v), n + 1));
        sum / n.max(1) as f64
    };
    Some(HistoryRow {
        step: last.step,
        rate: last.rate,
        loss: mean(&mut reports.iter().map(|r| r.loss)),
        norm: mean(&mut reports.iter().filter(|r| !r.skipped).map(|r| r.norm)),
        scale: last.scale,
        skipped: reports.iter().filter(|r| r.skipped).count(),
        validation: None,
    })
}

/// Scores a network, on a device without autodiff, at the points of scenes; `progress` hears of scenes done and in all.
///
/// # Errors
/// Scenes that cannot be read; scores that are not finite.
pub fn evaluate<M: Segmenter>(
    model: &M,
    scenes: &Dataset,
    voxel_size: f32,
    device: &Device,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<ConfusionMatrix> {
    let mut matrix = ConfusionMatrix::new(scenes.classes());
    for index in 0..scenes.len() {
        let scene = scenes.scene(index)?;
        let found =
            segment(model, &scene.positions, voxel_size, device).map_err(|e| e.in_scene(&scene.name))?;
        matrix.add(&scene.labels, &found.classes);
        progress(index + 1, scenes.len());
    }
    Ok(matrix)
}
