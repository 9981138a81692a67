//! `lattice artifact inspect`.

use std::path::PathBuf;

use anyhow::Result;
use lattice_artifact::{Artifact, Packing, describe};
use serde_json::{Value, json};

use crate::{Shared, output, table};

/// Arguments of `lattice artifact inspect`.
#[derive(clap::Args)]
pub struct Args {
    /// Folder of the artifact.
    folder: PathBuf,
    #[command(flatten)]
    shared: Shared,
}

/// What a weight is.
fn weights(artifact: &Artifact) -> Vec<Value> {
    let weight = |(i, weight): (usize, &lattice_artifact::Weight)| {
        let stored = artifact.stored(i);
        let packing = match weight.packing {
            Packing::Dense => json!("dense"),
            Packing::Affine(p) => {
                json!({"bits": p.bits, "group_size": p.group_size, "scale_dtype": p.scale.name()})
            }
        };
        json!({
            "key": weight.key, "family": weight.family.name(), "layout": weight.family.layout(), "packing": packing,
            "dtype": stored.element.name(), "shape": stored.dims, "bytes": stored.bytes,
        })
    };
    artifact.plan().weights.iter().enumerate().map(weight).collect()
}

/// Runs the command.
///
/// # Errors
/// A folder that holds no valid artifact.
pub fn run(args: &Args) -> Result<()> {
    let chosen = args.shared.prepare()?;
    let artifact = super::load(&args.folder)?;
    let plan = artifact.plan();
    let nodes = describe(&artifact, &chosen.device);
    let weights = weights(&artifact);
    let bytes: u64 = weights.iter().filter_map(|w| w["bytes"].as_u64()).sum();
    let sparse: Vec<String> = plan.sparse_inputs().into_iter().map(|input| input.name).collect();
    if args.shared.json {
        let port = |name: &str, role: &str, ty: String| json!({"name": name, "role": role, "type": ty});
        return output::json(&json!({
            "artifact": args.folder.display().to_string(), "device": chosen.name, "ir_version": lattice_artifact::schema::IR_VERSION,
            "inputs": plan.inputs.iter().map(|i| port(&i.name, i.role.name(), i.ty.to_string())).collect::<Vec<_>>(),
            "sparse_inputs": sparse,
            "outputs": plan.outputs.iter().map(|o| port(&o.name, o.role.name(), o.ty.to_string())).collect::<Vec<_>>(),
            "weights": weights, "weight_bytes": bytes, "extra_tensors": artifact.extra_tensors(), "nodes": nodes,
        }));
    }
    let mut lines = vec![format!("{} on {}", args.folder.display(), chosen.name)];
    lines.extend(plan.inputs.iter().map(|i| format!("input  {} ({}): {}", i.name, i.role.name(), i.ty)));
    lines.extend(plan.outputs.iter().map(|o| format!("output {} ({})", o.name, o.role.name())));
    let packed = plan.weights.iter().filter(|w| w.packing != Packing::Dense).count();
    lines.push(format!(
        "{} weights, {} of them packed, {} bytes",
        weights.len(),
        packed,
        table::count(usize::try_from(bytes).unwrap_or(usize::MAX))
    ));
    if let extra @ [first, ..] = artifact.extra_tensors().as_slice() {
        lines.push(format!("warning: {} tensors that no weight names, such as `{first}`", extra.len()));
    }
    let rows: Vec<Vec<String>> = nodes
        .iter()
        .map(|n| {
            vec![format!("%{}", n.label), n.op.into(), n.detail.clone(), n.route.into(), n.line.to_string()]
        })
        .collect();
    lines.push(table::render(&["value", "operation", "detail", "route", "line"], &rows));
    output::line(lines.join("\n"))
}
