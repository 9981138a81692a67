//! Any weight file, to a small graph with a dense and a packed weight: it is refused, or the graph runs.
#![no_main]

use std::sync::LazyLock;

use burn::tensor::Device;
use lattice_artifact::ir::Graph;
use lattice_artifact::{Array, Artifact, ExecuteOptions, Executor, Inputs, TensorFile, parse};
use libfuzzer_sys::fuzz_target;

static GRAPH: LazyLock<Graph> = LazyLock::new(|| parse(include_str!("small.mlir")).expect("a graph"));

fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = TensorFile::from_bytes(bytes.to_vec()) else { return };
    let Ok(artifact) = Artifact::new(GRAPH.clone(), file) else { return };
    let inputs = Inputs::new()
        .array("x_coords", Array::from_coords(&[[0, 0, 0, 0], [0, 1, 0, 0], [0, 3, 0, 0]]))
        .array("x_features", Array::from_f32(&[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).expect("six values"))
        .array("x_active", Array::from_i32(&[1], &[3]).expect("one value"));
    let options = ExecuteOptions::default().with_max_rows(1 << 16);
    if let Ok(outputs) = Executor::new(artifact, &Device::flex(), options).run(&inputs) {
        outputs.to_arrays().expect("results of a graph that ran");
    }
});
