//! A network's forward pass over relations that are known, asked for launch by launch and replayed as a recorded graph.

use anyhow::{Result, anyhow, bail};
use burn::tensor::{Device, Tensor, capture};
use burn_lattice::SparseTensor;
use lattice_models::MinkUNet;

use super::measure::{Calls, time};

/// The bytes of a result.
fn bytes_of(y: &Tensor<2>) -> Vec<u8> {
    y.clone().into_data().bytes().to_vec()
}

/// Times forward passes over the relations of `x`, which the first one builds.
pub fn time_forward(device: &Device, model: &MinkUNet, x: &SparseTensor, calls: Calls) -> Result<Vec<f64>> {
    model.try_forward(x)?;
    time(device, calls, || {
        model.try_forward(x)?;
        Ok(())
    })
}

/// Times replays of such a pass, recorded by Burn's `capture`, and compares the last result with the pass that was not recorded.
///
/// # Errors
/// Those of the network; a device that records no graphs; a result of other bits.
pub fn time_replay(device: &Device, model: &MinkUNet, x: &SparseTensor, calls: Calls) -> Result<Vec<f64>> {
    let expected = bytes_of(model.try_forward(x)?.feats());
    let record = || capture(device, || model.try_forward(x).map(SparseTensor::into_feats));
    let mut graph = burn_lattice::without_compilers(record);
    if !graph.is_hardware() {
        bail!(
            "minkunet_fwd_graph: expected a device that records graphs, found one that does not, or refused to record this network"
        );
    }
    let samples = time(device, calls, || {
        // SAFETY: the network, its input and the graph, with all buffers it reads and writes, outlive the replays; one thread works on the
        // device, so nothing else reads or writes them meanwhile, and all work is on this thread's stream.
        unsafe { graph.replay() };
        Ok(())
    })?;
    let found = graph.output().as_ref().map_err(|error| anyhow!("minkunet_fwd_graph: {error}"))?;
    if bytes_of(found) != expected {
        bail!("minkunet_fwd_graph: the replayed pass gives other bits than the one that was not recorded");
    }
    Ok(samples)
}
