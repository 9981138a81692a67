//! All parameters of a network as one vector.
//!
//! The optimizer then works on a handful of long tensors, not on hundreds of short ones: few launches a step, one norm to clip by, and
//! master values in f32 beside weights of half precision. Weights of two dimensions and more come first, then vectors.

use std::collections::BTreeMap;
use std::ops::Range;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{FloatDType, Gradients, Tensor, TensorData};

/// Where each parameter of a network lies in the vector, in the order of the vector.
#[derive(Clone, Debug)]
pub struct ParameterLayout {
    entries: Vec<ParameterEntry>,
    by_path: BTreeMap<String, usize>,
    matrices: usize,
    total: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct ParameterEntry {
    pub(crate) path: String,
    pub(crate) dims: Vec<usize>,
    pub(crate) range: Range<usize>,
}

/// The place of the current value in a module, as names joined by dots.
#[derive(Default)]
struct Place(Vec<String>);

impl Place {
    fn path(&self) -> String {
        self.0.join(".")
    }
}

macro_rules! follow_place {
    () => {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.place.0.push(name.to_owned());
        }

        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.place.0.pop();
        }
    };
}

impl ParameterLayout {
    /// The layout of a network on a device with autodiff: what requires gradients is a parameter.
    pub fn of<M: Module>(model: &M) -> Self {
        struct Shapes {
            place: Place,
            found: Vec<(String, Vec<usize>)>,
        }
        impl ModuleVisitor for Shapes {
            follow_place!();
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                if param.is_require_grad() {
                    self.found.push((self.place.path(), param.val().dims().to_vec()));
                }
            }
        }
        let mut shapes = Shapes { place: Place::default(), found: Vec::new() };
        model.visit(&mut shapes);
        let (matrices, vectors): (Vec<_>, Vec<_>) = shapes.found.into_iter().partition(|(_, d)| d.len() > 1);
        let mut total = 0;
        let mut place = |(path, dims): (String, Vec<usize>)| {
            let start = total;
            total += dims.iter().product::<usize>();
            ParameterEntry { path, dims, range: start..total }
        };
        let mut entries: Vec<_> = matrices.into_iter().map(&mut place).collect();
        let matrices = entries.last().map_or(0, |e| e.range.end);
        entries.extend(vectors.into_iter().map(place));
        let by_path = entries.iter().enumerate().map(|(i, e)| (e.path.clone(), i)).collect();
        Self { entries, by_path, matrices, total }
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.total
    }

    /// Whether there are no parameters.
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// Values of weights of two dimensions and more; they stand first.
    pub fn matrix_len(&self) -> usize {
        self.matrices
    }

    pub(crate) fn entries(&self) -> &[ParameterEntry] {
        &self.entries
    }

    /// The values of a network, in f32 and outside of any graph.
    pub fn values<M: Module>(&self, model: &M) -> Tensor<1> {
        struct Values<'a> {
            place: Place,
            layout: &'a ParameterLayout,
            found: Vec<Option<Tensor<1>>>,
        }
        impl ModuleVisitor for Values<'_> {
            follow_place!();
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                if let Some(&index) = self.layout.by_path.get(&self.place.path()) {
                    let value = param.val().inner().cast(FloatDType::F32);
                    self.found[index] = Some(value.reshape([-1]));
                }
            }
        }
        let mut values =
            Values { place: Place::default(), layout: self, found: vec![None; self.entries.len()] };
        model.visit(&mut values);
        Tensor::cat(values.found.into_iter().flatten().collect(), 0)
    }

    /// The network with these values as leaves of a new graph; weights of two dimensions and more in `compute`, vectors in f32.
    pub fn install<M: Module>(&self, model: M, values: &Tensor<1>, compute: FloatDType) -> M {
        struct Install<'a> {
            place: Place,
            layout: &'a ParameterLayout,
            matrices: Tensor<1>,
            values: &'a Tensor<1>,
        }
        impl ModuleMapper for Install<'_> {
            follow_place!();
            fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
                let Some(&index) = self.layout.by_path.get(&self.place.path()) else { return param };
                let entry = &self.layout.entries[index];
                let from = if D > 1 { &self.matrices } else { self.values };
                let value = from.clone().narrow(0, entry.range.start, entry.range.len());
                let dims: [usize; D] = std::array::from_fn(|axis| entry.dims[axis]);
                param.map(|_| Tensor::from_inner(value.reshape(dims)).require_grad())
            }
        }
        let matrices = values.clone().narrow(0, 0, self.matrices).cast(compute);
        model.map(&mut Install { place: Place::default(), layout: self, matrices, values })
    }

    /// The gradients of a network in the order of the vector, in f32; 0 where a parameter was not used.
    pub fn gradient<M: Module>(&self, model: &M, gradients: &mut Gradients) -> Tensor<1> {
        struct Take<'a> {
            place: Place,
            layout: &'a ParameterLayout,
            gradients: &'a mut Gradients,
            found: Vec<Option<Tensor<1>>>,
        }
        impl ModuleVisitor for Take<'_> {
            follow_place!();
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                if let Some(&index) = self.layout.by_path.get(&self.place.path()) {
                    let value = param.val();
                    let gradient = value.grad_remove(self.gradients);
                    let gradient = gradient.unwrap_or_else(|| value.inner().zeros_like());
                    self.found[index] = Some(gradient.reshape([-1]));
                }
            }
        }
        let found = vec![None; self.entries.len()];
        let mut take = Take { place: Place::default(), layout: self, gradients, found };
        model.visit(&mut take);
        let found: Vec<Tensor<1>> = take.found.into_iter().flatten().collect();
        // Weights share a type: one conversion for all of them.
        let first_vector = self.entries.iter().filter(|e| e.dims.len() > 1).count();
        let whole = |part: &[Tensor<1>]| {
            (!part.is_empty()).then(|| Tensor::cat(part.to_vec(), 0).cast(FloatDType::F32))
        };
        let parts = [whole(&found[..first_vector]), whole(&found[first_vector..])];
        Tensor::cat(parts.into_iter().flatten().collect(), 0)
    }
}

/// What a network holds besides parameters, such as the running statistics of norms: path, dimensions and values.
pub(crate) fn running_values<M: Module>(
    model: &M,
    layout: &ParameterLayout,
) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    struct Running<'a> {
        place: Place,
        layout: &'a ParameterLayout,
        found: Vec<(String, Vec<usize>, Vec<f32>)>,
    }
    impl ModuleVisitor for Running<'_> {
        follow_place!();
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let path = self.place.path();
            if !self.layout.by_path.contains_key(&path) {
                let value = param.val();
                let dims = value.dims().to_vec();
                self.found.push((path, dims, value.into_data().iter::<f32>().collect()));
            }
        }
    }
    let mut running = Running { place: Place::default(), layout, found: Vec::new() };
    model.visit(&mut running);
    running.found
}

/// The network with values of host memory: `value` gives those of a path, or keeps what is there.
pub(crate) fn with_values<M: Module>(model: M, value: impl Fn(&str) -> Option<Vec<f32>>) -> M {
    struct Set<F> {
        place: Place,
        value: F,
    }
    impl<F: Fn(&str) -> Option<Vec<f32>>> ModuleMapper for Set<F> {
        follow_place!();
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let Some(values) = (self.value)(&self.place.path()) else { return param };
            param.map(|old| {
                let fresh = Tensor::from_data(TensorData::new(values, old.dims()), &old.device());
                if old.is_require_grad() { fresh.require_grad() } else { fresh }
            })
        }
    }
    model.map(&mut Set { place: Place::default(), value })
}
