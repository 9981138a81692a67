//! An artifact: a checked graph with its weights.

use std::path::Path;

use crate::error::{ArtifactError, Result};
use crate::ir::Graph;
use crate::plan::{Op, Packing, Plan};
use crate::schema::{GRAPH_FILE, WEIGHT_FILE};
use crate::tensor_file::{TensorFile, read_whole};
use crate::text;
use crate::weights::{self, StoredKind, StoredWeight};

/// A graph that keeps every rule, with weights that fit it.
#[derive(Clone, Debug)]
pub struct Artifact {
    graph: Graph,
    plan: Plan,
    file: TensorFile,
    stored: Vec<StoredWeight>,
}

impl Artifact {
    /// Reads `graph.mlir` and `weights.safetensors` of a folder.
    ///
    /// # Errors
    /// Files that cannot be read; a text that is no graph, or breaks a rule; weights that are missing or do not fit.
    pub fn load(folder: &Path) -> Result<Self> {
        if !folder.is_dir() {
            let what =
                format!("expected a folder with {GRAPH_FILE} and {WEIGHT_FILE}, found none; check the path");
            return Err(ArtifactError::File { path: folder.into(), what });
        }
        let path = folder.join(GRAPH_FILE);
        let bytes = read_whole(&path, "a graph", text::MOST_BYTES as u64)?;
        let text = String::from_utf8(bytes).map_err(|_| ArtifactError::File {
            path,
            what: "expected a graph in UTF-8, found other bytes".into(),
        })?;
        let graph = crate::parse(&text)?;
        Self::new(graph, TensorFile::read(&folder.join(WEIGHT_FILE))?)
    }

    /// A graph with its weights.
    ///
    /// # Errors
    /// A graph that breaks a rule; weights that are missing or do not fit.
    pub fn new(graph: Graph, file: TensorFile) -> Result<Self> {
        let plan = crate::verify(&graph)?;
        let stored = plan
            .weights
            .iter()
            .map(|weight| StoredWeight::find(weight, &file))
            .collect::<Result<Vec<_>>>()?;
        // Kernels are known before anything runs; channels are when features are.
        for node in &plan.nodes {
            let Op::Convolution(conv) = node.op else { continue };
            let value = node.operands[1 + usize::from(conv.targeted)];
            if let Some(i) = plan.values[value.0].weight {
                weights::check(&plan.weights[i], &stored[i], Some(conv.spec.size))?;
            }
        }
        Ok(Self { graph, plan, file, stored })
    }

    /// Writes `graph.mlir`, in its canonical form, and `weights.safetensors` to a folder, which is made where it is missing. A graph that is
    /// there goes first and the new one comes last, so that none ever stands beside weights that are not its own.
    ///
    /// # Errors
    /// [`ArtifactError::File`] where the system refuses.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let refuse = |name: &str, e: String| ArtifactError::File {
            path: folder.join(name),
            what: format!("cannot be written: {e}"),
        };
        std::fs::create_dir_all(folder).map_err(|e| refuse("", e.to_string()))?;
        match std::fs::remove_file(folder.join(GRAPH_FILE)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(refuse(GRAPH_FILE, e.to_string()));
            }
            _ => {}
        }
        lattice_io::write_bytes(folder.join(WEIGHT_FILE), self.file.bytes())
            .map_err(|e| refuse(WEIGHT_FILE, e.to_string()))?;
        lattice_io::write_bytes(folder.join(GRAPH_FILE), self.graph.to_string().as_bytes())
            .map_err(|e| refuse(GRAPH_FILE, e.to_string()))
    }

    /// The graph as written.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The checked graph.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The weight file.
    pub fn weights(&self) -> &TensorFile {
        &self.file
    }

    /// How the weight at a place of [`Plan::weights`] is stored.
    ///
    /// # Panics
    /// Where there is no such weight.
    pub fn stored(&self, weight: usize) -> StoredKind {
        self.stored[weight].kind()
    }

    pub(crate) fn stored_weights(&self) -> &[StoredWeight] {
        &self.stored
    }

    /// Names of tensors in the weight file that no weight of the graph is stored under, sorted. They are allowed, and never read.
    pub fn extra_tensors(&self) -> Vec<&str> {
        let used: std::collections::HashSet<String> = self
            .plan
            .weights
            .iter()
            .flat_map(|weight| match weight.packing {
                Packing::Dense => vec![weight.key.clone()],
                Packing::Affine(_) => {
                    ["weight", "scales", "biases"].map(|part| format!("{}.{part}", weight.key)).into()
                }
            })
            .collect();
        self.file.names().filter(|name| !used.contains(*name)).collect()
    }
}
