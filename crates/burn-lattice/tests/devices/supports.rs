//! Supports that are made on a device, and what it refuses.

use burn::tensor::{DType, Device, Tensor};
use burn_lattice::ops::{self, ConvOptions};
use burn_lattice::{Error, SparseTensor, Support, SupportPolicy};

use super::compare::{Coord, compare, coordinates, options, read, sparse, surface, tensor};
use super::devices;

#[test]
fn supports_that_were_made_on_a_device_hold_the_rows_of_the_host() {
    let mut sorted = surface(24);
    sorted.sort_unstable();
    for (name, device) in devices::gpus() {
        for coords in [surface(24), sorted.clone()] {
            let made = Support::from_tensor(coordinates(&coords, &device)).unwrap();
            let given = Support::try_new(coords.clone()).unwrap();
            assert_eq!(made.to_host().bounds(), given.to_host().bounds(), "{name}");
            assert_eq!(made.to_host().is_canonical(), given.to_host().is_canonical(), "{name}");
            assert!(!made.to_host().is_read(), "{name}: nothing was read yet");
            let feats = |device: &Device| tensor([coords.len(), 4], 1, DType::F32, device);
            let on_device = SparseTensor::from_support(made, feats(&device)).unwrap().with_stride([6; 3]);
            let on_host =
                SparseTensor::from_support(given, feats(&Device::flex())).unwrap().with_stride([6; 3]);
            let (on_device, on_host) = (on_device.unwrap(), on_host.unwrap());
            let weight = |device: &Device, taps| tensor([taps, 4, 4], 2, DType::F32, device);
            for (size, stride) in [(2, 2), (3, 2), (3, 3), (2, 6)] {
                let o = options(size, stride);
                let reach = o.with_policy(SupportPolicy::KernelReach { range: Some([20, 30, 40]) });
                let taps = o.spec.taps();
                type Run = fn(&SparseTensor, Tensor<3>, &[ConvOptions; 2]) -> SparseTensor;
                let runs: [(&str, Run); 5] = [
                    ("strided", |x, w, o| ops::conv3d(x, w, None, &o[0], None).unwrap()),
                    ("reach", |x, w, o| ops::conv3d(x, w, None, &o[1], None).unwrap()),
                    ("transposed", |x, w, o| ops::conv_transpose3d(x, w, None, &o[0], None).unwrap()),
                    ("generative", |x, w, o| {
                        ops::generative_conv_transpose3d(x, w, None, &o[0], None).unwrap()
                    }),
                    ("down and up", |x, w, o| {
                        let down = ops::conv3d(x, w.clone(), None, &o[0], None).unwrap();
                        ops::inverse_conv3d(&down, w, None, &o[0]).unwrap()
                    }),
                ];
                for (kind, run) in runs {
                    let what = format!("{kind} k{size}s{stride} on {name}");
                    let found = run(&on_device, weight(&device, taps), &[o, reach]);
                    let expected = run(&on_host, weight(&Device::flex(), taps), &[o, reach]);
                    assert_eq!(found.n_rows(), expected.n_rows(), "rows of {what}");
                    assert_eq!(
                        found.support().to_host().bounds(),
                        expected.support().to_host().bounds(),
                        "bounds of {what}"
                    );
                    let rows: Vec<i64> = found.coords().into_data().iter::<i64>().collect();
                    let host = expected.support().to_host().coords().as_flattened();
                    assert!(
                        rows.iter().eq(&host.iter().map(|&v| i64::from(v)).collect::<Vec<_>>()),
                        "{what}"
                    );
                    assert!(found.support().same_rows(expected.support()), "rows of {what}");
                    compare(
                        &name,
                        DType::F32,
                        &vec![(what.clone(), read(expected.feats()))],
                        &vec![(what, read(found.feats()))],
                    );
                }
            }
        }
    }
}

/// The device builds the tiles of the relation that the support before was asked for first, before it is known what the rows are.
#[test]
fn a_relation_like_the_one_before_is_the_same_where_rows_are_others() {
    let mut sorted = surface(20);
    sorted.sort_unstable_by(burn_lattice::core::canonical_cmp);
    let mut repeated = surface(20);
    repeated.extend_from_slice(&surface(20)[..5]);
    let scans = [
        (surface(20), 3),
        (surface(23), 3),
        (sorted.clone(), 3),
        (sorted.clone(), 3),
        (sorted, 5),
        (surface(21), 5),
        (surface(21), 3),
    ];
    for (name, device) in devices::gpus() {
        for (at, (coords, size)) in scans.iter().enumerate() {
            let o = options(*size, 1);
            let run = |device: &Device, x: SparseTensor| {
                let y = ops::subm_conv3d(&x, tensor([o.spec.taps(), 4, 6], 2, DType::F32, device), None, &o);
                read(y.unwrap().feats())
            };
            let feats = |device: &Device| tensor([coords.len(), 4], 1, DType::F32, device);
            let support = Support::from_tensor(coordinates(coords, &device)).unwrap();
            let found = run(&device, SparseTensor::from_support(support, feats(&device)).unwrap());
            let expected = run(&Device::flex(), sparse(coords, feats(&Device::flex())));
            let what = format!("scan {at} on {name}");
            compare(&name, DType::F32, &vec![(what.clone(), expected)], &vec![(what, found)]);
        }
        // A relation is expected of these, too, and must not be built of rows that stand twice.
        let error = Support::from_tensor(coordinates(&repeated, &device)).unwrap_err();
        assert!(matches!(error, Error::DuplicateCoord { .. }), "{name}: {error}");
    }
}

#[test]
fn a_device_finds_what_is_wrong_with_coordinates() {
    for (name, device) in devices::gpus() {
        let support = |rows: &[Coord]| Support::from_tensor(coordinates(rows, &device));
        let error = support(&[[0, 1, 2, 3], [0, 0, 0, 0], [0, 1, 2, 3]]).unwrap_err();
        assert!(matches!(error, Error::DuplicateCoord { row: 2, .. }), "{name}: {error}");
        let error = support(&[[0, 1, 2, 3], [-1, 0, 0, 0]]).unwrap_err();
        assert!(matches!(error, Error::OutOfRange { row: 1, .. }), "{name}: {error}");
        let error = Support::from_tensor(coordinates(&surface(3), &device).narrow(1, 0, 3)).unwrap_err();
        assert!(matches!(error, Error::Shape { .. }), "{name}: {error}");
        assert_eq!(support(&[]).unwrap().n_rows(), 0, "{name}");
        // Children of the last coordinates would leave 32 bits.
        let far = support(&[[0, i32::MAX, 0, 0], [0, 0, 0, 0]]).unwrap();
        let x = SparseTensor::from_support(far, Tensor::ones([2, 4], (&device, DType::F32))).unwrap();
        let x = x.with_stride([2; 3]).unwrap();
        let weight = Tensor::ones([8, 4, 4], (&device, DType::F32));
        let error = ops::conv_transpose3d(&x, weight, None, &options(2, 2), None).unwrap_err();
        assert!(matches!(error, Error::OutOfRange { row: 0, .. }), "{name}: {error}");
    }
}

#[test]
fn a_gpu_refuses_what_it_cannot_compute() {
    for (name, device) in devices::gpus() {
        let far = [[0, i32::MAX, 0, 0], [0, 1 - i32::MAX, 0, 0]];
        let x = sparse(&far, Tensor::ones([2, 4], (&device, DType::F32)));
        let weight = Tensor::ones([27, 4, 4], (&device, DType::F32));
        let error = ops::subm_conv3d(&x, weight, None, &options(3, 1)).unwrap_err();
        assert!(matches!(error, Error::Limit { .. }), "{name}: {error}");
        let x = sparse(&far, Tensor::ones([2, 4], (&Device::flex(), DType::F32)));
        let weight = Tensor::ones([27, 4, 4], (&device, DType::F32));
        let error = ops::subm_conv3d(&x, weight, None, &options(3, 1)).unwrap_err();
        assert!(error.to_string().contains("device"), "{name}: {error}");
        if device.supports_dtype(DType::F64) {
            let double = Tensor::<2>::ones([2, 4], (&device, DType::F64));
            let error =
                SparseTensor::from_support(Support::try_new(far.to_vec()).unwrap(), double).unwrap_err();
            assert!(matches!(error, Error::Dtype { .. }), "{name}: {error}");
        }
    }
}
