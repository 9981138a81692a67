//! Records of the operations made of row maps: pooling, joins, selection and the point bridge.

use burn::tensor::{Device, Tensor};

use crate::trace::{self, Clock, LayerRecord};

/// Route of every sum over a row map.
pub(crate) const ROW_MIX: &str = "row_mix";
/// Route of every maximum over a row map.
pub(crate) const ROW_MAX: &str = "row_max";

/// Times one operation: first its geometry, then its arithmetic.
pub(crate) struct RowTrace {
    op: &'static str,
    kind: &'static str,
    map_ms: f64,
    clock: Clock,
}

impl RowTrace {
    /// Starts with the geometry.
    pub(crate) fn start(op: &'static str, kind: &'static str) -> Self {
        Self { op, kind, map_ms: 0.0, clock: Clock::start() }
    }

    /// The geometry is found; what follows is arithmetic on `x`.
    pub(crate) fn mapped(self, x: &Tensor<2>) -> Self {
        Self { map_ms: self.clock.ms(), clock: Clock::start_on(x), ..self }
    }

    /// Keeps the record of an operation from `[rows_in, c_in]` to `out` over as many entries as `pairs` says, which is
    /// asked while somebody records only.
    pub(crate) fn finish(
        self,
        [rows_in, c_in]: [usize; 2],
        out: &Tensor<2>,
        pairs: impl FnOnce(&Device) -> usize,
        route: &'static str,
    ) {
        let ms = self.clock.ms_on(out);
        let [rows_out, c_out] = out.dims();
        trace::push(|| LayerRecord {
            name: self.op.to_string(),
            kind: self.kind.to_string(),
            rows_in,
            rows_out,
            pairs: pairs(&out.device()),
            c_in,
            c_out,
            route,
            map_ms: self.map_ms,
            ms,
        });
    }
}
