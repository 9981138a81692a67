//! What networks are told of each point.

use anyhow::{Result, anyhow, bail, ensure};
use burn::tensor::{Device, Tensor, TensorData};
use lattice_io::{Attribute, PointCloud};

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

/// The height that 1 % of the points lie below.
fn ground_height(cloud: &PointCloud) -> f64 {
    let mut heights: Vec<f64> = cloud.positions.iter().map(|p| p[2]).collect();
    let rank = heights.len() / 100;
    let (_, height, _) = heights.select_nth_unstable_by(rank, f64::total_cmp);
    *height
}

/// The features of every point, `[points, channels]`.
///
/// # Errors
/// A scan without the intensity or colour that is asked for.
pub fn of_points(
    cloud: &PointCloud,
    features: &[Feature],
    voxel_size: f64,
    device: &Device,
) -> Result<Tensor<2>> {
    let ground = if features.contains(&Feature::Height) { ground_height(cloud) } else { 0.0 };
    let size = voxel_size as f32;
    let width = channels(features);
    let mut values = Vec::with_capacity(cloud.len() * width);
    let intensity = cloud.attributes.get("intensity");
    let colours = match cloud.attributes.get("rgb") {
        Some(Attribute::Rgb(colours)) => Some(colours),
        _ => None,
    };
    for (row, p) in cloud.positions.iter().enumerate() {
        for feature in features {
            match feature {
                Feature::One => values.push(1.0),
                // In f32, as voxels are found: a point on a cell's border stands on the same side for both.
                Feature::Place => {
                    values.extend(p.map(|v| (v as f32 / size - (v as f32 / size).floor()) - 0.5));
                }
                Feature::Height => values.push((p[2] - ground) as f32),
                Feature::Xyz => values.extend(p.map(|v| v as f32)),
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
