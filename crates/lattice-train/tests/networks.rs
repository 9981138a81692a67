//! Networks besides MinkUNets learn, and go on from a checkpoint with the bits they would have had.
#![allow(clippy::unwrap_used, reason = "tests")]

mod tiny;

use std::path::Path;

use burn::module::Module;
use lattice_models::{PtV3Config, SpvcnnConfig, seed_parameters};
use lattice_train::{
    Batch, INPUT_CHANNELS, ParameterLayout, Precision, Segmenter, TrainConfig, Trainer, build_model,
    make_batch,
};
use rstest::rstest;
use tiny::{bits, device, plain};

const CLASSES: usize = 5;

fn config(precision: Precision) -> TrainConfig {
    let mut config = plain(8);
    config.precision = precision;
    config.loss.lovasz = 0.0;
    config
}

fn batches(config: &TrainConfig) -> Vec<Batch> {
    let (scenes, _) = config.datasets().unwrap();
    let make = |i: usize| {
        let pair = [scenes.scene(i).unwrap(), scenes.scene((i + 1) % 3).unwrap()];
        make_batch(&[&pair[0], &pair[1]], config.voxel_size as f32, CLASSES).unwrap()
    };
    (0..3).map(make).collect()
}

/// Eight steps in one go, and the same with a stop after the fifth; returns the losses.
fn learned<M: Segmenter>(model: &M, config: &TrainConfig) -> Vec<f32> {
    let batches = batches(config);
    let trainer = || Trainer::new(model.clone(), config, vec![1.0; CLASSES], &device()).unwrap();
    let step = |trainer: &mut Trainer<M>| {
        let at = trainer.steps_done() % batches.len();
        trainer.step(&batches[at..=at]).unwrap();
    };
    let mut whole = trainer();
    (0..8).for_each(|_| step(&mut whole));
    let expected = whole.drain().unwrap();
    let mut first = trainer();
    (0..5).for_each(|_| step(&mut first));
    let mut found = first.drain().unwrap();
    let mut second = trainer();
    second.restore(first.checkpoint(), Path::new("checkpoint")).unwrap();
    (0..3).for_each(|_| step(&mut second));
    found.extend(second.drain().unwrap());
    assert_eq!(bits(&found), bits(&expected));
    assert!(whole.values() == second.values(), "parameters are equal");
    expected.iter().map(|report| report.loss).collect()
}

fn spvcnn() -> impl Segmenter {
    // Half of the features drop out: the masks matter.
    let config = SpvcnnConfig::new(INPUT_CHANNELS, CLASSES).with_width(0.25).with_dropout(0.5);
    seed_parameters(config.init(&device().autodiff()), 3)
}

fn ptv3() -> impl Segmenter {
    let config = PtV3Config::new(INPUT_CHANNELS, CLASSES)
        .with_encoder_channels(vec![16, 32])
        .with_encoder_depths(vec![1, 1])
        .with_encoder_heads(vec![2, 2])
        .with_decoder_channels(vec![16])
        .with_decoder_depths(vec![1])
        .with_decoder_heads(vec![2])
        .with_patch_size(64);
    seed_parameters(config.init(&device().autodiff()), 3)
}

#[rstest]
#[case::f32(Precision::F32)]
#[case::bf16(Precision::Bf16)]
fn spvcnn_learns_and_resumes(#[case] precision: Precision) {
    let losses = learned(&spvcnn(), &config(precision));
    assert!(losses[6..].iter().sum::<f32>() < 0.9 * losses[..2].iter().sum::<f32>(), "{losses:?}");
}

#[rstest]
#[case::f32(Precision::F32)]
#[case::bf16(Precision::Bf16)]
fn ptv3_learns_and_resumes(#[case] precision: Precision) {
    let losses = learned(&ptv3(), &config(precision));
    assert!(losses[6..].iter().sum::<f32>() < 0.9 * losses[..2].iter().sum::<f32>(), "{losses:?}");
}

#[test]
fn every_segmentation_network_of_the_list_is_built_by_its_name() {
    for name in ["minkunet-small", "sparseresunet42", "spvcnn", "ptv3"] {
        let model = build_model(name, CLASSES, 1, &device().autodiff()).unwrap();
        assert!(ParameterLayout::of(&model).len() > 1_000_000, "{name}");
        let places = ParameterLayout::of(&model).len();
        assert_eq!(places, ParameterLayout::of(&model.valid().train()).len(), "{name}");
    }
    for name in ["voxelnext", "resnet", ""] {
        let text = build_model(name, CLASSES, 1, &device()).unwrap_err().to_string();
        assert!(text.contains("--model: expected one of minkunet14") && text.contains("ptv3"), "{text}");
    }
}
