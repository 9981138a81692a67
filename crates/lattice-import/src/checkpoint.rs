//! Tensors of a checkpoint file by name.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use burn_store::pytorch_reader::{DType, PytorchReader};
use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};

use crate::{ImportError, Result};

/// Where a tensor's bytes are.
enum Bytes {
    /// Read from a PyTorch file when asked for.
    Later(burn_store::pytorch_reader::Tensor),
    /// Here.
    Here(Vec<u8>),
}

/// One tensor of a checkpoint.
pub struct Stored {
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Element type as the file names it.
    pub dtype: String,
    bytes: Bytes,
}

impl Stored {
    /// A tensor in memory.
    pub fn from_f32(shape: Vec<usize>, values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self { shape, dtype: "F32".into(), bytes: Bytes::Here(bytes) }
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// True where there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values as f32: of f16, bf16, f32 and f64.
    ///
    /// # Errors
    /// Another element type, or bytes that cannot be read; the text says what was expected and found.
    pub fn values(&self) -> Result<Vec<f32>, String> {
        let read: io::Result<Vec<u8>>;
        let bytes: &[u8] = match &self.bytes {
            Bytes::Here(bytes) => bytes,
            Bytes::Later(tensor) => {
                read = tensor.read();
                read.as_ref().map_err(|e| format!("its bytes cannot be read: {e}"))?
            }
        };
        let wide = match self.dtype.as_str() {
            "F64" => 8,
            "F32" => 4,
            "F16" | "BF16" => 2,
            other => return Err(format!("expected values in F16, BF16, F32 or F64, found {other}")),
        };
        if bytes.len() != self.len() * wide {
            return Err(format!("expected {} bytes, found {}", self.len() * wide, bytes.len()));
        }
        Ok(match self.dtype.as_str() {
            "F64" => bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect(),
            "F32" => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            "F16" => bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
            _ => bytes.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
        })
    }
}

/// Names and tensors, sorted by name.
pub type Tensors = BTreeMap<String, Stored>;

/// Reads a `.safetensors` file, or a PyTorch file of any other ending. Nested dictionaries give dotted names. Values of a PyTorch file
/// are read when they are asked for.
///
/// # Errors
/// A file that cannot be opened, is truncated or is neither.
pub fn read_checkpoint(path: &Path) -> Result<Tensors> {
    let fault = |found: String| ImportError::File { path: path.into(), found };
    let is_safetensors = path.extension().is_some_and(|end| end.eq_ignore_ascii_case("safetensors"));
    if !is_safetensors {
        // A folder or a missing file is said before the reader guesses at formats.
        let meta = std::fs::metadata(path).map_err(|e| fault(e.to_string()))?;
        if !meta.is_file() {
            return Err(fault("a folder or a device".into()));
        }
        let reader = PytorchReader::new(path).map_err(|e| fault(e.to_string()))?;
        return Ok(reader.into_tensors().into_iter().map(|(name, tensor)| (name, later(tensor))).collect());
    }
    let bytes = std::fs::read(path).map_err(|e| fault(e.to_string()))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| fault(e.to_string()))?;
    let here = |(name, view): (String, safetensors::tensor::TensorView<'_>)| {
        let stored = Stored {
            shape: view.shape().to_vec(),
            dtype: dtype_name(view.dtype()),
            bytes: Bytes::Here(view.data().to_vec()),
        };
        (name, stored)
    };
    Ok(file.tensors().into_iter().map(here).collect())
}

fn later(tensor: burn_store::pytorch_reader::Tensor) -> Stored {
    let dtype = match tensor.dtype() {
        DType::F64 => "F64",
        DType::F32 => "F32",
        DType::F16 => "F16",
        DType::BF16 => "BF16",
        DType::I64 => "I64",
        DType::I32 => "I32",
        DType::I16 => "I16",
        DType::I8 => "I8",
        DType::U64 => "U64",
        DType::U32 => "U32",
        DType::U16 => "U16",
        DType::U8 => "U8",
        DType::Bool => "BOOL",
    };
    Stored { shape: tensor.shape().to_vec(), dtype: dtype.into(), bytes: Bytes::Later(tensor) }
}

fn dtype_name(dtype: Dtype) -> String {
    format!("{dtype:?}")
}
