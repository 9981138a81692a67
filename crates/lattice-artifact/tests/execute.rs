//! Graphs that run: the worked examples of the format, and every operation but convolutions on the worked examples of its page.
#![allow(clippy::unwrap_used, reason = "tests")]

mod graphs;

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor, TensorData};
use burn_lattice::{SparseTensor, Support, trace};
use graphs::{
    along_x, by_x, floats, inputs_x, line, make_x, module, run, run_with, sparse_x, weight, weights,
};
use lattice_artifact::ir::Element;
use lattice_artifact::{
    Array, Artifact, CoordinateDomain, ExecuteOptions, Executor, Inputs, OutputValue, TensorFile, parse,
};

const ONE: &str = "tensor<?x1xf32>";

fn sparse_y(text: &str) -> String {
    module(&sparse_x(ONE), text, &[["y", "sparse_tensor", "%y", "ST"]])
}

fn conv(op: &str, size: u32, attributes: &str) -> String {
    format!(
        "    %y = lattice.{op} %x, %w {{kernel_size = array<i64: {size}, 1, 1>, {attributes}accumulation = \"canonical_f32\"}} : (ST, \
         !lattice.weight<conv3d, f32>) -> ST"
    )
}

#[test]
fn example_1_a_minimal_graph() {
    let text = sparse_y(
        &(make_x(ONE, [1; 3])
            + &weight("w", "conv3d")
            + &conv("subm_conv3d", 3, "dilation = array<i64: 1, 1, 1>, ")),
    );
    let file = weights(&[("w", &floats(&[1, 3, 1, 1, 1], &[1.0, 10.0, 100.0]))]);
    let results =
        run(&text, file, &inputs_x(along_x(&[0, 1, 3]), floats(&[3, 1], &[1.0, 3.0, 5.0]))).unwrap();
    assert_eq!(line(&results, "y"), [(0, 310.0), (1, 31.0), (3, 50.0)]);
    assert_eq!(results["y.active"].to_i32().unwrap(), [3]);
}

/// A generative convolution by 2 of a tensor at stride 2.
fn generative() -> (String, TensorFile) {
    let text = sparse_y(
        &(make_x(ONE, [2, 1, 1])
            + &weight("w", "conv3d")
            + &conv("generative_conv_transpose3d", 2, "stride = array<i64: 2, 1, 1>, ")),
    );
    (text, weights(&[("w", &floats(&[1, 2, 1, 1, 1], &[1.0, 10.0]))]))
}

#[test]
fn example_2_physical_rows_at_a_stride() {
    let (text, file) = generative();
    let features = || floats(&[2, 1], &[1.0, 2.0]);
    let expected = [(-2, 1.0), (-1, 10.0), (4, 2.0), (5, 20.0)];
    let results = run(&text, file.clone(), &inputs_x(along_x(&[-2, 4]), features())).unwrap();
    assert_eq!(line(&results, "y"), expected);

    let off = inputs_x(along_x(&[-2, 3]), features());
    let error = run(&text, file.clone(), &off).unwrap_err().to_string();
    for part in ["sparse.make", "row 1", "x = 3", "not divisible by stride 2"] {
        assert!(error.contains(part), "{error}");
    }
    // The same rows given as logical ones.
    let logical = ExecuteOptions::default().with_domain(CoordinateDomain::Logical);
    let results = run_with(&text, file.clone(), &inputs_x(along_x(&[-1, 2]), features()), logical).unwrap();
    assert_eq!(line(&results, "y"), expected);
    let trusted = ExecuteOptions::default().with_domain(CoordinateDomain::Trusted);
    let results = run_with(&text, file, &inputs_x(along_x(&[-2, 4]), features()), trusted).unwrap();
    assert_eq!(line(&results, "y"), expected);
}

#[test]
fn rows_past_the_active_ones_are_not_looked_at() {
    let (text, file) = generative();
    // Row 2 is not divisible and row 3 repeats row 0.
    let inputs = Inputs::new()
        .array("x_coords", along_x(&[-2, 4, 7, -2]))
        .array("x_features", floats(&[4, 1], &[1.0, 2.0, f32::NAN, 9.0]))
        .array("x_active", Array::from_i32(&[1], &[2]).unwrap());
    let results = run(&text, file.clone(), &inputs).unwrap();
    assert_eq!(line(&results, "y"), [(-2, 1.0), (-1, 10.0), (4, 2.0), (5, 20.0)]);
    for count in [-1, 5] {
        let inputs = inputs.clone().array("x_active", Array::from_i32(&[1], &[count]).unwrap());
        let error = run(&text, file.clone(), &inputs).unwrap_err().to_string();
        assert!(error.contains("active rows of 0 to 4") && error.contains(&count.to_string()), "{error}");
    }
    let twice = inputs.array("x_active", Array::from_i32(&[1], &[4]).unwrap());
    let twice = twice.array("x_coords", along_x(&[-2, 4, 6, -2]));
    let error = run(&text, file, &twice).unwrap_err().to_string();
    assert!(error.contains("repeats coordinate [0, -1, 0, 0]"), "{error}");
}

#[test]
fn example_3_a_strided_convolution_returns_physical_rows() {
    let text = sparse_y(
        &(make_x(ONE, [1; 3])
            + &weight("w", "conv3d")
            + &conv(
                "conv3d",
                2,
                "stride = array<i64: 2, 1, 1>, padding = array<i64: 0, 0, 0>, dilation = array<i64: 1, 1, 1>, ",
            )),
    );
    let file = weights(&[("w", &floats(&[1, 2, 1, 1, 1], &[1.0, 10.0]))]);
    let results =
        run(&text, file, &inputs_x(along_x(&[0, 1, 5]), floats(&[3, 1], &[1.0, 2.0, 3.0]))).unwrap();
    assert_eq!(line(&results, "y"), [(0, 21.0), (4, 30.0)]);
}

fn tensor(xs: &[i32], values: &[f32], stride: [u32; 3]) -> SparseTensor {
    let device = Device::flex();
    let support = Support::try_new(xs.iter().map(|&x| [0, x, 0, 0]).collect()).unwrap();
    let feats = Tensor::from_data(TensorData::new(values.to_vec(), [xs.len(), 1]), &device);
    SparseTensor::from_support(support, feats).unwrap().with_stride(stride).unwrap()
}

#[test]
fn a_sparse_tensor_stands_in_for_its_three_parts() {
    let (text, file) = generative();
    let artifact = Artifact::new(parse(&text).unwrap(), file).unwrap();
    let executor = Executor::new(artifact, &Device::flex(), ExecuteOptions::default());
    let x = tensor(&[-1, 2], &[1.0, 2.0], [2, 1, 1]);
    let run = |inputs: &Inputs| {
        executor.run(inputs).map(|outputs| outputs.to_arrays().unwrap().into_iter().collect())
    };
    let results: BTreeMap<String, Array> = run(&Inputs::new().sparse("x", x.clone())).unwrap();
    assert_eq!(line(&results, "y"), [(-2, 1.0), (-1, 10.0), (4, 2.0), (5, 20.0)]);
    // Its relations are found again in the second call.
    let relations = x.manager().relation_count();
    assert_eq!(relations, 1);
    run(&Inputs::new().sparse("x", x.clone())).unwrap();
    assert_eq!(x.manager().relation_count(), relations);

    let error = |inputs: Inputs, part: &str| {
        let error = run(&inputs).unwrap_err().to_string();
        assert!(error.contains(part), "expected `{part}` in {error}");
    };
    error(
        Inputs::new().sparse("x", tensor(&[0], &[1.0], [1; 3])),
        "expected a sparse tensor of stride [2, 1, 1], which the graph declares, found [1, 1, 1]",
    );
    error(
        Inputs::new().sparse("x", x.clone()).array("x_active", Array::from_i32(&[1], &[2]).unwrap()),
        "beside `x_active`",
    );
    error(
        Inputs::new().sparse("z", x.clone()),
        "input `z`: expected one of x_coords, x_features, x_active, x",
    );
    error(Inputs::new().sparse("x_coords", x), "found a sparse tensor");
    error(Inputs::new(), "input `x_coords`: expected tensor<?x4xi32>, found no input");
    let parts = || inputs_x(along_x(&[0]), floats(&[1, 1], &[1.0]));
    error(
        parts().array("x_coords", floats(&[1, 4], &[0.0; 4])),
        "input `x_coords`: expected tensor<?x4xi32>, found f32 values",
    );
    error(
        parts().array("x_coords", Array::from_i32(&[1, 3], &[0; 3]).unwrap()),
        "expected tensor<?x4xi32>, found shape [1, 3]",
    );
    error(
        parts().array("x_features", floats(&[1, 2], &[0.0; 2])),
        "expected tensor<?x1xf32>, found shape [1, 2]",
    );
    error(
        parts().array("x_features", floats(&[2, 1], &[0.0; 2])),
        "expected 1 feature rows, one a coordinate, found 2",
    );
    let half = Array::from_floats(Element::F16, &[1, 1], &[1.0]).unwrap();
    error(parts().array("x_features", half), "expected tensor<?x1xf32>, found f16 values");
    error(parts().array("y", floats(&[1], &[1.0])), "input `y`: expected one of");
}

/// Operations on the sparse tensor `%x`, and their sparse result `%y`.
fn on_x(body: &str, stride: [u32; 3], xs: &[i32], values: &[f32]) -> Vec<(i32, f32)> {
    let text = sparse_y(&(make_x(ONE, stride) + body));
    let results = run(&text, TensorFile::default(), &inputs_x(along_x(xs), floats(&[xs.len(), 1], values)));
    line(&results.unwrap_or_else(|e| panic!("{e} in {text}")), "y")
}

const WINDOW: &str = "kernel_size = array<i64: K, 1, 1>, stride = array<i64: 2, 1, 1>, padding = array<i64: P, 0, 0>, dilation = array<i64: 1, 1, 1>";

fn window(k: u32, p: u32) -> String {
    WINDOW.replace('K', &k.to_string()).replace('P', &p.to_string())
}

#[test]
fn pooling_follows_its_worked_examples() {
    let pool = |mode: &str, k: u32| {
        let body = format!(
            "    %y = lattice.pool3d %x {{mode = #lattice.pool_mode<{mode}>, {}}} : (ST) -> ST",
            window(k, 0)
        );
        on_x(&body, [1; 3], &[-3, -1, 0, 1, 4], &[1.0, 4.0, 2.0, 2.0, 7.0])
    };
    let near = |found: Vec<(i32, f32)>, expected: &[f32]| {
        // Logical rows -2, -1, 0 and 2, physical ones twice as far.
        assert_eq!(found.iter().map(|(x, _)| *x).collect::<Vec<_>>(), [-4, -2, 0, 4]);
        for ((_, f), e) in found.iter().zip(expected) {
            assert!((f - e).abs() < 1e-6, "{found:?} {expected:?}");
        }
    };
    near(pool("sum", 2), &[1.0, 4.0, 4.0, 7.0]);
    near(pool("avg", 2), &[1.0, 4.0, 2.0, 7.0]);
    near(pool("max", 2), &[1.0, 4.0, 2.0, 7.0]);
    near(pool("sum", 3), &[1.0, 5.0, 8.0, 7.0]);
    near(pool("avg", 3), &[1.0, 2.5, 2.666_666_7, 7.0]);
    near(pool("max", 3), &[1.0, 4.0, 4.0, 7.0]);
}

/// A coarse tensor `%x` at stride 2 and a target `%t` at stride 1 on these rows.
fn onto(op: &str, target: &[i32]) -> Vec<(i32, f32)> {
    let mut inputs = sparse_x(ONE);
    inputs.extend([
        ["t_coords", "sparse_coords", "tensor<?x4xi32>"],
        ["t_features", "sparse_features", ONE],
        ["t_active", "sparse_active", "tensor<1xi32>"],
    ]);
    let t = make_x(ONE, [1; 3]).replace("%x", "%t");
    let text = module(&inputs, &(make_x(ONE, [2, 1, 1]) + &t + op), &[["y", "sparse_tensor", "%y", "ST"]]);
    let n = target.len();
    let given = inputs_x(along_x(&[-2, 0, 4]), floats(&[3, 1], &[10.0, 20.0, 40.0]))
        .array("t_coords", along_x(target))
        .array("t_features", floats(&[n, 1], &vec![0.0; n]))
        .array("t_active", Array::from_i32(&[1], &[n as i32]).unwrap());
    line(&run(&text, TensorFile::default(), &given).unwrap(), "y")
}

#[test]
fn upsampling_follows_its_worked_examples() {
    let pool = format!("    %y = lattice.pool_transpose3d %x, %t {{{}}} : (ST, ST) -> ST", window(3, 1));
    assert_eq!(onto(&pool, &[-3, -1, 0, 3, 8]), [(-3, 10.0), (-1, 15.0), (0, 20.0), (3, 40.0), (8, 0.0)]);
    let linear =
        "    %y = lattice.trilinear_upsample3d %x, %t {stride = array<i64: 2, 1, 1>} : (ST, ST) -> ST";
    let expected = [(-3, 10.0), (-2, 10.0), (-1, 15.0), (0, 20.0), (1, 20.0), (3, 40.0), (6, 0.0)];
    assert_eq!(onto(linear, &[-3, -2, -1, 0, 1, 3, 6]), expected);
    // Without a target: every row that the kernel reaches.
    let free = "    %y = lattice.trilinear_upsample3d %x {stride = array<i64: 2, 1, 1>} : (ST) -> ST";
    let found = on_x(free, [2, 1, 1], &[-2, 0, 4], &[10.0, 20.0, 40.0]);
    assert_eq!(found.iter().map(|(x, _)| *x).collect::<Vec<_>>(), [-3, -2, -1, 0, 1, 3, 4, 5]);
    let free = format!("    %y = lattice.pool_transpose3d %x {{{}}} : (ST) -> ST", window(2, 0));
    let expected = [(-2, 10.0), (-1, 10.0), (0, 20.0), (1, 20.0), (4, 40.0), (5, 40.0)];
    assert_eq!(on_x(&free, [2, 1, 1], &[-2, 0, 4], &[10.0, 20.0, 40.0]), expected);
}

#[test]
fn global_pooling_follows_its_worked_example() {
    let run = |mode: &str, size: i64| {
        let body = make_x(ONE, [1; 3])
            + &format!(
                "    %g = lattice.global_pool %x {{mode = #lattice.pool_mode<{mode}>, batch_size = {size}}} : (ST) -> {ONE}"
            );
        let text = module(&sparse_x(ONE), &body, &[["g", "tensor", "%g", ONE]]);
        let coords = Array::from_coords(&[[0, 0, 0, 0], [0, 1, 0, 0], [2, 0, 0, 0]]);
        graphs::run(&text, TensorFile::default(), &inputs_x(coords, floats(&[3, 1], &[1.0, 3.0, 5.0])))
            .map(|results| results["g"].to_f32().unwrap())
    };
    assert_eq!(run("sum", 4).unwrap(), [4.0, 0.0, 5.0, 0.0]);
    assert_eq!(run("avg", 4).unwrap(), [2.0, 0.0, 5.0, 0.0]);
    assert_eq!(run("avg", -1).unwrap(), [2.0, 0.0, 5.0]);
    assert!(run("max", 4).unwrap_err().to_string().contains("expected rows in every batch item"));
    assert!(run("sum", 2).unwrap_err().to_string().contains("batch id below the batch size 2"));
}

/// Two tensors of one channel, joined: `%x` on 0, 1, 2 and `%t` on 2, 0, 5.
fn joined(op: &str) -> Vec<(i32, Vec<f32>)> {
    let mut inputs = sparse_x(ONE);
    inputs.extend([
        ["t_coords", "sparse_coords", "tensor<?x4xi32>"],
        ["t_features", "sparse_features", ONE],
        ["t_active", "sparse_active", "tensor<1xi32>"],
    ]);
    let body = make_x(ONE, [1; 3]) + &make_x(ONE, [1; 3]).replace("%x", "%t") + op;
    let text = module(&inputs, &body, &[["y", "sparse_tensor", "%y", "ST"]]);
    let given = inputs_x(along_x(&[0, 1, 2]), floats(&[3, 1], &[1.0, 2.0, 3.0]))
        .array("t_coords", along_x(&[2, 0, 5]))
        .array("t_features", floats(&[3, 1], &[10.0, 20.0, 30.0]))
        .array("t_active", Array::from_i32(&[1], &[3]).unwrap());
    by_x(&run(&text, TensorFile::default(), &given).unwrap(), "y")
}

#[test]
fn algebra_follows_its_worked_examples() {
    let binary = |op: &str, join: &str, fills: [f32; 2]| {
        let text = format!(
            "    %y = lattice.sparse.binary %x, %t {{op = #lattice.binary_op<{op}>, join = #lattice.join<{join}>, lhs_fill = {:.1} : f32, rhs_fill = \
             {:.1} : f32}} : (ST, ST) -> ST",
            fills[0], fills[1]
        );
        joined(&text).into_iter().map(|(x, v)| (x, v[0])).collect::<Vec<_>>()
    };
    assert_eq!(binary("add", "inner", [0.0; 2]), [(0, 21.0), (2, 13.0)]);
    assert_eq!(binary("add", "left", [0.0; 2]), [(0, 21.0), (1, 2.0), (2, 13.0)]);
    assert_eq!(binary("add", "right", [0.0; 2]), [(0, 21.0), (2, 13.0), (5, 30.0)]);
    assert_eq!(binary("add", "outer", [0.0; 2]), [(0, 21.0), (1, 2.0), (2, 13.0), (5, 30.0)]);
    assert_eq!(binary("sub", "outer", [0.0; 2]), [(0, -19.0), (1, 2.0), (2, -7.0), (5, -30.0)]);
    assert_eq!(binary("mul", "inner", [0.0; 2]), [(0, 20.0), (2, 30.0)]);
    assert_eq!(binary("mul", "outer", [0.0, 1.0]), [(0, 20.0), (1, 2.0), (2, 30.0), (5, 0.0)]);
    assert_eq!(binary("maximum", "outer", [40.0, 0.0]), [(0, 20.0), (1, 2.0), (2, 10.0), (5, 40.0)]);
    assert_eq!(binary("minimum", "inner", [0.0; 2]), [(0, 1.0), (2, 3.0)]);
    let cat = |join: &str| {
        joined(&format!(
            "    %y = lattice.sparse.cat %x, %t {{join = #lattice.join<{join}>}} : (ST, ST) -> ST"
        ))
    };
    assert_eq!(cat("inner"), [(0, vec![1.0, 20.0]), (2, vec![3.0, 10.0])]);
    let outer = [(0, vec![1.0, 20.0]), (1, vec![2.0, 0.0]), (2, vec![3.0, 10.0]), (5, vec![0.0, 30.0])];
    assert_eq!(cat("outer"), outer);
    let reindex = joined("    %y = lattice.sparse.reindex %x, %t {fill = -1.0 : f32} : (ST, ST) -> ST");
    assert_eq!(reindex, [(0, vec![1.0]), (2, vec![3.0]), (5, vec![-1.0])]);
}

/// Operations on dense rows `%f` of `c` channels, and their dense result `%y`.
fn dense(body: &str, file: TensorFile, rows: &[&[f32]], c_out: usize) -> Vec<f32> {
    let c = rows[0].len();
    let (ty, out) = (format!("tensor<?x{c}xf32>"), format!("tensor<?x{c_out}xf32>"));
    let text = module(
        &[["f", "tensor", &ty]],
        &body.replace("IN", &ty).replace("OUT", &out),
        &[["y", "tensor", "%y", &out]],
    );
    let values = rows.concat();
    let results = run(&text, file, &Inputs::new().array("f", floats(&[rows.len(), c], &values)));
    let results = results.unwrap_or_else(|e| panic!("{e} in {text}"));
    assert_eq!(results["y"].dims(), [rows.len(), c_out]);
    results["y"].to_f32().unwrap()
}

#[track_caller]
fn near(found: &[f32], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (f, e) in found.iter().zip(expected) {
        assert!((f64::from(*f) - e).abs() < 1e-5 * e.abs().max(1.0), "{found:?} {expected:?}");
    }
}

#[test]
fn linear_and_elementwise_operations_compute_their_formulas() {
    let body = weight("w", "linear")
        + &weight("b", "bias")
        + "    %y = lattice.linear %f, %w, %b : (IN, !lattice.weight<linear, f32>, !lattice.weight<bias, f32>) -> OUT";
    let file = weights(&[
        ("w", &floats(&[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])),
        ("b", &floats(&[3], &[0.5, 0.0, -1.0])),
    ]);
    near(&dense(&body, file, &[&[1.0, 10.0], &[-1.0, 2.0]], 3), &[21.5, 43.0, 64.0, 3.5, 5.0, 6.0]);

    let op = |kind: &str| format!("    %y = lattice.elementwise %f {{kind = \"{kind}\"}} : (IN) -> OUT");
    let halves: &[f32] = &[0.5, 1.5, 2.5, -0.5, -1.5, 0.2];
    near(&dense(&op("round"), TensorFile::default(), &[halves], 6), &[0.0, 2.0, 2.0, 0.0, -2.0, 0.0]);
    near(
        &dense(&op("exp"), TensorFile::default(), &[&[0.0, 1.0, -2.0]], 3),
        &[1.0, 1f64.exp(), (-2f64).exp()],
    );
    for axis in [-1, 1] {
        let softmax = format!("    %y = lattice.softmax %f {{axis = {axis}}} : (IN) -> OUT");
        let found = dense(&softmax, TensorFile::default(), &[&[1000.0, 1001.0], &[0.0, 0.0]], 2);
        let e = 1f64.exp();
        near(&found, &[1.0 / (1.0 + e), e / (1.0 + e), 0.5, 0.5]);
    }
}

#[test]
fn activations_compute_their_formulas() {
    let x = [-2.0f64, -0.5, 0.0, 0.75, 30.0];
    let rows: Vec<f32> = x.iter().map(|&v| v as f32).collect();
    let found = |kind: &str, approximate: &str| {
        let body = format!(
            "    %y = lattice.activation %f {{kind = #lattice.activation<{kind}>, approximate = #lattice.gelu_approx<{approximate}>, alpha = 0.25 : \
             f32, beta = 2.0 : f32, threshold = 20.0 : f32}} : (IN) -> OUT"
        );
        dense(&body, TensorFile::default(), &[&rows], 5)
    };
    let sigmoid = |v: f64| 1.0 / (1.0 + (-v).exp());
    // erf(x / √2) of the numbers above, from tables of the normal distribution.
    let erf = [-0.954_499_736_103_641_6, -0.382_924_922_548_026, 0.0, 0.546_745_295_251_982_4, 1.0];
    let of = |f: &dyn Fn(f64) -> f64| x.iter().map(|&v| f(v)).collect::<Vec<f64>>();
    near(&found("relu", "none"), &of(&|v| v.max(0.0)));
    near(&found("sigmoid", "none"), &of(&sigmoid));
    near(&found("tanh", "none"), &of(&f64::tanh));
    near(&found("silu", "none"), &of(&|v| v * sigmoid(v)));
    near(&found("leaky_relu", "none"), &of(&|v| if v >= 0.0 { v } else { 0.25 * v }));
    near(
        &found("softplus", "none"),
        &of(&|v| if 2.0 * v > 20.0 { v } else { (2.0 * v).exp().ln_1p() / 2.0 }),
    );
    let exact: Vec<f64> = x.iter().zip(erf).map(|(v, e)| 0.5 * v * (1.0 + e)).collect();
    near(&found("gelu", "none"), &exact);
    near(&found("gelu", "precise"), &exact);
    near(&found("gelu", "fast"), &of(&|v| v * sigmoid(1.702 * v)));
    near(
        &found("gelu", "tanh"),
        &of(&|v| 0.5 * v * (1.0 + (0.797_884_560_802_865_4 * (v + 0.044_715 * v * v * v)).tanh())),
    );
}

#[test]
fn norms_compute_their_formulas() {
    let vectors =
        [("scale", [2.0, 0.5]), ("shift", [1.0, -1.0]), ("mean", [3.0, 10.0]), ("var", [4.0, 0.25])];
    let arrays: Vec<(&str, Array)> = vectors.iter().map(|(name, v)| (*name, floats(&[2], v))).collect();
    let file = || weights(&arrays.iter().map(|(name, array)| (*name, array)).collect::<Vec<_>>());
    let declared = weight("scale", "channel")
        + &weight("shift", "bias")
        + &weight("mean", "channel")
        + &weight("var", "channel");
    let (channel, bias) = ("!lattice.weight<channel, f32>", "!lattice.weight<bias, f32>");
    let rows: [&[f32]; 2] = [&[3.0, 10.5], &[7.0, 9.0]];
    let batch = format!(
        "{declared}    %y = lattice.batch_norm %f, %scale, %shift, %mean, %var {{eps = 0.5 : f32}} : (IN, {channel}, {bias}, {channel}, {channel}) -> OUT"
    );
    let norm = |x: f64, m: f64, v: f64, s: f64, b: f64| (x - m) / (v + 0.5).sqrt() * s + b;
    let expected: Vec<f64> = rows
        .iter()
        .flat_map(|r| [norm(r[0].into(), 3.0, 4.0, 2.0, 1.0), norm(r[1].into(), 10.0, 0.25, 0.5, -1.0)])
        .collect();
    near(&dense(&batch, file(), &rows, 2), &expected);
    let layer = format!(
        "{declared}    %y = lattice.layer_norm %f, %scale, %shift {{eps = 0.5 : f32}} : (IN, {channel}, {bias}) -> OUT"
    );
    let expected: Vec<f64> = rows
        .iter()
        .flat_map(|r| {
            let [a, b] = [f64::from(r[0]), f64::from(r[1])];
            let (m, v) = ((a + b) / 2.0, ((a - b) / 2.0).powi(2));
            [norm(a, m, v, 2.0, 1.0), norm(b, m, v, 0.5, -1.0)]
        })
        .collect();
    near(&dense(&layer, file(), &rows, 2), &expected);
    let rms = format!(
        "{declared}    %y = lattice.rms_norm %f, %scale {{eps = 0.5 : f32}} : (IN, {channel}) -> OUT"
    );
    let expected: Vec<f64> = rows
        .iter()
        .flat_map(|r| {
            let [a, b] = [f64::from(r[0]), f64::from(r[1])];
            let root = ((a * a + b * b) / 2.0 + 0.5).sqrt();
            [a / root * 2.0, b / root * 0.5]
        })
        .collect();
    near(&dense(&rms, file(), &rows, 2), &expected);
}

#[test]
fn embeddings_are_rows_of_their_table() {
    let ty = "tensor<?x2xf32>";
    let body = weight("tab", "embedding")
        + &format!(
            "    %y = lattice.embedding_lookup %ids, %tab : (tensor<?xi32>, !lattice.weight<embedding, f32>) -> {ty}"
        );
    let text = module(&[["ids", "tensor", "tensor<?xi32>"]], &body, &[["y", "tensor", "%y", ty]]);
    let file = weights(&[("tab", &floats(&[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))]);
    let ids = |ids: &[i32]| Inputs::new().array("ids", Array::from_i32(&[ids.len()], ids).unwrap());
    let results = run(&text, file.clone(), &ids(&[2, 0, 2])).unwrap();
    assert_eq!(results["y"].to_f32().unwrap(), [5.0, 6.0, 1.0, 2.0, 5.0, 6.0]);
    for id in [3, -1] {
        let error = run(&text, file.clone(), &ids(&[0, id])).unwrap_err().to_string();
        assert!(error.contains("row 1") && error.contains(&format!("below 3, found {id}")), "{error}");
    }
}

const GRID: &str = "voxel_size = array<f64: 1.0, 1.0, 1.0>, origin = array<f64: 0.0, 0.0, 0.0>";

/// Adds points, batch indices and a number of active rows.
fn points(inputs: Inputs, rows: &[[f32; 3]], active: i32) -> Inputs {
    let n = rows.len();
    inputs
        .array("points", floats(&[n, 3], rows.as_flattened()))
        .array("batch", Array::from_i32(&[n], &vec![0; n]).unwrap())
        .array("rows", Array::from_i32(&[1], &[active]).unwrap())
}

const POINTS: [[&str; 3]; 3] = [
    ["points", "tensor", "tensor<?x3xf32>"],
    ["batch", "tensor", "tensor<?xi32>"],
    ["rows", "tensor", "tensor<1xi32>"],
];

#[test]
fn voxelization_follows_its_worked_example() {
    let found = |reduction: &str, active: i32| {
        let mut inputs = POINTS.to_vec();
        inputs.push(["pf", "tensor", "tensor<?x2xf32>"]);
        let body = format!(
            "    %y = lattice.voxelize %points, %pf, %batch, %rows {{{GRID}, reduction = #lattice.voxel_reduction<{reduction}>, stride = array<i64: 1, \
             1, 1>}} : (tensor<?x3xf32>, tensor<?x2xf32>, tensor<?xi32>, tensor<1xi32>) -> ST"
        );
        let text = module(&inputs, &body, &[["y", "sparse_tensor", "%y", "ST"]]);
        let rows = [[0.2, 0.0, 0.0], [2.5, 0.0, 0.0], [2.9, 0.0, 0.0], [0.4, 0.0, 0.0]];
        let feats = floats(&[4, 2], &[2.0, 8.0, 1.0, 1.0, 5.0, 3.0, 4.0, 0.0]);
        by_x(
            &run(&text, TensorFile::default(), &points(Inputs::new(), &rows, active).array("pf", feats))
                .unwrap(),
            "y",
        )
    };
    assert_eq!(found("mean", 4), [(0, vec![3.0, 4.0]), (2, vec![3.0, 2.0])]);
    assert_eq!(found("sum", 4), [(0, vec![6.0, 8.0]), (2, vec![6.0, 4.0])]);
    assert_eq!(found("sum", 2), [(0, vec![2.0, 8.0]), (2, vec![1.0, 1.0])]);
}

#[test]
fn devoxelization_follows_its_worked_example() {
    let found = |interpolation: &str, active: i32| {
        let mut inputs = sparse_x(ONE);
        inputs.extend(POINTS);
        let body = make_x(ONE, [1; 3])
            + &format!(
                "    %y = lattice.devoxelize %points, %x, %batch, %rows {{{GRID}, interpolation = #lattice.point_interpolation<{interpolation}>}} : \
                 (tensor<?x3xf32>, ST, tensor<?xi32>, tensor<1xi32>) -> {ONE}"
            );
        let text = module(&inputs, &body, &[["y", "tensor", "%y", ONE]]);
        let rows = [[0.25, 0.5, 0.0], [0.75, 0.0, 0.0], [-0.5, 0.0, 0.0], [1.25, 0.0, 0.0]];
        let voxels = inputs_x(
            Array::from_coords(&[[0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]),
            floats(&[3, 1], &[10.0, 20.0, 40.0]),
        );
        run(&text, TensorFile::default(), &points(voxels, &rows, active)).unwrap()["y"].to_f32().unwrap()
    };
    assert_eq!(found("linear", 4), [21.25, 17.5, 5.0, 15.0]);
    assert_eq!(found("nearest", 4), [40.0, 20.0, 10.0, 20.0]);
    // Points past the active ones are 0.
    assert_eq!(found("linear", 2), [21.25, 17.5, 0.0, 0.0]);
}

#[test]
fn tensors_taken_apart_keep_their_identity_and_relations_are_shared() {
    // Two convolutions with other features on the same rows, added: one relation, and no join.
    let subm = |y: &str, x: &str| {
        conv("subm_conv3d", 3, "dilation = array<i64: 1, 1, 1>, ").replace("%y", y).replace("%x", x) + "\n"
    };
    let body = make_x(ONE, [1; 3])
        + &weight("w", "conv3d")
        + &subm("%a", "%x")
        + "    %c, %f, %n = lattice.sparse.decompose %a : ST -> (tensor<?x4xi32>, tensor<?x1xf32>, tensor<1xi32>)\n"
        + &format!("    %e = lattice.elementwise %f {{kind = \"round\"}} : ({ONE}) -> {ONE}\n")
        + "    %again = lattice.sparse.make %c, %e, %n {stride = array<i64: 1, 1, 1>, coord_order = #lattice.coord<batch_x_y_z>} : \
           (tensor<?x4xi32>, tensor<?x1xf32>, tensor<1xi32>) -> ST\n"
        + &subm("%b", "%again")
        + "    %y = lattice.sparse.binary %b, %x {op = #lattice.binary_op<add>, join = #lattice.join<inner>, lhs_fill = 0.0 : f32, rhs_fill = 0.0 : \
           f32} : (ST, ST) -> ST";
    let text = module(&sparse_x(ONE), &body, &[["y", "sparse_tensor", "%y", "ST"]]);
    let file = weights(&[("w", &floats(&[1, 3, 1, 1, 1], &[1.0, 10.0, 100.0]))]);
    let artifact = std::sync::Arc::new(Artifact::new(parse(&text).unwrap(), file).unwrap());
    let inputs = inputs_x(along_x(&[0, 1, 3]), floats(&[3, 1], &[1.0, 3.0, 5.0]));
    // The sum runs in the pass of the second convolution, or by itself.
    for (fuse, expected) in [(true, &["a", "y"][..]), (false, &["a", "b", "y"])] {
        let options = ExecuteOptions::default().with_fuse(fuse);
        let executor = Executor::new(artifact.clone(), &graphs::devices::chosen(), options);
        let (outputs, records) = trace::record(|| executor.run(&inputs).unwrap());
        let Ok(OutputValue::Sparse(y)) = outputs.into_one() else { panic!("one sparse result") };
        assert_eq!(y.manager().relation_count(), 1);
        assert_eq!(y.manager().report().joins, 0);
        assert_eq!(records.iter().map(|r| r.name.as_str()).collect::<Vec<_>>(), expected);
        let nodes = lattice_artifact::describe(&artifact, executor.device());
        assert_eq!(nodes.iter().find(|n| n.label == "a").unwrap().route, records[0].route);
        // 310, 31, 50 convolved again, plus x.
        let values: Vec<f32> = y.feats().clone().into_data().iter::<f32>().collect();
        assert_eq!(values, [310.0 * 10.0 + 31.0 * 100.0 + 1.0, 310.0 + 310.0 + 3.0, 505.0]);
    }
}

#[test]
fn results_of_every_kind_are_returned_in_order() {
    let body = make_x(ONE, [2, 1, 1])
        + "    %c, %f, %n = lattice.sparse.decompose %x : ST -> (tensor<?x4xi32>, tensor<?x1xf32>, tensor<1xi32>)\n";
    let results = [
        ["rows", "tensor", "%c", "tensor<?x4xi32>"],
        ["y", "sparse_tensor", "%x", "ST"],
        ["values", "tensor", "%f", ONE],
        ["count", "tensor", "%n", "tensor<1xi32>"],
        ["given", "tensor", "%x_coords", "tensor<?x4xi32>"],
    ];
    let text = module(&sparse_x(ONE), &body, &results);
    let given = Inputs::new()
        .array("x_coords", along_x(&[4, -2, 7]))
        .array("x_features", floats(&[3, 1], &[1.0, 2.0, 3.0]))
        .array("x_active", Array::from_i32(&[1], &[2]).unwrap());
    let found = run(&text, TensorFile::default(), &given).unwrap();
    assert_eq!(found["rows"], along_x(&[4, -2]));
    assert_eq!(found["values"].to_f32().unwrap(), [1.0, 2.0]);
    assert_eq!(found["count"].to_i32().unwrap(), [2]);
    assert_eq!(found["given"], along_x(&[4, -2, 7]));
    assert_eq!(line(&found, "y"), [(-2, 2.0), (4, 1.0)]);
}

#[test]
fn half_precision_features_round_their_weights() {
    let half = graphs::ST.replace("f32", "f16");
    let text = sparse_y(
        &(make_x(ONE, [1; 3])
            + &weight("w", "conv3d")
            + &conv("subm_conv3d", 3, "dilation = array<i64: 1, 1, 1>, ")),
    )
    .replace(graphs::ST, &half)
    .replace("tensor<?x1xf32>", "tensor<?x1xf16>");
    let file = weights(&[("w", &floats(&[1, 3, 1, 1, 1], &[1.0, 10.0, 100.0]))]);
    let features = Array::from_floats(Element::F16, &[3, 1], &[1.0, 3.0, 5.0]).unwrap();
    let given = inputs_x(along_x(&[0, 1, 3]), features);
    let results = run(&text, file.clone(), &given).unwrap();
    assert_eq!(results["y.features"].element(), Element::F16);
    assert_eq!(line(&results, "y"), [(0, 310.0), (1, 31.0), (3, 50.0)]);
    // Where types are strict, the file's f32 does not fit.
    let strict = ExecuteOptions::default().with_strict_dtypes(true);
    let error = run_with(&text, file, &given, strict).unwrap_err().to_string();
    assert!(error.contains("weight `w`") && error.contains("F16") && error.contains("found f32"), "{error}");
    let stored = Array::from_floats(Element::F16, &[1, 3, 1, 1, 1], &[1.0, 10.0, 100.0]).unwrap();
    assert!(run_with(&text, weights(&[("w", &stored)]), &given, strict).is_ok());
}

#[test]
fn empty_tensors_run() {
    let (text, file) = generative();
    let results = run(&text, file, &inputs_x(Array::from_coords(&[]), floats(&[0, 1], &[]))).unwrap();
    assert_eq!(results["y.coords"].dims(), [0, 4]);
    assert_eq!(results["y.active"].to_i32().unwrap(), [0]);
}

#[test]
fn one_executor_serves_several_threads() {
    let text = sparse_y(
        &(make_x(ONE, [1; 3])
            + &weight("w", "conv3d")
            + &conv("subm_conv3d", 3, "dilation = array<i64: 1, 1, 1>, ")),
    );
    let file = weights(&[("w", &floats(&[1, 3, 1, 1, 1], &[1.0, 10.0, 100.0]))]);
    let artifact = Artifact::new(parse(&text).unwrap(), file).unwrap();
    let executor = Executor::new(artifact, &graphs::devices::chosen(), ExecuteOptions::default());
    std::thread::scope(|threads| {
        let calls: Vec<_> = (0..4)
            .map(|i| {
                let executor = &executor;
                threads.spawn(move || {
                    let given = inputs_x(along_x(&[0, 1, 3 + i]), floats(&[3, 1], &[1.0, 3.0, 5.0]));
                    executor.run(&given).unwrap().to_arrays().unwrap().into_iter().collect::<BTreeMap<_, _>>()
                })
            })
            .collect();
        for (i, call) in calls.into_iter().enumerate() {
            let results = call.join().unwrap();
            assert_eq!(line(&results, "y"), [(0, 310.0), (1, 31.0), (3 + i as i32, 50.0)]);
        }
    });
}
