//! A packed weight as the file stores it: words of codes, and a scale and a bias a group.

use crate::array::{Array, floats_of};
use crate::error::{ArtifactError, Result};
use crate::ir::Element;
use crate::plan::AffinePacking;
use crate::tensor_file::TensorFile;

/// Codes of 4 or 8 bits along the input channels; the value of a code is `scale · code + bias` of its group.
///
/// # Layout
/// A word holds `32 / bits` codes, the lowest bits the lowest channel. Of `s` storage channels (the input channels, padded to whole groups) a
/// kernel of one tap has words `[1, c_out, s · bits / 32]` and groups `[1, c_out, s / group_size]`; of more taps words
/// `[taps, s · bits / 32, c_out]` and groups `[taps, s / group_size, c_out]`.
#[derive(Clone, Debug)]
pub struct PackedWeight {
    pub(super) key: String,
    pub(super) packing: AffinePacking,
    pub(super) words: Vec<u32>,
    pub(super) word_dims: [usize; 3],
    /// As stored: f16 or f32.
    scales: Array,
    biases: Array,
    pub(super) group_dims: [usize; 3],
}

/// Group sizes that are run.
const GROUP_SIZES: [usize; 3] = [32, 64, 128];

impl PackedWeight {
    /// Takes the three tensors of `key` out of a file and checks what does not depend on who reads the weight.
    pub(crate) fn read(file: &TensorFile, key: &str, packing: AffinePacking) -> Result<Self> {
        let refuse = |what: String| ArtifactError::weight(key, what);
        if !GROUP_SIZES.contains(&packing.group_size) {
            return Err(refuse(format!(
                "expected a group_size of 32, 64 or 128, found {}",
                packing.group_size
            )));
        }
        let part = |suffix: &str, element: Element| -> Result<Array> {
            let name = format!("{key}.{suffix}");
            let Some((found, dims)) = file.info(&name) else {
                return Err(refuse(format!("expected the tensor `{name}` in the weight file, found none")));
            };
            if found != Some(element) || dims.len() != 3 || dims.contains(&0) {
                let found = found.map_or("another type", Element::name);
                return Err(refuse(format!(
                    "expected `{name}` of {element} values with three axes that are not empty, found {found} of shape {dims:?}"
                )));
            }
            file.array(&name)
                .ok_or_else(|| refuse(format!("expected `{name}` to be readable, found it is not")))
        };
        let words = part("weight", Element::U32)?;
        let scales = part("scales", packing.scale)?;
        let biases = part("biases", packing.scale)?;
        let three = |array: &Array| <[usize; 3]>::try_from(array.dims()).expect("three axes were checked");
        let [word_dims, group_dims] = [three(&words), three(&scales)];
        if scales.dims() != biases.dims() {
            return Err(refuse(format!(
                "expected biases of shape {group_dims:?}, as the scales, found {:?}",
                biases.dims()
            )));
        }
        let packed = Self {
            key: key.into(),
            packing,
            words: words.bytes().as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)).collect(),
            word_dims,
            scales,
            biases,
            group_dims,
        };
        let (channels, groups) = (packed.storage_channels(), packed.groups());
        let expected = packed.shape_of_groups();
        if !channels.is_multiple_of(packing.group_size) || expected != group_dims {
            return Err(refuse(format!(
                "expected scales of shape {expected:?} for {channels} storage channels in groups of {}, found {group_dims:?} with \
                 {groups} groups",
                packing.group_size
            )));
        }
        Ok(packed)
    }

    /// Taps of the kernel.
    pub fn taps(&self) -> usize {
        self.word_dims[0]
    }

    /// Whether output channels stand before words, as they do where there is one tap.
    pub(super) fn is_pointwise(&self) -> bool {
        self.taps() == 1
    }

    /// Output channels.
    pub fn c_out(&self) -> usize {
        self.word_dims[if self.is_pointwise() { 1 } else { 2 }]
    }

    /// Words of a row of input channels.
    pub(super) fn row_words(&self) -> usize {
        self.word_dims[if self.is_pointwise() { 2 } else { 1 }]
    }

    /// Input channels with their padding.
    pub fn storage_channels(&self) -> usize {
        self.row_words() * (32 / self.packing.bits as usize)
    }

    fn groups(&self) -> usize {
        self.group_dims[if self.is_pointwise() { 2 } else { 1 }]
    }

    fn shape_of_groups(&self) -> [usize; 3] {
        let groups = self.storage_channels() / self.packing.group_size;
        match self.is_pointwise() {
            true => [1, self.c_out(), groups],
            false => [self.taps(), groups, self.c_out()],
        }
    }

    /// How it is packed.
    pub fn packing(&self) -> AffinePacking {
        self.packing
    }

    /// Bytes of words, scales and biases.
    pub fn bytes(&self) -> usize {
        4 * self.words.len() + self.scales.bytes().len() + self.biases.bytes().len()
    }

    /// Scales and biases as f32.
    pub(super) fn scales_and_biases(&self) -> [Vec<f32>; 2] {
        [&self.scales, &self.biases]
            .map(|array| floats_of(array.element(), array.bytes()).expect("scales are f16 or f32"))
    }
}
