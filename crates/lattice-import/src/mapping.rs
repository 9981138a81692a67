//! What a library's checkpoints look like, and files that change it.

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;

use lattice_models::{Task, zoo};
use serde::{Deserialize, Serialize};

use crate::names;
use crate::{Axes, ImportError, Result, TapOrder, UnitKernel, WeightLayout};

/// A library whose checkpoints can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Library {
    /// spconv 1.x and 2.x, and what is built on it: OpenPCDet, Pointcept.
    Spconv,
    /// MinkowskiEngine 0.5.
    Minkowski,
    /// torchsparse 1.x to 2.1.
    Torchsparse,
    /// torch-lattice, and lattice artifacts.
    TorchLattice,
    /// WarpConvNet.
    WarpConvNet,
    /// ocnn-pytorch.
    Ocnn,
    /// Open3D-ML's SparseConv layers.
    Open3d,
    /// TRELLIS, TRELLIS.2 and FlexGEMM.
    Trellis,
    /// fVDB 0.6.
    Fvdb,
}

impl Library {
    /// All libraries with their names.
    pub const ALL: [(&str, Self); 9] = [
        ("spconv", Self::Spconv),
        ("minkowski", Self::Minkowski),
        ("torchsparse", Self::Torchsparse),
        ("torch-lattice", Self::TorchLattice),
        ("warpconvnet", Self::WarpConvNet),
        ("ocnn", Self::Ocnn),
        ("open3d", Self::Open3d),
        ("trellis", Self::Trellis),
        ("fvdb", Self::Fvdb),
    ];

    /// The name that [`FromStr`] reads.
    pub fn name(self) -> &'static str {
        Self::ALL.into_iter().find(|(_, library)| *library == self).map_or("", |(name, _)| name)
    }
}

impl FromStr for Library {
    type Err = ImportError;

    fn from_str(word: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|(name, _)| *name == word).map(|(_, library)| library);
        found.ok_or_else(|| {
            let names = Self::ALL.map(|(name, _)| name).join(", ");
            ImportError::Mapping(format!("expected a library of {names}, found `{word}`"))
        })
    }
}

/// How a matrix of a layer without kernel lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MatrixLayout {
    /// `[out, in]`, as PyTorch's linear layers.
    #[default]
    OutIn,
    /// `[in, out]`.
    InOut,
}

/// How generative convolutions number their taps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GenerativeTaps {
    /// By the transposed relation, as here and in MinkowskiEngine.
    #[default]
    Transposed,
    /// By the forward relation, which lists odd kernels from the other end: torchsparse; WarpConvNet with `transposed=False`.
    Forward,
}

/// How a kernel of an even size lies on the lattice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EvenKernels {
    /// Counted from its lower corner, as here.
    #[default]
    FromCorner,
    /// Centred between voxels, which no operation here does: Open3D. Refused.
    HalfVoxel,
}

/// How checkpoints are read: layouts, orders and names. A file gives any of these fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mapping {
    /// Layout of convolution weights; left out, the one of `layouts_tried` that every weight's shape fits.
    pub layout: Option<WeightLayout>,
    /// Layouts that the library may have used.
    pub layouts_tried: Vec<WeightLayout>,
    /// Layout of transposed convolutions, where it differs.
    pub transposed_layout: Option<WeightLayout>,
    /// Layouts of single weights, by the network's path.
    pub layouts: BTreeMap<String, WeightLayout>,
    /// Coordinate columns that the kernel's dimensions follow, such as `"zyx"`.
    pub axes: Option<Axes>,
    /// Order of taps in a flat list.
    pub tap_order: TapOrder,
    /// What kernels of one tap hold.
    pub unit_kernel: UnitKernel,
    /// How kernels of an even size lie.
    pub even_kernels: EvenKernels,
    /// How matrices named `weight` of convolutions of one tap lie; those named `kernel` are `[in, out]`, those of linear layers `[out, in]`.
    pub matrix: MatrixLayout,
    /// How generative convolutions number their taps.
    pub generative: GenerativeTaps,
    /// `eps` of the batch norms, which checkpoints do not hold; the network's published one where it is left out.
    pub norm_eps: Option<f64>,
    /// Prefixes: where a name starts with one, only such names are taken, without it.
    pub scope: Vec<String>,
    /// Patterns of names that hold no parameter.
    pub ignore: Vec<String>,
    /// Pairs of pattern and replacement, applied one after another to every name.
    pub rename: Vec<(String, String)>,
    /// In a file: leaves the library's own renames out.
    pub only_these_renames: bool,
}

impl Mapping {
    /// The mapping of a library for one of the networks.
    pub fn of(library: Library, model: &str) -> Self {
        use WeightLayout::{KernelInOut, KernelOutIn, OutInKernel, OutKernelIn, TapsInOut, TapsOutIn};
        let detector = zoo().iter().any(|e| e.name == model && e.task == Task::Detection);
        let mut mapping = Self {
            axes: Some(Axes::XYZ),
            ignore: [r"(^|\.)num_batches_tracked$", r"(^|\.)max_num_voxels_during_training$"]
                .map(Into::into)
                .into(),
            rename: names::renames(library, model),
            ..Self::default()
        };
        match library {
            Library::Spconv => {
                mapping.layouts_tried = vec![OutKernelIn, KernelInOut, KernelOutIn];
                mapping.unit_kernel = UnitKernel::Reinterpreted;
                mapping.axes = Some(if detector { Axes::ZYX } else { Axes::XYZ });
                if detector {
                    mapping.scope =
                        vec!["backbone_3d.".into(), "backbone3d.".into(), "middle_encoder.".into()];
                }
            }
            Library::Trellis => {
                mapping.layouts_tried = vec![OutKernelIn];
                mapping.unit_kernel = UnitKernel::Reinterpreted;
            }
            Library::Minkowski => {
                mapping.layouts_tried = vec![TapsInOut];
                mapping.tap_order = TapOrder::FirstFastest;
            }
            Library::Torchsparse => {
                mapping.layouts_tried = vec![TapsInOut];
                mapping.tap_order = TapOrder::OddFirstFastest;
                mapping.generative = GenerativeTaps::Forward;
            }
            Library::TorchLattice => {
                mapping.layouts_tried = vec![TapsInOut, OutKernelIn];
                mapping.matrix = MatrixLayout::InOut;
                mapping.ignore.push(r"(^|\.)kernel_positions$".into());
            }
            Library::WarpConvNet => {
                mapping.layouts_tried = vec![TapsInOut];
                mapping.matrix = MatrixLayout::InOut;
            }
            Library::Ocnn => {
                mapping.layouts_tried = vec![TapsInOut];
                mapping.transposed_layout = Some(TapsOutIn);
            }
            Library::Open3d => {
                mapping.layouts_tried = vec![KernelInOut];
                mapping.axes = Some(Axes::ZYX);
                mapping.even_kernels = EvenKernels::HalfVoxel;
                mapping.ignore.push(r"(^|\.)offset$".into());
            }
            Library::Fvdb => mapping.layouts_tried = vec![OutInKernel],
        }
        mapping
    }

    /// This mapping with the fields that a file gives: renames and patterns come before the library's own, everything else replaces.
    ///
    /// # Errors
    /// A file that cannot be read, is neither TOML nor JSON (by its ending), or has a field or value that is not known.
    pub fn changed_by(self, path: &Path) -> Result<Self> {
        let fault = |found: String| ImportError::MappingFile { path: path.into(), found };
        let text = std::fs::read_to_string(path).map_err(|e| fault(e.to_string()))?;
        let json = path.extension().is_some_and(|end| end.eq_ignore_ascii_case("json"));
        let given: serde_json::Value = match json {
            true => serde_json::from_str(&text).map_err(|e| fault(e.to_string()))?,
            false => toml::from_str(&text).map_err(|e| fault(e.message().into()))?,
        };
        let file: Self = serde_json::from_value(given.clone()).map_err(|e| fault(e.to_string()))?;
        let mut all = serde_json::to_value(&self).map_err(|e| fault(e.to_string()))?;
        if let (Some(all), Some(given)) = (all.as_object_mut(), given.as_object()) {
            for (field, value) in given {
                all.insert(field.clone(), value.clone());
            }
        }
        let mut changed: Self = serde_json::from_value(all).map_err(|e| fault(e.to_string()))?;
        changed.ignore = [file.ignore, self.ignore].concat();
        changed.rename =
            if file.only_these_renames { file.rename } else { [file.rename, self.rename].concat() };
        Ok(changed)
    }
}
