//! Runs the nodes of a plan in order, each value dropped after its last use.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use burn_lattice::core::SupportId;
use burn_lattice::ops::{PointVoxelMap, SparseQuantization};
use burn_lattice::{CoordinateManager, DeviceInfo, SparseTensor, Support, trace};

use super::fuse::{self, Step};
use super::inputs::Inputs;
use super::outputs::Outputs;
use super::value::{Value, dtype_of};
use crate::array::Array;
use crate::artifact::Artifact;
use crate::error::{ArtifactError, Result};
use crate::ir::Element;
use crate::plan::{Node, Op, ValueId};
use crate::weights::{Bound, Use, bind};

/// How coordinates that a caller gives are meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CoordinateDomain {
    /// Physical: a multiple of the declared stride on every axis, or an error.
    #[default]
    Strict,
    /// Logical: divided by the declared stride already, as inputs made before graphs were physical are. Outputs are physical all the same.
    Logical,
    /// Physical, and known to be multiples of the declared stride: not tested, and rounded down where they are none.
    Trusted,
}

impl std::str::FromStr for CoordinateDomain {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "strict" => Ok(Self::Strict),
            "logical" => Ok(Self::Logical),
            "trusted" => Ok(Self::Trusted),
            _ => Err(format!("expected strict, logical or trusted, found `{word}`")),
        }
    }
}

/// How a graph is run.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ExecuteOptions {
    /// How coordinates that a caller gives are meant.
    pub domain: CoordinateDomain,
    /// Refuses dense weights of another element type than the features, in place of rounding them to it.
    pub strict_dtypes: bool,
    /// Most rows that an operation which makes its rows may reach, counted before it runs: input rows times taps. A graph of a few such operations
    /// would otherwise ask for any amount of memory.
    pub max_rows: usize,
    /// Runs the norm, residual and activation that follow a convolution in its pass, with one rounding.
    pub fuse: bool,
}

impl Default for ExecuteOptions {
    /// Physical coordinates, weights rounded to the features' type, at most 2^27 rows reached.
    fn default() -> Self {
        Self { domain: CoordinateDomain::default(), strict_dtypes: false, max_rows: 1 << 27, fuse: true }
    }
}

impl ExecuteOptions {
    /// Chooses how many rows an operation may reach.
    #[must_use]
    pub fn with_max_rows(self, max_rows: usize) -> Self {
        Self { max_rows, ..self }
    }

    /// Chooses whether what follows a convolution runs in its pass.
    #[must_use]
    pub fn with_fuse(self, fuse: bool) -> Self {
        Self { fuse, ..self }
    }

    /// Chooses how coordinates are meant.
    #[must_use]
    pub fn with_domain(self, domain: CoordinateDomain) -> Self {
        Self { domain, ..self }
    }

    /// Chooses whether weights must have the element type of the features.
    #[must_use]
    pub fn with_strict_dtypes(self, strict_dtypes: bool) -> Self {
        Self { strict_dtypes, ..self }
    }
}

/// An artifact on a device. Weights are laid out when an operation first reads them, and kept; calls may run on several threads at a time.
///
/// What a graph computes is not differentiable.
#[derive(Debug)]
pub struct Executor {
    artifact: Arc<Artifact>,
    device: Device,
    options: ExecuteOptions,
    steps: Vec<Step>,
    last_uses: Vec<Vec<ValueId>>,
    /// Element types of features that the device does not compute with.
    missing: Vec<Element>,
    bound: Mutex<HashMap<(usize, Use, DType), Bound>>,
    /// Scale and shift of batch norms that run in the pass of a convolution, by node.
    folded: Mutex<HashMap<usize, Folded>>,
}

/// Scale and shift `[c]`.
pub(super) type Folded = (Tensor<1>, Tensor<1>);

/// What one call keeps between its nodes: values, and the geometry that several nodes share.
pub(super) struct Call<'a> {
    pub(super) executor: &'a Executor,
    pub(super) values: Vec<Option<Value>>,
    /// Relations, row maps and joins of every tensor that this call makes.
    pub(super) manager: CoordinateManager,
    /// Supports by the values and the stride that they were made of.
    pub(super) supports: HashMap<(ValueId, ValueId, [u32; 3]), Support>,
    /// Rows that the features of a support came with, padding included.
    pub(super) capacities: HashMap<SupportId, usize>,
    pub(super) quantizations: HashMap<([ValueId; 3], [u32; 6]), SparseQuantization>,
    pub(super) point_maps: Vec<(super::points::MapKey, PointVoxelMap)>,
}

impl Executor {
    /// Takes an artifact to a device.
    pub fn new(artifact: impl Into<Arc<Artifact>>, device: &Device, options: ExecuteOptions) -> Self {
        let artifact = artifact.into();
        let steps = fuse::steps(artifact.plan(), options.fuse);
        let nodes: Vec<&[usize]> = steps.iter().map(|step| step.nodes.as_slice()).collect();
        let last_uses = artifact.plan().last_uses(&nodes);
        let info = DeviceInfo::of(device);
        let missing =
            artifact.plan().feature_types().into_iter().filter(|&e| !info.takes(dtype_of(e))).collect();
        Self {
            artifact,
            missing,
            device: device.clone(),
            options,
            steps,
            last_uses,
            bound: Mutex::default(),
            folded: Mutex::default(),
        }
    }

    /// What is run.
    pub fn artifact(&self) -> &Artifact {
        &self.artifact
    }

    /// Where it is run.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// How it is run.
    pub(super) fn options(&self) -> ExecuteOptions {
        self.options
    }

    /// Runs the graph. Records in [`trace`] are named by the first result of their node, those of a fused convolution by what its last node makes.
    ///
    /// All tensors of a call share one [`CoordinateManager`], or that of a sparse tensor which was given: each relation is built once.
    ///
    /// # Errors
    /// Inputs that are missing, unknown or do not fit; coordinates that the declared stride does not divide; weights whose channels differ from
    /// the features'; what the operations refuse.
    pub fn run(&self, inputs: &Inputs) -> Result<Outputs> {
        let plan = self.artifact.plan();
        if let Some(element) = self.missing.first() {
            let device = &self.device;
            let what = format!(
                "expected features of a type that {device:?} computes with, found {element}; run on another device"
            );
            return Err(ArtifactError::build(what));
        }
        let mut values: Vec<Option<Value>> = vec![None; plan.values.len()];
        for (input, value) in plan.inputs.iter().zip(inputs.bind(plan, &self.device)?) {
            values[input.value.0] = Some(value);
        }
        let mut call = Call {
            executor: self,
            values,
            manager: CoordinateManager::new(),
            supports: HashMap::new(),
            capacities: HashMap::new(),
            quantizations: HashMap::new(),
            point_maps: Vec::new(),
        };
        for (step, dead) in self.steps.iter().zip(&self.last_uses) {
            let fused = match &step.group {
                Some(group) => trace::scope(plan.label(group.result), || call.group(group))?,
                None => false,
            };
            // Also a group whose parts turn out not to stand on the same rows.
            for node in step.nodes.iter().filter(|_| !fused).map(|&node| &plan.nodes[node]) {
                trace::scope(&node.label, || call.node(node))?;
            }
            dead.iter().for_each(|value| call.values[value.0] = None);
        }
        Outputs::of(plan, &call.values)
    }

    /// Scale and shift of a batch norm's node, made once.
    pub(super) fn folded(&self, node: usize, make: impl FnOnce() -> Result<Folded>) -> Result<Folded> {
        let table = || self.folded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(folded) = table().get(&node) {
            return Ok(folded.clone());
        }
        let folded = make()?;
        Ok(table().entry(node).or_insert(folded).clone())
    }

    /// A weight laid out for its use.
    fn bound(&self, weight: usize, used: Use, dtype: DType) -> Result<Bound> {
        let key = (weight, used, dtype);
        // Entries are inserted whole, so a panic elsewhere leaves none half made.
        let table = || self.bound.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bound) = table().get(&key) {
            return Ok(bound.clone());
        }
        let artifact = &self.artifact;
        let (declared, stored) = (&artifact.plan().weights[weight], &artifact.stored_weights()[weight]);
        if self.options.strict_dtypes
            && let crate::weights::StoredWeight::Dense { element, .. } = stored
            && dtype_of(*element) != dtype
        {
            let what = format!(
                "expected {dtype:?} values, the features' type, found {element}; leave strict types off"
            );
            return Err(ArtifactError::weight(&declared.key, what));
        }
        let bound = bind(declared, stored, artifact.weights(), used, (&self.device, dtype))?;
        Ok(table().entry(key).or_insert(bound).clone())
    }
}

/// A fault of a node.
pub(super) fn fault(node: &Node, what: impl ToString) -> ArtifactError {
    ArtifactError::Run { at: node.at, label: node.label.clone(), op: node.name, what: what.to_string() }
}

impl Call<'_> {
    fn node(&mut self, node: &Node) -> Result<()> {
        let made = match node.op {
            Op::Make { .. } | Op::Decompose | Op::WithFeatures => return self.boundary(node),
            Op::Reindex { .. } | Op::Binary { .. } | Op::Cat { .. } => self.algebra(node)?,
            Op::Pool { .. }
            | Op::PoolTranspose { .. }
            | Op::TrilinearUpsample { .. }
            | Op::GlobalPool { .. } => self.pooling(node)?,
            Op::Convolution(conv) => self.convolution(node, &conv)?,
            Op::Voxelize { .. } | Op::Devoxelize { .. } => self.points(node)?,
            _ => self.dense(node)?,
        };
        self.set(node.results[0], made);
        Ok(())
    }

    /// Refuses an operation that would reach too many rows.
    pub(super) fn check_growth(&self, node: &Node, rows: usize, size: [u32; 3]) -> Result<()> {
        let taps = size.iter().try_fold(1usize, |n, &k| n.checked_mul(k as usize));
        let (reached, most) = (taps.and_then(|taps| taps.checked_mul(rows)), self.executor.options.max_rows);
        match reached.is_some_and(|reached| reached <= most) {
            true => Ok(()),
            false => {
                let what = format!(
                    "expected at most {most} rows to be reached, found {rows} input rows with a kernel of {size:?}; raise `max_rows`"
                );
                Err(fault(node, what))
            }
        }
    }

    pub(super) fn set(&mut self, value: ValueId, made: Value) {
        self.values[value.0] = Some(made);
    }

    pub(super) fn value(&self, node: &Node, i: usize) -> Result<&Value> {
        let value = node.operands[i];
        self.values[value.0].as_ref().ok_or_else(|| {
            let label = self.executor.artifact.plan().label(value);
            fault(node, format!("expected the value %{label}, found it is no value of a tensor"))
        })
    }

    fn mistaken<T>(node: &Node, i: usize, expected: &str, found: &Value) -> Result<T> {
        Err(fault(node, format!("expected operand {i} to be {expected}, found {}", found.kind())))
    }

    pub(super) fn features(&self, node: &Node, i: usize) -> Result<Tensor<2>> {
        match self.value(node, i)? {
            Value::Features(features) => Ok(features.clone()),
            other => Self::mistaken(node, i, "features", other),
        }
    }

    pub(super) fn sparse(&self, node: &Node, i: usize) -> Result<SparseTensor> {
        match self.value(node, i)? {
            Value::Sparse(tensor) => Ok(tensor.clone()),
            other => Self::mistaken(node, i, "a sparse tensor", other),
        }
    }

    pub(super) fn array(&self, node: &Node, i: usize) -> Result<Arc<Array>> {
        match self.value(node, i)? {
            Value::Array(array) => Ok(array.clone()),
            other => Self::mistaken(node, i, "an array", other),
        }
    }

    /// Ids `[n]` on the device, the first `n` of them.
    pub(super) fn ids(&self, node: &Node, i: usize, n: usize) -> Result<Tensor<1, Int>> {
        let array = self.array(node, i)?;
        let mut values =
            array.to_i32().ok_or_else(|| fault(node, "expected ids of type i32, found others"))?;
        values.truncate(n);
        Ok(Tensor::from_data(TensorData::new(values.clone(), [values.len()]), &self.executor.device))
    }

    /// A number of active rows, at most `rows`.
    pub(super) fn active(&self, node: &Node, i: usize, rows: usize) -> Result<usize> {
        let found = match self.value(node, i)? {
            Value::Count(tensor) => tensor.n_rows() as i64,
            Value::Array(array) => match array.to_i32().as_deref() {
                Some(&[count]) => i64::from(count),
                _ => return Err(fault(node, "expected one number of active rows, found another array")),
            },
            other => return Self::mistaken(node, i, "a number of rows", other),
        };
        match usize::try_from(found) {
            Ok(count) if count <= rows => Ok(count),
            _ => Err(fault(
                node,
                format!("expected active rows of 0 to {rows}, the rows that are given, found {found}"),
            )),
        }
    }

    /// A weight operand laid out for its use.
    pub(super) fn weight(&self, node: &Node, i: usize, used: Use, dtype: DType) -> Result<Bound> {
        let plan = self.executor.artifact.plan();
        let weight = plan.values[node.operands[i].0].weight;
        let weight = weight
            .ok_or_else(|| fault(node, format!("expected operand {i} to be a weight, found a tensor")))?;
        self.executor.bound(weight, used, dtype)
    }

    /// A vector `[c]`. Norms compute in f32, so it keeps f32 whatever the features are.
    pub(super) fn vector(&self, node: &Node, i: usize, channels: usize) -> Result<Tensor<1>> {
        match self.weight(node, i, Use::Vector, DType::F32)? {
            Bound::Vector(vector) if vector.dims() == [channels] => Ok(vector),
            Bound::Vector(vector) => {
                let found = vector.dims();
                Err(fault(node, format!("expected operand {i} to have {channels} channels, found {found:?}")))
            }
            _ => Err(fault(node, format!("expected operand {i} to be a vector, found a matrix"))),
        }
    }
}
