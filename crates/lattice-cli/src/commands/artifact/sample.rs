//! Inputs and results to try an exported network on.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};
use burn::tensor::{Device, FloatDType, Tensor, TensorData};
use burn_lattice::SparseTensor;
use burn_lattice::ops::{self, VoxelGrid, VoxelizeOptions};
use lattice_artifact::ir::Element;
use lattice_artifact::{Array, physical_rows, write_arrays};
use lattice_models::Network;
use lattice_scenes::{SceneKind, SceneOptions};

use crate::{features, scene};

/// Voxels of a scene, with the features that networks trained here are told, or values that look random where the network takes another number
/// of channels.
///
/// # Errors
/// A scan that cannot be read or holds no points.
pub fn voxels(
    path: Option<&Path>,
    seed: u64,
    (channels, voxel_size): (usize, Option<f64>),
    device: &Device,
) -> Result<SparseTensor> {
    let cloud = match path {
        Some(path) => scene::load(path, None)?,
        None => lattice_scenes::generate(SceneKind::Lidar, seed, &SceneOptions::default()),
    };
    if cloud.is_empty() {
        bail!("--scene: expected points, found none; check the file");
    }
    let size = scene::voxel_size(voxel_size, &cloud)?;
    let positions = scene::positions_f32(&cloud);
    let n = positions.len();
    let told = match channels == features::channels(&features::DEFAULT) {
        true => features::of_points(&cloud, &positions, &features::DEFAULT, size as f32, device)?,
        false => {
            let value = |i: usize| ((i * 37 % 101) as f32 - 50.0) / 50.0;
            Tensor::from_data(
                TensorData::new((0..n * channels).map(value).collect::<Vec<f32>>(), [n, channels]),
                device,
            )
        }
    };
    let points = Tensor::<2>::from_data(TensorData::new(positions.as_flattened().to_vec(), [n, 3]), device);
    let grid = VoxelGrid::cubic(size as f32)?;
    Ok(ops::voxelize(points, told, None, &VoxelizeOptions::new(grid))?)
}

/// Writes `inputs.safetensors` and `expected.safetensors`: the voxels as the artifact's input `x`, and what the network itself makes of them.
///
/// # Errors
/// What the network refuses; a folder that cannot be written.
pub fn write(folder: &Path, network: &Network, x: &SparseTensor, element: Element) -> Result<[PathBuf; 2]> {
    let rounded = |x: &SparseTensor, name: &str| -> Result<[(String, Array); 3]> {
        let rows = physical_rows(x).map_err(|e| anyhow!("{name}: {e}"))?;
        let values: Vec<f32> = x.feats().clone().cast(FloatDType::F32).into_data().iter::<f32>().collect();
        let features =
            Array::from_floats(element, &x.feats().dims(), &values).map_err(|e| anyhow!("{name}: {e}"))?;
        let active = Array::from_i32(&[1], &[x.n_rows() as i32]).map_err(|e| anyhow!("{name}: {e}"))?;
        Ok([
            (format!("{name}coords"), Array::from_coords(&rows)),
            (format!("{name}features"), features),
            (format!("{name}active"), active),
        ])
    };
    let outputs: Vec<(String, SparseTensor)> = match network {
        Network::MinkUNet(unet) => vec![("scores".into(), unet.try_forward(x)?)],
        Network::SparseResNet(encoder) => levels(encoder.try_forward(x)?),
        Network::Second(encoder) => levels(encoder.try_forward(x)?.levels),
        _ => bail!("--sample: expected a network that is exported, found another"),
    };
    std::fs::create_dir_all(folder).map_err(|e| anyhow!("--sample {}: {e}", folder.display()))?;
    let mut expected = Vec::new();
    for (name, y) in &outputs {
        expected.extend(rounded(y, &format!("{name}."))?);
    }
    let files = ["inputs.safetensors", "expected.safetensors"].map(|name| folder.join(name));
    for (file, arrays) in files.iter().zip([rounded(x, "x_")?.to_vec(), expected]) {
        let arrays = arrays.iter().map(|(name, array)| (name.as_str(), array));
        write_arrays(file, arrays).map_err(|e| anyhow!("--sample {e}"))?;
    }
    Ok(files)
}

fn levels(all: Vec<SparseTensor>) -> Vec<(String, SparseTensor)> {
    all.into_iter().enumerate().map(|(i, level)| (format!("level{i}"), level)).collect()
}
