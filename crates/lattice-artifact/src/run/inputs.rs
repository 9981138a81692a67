//! What a caller gives, and how it becomes the graph's arguments.

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor, TensorData};
use burn_lattice::SparseTensor;

use super::value::{Value, dtype_of};
use crate::array::Array;
use crate::error::{ArtifactError, Result};
use crate::ir::{Element, TensorType};
use crate::plan::{Input, Plan};
use crate::tensor_file::TensorFile;

/// What one input is given as.
#[derive(Clone, Debug)]
enum Given {
    Array(Array),
    Features(Tensor<2>),
    Sparse(SparseTensor),
}

/// Inputs of a call by name. Of a sparse input `x` either its three parts `x_coords`, `x_features` and `x_active`, or a
/// [`SparseTensor`] under `x`.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    given: BTreeMap<String, Given>,
}

impl Inputs {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Every array of a file, under its name.
    ///
    /// # Errors
    /// An array of an element type that graphs do not have.
    pub fn from_file(file: &TensorFile) -> Result<Self> {
        let mut inputs = Self::new();
        for name in file.names() {
            let array = file.array(name).ok_or_else(|| {
                ArtifactError::input(
                    name,
                    "expected an element type that graphs have, found another; convert it",
                )
            })?;
            inputs = inputs.array(name, array);
        }
        Ok(inputs)
    }

    /// Adds an array.
    #[must_use]
    pub fn array(mut self, name: &str, array: Array) -> Self {
        self.given.insert(name.into(), Given::Array(array));
        self
    }

    /// Adds features `[n, c]` that may lie on the device already.
    #[must_use]
    pub fn features(mut self, name: &str, features: Tensor<2>) -> Self {
        self.given.insert(name.into(), Given::Features(features));
        self
    }

    /// Adds a sparse tensor in place of three parts. Its identity and the relations of its manager are kept; its stride must be the one that the
    /// graph declares.
    #[must_use]
    pub fn sparse(mut self, name: &str, tensor: SparseTensor) -> Self {
        self.given.insert(name.into(), Given::Sparse(tensor));
        self
    }

    /// One value an argument, in order.
    pub(super) fn bind(&self, plan: &Plan, device: &Device) -> Result<Vec<Value>> {
        let mut values: Vec<Option<Value>> = vec![None; plan.inputs.len()];
        let mut known: Vec<&str> = plan.inputs.iter().map(|input| input.name.as_str()).collect();
        let groups = plan.sparse_inputs();
        for group in &groups {
            let Some(Given::Sparse(tensor)) = self.given.get(&group.name) else { continue };
            // A part of the same name is an array of its own, and is refused below.
            if known.contains(&group.name.as_str()) {
                continue;
            }
            let parts = &plan.inputs[group.first..group.first + 3];
            if let Some(part) = parts.iter().find(|part| self.given.contains_key(&part.name)) {
                let what = format!(
                    "expected either the sparse tensor or its parts, found it beside `{}`",
                    part.name
                );
                return Err(ArtifactError::input(&group.name, what));
            }
            let element = parts[1].ty.element;
            if tensor.dtype() != dtype_of(element) || tensor.device() != *device {
                return Err(ArtifactError::input(
                    &group.name,
                    format!(
                        "expected features of type {element} on {device:?}, found {:?} on {:?}; use `astype` or `to_device`",
                        tensor.dtype(),
                        tensor.device()
                    ),
                ));
            }
            check_dims(&parts[0], &[tensor.n_rows(), 4])?;
            check_dims(&parts[1], &[tensor.n_rows(), tensor.channels()])?;
            values[group.first] = Some(Value::Rows(tensor.clone()));
            values[group.first + 1] = Some(Value::Features(tensor.feats().clone()));
            values[group.first + 2] = Some(Value::Count(tensor.clone()));
        }
        known.extend(groups.iter().map(|group| group.name.as_str()));
        if let Some(name) = self.given.keys().find(|name| !known.contains(&name.as_str())) {
            let what = format!("expected one of {}, found this name", known.join(", "));
            return Err(ArtifactError::input(name, what));
        }
        plan.inputs
            .iter()
            .zip(values)
            .map(|(input, value)| match (value, self.given.get(&input.name)) {
                (Some(value), _) => Ok(value),
                (None, Some(given)) => argument(input, given, device),
                (None, None) => {
                    let ty = &input.ty;
                    Err(ArtifactError::input(
                        &input.name,
                        format!("expected {ty}, found no input of this name"),
                    ))
                }
            })
            .collect()
    }
}

fn fits(ty: &TensorType, dims: &[usize]) -> bool {
    ty.dims.len() == dims.len()
        && ty
            .dims
            .iter()
            .zip(dims)
            .all(|(expected, &found)| expected.is_none_or(|expected| expected == found as u64))
}

fn check_dims(input: &Input, dims: &[usize]) -> Result<()> {
    match fits(&input.ty, dims) {
        true => Ok(()),
        false => {
            Err(ArtifactError::input(&input.name, format!("expected {}, found shape {dims:?}", input.ty)))
        }
    }
}

fn argument(input: &Input, given: &Given, device: &Device) -> Result<Value> {
    let refuse = |found: String| {
        Err(ArtifactError::input(&input.name, format!("expected {}, found {found}; convert it", input.ty)))
    };
    match given {
        Given::Sparse(_) => refuse("a sparse tensor".into()),
        Given::Features(features) => {
            check_dims(input, &features.dims())?;
            if features.dtype() != dtype_of(input.ty.element) || features.device() != *device {
                return refuse(format!(
                    "{:?} values on {:?}, where {device:?} runs",
                    features.dtype(),
                    features.device()
                ));
            }
            Ok(Value::Features(features.clone()))
        }
        Given::Array(array) => {
            check_dims(input, array.dims())?;
            if array.element() != input.ty.element {
                return refuse(format!("{} values", array.element()));
            }
            if let (&[n, c], true) = (array.dims(), input.ty.element.is_feature()) {
                return Ok(Value::Features(features(array, [n, c], device)));
            }
            Ok(Value::Array(array.clone().into()))
        }
    }
}

/// Floats of an array on a device, in their own element type.
fn features(array: &Array, dims: [usize; 2], device: &Device) -> Tensor<2> {
    let values = array.to_f32().expect("an element type of features");
    let element: Element = array.element();
    Tensor::from_data(TensorData::new(values, dims), (device, dtype_of(element)))
}
