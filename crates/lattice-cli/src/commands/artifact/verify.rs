//! `lattice artifact verify`.

use std::path::PathBuf;

use anyhow::{Result, anyhow, bail};
use lattice_artifact::schema::{GRAPH_FILE, WEIGHT_FILE};
use lattice_artifact::{Artifact, ArtifactError, Diagnostic, Diagnostics};
use serde_json::{Value, json};

use crate::{Shared, output};

/// Arguments of `lattice artifact verify`.
#[derive(clap::Args)]
pub struct Args {
    /// Folder of the artifact.
    folder: PathBuf,
    #[command(flatten)]
    shared: Shared,
}

fn diagnostic(d: &Diagnostic) -> Value {
    json!({"line": d.at.line, "column": d.at.column, "message": d.message})
}

/// Runs the command. With `--json` the document is printed for an artifact that is not valid, too.
///
/// # Errors
/// A folder that cannot be read; an artifact that is not valid, with its faults.
pub fn run(args: &Args) -> Result<()> {
    args.shared.prepare()?;
    let folder = args.folder.display().to_string();
    let document = |valid: bool, diagnostics: Vec<Value>, more: Value| {
        let mut document = json!({"artifact": folder, "valid": valid, "diagnostics": diagnostics});
        if let (Some(all), Value::Object(more)) = (document.as_object_mut(), more) {
            all.extend(more);
        }
        document
    };
    match Artifact::load(&args.folder) {
        Ok(artifact) => {
            let (plan, extra) = (artifact.plan(), artifact.extra_tensors());
            if args.shared.json {
                let more = json!({
                    "nodes": plan.nodes.len(), "weights": plan.weights.len(), "inputs": plan.inputs.len(), "outputs": plan.outputs.len(),
                    "extra_tensors": extra,
                });
                return output::json(&document(true, Vec::new(), more));
            }
            let mut text = format!(
                "{folder}: valid: {} operations, {} weights, {} inputs, {} results",
                plan.nodes.len(),
                plan.weights.len(),
                plan.inputs.len(),
                plan.outputs.len()
            );
            if let Some(first) = extra.first() {
                text += &format!(
                    "\nwarning: {} tensors of {WEIGHT_FILE} that no weight names, such as `{first}`",
                    extra.len()
                );
            }
            output::line(text)
        }
        Err(error) => {
            let diagnostics = match &error {
                ArtifactError::Syntax(one) => vec![diagnostic(one)],
                ArtifactError::Invalid(Diagnostics(all)) => all.iter().map(diagnostic).collect(),
                ArtifactError::Weight { .. } => {
                    vec![json!({"line": null, "column": null, "message": error.to_string()})]
                }
                other => return Err(anyhow!("{other}")),
            };
            if args.shared.json {
                output::json(&document(false, diagnostics, json!({})))?;
            }
            let file = if matches!(error, ArtifactError::Weight { .. }) { WEIGHT_FILE } else { GRAPH_FILE };
            bail!("{}: {error}", args.folder.join(file).display())
        }
    }
}
