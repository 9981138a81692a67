//! Pooling and upsampling modules.

use burn_lattice::SupportPolicy;
use burn_lattice::nn::{
    AvgPool3d, GlobalAvgPool, GlobalMaxPool, GlobalSumPool, MaxPool3d, Pool3d, PoolTranspose3d, SumPool3d,
    TrilinearUpsample3d,
};
use burn_lattice::ops::PoolMode;

use super::{Export, ExportOnto};
use crate::build::{DenseValue, GraphBuilder, SparseValue};
use crate::error::{ArtifactError, Result};

impl Export for Pool3d {
    fn export(&self, graph: &mut GraphBuilder, x: SparseValue) -> Result<SparseValue> {
        let options = self.options()?;
        match options.policy {
            SupportPolicy::Floor => Ok(graph.pool(x, self.mode(), &options.spec)),
            other => {
                let what = format!("expected a pooling with output rows by floor division, found {other:?}");
                Err(ArtifactError::build(what))
            }
        }
    }
}

/// Poolings of one mode.
macro_rules! fixed_pools {
    ($($module:ident),*) => {$(
        impl Export for $module {
            fn export(&self, graph: &mut GraphBuilder, x: SparseValue) -> Result<SparseValue> {
                self.pool().export(graph, x)
            }
        }
    )*};
}
fixed_pools!(SumPool3d, AvgPool3d, MaxPool3d);

impl Export for PoolTranspose3d {
    fn export(&self, graph: &mut GraphBuilder, x: SparseValue) -> Result<SparseValue> {
        Ok(graph.pool_transpose(x, None, &self.spec()?))
    }
}

impl ExportOnto for PoolTranspose3d {
    fn export_onto(
        &self,
        graph: &mut GraphBuilder,
        x: SparseValue,
        target: SparseValue,
    ) -> Result<SparseValue> {
        Ok(graph.pool_transpose(x, Some(target), &self.spec()?))
    }
}

fn step(module: &TrilinearUpsample3d) -> Result<[u32; 3]> {
    let stride = module.stride();
    let narrow = stride.map(|step| u32::try_from(step).ok());
    match narrow {
        [Some(x), Some(y), Some(z)] => Ok([x, y, z]),
        _ => Err(ArtifactError::build(format!("expected strides below 2^32, found {stride:?}"))),
    }
}

impl Export for TrilinearUpsample3d {
    fn export(&self, graph: &mut GraphBuilder, x: SparseValue) -> Result<SparseValue> {
        Ok(graph.trilinear_upsample(x, None, step(self)?))
    }
}

impl ExportOnto for TrilinearUpsample3d {
    fn export_onto(
        &self,
        graph: &mut GraphBuilder,
        x: SparseValue,
        target: SparseValue,
    ) -> Result<SparseValue> {
        Ok(graph.trilinear_upsample(x, Some(target), step(self)?))
    }
}

/// A module from a sparse tensor to one row a batch item.
pub trait ExportGlobal {
    /// Adds the pooling to a graph; the number of batch items is found when it runs.
    fn export_global(&self, graph: &mut GraphBuilder, x: SparseValue) -> DenseValue;
}

/// Global poolings.
macro_rules! global_pools {
    ($($module:ident $mode:ident),*) => {$(
        impl ExportGlobal for $module {
            fn export_global(&self, graph: &mut GraphBuilder, x: SparseValue) -> DenseValue {
                graph.global_pool(x, PoolMode::$mode, None)
            }
        }
    )*};
}
global_pools!(GlobalSumPool Sum, GlobalAvgPool Avg, GlobalMaxPool Max);
