//! Names of published networks, written down from their module lists, all find a place.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;

use burn::tensor::Device;
use lattice_import::{Library, Mapping, Stored, Tensors, paths};
use lattice_models::ModelSpec;

/// Parts of a norm.
fn norm(names: &mut Vec<String>, at: &str) {
    for part in ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"] {
        names.push(format!("{at}.{part}"));
    }
}

/// Scale and shift alone.
fn affine(names: &mut Vec<String>, at: &str) {
    names.extend(["weight", "bias"].map(|part| format!("{at}.{part}")));
}

fn check(library: Library, model: &str, prefix: &str, names: Vec<String>, others: &[&str]) {
    let stored = || Stored::from_f32(vec![0], &[]);
    let mut tensors: Tensors = names.iter().map(|name| (format!("{prefix}{name}"), stored())).collect();
    tensors.extend(others.iter().map(|name| ((*name).to_owned(), stored())));
    let paths = paths(&tensors, &Mapping::of(library, model)).unwrap();
    let network = ModelSpec::new(model.into(), 4).init(&Device::flex()).unwrap();
    let expected: BTreeSet<String> = network.parameters().into_iter().map(|p| p.path).collect();
    let counted = |names: &str| names.ends_with("num_batches_tracked");
    let taken = paths.iter().filter(|(_, path)| path.is_some()).count();
    let dropped = paths.iter().filter(|(name, path)| path.is_none() && !counted(name)).count();
    assert_eq!(dropped, others.len(), "{paths:?}");
    let found: BTreeSet<String> = paths.into_values().flatten().collect();
    assert_eq!(found.len(), taken, "no two tensors have one place");
    let extra: Vec<_> = found.difference(&expected).collect();
    let missing: Vec<_> = expected.difference(&found).collect();
    assert!(extra.is_empty() && missing.is_empty(), "{model}: extra {extra:?}, missing {missing:?}");
}

#[test]
fn minkowski_unets() {
    for (model, blocks) in [("minkunet14a", [1; 8]), ("minkunet34c", [2, 3, 4, 6, 2, 2, 2, 2])] {
        let mut names = Vec::from(["conv0p1s1.kernel", "final.kernel", "final.bias"].map(String::from));
        norm(&mut names, "bn0.bn");
        for i in 0..4 {
            names.push(format!("conv{}p{}s2.kernel", i + 1, 1 << i));
            norm(&mut names, &format!("bn{}.bn", i + 1));
            names.push(format!("convtr{}p{}s2.kernel", i + 4, 16 >> i));
            norm(&mut names, &format!("bntr{}.bn", i + 4));
        }
        // Widths change at these blocks: 32 to 32 does not.
        for (stage, &count) in blocks.iter().enumerate() {
            for i in 0..count {
                let at = format!("block{}.{i}", stage + 1);
                for conv in 1..=2 {
                    names.push(format!("{at}.conv{conv}.kernel"));
                    norm(&mut names, &format!("{at}.norm{conv}.bn"));
                }
                if i == 0 && stage > 0 {
                    names.push(format!("{at}.downsample.0.kernel"));
                    norm(&mut names, &format!("{at}.downsample.1.bn"));
                }
            }
        }
        check(Library::Minkowski, model, "state_dict.", names, &["epoch_of", "optimizer.state.0.exp_avg"]);
    }
}

#[test]
fn minkowski_completion() {
    let mut names = vec!["enc_block_s1.0.kernel".to_owned()];
    norm(&mut names, "enc_block_s1.1.bn");
    for level in 0..6 {
        let (fine, coarse) = (1 << level, 2 << level);
        for at in [format!("enc_block_s{fine}s{coarse}"), format!("dec_block_s{coarse}s{fine}")] {
            for i in [0, 3] {
                names.push(format!("{at}.{i}.kernel"));
                norm(&mut names, &format!("{at}.{}.bn", i + 1));
            }
        }
        names.extend([format!("dec_s{fine}_cls.kernel"), format!("dec_s{fine}_cls.bias")]);
    }
    check(Library::Minkowski, "completion", "", names, &[]);
}

/// A residual block of torchsparse whose parts are called `main` and `shortcut`, or as its networks do.
fn torchsparse_block(names: &mut Vec<String>, at: &str, parts: [&str; 2], widens: bool) {
    for i in [0, 3] {
        names.push(format!("{at}.{}.{i}.kernel", parts[0]));
        norm(names, &format!("{at}.{}.{}", parts[0], i + 1));
    }
    if widens {
        names.push(format!("{at}.{}.0.kernel", parts[1]));
        norm(names, &format!("{at}.{}.1", parts[1]));
    }
}

fn torchsparse_stem() -> Vec<String> {
    let mut names = Vec::new();
    for i in [0, 3] {
        names.push(format!("stem.{i}.kernel"));
        norm(&mut names, &format!("stem.{}", i + 1));
    }
    names
}

#[test]
fn torchsparse_networks() {
    let networks = |point_branch: bool| {
        let mut names = torchsparse_stem();
        for n in 1..=4 {
            for (at, blocks, first) in
                [(format!("stage{n}"), format!("stage{n}"), 1), (format!("up{n}"), format!("up{n}.1"), 0)]
            {
                names.push(format!("{at}.0.net.0.kernel"));
                norm(&mut names, &format!("{at}.0.net.1"));
                for i in 0..2 {
                    let widens = i == 0 && at != "stage1";
                    torchsparse_block(
                        &mut names,
                        &format!("{blocks}.{}", i + first),
                        ["net", "downsample"],
                        widens,
                    );
                }
            }
        }
        affine(&mut names, "classifier.0");
        for i in 0..if point_branch { 3 } else { 0 } {
            affine(&mut names, &format!("point_transforms.{i}.0"));
            norm(&mut names, &format!("point_transforms.{i}.1"));
        }
        names
    };
    check(Library::Torchsparse, "minkunet42", "model.module.", networks(false), &["optimizer.state.0.step"]);
    check(Library::Torchsparse, "spvcnn", "model.", networks(true), &[]);
}

#[test]
fn torchsparse_backbones() {
    let mut names = torchsparse_stem();
    for level in 0..4 {
        for (at, blocks, first) in [
            (format!("encoders.{level}.0"), format!("encoders.{level}"), 1),
            (format!("decoders.{level}.upsample"), format!("decoders.{level}.fuse"), 0),
        ] {
            names.push(format!("{at}.0.kernel"));
            norm(&mut names, &format!("{at}.1"));
            for i in 0..2 {
                let widens = i == 0 && at != "encoders.0.0";
                torchsparse_block(
                    &mut names,
                    &format!("{blocks}.{}", i + first),
                    ["main", "shortcut"],
                    widens,
                );
            }
        }
    }
    // The backbone has no head; a network around it does.
    affine(&mut names, "classifier.0");
    check(Library::Torchsparse, "sparseresunet42", "", names, &[]);

    let mut names = Vec::new();
    for stage in 0..5 {
        names.push(format!("{stage}.0.0.kernel"));
        norm(&mut names, &format!("{stage}.0.1"));
        for i in 1..if stage < 4 { 3 } else { 1 } {
            torchsparse_block(&mut names, &format!("{stage}.{i}"), ["main", "shortcut"], false);
        }
    }
    check(Library::Torchsparse, "sparseresnet21d", "", names, &[]);
}

/// A convolution and its norm in a sequence.
fn pair(names: &mut Vec<String>, at: &str) {
    names.push(format!("{at}.0.weight"));
    norm(names, &format!("{at}.1"));
}

fn residual(names: &mut Vec<String>, at: &str) {
    for i in 1..=2 {
        affine(names, &format!("{at}.conv{i}"));
        norm(names, &format!("{at}.bn{i}"));
    }
}

#[test]
fn detectors_of_openpcdet() {
    let others = ["model_state.dense_head.conv_cls.weight", "model_state.global_step", "epoch"];
    let mut names = Vec::new();
    for at in ["conv_input", "conv1.0", "conv_out"] {
        pair(&mut names, at);
    }
    for n in 2..=4 {
        (0..3).for_each(|i| pair(&mut names, &format!("conv{n}.{i}")));
    }
    check(Library::Spconv, "voxelbackbone8x", "model_state.backbone_3d.", names, &others);

    let levels = |last: usize| {
        let mut names = Vec::new();
        pair(&mut names, "conv_input");
        pair(&mut names, "conv_out");
        for n in 1..=last {
            let first = usize::from(n > 1);
            if n > 1 {
                pair(&mut names, &format!("conv{n}.0"));
            }
            (first..first + 2).for_each(|i| residual(&mut names, &format!("conv{n}.{i}")));
        }
        names
    };
    check(Library::Spconv, "voxelresbackbone8x", "model_state.backbone_3d.", levels(4), &others);
    let mut names = levels(6);
    affine(&mut names, "shared_conv.0");
    norm(&mut names, "shared_conv.1");
    check(Library::Spconv, "voxelnext", "model_state.backbone_3d.", names, &others);
}

#[test]
fn the_transformer_of_pointcept() {
    let mut names = vec!["backbone.embedding.stem.conv.weight".to_owned()];
    norm(&mut names, "backbone.embedding.stem.norm");
    affine(&mut names, "seg_head");
    let block = |names: &mut Vec<String>, at: String| {
        for part in [
            "cpe.0",
            "cpe.1",
            "cpe.2",
            "norm1.0",
            "attn.qkv",
            "attn.proj",
            "norm2.0",
            "mlp.0.fc1",
            "mlp.0.fc2",
        ] {
            affine(names, &format!("{at}.{part}"));
        }
    };
    for (stage, depth) in [2, 2, 2, 6, 2].into_iter().enumerate() {
        let at = format!("backbone.enc.enc{stage}");
        if stage > 0 {
            affine(&mut names, &format!("{at}.down.proj"));
            norm(&mut names, &format!("{at}.down.norm.0"));
        }
        (0..depth).for_each(|i| block(&mut names, format!("{at}.block{i}")));
    }
    for stage in 0..4 {
        let at = format!("backbone.dec.dec{stage}");
        for part in ["proj", "proj_skip"] {
            affine(&mut names, &format!("{at}.up.{part}.0"));
            norm(&mut names, &format!("{at}.up.{part}.1"));
        }
        (0..2).for_each(|i| block(&mut names, format!("{at}.block{i}")));
    }
    check(Library::Spconv, "ptv3", "state_dict.module.", names, &[]);
}
