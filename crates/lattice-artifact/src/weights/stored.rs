//! The weights that a graph declares, found in its weight file.

use super::PackedWeight;
use crate::array::floats_of;
use crate::error::{ArtifactError, Result};
use crate::ir::Element;
use crate::plan::{Packing, Weight};
use crate::tensor_file::TensorFile;

/// A declared weight as the file stores it.
#[derive(Clone, Debug)]
pub(crate) enum StoredWeight {
    /// Floats, read when an operation binds them.
    Dense { element: Element, dims: Vec<usize> },
    /// Packed words, which stay packed.
    Packed(PackedWeight),
}

/// How a weight is stored, for reports.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredKind {
    /// Element type of dense values, or of scales.
    pub element: Element,
    /// Dimensions of the values, or of the packed words.
    pub dims: Vec<usize>,
    /// Bits of a code, where it is packed.
    pub bits: Option<u32>,
    /// Bytes in the file.
    pub bytes: usize,
}

impl StoredWeight {
    /// Finds a weight and checks its element type and axes.
    pub(crate) fn find(weight: &Weight, file: &TensorFile) -> Result<Self> {
        let key = &weight.key;
        if let Packing::Affine(packing) = weight.packing {
            return PackedWeight::read(file, key, packing).map(Self::Packed);
        }
        let Some((element, dims)) = file.info(key) else {
            let what =
                "expected a tensor of this name in the weight file, found none; export the artifact again";
            return Err(ArtifactError::weight(key, what));
        };
        let family = weight.family;
        let floats =
            element.filter(|e| matches!(e, Element::F32 | Element::F16 | Element::Bf16 | Element::F64));
        match floats {
            Some(element) if dims.len() == family.rank() && !dims.contains(&0) => {
                Ok(Self::Dense { element, dims: dims.to_vec() })
            }
            _ => {
                let found = element.map_or("another type", Element::name);
                Err(ArtifactError::weight(
                    key,
                    format!(
                        "expected floats with {} axes that are not empty, as layout {} has, found {found} of shape {dims:?}",
                        family.rank(),
                        family.layout()
                    ),
                ))
            }
        }
    }

    /// What reports say.
    pub(crate) fn kind(&self) -> StoredKind {
        match self {
            Self::Dense { element, dims } => StoredKind {
                element: *element,
                dims: dims.clone(),
                bits: None,
                bytes: dims.iter().product::<usize>() * element.bytes(),
            },
            Self::Packed(packed) => StoredKind {
                element: packed.packing.scale,
                dims: packed.word_dims.to_vec(),
                bits: Some(packed.packing.bits),
                bytes: packed.bytes(),
            },
        }
    }

    /// Values of a dense weight.
    pub(crate) fn floats(key: &str, file: &TensorFile) -> Result<Vec<f32>> {
        let values = file.place(key).and_then(|place| floats_of(place.element?, file.data(place)));
        values.ok_or_else(|| ArtifactError::weight(key, "expected floats, found none"))
    }
}
