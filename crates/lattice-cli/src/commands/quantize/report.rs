//! What `lattice quantize` says.

use std::collections::BTreeMap;

use anyhow::Result;
use burn_lattice::routes::{self, PACKED_ROUTES};
use burn_lattice::trace;
use lattice_quantize::{Action, Decision, KeptModule, LayerError};
use lattice_train::{ConfusionMatrix, LabelledScene};
use serde::Serialize;

use super::devices::{self, DeviceSpeed};
use crate::commands::bench::median;
use crate::device::Chosen;
use crate::segmenter::Segmenter;
use crate::sweep::Sweep;
use crate::table;

/// The document of the command.
#[derive(Serialize)]
pub struct Report {
    pub model: String,
    pub network: String,
    pub device: String,
    pub bits: u32,
    pub scales: String,
    pub activations: Option<String>,
    pub method: Option<String>,
    pub calibration_scenes: usize,
    pub folded_norms: usize,
    pub layers: Vec<Layer>,
    pub kept: Vec<Kept>,
    pub file: String,
    pub file_bytes: usize,
    pub stored_bytes: usize,
    pub f32_bytes: usize,
    pub share_of_f32: f64,
    pub accuracy: Option<Accuracy>,
    pub speeds: Vec<Speed>,
    pub devices: Vec<DeviceSpeed>,
    /// Seed of weights that were drawn.
    pub seed: Option<u64>,
}

/// One layer: the decision, and how far it is from float.
#[derive(Serialize)]
pub struct Layer {
    path: String,
    kind: &'static str,
    kernel_size: [usize; 3],
    channels: [usize; 2],
    packed: bool,
    group_size: Option<usize>,
    reason: Option<String>,
    f32_bytes: usize,
    bytes: usize,
    /// Relative to the float layer on the dequantized weight, on the layer's own input.
    error_to_dequantized: Option<f64>,
    largest_error_to_dequantized: Option<f64>,
    /// Relative to the float layer before packing.
    error_to_float: Option<f64>,
}

/// A module outside layers, which stays float.
#[derive(Serialize)]
pub struct Kept {
    path: String,
    kind: String,
    values: usize,
    reason: &'static str,
}

/// Modules that have parameters and are no layers.
pub fn kept(modules: &[KeptModule]) -> Vec<Kept> {
    let kept = |m: &KeptModule| Kept {
        path: m.path.clone(),
        kind: m.kind.clone(),
        values: m.values,
        reason: KeptModule::REASON,
    };
    modules.iter().map(kept).collect()
}

/// Decisions joined with errors.
pub fn layers(decisions: &[Decision], errors: &[LayerError]) -> Vec<Layer> {
    let errors: BTreeMap<&str, &LayerError> = errors.iter().map(|e| (e.path.as_str(), e)).collect();
    let layer = |d: &Decision| {
        let error = errors.get(d.path.as_str()).filter(|e| e.rows > 0);
        let (group_size, reason) = match &d.action {
            Action::Pack(record) => (Some(record.shape().group_size()), None),
            Action::Keep { reason } => (None, Some(reason.clone())),
        };
        Layer {
            path: d.path.clone(),
            kind: d.kind,
            kernel_size: d.kernel_size,
            channels: [d.channels[0] * d.groups, d.channels[1]],
            packed: d.is_packed(),
            group_size,
            reason,
            f32_bytes: d.f32_bytes,
            bytes: d.bytes,
            error_to_dequantized: error.map(|e| e.to_dequantized),
            largest_error_to_dequantized: error.map(|e| e.largest),
            error_to_float: error.map(|e| e.to_float),
        }
    };
    decisions.iter().map(layer).collect()
}

/// Scores before and after.
#[derive(Serialize)]
pub struct Accuracy {
    scenes: String,
    points: u64,
    miou_before: f64,
    miou_after: f64,
    /// In points: hundredths.
    change: f64,
    /// Points whose class was found, before and after.
    accuracy_before: f64,
    accuracy_after: f64,
}

impl Accuracy {
    /// Of two matrices, where there are both.
    pub fn of(
        scenes: &str,
        before: Option<&ConfusionMatrix>,
        after: Option<&ConfusionMatrix>,
    ) -> Option<Self> {
        let (before, after) = (before?.scores(), after?.scores());
        (before.points > 0).then(|| Self {
            scenes: scenes.into(),
            points: before.points,
            miou_before: before.miou,
            miou_after: after.miou,
            change: 100.0 * (after.miou - before.miou),
            accuracy_before: before.accuracy,
            accuracy_after: after.accuracy,
        })
    }
}

/// Time of a forward pass on kept relations.
#[derive(Serialize)]
pub struct Speed {
    what: &'static str,
    device: String,
    route: String,
    voxels: usize,
    ms_median: f64,
    ms_min: f64,
}

impl Speed {
    /// The routes of the table that fit, or the float network, on the chosen device.
    ///
    /// # Errors
    /// Those of the network.
    pub fn measure(
        what: &'static str,
        model: &Segmenter,
        scene: &LabelledScene,
        voxel_size: f32,
        chosen: &Chosen,
        repeats: usize,
    ) -> Result<Vec<Self>> {
        let sweep = Sweep::new(scene, voxel_size, &chosen.device)?;
        let sync = || chosen.device.sync().map_err(|e| anyhow::anyhow!("device: {e:?}"));
        let time = |route: String| -> Result<Self> {
            sweep.forward(model)?;
            sync()?;
            let mut samples = Vec::new();
            for _ in 0..repeats {
                let clock = std::time::Instant::now();
                sweep.forward(model)?;
                sync()?;
                samples.push(clock.elapsed().as_secs_f64() * 1e3);
            }
            Ok(Self {
                what,
                device: chosen.name.clone(),
                route,
                voxels: sweep.n_rows(),
                ms_median: median(&samples),
                ms_min: samples.iter().copied().fold(f64::INFINITY, f64::min),
            })
        };
        // Which routes of packed weights run where nothing is forced.
        let (ran, records) = trace::record(|| sweep.forward(model).map(|_| ()));
        ran?;
        let names: Vec<&str> = PACKED_ROUTES.iter().map(|r| r.name).collect();
        let own: Vec<&str> =
            names.iter().copied().filter(|n| records.iter().any(|r| r.route == *n)).collect();
        if own.is_empty() {
            return Ok(vec![time("float".into())?]);
        }
        let mut found = vec![time(own.join(" + "))?];
        for name in names.into_iter().filter(|n| own != [*n]) {
            let _forced = routes::force(name)?;
            if sweep.forward(model).is_ok() {
                found.push(time(name.into())?);
            }
        }
        Ok(found)
    }
}

fn percent(value: Option<f64>) -> String {
    value.map_or("-".into(), |v| {
        if v > 0.0 && v < 1e-4 { format!("{:.1e}", 100.0 * v) } else { format!("{:.3}", 100.0 * v) }
    })
}

fn megabytes(bytes: usize) -> String {
    format!("{:.2} MB", bytes as f64 / 1e6)
}

impl Report {
    /// Paths, kinds and values of what is kept beside layers.
    fn kept_names(&self) -> String {
        let one = |k: &Kept| format!("{} ({} of {} values)", k.path, k.kind, k.values);
        self.kept.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    /// The report for people.
    pub fn text(&self) -> String {
        let rows: Vec<Vec<String>> = self
            .layers
            .iter()
            .map(|l| {
                let how = match (l.group_size, &l.reason) {
                    (Some(size), _) => format!("{} bits, groups of {size}", self.bits),
                    (None, reason) => format!("float: {}", reason.as_deref().unwrap_or_default()),
                };
                vec![
                    l.path.clone(),
                    l.kind.into(),
                    format!("{}x{}x{}", l.kernel_size[0], l.kernel_size[1], l.kernel_size[2]),
                    format!("{}->{}", l.channels[0], l.channels[1]),
                    table::count(l.f32_bytes),
                    table::count(l.bytes),
                    percent(l.error_to_dequantized),
                    percent(l.error_to_float),
                    how,
                ]
            })
            .collect();
        let header = [
            "layer",
            "kind",
            "kernel",
            "channels",
            "f32 bytes",
            "bytes",
            "% to contract",
            "% to float",
            "weight",
        ];
        let packed = self.layers.iter().filter(|l| l.packed).count();
        let mut lines = vec![
            format!("{} ({}) on {}", self.model, self.network, self.device),
            format!("\n{}\n", table::render(&header, &rows)),
            "% to contract: root mean square difference to the float layer on the dequantized weight; % to float: on the weight before."
                .into(),
            format!(
                "{} batch norms folded; {packed} of {} layers packed; scales in {}; features in {}",
                self.folded_norms,
                self.layers.len(),
                self.scales,
                match (&self.activations, &self.method) {
                    (Some(_), Some(method)) =>
                        format!("bytes, ranges by {method} over {} scans", self.calibration_scenes),
                    _ => "float".into(),
                }
            ),
            match self.kept.is_empty() {
                true => "norms      all folded into the layers before them".into(),
                false => format!("norms      stay float: {}; {}", self.kept_names(), KeptModule::REASON),
            },
            format!(
                "size       {} of parameters in f32, {} now: {:.1} %; the file has {}",
                megabytes(self.f32_bytes),
                megabytes(self.stored_bytes),
                100.0 * self.share_of_f32,
                megabytes(self.file_bytes)
            ),
        ];
        lines.push(match &self.accuracy {
            Some(a) => format!(
                "accuracy   mIoU {:.2} % before, {:.2} % after ({:+.2} points) on {}, {} points",
                100.0 * a.miou_before,
                100.0 * a.miou_after,
                a.change,
                a.scenes,
                table::count(a.points as usize)
            ),
            None => {
                "accuracy   not scored: name labelled scenes of the network's classes with --score".into()
            }
        });
        if let Some(seed) = self.seed {
            lines.push(format!("These weights are drawn from seed {seed}: sizes and speeds mean something, accuracy does not."));
        }
        for s in &self.speeds {
            lines.push(format!(
                "speed      {:<9} {:<28} {:>9.1} ms a forward pass of {} voxels on {} (least {:.1})",
                s.what,
                s.route,
                s.ms_median,
                table::count(s.voxels),
                s.device,
                s.ms_min
            ));
        }
        lines.push(format!("\n{}", devices::text(&self.devices)));
        lines.push(format!("wrote {}", self.file));
        lines.join("\n")
    }
}
