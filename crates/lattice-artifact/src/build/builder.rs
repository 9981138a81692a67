//! The builder: arguments, weights, operations, results; and what becomes an artifact of them.

use std::collections::{BTreeMap, HashMap};

use super::values::{ArrayValue, DenseValue, SparseInputValues, SparseValue, WeightValue};
use crate::array::Array;
use crate::artifact::Artifact;
use crate::error::{ArtifactError, Result};
use crate::ir::{
    Argument, At, Attribute, Element, Entry, Graph, Label, MODULE_ATTRIBUTES, ModuleAttribute, Operation,
    PackingAttribute, SparseType, Type, WeightType,
};
use crate::plan::{AffinePacking, Family, InputRole, OutputRole};
use crate::schema::{IR_VERSION, OpSchema, SCHEMA_DIGEST, WEIGHT_FILE};
use crate::tensor_file::TensorFile;

/// Builds a graph whose features and weights have one element type: f32, f16 or bf16.
///
/// Weights are named by the scopes that are open, as parameters of a module are by their path. Mistakes of a graph (types, attributes) are found
/// by [`finish`](Self::finish), which says the line of the text that it wrote.
#[derive(Debug)]
pub struct GraphBuilder {
    element: Element,
    arguments: Vec<Argument>,
    inputs: Vec<(String, InputRole)>,
    operations: Vec<Operation>,
    types: Vec<Type>,
    labels: Vec<String>,
    outputs: Vec<(String, OutputRole, usize)>,
    scopes: Vec<String>,
    weights: HashMap<String, (Array, WeightValue)>,
    tensors: BTreeMap<String, Array>,
    pub(super) parts: HashMap<usize, SparseInputValues>,
}

/// A name with only the characters that labels may have.
fn plain(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '$' | '-') { c } else { '_' })
        .collect()
}

fn label(name: &str) -> Label {
    Label { name: name.into(), at: At::default() }
}

impl GraphBuilder {
    /// An empty graph.
    ///
    /// # Errors
    /// An element type that features may not have.
    pub fn new(element: Element) -> Result<Self> {
        if !element.is_feature() {
            return Err(ArtifactError::build(format!(
                "expected features of type f32, f16 or bf16, found {element}"
            )));
        }
        Ok(Self {
            element,
            arguments: Vec::new(),
            inputs: Vec::new(),
            operations: Vec::new(),
            types: Vec::new(),
            labels: Vec::new(),
            outputs: Vec::new(),
            scopes: Vec::new(),
            weights: HashMap::new(),
            tensors: BTreeMap::new(),
            parts: HashMap::new(),
        })
    }

    /// Element type of features and weights.
    pub fn element(&self) -> Element {
        self.element
    }

    /// Names the weights of `work`.
    pub fn scope<R>(&mut self, name: impl ToString, work: impl FnOnce(&mut Self) -> R) -> R {
        self.scopes.push(name.to_string());
        let result = work(self);
        self.scopes.pop();
        result
    }

    /// A weight's name in the scopes that are open.
    pub fn key(&self, name: &str) -> String {
        self.scopes.iter().map(String::as_str).chain([name]).collect::<Vec<_>>().join(".")
    }

    pub(super) fn sparse_type(&self) -> Type {
        Type::Sparse(SparseType::new(self.element))
    }

    pub(super) fn dense_type(channels: Option<usize>, element: Element) -> Type {
        Type::tensor(&[None, channels.map(|c| c as u64)], element)
    }

    fn define(&mut self, name: String, ty: Type) -> usize {
        self.types.push(ty);
        self.labels.push(name);
        self.types.len() - 1
    }

    fn argument(&mut self, name: &str, role: InputRole, ty: Type) -> usize {
        // Results are called by numbers; a number behind keeps apart names that differ in other characters alone.
        let id = self.types.len();
        let mut text = plain(name);
        if text.bytes().all(|b| b.is_ascii_digit()) || self.labels.contains(&text) {
            text = format!("{text}.{id}");
        }
        self.arguments.push(Argument { label: label(&text), ty: ty.clone() });
        self.inputs.push((name.into(), role));
        self.define(text, ty)
    }

    /// A dense input `[n, channels]`, in the element type of the graph.
    pub fn dense_input(&mut self, name: &str, channels: Option<usize>) -> DenseValue {
        self.dense_input_of(name, channels, self.element)
    }

    /// A dense input `[n, channels]` of another element type, such as points in f32.
    pub fn dense_input_of(&mut self, name: &str, channels: Option<usize>, element: Element) -> DenseValue {
        let id = self.argument(name, InputRole::Tensor, Self::dense_type(channels, element));
        DenseValue { id, channels }
    }

    /// An input of i32: `[n]` ids, or `[rows]` where their number is given.
    pub fn array_input(&mut self, name: &str, rows: Option<usize>) -> ArrayValue {
        let ty = Type::tensor(&[rows.map(|n| n as u64)], Element::I32);
        ArrayValue { id: self.argument(name, InputRole::Tensor, ty) }
    }

    /// The arguments `name_coords`, `name_features`, `name_active` of a sparse input.
    pub fn sparse_arguments(&mut self, name: &str, channels: Option<usize>) -> SparseInputValues {
        let element = self.element;
        let coords = Type::tensor(&[None, Some(4)], Element::I32);
        let active = Type::tensor(&[Some(1)], Element::I32);
        let coords = self.argument(&format!("{name}_coords"), InputRole::SparseCoords, coords);
        let features = self.argument(
            &format!("{name}_features"),
            InputRole::SparseFeatures,
            Self::dense_type(channels, element),
        );
        let active = self.argument(&format!("{name}_active"), InputRole::SparseActive, active);
        SparseInputValues {
            coords: ArrayValue { id: coords },
            features: DenseValue { id: features, channels },
            active: ArrayValue { id: active },
        }
    }

    /// A sparse input at a stride: its three arguments, and the tensor that is made of them.
    pub fn sparse_input(&mut self, name: &str, channels: Option<usize>, stride: [u32; 3]) -> SparseValue {
        let parts = self.sparse_arguments(name, channels);
        self.make(parts, stride)
    }

    /// Adds an operation with one result.
    pub(super) fn push(
        &mut self,
        name: &str,
        operands: &[usize],
        attributes: Vec<(&str, Attribute)>,
        result: Type,
    ) -> usize {
        self.push_several(name, None, operands, attributes, vec![result])[0]
    }

    pub(super) fn push_several(
        &mut self,
        name: &str,
        symbol: Option<String>,
        operands: &[usize],
        attributes: Vec<(&str, Attribute)>,
        results: Vec<Type>,
    ) -> Vec<usize> {
        let schema = OpSchema::named(name);
        let place =
            |name: &str| schema.and_then(|op| op.attributes.iter().position(|known| known.name == name));
        let mut attributes: Vec<Entry<Attribute>> = attributes
            .into_iter()
            .map(|(name, value)| Entry { name: name.into(), value, at: At::default() })
            .collect();
        attributes.sort_by_key(|entry| place(&entry.name).unwrap_or(usize::MAX));
        let named = |ids: &[usize]| ids.iter().map(|&id| label(&self.labels[id])).collect::<Vec<_>>();
        let operands_named = named(operands);
        let operand_types = operands.iter().map(|&id| self.types[id].clone()).collect();
        // No argument is called by digits alone.
        let ids: Vec<usize> = results
            .iter()
            .map(|ty| {
                let number = self.types.len();
                self.define(number.to_string(), ty.clone())
            })
            .collect();
        self.operations.push(Operation {
            name: name.into(),
            results: ids.iter().map(|&id| label(&self.labels[id])).collect(),
            symbol,
            operands: operands_named,
            attributes,
            operand_types,
            result_types: results,
            at: At::default(),
        });
        ids
    }

    /// A dense weight, rounded to the element type of the graph (a table: f32), under `name` in the open scopes. The same values under the same
    /// name are one weight.
    ///
    /// # Errors
    /// Other axes than the family's; another weight of the name.
    pub fn weight(&mut self, name: &str, family: Family, values: &Array) -> Result<WeightValue> {
        let key = self.key(name);
        let refuse = |what: String| Err(ArtifactError::weight(&key, what));
        if values.dims().len() != family.rank() || values.dims().contains(&0) {
            return refuse(format!(
                "expected {} axes that are not empty, found {:?}",
                family.rank(),
                values.dims()
            ));
        }
        let Some(floats) = values.to_f32() else {
            return refuse(format!("expected floats, found {}", values.element()));
        };
        let element = if family == Family::Embedding { Element::F32 } else { self.element };
        let array = Array::from_floats(element, values.dims(), &floats)
            .map_err(|what| ArtifactError::weight(&key, what))?;
        if let Some((known, value)) = self.weights.get(&key) {
            return match *known == array {
                true => Ok(*value),
                false => {
                    refuse("expected one weight of this name, found two that differ; open a scope".into())
                }
            };
        }
        if self.tensors.contains_key(&key) {
            return refuse(
                "expected one weight of this name, found a part of a packed one; open a scope".into(),
            );
        }
        let channels = values.dims()[if family == Family::Embedding { 1 } else { 0 }];
        let value = self.declare(&key, family, PackingAttribute::Dense, element, channels);
        self.tensors.insert(key.clone(), array.clone());
        self.weights.insert(key, (array, value));
        Ok(value)
    }

    /// A packed weight under `name` in the open scopes: words of codes, scales and biases, as [`PackedWeight`](crate::PackedWeight) lays them out.
    ///
    /// # Errors
    /// A family that is not packed; parts that do not fit one another; another weight of the name.
    pub fn packed_weight(
        &mut self,
        name: &str,
        family: Family,
        packing: AffinePacking,
        [words, scales, biases]: [Array; 3],
    ) -> Result<WeightValue> {
        let key = self.key(name);
        if !family.packs() {
            let what = format!("expected a weight of family conv3d or linear, found {}", family.name());
            return Err(ArtifactError::weight(&key, what));
        }
        let parts = [("weight", words), ("scales", scales), ("biases", biases)]
            .map(|(part, array)| (format!("{key}.{part}"), array));
        if self.weights.contains_key(&key) || parts.iter().any(|(name, _)| self.tensors.contains_key(name)) {
            return Err(ArtifactError::weight(
                &key,
                "expected one weight of this name, found two; open a scope",
            ));
        }
        let file = TensorFile::from_arrays(parts.iter().map(|(name, array)| (name.as_str(), array)));
        let file = file.map_err(|what| ArtifactError::weight(&key, what))?;
        let channels = crate::PackedWeight::read(&file, &key, packing)?.c_out();
        let attribute = PackingAttribute::Affine {
            kind: if packing.bits == 4 { "int4" } else { "int8" }.into(),
            group_size: packing.group_size as i64,
            scale_dtype: packing.scale,
            mode: "affine".into(),
        };
        let element = if packing.bits == 4 { Element::I4 } else { Element::I8 };
        self.tensors.extend(parts);
        Ok(self.declare(&key, family, attribute, element, channels))
    }

    fn declare(
        &mut self,
        key: &str,
        family: Family,
        packing: PackingAttribute,
        element: Element,
        channels: usize,
    ) -> WeightValue {
        let ty = Type::Weight(WeightType { family: family.name().into(), element });
        let attributes = vec![
            ("storage_key", Attribute::Text(key.into())),
            ("layout", Attribute::Word { mnemonic: "weight_layout".into(), word: family.layout().into() }),
            ("packing", Attribute::Packing(packing)),
        ];
        let symbol = Some(plain(key));
        let id = self.push_several("weight", symbol, &[], attributes, vec![ty])[0];
        WeightValue { id, channels }
    }

    /// Returns a sparse tensor under a name.
    pub fn sparse_output(&mut self, name: &str, value: SparseValue) {
        self.outputs.push((name.into(), OutputRole::SparseTensor, value.id));
    }

    /// Returns dense features under a name.
    pub fn dense_output(&mut self, name: &str, value: DenseValue) {
        self.outputs.push((name.into(), OutputRole::Tensor, value.id));
    }

    /// Returns an integer array under a name.
    pub fn array_output(&mut self, name: &str, value: ArrayValue) {
        self.outputs.push((name.into(), OutputRole::Tensor, value.id));
    }

    /// The graph as it stands.
    pub fn graph(&self) -> Graph {
        let texts = |texts: Vec<String>| ModuleAttribute::Texts(texts);
        let names = |role: &dyn Fn(&(String, InputRole)) -> String| self.inputs.iter().map(role).collect();
        let values = [
            ModuleAttribute::Integer(IR_VERSION),
            ModuleAttribute::Text(SCHEMA_DIGEST.into()),
            texts(names(&|(name, _)| name.clone())),
            texts(self.outputs.iter().map(|(name, ..)| name.clone()).collect()),
            texts(names(&|(_, role)| role.name().into())),
            texts(self.outputs.iter().map(|(_, role, _)| role.name().into()).collect()),
            ModuleAttribute::Text(WEIGHT_FILE.into()),
        ];
        let attributes = MODULE_ATTRIBUTES
            .iter()
            .zip(values)
            .map(|(name, value)| Entry { name: (*name).into(), value, at: At::default() })
            .collect();
        let types: Vec<Type> = self.outputs.iter().map(|&(.., id)| self.types[id].clone()).collect();
        Graph {
            attributes,
            arguments: self.arguments.clone(),
            results: types.clone(),
            operations: self.operations.clone(),
            returned: self.outputs.iter().map(|&(.., id)| label(&self.labels[id])).collect(),
            returned_types: types,
            return_at: At::default(),
        }
    }

    /// The artifact.
    ///
    /// # Errors
    /// No results; a graph that breaks a rule, by the lines of its text; weights that do not fit.
    pub fn finish(self) -> Result<Artifact> {
        if self.outputs.is_empty() {
            return Err(ArtifactError::build(
                "expected at least one result, found none; name one with `sparse_output`",
            ));
        }
        // Read back, so that faults have places and what is written is what was checked.
        let graph = crate::parse(&self.graph().to_string())?;
        let tensors = self.tensors.iter().map(|(name, array)| (name.as_str(), array));
        let file = TensorFile::from_arrays(tensors).map_err(ArtifactError::build)?;
        Artifact::new(graph, file)
    }
}
