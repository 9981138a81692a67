//! Safetensors files: weights, inputs and outputs.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

use crate::array::{Array, byte_count, dtype_of, element_of};
use crate::error::{ArtifactError, Result};
use crate::ir::Element;

/// Longest header of a file: names, types, shapes and places of its tensors.
const LONGEST_HEADER: u64 = 32 << 20;

/// One tensor of a file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Place {
    /// Element type; none where a graph has no name for it.
    pub(crate) element: Option<Element>,
    /// Dimensions.
    pub(crate) dims: Vec<usize>,
    range: Range<usize>,
}

/// A file in memory, with where its tensors lie. Nothing is copied before it is asked for.
#[derive(Clone, Debug, Default)]
pub struct TensorFile {
    bytes: Vec<u8>,
    places: BTreeMap<String, Place>,
}

fn fault(path: &Path, what: String) -> ArtifactError {
    ArtifactError::File { path: path.into(), what }
}

/// Reads a regular file whole. Folders and pipes are refused, as nothing would end them.
pub(crate) fn read_whole(path: &Path, kind: &str, most: u64) -> Result<Vec<u8>> {
    let missing = |e: std::io::Error| fault(path, format!("expected {kind}, found: {e}; check the path"));
    let meta = std::fs::metadata(path).map_err(missing)?;
    if !meta.is_file() {
        return Err(fault(path, format!("expected {kind}, found a folder or a device; name the file")));
    }
    if meta.len() > most {
        return Err(fault(path, format!("expected {kind} of at most {most} bytes, found {}", meta.len())));
    }
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes)).map_err(missing)?;
    Ok(bytes)
}

impl TensorFile {
    /// Reads a file.
    ///
    /// # Errors
    /// A file that cannot be read; what [`from_bytes`](Self::from_bytes) refuses.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = read_whole(path, "a .safetensors file", u64::MAX)?;
        Self::from_bytes(bytes).map_err(|what| fault(path, what))
    }

    /// Takes the bytes of a file. Tensors must follow one another without gaps or overlaps, and end where the file ends.
    ///
    /// # Errors
    /// Bytes that are cut off or are no such file; a header above 32 MiB.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, String> {
        let broken = |found: String| {
            format!("expected a complete .safetensors file, found: {found}; save or copy it again")
        };
        let length = bytes.first_chunk().map_or(0, |length| u64::from_le_bytes(*length));
        if length > LONGEST_HEADER {
            return Err(broken(format!(
                "a header of {length} bytes, where at most {LONGEST_HEADER} are read"
            )));
        }
        let file = SafeTensors::deserialize(&bytes).map_err(|e| broken(e.to_string()))?;
        let start = bytes.as_ptr() as usize;
        let mut places = BTreeMap::new();
        for (name, view) in file.iter() {
            let (element, dims) = (element_of(view.dtype()), view.shape().to_vec());
            let from = view.data().as_ptr() as usize - start;
            let range = from..from + view.data().len();
            if element.is_some_and(|element| byte_count(element, &dims) != Some(range.len())) {
                return Err(broken(format!("tensor `{name}` of shape {dims:?} in {} bytes", range.len())));
            }
            places.insert(name.to_owned(), Place { element, dims, range });
        }
        Ok(Self { bytes, places })
    }

    /// Names of the tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.places.keys().map(String::as_str)
    }

    pub(crate) fn place(&self, name: &str) -> Option<&Place> {
        self.places.get(name)
    }

    /// Bytes of a tensor.
    pub(crate) fn data(&self, place: &Place) -> &[u8] {
        &self.bytes[place.range.clone()]
    }

    /// Element type, where a graph has a name for it, and dimensions of a tensor.
    pub fn info(&self, name: &str) -> Option<(Option<Element>, &[usize])> {
        self.place(name).map(|place| (place.element, place.dims.as_slice()))
    }

    /// A copy of a tensor; none where there is none of the name, or its element type has no name in graphs.
    pub fn array(&self, name: &str) -> Option<Array> {
        let place = self.place(name)?;
        Array::try_new(place.element?, place.dims.clone(), self.data(place).to_vec()).ok()
    }

    /// A file of these arrays.
    ///
    /// # Errors
    /// What the format refuses.
    pub fn from_arrays<'a>(arrays: impl IntoIterator<Item = (&'a str, &'a Array)>) -> Result<Self, String> {
        Self::from_bytes(serialize(arrays)?)
    }

    /// The bytes of the file.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// The bytes of a file of these arrays.
fn serialize<'a>(arrays: impl IntoIterator<Item = (&'a str, &'a Array)>) -> Result<Vec<u8>, String> {
    let mut views = Vec::new();
    for (name, array) in arrays {
        let dtype = dtype_of(array.element())
            .ok_or_else(|| format!("`{name}`: {} is not stored", array.element()))?;
        views.push((
            name,
            TensorView::new(dtype, array.dims().to_vec(), array.bytes()).map_err(|e| e.to_string())?,
        ));
    }
    safetensors::serialize(views, None).map_err(|e| e.to_string())
}

/// Writes a file of these arrays; it appears when it is complete.
///
/// # Errors
/// [`ArtifactError::File`] where it cannot be written.
pub fn write_arrays<'a>(path: &Path, arrays: impl IntoIterator<Item = (&'a str, &'a Array)>) -> Result<()> {
    let bytes = serialize(arrays).map_err(|what| fault(path, what))?;
    lattice_io::write_bytes(path, &bytes).map_err(|e| fault(path, format!("cannot be written: {e}")))
}
