//! All ten convolutions of the format against their definitions by loops, with weights in the file's layout, dense and packed.
#![allow(clippy::unwrap_used, reason = "tests")]

mod graphs;

use std::collections::BTreeMap;

use burn_lattice::{routes, trace};
use graphs::{inputs_x, make_x, module, sparse_x, weight};
use lattice_artifact::ir::Element;
use lattice_artifact::{Array, Artifact, ArtifactError, ExecuteOptions, Executor, Inputs, TensorFile, parse};
use lattice_testkit::convolution::{Channels, convolve, kernel_major, normalized};
use lattice_testkit::offsets::Kernel;
use lattice_testkit::relations::{self, Pairs};

const C_IN: usize = 3;
const C_OUT: usize = 2;

/// Numbers that look random.
fn wave(n: usize, phase: usize) -> Vec<f32> {
    (0..n).map(|i| (((i + phase) * 37 % 101) as f32 - 50.0) / 50.0).collect()
}

fn coords() -> Vec<[i32; 4]> {
    let mut rows: Vec<[i32; 4]> =
        (0..60).map(|i| [i % 2, i * 7 % 9 - 4, i * 5 % 7 - 3, i * 3 % 5 - 2]).collect();
    rows.sort_unstable();
    rows.dedup();
    rows
}

fn goal() -> Vec<[i32; 4]> {
    let mut rows: Vec<[i32; 4]> =
        (0..50).map(|i| [i % 2, i * 11 % 17 - 8, i * 5 % 13 - 6, i * 3 % 9 - 4]).collect();
    rows.sort_unstable();
    rows.dedup();
    rows
}

fn triple(values: [u32; 3]) -> String {
    format!("array<i64: {}, {}, {}>", values[0], values[1], values[2])
}

/// Pairs of the rows of an input, a target and a kernel.
type Definition = fn(&[[i32; 4]], &[[i32; 4]], &Kernel) -> Pairs;

/// One convolution: its operation, its kernel and the pairs of its definition, given logical rows of the input and the target.
struct Case {
    op: &'static str,
    kernel: Kernel,
    pairs: Definition,
}

fn cases() -> Vec<Case> {
    let case = |op, kernel, pairs| Case { op, kernel, pairs };
    let odd = Kernel::new([3, 1, 3], [1; 3], [0; 3], [2, 1, 1]);
    let strided = Kernel::new([3, 2, 1], [2, 2, 1], [0, 1, 0], [1, 2, 1]);
    let plain = Kernel::new([2, 3, 2], [2, 2, 1], [0; 3], [1; 3]);
    let subm = |x: &[[i32; 4]], _: &[[i32; 4]], k: &Kernel| relations::submanifold(x, k);
    let transposed = |x: &[[i32; 4]], _: &[[i32; 4]], k: &Kernel| relations::transposed(x, k);
    let onto: Definition = relations::target_transposed;
    let grown = |x: &[[i32; 4]], _: &[[i32; 4]], k: &Kernel| relations::generative(x, k.size, k.stride);
    vec![
        case("conv3d", strided, |x, _, k| relations::forward(x, k)),
        case("subm_conv3d", odd, subm),
        case("normalized_subm_conv3d", odd, subm),
        case("target_conv3d", strided, relations::target),
        case("conv_transpose3d", strided, transposed),
        case("target_conv_transpose3d", strided, onto),
        case("normalized_conv_transpose3d", strided, transposed),
        case("target_normalized_conv_transpose3d", strided, onto),
        case("generative_conv_transpose3d", plain, grown),
        case("normalized_generative_conv_transpose3d", plain, grown),
    ]
}

impl Case {
    fn transposes(&self) -> bool {
        self.op.contains("transpose")
    }

    fn targeted(&self) -> bool {
        self.op.starts_with("target")
    }

    /// Stride of the output where the input has stride 2, 2, 3.
    fn target_stride(&self) -> [u32; 3] {
        let ([a, b, c], s) = (INPUT_STRIDE, self.kernel.stride);
        match self.transposes() {
            true => [a / s[0], b / s[1], c / s[2]],
            false => [a * s[0], b * s[1], c * s[2]],
        }
    }

    fn text(&self, declared: &str) -> String {
        let Kernel { size, stride, padding, dilation } = self.kernel;
        let mut attributes = vec![format!("kernel_size = {}", triple(size))];
        let (subm, generative) = (self.op.contains("subm"), self.op.contains("generative"));
        if !subm {
            attributes.push(format!("stride = {}", triple(stride)));
        }
        if !subm && !generative {
            attributes.push(format!("padding = {}", triple(padding)));
        }
        if !generative {
            attributes.push(format!("dilation = {}", triple(dilation)));
        }
        if self.op.contains("normalized") {
            attributes.push("eps = 0.25 : f32".into());
        }
        attributes.push("accumulation = \"canonical_f32\"".into());
        let mut inputs = sparse_x("tensor<?x3xf32>");
        let mut body = make_x("tensor<?x3xf32>", INPUT_STRIDE);
        let (mut operands, mut types) = ("%x".to_owned(), "ST".to_owned());
        if self.targeted() {
            inputs.extend([
                ["t_coords", "sparse_coords", "tensor<?x4xi32>"],
                ["t_features", "sparse_features", "tensor<?x1xf32>"],
                ["t_active", "sparse_active", "tensor<1xi32>"],
            ]);
            body += &format!(
                "    %t = lattice.sparse.make %t_coords, %t_features, %t_active {{stride = {}, coord_order = #lattice.coord<batch_x_y_z>}} : \
                 (tensor<?x4xi32>, tensor<?x1xf32>, tensor<1xi32>) -> ST\n",
                triple(self.target_stride())
            );
            operands += ", %t";
            types += ", ST";
        }
        body += declared;
        body += &weight("b", "bias");
        body += &format!(
            "    %y = lattice.{} {operands}, %w, %b {{{}}} : ({types}, !lattice.weight<conv3d, f32>, !lattice.weight<bias, f32>) -> ST",
            self.op,
            attributes.join(", ")
        );
        module(&inputs, &body, &[["y", "sparse_tensor", "%y", "ST"]])
    }

    fn inputs(&self) -> Inputs {
        let inputs = inputs_x(
            Array::from_coords(&scaled(&coords(), INPUT_STRIDE)),
            graphs::floats(&[coords().len(), C_IN], &wave(coords().len() * C_IN, 3)),
        );
        if !self.targeted() {
            return inputs;
        }
        let rows = scaled(&goal(), self.target_stride());
        inputs
            .array("t_coords", Array::from_coords(&rows))
            .array("t_features", graphs::floats(&[rows.len(), 1], &vec![0.0; rows.len()]))
            .array("t_active", Array::from_i32(&[1], &[rows.len() as i32]).unwrap())
    }

    fn dims(&self) -> [usize; 5] {
        let [x, y, z] = self.kernel.size.map(|k| k as usize);
        [C_OUT, x, y, z, C_IN]
    }

    /// Physical rows with their values, by the definition, for a weight in the file's layout.
    fn expected(&self, dense: &[f32]) -> BTreeMap<[i32; 4], Vec<f64>> {
        let wide = |values: &[f32]| values.iter().map(|&v| f64::from(v)).collect::<Vec<f64>>();
        let size = self.kernel.size.map(|k| k as usize);
        let w = kernel_major(&wide(dense), C_OUT, size, C_IN);
        let pairs = (self.pairs)(&coords(), &goal(), &self.kernel);
        let (x, bias) = (wide(&wave(coords().len() * C_IN, 3)), wide(&BIAS));
        let (n, channels) = (pairs.n_out(), Channels::new(C_IN, C_OUT));
        let y = match self.op.contains("normalized") {
            true => normalized(&x, &w, Some(&bias), 0.25, &pairs.edges, n, channels),
            false => convolve(&x, &w, Some(&bias), &pairs.edges, n, channels),
        };
        let stride = if self.op.contains("subm") { INPUT_STRIDE } else { self.target_stride() };
        scaled(&pairs.target, stride).into_iter().zip(y.chunks(C_OUT).map(<[f64]>::to_vec)).collect()
    }

    fn check(&self, declared: &str, file: TensorFile, dense: &[f32]) {
        let results = graphs::run(&self.text(declared), file, &self.inputs())
            .unwrap_or_else(|e| panic!("{}: {e}", self.op));
        let expected = self.expected(dense);
        let rows = results["y.coords"].to_coords().unwrap();
        let values = results["y.features"].to_f32().unwrap();
        assert_eq!(rows.len(), expected.len(), "{}", self.op);
        assert_eq!(results["y.active"].to_i32().unwrap(), [rows.len() as i32]);
        for (row, found) in rows.iter().zip(values.chunks(C_OUT)) {
            let expected = expected.get(row).unwrap_or_else(|| panic!("{}: {row:?}", self.op));
            for (f, e) in found.iter().zip(expected) {
                assert!((f64::from(*f) - e).abs() < 1e-4, "{} at {row:?}: {found:?} {expected:?}", self.op);
            }
        }
    }
}

const INPUT_STRIDE: [u32; 3] = [2, 2, 3];
const BIAS: [f32; 2] = [0.5, -0.25];

fn scaled(rows: &[[i32; 4]], stride: [u32; 3]) -> Vec<[i32; 4]> {
    rows.iter()
        .map(|&[b, x, y, z]| [b, x * stride[0] as i32, y * stride[1] as i32, z * stride[2] as i32])
        .collect()
}

#[test]
fn dense_weights_in_the_layout_of_files() {
    for case in cases() {
        let dims = case.dims();
        let dense = wave(dims.iter().product(), 11);
        let file =
            graphs::weights(&[("w", &graphs::floats(&dims, &dense)), ("b", &graphs::floats(&[2], &BIAS))]);
        case.check(&weight("w", "conv3d"), file, &dense);
    }
}

/// Codes, scales and biases of a packed weight `[c_out, kx, ky, kz, c_in]`, and the values that they mean.
fn packed(dims: [usize; 5], bits: u32) -> ([Array; 3], Vec<f32>) {
    let [c_out, kx, ky, kz, c_in] = dims;
    let (taps, channels, group) = (kx * ky * kz, 32, 32);
    let (words, groups) = (channels * bits as usize / 32, channels / group);
    let code = |tap: usize, o: usize, c: usize| ((tap * 31 + o * 17 + c * 7 + 3) % (1 << bits)) as u32;
    let scale = |tap: usize, o: usize| 0.01 + 0.002 * ((tap + 3 * o) % 5) as f32;
    let bias = |tap: usize, o: usize| -0.05 * ((tap * 2 + o) % 7) as f32;
    // Words and groups of a kernel of more taps have the output channel fastest.
    let place = |tap: usize, o: usize, i: usize, inner: usize| match taps {
        1 => o * inner + i,
        _ => (tap * inner + i) * c_out + o,
    };
    let mut packed = vec![0u32; taps * words * c_out];
    let (mut scales, mut biases) = (vec![0.0; taps * groups * c_out], vec![0.0; taps * groups * c_out]);
    let mut dense = vec![0.0; c_out * taps * c_in];
    for tap in 0..taps {
        for o in 0..c_out {
            for c in 0..channels {
                let bit = c * bits as usize;
                packed[place(tap, o, bit / 32, words)] |= code(tap, o, c) << (bit % 32);
                if c < c_in {
                    dense[(o * taps + tap) * c_in + c] =
                        scale(tap, o) * code(tap, o, c) as f32 + bias(tap, o);
                }
            }
            scales[place(tap, o, 0, groups)] = scale(tap, o);
            biases[place(tap, o, 0, groups)] = bias(tap, o);
        }
    }
    let shape = |inner: usize| match taps {
        1 => vec![1, c_out, inner],
        _ => vec![taps, inner, c_out],
    };
    let bytes = packed.iter().flat_map(|w| w.to_le_bytes()).collect();
    let words = Array::try_new(Element::U32, shape(words), bytes).unwrap();
    let [scales, biases] = [scales, biases].map(|v| Array::from_f32(&shape(groups), &v).unwrap());
    ([words, scales, biases], dense)
}

fn declared(bits: u32) -> String {
    format!(
        "    %w = lattice.weight @w {{storage_key = \"w\", layout = #lattice.weight_layout<conv3d_o_xyz_i>, packing = \
         #lattice.packing<int{bits}, group_size = 32, scale_dtype = f32, mode = affine>}} : !lattice.weight<conv3d, f32>\n"
    )
}

fn packed_file(parts: &[Array; 3]) -> TensorFile {
    let bias = graphs::floats(&[2], &BIAS);
    graphs::weights(&[
        ("w.weight", &parts[0]),
        ("w.scales", &parts[1]),
        ("w.biases", &parts[2]),
        ("b", &bias),
    ])
}

#[test]
fn packed_weights_in_the_layout_of_files() {
    let mut all = cases();
    all.push(Case {
        op: "conv3d",
        kernel: Kernel::new([1; 3], [1; 3], [0; 3], [1; 3]),
        pairs: |x, _, k| relations::forward(x, k),
    });
    for bits in [4, 8] {
        for case in &all {
            let (parts, dense) = packed(case.dims(), bits);
            let text = case.text(&declared(bits));
            if case.op.contains("normalized") {
                // Its sums need the floats' squares.
                let error = graphs::run(&text, packed_file(&parts), &case.inputs()).unwrap_err().to_string();
                assert!(error.contains("expected a dense weight, found a packed one"), "{error}");
                continue;
            }
            case.check(&declared(bits), packed_file(&parts), &dense);
        }
    }
}

#[test]
fn packed_weights_run_packed() {
    let case = &cases()[0];
    let (parts, _) = packed(case.dims(), 4);
    let artifact = Artifact::new(parse(&case.text(&declared(4))).unwrap(), packed_file(&parts)).unwrap();
    let artifact = std::sync::Arc::new(artifact);
    let executor = Executor::new(artifact.clone(), &graphs::devices::chosen(), ExecuteOptions::default());
    let (outputs, records) = trace::record(|| executor.run(&case.inputs()).unwrap());
    drop(outputs);
    let ran = records.iter().find(|record| record.kind.starts_with("conv")).unwrap().route;
    assert!(routes::PACKED_ROUTES.iter().any(|route| route.name == ran), "{ran}");
    let nodes = lattice_artifact::describe(&artifact, executor.device());
    assert!(nodes.iter().any(|node| node.route == ran), "{ran}");
}

#[test]
fn packed_weights_that_do_not_fit_are_refused() {
    let case = &cases()[0];
    let (parts, _) = packed(case.dims(), 4);
    let text = case.text(&declared(4));
    let refused = |parts: &[Array; 3], message: &[&str]| {
        let error = graphs::run(&text, packed_file(parts), &case.inputs()).unwrap_err();
        assert!(matches!(error, ArtifactError::Weight { .. }), "{error:?}");
        let error = error.to_string();
        for part in message.iter().chain(&["weight `w`"]) {
            assert!(error.contains(part), "expected `{part}` in {error}");
        }
    };
    let [words, scales, biases] = parts;
    let f32s = |dims: &[usize]| graphs::floats(dims, &vec![0.0; dims.iter().product()]);
    let u32s = |dims: &[usize]| {
        Array::try_new(Element::U32, dims.to_vec(), vec![0; 4 * dims.iter().product::<usize>()]).unwrap()
    };
    refused(&[f32s(&[6, 4, 2]), scales.clone(), biases.clone()], &["`w.weight` of ui32", "found f32"]);
    refused(&[u32s(&[6, 8]), scales.clone(), biases.clone()], &["three axes", "[6, 8]"]);
    refused(&[u32s(&[0, 4, 2]), scales.clone(), biases.clone()], &["not empty", "[0, 4, 2]"]);
    refused(&[u32s(&[27, 4, 2]), f32s(&[27, 1, 2]), f32s(&[27, 1, 2])], &["6 taps", "27"]);
    refused(
        &[words.clone(), f32s(&[6, 2, 1]), f32s(&[6, 2, 1])],
        &["scales of shape [6, 1, 2]", "[6, 2, 1]"],
    );
    refused(&[words.clone(), scales.clone(), f32s(&[6, 2, 1])], &["biases of shape [6, 1, 2]", "[6, 2, 1]"]);
    // Channels that are missing; a test of weights has those that are too many, which are padding.
    let wide = text.replace("group_size = 32", "group_size = 64");
    let error =
        graphs::run(&wide, packed_file(&[words.clone(), scales.clone(), biases.clone()]), &case.inputs());
    let error = error.unwrap_err().to_string();
    assert!(error.contains("scales of shape [6, 0, 2] for 32 storage channels in groups of 64"), "{error}");
    let half = Array::try_new(Element::F16, vec![6, 1, 2], vec![0; 24]).unwrap();
    refused(&[words.clone(), half.clone(), half], &["`w.scales` of f32", "found f16"]);
    let missing = graphs::weights(&[("w.weight", &words), ("w.scales", &scales), ("b", &f32s(&[2]))]);
    let error = graphs::run(&text, missing, &case.inputs()).unwrap_err().to_string();
    assert!(error.contains("expected the tensor `w.biases`"), "{error}");
    let odd = text.replace("group_size = 32", "group_size = 48");
    let file = packed_file(&[words, scales, biases]);
    let error = graphs::run(&odd, file, &case.inputs()).unwrap_err().to_string();
    assert!(error.contains("group_size of 32, 64 or 128, found 48"), "{error}");
}

#[test]
fn dense_weights_that_do_not_fit_are_refused() {
    let case = &cases()[0];
    let text = case.text(&weight("w", "conv3d"));
    let refused = |w: Option<Array>, b: Array, message: &[&str]| {
        let mut arrays = vec![("b", &b)];
        arrays.extend(w.iter().map(|w| ("w", w)));
        let error = graphs::run(&text, graphs::weights(&arrays), &case.inputs()).unwrap_err().to_string();
        for part in message {
            assert!(error.contains(part), "expected `{part}` in {error}");
        }
    };
    let zeros = |dims: &[usize]| graphs::floats(dims, &vec![0.0; dims.iter().product()]);
    refused(None, zeros(&[2]), &["weight `w`", "found none"]);
    refused(Some(zeros(&[2, 1, 2, 3, 3])), zeros(&[2]), &["[c_out, 3, 2, 1, c_in]", "found [2, 1, 2, 3, 3]"]);
    refused(Some(zeros(&[6, 3, 2])), zeros(&[2]), &["5 axes", "conv3d_o_xyz_i", "[6, 3, 2]"]);
    refused(Some(zeros(&[2, 3, 2, 1, 4])), zeros(&[2]), &["3 input channels", "[2, 3, 2, 1, 4]"]);
    refused(Some(zeros(&[2, 3, 2, 1, 3])), zeros(&[5]), &["lattice.conv3d", "2 channels", "[5]"]);
    let integers = Array::from_i32(&[2, 3, 2, 1, 3], &[0; 36]).unwrap();
    refused(Some(integers), zeros(&[2]), &["floats with 5 axes", "found i32"]);
}
