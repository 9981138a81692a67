//! Names of parameters in published networks, and where they stand here.

use crate::Library;

type Renames = Vec<(String, String)>;

fn add(list: &mut Renames, from: impl Into<String>, to: impl Into<String>) {
    list.push((from.into(), to.into()));
}

/// Renames of a library's networks; none where the network has no published one there.
pub(crate) fn renames(library: Library, model: &str) -> Renames {
    let mut list = match (library, model) {
        (Library::Minkowski, "completion") => minkowski_completion(),
        (Library::Minkowski, name) if name.starts_with("minkunet") => minkowski_unet(),
        (Library::Torchsparse, "sparseresnet21d") => torchsparse_resnet(),
        (Library::Torchsparse, name) if name.contains("unet") || name == "spvcnn" => torchsparse_unet(name),
        (Library::Spconv, "voxelbackbone8x") => detector(false, 4),
        (Library::Spconv, "voxelresbackbone8x") => detector(true, 4),
        (Library::Spconv, "voxelnext") => voxelnext(),
        (Library::Spconv, "ptv3") => ptv3(),
        _ => Renames::new(),
    };
    // What a library calls its weights and norms everywhere.
    match library {
        Library::Minkowski => {
            add(&mut list, r"(norm[0-9]*)\.bn\.", "$1.");
            add(&mut list, r"(^|\.)kernel$", "${1}weight");
        }
        Library::Torchsparse | Library::Open3d => add(&mut list, r"(^|\.)kernel$", "${1}weight"),
        Library::Ocnn => add(&mut list, r"(^|\.)weights$", "${1}weight"),
        _ => {}
    }
    // Norms call their scale and shift as linear maps do.
    add(&mut list, r"((?:^|[._])norm[0-9]*)\.weight$", "$1.gamma");
    add(&mut list, r"((?:^|[._])norm[0-9]*)\.bias$", "$1.beta");
    list
}

fn minkowski_unet() -> Renames {
    let mut list = Renames::new();
    add(&mut list, r"^conv0p1s1\.kernel$", "stem.0.conv.weight");
    add(&mut list, r"^bn0\.bn\.", "stem.0.norm.");
    for level in 0..4 {
        let (n, from) = (level + 1, 1 << level);
        add(&mut list, format!(r"^conv{n}p{from}s2\.kernel$"), format!("encoder.{level}.down.conv.weight"));
        add(&mut list, format!(r"^bn{n}\.bn\."), format!("encoder.{level}.down.norm."));
        add(&mut list, format!(r"^block{n}\."), format!("encoder.{level}.blocks."));
        let (n, from) = (level + 4, 16 >> level);
        add(&mut list, format!(r"^convtr{n}p{from}s2\.kernel$"), format!("decoder.{level}.up.conv.weight"));
        add(&mut list, format!(r"^bntr{n}\.bn\."), format!("decoder.{level}.up.norm."));
        add(&mut list, format!(r"^block{}\.", level + 5), format!("decoder.{level}.blocks."));
    }
    add(&mut list, r"\.conv([12])\.kernel$", ".conv$1.conv.weight");
    add(&mut list, r"\.norm([12])\.bn\.", ".conv$1.norm.");
    add(&mut list, r"\.downsample\.0\.kernel$", ".shortcut.conv.weight");
    add(&mut list, r"\.downsample\.1\.bn\.", ".shortcut.norm.");
    add(&mut list, r"^final\.kernel$", "head.conv.weight");
    add(&mut list, r"^final\.bias$", "head.conv.bias");
    list
}

fn minkowski_completion() -> Renames {
    let mut list = Renames::new();
    add(&mut list, r"^enc_block_s1\.0\.kernel$", "encoder.0.conv.conv.weight");
    add(&mut list, r"^enc_block_s1\.1\.bn\.", "encoder.0.conv.norm.");
    for level in 1..7 {
        let (fine, coarse) = (1 << (level - 1), 1 << level);
        let block = format!(r"^enc_block_s{fine}s{coarse}\.");
        let to = format!("encoder.{level}.");
        add(&mut list, format!(r"{block}0\.kernel$"), format!("{to}down.conv.weight"));
        add(&mut list, format!(r"{block}1\.bn\."), format!("{to}down.norm."));
        add(&mut list, format!(r"{block}3\.kernel$"), format!("{to}conv.conv.weight"));
        add(&mut list, format!(r"{block}4\.bn\."), format!("{to}conv.norm."));
        let block = format!(r"^dec_block_s{coarse}s{fine}\.");
        let to = format!("decoder.{}.", 6 - level);
        add(&mut list, format!(r"{block}0\.kernel$"), format!("{to}up.weight"));
        add(&mut list, format!(r"{block}1\.bn\."), format!("{to}up_norm."));
        add(&mut list, format!(r"{block}3\.kernel$"), format!("{to}conv.conv.weight"));
        add(&mut list, format!(r"{block}4\.bn\."), format!("{to}conv.norm."));
        add(&mut list, format!(r"^dec_s{fine}_cls\.kernel$"), format!("{to}score.conv.weight"));
        add(&mut list, format!(r"^dec_s{fine}_cls\.bias$"), format!("{to}score.conv.bias"));
    }
    list
}

/// Residual blocks of torchsparse's networks.
fn torchsparse_blocks(list: &mut Renames) {
    for (from, to) in [(0, 1), (3, 2)] {
        add(list, format!(r"\.(?:net|main)\.{from}\.kernel$"), format!(".conv{to}.conv.weight"));
        add(list, format!(r"\.(?:net|main)\.{}\.", from + 1), format!(".conv{to}.norm."));
    }
    add(list, r"\.(?:downsample|shortcut)\.0\.kernel$", ".shortcut.conv.weight");
    add(list, r"\.(?:downsample|shortcut)\.1\.", ".shortcut.norm.");
}

/// Names of the segmentation networks (`stage1`, `up1`) and of the library's backbone (`encoders.0`, `decoders.0`).
fn torchsparse_unet(model: &str) -> Renames {
    let mut list = Renames::new();
    for (from, to) in [(0, 0), (3, 1)] {
        add(&mut list, format!(r"^stem\.{from}\.kernel$"), format!("stem.{to}.conv.weight"));
        add(&mut list, format!(r"^stem\.{}\.(weight|bias|running)", from + 1), format!("stem.{to}.norm.$1"));
    }
    for level in 0..4 {
        let n = level + 1;
        let (down, up) = (format!("encoder.{level}.down."), format!("decoder.{level}.up."));
        for (from, to) in [
            (format!(r"stage{n}\.0\.net"), &down),
            (format!(r"encoders\.{level}\.0"), &down),
            (format!(r"up{n}\.0\.net"), &up),
            (format!(r"decoders\.{level}\.upsample"), &up),
        ] {
            add(&mut list, format!(r"^{from}\.0\.kernel$"), format!("{to}conv.weight"));
            add(&mut list, format!(r"^{from}\.1\."), format!("{to}norm."));
        }
        for block in 0..2 {
            let to = format!("encoder.{level}.blocks.{block}.");
            add(&mut list, format!(r"^(?:stage{n}|encoders\.{level})\.{}\.", block + 1), to);
            let to = format!("decoder.{level}.blocks.{block}.");
            add(&mut list, format!(r"^(?:up{n}\.1|decoders\.{level}\.fuse)\.{block}\."), to);
        }
    }
    torchsparse_blocks(&mut list);
    if model == "spvcnn" {
        add(&mut list, r"^classifier\.0\.", "classifier.");
        add(&mut list, r"^point_transforms\.([0-9])\.0\.", "points.$1.linear.");
        add(&mut list, r"^point_transforms\.([0-9])\.1\.", "points.$1.norm.");
    } else {
        add(&mut list, r"^classifier\.0\.", "head.conv.");
    }
    list
}

fn torchsparse_resnet() -> Renames {
    let mut list = Renames::new();
    add(&mut list, r"^([0-4])\.0\.0\.kernel$", "stages.$1.conv.conv.weight");
    add(&mut list, r"^([0-4])\.0\.1\.", "stages.$1.conv.norm.");
    for block in 0..2 {
        let to = format!("stages.$1.blocks.{block}.");
        add(&mut list, format!(r"^([0-4])\.{}\.", block + 1), to);
    }
    torchsparse_blocks(&mut list);
    list
}

/// OpenPCDet's backbones, of this many levels.
fn detector(residual: bool, levels: usize) -> Renames {
    let mut list = Renames::new();
    add(&mut list, r"^conv_input\.0\.", "levels.0.convs.0.conv.");
    add(&mut list, r"^conv_input\.1\.", "levels.0.convs.0.norm.");
    if residual {
        add(&mut list, r"^conv1\.([01])\.", "levels.0.blocks.$1.");
    } else {
        add(&mut list, r"^conv1\.0\.0\.", "levels.0.convs.1.conv.");
        add(&mut list, r"^conv1\.0\.1\.", "levels.0.convs.1.norm.");
    }
    for level in 1..levels {
        let n = level + 1;
        add(&mut list, format!(r"^conv{n}\.0\.0\."), format!("levels.{level}.down.conv."));
        add(&mut list, format!(r"^conv{n}\.0\.1\."), format!("levels.{level}.down.norm."));
        for i in 0..2 {
            let from = format!(r"^conv{n}\.{}\.", i + 1);
            if residual {
                add(&mut list, from, format!("levels.{level}.blocks.{i}."));
            } else {
                add(&mut list, format!(r"{from}0\."), format!("levels.{level}.convs.{i}.conv."));
                add(&mut list, format!(r"{from}1\."), format!("levels.{level}.convs.{i}.norm."));
            }
        }
    }
    add(&mut list, r"\.conv([12])\.(weight|bias)$", ".conv$1.conv.$2");
    add(&mut list, r"\.bn([12])\.", ".conv$1.norm.");
    add(&mut list, r"^conv_out\.0\.", "last.conv.");
    add(&mut list, r"^conv_out\.1\.", "last.norm.");
    list
}

fn voxelnext() -> Renames {
    let mut list = Renames::new();
    add(&mut list, r"^conv_out\.0\.", "merge.conv.");
    add(&mut list, r"^conv_out\.1\.", "merge.norm.");
    add(&mut list, r"^shared_conv\.0\.", "shared.conv.");
    add(&mut list, r"^shared_conv\.1\.", "shared.norm.");
    list.extend(detector(true, 6));
    list
}

/// Pointcept's PTv3, with or without its segmentor around it.
fn ptv3() -> Renames {
    let mut list = Renames::new();
    add(&mut list, r"^backbone\.", "");
    add(&mut list, r"^seg_head\.", "head.");
    add(&mut list, r"^embedding\.stem\.conv\.", "embedding.");
    add(&mut list, r"^embedding\.stem\.norm\.", "embedding_norm.");
    add(&mut list, r"^enc\.enc([0-9])\.down\.proj\.", "encoder.$1.down.linear.");
    add(&mut list, r"^enc\.enc([0-9])\.down\.norm\.0\.", "encoder.$1.down.norm.");
    add(&mut list, r"^enc\.enc([0-9])\.block([0-9]+)\.", "encoder.$1.blocks.$2.");
    for stage in 0..4 {
        let (from, to) = (format!(r"^dec\.dec{stage}\."), format!("decoder.{}.", 3 - stage));
        for (part, ours) in [("proj", "up"), ("proj_skip", "skip")] {
            add(&mut list, format!(r"{from}up\.{part}\.0\."), format!("{to}{ours}.linear."));
            add(&mut list, format!(r"{from}up\.{part}\.1\."), format!("{to}{ours}.norm."));
        }
        add(&mut list, format!(r"{from}block([0-9]+)\."), format!("{to}blocks.$1."));
    }
    for (i, part) in ["cpe_conv", "cpe_linear", "cpe_norm"].into_iter().enumerate() {
        add(&mut list, format!(r"\.cpe\.{i}\."), format!(".{part}."));
    }
    add(&mut list, r"\.norm([12])\.0\.", ".norm$1.");
    add(&mut list, r"\.attn\.", ".attention.");
    add(&mut list, r"\.mlp\.0\.", ".");
    list
}
