//! Speed before and after on every device of this machine.

use anyhow::Result;
use burn::tensor::{DType, FloatDType};
use burn_lattice::routes::PACKED_ROUTES;
use burn_lattice::{DeviceInfo, trace};
use lattice_train::LabelledScene;
use serde::Serialize;

use crate::commands::bench::{Calls, median, time};
use crate::device::{BACKENDS, Chosen, found};
use crate::segmenter::{Choice, Segmenter};
use crate::sweep::Sweep;
use crate::table;

/// Median times of a forward pass on kept relations, with float and with packed weights.
#[derive(Serialize)]
pub struct DeviceSpeed {
    /// What `--device` takes.
    device: String,
    /// Element type of the features, and of the float weights.
    dtype: &'static str,
    /// Routes that packed layers took.
    routes: Vec<&'static str>,
    voxels: usize,
    float_ms: f64,
    packed_ms: f64,
    /// How many times as fast as with float weights.
    ratio: f64,
}

/// The devices that compiled backends find, and the chosen one; what a processor imitates only where it is the chosen one.
fn devices(chosen: &Chosen) -> Vec<Chosen> {
    let mut all = vec![chosen.clone()];
    for backend in BACKENDS {
        for (number, device) in found(backend).into_iter().enumerate() {
            let known = all.iter().any(|other| other.device == device);
            if !known && !DeviceInfo::of(&device).software {
                let name = if number == 0 { backend.into() } else { format!("{backend}:{number}") };
                all.push(Chosen { device, name });
            }
        }
    }
    all
}

/// One line a device and element type: f16 where a GPU has it and the network takes it, f32 on all. `begins` is told of each device: a GPU may
/// compile kernels first, for a minute.
///
/// # Errors
/// Those of the network.
pub fn measure(
    choice: &Choice<'_>,
    seed: u64,
    packed: &Segmenter,
    (scene, voxel_size): (&LabelledScene, f32),
    chosen: &Chosen,
    repeats: usize,
    begins: impl Fn(&str),
) -> Result<Vec<DeviceSpeed>> {
    let mut lines = Vec::new();
    for device in devices(chosen) {
        begins(&device.name);
        let mut float = Segmenter::load(choice, seed, &device.device)?;
        let mut packed = packed.to_device(&device.device);
        let sweep = Sweep::new(scene, voxel_size, &device.device)?;
        lines.push(line("f32", &sweep, [&float, &packed], &device, repeats)?);
        if !device.is_gpu() || !DeviceInfo::of(&device.device).takes(DType::F16) {
            continue;
        }
        for model in [&mut float, &mut packed] {
            model.cast_weights(FloatDType::F16);
        }
        lines.push(line("f16", &sweep.in_f16()?, [&float, &packed], &device, repeats)?);
    }
    Ok(lines)
}

fn line(
    dtype: &'static str,
    sweep: &Sweep,
    [float, packed]: [&Segmenter; 2],
    device: &Chosen,
    repeats: usize,
) -> Result<DeviceSpeed> {
    // A GPU that is waited for after each pass shows its launches.
    let calls = Calls { warmup: 1, repeats, batch: Calls::default_batch(device.is_gpu()) };
    let passes = |model: &Segmenter| time(&device.device, calls, || sweep.forward(model).map(|_| ()));
    let (ran, records) = trace::record(|| sweep.forward(packed).map(|_| ()));
    ran?;
    let took = |name: &&str| records.iter().any(|record| record.route == *name);
    let (float_ms, packed_ms) = (median(&passes(float)?), median(&passes(packed)?));
    Ok(DeviceSpeed {
        device: device.name.clone(),
        dtype,
        routes: PACKED_ROUTES.iter().map(|route| route.name).filter(took).collect(),
        voxels: sweep.n_rows(),
        float_ms,
        packed_ms,
        ratio: float_ms / packed_ms,
    })
}

/// The lines for people.
pub fn text(lines: &[DeviceSpeed]) -> String {
    let cells = |l: &DeviceSpeed| {
        vec![
            l.device.clone(),
            l.dtype.into(),
            format!("{:.2}", l.float_ms),
            format!("{:.2}", l.packed_ms),
            format!("{:.2}", l.ratio),
            l.routes.join(" + "),
        ]
    };
    let header = ["device", "features", "float ms", "packed ms", "times as fast", "routes of packed layers"];
    table::render(&header, &lines.iter().map(cells).collect::<Vec<_>>())
}
