//! VoxelNeXt's backbone: a fully sparse encoder down to sparse bird's-eye features.
//!
//! Source: Chen et al., "VoxelNeXt" (CVPR 2023, arXiv:2303.11301); the layer list is that of its published backbone. Axes here are
//! x, y, z; that list writes its kernels z first. No weights are shipped.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use burn_lattice::core::{Coord, RowMap, Support};
use burn_lattice::nn::{ConvBlock, ConvBlockConfig};
use burn_lattice::ops;
use burn_lattice::trace::scope;
use burn_lattice::{Error, Result, SparseTensor};

use crate::detector::{DetectorLayers, SecondLevel};

/// Options of [`VoxelNext`].
#[derive(Config, Debug)]
pub struct VoxelNextConfig {
    /// Channels of the input features.
    pub in_channels: usize,
    /// Cells of the detection range along x, y, z, such as `[1440, 1440, 41]`; rows must lie inside.
    pub grid: [usize; 3],
    /// Channels of the first five levels; the sixth has those of the fifth. Levels four and five must agree, since they are merged.
    #[config(default = "[16, 32, 64, 128, 128]")]
    pub levels: [usize; 5],
    /// Kernel sizes of the strided convolutions to levels two to five; the one to level six is that to level five. Odd.
    #[config(default = "[3, 3, 3, 3]")]
    pub kernel_sizes: [usize; 4],
    /// Channels of the output.
    #[config(default = 128)]
    pub out_channels: usize,
    /// `eps` of the norms, but for the last one, which has 1e-5.
    #[config(default = 1e-3)]
    pub norm_eps: f64,
    /// `momentum` of the norms, but for the last one, which has 0.1.
    #[config(default = 0.01)]
    pub norm_momentum: f64,
}

/// Fully sparse detector backbone.
#[derive(Module, Debug)]
pub struct VoxelNext {
    /// Six levels, from fine to coarse.
    pub levels: Vec<SecondLevel>,
    /// 3x3 convolution over x and y that makes every cell it reaches.
    pub merge: ConvBlock,
    /// 3x3 convolution over x and y on the same cells.
    pub shared: ConvBlock,
}

/// What [`VoxelNext`] returns.
#[derive(Clone, Debug)]
pub struct VoxelNextOutput {
    /// The output of each of the six levels, from fine to coarse.
    pub levels: Vec<SparseTensor>,
    /// Bird's-eye features `[cells, out_channels]` on rows with z = 0, at stride 8.
    pub bev: SparseTensor,
}

impl VoxelNextConfig {
    /// Allocates the backbone.
    ///
    /// # Panics
    /// Zero channels; levels four and five of different widths.
    pub fn init(&self, device: &Device) -> VoxelNext {
        let [c1, c2, c3, c4, c5] = self.levels;
        assert!(c4 == c5, "VoxelNext: expected equal channels in levels four and five, found {c4} and {c5}");
        let mut layers = DetectorLayers {
            device,
            norm_eps: self.norm_eps,
            norm_momentum: self.norm_momentum,
            grid: self.grid,
            reach: true,
        };
        let first = SecondLevel {
            down: None,
            convs: vec![layers.subm([self.in_channels, c1])],
            blocks: (0..2).map(|_| layers.residual(c1)).collect(),
        };
        let [k2, k3, k4, k5] = self.kernel_sizes;
        let mut levels = vec![first];
        let mut merged = [0; 3];
        for (i, (channels, k)) in
            [([c1, c2], k2), ([c2, c3], k3), ([c3, c4], k4), ([c4, c5], k5), ([c5, c5], k5)]
                .into_iter()
                .enumerate()
        {
            levels.push(SecondLevel {
                down: Some(layers.strided(channels, [k; 3], [2; 3], [k / 2; 3])),
                convs: Vec::new(),
                blocks: (0..2).map(|_| layers.residual(channels[1])).collect(),
            });
            if i == 2 {
                merged = layers.grid;
            }
        }
        // Rows of levels five and six, doubled and quadrupled, stay inside level four's grid.
        let merged = [merged[0], merged[1], 1];
        let merge = layers
            .block([c4, self.out_channels])
            .with_kernel_size([3, 3, 1])
            .with_padding([1, 1, 0])
            .with_kernel_reach(true)
            .with_reach_range(Some(merged))
            .init_strided(device);
        let shared = ConvBlockConfig::new([self.out_channels; 2])
            .with_kernel_size([3, 3, 1])
            .with_bias(true)
            .init_subm(device);
        VoxelNext { levels, merge, shared }
    }
}

/// Sums the rows of several levels over z, on the lattice of the first: a level's coordinates are multiplied by `steps`.
fn flatten(levels: &[SparseTensor], steps: &[i32]) -> Result<SparseTensor> {
    let mut cells: Vec<Coord> = Vec::new();
    for (x, step) in levels.iter().zip(steps) {
        for (row, c) in x.support().to_host().coords().iter().enumerate() {
            let scaled = |v: i32| {
                v.checked_mul(*step).ok_or_else(|| Error::OutOfRange {
                    op: "VoxelNext",
                    row,
                    what: format!("expected coordinates whose {step}-fold is inside i32, found {c:?}"),
                })
            };
            cells.push([c[0], scaled(c[1])?, scaled(c[2])?, 0]);
        }
    }
    let support = Support::canonical(cells.clone())?;
    let place = support.lookup_all(&cells);
    let mut order: Vec<u32> = (0..cells.len() as u32).collect();
    order.sort_by_key(|&row| place[row as usize]);
    let mut splits = vec![0; support.n_rows() + 1];
    for &cell in &place {
        splits[cell as usize + 1] += 1;
    }
    for i in 1..splits.len() {
        splits[i] += splits[i - 1];
    }
    let map = RowMap::try_new(cells.len(), splits, order, None)?;
    let feats = Tensor::cat(levels.iter().map(|x| x.feats().clone()).collect(), 0);
    let feats = ops::mix_rows(feats, &map.into(), 0.0);
    let first = &levels[0];
    SparseTensor::with_manager(support.into(), feats, first.stride(), first.manager().clone())
}

impl VoxelNext {
    /// `[n, in_channels]` to the levels and sparse bird's-eye features.
    ///
    /// # Panics
    /// With the error of [`try_forward`](Self::try_forward).
    pub fn forward(&self, x: &SparseTensor) -> VoxelNextOutput {
        self.try_forward(x).unwrap_or_else(|error| panic!("{error}"))
    }

    /// [`forward`](Self::forward) that returns its error. Reads the coordinates of the three coarsest levels on the host.
    ///
    /// # Errors
    /// Channels that differ from the config's, and what building a relation may meet.
    pub fn try_forward(&self, x: &SparseTensor) -> Result<VoxelNextOutput> {
        let mut levels: Vec<SparseTensor> = Vec::new();
        for (i, level) in self.levels.iter().enumerate() {
            let y = level.run(i, levels.last().unwrap_or(x))?;
            levels.push(y);
        }
        let flat = scope("flatten", || flatten(&levels[3..], &[1, 2, 4]))?;
        let bev = scope("merge", || self.merge.try_forward(&flat, None, None))?;
        let bev = scope("shared", || self.shared.try_forward(&bev, None, None))?;
        Ok(VoxelNextOutput { levels, bev })
    }
}
