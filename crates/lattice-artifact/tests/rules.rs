//! The rules of the format: what breaks one is named with its line, expected and found values.
#![allow(clippy::unwrap_used, reason = "tests")]

mod graphs;

use graphs::{make_x, module, sparse_x, weight};
use lattice_artifact::{InputRole, Op, OutputRole, parse, status, verify};

const SUBM: &str = "    %y = lattice.subm_conv3d %x, %w, %b {kernel_size = array<i64: 3, 1, 1>, dilation = array<i64: 1, 1, 1>, accumulation = \
    \"canonical_f32\"} : (ST, !lattice.weight<conv3d, f32>, !lattice.weight<bias, f32>) -> ST\n";

/// A graph with one of everything that rules speak of.
fn valid() -> String {
    let mut inputs = sparse_x("tensor<?x2xf32>");
    inputs.extend([
        ["points", "tensor", "tensor<?x3xf32>"],
        ["pf", "tensor", "tensor<?x2xf32>"],
        ["batch", "tensor", "tensor<?xi32>"],
        ["rows", "tensor", "tensor<1xi32>"],
        ["ids", "tensor", "tensor<?xi32>"],
    ]);
    let mut body = make_x("tensor<?x2xf32>", [1, 2, 4]);
    for (name, family) in [
        ("w", "conv3d"),
        ("b", "bias"),
        ("lw", "linear"),
        ("s", "channel"),
        ("v", "channel"),
        ("tab", "embedding"),
    ] {
        body += &weight(name, family);
    }
    body += SUBM;
    body += "    %n = lattice.normalized_conv_transpose3d %y, %w {kernel_size = array<i64: 3, 1, 1>, stride = array<i64: 1, 2, 4>, padding = \
        array<i64: 0, 1, 0>, dilation = array<i64: 1, 1, 1>, accumulation = \"canonical_f32\", eps = 0.5 : f32} : (ST, \
        !lattice.weight<conv3d, f32>) -> ST\n";
    body += "    %p = lattice.pool3d %y {mode = #lattice.pool_mode<sum>, kernel_size = array<i64: 2, 2, 2>, stride = array<i64: 2, 2, 2>, padding = \
        array<i64: 0, 0, 0>, dilation = array<i64: 1, 1, 1>} : (ST) -> ST\n";
    body += "    %g = lattice.global_pool %p {mode = #lattice.pool_mode<max>, batch_size = 3} : (ST) -> tensor<?x2xf32>\n";
    body += "    %c, %f, %a = lattice.sparse.decompose %y : ST -> (tensor<?x4xi32>, tensor<?x2xf32>, tensor<1xi32>)\n";
    body += "    %act = lattice.activation %f {kind = #lattice.activation<softplus>, approximate = #lattice.gelu_approx<none>, alpha = 0.25 : f32, \
        beta = 2.0 : f32, threshold = 20.0 : f32} : (tensor<?x2xf32>) -> tensor<?x2xf32>\n";
    body += "    %norm = lattice.batch_norm %act, %s, %b, %s, %v {eps = 0.125 : f32} : (tensor<?x2xf32>, !lattice.weight<channel, f32>, \
        !lattice.weight<bias, f32>, !lattice.weight<channel, f32>, !lattice.weight<channel, f32>) -> tensor<?x2xf32>\n";
    body += "    %z = lattice.sparse.with_features %y, %norm : (ST, tensor<?x2xf32>) -> ST\n";
    body += "    %vox = lattice.voxelize %points, %pf, %batch, %rows {voxel_size = array<f64: 0.1, 0.2, 0.3>, origin = array<f64: 0.0, 0.0, 0.0>, \
        reduction = #lattice.voxel_reduction<sum>, stride = array<i64: 1, 2, 4>} : (tensor<?x3xf32>, tensor<?x2xf32>, tensor<?xi32>, \
        tensor<1xi32>) -> ST\n";
    body += "    %add = lattice.sparse.binary %z, %vox {op = #lattice.binary_op<maximum>, join = #lattice.join<outer>, lhs_fill = 0.0 : f32, rhs_fill \
        = 1.0 : f32} : (ST, ST) -> ST\n";
    body += "    %lin = lattice.linear %g, %lw, %b : (tensor<?x2xf32>, !lattice.weight<linear, f32>, !lattice.weight<bias, f32>) -> tensor<?x2xf32>\n";
    body += "    %soft = lattice.softmax %lin {axis = 1} : (tensor<?x2xf32>) -> tensor<?x2xf32>\n";
    body += "    %exp = lattice.elementwise %soft {kind = \"exp\"} : (tensor<?x2xf32>) -> tensor<?x2xf32>\n";
    body += "    %em = lattice.embedding_lookup %ids, %tab : (tensor<?xi32>, !lattice.weight<embedding, f32>) -> tensor<?x8xf32>";
    let results = [
        ["sum", "sparse_tensor", "%add", "ST"],
        ["scores", "tensor", "%exp", "tensor<?x2xf32>"],
        ["up", "sparse_tensor", "%n", "ST"],
    ];
    module(&inputs, &body, &results)
}

#[test]
fn a_valid_graph_becomes_a_plan() {
    let text = valid();
    assert!(status(&text).valid, "{:?}", status(&text));
    let plan = verify(&parse(&text).unwrap()).unwrap();
    assert_eq!((plan.inputs.len(), plan.outputs.len(), plan.weights.len(), plan.nodes.len()), (8, 3, 6, 15));
    assert_eq!(plan.inputs[0].role, InputRole::SparseCoords);
    assert_eq!(plan.outputs[1].role, OutputRole::Tensor);
    assert_eq!(plan.sparse_inputs()[0].name, "x");
    let Op::Convolution(conv) = plan.nodes[2].op else { panic!("{:?}", plan.nodes[2]) };
    assert_eq!(
        (conv.spec.stride, conv.spec.padding, conv.eps, conv.biased),
        ([1, 2, 4], [0, 1, 0], Some(0.5), false)
    );
    assert_eq!(plan.label(plan.nodes[2].operands[0]), "y");
    assert_eq!(plan.weight(plan.nodes[2].operands[1]).unwrap().key, "w");
}

#[test]
fn the_plain_names_of_a_sparse_input_are_the_input_named_input() {
    let text =
        valid().replace("\"x_coords\", \"x_features\", \"x_active\"", "\"coords\", \"features\", \"active\"");
    assert_eq!(verify(&parse(&text).unwrap()).unwrap().sparse_inputs()[0].name, "input");
    let text = valid().replace("\"x_coords\", \"x_features\"", "\"x_coords\", \"y_features\"");
    assert!(verify(&parse(&text).unwrap()).unwrap().sparse_inputs().is_empty());
}

/// What is replaced by what in the valid graph, and parts of a diagnostic of that line.
#[track_caller]
fn broken(from: &str, to: &str, parts: &[&str]) {
    let (from, to) = (from.replace("ST", graphs::ST), to.replace("ST", graphs::ST));
    let text = valid();
    assert!(text.contains(&from), "{from}");
    let found = status(&text.replacen(&from, &to, 1));
    assert!(!found.valid);
    let fits = |message: &str| parts.iter().all(|part| message.contains(part));
    let diagnostic = found.diagnostics.iter().find(|d| fits(&d.message));
    let Some(diagnostic) = diagnostic else { panic!("expected {parts:?} in {:?}", found.diagnostics) };
    assert!(diagnostic.at.line > 0 && diagnostic.at.column > 0, "{diagnostic}");
}

#[test]
fn module_attributes_have_exact_values() {
    broken(
        "lattice.ir_version = 2 : i64",
        "lattice.ir_version = 1 : i64",
        &["lattice.ir_version = 2", "found 1"],
    );
    broken("1380f1e8", "1380f1e9", &["schema_digest", "1380f1e819fc", "found \"1380f1e9"]);
    broken("\"weights.safetensors\"", "\"w.safetensors\"", &["weight_file", "found \"w.safetensors\""]);
    broken("lattice.ir_version = 2 : i64, ", "", &["module attribute `lattice.ir_version`", "found none"]);
    broken(
        "lattice.ir_version",
        "lattice.manifest = \"x\", lattice.ir_version",
        &["found `lattice.manifest`"],
    );
    broken("lattice.ir_version = 2 : i64", "lattice.ir_version = \"2\"", &["ir_version = 2", "found \"2\""]);
    broken("\"x_coords\", ", "", &["lattice.input_names to list 8", "found 7"]);
    broken("\"x_coords\"", "\"\"", &["not empty"]);
    broken("\"x_coords\"", "\"x_active\"", &["`x_active` twice"]);
    broken("\"sparse_coords\"", "\"coords\"", &["role of tensor, sparse_coords", "found `coords`"]);
    broken("[\"sparse_tensor\", \"tensor\"", "[\"tensor\", \"tensor\"", &["result `sum`", "role tensor"]);
    broken("[\"sum\", ", "[\"scores\", ", &["`scores` twice"]);
}

#[test]
fn values_are_defined_once_and_before_they_are_used() {
    broken("subm_conv3d %x", "subm_conv3d %later", &["before it is used", "found %later"]);
    broken("subm_conv3d %x", "subm_conv3d %z", &["before it is used", "found %z"]);
    broken("subm_conv3d %x", "subm_conv3d %y", &["before it is used", "found %y"]);
    broken("%p = lattice.pool3d", "%y = lattice.pool3d", &["defined once", "%y defined again"]);
    broken("return %add", "return %nothing", &["before it is used", "%nothing"]);
    broken(
        "(tensor<?x2xf32>) -> tensor<?x2xf32>\n    %norm",
        "(tensor<?x3xf32>) -> tensor<?x2xf32>\n    %norm",
        &["%f to be used as tensor<?x2xf32>", "found tensor<?x3xf32>"],
    );
    broken(
        "return %add, %exp, %n : ST, tensor<?x2xf32>, ST",
        "return %add, %exp : ST, tensor<?x2xf32>",
        &["expected 3 results", "found 2"],
    );
    broken("%x_coords: tensor<?x4xi32>", "%x_coords: ST", &["argument of type tensor", "three arguments"]);
}

#[test]
fn operands_attributes_and_results_are_those_of_the_schema() {
    broken("subm_conv3d %x, %w, %b", "subm_conv3d %x", &["(input, weight, bias?)", "found 1 and 3 types"]);
    broken("subm_conv3d %x, %w, %b", "subm_conv3d %f, %w, %b", &["used"]);
    broken("softmax %lin {axis = 1}", "softmax %lin {}", &["softmax: expected the attribute axis"]);
    broken(
        "softmax %lin {axis = 1}",
        "softmax %lin {axis = 1, dim = 1}",
        &["softmax: expected axis", "`dim`"],
    );
    broken(
        "softmax %lin {axis = 1}",
        "softmax %lin {axis = \"1\"}",
        &["axis to be an integer", "found \"1\""],
    );
    broken(
        "mode = #lattice.pool_mode<sum>",
        "mode = #lattice.join<inner>",
        &["mode to be #lattice.pool_mode<..>", "#lattice.join<inner>"],
    );
    broken(
        "mode = #lattice.pool_mode<sum>",
        "mode = #lattice.pool_mode<median>",
        &["one of sum, max, avg", "`median`"],
    );
    broken(
        "%c, %f, %a = lattice.sparse.decompose",
        "%c, %f = lattice.sparse.decompose",
        &["expected 3 results", "found 2"],
    );
    broken("= lattice.pool3d %y", "= lattice.pool3d %w", &["used"]);
}

#[test]
fn weights_have_families_layouts_and_packings() {
    let dense = "layout = #lattice.weight_layout<conv3d_o_xyz_i>, packing = #lattice.packing<dense>} : !lattice.weight<conv3d, f32>";
    let with = |packing: &str| {
        format!(
            "layout = #lattice.weight_layout<conv3d_o_xyz_i>, packing = #lattice.packing<{packing}>}} : !lattice.weight<conv3d, f32>"
        )
    };
    broken("storage_key = \"w\"", "storage_key = \"\"", &["storage_key that is not empty"]);
    broken("conv3d_o_xyz_i", "conv3d_o_zyx_i", &["conv3d_o_xyz_i", "found `conv3d_o_zyx_i`"]);
    broken("conv3d_o_xyz_i", "linear_o_i", &["layout conv3d_o_xyz_i of family conv3d", "found `linear_o_i`"]);
    broken(
        "#lattice.packing<dense>} : !lattice.weight<conv3d, f32>",
        "#lattice.packing<dense>} : !lattice.weight<kernel, f32>",
        &["family of conv3d, linear", "`kernel`"],
    );
    broken(
        dense,
        &with("int2, group_size = 64, scale_dtype = f16, mode = affine"),
        &["dense, int4 or int8", "`int2`"],
    );
    broken(
        dense,
        &with("int4, group_size = 0, scale_dtype = f16, mode = affine"),
        &["group_size above 0", "found 0"],
    );
    broken(dense, &with("int4, group_size = 64, scale_dtype = bf16, mode = affine"), &["f16 or f32", "bf16"]);
    broken(
        dense,
        &with("int4, group_size = 64, scale_dtype = f16, mode = symmetric"),
        &["mode affine", "`symmetric`"],
    );
    // A weight-normalized convolution reads the floats.
    broken(
        dense,
        &with("int4, group_size = 64, scale_dtype = f16, mode = affine"),
        &["normalized_conv_transpose3d", "dense weight"],
    );
    let bias = "layout = #lattice.weight_layout<bias_c>, packing = #lattice.packing<dense>";
    let packed = "layout = #lattice.weight_layout<bias_c>, packing = #lattice.packing<int8, group_size = 64, scale_dtype = f16, mode = affine>";
    broken(bias, packed, &["packing dense for family bias", "may be packed"]);
    broken(
        "linear %g, %lw, %b : (tensor<?x2xf32>, !lattice.weight<linear, f32>",
        "linear %g, %w, %b : (tensor<?x2xf32>, !lattice.weight<conv3d, f32>",
        &["`weight` of family linear"],
    );
    broken("batch_norm %act, %s, %b, %s, %v", "batch_norm %act, %s, %s, %s, %v", &["used"]);
}

#[test]
fn operations_keep_their_rules() {
    broken(
        "rank = 3, coord = batch_x_y_z, feature = row_channel, dtype = f32>\n    %w",
        "rank = 2, coord = batch_x_y_z, feature = row_channel, dtype = f32>\n    %w",
        &["rank = 3", "found"],
    );
    broken(
        "stride = array<i64: 1, 2, 4>, coord_order",
        "stride = array<i64: 1, 0, 4>, coord_order",
        &["sparse.make", "stride of at least 1", "1, 0, 4"],
    );
    broken(
        "stride = array<i64: 1, 2, 4>, coord_order",
        "stride = array<i64: 1, -2, 4>, coord_order",
        &["stride of at least 1"],
    );
    broken(
        "kernel_size = array<i64: 3, 1, 1>, dilation",
        "kernel_size = array<i64: 2, 1, 1>, dilation",
        &["odd kernel_size", "[2, 1, 1]"],
    );
    broken(
        "kernel_size = array<i64: 3, 1, 1>, dilation",
        "kernel_size = array<i64: 3, 99999, 99999>, dilation",
        &["taps"],
    );
    broken("\"canonical_f32\"", "\"fast_f16\"", &["accumulation \"canonical_f32\"", "\"fast_f16\""]);
    broken("eps = 0.5 : f32", "eps = 0.0 : f32", &["eps above 0", "found 0"]);
    broken("padding = array<i64: 0, 1, 0>", "padding = array<i64: 0, -1, 0>", &["padding of at least 0"]);
    broken(
        "dilation = array<i64: 1, 1, 1>, accumulation",
        "padding = array<i64: 0, 0, 0>, dilation = array<i64: 1, 1, 1>, accumulation",
        &["subm_conv3d: expected kernel_size, dilation", "`padding`"],
    );
    broken("batch_size = 3", "batch_size = -2", &["batch_size of at least -1", "-2"]);
    broken(
        "voxel_size = array<f64: 0.1, 0.2, 0.3>",
        "voxel_size = array<f64: 0.1, 0.0, 0.3>",
        &["voxel_size above 0"],
    );
    broken("alpha = 0.25 : f32", "alpha = -0.25 : f32", &["slope of at least 0"]);
    broken("beta = 2.0 : f32", "beta = 0.0 : f32", &["beta above 0"]);
    broken("axis = 1", "axis = 0", &["axis -1 or 1", "found 0"]);
    broken("kind = \"exp\"", "kind = \"log\"", &["\"exp\" or \"round\"", "\"log\""]);
    broken("eps = 0.125 : f32", "eps = -0.125 : f32", &["eps above 0"]);
    let text = valid();
    // Element types that do not fit together, all over.
    let wide = text.replace("-> tensor<?x8xf32>", "-> tensor<?x8xf16>");
    assert!(
        format!("{:?}", status(&wide))
            .contains("expected `result` of type tensor<?x?xf32>, found tensor<?x8xf16>")
    );
    let rows = text
        .replace(
            "%x_coords: tensor<?x4xi32>, %x_features: tensor<?x2xf32>",
            "%x_coords: tensor<7x4xi32>, %x_features: tensor<8x2xf32>",
        )
        .replace(
            "(tensor<?x4xi32>, tensor<?x2xf32>, tensor<1xi32>) -> !lattice.sparse",
            "(tensor<7x4xi32>, tensor<8x2xf32>, tensor<1xi32>) -> !lattice.sparse",
        );
    assert!(format!("{:?}", status(&rows)).contains("features of 7 rows, one a coordinate, found 8"));
}

#[test]
fn a_generative_convolution_has_no_padding_and_cat_wants_one_element_type() {
    let half = graphs::ST.replace("f32", "f16");
    let mut inputs = sparse_x("tensor<?x2xf32>");
    inputs.push(["h_features", "tensor", "tensor<?x2xf16>"]);
    let mut body = make_x("tensor<?x2xf32>", [1; 3]) + &weight("w", "conv3d");
    body += "    %g = lattice.generative_conv_transpose3d %x, %w {kernel_size = array<i64: 2, 2, 2>, stride = array<i64: 2, 2, 2>, padding = array<i64: \
        0, 0, 0>, accumulation = \"canonical_f32\"} : (ST, !lattice.weight<conv3d, f32>) -> ST\n";
    body += &format!(
        "    %h = lattice.sparse.make %x_coords, %h_features, %x_active {{stride = array<i64: 1, 1, 1>, coord_order = #lattice.coord<batch_x_y_z>}} : \
         (tensor<?x4xi32>, tensor<?x2xf16>, tensor<1xi32>) -> {half}\n    %k = lattice.sparse.cat %x, %h {{join = #lattice.join<outer>}} : (ST, {half}) -> ST"
    );
    let found = status(&module(&inputs, &body, &[["k", "sparse_tensor", "%k", "ST"]]));
    let text = format!("{:?}", found.diagnostics);
    assert!(text.contains("generative_conv_transpose3d: expected kernel_size, stride, accumulation, found the attribute `padding`"), "{text}");
    assert!(text.contains("sparse.cat: expected `rhs` of type f32, found f16"), "{text}");
}
