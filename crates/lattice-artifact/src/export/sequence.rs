//! Modules one after another.

use super::{Export, ExportDense};
use crate::build::{DenseValue, GraphBuilder, SparseValue};
use crate::error::Result;

impl<M: Export + ?Sized> Export for &M {
    fn export(&self, graph: &mut GraphBuilder, x: SparseValue) -> Result<SparseValue> {
        (**self).export(graph, x)
    }
}

impl<M: Export + ?Sized> Export for Box<M> {
    fn export(&self, graph: &mut GraphBuilder, x: SparseValue) -> Result<SparseValue> {
        (**self).export(graph, x)
    }
}

/// Nothing, where there is no module.
impl<M: Export> Export for Option<M> {
    fn export(&self, graph: &mut GraphBuilder, x: SparseValue) -> Result<SparseValue> {
        match self {
            Some(module) => module.export(graph, x),
            None => Ok(x),
        }
    }
}

/// In order; the weights of each are named by its number.
impl<M: Export> Export for [M] {
    fn export(&self, graph: &mut GraphBuilder, mut x: SparseValue) -> Result<SparseValue> {
        for (i, module) in self.iter().enumerate() {
            x = graph.scope(i, |graph| module.export(graph, x))?;
        }
        Ok(x)
    }
}

impl<M: Export> Export for Vec<M> {
    fn export(&self, graph: &mut GraphBuilder, x: SparseValue) -> Result<SparseValue> {
        self.as_slice().export(graph, x)
    }
}

impl<M: ExportDense + ?Sized> ExportDense for &M {
    fn export_dense(&self, graph: &mut GraphBuilder, x: DenseValue) -> Result<DenseValue> {
        (**self).export_dense(graph, x)
    }
}

impl<M: ExportDense> ExportDense for [M] {
    fn export_dense(&self, graph: &mut GraphBuilder, mut x: DenseValue) -> Result<DenseValue> {
        for (i, module) in self.iter().enumerate() {
            x = graph.scope(i, |graph| module.export_dense(graph, x))?;
        }
        Ok(x)
    }
}

/// Tuples of modules of different kinds, in order.
macro_rules! tuples {
    ($(($($module:ident $i:tt),*))*) => {$(
        impl<$($module: Export),*> Export for ($($module,)*) {
            fn export(&self, graph: &mut GraphBuilder, x: SparseValue) -> Result<SparseValue> {
                $(let x = graph.scope($i, |graph| self.$i.export(graph, x))?;)*
                Ok(x)
            }
        }
    )*};
}
tuples! {
    (A 0, B 1)
    (A 0, B 1, C 2)
    (A 0, B 1, C 2, D 3)
    (A 0, B 1, C 2, D 3, E 4)
    (A 0, B 1, C 2, D 3, E 4, F 5)
}
