//! The text: the schema's digest, the lines of the format's page, the canonical form, and what is no graph.
#![allow(clippy::unwrap_used, reason = "tests")]

mod graphs;

use graphs::{ST, module, weight};
use lattice_artifact::ir::{Attribute, Graph};
use lattice_artifact::schema::{Assembly, OPS, SCHEMA_DIGEST, TYPES, WORDS};
use lattice_artifact::{parse, verify};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

#[test]
fn the_digest_is_that_of_the_schema() {
    let parameters = |list: &[(&str, &str)]| -> Vec<Value> {
        list.iter().map(|(name, kind)| json!({"name": name, "kind": kind})).collect()
    };
    let types: Vec<Value> = TYPES
        .iter()
        .map(|t| json!({"name": t.name, "mnemonic": t.mnemonic, "parameters": parameters(t.parameters)}))
        .collect();
    let attrs: Vec<Value> = WORDS
        .iter()
        .map(|w| {
            json!({"name": w.name, "mnemonic": w.mnemonic, "parameters": parameters(w.parameters), "values": w.values})
        })
        .collect();
    let ops: Vec<Value> = OPS
        .iter()
        .map(|op| {
            let operands: Vec<Value> = op
                .operands
                .iter()
                .map(|o| {
                    let kind = if o.kind.name() == "symbol" { "symbol" } else { "ssa" };
                    json!({"name": o.name, "type": o.kind.name(), "kind": kind, "optional": o.optional})
                })
                .collect();
            let results: Vec<Value> =
                op.results.iter().map(|r| json!({"name": r.name, "type": r.kind.name()})).collect();
            let attributes: Vec<Value> = op
                .attributes
                .iter()
                .map(|a| json!({"name": a.name, "kind": a.kind.name(), "required": true}))
                .collect();
            json!({"name": op.name, "python_name": op.host_name, "operands": operands, "results": results,
                "attributes": attributes, "assembly": op.assembly.name()})
        })
        .collect();
    // Keys sorted and nothing between them, whatever order the library keeps.
    let text = sorted(&json!({"namespace": "lattice", "types": types, "attrs": attrs, "ops": ops}));
    assert_eq!(text.len(), 16_760);
    let digest: String = Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(digest, SCHEMA_DIGEST);
    assert!(OPS.iter().all(|op| op.assembly != Assembly::Weight || op.values().is_empty()));
}

fn sorted(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            let entries: Vec<String> =
                keys.iter().map(|key| format!("{}:{}", json!(key), sorted(&map[*key]))).collect();
            format!("{{{}}}", entries.join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(sorted).collect::<Vec<_>>().join(",")),
        other => other.to_string(),
    }
}

/// The lines of the format's page.
const LINES: &str = r#"
%x  = lattice.sparse.make %pts_coords, %pts_features, %pts_active {stride = array<i64: 2, 2, 2>, coord_order = #lattice.coord<batch_x_y_z>} : (tensor<?x4xi32>, tensor<?x8xf32>, tensor<1xi32>) -> ST
%w  = lattice.weight @enc_w {storage_key = "enc.w", layout = #lattice.weight_layout<conv3d_o_xyz_i>, packing = #lattice.packing<dense>} : !lattice.weight<conv3d, f32>
%q  = lattice.weight @enc_q {storage_key = "enc.q", layout = #lattice.weight_layout<conv3d_o_xyz_i>, packing = #lattice.packing<int8, group_size = 64, scale_dtype = f16, mode = affine>} : !lattice.weight<conv3d, i8>
%b  = lattice.weight @enc_b {storage_key = "enc.b", layout = #lattice.weight_layout<bias_c>, packing = #lattice.packing<dense>} : !lattice.weight<bias, f32>
%y  = lattice.conv3d %x, %w, %b {kernel_size = array<i64: 3, 3, 3>, stride = array<i64: 2, 2, 2>, padding = array<i64: 0, 0, 0>, dilation = array<i64: 1, 1, 1>, accumulation = "canonical_f32"} : (ST, !lattice.weight<conv3d, f32>, !lattice.weight<bias, f32>) -> ST
%s  = lattice.subm_conv3d %y, %w {kernel_size = array<i64: 3, 3, 3>, dilation = array<i64: 2, 2, 2>, accumulation = "canonical_f32"} : (ST, !lattice.weight<conv3d, f32>) -> ST
%n  = lattice.normalized_subm_conv3d %y, %w {kernel_size = array<i64: 3, 3, 3>, dilation = array<i64: 1, 1, 1>, eps = 0.00000001 : f32, accumulation = "canonical_f32"} : (ST, !lattice.weight<conv3d, f32>) -> ST
%t  = lattice.target_conv3d %x, %goal, %w {kernel_size = array<i64: 3, 3, 3>, stride = array<i64: 1, 1, 1>, padding = array<i64: 0, 0, 0>, dilation = array<i64: 1, 1, 1>, accumulation = "canonical_f32"} : (ST, ST, !lattice.weight<conv3d, f32>) -> ST
%u  = lattice.target_conv_transpose3d %y, %x, %w {kernel_size = array<i64: 3, 3, 3>, stride = array<i64: 2, 2, 2>, padding = array<i64: 1, 1, 1>, dilation = array<i64: 1, 1, 1>, accumulation = "canonical_f32"} : (ST, ST, !lattice.weight<conv3d, f32>) -> ST
%g  = lattice.generative_conv_transpose3d %y, %w {kernel_size = array<i64: 2, 2, 2>, stride = array<i64: 2, 2, 2>, accumulation = "canonical_f32"} : (ST, !lattice.weight<conv3d, f32>) -> ST
%p  = lattice.pool3d %s {mode = #lattice.pool_mode<max>, kernel_size = array<i64: 2, 2, 2>, stride = array<i64: 2, 2, 2>, padding = array<i64: 0, 0, 0>, dilation = array<i64: 1, 1, 1>} : (ST) -> ST
%pt = lattice.pool_transpose3d %p, %s {kernel_size = array<i64: 2, 2, 2>, stride = array<i64: 2, 2, 2>, padding = array<i64: 0, 0, 0>, dilation = array<i64: 1, 1, 1>} : (ST, ST) -> ST
%tu = lattice.trilinear_upsample3d %p {stride = array<i64: 2, 2, 2>} : (ST) -> ST
%gp = lattice.global_pool %p {mode = #lattice.pool_mode<avg>, batch_size = -1} : (ST) -> tensor<?x16xf32>
%v  = lattice.voxelize %pts, %pf, %bi, %ac {voxel_size = array<f64: 0.1, 0.1, 0.2>, origin = array<f64: 0.0, 0.0, -3.0>, reduction = #lattice.voxel_reduction<mean>, stride = array<i64: 1, 1, 1>} : (tensor<?x3xf32>, tensor<?x4xf32>, tensor<?xi32>, tensor<1xi32>) -> ST
%dv = lattice.devoxelize %pts, %v, %bi, %ac {voxel_size = array<f64: 0.1, 0.1, 0.2>, origin = array<f64: 0.0, 0.0, -3.0>, interpolation = #lattice.point_interpolation<linear>} : (tensor<?x3xf32>, ST, tensor<?xi32>, tensor<1xi32>) -> tensor<?x4xf32>
%c0, %f0, %a0 = lattice.sparse.decompose %s : ST -> (tensor<?x4xi32>, tensor<?x16xf32>, tensor<1xi32>)
%f1 = lattice.activation %f0 {kind = #lattice.activation<leaky_relu>, approximate = #lattice.gelu_approx<none>, alpha = 0.1 : f32, beta = 1.0 : f32, threshold = 20.0 : f32} : (tensor<?x16xf32>) -> tensor<?x16xf32>
%f2 = lattice.batch_norm %f1, %sc, %bi2, %mu, %va {eps = 0.00001 : f32} : (tensor<?x16xf32>, !lattice.weight<channel, f32>, !lattice.weight<bias, f32>, !lattice.weight<channel, f32>, !lattice.weight<channel, f32>) -> tensor<?x16xf32>
%z  = lattice.sparse.with_features %s, %f2 : (ST, tensor<?x16xf32>) -> ST
%l  = lattice.linear %gp, %lw : (tensor<?x16xf32>, !lattice.weight<linear, f32>) -> tensor<?x5xf32>
%j  = lattice.sparse.binary %z, %t {op = #lattice.binary_op<add>, join = #lattice.join<inner>, lhs_fill = 0.0 : f32, rhs_fill = 0.0 : f32} : (ST, ST) -> ST
%k  = lattice.sparse.cat %z, %t {join = #lattice.join<outer>} : (ST, ST) -> ST
%r  = lattice.sparse.reindex %z, %t {fill = 0.0 : f32} : (ST, ST) -> ST
%e  = lattice.elementwise %gp {kind = "round"} : (tensor<?x16xf32>) -> tensor<?x16xf32>
%so = lattice.softmax %l {axis = -1} : (tensor<?x5xf32>) -> tensor<?x5xf32>
%em = lattice.embedding_lookup %ids, %tab : (tensor<?xi32>, !lattice.weight<embedding, f32>) -> tensor<?x8xf32>
"#;

/// A module around some of the lines, with what they read besides.
fn around(lines: &str) -> String {
    let mut inputs = Vec::new();
    for (name, features) in [("pts", "tensor<?x8xf32>"), ("goal", "tensor<?x8xf32>")] {
        let names: [&str; 3] = match name {
            "pts" => ["pts_coords", "pts_features", "pts_active"],
            _ => ["goal_coords", "goal_features", "goal_active"],
        };
        inputs.push([names[0], "sparse_coords", "tensor<?x4xi32>"]);
        inputs.push([names[1], "sparse_features", features]);
        inputs.push([names[2], "sparse_active", "tensor<1xi32>"]);
    }
    inputs.extend([
        ["pts", "tensor", "tensor<?x3xf32>"],
        ["pf", "tensor", "tensor<?x4xf32>"],
        ["bi", "tensor", "tensor<?xi32>"],
        ["ac", "tensor", "tensor<1xi32>"],
        ["ids", "tensor", "tensor<?xi32>"],
    ]);
    let mut body = String::from(
        "    %goal = lattice.sparse.make %goal_coords, %goal_features, %goal_active {stride = array<i64: 2, 2, 2>, coord_order = \
         #lattice.coord<batch_x_y_z>} : (tensor<?x4xi32>, tensor<?x8xf32>, tensor<1xi32>) -> ST\n",
    );
    for (name, family) in [
        ("sc", "channel"),
        ("bi2", "bias"),
        ("mu", "channel"),
        ("va", "channel"),
        ("lw", "linear"),
        ("tab", "embedding"),
    ] {
        body += &weight(name, family);
    }
    body += lines;
    module(&inputs, &body, &[["out", "sparse_tensor", "%goal", "ST"]])
}

#[test]
fn every_line_of_the_format_is_read_written_and_valid() {
    let lines: Vec<&str> = LINES.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(lines.len(), 27);
    for end in 1..=lines.len() {
        // The lines before one define what it reads.
        let text = around(&lines[..end].join("\n"));
        let graph = parse(&text).unwrap_or_else(|e| panic!("{e} in {text}"));
        verify(&graph).unwrap_or_else(|e| panic!("{e} in {text}"));
        let printed = graph.operations.last().unwrap().to_string();
        // The page pads labels and writes attributes in an order of its own.
        let expected = lines[end - 1].replace("ST", ST);
        let mut written: Vec<&str> =
            expected.split([' ', ',', '{', '}']).filter(|word| !word.is_empty()).collect();
        let mut words: Vec<&str> =
            printed.split([' ', ',', '{', '}']).filter(|word| !word.is_empty()).collect();
        written.sort_unstable();
        words.sort_unstable();
        assert_eq!(words, written, "{printed}");
        assert_eq!(parse(&graph.to_string()).unwrap(), graph);
    }
}

fn whole() -> Graph {
    parse(&around(LINES)).unwrap()
}

#[test]
fn the_canonical_text_is_stable() {
    let graph = whole();
    let text = graph.to_string();
    let again = parse(&text).unwrap();
    assert_eq!(again, graph);
    assert_eq!(again.to_string(), text);
    assert!(
        text.lines().filter(|line| line.contains(" = lattice.")).all(|line| line.starts_with("        %"))
    );
    assert!(text.contains("eps = 0.00000001 : f32") && text.contains("array<f64: 0.0, 0.0, -3.0>"), "{text}");
}

#[test]
fn space_comments_order_and_quotes_do_not_matter() {
    let text = around(LINES);
    let graph = parse(&text).unwrap();
    let loose = text
        .replace("%y  = lattice.conv3d", "%y // a comment with { and \"\n=\n\tlattice.conv3d")
        .replace(
            "{mode = #lattice.pool_mode<max>, kernel_size = array<i64: 2, 2, 2>,",
            "{ kernel_size=array<i64:2,2,2> , mode =#lattice.pool_mode< \"max\" >,",
        )
        .replace("coord = batch_x_y_z", "coord = \"batch_x_y_z\"")
        .replace("!lattice.weight<conv3d, f32>", "!lattice.weight<\"conv3d\",f32>")
        .replace("mode = affine", "mode = \"affine\"")
        .replace("batch_size = -1", "batch_size = -1 : i64")
        .replace("    return", "    func.return")
        .replace("tensor<?x4xi32>", "tensor<? x 4 x i32>")
        .replace("@enc_w", "@\"enc_w\"");
    assert_ne!(loose, text);
    assert_eq!(parse(&loose).unwrap(), graph);
}

#[test]
fn numbers_are_written_so_that_they_are_read_again() {
    let values = [0.0f32, -0.0, 1.0, 0.1, 1e-8, 1.5e-45, 3.4e38, -2.5, 1.0 / 3.0, 16_777_216.0];
    for value in values {
        let text = Attribute::Float(value).to_string();
        let number = text.strip_suffix(" : f32").unwrap();
        assert!(number.contains('.') && !number.contains('e'), "{number}");
        assert_eq!(number.parse::<f32>().unwrap(), value);
    }
    assert_eq!(Attribute::Float(-0.0).to_string(), "0.0 : f32");
    assert_eq!(Attribute::Floats([0.1, 1e-12, -3.0]).to_string(), "array<f64: 0.1, 0.000000000001, -3.0>");
    let read = parse(&around(LINES).replace("alpha = 0.1 : f32", "alpha = 1.0e-1 : f32")).unwrap();
    assert_eq!(read, whole());
    let strings = "a \"quote\", a \\ and a\nline\u{7f} and ä";
    let text = around(LINES).replace("\"enc.w\"", &Attribute::Text(strings.into()).to_string());
    let graph = parse(&text).unwrap();
    assert_eq!(parse(&graph.to_string()).unwrap(), graph);
    let found = graph
        .operations
        .iter()
        .any(|op| op.attributes.iter().any(|a| a.value == Attribute::Text(strings.into())));
    assert!(found, "{text}");
}

/// A text that is no graph: what is replaced by what, where the fault is, and what the message says.
#[track_caller]
fn refused(from: &str, to: &str, place: Option<(u32, u32)>, parts: &[&str]) {
    let valid = around(LINES);
    assert!(valid.contains(from), "{from}");
    let error = parse(&valid.replacen(from, to, 1)).expect_err(to).to_string();
    for part in parts {
        assert!(error.contains(part), "expected `{part}` in: {error}");
    }
    if let Some((line, column)) = place {
        assert!(error.starts_with(&format!("graph: {line}:{column}: ")), "{error}");
    }
}

#[test]
fn a_text_that_is_no_graph_says_where_and_why() {
    refused("module attributes", "modul attributes", Some((1, 1)), &["expected `module`, found `modul`"]);
    refused("module attributes {", "{\"ops\": []}", Some((1, 1)), &["JSON", "found `{`"]);
    refused("ir_version = 2", "ir_version = two", Some((2, 24)), &["expected an integer", "found `two`"]);
    refused("@forward", "@main", Some((9, 13)), &["expected the function `@forward`", "`main`"]);
    refused(
        "%x  = lattice.sparse.make",
        "%x  = lattice.sparse.male",
        None,
        &["one of the operations", "subm_conv3d", "`lattice.sparse.male`"],
    );
    refused(
        "%x  = lattice.sparse.make",
        "%x  = arith.addf",
        None,
        &["expected an operation `lattice.", "`arith.addf`"],
    );
    refused(
        "lattice.conv3d %x",
        "lattice.quantized_conv3d %x",
        None,
        &["one of the operations", "quantized_conv3d"],
    );
    refused("array<i64: 2, 2, 2>", "array<i64: 2, 2>", None, &["expected `,`, found `>`"]);
    refused("array<i64: 2, 2, 2>", "array<i32: 2, 2, 2>", None, &["array of i64 or f64", "`i32`"]);
    refused(
        "array<i64: 2, 2, 2>",
        "array<i64: 2, 2, 99999999999999999999>",
        None,
        &["an integer of 64 bits"],
    );
    refused("alpha = 0.1 : f32", "alpha = 0.1", None, &["expected `:`"]);
    refused("alpha = 0.1 : f32", "alpha = 0.1 : f64", None, &["type f32", "`f64`"]);
    refused("alpha = 0.1 : f32", "alpha = 1.0e39 : f32", None, &["a number that f32 holds"]);
    refused("alpha = 0.1 : f32", "alpha = 0.1 : f32, alpha = 0.2 : f32", None, &["`alpha` twice"]);
    refused("kind = \"round\"", "kind = round", None, &["expected a value", "`round`"]);
    refused("kind = \"round\"", "kind = \"round", None, &["ends on its line"]);
    refused("kind = \"round\"", "kind = \"r\\qound\"", None, &["after \\ in a string"]);
    refused("tensor<?x3xf32>", "tensor<?x3xf31>", None, &["an element type", "`f31`"]);
    refused("tensor<?x3xf32>", "tensor<?x99999999999999999999xf32>", None, &["dimension below 2^63"]);
    refused("tensor<?x3xf32>", "vector<3xf32>", None, &["expected a type", "`vector`"]);
    refused("rank = 3", "rang = 3", None, &["expected `rank`, found `rang`"]);
    refused(
        "packing = #lattice.packing<int8, group_size = 64",
        "packing = #lattice.packing<int8, groups = 64",
        None,
        &["expected `group_size`"],
    );
    refused("#lattice.coord", "#mlir.coord", None, &["expected `#lattice.`"]);
    refused("    return", "    give", None, &["expected an operation", "`give`"]);
    let valid = around(LINES);
    let two = valid.replace("  }\n}\n", "  }\n  func.func @other() -> f32 {\n  }\n}\n");
    assert!(parse(&two).unwrap_err().to_string().contains("one function"), "{two}");
    assert!(parse(&format!("{valid}x")).unwrap_err().to_string().contains("end of the text"));
    assert!(parse("").unwrap_err().to_string().contains("graph: 1:1: expected `module`, found the end"));
    for end in (0..valid.len()).step_by(97) {
        assert!(parse(&valid[..end]).is_err(), "{end}");
    }
}
