//! The list of networks by name.

use burn::config::Config;
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};
use burn_lattice::{Error, Result};

use crate::{
    CompletionNet, CompletionNetConfig, MINKUNET_NAMES, MinkUNet, MinkUNetConfig, PtBlock, PtBlockConfig,
    PtV3, PtV3Config, SecondEncoder, SecondEncoderConfig, SparseResNet, SparseResNetConfig, Spvcnn,
    SpvcnnConfig, VoxelNext, VoxelNextConfig, seed_parameters,
};

/// What a network is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Task {
    /// Scores for every voxel or point.
    Segmentation,
    /// Features of several levels.
    Backbone,
    /// Bird's-eye features for a detector's head.
    Detection,
    /// Voxels that a scan lacks.
    Completion,
    /// A part of a network.
    Block,
}

/// One network of the list.
#[derive(Clone, Copy, Debug)]
pub struct ZooEntry {
    /// The name that [`ModelSpec`] takes.
    pub name: &'static str,
    /// What it is made for.
    pub task: Task,
    /// The published name.
    pub published_as: &'static str,
}

const fn entry(name: &'static str, task: Task, published_as: &'static str) -> ZooEntry {
    ZooEntry { name, task, published_as }
}

/// Networks besides the MinkUNets.
const OTHERS: [ZooEntry; 8] = [
    entry("spvcnn", Task::Segmentation, "SPVCNN"),
    entry("ptv3", Task::Segmentation, "Point Transformer V3"),
    entry("ptv3-block", Task::Block, "Point Transformer V3's block of 64 channels and 4 heads"),
    entry("sparseresnet21d", Task::Backbone, "SparseResNet21D of torchsparse"),
    entry("voxelbackbone8x", Task::Detection, "VoxelBackBone8x of SECOND"),
    entry("voxelresbackbone8x", Task::Detection, "VoxelResBackBone8x of CenterPoint"),
    entry("voxelnext", Task::Detection, "VoxelResBackBone8xVoxelNeXt"),
    entry("completion", Task::Completion, "completion network of MinkowskiEngine"),
];

/// All networks that [`ModelSpec`] makes.
pub fn zoo() -> Vec<ZooEntry> {
    let unets = MINKUNET_NAMES.iter().map(|&name| entry(name, Task::Segmentation, "MinkUNet"));
    unets.chain(OTHERS).collect()
}

/// Names of the networks for a task, or of all.
pub fn zoo_names(task: Option<Task>) -> Vec<&'static str> {
    zoo().into_iter().filter(|e| task.is_none_or(|t| t == e.task)).map(|e| e.name).collect()
}

/// A network of the list with its widths at both ends.
#[derive(Config, Debug)]
pub struct ModelSpec {
    /// A name of [`zoo`].
    pub name: String,
    /// Channels of the input features. A block keeps its own.
    pub in_channels: usize,
    /// Classes, where the network has a head.
    #[config(default = 20)]
    pub classes: usize,
    /// Cells of a detector's range along x, y, z.
    #[config(default = "[1408, 1600, 41]")]
    pub grid: [usize; 3],
    /// `eps` of the batch norms; the published one by default.
    pub norm_eps: Option<f64>,
}

/// How a parameter is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParameterRole {
    /// Convolution weight `[taps, c_in, c_out]` with this kernel size along x, y, z.
    Convolution([usize; 3]),
    /// Transposed convolution onto known rows.
    Transposed([usize; 3]),
    /// Transposed convolution that makes its rows.
    Generative([usize; 3]),
    /// Linear weight `[c_in, c_out]`.
    Linear,
    /// Bias, scale, shift or statistic `[c]`.
    Vector,
}

/// A parameter of a network: where it stands and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterPlace {
    /// Path in the module, as weight files name it.
    pub path: String,
    /// Dimensions.
    pub shape: Vec<usize>,
    /// How it is used.
    pub role: ParameterRole,
}

/// A network of the list.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "networks are few, and their parameters lie elsewhere")]
pub enum Network {
    /// MinkUNets.
    MinkUNet(MinkUNet),
    /// SPVCNN.
    Spvcnn(Spvcnn),
    /// Point Transformer V3.
    PtV3(PtV3),
    /// Its block.
    PtBlock(PtBlock),
    /// SparseResNet21D.
    SparseResNet(SparseResNet),
    /// VoxelBackBone8x and VoxelResBackBone8x.
    Second(SecondEncoder),
    /// VoxelNeXt's backbone.
    VoxelNext(VoxelNext),
    /// The completion network.
    Completion(CompletionNet),
}

/// The same expression for the module of every variant.
macro_rules! each {
    ($network:expr, $module:ident => $body:expr) => {
        match $network {
            Network::MinkUNet($module) => $body,
            Network::Spvcnn($module) => $body,
            Network::PtV3($module) => $body,
            Network::PtBlock($module) => $body,
            Network::SparseResNet($module) => $body,
            Network::Second($module) => $body,
            Network::VoxelNext($module) => $body,
            Network::Completion($module) => $body,
        }
    };
}

impl ModelSpec {
    /// Allocates the network.
    ///
    /// # Errors
    /// [`Error::Value`] for an unknown name, or zero channels or classes.
    pub fn init(&self, device: &Device) -> Result<Network> {
        let op = "ModelSpec";
        if self.in_channels == 0 || self.classes == 0 {
            return Err(Error::Value {
                op,
                what: format!(
                    "expected input channels and classes above 0, found {} and {}",
                    self.in_channels, self.classes
                ),
            });
        }
        let (c, classes) = (self.in_channels, self.classes);
        if MINKUNET_NAMES.contains(&self.name.as_str()) {
            let config = MinkUNetConfig::named(&self.name, c, classes)?;
            let eps = self.eps(config.norm_eps);
            return Ok(Network::MinkUNet(config.with_norm_eps(eps).init(device)));
        }
        /// The config with its `eps` replaced where one is asked for.
        macro_rules! with_eps {
            ($config:expr) => {{
                let config = $config;
                let eps = self.eps(config.norm_eps);
                config.with_norm_eps(eps).init(device)
            }};
        }
        Ok(match self.name.as_str() {
            "spvcnn" => Network::Spvcnn(with_eps!(SpvcnnConfig::new(c, classes))),
            "ptv3" => Network::PtV3(with_eps!(PtV3Config::new(c, classes))),
            "ptv3-block" => Network::PtBlock(PtBlockConfig::new(64, 4).init(device)),
            "sparseresnet21d" => Network::SparseResNet(with_eps!(SparseResNetConfig::new(c))),
            "voxelbackbone8x" => Network::Second(with_eps!(SecondEncoderConfig::new(c, self.grid))),
            "voxelresbackbone8x" => Network::Second(with_eps!(SecondEncoderConfig::residual(c, self.grid))),
            "voxelnext" => Network::VoxelNext(with_eps!(VoxelNextConfig::new(c, self.grid))),
            "completion" => Network::Completion(with_eps!(CompletionNetConfig::new(c))),
            name => {
                return Err(Error::Value {
                    op,
                    what: format!("expected one of {}, found `{name}`", zoo_names(None).join(", ")),
                });
            }
        })
    }

    fn eps(&self, published: f64) -> f64 {
        self.norm_eps.unwrap_or(published)
    }
}

/// Kernels that are no cubes, by the end of their path.
const NOT_CUBES: [(&str, [usize; 3]); 4] = [
    ("last.conv.weight", [1, 1, 3]),
    ("merge.conv.weight", [3, 3, 1]),
    ("shared.conv.weight", [3, 3, 1]),
    ("stages.4.conv.conv.weight", [1, 3, 1]),
];

/// Kernel size of a convolution with this many taps.
fn kernel_size(path: &str, taps: usize) -> [usize; 3] {
    let listed = NOT_CUBES.iter().find(|(end, size)| path == *end && size.iter().product::<usize>() == taps);
    match listed {
        Some((_, size)) => *size,
        None => [(1..).find(|k: &usize| k.pow(3) >= taps).unwrap_or(1); 3],
    }
}

#[derive(Default)]
struct Places {
    at: Vec<String>,
    found: Vec<ParameterPlace>,
}

impl ModuleVisitor for Places {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.at.push(name.into());
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.at.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.at.join(".");
        let shape = param.lazy_shape().to_vec();
        let role = match shape.len() {
            1 => ParameterRole::Vector,
            2 => ParameterRole::Linear,
            _ => {
                let size = kernel_size(&path, shape[0]);
                if path.ends_with(".up.weight") {
                    ParameterRole::Generative(size)
                } else if path.ends_with(".up.conv.weight") {
                    ParameterRole::Transposed(size)
                } else {
                    ParameterRole::Convolution(size)
                }
            }
        };
        self.found.push(ParameterPlace { path, shape, role });
    }
}

/// Counts values that are learned.
struct Learned(usize);

impl ModuleVisitor for Learned {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let statistic = !param.val().is_require_grad();
        self.0 += if statistic { 0 } else { param.val().shape().num_elements() };
    }
}

/// Learned values of a module that was made on a device with autodiff; running statistics are stored beside them but not learned.
pub fn learned_parameters(module: &impl Module) -> usize {
    let mut count = Learned(0);
    module.visit(&mut count);
    count.0
}

impl Network {
    /// Every parameter, statistics of norms included, in the order of the module's fields.
    pub fn parameters(&self) -> Vec<ParameterPlace> {
        let mut places = Places::default();
        each!(self, module => module.visit(&mut places));
        places.found
    }

    /// [`learned_parameters`] of the network.
    pub fn learned_parameters(&self) -> usize {
        each!(self, module => learned_parameters(module))
    }

    /// [`seed_parameters`] of the network.
    pub fn seeded(self, seed: u64) -> Self {
        match self {
            Self::MinkUNet(m) => Self::MinkUNet(seed_parameters(m, seed)),
            Self::Spvcnn(m) => Self::Spvcnn(seed_parameters(m, seed)),
            Self::PtV3(m) => Self::PtV3(seed_parameters(m, seed)),
            Self::PtBlock(m) => Self::PtBlock(seed_parameters(m, seed)),
            Self::SparseResNet(m) => Self::SparseResNet(seed_parameters(m, seed)),
            Self::Second(m) => Self::Second(seed_parameters(m, seed)),
            Self::VoxelNext(m) => Self::VoxelNext(seed_parameters(m, seed)),
            Self::Completion(m) => Self::Completion(seed_parameters(m, seed)),
        }
    }
}
