//! The weights that come with the command: a small network trained on generated lidar sweeps.

use lattice_io::PointCloud;
use lattice_models::ModelSpec;
use lattice_train::INPUT_CHANNELS;

use crate::segmenter::{Choice, Source};
use crate::{scene, weights};

/// The file, as `lattice train` wrote it; weights of convolutions in half precision.
pub const WEIGHTS: &[u8] = include_bytes!("../weights/minkunet-small-lidar.safetensors");
/// What reports call it.
pub const NAME: &str = "shipped (minkunet-small, trained on generated lidar sweeps)";
/// The network that the weights are of.
const MODEL: &str = "minkunet-small";
/// Edge of the voxels of the training.
const VOXEL_SIZE: f64 = 0.15;
/// How far scans like the sweeps of the training reach across, in their unit.
const ACROSS: std::ops::RangeInclusive<f64> = 30.0..=300.0;

/// Whether the longest horizontal side of a scan is one of an outdoor scan in metres.
pub fn is_outdoors(cloud: &PointCloud) -> bool {
    let (low, high) = scene::bounds(cloud);
    ACROSS.contains(&(high[0] - low[0]).max(high[1] - low[1]))
}

/// The network of the shipped weights.
pub fn choice() -> Choice<'static> {
    let classes = weights::lidar_classes();
    Choice {
        spec: ModelSpec::new(MODEL.into(), INPUT_CHANNELS).with_classes(classes.len()),
        classes,
        voxel_size: Some(VOXEL_SIZE),
        source: Source::Shipped,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use lattice_train::WeightsInfo;

    use super::{MODEL, VOXEL_SIZE, choice};

    #[test]
    fn the_file_says_what_the_command_takes_it_for() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("weights/minkunet-small-lidar.safetensors");
        let info = WeightsInfo::read(&path).expect("a weights file").expect("a description of the network");
        assert_eq!(
            (info.model.as_str(), info.voxel_size, info.classes),
            (MODEL, VOXEL_SIZE, choice().classes)
        );
    }
}
