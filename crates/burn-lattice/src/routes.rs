//! THE table: every route of every operation, in order, with its reason.
//!
//! The first route of an operation's table that fits runs; nothing else decides. `LATTICE_ROUTE=op=route[,op=route]` or
//! [`force`] picks one by name; a forced route that does not fit is an error at the call that checks it
//! ([`check_forced`]), never a silent fallback. `fits` is about correctness, order is about speed.

use std::cell::RefCell;
use std::sync::OnceLock;

use burn::tensor::{DType, Element};
use lattice_cpu::{ConvShape, Epilogue, Scalar};

use crate::backend::ConvMap;
use crate::{Error, Result};

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
}

impl ConvProblem {
    /// One channel a group, in and out.
    pub fn is_depthwise(&self) -> bool {
        let ConvShape { c_in, c_out, groups } = self.shape;
        groups > 1 && groups == c_in && groups == c_out
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

#[derive(Clone, Copy)]
enum ConvKernel {
    Gemm,
    Depthwise,
    TapTiles,
    EdgeLoop,
}

/// All routes of `sparse_conv` on the CPU, best first.
pub static CONV_ROUTES: &[ConvRoute] = &[
    ConvRoute {
        name: "pointwise_gemm",
        why: "one tap on the same rows is a plain matrix product",
        needs: "kernel size 1, stride 1, no padding, no target",
        fits: |p| p.pointwise,
        kernel: ConvKernel::Gemm,
    },
    ConvRoute {
        name: "depthwise_rows",
        why: "one channel a group: a multiply-add of whole rows, bound by memory",
        needs: "groups = input channels = output channels",
        fits: |p| !p.pointwise && p.is_depthwise(),
        kernel: ConvKernel::Depthwise,
    },
    ConvRoute {
        name: "tap_tiles",
        why: "rows of one tap meet in a register-blocked product that stays in cache; no multiply is wasted",
        needs: "a relation, and f32, f16 or bf16 elements",
        fits: |p| !p.pointwise && p.dtype != DType::F64,
        kernel: ConvKernel::TapTiles,
    },
    ConvRoute {
        name: "edge_loop",
        why: "walks the pairs of each output row one by one; always possible, and the only route for f64",
        needs: "a relation",
        fits: |p| !p.pointwise,
        kernel: ConvKernel::EdgeLoop,
    },
];

impl ConvRoute {
    /// Runs the route; `out` is `[rows, c_out]`.
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
            (ConvMap::Relation(r), ConvKernel::TapTiles | ConvKernel::Gemm) => {
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
        .expect("`pointwise_gemm` and `edge_loop` fit everything between them")
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
