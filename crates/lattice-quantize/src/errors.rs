//! How far packed layers are from float ones, each on the input that it gets in the network.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{FloatDType, Tensor};
use burn_lattice::nn::{LayerCall, Layers, Probe};

use crate::{QuantizeError, Result};

/// Errors of one layer over all runs.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerError {
    /// Path of the layer.
    pub path: String,
    /// Root mean square of output less the float layer's on the dequantized weight, over the root mean square of that.
    pub to_dequantized: f64,
    /// Largest difference to the float layer on the dequantized weight, over its largest value.
    pub largest: f64,
    /// Root mean square difference to the float layer on the weight before it was packed, over the root mean square of that.
    pub to_float: f64,
    /// Output rows that were compared.
    pub rows: usize,
}

#[derive(Debug, Default)]
struct Sums {
    difference: [f64; 2],
    reference: [f64; 2],
    largest: [f64; 2],
    rows: usize,
}

#[derive(Debug)]
struct ErrorProbe {
    dequantized: Tensor<3>,
    float: Tensor<3>,
    sums: Mutex<Sums>,
}

impl Probe for ErrorProbe {
    fn see(&self, call: &LayerCall<'_>) -> burn_lattice::Result<()> {
        let dtype = match call.input.dtype() {
            burn::tensor::DType::F16 => FloatDType::F16,
            burn::tensor::DType::BF16 => FloatDType::BF16,
            burn::tensor::DType::F64 => FloatDType::F64,
            _ => FloatDType::F32,
        };
        let read = |t: &Tensor<2>| t.clone().into_data().iter::<f64>().collect::<Vec<f64>>();
        let found = read(call.output);
        let mut sums = self.sums.lock().unwrap_or_else(PoisonError::into_inner);
        for (i, weight) in [&self.dequantized, &self.float].into_iter().enumerate() {
            let expected = read(&(call.with_weight)(weight.clone().cast(dtype))?);
            for (found, expected) in found.iter().zip(&expected) {
                sums.difference[i] += (found - expected).powi(2);
                sums.reference[i] += expected.powi(2);
                if i == 0 {
                    sums.largest =
                        [sums.largest[0].max((found - expected).abs()), sums.largest[1].max(expected.abs())];
                }
            }
        }
        sums.rows += call.output.dims()[0];
        Ok(())
    }
}

/// Compares the packed layers of a network, on the inputs of `run`, with float layers: those of the dequantized weights and those of
/// `float`, the weights before they were packed. The errors of one layer are on its own input, not on that of a float network.
///
/// # Errors
/// What `run` returns; a packed layer that `float` lacks.
pub fn layer_errors<M: Layers, E: From<QuantizeError>>(
    model: &mut M,
    float: &BTreeMap<String, Tensor<3>>,
    run: impl FnOnce(&M) -> Result<(), E>,
) -> Result<Vec<LayerError>, E> {
    let mut probes: Vec<(String, Arc<ErrorProbe>)> = Vec::new();
    let mut absent = None;
    model.visit_layers("", &mut |mut layer| {
        let Some(packed) = layer.packed() else { return };
        match float.get(layer.path()) {
            Some(weight) => {
                let (dequantized, float) = (packed.to_taps(), weight.clone());
                let probe = Arc::new(ErrorProbe { dequantized, float, sums: Mutex::default() });
                layer.set_probe(Some(probe.clone()));
                probes.push((layer.path().to_owned(), probe));
            }
            None => absent = Some(layer.path().to_owned()),
        }
    });
    let ran = match absent {
        Some(path) => Err(QuantizeError::Option(format!(
            "layer `{path}`: expected its float weight to compare with, found none"
        ))
        .into()),
        None => run(model),
    };
    model.visit_layers("", &mut |mut layer| layer.set_probe(None));
    ran?;
    let error = |(path, probe): (String, Arc<ErrorProbe>)| {
        let sums = probe.sums.lock().unwrap_or_else(PoisonError::into_inner);
        let relative = |i: usize| (sums.difference[i] / sums.reference[i].max(f64::MIN_POSITIVE)).sqrt();
        LayerError {
            path,
            to_dequantized: relative(0),
            largest: sums.largest[0] / sums.largest[1].max(f64::MIN_POSITIVE),
            to_float: relative(1),
            rows: sums.rows,
        }
    };
    Ok(probes.into_iter().map(error).collect())
}
