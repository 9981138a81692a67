//! What a call gives back.

use burn::tensor::Tensor;
use burn_lattice::SparseTensor;

use super::value::Value;
use crate::array::Array;
use crate::error::{ArtifactError, Result};
use crate::ir::{Element, Type};
use crate::plan::Plan;

/// One result of a call.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum OutputValue {
    /// Dense features `[n, c]`.
    Dense(Tensor<2>),
    /// A sparse tensor: rows are logical here, and physical in [`Outputs::to_arrays`].
    Sparse(SparseTensor),
    /// Integers, or an input that is handed through.
    Array(Array),
}

/// Results of a call, in the graph's order.
#[derive(Clone, Debug)]
pub struct Outputs {
    values: Vec<(String, Element, OutputValue)>,
}

/// Physical rows of a tensor: logical ones times its stride.
///
/// # Errors
/// A row that would leave i32, which the text names.
pub fn physical_rows(x: &SparseTensor) -> Result<Vec<[i32; 4]>, String> {
    let (stride, mut rows) = (x.stride(), x.support().to_host().coords().to_vec());
    if stride == [1; 3] {
        return Ok(rows);
    }
    for (number, row) in rows.iter_mut().enumerate() {
        for axis in 0..3 {
            let wide = i64::from(row[axis + 1]) * i64::from(stride[axis]);
            row[axis + 1] = i32::try_from(wide).map_err(|_| {
                format!(
                    "expected physical rows inside i32, found row {number} at {wide} along {}",
                    ["x", "y", "z"][axis]
                )
            })?;
        }
    }
    Ok(rows)
}

/// Values of a dense tensor on the host.
fn dense_array(features: &Tensor<2>, element: Element) -> Result<Array, String> {
    let dims = features.dims();
    let data = features.clone().into_data();
    let values: Vec<f32> = data.iter::<f32>().collect();
    Array::from_floats(element, &dims, &values)
}

impl Outputs {
    pub(super) fn of(plan: &Plan, values: &[Option<Value>]) -> Result<Self> {
        let mut out = Vec::with_capacity(plan.outputs.len());
        for output in &plan.outputs {
            let refuse = |what: String| ArtifactError::build(format!("output `{}`: {what}", output.name));
            let element = match &output.ty {
                Type::Tensor(ty) => ty.element,
                Type::Sparse(ty) => ty.element,
                Type::Weight(ty) => ty.element,
            };
            let value = match values[output.value.0].as_ref() {
                Some(Value::Features(features)) => OutputValue::Dense(features.clone()),
                Some(Value::Sparse(tensor)) => OutputValue::Sparse(tensor.clone()),
                Some(Value::Rows(tensor)) => {
                    OutputValue::Array(Array::from_coords(&physical_rows(tensor).map_err(refuse)?))
                }
                Some(Value::Count(tensor)) => {
                    OutputValue::Array(count_array(tensor.n_rows()).map_err(refuse)?)
                }
                Some(Value::Array(array)) => OutputValue::Array(array.as_ref().clone()),
                None => return Err(refuse("expected a value, found none".into())),
            };
            out.push((output.name.clone(), element, value));
        }
        Ok(Self { values: out })
    }

    /// Names and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &OutputValue)> {
        self.values.iter().map(|(name, _, value)| (name.as_str(), value))
    }

    /// The result of a name.
    pub fn get(&self, name: &str) -> Option<&OutputValue> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// The only result.
    ///
    /// # Errors
    /// Several results.
    pub fn into_one(mut self) -> Result<OutputValue> {
        match self.values.len() {
            1 => Ok(self.values.remove(0).2),
            n => Err(ArtifactError::build(format!("expected one result, found {n}; take them by name"))),
        }
    }

    /// Arrays by the names of a file: `name` of a dense result; `name.coords` (physical), `name.features` and `name.active` of a sparse one.
    /// Waits for the device.
    ///
    /// # Errors
    /// Rows that leave i32.
    pub fn to_arrays(&self) -> Result<Vec<(String, Array)>> {
        let mut arrays = Vec::new();
        for (name, element, value) in &self.values {
            let refuse = |what: String| ArtifactError::build(format!("output `{name}`: {what}"));
            match value {
                OutputValue::Dense(features) => {
                    arrays.push((name.clone(), dense_array(features, *element).map_err(refuse)?))
                }
                OutputValue::Array(array) => arrays.push((name.clone(), array.clone())),
                OutputValue::Sparse(x) => {
                    arrays.push((
                        format!("{name}.coords"),
                        Array::from_coords(&physical_rows(x).map_err(refuse)?),
                    ));
                    let features = dense_array(x.feats(), *element).map_err(refuse)?;
                    arrays.push((format!("{name}.features"), features));
                    arrays.push((format!("{name}.active"), count_array(x.n_rows()).map_err(refuse)?));
                }
            }
        }
        Ok(arrays)
    }
}

fn count_array(n: usize) -> Result<Array, String> {
    let n = i32::try_from(n).map_err(|_| format!("expected fewer than 2^31 rows, found {n}"))?;
    Array::from_i32(&[1], &[n])
}
