//! Numeric parity: weights in each library's layout, a convolution by loops in that library's convention, and ours with the imported
//! weight give the same sums.
#![allow(clippy::unwrap_used, reason = "tests")]

use burn::tensor::{Device, Tensor, TensorData};
use burn_lattice::ops::{self, ConvOptions, Target};
use burn_lattice::{KernelSpec, SparseTensor, Support, SupportPolicy};
use lattice_import::{Axes, TapOrder, UnitKernel, WeightLayout, WeightRule, WeightTarget, to_taps};

const C_IN: usize = 3;
const C_OUT: usize = 5;

/// Uneven values, different at every place.
fn values(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919 + 13) % 1009) as f32 / 504.0 - 1.0).collect()
}

/// Where a library keeps the value of a kernel cell (x, y, z), input and output channel.
type Place = fn(cell: [usize; 3], kernel: [usize; 3], ci: usize, co: usize) -> usize;

struct Case {
    name: &'static str,
    rule: WeightRule,
    shape: fn([usize; 3]) -> Vec<usize>,
    place: Place,
}

fn rule(layout: WeightLayout, axes: Axes) -> WeightRule {
    WeightRule::new(layout, axes)
}

/// Every layout of the survey of peers, its index written out from the formula there.
fn cases() -> Vec<Case> {
    let first = |rule: WeightRule| WeightRule { tap_order: TapOrder::FirstFastest, ..rule };
    let odd_first = |rule: WeightRule| WeightRule { tap_order: TapOrder::OddFirstFastest, ..rule };
    vec![
        Case {
            name: "spconv 1.x, columns z y x",
            rule: rule(WeightLayout::KernelInOut, Axes::ZYX),
            shape: |[x, y, z]| vec![z, y, x, C_IN, C_OUT],
            place: |[x, y, z], [kx, ky, _], ci, co| (((z * ky + y) * kx + x) * C_IN + ci) * C_OUT + co,
        },
        Case {
            name: "spconv 1.x, columns x y z",
            rule: rule(WeightLayout::KernelInOut, Axes::XYZ),
            shape: |[x, y, z]| vec![x, y, z, C_IN, C_OUT],
            place: |[x, y, z], [_, ky, kz], ci, co| (((x * ky + y) * kz + z) * C_IN + ci) * C_OUT + co,
        },
        Case {
            name: "spconv 2.0 native, columns z y x",
            rule: rule(WeightLayout::KernelOutIn, Axes::ZYX),
            shape: |[x, y, z]| vec![z, y, x, C_OUT, C_IN],
            place: |[x, y, z], [kx, ky, _], ci, co| (((z * ky + y) * kx + x) * C_OUT + co) * C_IN + ci,
        },
        Case {
            name: "spconv 2.2, columns z y x",
            rule: rule(WeightLayout::OutKernelIn, Axes::ZYX),
            shape: |[x, y, z]| vec![C_OUT, z, y, x, C_IN],
            place: |[x, y, z], [kx, ky, kz], ci, co| (((co * kz + z) * ky + y) * kx + x) * C_IN + ci,
        },
        Case {
            name: "spconv 2.2 of TRELLIS and FlexGEMM, lattice artifact: columns x y z",
            rule: rule(WeightLayout::OutKernelIn, Axes::XYZ),
            shape: |[x, y, z]| vec![C_OUT, x, y, z, C_IN],
            place: |[x, y, z], [kx, ky, kz], ci, co| (((co * kx + x) * ky + y) * kz + z) * C_IN + ci,
        },
        Case {
            name: "MinkowskiEngine: k = x + Kx (y + Ky z)",
            rule: first(rule(WeightLayout::TapsInOut, Axes::XYZ)),
            shape: |[x, y, z]| vec![x * y * z, C_IN, C_OUT],
            place: |[x, y, z], [kx, ky, _], ci, co| ((x + kx * (y + ky * z)) * C_IN + ci) * C_OUT + co,
        },
        Case {
            name: "torchsparse: x fastest where the volume is odd, else z",
            rule: odd_first(rule(WeightLayout::TapsInOut, Axes::XYZ)),
            shape: |[x, y, z]| vec![x * y * z, C_IN, C_OUT],
            place: |[x, y, z], [kx, ky, kz], ci, co| {
                let k = if kx * ky * kz % 2 == 1 { x + kx * (y + ky * z) } else { (x * ky + y) * kz + z };
                (k * C_IN + ci) * C_OUT + co
            },
        },
        Case {
            name: "torch-lattice, WarpConvNet, OCNN: z fastest",
            rule: rule(WeightLayout::TapsInOut, Axes::XYZ),
            shape: |[x, y, z]| vec![x * y * z, C_IN, C_OUT],
            place: |[x, y, z], [_, ky, kz], ci, co| (((x * ky + y) * kz + z) * C_IN + ci) * C_OUT + co,
        },
        Case {
            name: "OCNN deconvolution",
            rule: rule(WeightLayout::TapsOutIn, Axes::XYZ),
            shape: |[x, y, z]| vec![x * y * z, C_OUT, C_IN],
            place: |[x, y, z], [_, ky, kz], ci, co| (((x * ky + y) * kz + z) * C_OUT + co) * C_IN + ci,
        },
        Case {
            name: "Open3D: x is the last kernel dimension",
            rule: rule(WeightLayout::KernelInOut, Axes::ZYX),
            shape: |[x, y, z]| vec![z, y, x, C_IN, C_OUT],
            place: |[x, y, z], [kx, ky, _], ci, co| ((z * ky + y) * kx + x) * C_IN * C_OUT + ci * C_OUT + co,
        },
        Case {
            name: "fVDB",
            rule: rule(WeightLayout::OutInKernel, Axes::XYZ),
            shape: |[x, y, z]| vec![C_OUT, C_IN, x, y, z],
            place: |[x, y, z], [kx, ky, kz], ci, co| (((co * C_IN + ci) * kx + x) * ky + y) * kz + z,
        },
    ]
}

fn rows() -> Vec<[i32; 4]> {
    let mut rows = Vec::new();
    for b in 0..2 {
        for x in 0..6 {
            for y in 0..5 {
                for z in 0..4 {
                    if (x * 5 + y * 3 + z * 7 + b) % 3 != 0 {
                        rows.push([b, x, y, z]);
                    }
                }
            }
        }
    }
    rows
}

fn input(rows: Vec<[i32; 4]>) -> SparseTensor {
    let n = rows.len();
    let feats = Tensor::from_data(TensorData::new(values(n * C_IN), [n, C_IN]), &Device::flex());
    SparseTensor::from_support(Support::try_new(rows).unwrap(), feats).unwrap()
}

/// `y[o] = Σ x[i] · w[cell]` where `pairs(o, cell)` names the input coordinate of an output under a cell.
fn by_loops(
    x: &SparseTensor,
    out: &[[i32; 4]],
    kernel: [usize; 3],
    weight: impl Fn([usize; 3], usize, usize) -> f32,
    pairs: impl Fn([i32; 4], [i32; 3]) -> Option<[i32; 4]>,
) -> Vec<f64> {
    let feats: Vec<f32> = x.feats().clone().into_data().iter().collect();
    let host = x.support().to_host();
    let mut y = vec![0.0; out.len() * C_OUT];
    for (o, q) in out.iter().enumerate() {
        for cx in 0..kernel[0] {
            for cy in 0..kernel[1] {
                for cz in 0..kernel[2] {
                    let Some(c) = pairs(*q, [cx as i32, cy as i32, cz as i32]) else { continue };
                    let Some(i) = host.coords().iter().position(|row| *row == c) else { continue };
                    for ci in 0..C_IN {
                        for co in 0..C_OUT {
                            let product = feats[i * C_IN + ci] * weight([cx, cy, cz], ci, co);
                            y[o * C_OUT + co] += f64::from(product);
                        }
                    }
                }
            }
        }
    }
    y
}

fn assert_close(name: &str, found: &SparseTensor, expected: &[f64]) {
    let found: Vec<f32> = found.feats().clone().into_data().iter().collect();
    assert_eq!(found.len(), expected.len(), "{name}");
    assert!(expected.iter().any(|v| v.abs() > 0.5), "{name}: the sums are not all small");
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((f64::from(*a) - b).abs() < 1e-4, "{name}: value {i}: {a} and {b}");
    }
}

fn imported(case: &Case, kernel: [usize; 3], stored: &[f32]) -> Tensor<3> {
    let target = WeightTarget { kernel, c_in: C_IN, c_out: C_OUT };
    let taps = to_taps(stored, &(case.shape)(kernel), &case.rule, &target).unwrap();
    let dims = [kernel.iter().product(), C_IN, C_OUT];
    Tensor::from_data(TensorData::new(taps, dims), &Device::flex())
}

fn options(kernel: [usize; 3], stride: u32, padding: u32) -> ConvOptions {
    let size = kernel.map(|k| k as u32);
    ConvOptions::new(KernelSpec::try_new(size, [stride; 3], [padding; 3], [1; 3]).unwrap())
}

/// Every library centres odd kernels of submanifold convolutions.
#[test]
fn submanifold_sums_agree() {
    for kernel in [[3, 3, 3], [3, 1, 5]] {
        for case in cases() {
            let stored = values((case.shape)(kernel).iter().product());
            let x = input(rows());
            let y =
                ops::subm_conv3d(&x, imported(&case, kernel, &stored), None, &options(kernel, 1, 0)).unwrap();
            let weight = |cell, ci, co| stored[(case.place)(cell, kernel, ci, co)];
            let expected = by_loops(&x, &rows(), kernel, weight, |q, cell| {
                let off = |a: usize| cell[a] - (kernel[a] as i32 - 1) / 2;
                Some([q[0], q[1] + off(0), q[2] + off(1), q[3] + off(2)])
            });
            assert_close(case.name, &y, &expected);
        }
    }
}

/// Kernels of 2 with stride 2 start at the lower corner in every library but Open3D.
#[test]
fn strided_sums_of_even_kernels_agree_and_so_do_the_ones_back() {
    let kernel = [2, 2, 2];
    for case in cases().into_iter().filter(|case| !case.name.starts_with("Open3D")) {
        let stored = values((case.shape)(kernel).iter().product());
        let weight = |cell, ci, co| stored[(case.place)(cell, kernel, ci, co)];
        let x = input(rows());
        let y =
            ops::conv3d(&x, imported(&case, kernel, &stored), None, &options(kernel, 2, 0), None).unwrap();
        let coarse = y.support().to_host().coords().to_vec();
        let expected = by_loops(&x, &coarse, kernel, weight, |q, cell| {
            Some([q[0], 2 * q[1] + cell[0], 2 * q[2] + cell[1], 2 * q[3] + cell[2]])
        });
        assert_close(case.name, &y, &expected);

        // Back onto the fine rows: the same numbers of cells, no flip.
        let n = coarse.len();
        let feats = Tensor::from_data(TensorData::new(values(n * C_IN), [n, C_IN]), &Device::flex());
        let x = y.with_feats(feats).unwrap();
        let fine = Target::from(&Support::try_new(rows()).unwrap());
        let weight_tensor = imported(&case, kernel, &stored);
        let y = ops::conv_transpose3d(&x, weight_tensor, None, &options(kernel, 2, 0), Some(&fine)).unwrap();
        let expected = by_loops(&x, &rows(), kernel, weight, |q, cell| {
            let from = [q[1] - cell[0], q[2] - cell[1], q[3] - cell[2]];
            from.iter().all(|v| v % 2 == 0).then(|| [q[0], from[0] / 2, from[1] / 2, from[2] / 2])
        });
        assert_close(case.name, &y, &expected);
    }
}

/// spconv's strided convolution: `in = out · stride - padding + k`, onto every row that the kernel reaches.
#[test]
fn strided_sums_with_padding_agree_with_spconv() {
    let kernel = [3, 3, 3];
    for case in cases().into_iter().filter(|case| case.name.starts_with("spconv")) {
        let stored = values((case.shape)(kernel).iter().product());
        let x = input(rows());
        let options =
            options(kernel, 2, 1).with_policy(SupportPolicy::KernelReach { range: Some([6, 5, 4]) });
        let y = ops::conv3d(&x, imported(&case, kernel, &stored), None, &options, None).unwrap();
        let out = y.support().to_host().coords().to_vec();
        // Every cell of the output grid (6, 5, 4) -> (3, 3, 2) that a row reaches.
        assert!(out.iter().all(|q| q[1] < 3 && q[2] < 3 && q[3] < 2));
        let weight = |cell, ci, co| stored[(case.place)(cell, kernel, ci, co)];
        let expected = by_loops(&x, &out, kernel, weight, |q, k| {
            Some([q[0], 2 * q[1] - 1 + k[0], 2 * q[2] - 1 + k[1], 2 * q[3] - 1 + k[2]])
        });
        assert_close(case.name, &y, &expected);
    }
}

/// spconv multiplies a kernel of one tap by the memory of `[out, 1, 1, 1, in]` read as `[in, out]`: no transpose.
#[test]
fn kernels_of_one_tap_of_spconv_are_memory_read_anew() {
    let stored = values(C_IN * C_OUT);
    let rule =
        WeightRule { unit_kernel: UnitKernel::Reinterpreted, ..rule(WeightLayout::OutKernelIn, Axes::ZYX) };
    let target = WeightTarget { kernel: [1; 3], c_in: C_IN, c_out: C_OUT };
    assert_eq!(to_taps(&stored, &[C_OUT, 1, 1, 1, C_IN], &rule, &target).unwrap(), stored);
    // A kernel with more taps is not touched by the quirk.
    let wide = WeightTarget { kernel: [1, 1, 3], ..target };
    let stored = values(3 * C_IN * C_OUT);
    let plain = WeightRule { unit_kernel: UnitKernel::AsLayout, ..rule };
    let shape = [C_OUT, 3, 1, 1, C_IN];
    assert_eq!(to_taps(&stored, &shape, &rule, &wide), to_taps(&stored, &shape, &plain, &wide));
    // Axes that do not fit a kernel that is no cube are seen.
    let swapped = WeightRule { axes: Axes::XYZ, ..rule };
    assert_eq!(to_taps(&stored, &shape, &swapped, &wide), None);
}

/// Groups of WarpConvNet: `[taps, groups, in / groups, out / groups]`; depthwise `[taps, channels]`.
#[test]
fn grouped_sums_agree() {
    let (kernel, groups, per_in, per_out) = ([3, 3, 3], 2, 2, 3);
    let stored = values(27 * groups * per_in * per_out);
    let rule = rule(WeightLayout::TapsGroupInOut, Axes::XYZ);
    let target = WeightTarget { kernel, c_in: per_in, c_out: groups * per_out };
    let taps = to_taps(&stored, &[27, groups, per_in, per_out], &rule, &target).unwrap();
    let rows = rows();
    let n = rows.len();
    let flat = values(n * groups * per_in);
    let device = Device::flex();
    let feats = Tensor::from_data(TensorData::new(flat.clone(), [n, groups * per_in]), &device);
    let x = SparseTensor::from_support(Support::try_new(rows.clone()).unwrap(), feats).unwrap();
    let weight = Tensor::from_data(TensorData::new(taps, [27, per_in, groups * per_out]), &device);
    let y = ops::subm_conv3d(&x, weight, None, &options(kernel, 1, 0).with_groups(groups)).unwrap();
    let found: Vec<f32> = y.into_feats().into_data().iter().collect();
    for (o, q) in rows.iter().enumerate() {
        for g in 0..groups {
            for co in 0..per_out {
                let mut sum = 0.0;
                for tap in 0..27usize {
                    let off = [tap / 9, tap / 3 % 3, tap % 3].map(|v| v as i32 - 1);
                    let c = [q[0], q[1] + off[0], q[2] + off[1], q[3] + off[2]];
                    let Some(i) = rows.iter().position(|row| *row == c) else { continue };
                    for ci in 0..per_in {
                        let w = stored[((tap * groups + g) * per_in + ci) * per_out + co];
                        sum += f64::from(flat[(i * groups + g) * per_in + ci]) * f64::from(w);
                    }
                }
                let value = f64::from(found[o * groups * per_out + g * per_out + co]);
                assert!((value - sum).abs() < 1e-4, "row {o}, group {g}: {value} and {sum}");
            }
        }
    }
    let depthwise = WeightTarget { kernel, c_in: 1, c_out: 4 };
    let stored = values(27 * 4);
    assert_eq!(to_taps(&stored, &[27, 4], &rule, &depthwise).unwrap(), stored);
}

/// A generative convolution by the forward relation lists an odd kernel from the other end: `k` is our `taps - 1 - k`.
#[test]
fn generative_taps_of_the_forward_relation_are_mirrored() {
    let kernel = [3, 3, 3];
    let stored = values(27 * C_IN * C_OUT);
    let target = WeightTarget { kernel, c_in: C_IN, c_out: C_OUT };
    let plain = rule(WeightLayout::TapsInOut, Axes::XYZ);
    let mirrored = WeightRule { mirrored: true, ..plain };
    let taps = to_taps(&stored, &[27, C_IN, C_OUT], &mirrored, &target).unwrap();
    // One row makes its 27 neighbours. The forward relation reads it from the neighbour at `-off` under `off`.
    let feats = Tensor::from_data(TensorData::new(values(C_IN), [1, C_IN]), &Device::flex());
    let x = SparseTensor::from_support(Support::try_new(vec![[0, 0, 0, 0]]).unwrap(), feats).unwrap();
    let weight = Tensor::from_data(TensorData::new(taps, [27, C_IN, C_OUT]), &Device::flex());
    let y = ops::generative_conv_transpose3d(&x, weight, None, &options(kernel, 1, 0), None).unwrap();
    let out = y.support().to_host().coords().to_vec();
    assert_eq!(out.len(), 27);
    let weight =
        |cell: [usize; 3], ci, co| stored[(((cell[0] * 3 + cell[1]) * 3 + cell[2]) * C_IN + ci) * C_OUT + co];
    // Our generative rows are counted from 0: a neighbour at `d` stands at `d + 1`.
    let expected = by_loops(&x, &out, kernel, weight, |q, cell| {
        let centred = [q[1] - 1, q[2] - 1, q[3] - 1];
        Some([q[0], centred[0] + cell[0] - 1, centred[1] + cell[1] - 1, centred[2] + cell[2] - 1])
    });
    assert_close("generative by the forward relation", &y, &expected);
    // Even kernels have no middle to mirror about.
    let even = WeightTarget { kernel: [2; 3], ..target };
    let stored = values(8 * C_IN * C_OUT);
    assert_eq!(
        to_taps(&stored, &[8, C_IN, C_OUT], &mirrored, &even),
        to_taps(&stored, &[8, C_IN, C_OUT], &plain, &even)
    );
}

/// The cells of OCNN's '222' are the numbers 13, 14, 16, 17, 22, 23, 25 and 26 of its list of 27, in that order.
#[test]
fn even_kernels_of_ocnn_are_the_upper_corner_of_its_27_cells() {
    let cells: Vec<usize> = (0..27).filter(|k| [k / 9, k / 3 % 3, k % 3].iter().all(|v| *v >= 1)).collect();
    assert_eq!(cells, [13, 14, 16, 17, 22, 23, 25, 26]);
    let stored = values(8 * C_IN * C_OUT);
    let target = WeightTarget { kernel: [2; 3], c_in: C_IN, c_out: C_OUT };
    let rule = rule(WeightLayout::TapsInOut, Axes::XYZ);
    assert_eq!(to_taps(&stored, &[8, C_IN, C_OUT], &rule, &target).unwrap(), stored);
}
