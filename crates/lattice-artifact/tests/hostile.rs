//! Files that nobody meant well: mutated, nested, huge, cut off, overlapping. Each gives an error or a graph, in bounded time and memory.
#![allow(clippy::unwrap_used, reason = "tests")]

mod graphs;

use std::time::{Duration, Instant};

use burn::tensor::Device;
use graphs::{ST, along_x, floats, inputs_x, make_x, module, sparse_x, weight};
use lattice_artifact::{
    Array, Artifact, ArtifactError, ExecuteOptions, Executor, Inputs, TensorFile, parse, status, verify,
};

/// A graph with a dense and a packed weight.
const SMALL: &str = include_str!("../../../fuzz/fuzz_targets/small.mlir");

fn arrays() -> Vec<(&'static str, Array)> {
    let words = Array::try_new(lattice_artifact::ir::Element::U32, vec![1, 3, 4], vec![0x5a; 48]).unwrap();
    vec![
        ("w", floats(&[2, 3, 1, 1, 2], &[0.5; 12])),
        ("q.weight", words),
        ("q.scales", floats(&[1, 3, 1], &[0.1, 0.2, 0.3])),
        ("q.biases", floats(&[1, 3, 1], &[-1.0, 0.0, 1.0])),
    ]
}

fn file() -> TensorFile {
    let arrays = arrays();
    TensorFile::from_arrays(arrays.iter().map(|(name, array)| (*name, array))).unwrap()
}

fn inputs() -> Inputs {
    inputs_x(along_x(&[0, 1, 3]), floats(&[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

/// Changes bytes, cuts pieces out, doubles or moves them, or writes a word of the grammar somewhere.
fn mutate(text: &[u8], random: &mut Random) -> Vec<u8> {
    const WORDS: [&str; 20] = [
        "%x",
        "%",
        "@",
        "\"",
        "\\",
        "//",
        "<",
        ">",
        "{",
        "}",
        "(",
        ")",
        "->",
        "array<i64: -1, 0, 9223372036854775807>",
        "tensor<?x",
        "lattice.",
        "99999999999999999999999",
        "-0.0 : f32",
        "1e400 : f32",
        "#lattice.packing<int4, group_size = -5, scale_dtype = i1, mode = affine>",
    ];
    let mut bytes = text.to_vec();
    for _ in 0..=random.below(3) {
        if bytes.is_empty() {
            break;
        }
        let (at, length) = (random.below(bytes.len()), random.below(40));
        let end = (at + length).min(bytes.len());
        match random.below(6) {
            0 => bytes[at] = random.next() as u8,
            1 => drop(bytes.drain(at..end)),
            2 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            3 => bytes.truncate(at),
            4 => {
                let to = random.below(bytes.len());
                let piece = bytes[at..end].to_vec();
                bytes.splice(to..to, piece);
            }
            _ => {
                let word = WORDS[random.below(WORDS.len())];
                bytes.splice(at..at, word.bytes());
            }
        }
    }
    bytes
}

#[test]
fn mutated_texts_are_refused_or_are_graphs() {
    let mut random = Random(7);
    let (mut graphs, mut valid) = (0, 0);
    for _ in 0..20_000 {
        let bytes = mutate(SMALL.as_bytes(), &mut random);
        let Ok(text) = std::str::from_utf8(&bytes) else { continue };
        match parse(text) {
            Ok(graph) => {
                graphs += 1;
                let printed = graph.to_string();
                assert_eq!(parse(&printed).unwrap_or_else(|e| panic!("{e} in {printed}")), graph);
                match verify(&graph) {
                    Ok(_) => valid += 1,
                    Err(ArtifactError::Invalid(found)) => {
                        assert!(!found.0.is_empty() && !found.to_string().is_empty())
                    }
                    Err(other) => panic!("{other}"),
                }
            }
            Err(ArtifactError::Syntax(found)) => assert!(found.at.line > 0 && found.at.column > 0, "{found}"),
            Err(other) => panic!("{other}"),
        }
    }
    // The mutations reach past the parser, and past the rules.
    assert!(graphs > 500 && valid > 50, "{graphs} {valid}");
}

#[test]
fn mutated_weight_files_are_refused_or_run() {
    let graph = parse(SMALL).unwrap();
    let bytes = file().bytes().to_vec();
    let header = 8 + u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let mut random = Random(11);
    let (mut loaded, mut ran) = (0, 0);
    for round in 0..6_000 {
        let mut changed = match round % 2 {
            // The header, kept as long as it says.
            0 => {
                let mut text = bytes[..header].to_vec();
                for _ in 0..=random.below(3) {
                    let at = 8 + random.below(header - 8);
                    text[at] = b"0123456789[],{}\"aefimorstu: "[random.below(28)];
                }
                [text, bytes[header..].to_vec()].concat()
            }
            _ => mutate(&bytes, &mut random),
        };
        if random.below(8) == 0 {
            changed.truncate(random.below(changed.len()));
        }
        let Ok(file) = TensorFile::from_bytes(changed) else { continue };
        loaded += 1;
        let Ok(artifact) = Artifact::new(graph.clone(), file) else { continue };
        let executor = Executor::new(artifact, &Device::flex(), ExecuteOptions::default());
        if let Ok(outputs) = executor.run(&inputs()) {
            outputs.to_arrays().unwrap();
            ran += 1;
        }
    }
    assert!(loaded > 100 && ran > 40, "{loaded} {ran}");
}

/// A text that is refused within a second.
#[track_caller]
fn quickly(text: &str, part: &str) {
    let start = Instant::now();
    let found = status(text);
    let took = start.elapsed();
    assert!(!found.valid);
    let all = format!("{:?}", found.diagnostics);
    assert!(all.contains(part), "expected `{part}` in {}", &all[..all.len().min(400)]);
    // Messages quote a part of the text, not all of it.
    assert!(found.diagnostics.iter().all(|d| d.message.len() < 2000));
    assert!(found.diagnostics.len() <= 100);
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn nested_and_huge_texts_are_refused_in_time() {
    let n = 1_000_000;
    for bracket in ["(", "{", "[", "<", "tensor<", "#lattice.packing<", "\"", "//"] {
        quickly(&bracket.repeat(n / bracket.len()), "expected");
        quickly(
            &SMALL.replace("tensor<?x4xi32>", &format!("tensor<{}>", bracket.repeat(n / bracket.len()))),
            "expected",
        );
    }
    quickly(&SMALL.replace("tensor<?x4xi32>", &format!("tensor<{}f32>", "?x".repeat(n))), "at most 16 axes");
    quickly(
        &SMALL.replacen("%x_coords", &format!("%{}", "x".repeat(n)), 1),
        "before it is used, found %x_coords",
    );
    quickly(&SMALL.replace("= 2 : i64", &format!("= {} : i64", "9".repeat(n))), "64 bits");
    quickly(
        &SMALL.replace("array<i64: 1, 1, 1>", &format!("array<i64: {}>", "1, ".repeat(n))),
        "expected `>`",
    );
    quickly(
        &SMALL.replace(
            "{storage_key",
            &format!("{{{}storage_key", (0..70).map(|i| format!("a{i} = 1, ")).collect::<String>()),
        ),
        "at most 64 attributes",
    );
    quickly(
        &SMALL
            .replace("linear %x_features", &format!("linear {}%x_features", "%x_features, ".repeat(70_000))),
        "at most 65536",
    );
    quickly(
        &SMALL
            .replace("linear %x_features", &format!("linear {}%x_features", "%x_features, ".repeat(60_000))),
        "found 60002",
    );
    quickly(&"x".repeat((64 << 20) + 1), "at most 67108864 bytes");
    quickly("\u{feff}module", "found");
    quickly("\0", "found");
}

#[test]
fn long_graphs_take_time_in_proportion() {
    let graph = |n: usize| {
        let mut body = make_x("tensor<?x1xf32>", [1; 3]);
        body += "    %c, %f0, %n = lattice.sparse.decompose %x : ST -> (tensor<?x4xi32>, tensor<?x1xf32>, tensor<1xi32>)\n";
        for i in 0..n {
            body += &format!(
                "    %f{} = lattice.elementwise %f{i} {{kind = \"round\"}} : (tensor<?x1xf32>) -> tensor<?x1xf32>\n",
                i + 1
            );
        }
        module(&sparse_x("tensor<?x1xf32>"), &body, &[["y", "tensor", &format!("%f{n}"), "tensor<?x1xf32>"]])
    };
    let start = Instant::now();
    let text = graph(50_000);
    let plan = verify(&parse(&text).unwrap()).unwrap();
    assert_eq!(plan.nodes.len(), 50_002);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    // Values are dropped after their last use, so a long graph needs no memory for all of them.
    let results = graphs::run(
        &graph(2_000),
        TensorFile::default(),
        &inputs_x(along_x(&[0, 5]), floats(&[2, 1], &[0.5, 1.5])),
    );
    assert_eq!(results.unwrap()["y"].to_f32().unwrap(), [0.0, 2.0]);
    // Every fault of a graph of faults would be a text of its own length.
    quickly(&text.replace("\"round\"", "\"sound\""), "\\\"exp\\\" or \\\"round\\\"");
}

#[test]
fn faults_past_those_that_are_listed_are_found_all_the_same() {
    let one = "tensor<?x1xf32>";
    let mut body = make_x(one, [1; 3]);
    for i in 0..300 {
        body += &format!("    %a{i} = lattice.softmax %x {{axis = 1}} : (ST) -> {one}\n");
        body += &format!("    %b{i} = lattice.linear %x_features : ({one}) -> ST\n");
        body += &format!("    %c{i} = lattice.pool3d %x : (ST) -> ST\n");
        body +=
            &format!("    %d{i}, %e{i} = lattice.sparse.with_features %x, %x_features : (ST, {one}) -> ST\n");
    }
    let text = module(&sparse_x(one), &body, &[["y", "sparse_tensor", "%x", "ST"]]);
    quickly(&text, "softmax");
    assert_eq!(status(&text).diagnostics.len(), 100);
    // What a message quotes cannot move a terminal's cursor.
    let found = parse(&SMALL.replacen("module", "\u{1b}[2Jmodule", 1)).unwrap_err().to_string();
    assert!(found.contains("\\u{1b}") && !found.contains('\u{1b}'), "{found}");
}

#[test]
fn cycles_and_values_from_nowhere_are_refused() {
    let swapped = SMALL
        .replace("%x = lattice.sparse.make %x_coords, %x_features", "%x = lattice.sparse.make %x_coords, %z");
    quickly(&swapped, "before it is used, found %z");
    quickly(&SMALL.replace("subm_conv3d %x", "subm_conv3d %y"), "before it is used, found %y");
    quickly(&SMALL.replace("%q = lattice.weight @q", "%x = lattice.weight @q"), "%x defined again");
    quickly(&SMALL.replace("return %y", "return %w"), "to be used as !lattice.weight<conv3d, f32>");
}

/// A weight file of a header and data.
fn raw(header: &str, data: usize) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; data]].concat()
}

#[test]
fn weight_files_that_lie_are_refused() {
    let refused = |bytes: Vec<u8>| {
        let start = Instant::now();
        let error = TensorFile::from_bytes(bytes).unwrap_err();
        assert!(error.contains("expected a complete .safetensors file, found"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(2));
    };
    let tensor = |name: &str, shape: &str, from: usize, to: usize| {
        format!("\"{name}\":{{\"dtype\":\"F32\",\"shape\":{shape},\"data_offsets\":[{from},{to}]}}")
    };
    assert!(TensorFile::from_bytes(raw(&format!("{{{}}}", tensor("a", "[2]", 0, 8)), 8)).is_ok());
    refused(raw(&format!("{{{},{}}}", tensor("a", "[4]", 0, 16), tensor("b", "[4]", 8, 24)), 24));
    refused(raw(&format!("{{{},{}}}", tensor("a", "[2]", 0, 8), tensor("b", "[2]", 16, 24)), 24));
    refused(raw(&format!("{{{}}}", tensor("a", "[4611686018427387904,4611686018427387904]", 0, 8)), 8));
    refused(raw(&format!("{{{}}}", tensor("a", "[3]", 0, 8)), 8));
    refused(raw(&format!("{{{}}}", tensor("a", "[2]", 8, 0)), 8));
    refused(raw(&format!("{{{}}}", tensor("a", "[2]", 0, 8)), 4));
    refused(raw(&format!("{{{}}}", tensor("a", "[2]", 0, 8)), 12));
    refused(raw("{\"a\":", 8));
    refused(raw(&"[".repeat(1 << 20), 8));
    refused(raw(&format!("{{\"a\":{}", "{\"a\":".repeat(1 << 18)), 8));
    refused(Vec::new());
    refused(vec![1, 2, 3]);
    refused([&u64::MAX.to_le_bytes()[..], &[0; 64]].concat());
    refused([&(1u64 << 31).to_le_bytes()[..], &[b' '; 64]].concat());
    let whole = file().bytes().to_vec();
    for end in (0..whole.len()).step_by(13) {
        refused(whole[..end].to_vec());
    }
}

#[test]
fn tensors_of_another_type_or_shape_are_refused_and_extra_ones_are_told() {
    let graph = parse(SMALL).unwrap();
    let with = |name: &str, array: Option<Array>| {
        let mut arrays = arrays();
        arrays.retain(|(known, _)| *known != name);
        arrays.extend(array.map(|array| ("w", array)));
        Artifact::new(graph.clone(), TensorFile::from_arrays(arrays.iter().map(|(n, a)| (*n, a))).unwrap())
    };
    let error = |result: Result<Artifact, ArtifactError>| result.unwrap_err().to_string();
    assert!(error(with("w", None)).contains("weight `w`: expected a tensor of this name"));
    assert!(
        error(with("w", Some(Array::from_i32(&[2, 3, 1, 1, 2], &[0; 12]).unwrap()))).contains("found i32")
    );
    assert!(error(with("w", Some(floats(&[2, 6], &[0.0; 12])))).contains("5 axes"));
    assert!(error(with("w", Some(floats(&[2, 3, 1, 1, 0], &[])))).contains("not empty"));
    assert!(error(with("q.scales", None)).contains("expected the tensor `q.scales`"));
    let mut arrays = arrays();
    arrays.push(("unused", floats(&[1], &[0.0])));
    let file = TensorFile::from_arrays(arrays.iter().map(|(n, a)| (*n, a))).unwrap();
    assert_eq!(Artifact::new(graph, file).unwrap().extra_tensors(), ["unused"]);
}

#[test]
fn folders_that_hold_no_artifact_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let load = |part: &str| {
        let error = Artifact::load(folder.path()).unwrap_err().to_string();
        assert!(error.contains(part), "expected `{part}` in {error}");
    };
    assert!(
        Artifact::load(&folder.path().join("none")).unwrap_err().to_string().contains("expected a folder")
    );
    load("graph.mlir: expected a graph, found");
    std::fs::write(folder.path().join("graph.mlir"), b"module \xff").unwrap();
    load("UTF-8");
    std::fs::write(folder.path().join("graph.mlir"), SMALL).unwrap();
    load("weights.safetensors: expected a .safetensors file, found");
    std::fs::create_dir(folder.path().join("weights.safetensors")).unwrap();
    load("found a folder");
    std::fs::remove_dir(folder.path().join("weights.safetensors")).unwrap();
    std::fs::write(folder.path().join("weights.safetensors"), &file().bytes()[..100]).unwrap();
    load("complete .safetensors file");
    std::fs::write(folder.path().join("weights.safetensors"), file().bytes()).unwrap();
    let artifact = Artifact::load(folder.path()).unwrap();
    // Over one that is there; and where a folder has the graph's name.
    artifact.save(folder.path()).unwrap();
    assert_eq!(Artifact::load(folder.path()).unwrap().graph(), artifact.graph());
    std::fs::remove_file(folder.path().join("graph.mlir")).unwrap();
    std::fs::create_dir(folder.path().join("graph.mlir")).unwrap();
    let error = artifact.save(folder.path()).unwrap_err().to_string();
    assert!(error.contains("graph.mlir: cannot be written"), "{error}");
}

#[test]
fn graphs_that_would_take_all_memory_are_refused_when_they_run() {
    let one = "tensor<?x1xf32>";
    let run = |op: &str, stride: [u32; 3], dims: [usize; 5]| {
        let text = module(
            &sparse_x(one),
            &(make_x(one, stride) + &weight("w", "conv3d") + op),
            &[["y", "sparse_tensor", "%y", "ST"]],
        );
        let values = vec![0.0; dims.iter().product()];
        let file = graphs::weights(&[("w", &floats(&dims, &values))]);
        let start = Instant::now();
        let n = 4096;
        let rows: Vec<i32> = (0..n).map(|x| x * 40).collect();
        let result = graphs::run(
            &text,
            file,
            &inputs_x(along_x(&rows), floats(&[n as usize, 1], &vec![0.0; n as usize])),
        );
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        result.unwrap_err().to_string()
    };
    let grown = "    %y = lattice.generative_conv_transpose3d %x, %w {kernel_size = array<i64: 40, 40, 40>, stride = array<i64: 1, 1, 1>, accumulation = \
        \"canonical_f32\"} : (ST, !lattice.weight<conv3d, f32>) -> ST";
    assert!(
        run(grown, [1; 3], [1, 40, 40, 40, 1])
            .contains("at most 134217728 rows to be reached, found 4096 input rows")
    );
    let smooth = "    %y = lattice.trilinear_upsample3d %x {stride = array<i64: 20, 20, 20>} : (ST) -> ST";
    assert!(run(smooth, [40, 20, 20], [1; 5]).contains("rows to be reached"));
    let huge =
        "    %y = lattice.trilinear_upsample3d %x {stride = array<i64: 2147483648, 1, 1>} : (ST) -> ST";
    let error = run(huge, [1; 3], [1; 5]);
    assert!(error.contains("trilinear_upsample3d"), "{error}");
    let far = "    %y = lattice.pool_transpose3d %x {kernel_size = array<i64: 2, 1, 1>, stride = array<i64: 40, 1, 1>, padding = array<i64: 0, 0, 0>, \
        dilation = array<i64: 2147483647, 1, 1>} : (ST) -> ST";
    let error = run(far, [40, 1, 1], [1; 5]);
    assert!(error.contains("pool_transpose3d") && error.contains("i32"), "{error}");
    let text = module(
        &sparse_x(one),
        &(make_x(one, [1; 3])
            + &format!(
                "    %g = lattice.global_pool %x {{mode = #lattice.pool_mode<sum>, batch_size = 9223372036854775807}} : (ST) -> {one}"
            )),
        &[["g", "tensor", "%g", one]],
    );
    let error = graphs::run(&text, TensorFile::default(), &inputs_x(along_x(&[0]), floats(&[1, 1], &[0.0])))
        .unwrap_err()
        .to_string();
    assert!(error.contains("at most 16777216 batch items"), "{error}");
}

#[test]
fn extreme_coordinates_and_values_are_told_or_kept() {
    let one = "tensor<?x1xf32>";
    let text = module(&sparse_x(one), &make_x(one, [2, 1, 1]), &[["y", "sparse_tensor", "%x", "ST"]]);
    let ends = [i32::MIN, i32::MAX - 1];
    let given = inputs_x(along_x(&ends), floats(&[2, 1], &[f32::NAN, f32::INFINITY]));
    let results = graphs::run(&text, TensorFile::default(), &given).unwrap();
    assert_eq!(results["y.coords"], along_x(&ends));
    // Logical rows of such size have no physical ones.
    let logical = ExecuteOptions::default().with_domain(lattice_artifact::CoordinateDomain::Logical);
    let error = graphs::run_with(&text, TensorFile::default(), &given, logical).unwrap_err().to_string();
    assert!(error.contains("output `y`") && error.contains("physical rows inside i32"), "{error}");
    let negative = Array::from_coords(&[[-1, 0, 0, 0]]);
    let error = graphs::run(&text, TensorFile::default(), &inputs_x(negative, floats(&[1, 1], &[0.0])))
        .unwrap_err()
        .to_string();
    assert!(error.contains("batch id"), "{error}");
    assert!(!ST.is_empty());
}
