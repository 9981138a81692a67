//! Layers with packed weights on every GPU that is found: each kind by each route that fits, against the float layer on the dequantized weight
//! there, and products of bytes against those of the CPU.
#![allow(clippy::unwrap_used, reason = "tests")]

mod harness;

use burn::module::Module;
use burn::tensor::{DType, Device, FloatDType};
use burn_lattice::nn::*;
use burn_lattice::quantized::*;
use burn_lattice::routes::{self, DeviceClass, MatrixUnits, PACKED_ROUTES};
use burn_lattice::{Result, SparseTensor, trace};
use harness::*;

fn units(device: &Device) -> MatrixUnits {
    match DeviceClass::of(device) {
        DeviceClass::Gpu(units) => units,
        DeviceClass::Cpu => panic!("a GPU"),
    }
}

fn input(channels: usize, dtype: DType, stride: u32, device: &Device) -> SparseTensor {
    let mut seeded = Seeded::new(channels as u64);
    let coords = seeded.coords(300, 2, 6);
    let feats = seeded.values(coords.len() * channels);
    sparse_at(&coords, tensor(&feats, [coords.len(), channels], dtype, device), [stride; 3])
}

/// The float module with the values that the packed one stores.
fn dequantized<L: Layers>(mut float: L, dtype: DType, weight: &QuantizedWeight) -> L {
    let to = match dtype {
        DType::F16 => FloatDType::F16,
        DType::BF16 => FloatDType::BF16,
        _ => FloatDType::F32,
    };
    float.visit_layers("", &mut |mut layer| layer.set_float(weight.to_taps().cast(to)));
    float
}

/// Both modules on the same input; the names of the routes that ran.
fn compare(
    what: &str,
    x: &SparseTensor,
    float: impl Fn(&SparseTensor) -> Result<SparseTensor>,
    packed: impl Fn(&SparseTensor) -> Result<SparseTensor>,
) -> Vec<&'static str> {
    let expected = float(x).unwrap();
    let mut ran = Vec::new();
    for route in PACKED_ROUTES {
        let _forced = routes::force(route.name).unwrap();
        let (found, records) = trace::record(|| packed(x));
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                assert!(error.to_string().contains("was forced but does not fit"), "{what}: {error}");
                continue;
            }
        };
        assert_eq!(records.last().unwrap().route, route.name, "{what}");
        assert_eq!(coords_of(&found), coords_of(&expected), "{what} by {}", route.name);
        assert_eq!((found.stride(), found.dtype()), (expected.stride(), expected.dtype()));
        let allowed = tolerance(x.dtype());
        for (found, expected) in read(found.feats()).iter().zip(read(expected.feats())) {
            let allowed = 4.0 * (allowed.atol + allowed.rtol * expected.abs().max(1.0));
            let close = (found - expected).abs() <= allowed;
            assert!(close, "{what} by {}: {found}, expected {expected}", route.name);
        }
        ran.push(route.name);
    }
    ran
}

#[test]
fn layers_of_every_kind_by_every_route() {
    for (name, device) in devices::gpus() {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            if !burn_lattice::DeviceInfo::of(&device).takes(dtype) {
                continue;
            }
            for ([c_in, c_out, groups], bits) in
                [([3, 5, 1], 8), ([33, 20, 1], 4), ([70, 17, 1], 8), ([64, 6, 2], 4)]
            {
                let options = QuantizeOptions::new(bits).with_group_size(32).with_scales(FloatDType::F16);
                let what = format!("{c_in} to {c_out} channels, {bits} bits in {dtype:?} on {name}");
                let on_units = units(&device).manual && groups == 1 && dtype != DType::F32;
                macro_rules! kind {
                    ($kind:literal, $quantized:ident, $config:expr, $stride:expr, |$m:ident, $x:ident| $run:expr) => {
                        kind!($kind, $quantized, $config, $stride, |$m, $x| $run, |$m, $x| $run)
                    };
                    ($kind:literal, $quantized:ident, $config:expr, $stride:expr, |$m:ident, $x:ident| $run:expr, |$p:ident, $y:ident| $run_packed:expr) => {{
                        let float = $config([c_in, c_out]).with_groups(groups).init(&device);
                        let packed = $quantized::from_conv(&float, &options).unwrap();
                        let float = dequantized(float, dtype, packed.weight.packed().unwrap());
                        let x = input(c_in, dtype, $stride, &device);
                        let by_float = |$x: &SparseTensor| {
                            let $m = &float;
                            $run
                        };
                        let by_packed = |$y: &SparseTensor| {
                            let $p = &packed;
                            $run_packed
                        };
                        let ran = compare(&format!("{} {what}", $kind), &x, by_float, by_packed);
                        assert_eq!(ran.contains(&"packed_mma"), on_units, "{what}");
                        assert_eq!(ran.contains(&"packed_expand_mma"), on_units, "{what}");
                        assert!(ran.contains(&"dequantize") && !ran.contains(&"packed_panels"), "{what}");
                    }};
                }
                let none = ConvEpilogue::default;
                kind!(
                    "submanifold",
                    QuantizedSubmConv3d,
                    SubmConv3dConfig::new,
                    1,
                    |m, x| m.try_forward(x, none()),
                    |p, x| p.try_forward(x, None, none())
                );
                kind!(
                    "strided",
                    QuantizedConv3d,
                    |c| Conv3dConfig::new(c).with_stride([2, 2, 1]),
                    1,
                    |m, x| m.try_forward(x, None, none())
                );
                kind!(
                    "pointwise",
                    QuantizedConv3d,
                    |c| Conv3dConfig::new(c).with_kernel_size([1; 3]),
                    1,
                    |m, x| m.try_forward(x, None, none())
                );
                kind!(
                    "transposed",
                    QuantizedConvTranspose3d,
                    |c| ConvTranspose3dConfig::new(c).with_kernel_size([3; 3]),
                    2,
                    |m, x| m.try_forward(x, None, none())
                );
                kind!(
                    "generative",
                    QuantizedGenerativeConvTranspose3d,
                    GenerativeConvTranspose3dConfig::new,
                    2,
                    |m, x| m.try_forward(x, None, none())
                );
            }
        }
    }
}

#[test]
fn linear_layers_and_inverse_ones() {
    for (name, device) in devices::gpus() {
        for dtype in [DType::F32, DType::F16] {
            let float = LinearConfig::new([70, 9]).init(&device);
            let packed = QuantizedLinear::from_linear(&float, &QuantizeOptions::new(8)).unwrap();
            let float = dequantized(float, dtype, packed.weight.packed().unwrap());
            let x = input(70, dtype, 1, &device);
            let what = format!("linear in {dtype:?} on {name}");
            compare(&what, &x, |x| float.try_forward(x), |x| packed.try_forward(x));
            assert_eq!(read(&packed.forward_feats(x.feats().clone())), read(packed.forward(&x).feats()));
            let down = Conv3dConfig::new([70, 34]).with_kernel_size([2; 3]).with_stride([2; 3]).init(&device);
            let up = ConvTranspose3dConfig::new([34, 6]).with_inverse(true).init(&device);
            let packed = QuantizedConvTranspose3d::from_conv(&up, &QuantizeOptions::new(4)).unwrap();
            let up = dequantized(up, dtype, packed.weight.packed().unwrap());
            let coarse = down.forward(&input(70, DType::F32, 1, &device));
            let feats = coarse.feats().clone().cast(if dtype == DType::F16 {
                FloatDType::F16
            } else {
                FloatDType::F32
            });
            let coarse = coarse.with_feats(feats).unwrap();
            let what = format!("inverse in {dtype:?} on {name}");
            compare(
                &what,
                &coarse,
                |c| up.try_forward(c, None, ConvEpilogue::default()),
                |c| packed.try_forward(c, None, ConvEpilogue::default()),
            );
        }
    }
}

/// Root mean square of a difference over that of the reference.
fn relative(found: &SparseTensor, expected: &SparseTensor) -> f64 {
    let (found, expected) = (read(found.feats()), read(expected.feats()));
    let sum = |f: &dyn Fn(usize) -> f64| (0..expected.len()).map(|i| f(i).powi(2)).sum::<f64>();
    (sum(&|i| found[i] - expected[i]) / sum(&|i| expected[i])).sqrt()
}

#[test]
fn bytes_on_a_gpu_give_what_they_give_on_the_processor() {
    let cpu = Device::flex();
    for (name, gpu) in devices::gpus() {
        if !units(&gpu).bytes {
            println!("{name}: no matrix units for bytes");
            continue;
        }
        for (i, [c_in, c_out]) in [[70, 40], [130, 17], [24, 32]].into_iter().enumerate() {
            for (bits, group_size) in [(4, 32), (8, 64), (8, 128), (4, 128)] {
                let granularity = if i % 2 == 0 { Granularity::PerTensor } else { Granularity::PerChannel };
                let x = input(c_in, DType::F32, 1, &cpu);
                let mut block = ConvBlockConfig::new([c_in, c_out]).init_subm(&cpu);
                let mut calibrator = Calibrator::try_new(CalibrationMethod::MinMax, granularity).unwrap();
                calibrator.observe(x.feats()).unwrap();
                let range = calibrator.range().unwrap();
                block.visit_layers("", &mut |mut layer| {
                    layer.fold_norm();
                    let options = QuantizeOptions::new(bits).with_group_size(group_size);
                    layer.pack(&options, Some(&range)).unwrap();
                });
                let by = |route: &str, block: &ConvBlock, x: &SparseTensor| {
                    let _forced = routes::force(route).unwrap();
                    block.forward(x)
                };
                let expected = by("packed_int8", &block, &x);
                let there = block.clone().to_device(&gpu);
                // A byte that falls on the other side of a half is a thousandth of one product.
                for (dtype, most) in [(DType::F32, 1e-3), (DType::F16, 3e-3)] {
                    let found = by("packed_int8_mma", &there, &input(c_in, dtype, 1, &gpu));
                    let error = relative(&found, &expected);
                    assert!(error < most, "{name}, {c_in} channels, {bits} bits in {dtype:?}: {error}");
                }
            }
        }
    }
}

#[test]
fn a_gpu_keeps_codes_in_order_for_the_weight_they_belong_to() {
    for (name, gpu) in devices::gpus() {
        let float = SubmConv3dConfig::new([96, 80]).init(&gpu);
        let packed = QuantizedSubmConv3d::from_conv(&float, &QuantizeOptions::new(4)).unwrap();
        let x = input(96, DType::F16, 1, &gpu);
        let first = read(packed.forward(&x).feats());
        let other = QuantizedSubmConv3d::from_conv(&float, &QuantizeOptions::new(8)).unwrap();
        assert_ne!(read(other.forward(&x).feats()), first, "{name}");
        assert_eq!(read(packed.forward(&x).feats()), first, "{name}");
    }
}
