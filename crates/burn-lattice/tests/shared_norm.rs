//! A batch norm whose batch is spread over ranks has the statistics and gradients of the whole batch, whatever share each rank has.
#![allow(clippy::unwrap_used, reason = "tests")]

mod harness;

use std::thread;

use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};
use burn_lattice::nn::{BatchNorm, BatchNormConfig};
use burn_lattice::ops::{NormAffine, batch_norm_features, batch_norm_residual};
use burn_lattice::{Activation, CoordinateManager, Group, SparseTensor, Support};
use harness::devices::chosen;
use rstest::rstest;

const CHANNELS: usize = 5;

/// What one rank, or one device alone, finds for its rows.
#[derive(Debug, Clone)]
struct Found {
    y: Vec<f64>,
    dx: Vec<f64>,
    residual: Vec<f64>,
    gamma: Vec<f64>,
    beta: Vec<f64>,
    running: [Vec<f64>; 2],
}

fn values(tensor: Tensor<1>) -> Vec<f64> {
    tensor.into_data().iter::<f64>().collect()
}

fn wave(n: usize, step: f64) -> Vec<f64> {
    (0..n).map(|i| (i as f64 * step).sin() * 2.0 + 0.3 * (i % 7) as f64).collect()
}

fn rows(all: &[f64], from: usize, to: usize, device: &Device) -> Tensor<2> {
    let part = all[from * CHANNELS..to * CHANNELS].to_vec();
    Tensor::from_data(TensorData::new(part, [to - from, CHANNELS]), device)
}

fn norm(device: &Device) -> BatchNorm {
    let vector =
        |step: f64| Tensor::<1>::from_data(TensorData::new(wave(CHANNELS, step), [CHANNELS]), device);
    let mut norm = BatchNormConfig::new(CHANNELS).with_unbiased_running_var(true).init(device);
    norm.gamma = Some(Param::from_tensor(vector(0.9)));
    norm.beta = Some(Param::from_tensor(vector(1.7)));
    norm
}

/// Rows `from..to` of the batch, in a block with residual and ReLU.
fn part([from, to]: [usize; 2], total: usize, group: Option<&Group>) -> Found {
    let device = chosen().autodiff();
    let x = rows(&wave(total * CHANNELS, 0.37), from, to, &device).require_grad();
    let residual = rows(&wave(total * CHANNELS, 0.11), from, to, &device).require_grad();
    let pull = rows(&wave(total * CHANNELS, 0.53), from, to, &device);
    let norm = norm(&device);
    let affine = || {
        let [scale, bias] = [&norm.gamma, &norm.beta].map(|p| p.as_ref().unwrap().val());
        NormAffine::new(scale, bias)
    };
    let coords = (from..to).map(|i| [0, i as i32, 0, 0]).collect::<Vec<_>>();
    let support = Support::try_new(coords).unwrap();
    let manager = CoordinateManager::new();
    let sparse = |feats: Tensor<2>| {
        SparseTensor::with_manager(support.clone(), feats, [1; 3], manager.clone()).unwrap()
    };
    let forward = || {
        // The module moves its running statistics; the operation has the residual and the activation.
        let _ = norm.forward_feats(x.clone());
        let y = batch_norm_residual(
            &sparse(x.clone()),
            affine(),
            Some(&sparse(residual.clone())),
            1e-5,
            Activation::Relu,
        );
        y.unwrap().into_feats()
    };
    let y = match group {
        Some(group) => group.share_norms(forward),
        None => forward(),
    };
    let grads = (y.clone() * pull).sum().backward();
    let flat = |t: Option<Tensor<2>>| values(t.unwrap().reshape([-1]));
    let vector = |p: &Option<Param<Tensor<1>>>| values(p.as_ref().unwrap().val().grad(&grads).unwrap());
    Found {
        y: values(y.inner().reshape([-1])),
        dx: flat(x.grad(&grads)),
        residual: flat(residual.grad(&grads)),
        gamma: vector(&norm.gamma),
        beta: vector(&norm.beta),
        running: [&norm.running_mean, &norm.running_var].map(|r| values(r.value().inner())),
    }
}

fn close(what: &str, found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!((f - e).abs() <= 2e-5 * (1.0 + e.abs()), "{what} {i}: {f}, expected {e}");
    }
}

#[rstest]
#[case::even(&[40, 80, 120])]
#[case::uneven(&[1, 3, 120])]
#[case::one_rank_without_rows(&[60, 60, 120])]
#[case::alone(&[120])]
fn ranks_find_what_one_device_finds(#[case] ends: &[usize]) {
    let total = *ends.last().unwrap();
    let expected = part([0, total], total, None);
    let groups = Group::in_process(ends.len()).unwrap();
    let found: Vec<Found> = thread::scope(|scope| {
        let starts = [0].into_iter().chain(ends.iter().copied());
        let ranks: Vec<_> = groups
            .iter()
            .zip(starts.zip(ends))
            .map(|(group, (from, &to))| scope.spawn(move || part([from, to], total, Some(group))))
            .collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    });
    let joined = |of: fn(&Found) -> &Vec<f64>| found.iter().flat_map(of).copied().collect::<Vec<f64>>();
    close("y", &joined(|f| &f.y), &expected.y);
    close("gradient of x", &joined(|f| &f.dx), &expected.dx);
    close("gradient of the residual", &joined(|f| &f.residual), &expected.residual);
    let summed = |of: fn(&Found) -> &Vec<f64>| {
        (0..CHANNELS).map(|j| found.iter().map(|f| of(f)[j]).sum()).collect::<Vec<f64>>()
    };
    close("gradient of gamma", &summed(|f| &f.gamma), &expected.gamma);
    close("gradient of beta", &summed(|f| &f.beta), &expected.beta);
    for rank in &found {
        close("running mean", &rank.running[0], &expected.running[0]);
        close("running variance", &rank.running[1], &expected.running[1]);
        assert_eq!(rank.running, found[0].running, "all ranks have the same bits");
    }
}

#[test]
fn norms_outside_of_the_scope_stay_apart() {
    let [group] = &Group::in_process(1).unwrap()[..] else { panic!("one rank") };
    group.leave();
    // Within the scope of a group that is over an exchange would unwind.
    let y = batch_norm_features(
        rows(&wave(4 * CHANNELS, 0.3), 0, 4, &Device::flex()),
        NormAffine::default(),
        None,
        1e-5,
    );
    assert_eq!(y.unwrap().dims(), [4, CHANNELS]);
    let payload = std::panic::catch_unwind(|| {
        group.share_norms(|| {
            let x = rows(&wave(4 * CHANNELS, 0.3), 0, 4, &Device::flex());
            batch_norm_features(x, NormAffine::default(), None, 1e-5).unwrap()
        })
    });
    let error = payload.unwrap_err().downcast::<burn_lattice::Error>().unwrap();
    assert!(error.to_string().contains("found that one has ended"), "{error}");
}

#[test]
fn meetings_hand_out_what_all_gave_in_their_order() {
    let groups = Group::in_process(3).unwrap();
    thread::scope(|scope| {
        for group in &groups {
            scope.spawn(move || {
                for round in 0..200 {
                    let own = (group.rank() * 1000 + round) as f64;
                    let given = group.exchange(&[own]).unwrap();
                    let expected: Vec<Vec<f64>> =
                        (0..3).map(|rank| vec![(rank * 1000 + round) as f64]).collect();
                    assert_eq!(*given, expected);
                }
                // 0.1 + 0.2 + 0.3 in the order of the ranks.
                let share = [0.1, 0.2, 0.3][group.rank()];
                assert_eq!(group.add(&[share]).unwrap(), [(0.1 + 0.2) + 0.3]);
                let device = chosen();
                let own = Tensor::<1>::from_data([group.rank() as f32, 1.0], &device);
                assert_eq!(values(group.sum(own).unwrap()), [3.0, 3.0]);
            });
        }
    });
}

#[test]
fn a_rank_that_leaves_wakes_those_that_wait() {
    let groups = Group::in_process(2).unwrap();
    let [first, second] = &groups[..] else { panic!("two ranks") };
    thread::scope(|scope| {
        let waiting = scope.spawn(|| first.exchange(&[1.0]));
        assert!(second.leave(), "the first that leaves");
        let text = waiting.join().unwrap().unwrap_err().to_string();
        assert!(text.contains("expected all ranks to go on"), "{text}");
    });
    assert!(first.is_over() && !first.leave());
    assert!(second.exchange(&[1.0]).is_err(), "nor does anybody wait later");
}

#[test]
fn ranks_that_do_different_steps_are_told_so() {
    let groups = Group::in_process(2).unwrap();
    thread::scope(|scope| {
        let other = scope.spawn(|| groups[1].add(&[1.0, 2.0]));
        let text = groups[0].add(&[1.0]).unwrap_err().to_string();
        assert!(text.contains("expected 1 values of rank 1, found 2"), "{text}");
        assert!(other.join().unwrap().is_err());
    });
}

#[test]
fn devices_that_nccl_does_not_connect_are_refused() {
    let text = |devices: &[Device]| Group::over_devices(devices).unwrap_err().to_string();
    assert!(text(&[Device::flex(), Device::flex()]).contains("expected CUDA devices, found"));
    assert!(text(&[]).contains("expected"));
    let none = Group::in_process(0).unwrap_err().to_string();
    assert!(none.contains("expected at least one rank"), "{none}");
}
