//! Named f32 tensors and texts in one safetensors file.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};

use crate::{Result, TrainError};

/// Dimensions and values of a tensor.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NamedTensor {
    pub(crate) dims: Vec<usize>,
    pub(crate) values: Vec<f32>,
}

/// Named f32 tensors and texts, in the order of their names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TensorFile {
    pub(crate) tensors: BTreeMap<String, NamedTensor>,
    pub(crate) texts: BTreeMap<String, String>,
}

impl TensorFile {
    /// Adds a tensor.
    pub fn insert(&mut self, name: impl Into<String>, dims: &[usize], values: Vec<f32>) {
        self.tensors.insert(name.into(), NamedTensor { dims: dims.to_vec(), values });
    }

    /// Adds a text.
    pub fn insert_text(&mut self, name: impl Into<String>, text: impl Into<String>) {
        self.texts.insert(name.into(), text.into());
    }

    /// Names of the tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Dimensions of a tensor.
    pub fn dims(&self, name: &str) -> Option<Vec<usize>> {
        self.tensors.get(name).map(|tensor| tensor.dims.clone())
    }

    /// A text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.texts.get(name).map(String::as_str)
    }

    /// Values of the tensor `name`, taken out.
    ///
    /// # Errors
    /// No such tensor, or one of other dimensions; the error names `path`.
    pub fn take(&mut self, path: &Path, name: &str, dims: &[usize]) -> Result<Vec<f32>> {
        let refuse = |found: String| {
            let what = format!(
                "tensor `{name}`: expected f32 values of shape {dims:?}, found {found}; it belongs to another network or version"
            );
            TrainError::checkpoint(path, what)
        };
        match self.tensors.remove(name) {
            None => Err(refuse("none".into())),
            Some(tensor) if tensor.dims != dims => Err(refuse(format!("shape {:?}", tensor.dims))),
            Some(tensor) => Ok(tensor.values),
        }
    }

    /// Writes the file: complete on the disk when this returns, or not there.
    ///
    /// # Errors
    /// What the system refuses.
    pub fn write(&self, path: &Path) -> Result<()> {
        let bytes = |tensor: &NamedTensor| {
            let mut bytes = Vec::with_capacity(4 * tensor.values.len());
            tensor.values.iter().for_each(|v| bytes.extend_from_slice(&v.to_le_bytes()));
            bytes
        };
        let bytes: Vec<(&String, Vec<u8>)> =
            self.tensors.iter().map(|(name, tensor)| (name, bytes(tensor))).collect();
        let refuse =
            |e: safetensors::SafeTensorError| TrainError::checkpoint(path, format!("cannot be written: {e}"));
        let mut views = Vec::with_capacity(bytes.len());
        for ((name, bytes), tensor) in bytes.iter().zip(self.tensors.values()) {
            views.push((*name, TensorView::new(Dtype::F32, tensor.dims.clone(), bytes).map_err(refuse)?));
        }
        let texts: HashMap<String, String> = self.texts.clone().into_iter().collect();
        let mut whole = serialize(views, Some(texts)).map_err(refuse)?;
        lattice_io::order_safetensors_header(&mut whole);
        Ok(lattice_io::write_bytes(path, &whole)?)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// A file that is not there, is cut off or is none of this format; a tensor of another type than f32.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|e| {
            TrainError::checkpoint(path, format!("expected a .safetensors file, found: {e}; check the path"))
        })?;
        let broken = |e: safetensors::SafeTensorError| {
            let what = format!("expected a complete .safetensors file, found: {e}; save or copy it again");
            TrainError::checkpoint(path, what)
        };
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(broken)?;
        let file = SafeTensors::deserialize(&bytes).map_err(broken)?;
        let mut out = Self::default();
        for (name, view) in file.iter() {
            if view.dtype() != Dtype::F32 {
                let what = format!(
                    "tensor `{name}`: expected f32 values of shape {:?}, found {:?}; convert the file",
                    view.shape(),
                    view.dtype()
                );
                return Err(TrainError::checkpoint(path, what));
            }
            let values = view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            out.insert(name, view.shape(), values.collect());
        }
        out.texts = header.metadata().clone().unwrap_or_default().into_iter().collect();
        Ok(out)
    }

    /// Reads the texts alone.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_texts(path: &Path) -> Result<BTreeMap<String, String>> {
        let mut file = std::fs::File::open(path).map_err(|e| {
            let what = format!(
                "expected a complete .safetensors file, found: {e}; check the path, or save it again"
            );
            TrainError::checkpoint(path, what)
        })?;
        lattice_io::safetensors_texts(&mut file).map_err(|found| {
            let what =
                format!("expected a complete .safetensors file, found: {found}; save or copy it again");
            TrainError::checkpoint(path, what)
        })
    }
}
