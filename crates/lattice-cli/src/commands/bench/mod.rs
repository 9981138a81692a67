//! `lattice bench`: operations and networks on public shapes.

mod cases;
mod device_memory;
mod graph;
mod measure;
mod peers;
mod weights;
mod workload;

pub(crate) use measure::time;
pub use measure::{Calls, FloatKind, features, median, time_conv, weights as fixed_weights};
pub use workload::read_coords;

use std::path::PathBuf;

use anyhow::{Result, bail, ensure};
use burn_lattice::routes::{self, ConvProblem, DeviceClass};
use serde_json::{Map, Value};

use crate::{Shared, output, progress::Steps, table};

/// Arguments of `lattice bench`.
#[derive(clap::Args)]
pub struct Args {
    /// smoke, standard and full run the public cases; peers runs the operations that other libraries were measured with.
    #[arg(long, value_parser = ["smoke", "standard", "full", "peers"], default_value = "smoke")]
    suite: String,
    /// Workloads of the peers suite: .npy files of int32 rows batch, x, y, z; generated scenes without.
    #[arg(long, num_args = 1..)]
    coords: Vec<PathBuf>,
    /// Weights of a network (.safetensors), packed by `lattice quantize` or float: measures its forward pass in place of a suite.
    #[arg(long)]
    weights: Option<PathBuf>,
    /// Points for voxelize_mean in the peers suite and for --weights: a scan; a generated sweep without.
    #[arg(long)]
    points: Option<PathBuf>,
    /// Only operations (peers) or cases (other suites) whose name contains one of these.
    #[arg(long, num_args = 1.., value_delimiter = ',')]
    ops: Vec<String>,
    /// Channel pairs, such as 16x16,32x64.
    #[arg(long, num_args = 1.., value_delimiter = ',')]
    channels: Vec<String>,
    /// Element types.
    #[arg(long, value_enum, num_args = 1.., value_delimiter = ',', default_values_t = [FloatKind::F32])]
    dtype: Vec<FloatKind>,
    /// Calls before the first timed one.
    #[arg(long)]
    warmup: Option<usize>,
    /// Timed calls.
    #[arg(long)]
    repeats: Option<usize>,
    /// Calls of a timed sample, whose time is divided by them; the device is waited for once a sample. 1 on the CPU, 10 on GPUs by
    /// default: a GPU that is waited for after each call shows its launches, not its speed.
    #[arg(long)]
    batch_calls: Option<usize>,
    /// Names the cases without running them.
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    shared: Shared,
}

/// What all suites are told.
pub(crate) struct Plan {
    pub device: burn::tensor::Device,
    pub device_name: String,
    pub threads: usize,
    pub ops: Vec<String>,
    pub channels: Vec<(usize, usize)>,
    pub dtypes: Vec<FloatKind>,
    pub calls: Calls,
}

impl Plan {
    /// The route that a convolution over a relation takes, of one group.
    pub fn conv_route(&self, dtype: FloatKind, (c_in, c_out): (usize, usize)) -> &'static str {
        let shape = lattice_cpu::ConvShape { c_in, c_out, groups: 1 };
        let device = DeviceClass::of(&self.device);
        let problem = ConvProblem { dtype: dtype.dtype(), rows: 1, shape, pointwise: false, device };
        routes::conv_route(&problem).name
    }

    /// Whether a name was asked for.
    pub fn wants(&self, name: &str) -> bool {
        self.ops.is_empty() || self.ops.iter().any(|part| name.contains(part.as_str()))
    }
}

/// One measured case: the fields of a JSON line.
#[derive(Clone, Default)]
pub(crate) struct Row {
    pub workload: String,
    pub op: String,
    pub variant: String,
    pub cin: Option<usize>,
    pub cout: Option<usize>,
    pub dtype: &'static str,
    pub samples_ms: Vec<f64>,
    pub rows: usize,
    pub n_out: usize,
    pub pairs: usize,
    /// Multiply-adds count 2; 0 where it says nothing.
    pub flop: f64,
    pub route: &'static str,
    /// Fields that only some suites have.
    pub extra: Map<String, Value>,
}

impl Row {
    /// The type that products were in: f32 elements may have been rounded for them.
    fn dtype(&self) -> &'static str {
        if self.route == "gpu_mma_tf32" { "tf32" } else { self.dtype }
    }

    fn json(&self, plan: &Plan) -> Value {
        let median = median(&self.samples_ms);
        let min = self.samples_ms.iter().copied().fold(f64::INFINITY, f64::min);
        let mut line = serde_json::json!({
            "lib": "burn-lattice", "version": env!("CARGO_PKG_VERSION"), "variant": self.variant,
            "device": plan.device_name, "threads": plan.threads, "workload": self.workload, "op": self.op,
            "cin": self.cin, "cout": self.cout, "dtype": self.dtype(), "ms_median": median, "ms_min": min,
            "rows": self.rows, "n_out": self.n_out, "pairs": self.pairs,
            "tflops": if self.flop > 0.0 { Value::from(self.flop / median / 1e9) } else { Value::Null },
            "route": self.route, "batch_calls": plan.calls.batch,
        });
        if let Value::Object(fields) = &mut line {
            fields.extend(self.extra.clone());
        }
        line
    }

    fn cells(&self) -> Vec<String> {
        let median = median(&self.samples_ms);
        let channels = match (self.cin, self.cout) {
            (Some(a), Some(b)) => format!("{a}->{b}"),
            (Some(a), None) => a.to_string(),
            _ => String::new(),
        };
        let rate = if self.flop > 0.0 { format!("{:.1}", self.flop / median / 1e6) } else { String::new() };
        vec![
            self.workload.clone(),
            self.op.clone(),
            self.variant.clone(),
            channels,
            self.dtype().into(),
            table::count(self.rows),
            table::count(self.n_out),
            table::count(self.pairs),
            format!("{median:.3}"),
            format!("{:.3}", self.samples_ms.iter().copied().fold(f64::INFINITY, f64::min)),
            rate,
            self.route.into(),
        ]
    }
}

fn channel_pair(text: &str) -> Result<(usize, usize)> {
    let parsed = text.split_once(['x', ':']).and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    match parsed {
        Some((a, b)) if a > 0 && b > 0 => Ok((a, b)),
        _ => bail!("--channels: expected pairs such as 16x32, found `{text}`"),
    }
}

/// Most calls that `--warmup` and `--repeats` take.
const MAX_CALLS: usize = 1_000_000;

/// Refuses a number of calls that no run would end with.
///
/// # Errors
/// Below `least` or above 1,000,000.
pub fn check_calls(name: &str, calls: usize, least: usize) -> Result<()> {
    ensure!((least..=MAX_CALLS).contains(&calls), "{name}: expected {least} to {MAX_CALLS}, found {calls}");
    Ok(())
}

/// Runs the command.
///
/// # Errors
/// Coordinates that cannot be read, arguments that do not fit, a device that is not there.
pub fn run(args: &Args) -> Result<()> {
    let chosen = args.shared.prepare()?;
    args.dtype.iter().try_for_each(|&dtype| chosen.check_dtype(dtype))?;
    let is_gpu = chosen.is_gpu();
    let default_repeats = match args.suite.as_str() {
        "smoke" => 5,
        "peers" => 10,
        _ => 20,
    };
    let plan = Plan {
        device: chosen.device,
        device_name: chosen.name,
        threads: rayon::current_num_threads(),
        ops: args.ops.clone(),
        channels: args.channels.iter().map(|c| channel_pair(c)).collect::<Result<_>>()?,
        dtypes: args.dtype.clone(),
        calls: Calls {
            warmup: args.warmup.unwrap_or(if args.suite == "smoke" { 1 } else { 2 }),
            repeats: args.repeats.unwrap_or(default_repeats),
            batch: args.batch_calls.unwrap_or(Calls::default_batch(is_gpu)),
        },
    };
    check_calls("--repeats", plan.calls.repeats, 1)?;
    check_calls("--warmup", plan.calls.warmup, 0)?;
    check_calls("--batch-calls", plan.calls.batch, 1)?;
    let scans = !args.coords.is_empty() || args.points.is_some() && args.weights.is_none();
    if args.suite != "peers" && scans {
        bail!("--coords and --points belong to --suite peers; the suite {} has its own shapes", args.suite);
    }
    let cases = match (&args.weights, args.suite.as_str()) {
        (Some(file), _) => weights::cases(&plan, file, args.points.as_deref())?,
        (None, "peers") => peers::cases(&plan, &args.coords, args.points.as_deref())?,
        (None, preset) => cases::cases(&plan, preset)?,
    };
    if args.list {
        let name = |case: &Case| match args.shared.json {
            true => serde_json::json!({ "name": case.name }).to_string(),
            false => case.name.clone(),
        };
        return cases.iter().try_for_each(|case| output::line(name(case)));
    }
    if cases.is_empty() {
        bail!(
            "--ops {}: expected a part of a case's name, found no case with it; `lattice bench --suite {} --list` names them",
            args.ops.join(","),
            args.suite
        );
    }
    let steps = Steps::new(cases.len() as u64);
    let mut rows = Vec::new();
    for case in cases {
        steps.begin(case.name.clone());
        let mut row = (case.run)(&plan).map_err(|e| e.context(format!("bench case {}", case.name)))?;
        if is_gpu && row.variant == "cpu" {
            row.variant = "gpu".into();
        }
        if args.shared.json {
            output::line(row.json(&plan))?;
        }
        rows.push(row);
        steps.done();
    }
    drop(steps);
    if !args.shared.json {
        let header = [
            "workload",
            "op",
            "mode",
            "channels",
            "dtype",
            "rows",
            "out",
            "pairs",
            "ms median",
            "ms min",
            "GFLOP/s",
            "route",
        ];
        let rows: Vec<_> = rows.iter().map(Row::cells).collect();
        output::line(table::render(&header, &rows))?;
        let threads = if plan.threads == 1 { "1 thread".into() } else { format!("{} threads", plan.threads) };
        output::line(format!("\n{} cases on {} with {threads}", rows.len(), plan.device_name))?;
    }
    Ok(())
}

/// A case that can be run; its inputs are made when it runs.
pub(crate) struct Case {
    pub name: String,
    #[allow(clippy::type_complexity, reason = "one closure a case, named nowhere else")]
    pub run: Box<dyn FnOnce(&Plan) -> Result<Row>>,
}

impl Case {
    pub fn new(name: impl Into<String>, run: impl FnOnce(&Plan) -> Result<Row> + 'static) -> Self {
        Self { name: name.into(), run: Box::new(run) }
    }
}
