//! THE table: every route of every operation, in order, with its reason.
//!
//! The first route of an operation's table that fits runs; nothing else decides. `LATTICE_ROUTE=op=route[,op=route]` or
//! [`force`] picks one by name; a forced route that does not fit is an error at the call that checks it
//! ([`check_forced`]), never a silent fallback. `fits` is about correctness, order is about speed.

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

/// The operation whose routes can be forced.
const CONV: &str = "sparse_conv";

thread_local! {
    static FORCED: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Forces a route of `sparse_conv` on this thread, until the guard is dropped.
///
/// # Errors
/// A name that is not in [`CONV_ROUTES`].
pub fn force(route: &str) -> Result<ForcedRoute> {
    named(route)?;
    let before = FORCED.with(|forced| forced.replace(Some(route.to_string())));
    Ok(ForcedRoute { before })
}

/// Keeps a route forced; made by [`force`].
#[must_use = "the route is forced until this guard is dropped"]
pub struct ForcedRoute {
    before: Option<String>,
}

impl Drop for ForcedRoute {
    fn drop(&mut self) {
        FORCED.with(|forced| *forced.borrow_mut() = self.before.take());
    }
}

fn named(route: &str) -> Result<&'static ConvRoute> {
    CONV_ROUTES.iter().find(|r| r.name == route).ok_or_else(|| Error::Value {
        op: "routes",
        what: format!(
            "expected a route of {CONV} ({}), found `{route}`",
            CONV_ROUTES.iter().map(|r| r.name).collect::<Vec<_>>().join(", ")
        ),
    })
}

/// Reads `LATTICE_ROUTE` once.
fn from_environment() -> &'static Result<Option<&'static ConvRoute>> {
    static READ: OnceLock<Result<Option<&'static ConvRoute>>> = OnceLock::new();
    READ.get_or_init(|| {
        let Ok(text) = std::env::var("LATTICE_ROUTE") else { return Ok(None) };
        let mut found = None;
        for entry in text.split(',').filter(|e| !e.trim().is_empty()) {
            match entry.trim().split_once('=') {
                Some((CONV, route)) => found = Some(named(route)?),
                _ => {
                    return Err(Error::Value {
                        op: "LATTICE_ROUTE",
                        what: format!("expected `{CONV}=ROUTE`, found `{entry}`"),
                    });
                }
            }
        }
        Ok(found)
    })
}

fn forced() -> Result<Option<&'static ConvRoute>> {
    match FORCED.with(|forced| forced.borrow().clone()) {
        Some(name) => named(&name).map(Some),
        None => from_environment().clone(),
    }
}

/// Refuses a forced route that does not fit; operations call it before any work.
///
/// # Errors
/// [`Error::Value`] that names the route and what it needs.
pub fn check_forced(problem: &ConvProblem) -> Result<()> {
    match forced()? {
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
    if let Ok(Some(route)) = forced()
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
