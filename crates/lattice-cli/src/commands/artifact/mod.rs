//! `lattice artifact`: trained networks as a text graph and a weight file.

mod export;
mod inspect;
mod run;
mod sample;
mod verify;

use std::path::Path;

use anyhow::{Result, anyhow, ensure};
use clap::Subcommand;

/// Arguments of `lattice artifact`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Inputs, results, weights and operations, with the route of each on the device.
    Inspect(inspect::Args),
    /// Check a graph against every rule of the format, and its weights against the graph.
    Verify(verify::Args),
    /// Run an artifact on arrays of a file; compare its results with expected ones.
    Run(run::Args),
    /// Write a network with its weights as an artifact.
    Export(Box<export::Args>),
}

/// Runs the command.
///
/// # Errors
/// As the parts of it say.
pub fn run(args: &Args) -> Result<()> {
    match &args.action {
        Action::Inspect(args) => inspect::run(args),
        Action::Verify(args) => verify::run(args),
        Action::Run(args) => run::run(args),
        Action::Export(args) => export::run(args),
    }
}

/// Reads an artifact's folder.
fn load(folder: &Path) -> Result<lattice_artifact::Artifact> {
    lattice_artifact::Artifact::load(folder).map_err(|e| match e {
        lattice_artifact::ArtifactError::File { .. } => anyhow!("{e}"),
        e => anyhow!("{}: {e}", folder.display()),
    })
}

/// Refuses a name of a tensor file that is none.
fn check_name(option: &str, path: &Path) -> Result<()> {
    let ends_well = path.extension().is_some_and(|end| end.eq_ignore_ascii_case("safetensors"));
    ensure!(ends_well, "{option}: expected a name that ends in .safetensors, found {}", path.display());
    Ok(())
}
