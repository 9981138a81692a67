//! Arrays in host memory: what weight files hold, and what goes into and comes out of a call.

use half::{bf16, f16};
use safetensors::Dtype;

use crate::ir::Element;

/// Values of one element type with their dimensions, little-endian, the last axis fastest.
#[derive(Clone, PartialEq)]
pub struct Array {
    element: Element,
    dims: Vec<usize>,
    bytes: Vec<u8>,
}

impl std::fmt::Debug for Array {
    /// Element type and dimensions: values would be pages.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Array({} {:?})", self.element, self.dims)
    }
}

/// Element type of a stored one; none where a graph has no name for it.
pub(crate) fn element_of(dtype: Dtype) -> Option<Element> {
    Some(match dtype {
        Dtype::F64 => Element::F64,
        Dtype::F32 => Element::F32,
        Dtype::F16 => Element::F16,
        Dtype::BF16 => Element::Bf16,
        Dtype::I64 => Element::I64,
        Dtype::I32 => Element::I32,
        Dtype::I16 => Element::I16,
        Dtype::I8 => Element::I8,
        Dtype::U64 => Element::U64,
        Dtype::U32 => Element::U32,
        Dtype::U16 => Element::U16,
        Dtype::U8 => Element::U8,
        _ => return None,
    })
}

/// Stored type of an element type; none for those that files do not store.
pub(crate) fn dtype_of(element: Element) -> Option<Dtype> {
    Some(match element {
        Element::F64 => Dtype::F64,
        Element::F32 => Dtype::F32,
        Element::F16 => Dtype::F16,
        Element::Bf16 => Dtype::BF16,
        Element::I64 => Dtype::I64,
        Element::I32 => Dtype::I32,
        Element::I16 => Dtype::I16,
        Element::I8 => Dtype::I8,
        Element::U64 => Dtype::U64,
        Element::U32 => Dtype::U32,
        Element::U16 => Dtype::U16,
        Element::U8 => Dtype::U8,
        Element::I4 | Element::I1 => return None,
    })
}

/// Bytes that dimensions of an element type take.
pub(crate) fn byte_count(element: Element, dims: &[usize]) -> Option<usize> {
    dims.iter().try_fold(element.bytes(), |n, &dim| n.checked_mul(dim))
}

/// Values of stored floats as f32: of f16, bf16, f32 and f64; none of other types.
pub(crate) fn floats_of(element: Element, bytes: &[u8]) -> Option<Vec<f32>> {
    Some(match element {
        Element::F64 => bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect(),
        Element::F32 => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        Element::F16 => bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
        Element::Bf16 => bytes.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
        _ => return None,
    })
}

impl Array {
    /// Takes bytes, little-endian.
    ///
    /// # Errors
    /// A number of bytes that is not that of the dimensions; an element type that arrays do not have.
    pub fn try_new(element: Element, dims: Vec<usize>, bytes: Vec<u8>) -> Result<Self, String> {
        match byte_count(element, &dims) {
            Some(expected) if dtype_of(element).is_some() && expected == bytes.len() => {
                Ok(Self { element, dims, bytes })
            }
            _ => Err(format!(
                "expected the bytes of {element} values of shape {dims:?}, found {} bytes",
                bytes.len()
            )),
        }
    }

    /// An array of f32.
    ///
    /// # Errors
    /// A number of values that is not that of the dimensions.
    pub fn from_f32(dims: &[usize], values: &[f32]) -> Result<Self, String> {
        Self::try_new(Element::F32, dims.to_vec(), values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    /// An array of floats of type f32, f16 or bf16, rounded to it.
    ///
    /// # Errors
    /// A number of values that is not that of the dimensions; another element type.
    pub fn from_floats(element: Element, dims: &[usize], values: &[f32]) -> Result<Self, String> {
        let bytes = match element {
            Element::F32 => return Self::from_f32(dims, values),
            Element::F16 => values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect(),
            Element::Bf16 => values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect(),
            other => return Err(format!("expected floats of type f32, f16 or bf16, found {other}")),
        };
        Self::try_new(element, dims.to_vec(), bytes)
    }

    /// An array of i32.
    ///
    /// # Errors
    /// A number of values that is not that of the dimensions.
    pub fn from_i32(dims: &[usize], values: &[i32]) -> Result<Self, String> {
        Self::try_new(Element::I32, dims.to_vec(), values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    /// Rows batch, x, y, z, `[n, 4]`.
    pub fn from_coords(rows: &[[i32; 4]]) -> Self {
        let bytes = rows.iter().flatten().flat_map(|v| v.to_le_bytes()).collect();
        Self { element: Element::I32, dims: vec![rows.len(), 4], bytes }
    }

    /// Element type.
    pub fn element(&self) -> Element {
        self.element
    }

    /// Dimensions, outermost first.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// The bytes, little-endian.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Values of floats as f32; none of integers.
    pub fn to_f32(&self) -> Option<Vec<f32>> {
        floats_of(self.element, &self.bytes)
    }

    /// Values of i32; none of other types.
    pub fn to_i32(&self) -> Option<Vec<i32>> {
        (self.element == Element::I32)
            .then(|| self.bytes.as_chunks().0.iter().map(|b| i32::from_le_bytes(*b)).collect())
    }

    /// Rows batch, x, y, z of an i32 array `[n, 4]`; none of others.
    pub fn to_coords(&self) -> Option<Vec<[i32; 4]>> {
        match self.dims[..] {
            [_, 4] => Some(self.to_i32()?.as_chunks::<4>().0.to_vec()),
            _ => None,
        }
    }
}
