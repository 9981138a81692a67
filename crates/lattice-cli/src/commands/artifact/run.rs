//! `lattice artifact run`.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, anyhow, bail, ensure};
use burn::tensor::DType;
use clap::ValueEnum;
use lattice_artifact::{
    Arrays, Comparison, CoordinateDomain, ExecuteOptions, Executor, Inputs, TensorFile, Tolerance, compare,
    write_arrays,
};
use serde_json::json;

use crate::{Shared, output, routes, table};

/// How coordinates of the inputs are meant.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Domain {
    /// Physical: multiples of the stride that the graph declares.
    Strict,
    /// Logical: divided by that stride already.
    Logical,
}

/// Arguments of `lattice artifact run`.
#[derive(clap::Args)]
pub struct Args {
    /// Folder of the artifact.
    folder: PathBuf,
    /// Inputs by their names: a .safetensors file. A sparse input `x` is `x_coords` (int32 batch, x, y, z), `x_features` and `x_active`.
    #[arg(long)]
    inputs: PathBuf,
    /// Results to write: a .safetensors file with NAME of each dense result, and NAME.coords (physical), NAME.features and NAME.active of each
    /// sparse one.
    #[arg(long)]
    out: PathBuf,
    /// How coordinates of the inputs are meant: physical, and checked, or logical.
    #[arg(long, value_enum, default_value = "strict")]
    coordinate_domain: Domain,
    /// Refuse dense weights of another element type than the features, in place of rounding them to it.
    #[arg(long)]
    strict_dtypes: bool,
    /// Expected results: a .safetensors file with names as in --out. Sparse ones are compared as sets of rows; exit status 1 where any differs.
    #[arg(long)]
    expect: Option<PathBuf>,
    /// Relative difference that --expect allows.
    #[arg(long, default_value_t = 1e-4, requires = "expect")]
    rtol: f64,
    /// Absolute difference that --expect allows.
    #[arg(long, default_value_t = 1e-5, requires = "expect")]
    atol: f64,
    #[command(flatten)]
    shared: Shared,
}

/// A file of arrays.
fn arrays(option: &str, path: &std::path::Path) -> Result<TensorFile> {
    TensorFile::read(path).map_err(|e| anyhow!("{option} {e}"))
}

fn all_arrays(file: &TensorFile) -> Arrays {
    file.names().filter_map(|name| Some((name.to_owned(), file.array(name)?))).collect()
}

/// One line on how a result compares.
fn said(c: &Comparison) -> String {
    let mut text = match c.agrees {
        true => format!("{}: agrees in {} values", c.name, table::count(c.values)),
        false => format!(
            "{}: differs in {} of {} values",
            c.name,
            table::count(c.differing),
            table::count(c.values)
        ),
    };
    if let Some(fault) = &c.fault {
        text += &format!("; {fault}");
    }
    if let Some(w) = &c.worst {
        let channel = w.channel.map(|c| format!(", channel {c}")).unwrap_or_default();
        text += &format!("; worst at {:?}{channel}: expected {}, found {}", w.at, w.expected, w.found);
    }
    text
}

/// Runs the command.
///
/// # Errors
/// An artifact, inputs or expected results that cannot be used; what the graph's operations refuse; results that differ from the expected
/// ones by more than the tolerance.
pub fn run(args: &Args) -> Result<()> {
    let chosen = args.shared.prepare()?;
    super::check_name("--out", &args.out)?;
    for (name, tolerance) in [("--rtol", args.rtol), ("--atol", args.atol)] {
        ensure!(
            tolerance.is_finite() && tolerance >= 0.0,
            "{name}: expected a number of at least 0, found {tolerance}"
        );
    }
    let same = |path: &PathBuf| {
        path.canonicalize().ok().zip(args.out.canonicalize().ok()).is_some_and(|(a, b)| a == b)
    };
    let taken = [Some(&args.inputs), args.expect.as_ref()].into_iter().flatten().any(same);
    ensure!(
        !taken,
        "--out: expected another file than the inputs and expected results, found the same; choose another name"
    );
    routes::check_for_networks(&chosen.device, DType::F32)?;
    let artifact = super::load(&args.folder)?;
    let inputs =
        Inputs::from_file(&arrays("--inputs", &args.inputs)?).map_err(|e| anyhow!("--inputs: {e}"))?;
    let expected = args.expect.as_ref().map(|path| arrays("--expect", path)).transpose()?;

    let domain = match args.coordinate_domain {
        Domain::Strict => CoordinateDomain::Strict,
        Domain::Logical => CoordinateDomain::Logical,
    };
    let options = ExecuteOptions::default().with_domain(domain).with_strict_dtypes(args.strict_dtypes);
    let executor = Executor::new(artifact, &chosen.device, options);
    let start = Instant::now();
    let outputs = executor.run(&inputs).and_then(|outputs| outputs.to_arrays());
    let outputs: Arrays =
        outputs.map_err(|e| anyhow!("{}: {e}", args.folder.display()))?.into_iter().collect();
    let ms = start.elapsed().as_secs_f64() * 1e3;
    write_arrays(&args.out, outputs.iter().map(|(name, array)| (name.as_str(), array)))
        .map_err(|e| anyhow!("--out {e}"))?;

    let tolerance = Tolerance { rtol: args.rtol, atol: args.atol };
    let comparisons = expected.map(|file| compare(&outputs, &all_arrays(&file), tolerance));
    let differing = comparisons.iter().flatten().find(|c| !c.agrees);
    if args.shared.json {
        let results: Vec<_> = outputs
            .iter()
            .map(
                |(name, array)| json!({"name": name, "dtype": array.element().name(), "shape": array.dims()}),
            )
            .collect();
        output::json(&json!({
            "artifact": args.folder.display().to_string(), "device": chosen.name, "ms": ms, "out": args.out.display().to_string(),
            "results": results, "agrees": comparisons.as_ref().map(|all| all.iter().all(|c| c.agrees)), "comparisons": comparisons,
        }))?;
    } else if differing.is_none() {
        let mut lines = vec![format!("{} ran on {} in {ms:.1} ms", args.folder.display(), chosen.name)];
        lines.extend(outputs.iter().map(|(name, a)| format!("{name}: {} {:?}", a.element(), a.dims())));
        lines.extend(comparisons.iter().flatten().map(said));
        lines.push(format!("wrote {}", args.out.display()));
        output::line(lines.join("\n"))?;
    }
    if let Some(worst) = differing {
        let others = comparisons.iter().flatten().filter(|c| !c.agrees).count() - 1;
        let others = if others > 0 { format!(" (and {others} other results)") } else { String::new() };
        bail!("--expect: {}{others}; rtol {}, atol {}", said(worst), args.rtol, args.atol);
    }
    Ok(())
}
