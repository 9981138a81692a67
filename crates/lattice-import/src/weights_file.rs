//! The `.safetensors` file of an import, which names its network.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

use lattice_models::ModelSpec;
use safetensors::tensor::{Dtype, TensorView};

use crate::{ImportError, Imported, Result};

/// Key of the metadata that names the network, as JSON of a [`ModelSpec`].
pub const MODEL_KEY: &str = "lattice.model";

impl Imported {
    /// Writes a `.safetensors` file of f32 parameters, whose metadata names the network. The file appears when it is complete.
    ///
    /// # Errors
    /// [`ImportError::Write`] where it cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let write = |e: String| ImportError::Write(e);
        let spec = serde_json::to_string(&self.spec).map_err(|e| write(e.to_string()))?;
        let metadata = HashMap::from([(MODEL_KEY.to_owned(), spec)]);
        let views = self
            .parameters
            .iter()
            .map(|(path, (shape, values))| {
                TensorView::new(Dtype::F32, shape.clone(), bytemuck::cast_slice(values))
                    .map(|view| (path, view))
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| write(e.to_string()))?;
        let bytes = safetensors::serialize(views, Some(metadata)).map_err(|e| write(e.to_string()))?;
        lattice_io::write_bytes(path, &bytes).map_err(|e| write(e.to_string()))
    }
}

/// The network that a `.safetensors` file says it is for; none where it says nothing, or is no such file, which loading it then says.
///
/// # Errors
/// Metadata of a network that cannot be read.
pub fn model_of(path: &Path) -> Result<Option<ModelSpec>> {
    let fault = |found: String| ImportError::File { path: path.into(), found };
    let Some(text) =
        header(path).and_then(|mut header| header.remove("__metadata__")?.get(MODEL_KEY).cloned())
    else {
        return Ok(None);
    };
    let text = text.as_str().unwrap_or_default();
    serde_json::from_str(text).map(Some).map_err(|e| fault(format!("metadata `{MODEL_KEY}`: {e}")))
}

/// Longest header that is read.
const LONGEST_HEADER: u64 = 100 << 20;

/// The header of a `.safetensors` file: the length of a JSON object in 8 bytes, then the object.
fn header(path: &Path) -> Option<serde_json::Map<String, serde_json::Value>> {
    // A pipe would be waited for.
    std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
    let mut file = std::fs::File::open(path).ok()?;
    let mut length = [0; 8];
    file.read_exact(&mut length).ok()?;
    let length = Some(u64::from_le_bytes(length)).filter(|length| *length <= LONGEST_HEADER)?;
    let mut text = String::new();
    file.take(length).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}
