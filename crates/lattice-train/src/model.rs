//! Networks that give each voxel a score a class.

use burn::module::{Devices, Module, ModuleMapper, ModuleVisitor};
use burn::tensor::{Device, Int, Tensor};
use burn_lattice::SparseTensor;
use burn_lattice::nn::{LayerMut, Layers};
use burn_lattice::ops::VoxelGrid;
use lattice_models::{MinkUNet, ModelSpec, Network, PtV3, Spvcnn, Task, zoo_names};

use crate::input::INPUT_CHANNELS;
use crate::{Result, TrainError};

/// The network that `lattice train` takes where none is named.
pub const DEFAULT_MODEL: &str = "minkunet-small";

/// A network from features on voxels to scores on the same voxels.
pub trait Segmenter: Module {
    /// `[n, INPUT_CHANNELS]` to `[n, classes]` on the same rows.
    ///
    /// # Errors
    /// What its layers refuse.
    fn scores(&self, x: &SparseTensor) -> burn_lattice::Result<SparseTensor>;

    /// Called before each forward pass of training with a number that no other pass of the run has, on any rank: what a network draws at
    /// random follows from it, so that a resumed run draws the same.
    fn begin_pass(&self, number: u64) {
        let _ = number;
    }
}

impl Segmenter for MinkUNet {
    fn scores(&self, x: &SparseTensor) -> burn_lattice::Result<SparseTensor> {
        self.try_forward(x)
    }
}

impl Segmenter for PtV3 {
    fn scores(&self, x: &SparseTensor) -> burn_lattice::Result<SparseTensor> {
        self.try_forward(x)
    }
}

/// The points of the branch at full resolution are the voxels' centres: what training, validation and `lattice eval` know of points is in
/// their voxels. `lattice run` takes the scan's own points.
impl Segmenter for Spvcnn {
    fn scores(&self, x: &SparseTensor) -> burn_lattice::Result<SparseTensor> {
        let rows = x.n_rows();
        let coords: Tensor<2, Int> = x.coords();
        let centres = coords.clone().narrow(1, 1, 3).float() + 0.5;
        let items = coords.narrow(1, 0, 1).reshape([rows]);
        let scores = self.try_forward_from(x, centres, Some(items), &VoxelGrid::cubic(1.0)?)?;
        x.with_feats(scores)
    }

    fn begin_pass(&self, number: u64) {
        self.set_pass(number);
    }
}

/// A network by its name; places of parameters are those of the network itself.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one")]
pub enum SegmentationNet {
    /// MinkUNets, SparseResUNet42 among them.
    MinkUNet(MinkUNet),
    /// SPVCNN.
    Spvcnn(Spvcnn),
    /// Point Transformer V3.
    PtV3(PtV3),
}

/// The same expression for the network of every variant.
macro_rules! each {
    ($network:expr, $module:ident => $body:expr) => {
        match $network {
            SegmentationNet::MinkUNet($module) => $body,
            SegmentationNet::Spvcnn($module) => $body,
            SegmentationNet::PtV3($module) => $body,
        }
    };
}

/// The network of every variant, made from the one before.
macro_rules! in_place {
    ($network:expr, $module:ident => $body:expr) => {
        match $network {
            SegmentationNet::MinkUNet($module) => SegmentationNet::MinkUNet($body),
            SegmentationNet::Spvcnn($module) => SegmentationNet::Spvcnn($body),
            SegmentationNet::PtV3($module) => SegmentationNet::PtV3($body),
        }
    };
}

impl Module for SegmentationNet {
    fn collect_devices(&self, devices: Devices) -> Devices {
        each!(self, m => m.collect_devices(devices))
    }

    fn fork(self, device: &Device) -> Self {
        in_place!(self, m => m.fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        in_place!(self, m => m.to_device(device))
    }

    fn train(self) -> Self {
        in_place!(self, m => m.train())
    }

    fn valid(&self) -> Self {
        in_place!(self, m => m.valid())
    }

    fn materialize(self) -> Self {
        in_place!(self, m => m.materialize())
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        each!(self, m => m.visit(visitor));
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        in_place!(self, m => m.map(mapper))
    }
}

impl Segmenter for SegmentationNet {
    fn scores(&self, x: &SparseTensor) -> burn_lattice::Result<SparseTensor> {
        each!(self, m => m.scores(x))
    }

    fn begin_pass(&self, number: u64) {
        each!(self, m => m.begin_pass(number));
    }
}

impl Layers for SegmentationNet {
    fn visit_layers(&mut self, path: &str, visit: &mut dyn FnMut(LayerMut<'_>)) {
        each!(self, m => m.visit_layers(path, visit));
    }
}

/// A network by its name, with weights drawn from a seed.
///
/// # Errors
/// A name that is none of a network which scores voxels, no classes, or more than 254.
pub fn build_model(name: &str, classes: usize, seed: u64, device: &Device) -> Result<SegmentationNet> {
    if !(1..255).contains(&classes) {
        return Err(TrainError::option("classes", format!("expected 1 to 254 classes, found {classes}")));
    }
    let names = zoo_names(Some(Task::Segmentation));
    let unknown =
        || TrainError::option("--model", format!("expected one of {}, found `{name}`", names.join(", ")));
    if !names.contains(&name) {
        return Err(unknown());
    }
    let spec = ModelSpec::new(name.into(), INPUT_CHANNELS).with_classes(classes);
    match spec.init(device)?.seeded(seed) {
        Network::MinkUNet(m) => Ok(SegmentationNet::MinkUNet(m)),
        Network::Spvcnn(m) => Ok(SegmentationNet::Spvcnn(m)),
        Network::PtV3(m) => Ok(SegmentationNet::PtV3(m)),
        _ => Err(unknown()),
    }
}
