//! Ranges of input features, from runs of the float network.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use burn_lattice::nn::{LayerCall, Layers, Probe};
use burn_lattice::quantized::{ActivationRange, CalibrationMethod, Calibrator, Granularity};

use crate::{QuantizeError, Result};

/// Ranges of the input features of layers, by path.
pub type Ranges = BTreeMap<String, ActivationRange>;

#[derive(Debug)]
struct RangeProbe(Mutex<Calibrator>);

impl Probe for RangeProbe {
    fn see(&self, call: &LayerCall<'_>) -> burn_lattice::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).observe(call.input)
    }
}

/// Finds the ranges of the layers that `wanted` takes; `run` runs the network on representative input, once or more.
///
/// # Errors
/// What `run` returns; a percentile that is none; a layer that no run reached.
pub fn calibrate<M: Layers, E: From<QuantizeError>>(
    model: &mut M,
    method: CalibrationMethod,
    granularity: Granularity,
    wanted: impl Fn(&str) -> bool,
    run: impl FnOnce(&M) -> Result<(), E>,
) -> Result<Ranges, E> {
    let fault = |path: &str, source| QuantizeError::Layer { path: path.into(), source };
    let calibrator =
        Calibrator::try_new(method, granularity).map_err(|e| QuantizeError::Option(e.to_string()))?;
    let mut probes: Vec<(String, Arc<RangeProbe>)> = Vec::new();
    model.visit_layers("", &mut |mut layer| {
        if wanted(layer.path()) {
            let probe = Arc::new(RangeProbe(Mutex::new(calibrator.clone())));
            layer.set_probe(Some(probe.clone()));
            probes.push((layer.path().to_owned(), probe));
        }
    });
    let ran = run(model);
    model.visit_layers("", &mut |mut layer| layer.set_probe(None));
    ran?;
    let mut ranges = Ranges::new();
    for (path, probe) in probes {
        let found = probe.0.lock().unwrap_or_else(PoisonError::into_inner).range();
        ranges.insert(path.clone(), found.map_err(|e| fault(&path, e))?);
    }
    Ok(ranges)
}
