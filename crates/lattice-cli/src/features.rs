//! What networks are told of each point.

use anyhow::{Result, anyhow, bail, ensure};
use burn::tensor::{Device, Tensor, TensorData};
use lattice_io::{Attribute, PointCloud};
use lattice_train::{ground_height, place_in_voxel};

/// One group of input channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// Constant 1.
    One,
    /// Place inside the voxel, -0.5 to 0.5 along x, y, z.
    Place,
    /// Height above the lowest 1 % of the scan.
    Height,
    /// Position along x, y, z in the scan's unit.
    Xyz,
    /// The scan's intensity.
    Intensity,
    /// The scan's colour, 0 to 1.
    Rgb,
}

const WORDS: [(&str, Feature, usize); 6] = [
    ("one", Feature::One, 1),
    ("place", Feature::Place, 3),
    ("height", Feature::Height, 1),
    ("xyz", Feature::Xyz, 3),
    ("intensity", Feature::Intensity, 1),
    ("rgb", Feature::Rgb, 3),
];

/// Features of networks that were trained here: constant, place, height.
pub const DEFAULT: [Feature; 3] = [Feature::One, Feature::Place, Feature::Height];

/// Reads a list such as `xyz,intensity`.
///
/// # Errors
/// A word that is not in the list.
pub fn parse(list: &str) -> Result<Vec<Feature>> {
    let word = |word: &str| {
        let found = WORDS.iter().find(|(name, ..)| *name == word).map(|(_, feature, _)| *feature);
        found.ok_or_else(|| {
            anyhow!(
                "--features: expected words of {}, found `{word}`",
                WORDS.map(|(name, ..)| name).join(", ")
            )
        })
    };
    list.split(',').map(str::trim).map(word).collect()
}

/// Channels of a list of features.
pub fn channels(features: &[Feature]) -> usize {
    let of = |feature: &Feature| WORDS.iter().find(|(_, f, _)| f == feature).map_or(0, |(.., n)| *n);
    features.iter().map(of).sum()
}

/// Checks that the features are as many channels as the network takes.
///
/// # Errors
/// Another number.
pub fn check(features: &[Feature], network: usize) -> Result<()> {
    let found = channels(features);
    ensure!(
        found == network,
        "--features: expected {network} channels, which the network takes, found {found}; choose among one, place (3), height, xyz (3), \
         intensity and rgb (3), in the order that it was trained with"
    );
    Ok(())
}

/// The features of every point of a cloud at these positions, `[points, channels]`.
///
/// # Errors
/// A scan without the intensity or colour that is asked for.
pub fn of_points(
    cloud: &PointCloud,
    positions: &[[f32; 3]],
    features: &[Feature],
    voxel_size: f32,
    device: &Device,
) -> Result<Tensor<2>> {
    let ground = if features.contains(&Feature::Height) { ground_height(positions) } else { 0.0 };
    let width = channels(features);
    let mut values = Vec::with_capacity(cloud.len() * width);
    let intensity = cloud.attributes.get("intensity");
    let colours = match cloud.attributes.get("rgb") {
        Some(Attribute::Rgb(colours)) => Some(colours),
        _ => None,
    };
    for (row, p) in positions.iter().enumerate() {
        for feature in features {
            match feature {
                Feature::One => values.push(1.0),
                Feature::Place => values.extend(place_in_voxel(*p, voxel_size)),
                Feature::Height => values.push(p[2] - ground),
                Feature::Xyz => values.extend(p),
                Feature::Intensity => match intensity {
                    Some(intensity) => values.push(intensity.get(row) as f32),
                    None => bail!("--features: expected a scan with intensity, found none; leave it out"),
                },
                Feature::Rgb => match colours {
                    Some(colours) => values.extend(colours[row].map(|c| f32::from(c) / 255.0)),
                    None => bail!("--features: expected a scan with colours, found none; leave rgb out"),
                },
            }
        }
    }
    Ok(Tensor::from_data(TensorData::new(values, [cloud.len(), width]), device))
}
