//! THE table: every route of every operation, in order, with its reason.
//!
//! The first route of an operation's table that fits runs; nothing else decides. `LATTICE_ROUTE=op=route[,op=route]` or
//! [`force`] picks one by name; a forced route that does not fit is an error at the call that checks it
//! ([`check_forced`], [`check_forced_packed`]), never a silent fallback. `fits` is about correctness, order is about speed.
//!
//! Two operations have tables: `sparse_conv` with float weights, and `packed_conv` with packed ones.

use std::cell::RefCell;
use std::sync::OnceLock;

use burn::tensor::{DType, Device, Element};
use lattice_cpu::{ConvShape, Epilogue, Scalar};

use crate::backend::{self, ConvMap};
use crate::{Error, Result};

/// What routes ask of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceClass {
    /// The CPU.
    Cpu,
    /// A GPU.
    Gpu(MatrixUnits),
}

/// The matrix instructions of a GPU, with f32 sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MatrixUnits {
    /// 16 x 8 x 16 for f16 and bf16, with fragments that a kernel lays out itself, and loads of them.
    pub manual: bool,
    /// 16 x 16 x 16 for f16, with fragments that the device lays out.
    pub f16: bool,
    /// 16 x 16 x 16 for bf16, likewise.
    pub bf16: bool,
    /// 16 x 8 x 8 for f32 rounded to tf32, laid out by a kernel.
    pub tf32: bool,
    /// 16 x 8 x 32 for signed by unsigned bytes with sums of 32 bits, laid out by a kernel.
    pub bytes: bool,
}

impl MatrixUnits {
    /// Whether convolutions in a 16-bit type run on them.
    pub fn any(self) -> bool {
        self.manual || self.f16 || self.bf16
    }
}

impl DeviceClass {
    /// The class of a device. Opens a GPU that was not used before.
    pub fn of(device: &Device) -> Self {
        backend::device_class(device)
    }

    /// Whether it is a GPU.
    pub fn is_gpu(self) -> bool {
        self != Self::Cpu
    }
}

/// What a convolution route is chosen by.
#[derive(Clone, Copy, Debug)]
pub struct ConvProblem {
    /// Element type of features and weight.
    pub dtype: DType,
    /// Output rows.
    pub rows: usize,
    /// Channels and groups.
    pub shape: ConvShape,
    /// Whether the kernel is one tap that maps each row to itself.
    pub pointwise: bool,
    /// Where features and weight lie.
    pub device: DeviceClass,
}

impl ConvProblem {
    /// One channel a group, in and out.
    pub fn is_depthwise(&self) -> bool {
        let ConvShape { c_in, c_out, groups } = self.shape;
        groups > 1 && groups == c_in && groups == c_out
    }

    /// On the CPU and over a relation.
    fn on_cpu(&self) -> bool {
        self.device == DeviceClass::Cpu && !self.pointwise
    }
}

/// One way to compute a convolution.
pub struct ConvRoute {
    /// Name in tables, reports and `LATTICE_ROUTE`.
    pub name: &'static str,
    /// When and why it is good.
    pub why: &'static str,
    /// What it needs; shown by `explain` where it does not fit.
    pub needs: &'static str,
    /// Whether it is correct for a problem.
    pub fits: fn(&ConvProblem) -> bool,
    kernel: ConvKernel,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConvKernel {
    Gemm,
    Depthwise,
    TapTiles,
    EdgeLoop,
    GpuMma,
    GpuCmma,
    GpuPlain,
    GpuDirect,
}

/// All routes of `sparse_conv`, those of a device best first. One that rounds f32 comes last: it runs for those who ask for it.
pub static CONV_ROUTES: &[ConvRoute] = &[
    ConvRoute {
        name: "pointwise_gemm",
        why: "one tap on the same rows is a plain matrix product",
        needs: "the CPU; kernel size 1, stride 1, no padding, no target",
        fits: |p| p.device == DeviceClass::Cpu && p.pointwise,
        kernel: ConvKernel::Gemm,
    },
    ConvRoute {
        name: "depthwise_rows",
        why: "one channel a group: a multiply-add of whole rows, bound by memory",
        needs: "the CPU; groups = input channels = output channels",
        fits: |p| p.on_cpu() && p.is_depthwise(),
        kernel: ConvKernel::Depthwise,
    },
    ConvRoute {
        name: "tap_tiles",
        why: "rows of one tap meet in a register-blocked product that stays in cache; no multiply is wasted",
        needs: "the CPU; a relation, and f32, f16 or bf16 elements",
        fits: |p| p.on_cpu() && p.dtype != DType::F64,
        kernel: ConvKernel::TapTiles,
    },
    ConvRoute {
        name: "edge_loop",
        why: "walks the pairs of each output row one by one; always possible, and the only route for f64",
        needs: "the CPU; a relation",
        fits: |p| p.on_cpu(),
        kernel: ConvKernel::EdgeLoop,
    },
    ConvRoute {
        name: "gpu_mma",
        why: "a tile's input rows are staged once in shared memory and multiplied by matrix units; absent taps are skipped",
        needs: "a GPU with 16 x 8 x 16 matrix units; one group, f16 or bf16 elements",
        fits: |p| {
            matches!(p.device, DeviceClass::Gpu(MatrixUnits { manual: true, .. }))
                && p.shape.groups == 1
                && matches!(p.dtype, DType::F16 | DType::BF16)
        },
        kernel: ConvKernel::GpuMma,
    },
    ConvRoute {
        name: "gpu_cmma",
        why: "rows of a tap are gathered and multiplied by matrix units that lay out their own fragments",
        needs: "a GPU with 16 x 16 x 16 matrix units for the element type; one group, f16 or bf16 elements",
        fits: |p| {
            let DeviceClass::Gpu(units) = p.device else { return false };
            p.shape.groups == 1
                && match p.dtype {
                    DType::F16 => units.f16,
                    DType::BF16 => units.bf16,
                    _ => false,
                }
        },
        kernel: ConvKernel::GpuCmma,
    },
    ConvRoute {
        name: "gpu_plain",
        why: "staged as in gpu_mma, multiplied in plain f32 registers; any element type and GPU",
        needs: "a GPU; one group, f32, f16 or bf16 elements",
        fits: |p| p.device.is_gpu() && p.shape.groups == 1 && p.dtype != DType::F64,
        kernel: ConvKernel::GpuPlain,
    },
    ConvRoute {
        name: "gpu_direct",
        why: "one thread a few output channels of a row, reading where rows lie; always possible, good for depthwise",
        needs: "a GPU",
        fits: |p| p.device.is_gpu(),
        kernel: ConvKernel::GpuDirect,
    },
    ConvRoute {
        name: "gpu_mma_tf32",
        why: "gpu_mma for f32 elements rounded to tf32 (ten bits of the mantissa), sums in f32; runs where it is asked for alone",
        needs: "a GPU with 16 x 8 x 8 matrix units for tf32; one group, f32 elements",
        fits: |p| {
            matches!(p.device, DeviceClass::Gpu(MatrixUnits { tf32: true, .. }))
                && p.shape.groups == 1
                && p.dtype == DType::F32
        },
        kernel: ConvKernel::GpuMma,
    },
];

impl ConvRoute {
    /// What the route runs.
    #[cfg(feature = "gpu")]
    pub(crate) fn kernel(&self) -> ConvKernel {
        self.kernel
    }

    /// Runs a route of the CPU; `out` is `[rows, c_out]`.
    pub(crate) fn run<T: Scalar + Element + bytemuck::Pod>(
        &self,
        x: &[T],
        weight: &[T],
        map: &ConvMap,
        shape: ConvShape,
        epilogue: &Epilogue<'_, T>,
        out: &mut [T],
    ) {
        match (map, self.kernel) {
            (ConvMap::Pointwise, _) => lattice_cpu::pointwise(x, weight, shape, epilogue, out),
            (ConvMap::Relation(r), ConvKernel::Depthwise) => {
                lattice_cpu::conv_depthwise(x, weight, r.to_host(), shape, epilogue, out);
            }
            (ConvMap::Relation(r), ConvKernel::EdgeLoop) => {
                lattice_cpu::conv_edge_loop(x, weight, r.to_host(), shape, epilogue, out);
            }
            (ConvMap::Relation(r), _) => {
                lattice_cpu::conv_forward(x, weight, r.to_host(), shape, epilogue, out);
            }
        }
    }
}

/// What a convolution with packed weights is chosen by.
#[derive(Clone, Copy, Debug)]
pub struct PackedProblem {
    /// Features, rows, channels and device; a linear map is a pointwise one.
    pub conv: ConvProblem,
    /// Kernel taps.
    pub taps: usize,
    /// Bits of a code.
    pub bits: u32,
    /// Whether it is known how input features become bytes.
    pub activations: bool,
}

impl PackedProblem {
    fn on_cpu(&self) -> bool {
        self.conv.device == DeviceClass::Cpu && self.conv.dtype != DType::F64
    }

    /// Input channels of an output channel.
    fn row(&self) -> usize {
        self.conv.shape.c_in / self.conv.shape.groups.max(1)
    }
}

/// One way to compute a convolution with packed weights.
pub struct PackedRoute {
    /// Name in tables, reports and `LATTICE_ROUTE`.
    pub name: &'static str,
    /// When and why it is good.
    pub why: &'static str,
    /// What it needs; shown by `explain` where it does not fit.
    pub needs: &'static str,
    /// Whether it is correct for a problem.
    pub fits: fn(&PackedProblem) -> bool,
    /// Whether it is as fast as those after it, where both fit; a forced route need not be.
    pub pays: fn(&PackedProblem) -> bool,
    pub(crate) kernel: PackedKernel,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PackedKernel {
    /// Bytes times codes.
    Int8,
    /// Floats times values that are unpacked a panel at a time.
    Panels,
    /// Bytes times codes, on the matrix units of a GPU.
    Int8Mma,
    /// Floats times values that are unpacked in registers, on the matrix units of a GPU.
    Mma,
    /// Floats times values that are unpacked into fragments first, on the matrix units of a GPU.
    ExpandMma,
    /// The float convolution on the weight of one layer, unpacked on its device.
    Dequantize,
}

/// Input channels from which products of bytes are faster than those of floats: 0.95 times the speed of f32 at 32, 2.1 times at 64. Found
/// by `examples/packed_timing.rs` of `lattice-cpu`.
const INT8_MIN_CHANNELS: usize = 48;

/// Products, were every row to have every tap, up to which codes are unpacked in registers, those of the first [`PACKED_MMA_FREE_ROWS`] not counted: from there
/// on a launch that unpacks them once costs less than planes that all unpack the same codes, and plans of floats have weights under way that codes leave no
/// registers for. That launch takes 3 us and 0.8 us a million weights, and registers a sixth to an eighth of the kernel's time: found on the layers
/// of `minkunet18` and the levels of a scan on an H200 (`benches/RESULTS.md`).
const PACKED_MMA_MOST_PRODUCTS: u64 = 3_700_000_000;
const PACKED_MMA_FREE_ROWS: usize = 500;

/// All routes of `packed_conv`, those of a device best first.
pub static PACKED_ROUTES: &[PackedRoute] = &[
    PackedRoute {
        name: "packed_int8",
        why: "features become bytes, whose products with the codes are summed exactly in 32 bits, four an instruction; pays from 48 input channels on, with AVX-512 VNNI",
        needs: "the CPU; calibrated activations, and f32, f16 or bf16 features",
        fits: |p| p.on_cpu() && p.activations,
        pays: |p| p.row() >= INT8_MIN_CHANNELS && lattice_cpu::multiplies_bytes(),
        kernel: PackedKernel::Int8,
    },
    PackedRoute {
        name: "packed_panels",
        why: "a tap's weights are unpacked into a panel that stays in cache and serves all pairs of a block of rows",
        needs: "the CPU; f32, f16 or bf16 features",
        fits: |p| p.on_cpu(),
        pays: |_| true,
        kernel: PackedKernel::Panels,
    },
    PackedRoute {
        name: "packed_int8_mma",
        why: "features become bytes, which matrix units multiply by the codes, 32 channels at a time; sums of up to 64 channels of a group are exact; pays beside f32",
        needs: "a GPU with 16 x 8 x 32 matrix units for bytes; one group, calibrated activations, and f32, f16 or bf16 features",
        fits: |p| {
            matches!(p.conv.device, DeviceClass::Gpu(MatrixUnits { manual: true, bytes: true, .. }))
                && p.conv.shape.groups == 1
                && p.activations
                && p.conv.dtype != DType::F64
        },
        // Beside f16 weights it takes 1.01 to 1.15 times as long (`examples/packed_timing.rs` of `lattice-gpu`, H200); beside f32 it is fast.
        pays: |p| p.conv.dtype == DType::F32,
        kernel: PackedKernel::Int8Mma,
    },
    PackedRoute {
        name: "packed_mma",
        why: "gpu_mma whose planes load codes and unpack them in registers: a half to a quarter of the bytes a weight, for few rows",
        needs: "a GPU with 16 x 8 x 16 matrix units; one group, f16 or bf16 features",
        fits: |p| {
            matches!(p.conv.device, DeviceClass::Gpu(MatrixUnits { manual: true, .. }))
                && p.conv.shape.groups == 1
                && matches!(p.conv.dtype, DType::F16 | DType::BF16)
        },
        pays: |p| {
            let rows = p.conv.rows.saturating_sub(PACKED_MMA_FREE_ROWS);
            let factors = [rows, p.taps, p.row(), p.conv.shape.c_out];
            factors.iter().fold(1u64, |product, &factor| product.saturating_mul(factor as u64))
                <= PACKED_MMA_MOST_PRODUCTS
        },
        kernel: PackedKernel::Mma,
    },
    PackedRoute {
        name: "packed_expand_mma",
        why: "one launch unpacks a layer's codes into the fragments of gpu_mma, for this call alone: on many rows each plane would unpack them again",
        needs: "a GPU with 16 x 8 x 16 matrix units; one group, f16 or bf16 features",
        fits: |p| {
            matches!(p.conv.device, DeviceClass::Gpu(MatrixUnits { manual: true, .. }))
                && p.conv.shape.groups == 1
                && matches!(p.conv.dtype, DType::F16 | DType::BF16)
        },
        pays: |_| true,
        kernel: PackedKernel::ExpandMma,
    },
    PackedRoute {
        name: "dequantize",
        why: "one layer's weight at a time is unpacked on its device for the float routes, on a GPU in one launch; always possible, f64 and every GPU included",
        needs: "nothing",
        fits: |_| true,
        pays: |_| true,
        kernel: PackedKernel::Dequantize,
    },
];

/// The operations whose routes can be forced.
const CONV: &str = "sparse_conv";
const PACKED: &str = "packed_conv";

/// Routes that are forced, one an operation.
#[derive(Clone, Copy, Default)]
struct Forced {
    conv: Option<&'static ConvRoute>,
    packed: Option<&'static PackedRoute>,
}

thread_local! {
    static FORCED: RefCell<Forced> = const { RefCell::new(Forced { conv: None, packed: None }) };
}

/// Forces a route of `sparse_conv` or `packed_conv` on this thread, until the guard is dropped.
///
/// # Errors
/// A name that is neither in [`CONV_ROUTES`] nor in [`PACKED_ROUTES`].
pub fn force(route: &str) -> Result<ForcedRoute> {
    let before = FORCED.with(|forced| *forced.borrow());
    let mut now = before;
    match PACKED_ROUTES.iter().find(|r| r.name == route) {
        Some(packed) => now.packed = Some(packed),
        None => now.conv = Some(named(route)?),
    }
    FORCED.with(|forced| *forced.borrow_mut() = now);
    Ok(ForcedRoute { before })
}

/// Keeps a route forced; made by [`force`].
#[must_use = "the route is forced until this guard is dropped"]
pub struct ForcedRoute {
    before: Forced,
}

impl Drop for ForcedRoute {
    fn drop(&mut self) {
        FORCED.with(|forced| *forced.borrow_mut() = self.before);
    }
}

fn unknown(op: &str, known: &[&'static str], route: &str) -> Error {
    Error::Value {
        op: "routes",
        what: format!("expected a route of {op} ({}), found `{route}`", known.join(", ")),
    }
}

fn named(route: &str) -> Result<&'static ConvRoute> {
    let known: Vec<_> = CONV_ROUTES.iter().map(|r| r.name).collect();
    CONV_ROUTES.iter().find(|r| r.name == route).ok_or_else(|| unknown(CONV, &known, route))
}

fn packed_named(route: &str) -> Result<&'static PackedRoute> {
    let known: Vec<_> = PACKED_ROUTES.iter().map(|r| r.name).collect();
    PACKED_ROUTES.iter().find(|r| r.name == route).ok_or_else(|| unknown(PACKED, &known, route))
}

/// Reads `LATTICE_ROUTE` once.
fn from_environment() -> &'static Result<Forced> {
    static READ: OnceLock<Result<Forced>> = OnceLock::new();
    READ.get_or_init(|| {
        let mut found = Forced::default();
        let Ok(text) = std::env::var("LATTICE_ROUTE") else { return Ok(found) };
        for entry in text.split(',').filter(|e| !e.trim().is_empty()) {
            match entry.trim().split_once('=') {
                Some((CONV, route)) => found.conv = Some(named(route)?),
                Some((PACKED, route)) => found.packed = Some(packed_named(route)?),
                _ => {
                    return Err(Error::Value {
                        op: "LATTICE_ROUTE",
                        what: format!("expected `{CONV}=ROUTE` or `{PACKED}=ROUTE`, found `{entry}`"),
                    });
                }
            }
        }
        Ok(found)
    })
}

fn forced() -> Result<Forced> {
    let here = FORCED.with(|forced| *forced.borrow());
    let environment = (*from_environment()).clone();
    match (here.conv, here.packed) {
        (Some(_), Some(_)) => Ok(here),
        _ => environment.map(|e| Forced { conv: here.conv.or(e.conv), packed: here.packed.or(e.packed) }),
    }
}

/// Refuses a forced route of `packed_conv` that does not fit; operations call it before any work.
///
/// # Errors
/// [`Error::Value`] that names the route and what it needs.
pub fn check_forced_packed(problem: &PackedProblem) -> Result<()> {
    match forced()?.packed {
        Some(route) if !(route.fits)(problem) => Err(Error::Value {
            op: PACKED,
            what: format!("route `{}` was forced but does not fit: it needs {}", route.name, route.needs),
        }),
        _ => Ok(()),
    }
}

/// The route of `packed_conv` that runs for a problem.
pub fn packed_route(problem: &PackedProblem) -> &'static PackedRoute {
    if let Ok(Forced { packed: Some(route), .. }) = forced()
        && (route.fits)(problem)
    {
        return route;
    }
    PACKED_ROUTES
        .iter()
        .find(|r| (r.fits)(problem) && (r.pays)(problem))
        .expect("`dequantize` fits everything")
}

/// Which route of `packed_conv` runs for a problem, and why the others do not.
pub fn explain_packed(problem: &PackedProblem) -> Vec<RouteReport> {
    let chosen = packed_route(problem).name;
    let report = |r: &PackedRoute| RouteReport {
        route: r.name,
        why: r.why,
        chosen: r.name == chosen,
        rejected: match (r.name == chosen, (r.fits)(problem), (r.pays)(problem)) {
            (true, ..) => None,
            (false, true, true) => Some(format!("fits, but `{chosen}` is preferred")),
            (false, true, false) => {
                Some(format!("fits, but `{chosen}` is faster at these sizes on this device"))
            }
            (false, false, _) => Some(format!("does not fit: needs {}", r.needs)),
        },
    };
    PACKED_ROUTES.iter().map(report).collect()
}

/// Refuses a forced route that does not fit; operations call it before any work.
///
/// # Errors
/// [`Error::Value`] that names the route and what it needs.
pub fn check_forced(problem: &ConvProblem) -> Result<()> {
    match forced()?.conv {
        // A pointwise call has one route; a forced relation route does not concern it.
        Some(route) if !(route.fits)(problem) && !problem.pointwise => Err(Error::Value {
            op: CONV,
            what: format!("route `{}` was forced but does not fit: it needs {}", route.name, route.needs),
        }),
        _ => Ok(()),
    }
}

/// The route that runs for a problem.
pub fn conv_route(problem: &ConvProblem) -> &'static ConvRoute {
    if let Ok(Forced { conv: Some(route), .. }) = forced()
        && (route.fits)(problem)
    {
        return route;
    }
    CONV_ROUTES
        .iter()
        .find(|r| (r.fits)(problem))
        .expect("`pointwise_gemm` and `edge_loop` fit everything on a CPU, `gpu_direct` everything on a GPU")
}

/// What the staged routes of a GPU do for a convolution over a relation, besides what any route must.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvWork {
    /// Tiles of 256 output rows.
    pub tiles: usize,
    /// Times that input rows are staged; one a tile, but for those that meet too many rows.
    pub phases: usize,
    /// Input rows staged, over all tiles.
    pub staged_rows: usize,
    /// Rows that matrix units multiply, over all taps: sixteen at a time where one of them has the tap. The relation has as many
    /// pairs as would suffice.
    pub computed: usize,
    /// Bytes of the tables.
    pub table_bytes: usize,
}

impl ConvWork {
    /// Asks a GPU; `None` on the CPU, which works pair by pair. Builds the tables where no convolution did.
    pub fn of(device: &Device, relation: &lattice_core::Relation) -> Option<Self> {
        backend::conv_work(device, relation)
    }
}

/// One line of [`explain`].
#[derive(Clone, Debug)]
pub struct RouteReport {
    /// Name of the route.
    pub route: &'static str,
    /// When and why it is good.
    pub why: &'static str,
    /// Whether it runs.
    pub chosen: bool,
    /// Why it does not, where it does not.
    pub rejected: Option<String>,
}

/// Which route runs for a problem, and why the others do not.
pub fn explain(problem: &ConvProblem) -> Vec<RouteReport> {
    let chosen = conv_route(problem).name;
    let report = |r: &ConvRoute| RouteReport {
        route: r.name,
        why: r.why,
        chosen: r.name == chosen,
        rejected: match (r.name == chosen, (r.fits)(problem)) {
            (true, _) => None,
            (false, true) => Some(format!("fits, but `{chosen}` is preferred")),
            (false, false) => Some(format!("does not fit: needs {}", r.needs)),
        },
    };
    CONV_ROUTES.iter().map(report).collect()
}
