//! The `.safetensors` file of an import, which names its network.

use std::collections::HashMap;
use std::path::Path;

use lattice_io::safetensors_texts;
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
    // A pipe would be waited for.
    let file = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file);
    let texts = file.and_then(|_| safetensors_texts(&mut std::fs::File::open(path).ok()?).ok());
    let Some(text) = texts.and_then(|mut texts| texts.remove(MODEL_KEY)) else { return Ok(None) };
    serde_json::from_str(&text).map(Some).map_err(|e| fault(format!("metadata `{MODEL_KEY}`: {e}")))
}
