//! Graphs as text, for tests.
#![allow(dead_code, reason = "each test file uses a part")]

#[path = "../../../burn-lattice/tests/harness/devices.rs"]
pub mod devices;

use std::collections::BTreeMap;

use lattice_artifact::{Array, Artifact, ExecuteOptions, Executor, Inputs, TensorFile, parse};

/// The sparse type of f32 features.
pub const ST: &str =
    "!lattice.sparse_tensor<rank = 3, coord = batch_x_y_z, feature = row_channel, dtype = f32>";

/// A module around operations: inputs as `name: role: type`, results as `name: role: label: type`. `ST` stands for the sparse type.
pub fn module(inputs: &[[&str; 3]], body: &str, results: &[[&str; 4]]) -> String {
    let quoted = |words: Vec<&str>| words.iter().map(|w| format!("\"{w}\"")).collect::<Vec<_>>().join(", ");
    let arguments: Vec<String> = inputs.iter().map(|[name, _, ty]| format!("%{name}: {ty}")).collect();
    let types = results.iter().map(|[.., ty]| *ty).collect::<Vec<_>>().join(", ");
    let returned = results.iter().map(|[_, _, label, _]| *label).collect::<Vec<_>>().join(", ");
    let digest = lattice_artifact::schema::SCHEMA_DIGEST;
    format!(
        "module attributes {{\n  lattice.ir_version = 2 : i64, lattice.schema_digest = \"{digest}\",\n  lattice.input_names = [{}],\n  \
         lattice.output_names = [{}],\n  lattice.input_roles = [{}],\n  lattice.output_roles = [{}],\n  lattice.weight_file = \
         \"weights.safetensors\"\n}} {{\n  func.func @forward({}) -> ({types}) {{\n{body}\n    return {returned} : {types}\n  }}\n}}\n",
        quoted(inputs.iter().map(|i| i[0]).collect()),
        quoted(results.iter().map(|r| r[0]).collect()),
        quoted(inputs.iter().map(|i| i[1]).collect()),
        quoted(results.iter().map(|r| r[1]).collect()),
        arguments.join(", "),
    )
    .replace("ST", ST)
}

/// The three inputs of a sparse tensor `x` of so many channels.
pub fn sparse_x(channels: &str) -> Vec<[&str; 3]> {
    vec![
        ["x_coords", "sparse_coords", "tensor<?x4xi32>"],
        ["x_features", "sparse_features", channels],
        ["x_active", "sparse_active", "tensor<1xi32>"],
    ]
}

/// `%x` of the inputs of [`sparse_x`], at a stride.
pub fn make_x(channels: &str, stride: [u32; 3]) -> String {
    let [a, b, c] = stride;
    format!(
        "    %x = lattice.sparse.make %x_coords, %x_features, %x_active {{stride = array<i64: {a}, {b}, {c}>, coord_order = \
         #lattice.coord<batch_x_y_z>}} : (tensor<?x4xi32>, {channels}, tensor<1xi32>) -> ST\n"
    )
}

/// A dense weight `%name` under the key `name`.
pub fn weight(name: &str, family: &str) -> String {
    let layout = match family {
        "conv3d" => "conv3d_o_xyz_i",
        "linear" => "linear_o_i",
        "embedding" => "embedding_n_c",
        "channel" => "channel_c",
        _ => "bias_c",
    };
    format!(
        "    %{name} = lattice.weight @{name} {{storage_key = \"{name}\", layout = #lattice.weight_layout<{layout}>, packing = \
         #lattice.packing<dense>}} : !lattice.weight<{family}, f32>\n"
    )
}

/// A weight file.
pub fn weights(arrays: &[(&str, &Array)]) -> TensorFile {
    TensorFile::from_arrays(arrays.iter().copied()).unwrap()
}

pub fn floats(dims: &[usize], values: &[f32]) -> Array {
    Array::from_f32(dims, values).unwrap()
}

/// Rows along x of batch item 0.
pub fn along_x(xs: &[i32]) -> Array {
    Array::from_coords(&xs.iter().map(|&x| [0, x, 0, 0]).collect::<Vec<_>>())
}

/// Inputs of the sparse tensor `x`.
pub fn inputs_x(coords: Array, features: Array) -> Inputs {
    let n = coords.dims()[0] as i32;
    Inputs::new()
        .array("x_coords", coords)
        .array("x_features", features)
        .array("x_active", Array::from_i32(&[1], &[n]).unwrap())
}

/// Runs a text on the CPU, or the device that `LATTICE_TEST_DEVICE` names; results by the names of files.
pub fn run(
    text: &str,
    file: TensorFile,
    inputs: &Inputs,
) -> Result<BTreeMap<String, Array>, lattice_artifact::ArtifactError> {
    run_with(text, file, inputs, ExecuteOptions::default())
}

pub fn run_with(
    text: &str,
    file: TensorFile,
    inputs: &Inputs,
    options: ExecuteOptions,
) -> Result<BTreeMap<String, Array>, lattice_artifact::ArtifactError> {
    let artifact = Artifact::new(parse(text)?, file)?;
    let outputs = Executor::new(artifact, &devices::chosen(), options).run(inputs)?;
    Ok(outputs.to_arrays()?.into_iter().collect())
}

/// Features of a sparse result by their x, of one channel, sorted by x.
pub fn by_x(results: &BTreeMap<String, Array>, name: &str) -> Vec<(i32, Vec<f32>)> {
    let rows = results[&format!("{name}.coords")].to_coords().unwrap();
    let features = &results[&format!("{name}.features")];
    let channels = features.dims()[1];
    let values = features.to_f32().unwrap();
    let mut all: Vec<(i32, Vec<f32>)> = rows
        .iter()
        .enumerate()
        .map(|(i, row)| (row[1], values[i * channels..(i + 1) * channels].to_vec()))
        .collect();
    all.sort_by_key(|(x, _)| *x);
    all
}

/// The same, where there is one channel.
pub fn line(results: &BTreeMap<String, Array>, name: &str) -> Vec<(i32, f32)> {
    by_x(results, name).into_iter().map(|(x, values)| (x, values[0])).collect()
}
