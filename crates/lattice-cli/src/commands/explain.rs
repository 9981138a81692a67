//! `lattice explain`: which route an operation takes, and why.

use std::path::PathBuf;

use anyhow::{Result, bail, ensure};
use burn_lattice::routes::{self, ConvProblem, ConvWork, DeviceClass};
use burn_lattice::{KernelSpec, Peaks, SupportPolicy, core};
use lattice_cpu::ConvShape;
use serde::Serialize;

use crate::commands::bench::{self, Calls, FloatKind};
use crate::{Shared, memory, output, table};

mod packed;

/// Arguments of `lattice explain`.
#[derive(clap::Args)]
pub struct Args {
    /// Operation: subm3, k2s2, k3s2, transpose2, generative2 or pointwise.
    #[arg(long, value_parser = ["subm3", "k2s2", "k3s2", "transpose2", "generative2", "pointwise"], default_value = "subm3")]
    op: String,
    /// Coordinates: a .npy file of int32 rows batch, x, y, z.
    #[arg(long)]
    coords: PathBuf,
    /// Input channels.
    #[arg(long, default_value_t = 32)]
    cin: usize,
    /// Output channels.
    #[arg(long, default_value_t = 32)]
    cout: usize,
    /// Channel groups.
    #[arg(long, default_value_t = 1)]
    groups: usize,
    /// Element type.
    #[arg(long, value_enum, default_value_t = FloatKind::F32)]
    dtype: FloatKind,
    /// Timed calls.
    #[arg(long, default_value_t = 10)]
    repeats: usize,
    /// Calls of a timed sample, between which the device is not waited for; 1 on the CPU, 10 on GPUs by default.
    #[arg(long)]
    batch_calls: Option<usize>,
    /// Packs the weights into codes of 4 or 8 bits and says what that route costs and stores, too.
    #[arg(long)]
    bits: Option<u32>,
    /// Input channels that share a scale; with --bits.
    #[arg(long, requires = "bits")]
    group_size: Option<usize>,
    /// Features in bytes, too; with --bits.
    #[arg(long, value_parser = ["int8"], requires = "bits")]
    activations: Option<String>,
    #[command(flatten)]
    shared: Shared,
}

#[derive(Serialize)]
struct Report {
    op: String,
    device: String,
    dtype: String,
    relation_kind: String,
    kernel: KernelReport,
    rows_in: usize,
    rows_out: usize,
    pairs: usize,
    mean_neighbours: f64,
    density: f64,
    input_exclusive: bool,
    cin: usize,
    cout: usize,
    groups: usize,
    relation_build_ms: f64,
    relation_bytes: usize,
    flop: f64,
    bytes: f64,
    measured_ms: f64,
    gflops: f64,
    gb_per_s: f64,
    peak_gb_per_s: f64,
    peak_gflops: f64,
    floor_ms: f64,
    share_of_floor: f64,
    tiles: Option<TileLine>,
    accumulation: &'static str,
    route: &'static str,
    routes: Vec<RouteLine>,
    packed: Option<packed::Packed>,
}

#[derive(Serialize)]
struct KernelReport {
    size: [u32; 3],
    stride: [u32; 3],
    padding: [u32; 3],
    dilation: [u32; 3],
    taps: usize,
}

/// What the staged routes of a GPU do besides what they must.
#[derive(Serialize)]
struct TileLine {
    tiles: usize,
    phases: usize,
    /// Input rows staged, an input row of the relation.
    staged_per_row: f64,
    /// Rows that matrix units multiply, over all taps.
    computed: usize,
    /// Part of them that is no pair.
    waste: f64,
    table_bytes: usize,
    table_bytes_per_row: f64,
}

#[derive(Serialize)]
pub struct RouteLine {
    route: &'static str,
    chosen: bool,
    why: &'static str,
    rejected: Option<String>,
}

impl From<routes::RouteReport> for RouteLine {
    fn from(r: routes::RouteReport) -> Self {
        Self { route: r.route, chosen: r.chosen, why: r.why, rejected: r.rejected }
    }
}

impl RouteLine {
    fn cells(&self) -> Vec<String> {
        let reason = self.rejected.clone().unwrap_or_else(|| self.why.to_string());
        vec![if self.chosen { "runs".into() } else { "-".into() }, self.route.into(), reason]
    }
}

/// Runs the command.
///
/// # Errors
/// Coordinates that cannot be read, channels that groups do not divide.
pub fn run(args: &Args) -> Result<()> {
    let chosen = args.shared.prepare()?;
    for (name, value) in [("--cin", args.cin), ("--cout", args.cout), ("--groups", args.groups)] {
        ensure!(value > 0, "{name}: expected at least 1, found 0");
    }
    chosen.check_dtype(args.dtype)?;
    bench::check_calls("--repeats", args.repeats, 1)?;
    bench::check_calls("--batch-calls", args.batch_calls.unwrap_or(1), 1)?;
    if !args.cin.is_multiple_of(args.groups) || !args.cout.is_multiple_of(args.groups) {
        bail!(
            "--groups: expected a number that divides --cin {} and --cout {}, found {}",
            args.cin,
            args.cout,
            args.groups
        );
    }
    let support = bench::read_coords(&args.coords)?;
    // Before the relation is built: transposed kinds make up to 8 rows of each.
    let (taps, growth) = match args.op.as_str() {
        "pointwise" => (1, 1),
        "transpose2" | "generative2" => (8, 8),
        "k2s2" => (8, 1),
        _ => (27, 1),
    };
    let n = support.n_rows();
    let bytes = memory::conv_bytes(n, n.saturating_mul(growth), taps, [args.cin, args.cout], args.groups);
    memory::ensure_fits(bytes, "--cin and --cout")?;
    let start = std::time::Instant::now();
    let (spec, relation) = relation(&args.op, &support)?;
    let relation_build_ms = start.elapsed().as_secs_f64() * 1e3;
    let shape = ConvShape { c_in: args.cin, c_out: args.cout, groups: args.groups };
    let rows_in = support.n_rows();
    let (rows_out, pairs) = relation.as_ref().map_or((rows_in, rows_in), |r| (r.n_out(), r.n_pairs()));
    let problem = ConvProblem {
        dtype: args.dtype.dtype(),
        rows: rows_out,
        shape,
        pointwise: relation.is_none(),
        device: DeviceClass::of(&chosen.device),
    };
    routes::check_forced(&problem)?;
    let batch = args.batch_calls.unwrap_or(Calls::default_batch(chosen.is_gpu()));
    let calls = Calls { warmup: 2, repeats: args.repeats, batch };
    let samples = bench::time_conv(&chosen.device, &support, relation.as_ref(), shape, args.dtype, calls)?;
    let measured_ms = bench::median(&samples);
    let packed = packed::explain(args, &chosen.device, &support, relation.as_ref(), &problem, calls)?;
    let element = args.dtype.bytes() as f64;
    let flop = 2.0 * pairs as f64 * (args.cin / args.groups) as f64 * args.cout as f64;
    let weights = spec.taps() as f64 * (args.cin / args.groups * args.cout) as f64;
    let features = rows_in as f64 * args.cin as f64 + rows_out as f64 * args.cout as f64;
    let relation_bytes = relation.as_ref().map_or(0, core::Relation::bytes);
    let bytes = element * (features + weights) + 4.0 * pairs as f64;
    let peaks = Peaks::measure(&chosen.device, args.dtype.dtype());
    let floor_ms = 1e3 * peaks.floor_s(bytes, flop);
    let work = relation.as_ref().and_then(|r| ConvWork::of(&chosen.device, r));
    let tiles = work.map(|work| TileLine {
        tiles: work.tiles,
        phases: work.phases,
        staged_per_row: work.staged_rows as f64 / rows_in.max(1) as f64,
        computed: work.computed,
        waste: 1.0 - pairs as f64 / work.computed.max(1) as f64,
        table_bytes: work.table_bytes,
        table_bytes_per_row: work.table_bytes as f64 / rows_out.max(1) as f64,
    });
    let report = Report {
        op: args.op.clone(),
        device: chosen.name,
        dtype: args.dtype.name().into(),
        relation_kind: relation.as_ref().map_or("none".into(), |r| format!("{:?}", r.kind()).to_lowercase()),
        kernel: KernelReport {
            size: spec.size,
            stride: spec.stride,
            padding: spec.padding,
            dilation: spec.dilation,
            taps: spec.taps(),
        },
        rows_in,
        rows_out,
        pairs,
        mean_neighbours: pairs as f64 / rows_out.max(1) as f64,
        density: pairs as f64 / (rows_out.max(1) * spec.taps()) as f64,
        input_exclusive: relation.as_ref().is_none_or(core::Relation::input_exclusive),
        cin: args.cin,
        cout: args.cout,
        groups: args.groups,
        relation_build_ms,
        relation_bytes,
        flop,
        bytes,
        measured_ms,
        gflops: flop / measured_ms / 1e6,
        gb_per_s: bytes / measured_ms / 1e6,
        peak_gb_per_s: peaks.bytes_per_s / 1e9,
        peak_gflops: peaks.flop_per_s / 1e9,
        floor_ms,
        share_of_floor: floor_ms / measured_ms,
        tiles,
        accumulation: if args.dtype == FloatKind::F64 { "f64" } else { "f32" },
        route: routes::conv_route(&problem).name,
        routes: routes::explain(&problem).into_iter().map(RouteLine::from).collect(),
        packed,
    };
    if args.shared.json { output::json(&report) } else { output::line(text(&report)) }
}

/// The relation of an operation; none for a pointwise product.
pub fn relation(op: &str, support: &core::Support) -> Result<(KernelSpec, Option<core::Relation>)> {
    let cube = KernelSpec::cube;
    Ok(match op {
        "subm3" => (cube(3, 1)?, Some(core::Relation::submanifold(support, &cube(3, 1)?)?)),
        "k2s2" => (cube(2, 2)?, Some(core::Relation::forward(support, &cube(2, 2)?, SupportPolicy::Floor)?)),
        "k3s2" => (cube(3, 2)?, Some(core::Relation::forward(support, &cube(3, 2)?, SupportPolicy::Floor)?)),
        "transpose2" => (cube(2, 2)?, Some(core::Relation::transposed(support, &cube(2, 2)?)?)),
        "generative2" => (cube(2, 2)?, Some(core::Relation::generative(support, [2; 3], [2; 3])?)),
        "pointwise" => (cube(1, 1)?, None),
        other => {
            bail!("--op: expected subm3, k2s2, k3s2, transpose2, generative2 or pointwise, found `{other}`")
        }
    })
}

fn text(r: &Report) -> String {
    let groups = if r.groups == 1 { String::new() } else { format!(" in {} groups", r.groups) };
    let relation = match r.relation_kind.as_str() {
        "none" => "none: each row is multiplied where it stands".to_string(),
        kind => format!(
            "{kind}; kernel {:?}, stride {:?}, padding {:?}, dilation {:?}, {} taps",
            r.kernel.size, r.kernel.stride, r.kernel.padding, r.kernel.dilation, r.kernel.taps
        ),
    };
    let tiles = r.tiles.as_ref().map(|t| {
        format!(
            "tiles      {} of 256 rows, staged {} times; {:.2} rows staged a row, {:.2} taps computed a row ({:.0} % without a pair); {:.1} table bytes a row",
            table::count(t.tiles),
            table::count(t.phases),
            t.staged_per_row,
            t.computed as f64 / r.rows_out.max(1) as f64,
            100.0 * t.waste,
            t.table_bytes_per_row
        )
    });
    let lines = [
        format!("{} {} {}->{}{groups} on {}", r.op, r.dtype, r.cin, r.cout, r.device),
        format!("relation   {relation}"),
        format!(
            "rows       {} in, {} out; {} pairs, {:.2} an output row, density {:.3}",
            table::count(r.rows_in),
            table::count(r.rows_out),
            table::count(r.pairs),
            r.mean_neighbours,
            r.density
        ),
        format!(
            "built      in {:.2} ms; {} bytes with the views that ran",
            r.relation_build_ms,
            table::count(r.relation_bytes)
        ),
    ];
    let figures = [
        format!(
            "predicted  {:.3} GFLOP, at least {:.1} MB to move; sums in {}",
            r.flop / 1e9,
            r.bytes / 1e6,
            r.accumulation
        ),
        format!(
            "measured   {:.3} ms: {:.1} GFLOP/s, {:.1} GB/s (median)",
            r.measured_ms, r.gflops, r.gb_per_s
        ),
        format!(
            "floor      {:.3} ms at the {:.0} GB/s and {:.0} GFLOP/s that this device reaches at best: {:.0} % of it\n",
            r.floor_ms,
            r.peak_gb_per_s,
            r.peak_gflops,
            100.0 * r.share_of_floor
        ),
        table::render(&["", "route", "reason"], &r.routes.iter().map(RouteLine::cells).collect::<Vec<_>>()),
    ];
    let packed = r.packed.as_ref().map(|p| p.text(r.measured_ms));
    lines.into_iter().chain(tiles).chain(figures).chain(packed).collect::<Vec<_>>().join("\n")
}
