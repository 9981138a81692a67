//! Sentences of the format's page that no other test reads: what is accepted and kept, and what is not.
#![allow(clippy::unwrap_used, reason = "tests")]

mod graphs;

use graphs::{along_x, floats, inputs_x, line, make_x, module, run, sparse_x, weight, weights};
use lattice_artifact::ir::{Element, ModuleAttribute};
use lattice_artifact::{
    Array, Artifact, ExecuteOptions, Executor, OutputValue, TensorFile, parse, status, verify,
};
use rstest::rstest;

const ONE: &str = "tensor<?x1xf32>";

/// `%y` of a submanifold convolution of `%x` along x.
fn body() -> String {
    make_x(ONE, [1; 3])
        + &weight("w", "conv3d")
        + "    %y = lattice.subm_conv3d %x, %w {kernel_size = array<i64: 3, 1, 1>, dilation = array<i64: 1, 1, 1>, accumulation = \"canonical_f32\"} : \
           (ST, !lattice.weight<conv3d, f32>) -> ST"
}

fn small() -> String {
    module(&sparse_x(ONE), &body(), &[["y", "sparse_tensor", "%y", "ST"]])
}

fn taps() -> TensorFile {
    weights(&[("w", &floats(&[1, 3, 1, 1, 1], &[1.0, 10.0, 100.0]))])
}

fn rows() -> lattice_artifact::Inputs {
    inputs_x(along_x(&[0, 1, 3]), floats(&[3, 1], &[1.0, 3.0, 5.0]))
}

const RESULTS: [(i32, f32); 3] = [(0, 310.0), (1, 31.0), (3, 50.0)];

/// What is put before the first attribute of the module.
fn with_attributes(more: &str) -> String {
    small().replacen("lattice.ir_version", &format!("{more}, lattice.ir_version"), 1)
}

#[test]
fn module_attributes_of_other_namespaces_are_kept() {
    let text = with_attributes(
        "zoo.tags = [\"a\", \"b \\22c\\22\"], author = \"someone\", \"build.host name\" = \"x\", zoo.level = 7 : i32, zoo.empty = [], \
         torch.version = 3, llvm.flag = -1 : i8, latticework = 1 : ui64",
    );
    let graph = parse(&text).unwrap();
    verify(&graph).unwrap();
    assert!(status(&text).valid);
    let printed = graph.to_string();
    assert_eq!(parse(&printed).unwrap(), graph);
    // Behind the format's own, by name, each with its type.
    let kept: Vec<&str> = printed.lines().skip(8).take(8).map(str::trim).collect();
    let expected = [
        "author = \"someone\",",
        "\"build.host name\" = \"x\",",
        "latticework = 1 : ui64,",
        "llvm.flag = -1 : i8,",
        "torch.version = 3 : i64,",
        "zoo.empty = [],",
        "zoo.level = 7 : i32,",
        "zoo.tags = [\"a\", \"b \\\"c\\\"\"]",
    ];
    assert_eq!(kept, expected);
    assert!(printed.lines().nth(1).unwrap().trim().starts_with("lattice.ir_version = 2"));
    let of = |name: &str| graph.attributes.iter().find(|a| a.name == name).map(|a| a.value.clone());
    assert_eq!(of("zoo.level"), Some(ModuleAttribute::Typed(7, Element::I32)));
    // They survive a folder and change nothing that runs.
    let artifact = Artifact::new(graph.clone(), taps()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    artifact.save(folder.path()).unwrap();
    let back = Artifact::load(folder.path()).unwrap();
    assert_eq!(*back.graph(), graph);
    assert_eq!(line(&run(&text, taps(), &rows()).unwrap(), "y"), RESULTS);
}

#[rstest]
#[case::of_our_namespace("lattice.checksum = 1", "found `lattice.checksum`")]
#[case::twice("zoo.a = 1, zoo.a = 2", "`zoo.a` twice")]
#[case::a_float("zoo.a = 0.5 : f32", "expected an integer of 64 bits, found `0.5`")]
#[case::an_integer_of_a_float_type("zoo.a = 1 : f32", "expected an integer's type, found `f32`")]
#[case::a_type_that_is_none("zoo.a = 1 : tensor<1xi32>", "an element type")]
#[case::mixed_lists("zoo.a = [\"a\", 1]", "expected a string in quotes, found `1`")]
#[case::a_word("zoo.a = yes", "expected an integer, found `yes`")]
fn module_attributes_that_are_refused(#[case] more: &str, #[case] part: &str) {
    let found = status(&with_attributes(more));
    assert!(!found.valid);
    let texts = found.diagnostics.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert!(texts.contains(part), "{texts}");
    assert!(found.diagnostics.iter().all(|d| d.at.line > 0 && d.at.column > 0));
}

#[test]
fn attributes_of_a_module_are_bounded() {
    let many: Vec<String> = (0..100).map(|k| format!("zoo.a{k} = {k}")).collect();
    let error = parse(&with_attributes(&many.join(", "))).unwrap_err().to_string();
    assert!(error.contains("at most 64 attributes"), "{error}");
}

#[test]
fn a_version_is_a_number_with_or_without_a_type() {
    for written in ["2", "2 : i64", "2 : i32", "2 : ui32"] {
        let text =
            small().replace("lattice.ir_version = 2 : i64", &format!("lattice.ir_version = {written}"));
        assert!(status(&text).valid, "{written}: {:?}", status(&text));
    }
    let text = small().replace("lattice.ir_version = 2 : i64", "lattice.ir_version = 3 : i32");
    assert!(format!("{:?}", status(&text)).contains("expected lattice.ir_version = 2 : i64, found 3 : i32"));
}

#[rstest]
#[case::attributes("\"canonical_f32\"}", "\"canonical_f32\",}", "name of an attribute")]
#[case::module_attributes(
    "\"weights.safetensors\"\n",
    "\"weights.safetensors\",\n",
    "name of a module attribute"
)]
#[case::names("\"x_active\"]", "\"x_active\",]", "a string in quotes")]
#[case::arguments("%x_active: tensor<1xi32>)", "%x_active: tensor<1xi32>,)", "an argument")]
#[case::operands("subm_conv3d %x, %w {", "subm_conv3d %x, %w, {", "a value")]
#[case::returned("return %y :", "return %y, :", "a value")]
#[case::no_result("-> (ST)", "-> ()", "a type")]
#[case::nothing_returned("return %y : ST", "return", "a value")]
#[case::no_body("-> (ST) {", "-> (ST) }", "`{`")]
#[case::a_region("    return %y : ST\n  }", "    return %y : ST\n  ^second:\n    return %y : ST\n  }", "`}`")]
#[case::another_name("@forward", "@backward", "`@forward`")]
#[case::an_array_of_two("array<i64: 3, 1, 1>", "array<i64: 3, 1>", "`,`")]
fn the_grammar_is_no_wider_than_its_page(#[case] from: &str, #[case] to: &str, #[case] part: &str) {
    let [from, to] = [from, to].map(|text| text.replace("ST", graphs::ST));
    let text = small();
    assert!(text.contains(&from), "{from} in {text}");
    let error = parse(&text.replacen(&from, &to, 1)).unwrap_err().to_string();
    assert!(error.contains(&format!("expected {part}")) || error.contains(part), "{error}");
}

#[test]
fn a_value_may_have_every_character_of_its_grammar_and_empty_braces_are_none() {
    let text = small().replace("%y", "%A9_$.-z");
    assert_eq!(line(&run(&text, taps(), &rows()).unwrap(), "y"), RESULTS);
    let body = body()
        + "\n    %c, %f, %a = lattice.sparse.decompose %y {} : ST -> (tensor<?x4xi32>, tensor<?x1xf32>, tensor<1xi32>)";
    let text = module(&sparse_x(ONE), &body, &[["f", "tensor", "%f", ONE]]);
    assert_eq!(run(&text, taps(), &rows()).unwrap()["f"].to_f32().unwrap().len(), 3);
    let named = text.replace("decompose %y {}", "decompose %y {note = 1}");
    assert!(
        format!("{:?}", status(&named))
            .contains("sparse.decompose: expected no attributes, found the attribute `note`")
    );
}

#[test]
fn numbers_may_leave_their_type_out_where_the_grammar_does() {
    let pooled = |batch: &str| {
        let body = make_x(ONE, [1; 3])
            + &format!(
                "    %g = lattice.global_pool %x {{mode = #lattice.pool_mode<sum>, batch_size = {batch}}} : (ST) -> {ONE}"
            );
        module(&sparse_x(ONE), &body, &[["g", "tensor", "%g", ONE]])
    };
    let file = || weights(&[]);
    for batch in ["-1", "-1 : i64", "1"] {
        let found = run(&pooled(batch), file(), &rows()).unwrap();
        assert_eq!(found["g"].to_f32().unwrap(), [9.0], "{batch}");
    }
    assert!(format!("{:?}", status(&pooled("1 : f32"))).contains("batch_size to be an integer"));
}

#[test]
fn several_weights_may_name_one_key_and_tensors_that_none_names_are_told() {
    let second = weight("v", "conv3d").replace("storage_key = \"v\"", "storage_key = \"w\"");
    let text = small().replacen("    %y =", &format!("{second}    %y ="), 1).replace(
        "    return %y",
        "    %z = lattice.subm_conv3d %x, %v {kernel_size = array<i64: 3, 1, 1>, dilation = array<i64: 2, 1, 1>, accumulation = \"canonical_f32\"} : \
         (STT, !lattice.weight<conv3d, f32>) -> STT\n    return %z",
    );
    let text = text.replace("STT", graphs::ST);
    let file = weights(&[
        ("w", &floats(&[1, 3, 1, 1, 1], &[1.0, 10.0, 100.0])),
        ("old", &floats(&[1], &[1.0])),
        ("w.scales", &floats(&[1], &[1.0])),
    ]);
    assert_eq!(line(&run(&text, file.clone(), &rows()).unwrap(), "y"), [(0, 10.0), (1, 530.0), (3, 53.0)]);
    let artifact = Artifact::new(parse(&text).unwrap(), file).unwrap();
    assert_eq!(artifact.extra_tensors(), ["old", "w.scales"]);
}

#[test]
fn the_declared_type_of_a_weight_is_not_read() {
    // Producers write the logical type or the stored one; the file tells.
    for declared in ["f16", "i8", "i4", "bf16"] {
        let text =
            small().replace("!lattice.weight<conv3d, f32>", &format!("!lattice.weight<conv3d, {declared}>"));
        assert_eq!(line(&run(&text, taps(), &rows()).unwrap(), "y"), RESULTS, "{declared}");
    }
}

#[test]
fn dense_weights_of_another_float_type_are_cast_unless_types_are_strict() {
    let half =
        weights(&[("w", &Array::from_floats(Element::F16, &[1, 3, 1, 1, 1], &[1.0, 10.0, 100.0]).unwrap())]);
    assert_eq!(line(&run(&small(), half.clone(), &rows()).unwrap(), "y"), RESULTS);
    let strict = ExecuteOptions::default().with_strict_dtypes(true);
    let error = graphs::run_with(&small(), half, &rows(), strict).unwrap_err().to_string();
    assert!(error.contains("weight `w`") && error.contains("found f16"), "{error}");
    assert_eq!(line(&graphs::run_with(&small(), taps(), &rows(), strict).unwrap(), "y"), RESULTS);
}

#[test]
fn one_result_is_unwrapped_and_several_come_in_order() {
    let device = graphs::devices::chosen();
    let executor = |text: &str| {
        Executor::new(
            Artifact::new(parse(text).unwrap(), taps()).unwrap(),
            &device,
            ExecuteOptions::default(),
        )
    };
    let one = executor(&small()).run(&rows()).unwrap().into_one().unwrap();
    let OutputValue::Sparse(y) = one else { panic!("{one:?}") };
    assert_eq!(y.n_rows(), 3);
    let results = [["b", "sparse_tensor", "%y", "ST"], ["a", "sparse_tensor", "%x", "ST"]];
    let outputs = executor(&module(&sparse_x(ONE), &body(), &results)).run(&rows()).unwrap();
    assert_eq!(outputs.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["b", "a"]);
    let error = outputs.into_one().unwrap_err().to_string();
    assert!(error.contains("expected one result, found 2"), "{error}");
}

#[test]
fn features_that_operations_take_in_f32_alone_are_refused_in_f16() {
    let half = "tensor<?x1xf16>";
    let points = [
        ["p", "tensor", "tensor<?x3xf32>"],
        ["f", "tensor", half],
        ["b", "tensor", "tensor<?xi32>"],
        ["n", "tensor", "tensor<1xi32>"],
    ];
    let voxelize = "    %v = lattice.voxelize %p, %f, %b, %n {voxel_size = array<f64: 1.0, 1.0, 1.0>, origin = array<f64: 0.0, 0.0, 0.0>, reduction = \
        #lattice.voxel_reduction<sum>, stride = array<i64: 1, 1, 1>} : (tensor<?x3xf32>, tensor<?x1xf16>, tensor<?xi32>, tensor<1xi32>) -> ST";
    let text = module(&points, voxelize, &[["v", "sparse_tensor", "%v", "ST"]]);
    assert!(
        format!("{:?}", status(&text)).contains("`features` of type tensor<?x?xf32>, found tensor<?x1xf16>")
    );
    for operation in ["elementwise %f {kind = \"exp\"}", "softmax %f {axis = -1}"] {
        let body = format!("    %e = lattice.{operation} : ({half}) -> {half}");
        let text = module(&[["f", "tensor", half]], &body, &[["e", "tensor", "%e", half]]);
        assert!(format!("{:?}", status(&text)).contains("`input` of type f32, found f16"), "{operation}");
    }
}
