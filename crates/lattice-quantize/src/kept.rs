//! What the pass does not look at: parameters outside layers, which stay float.

use std::collections::{BTreeMap, BTreeSet};

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use burn_lattice::nn::Layers;

/// A module whose own parameters stay float: a norm that stands in no block, or one that no convolution could take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptModule {
    /// Its path in the network.
    pub path: String,
    /// What it is, such as `BatchNorm` or `LayerNorm`.
    pub kind: String,
    /// Values of its parameters.
    pub values: usize,
}

impl KeptModule {
    /// Why it stays float.
    pub const REASON: &'static str = "vectors of one value a channel: no product that codes would make smaller, and no convolution before it that could take it";
}

/// Modules with parameters of their own that are neither weights nor biases of layers, by path; after [`fold_norms`](crate::fold_norms) these
/// are the norms that nothing was folded into.
pub fn kept_modules<M: Module + Layers>(model: &mut M) -> Vec<KeptModule> {
    let mut layers = BTreeSet::new();
    model.visit_layers("", &mut |layer| {
        layers.insert(layer.path().to_owned());
    });
    let mut walk = Walk { at: Vec::new(), layers: &layers, found: BTreeMap::new() };
    model.visit(&mut walk);
    let module = |(path, (kind, values))| KeptModule { path, kind, values };
    walk.found.into_iter().map(module).collect()
}

/// Walks over parameters with the fields they are in, and the kinds of the modules that hold the fields.
struct Walk<'a> {
    at: Vec<(String, String)>,
    layers: &'a BTreeSet<String>,
    found: BTreeMap<String, (String, usize)>,
}

impl ModuleVisitor for Walk<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        let kind = container.rsplit(':').next().unwrap_or(container);
        self.at.push((name.into(), kind.into()));
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.at.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let names: Vec<&str> = self.at.iter().map(|(name, _)| name.as_str()).collect();
        // Every beginning of the path but the whole of it may be a layer.
        let in_layer = (1..names.len()).any(|n| self.layers.contains(&names[..n].join(".")));
        if let Some((_, kind)) = self.at.last().filter(|_| !in_layer) {
            let module = names[..names.len() - 1].join(".");
            self.found.entry(module).or_insert_with(|| (kind.clone(), 0)).1 +=
                param.val().shape().num_elements();
        }
    }
}
