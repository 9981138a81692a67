//! The rules of the format: a graph that keeps them all becomes a [`Plan`].

mod operation;
mod rules;
mod scope;

use crate::error::{ArtifactError, Diagnostic, Diagnostics};
use crate::ir::{At, Entry, Graph, MODULE_ATTRIBUTES, ModuleAttribute, SparseType, Type};
use crate::plan::{Input, InputRole, Output, OutputRole, Plan};
use crate::schema::{IR_VERSION, SCHEMA_DIGEST, WEIGHT_FILE};
use scope::Scope;

/// What the format's own names begin with.
const NAMESPACE: &str = "lattice.";
/// Most faults that are listed.
const MOST_FAULTS: usize = 100;

/// Faults found so far: the first ones, and how many there are.
#[derive(Default)]
pub(crate) struct Faults {
    listed: Vec<Diagnostic>,
    count: usize,
}

impl Faults {
    pub(crate) fn add(&mut self, at: At, message: impl Into<String>) {
        self.count += 1;
        if self.listed.len() < MOST_FAULTS {
            self.listed.push(Diagnostic { at, message: message.into() });
        }
    }

    /// How many were found, listed or not.
    pub(crate) fn count(&self) -> usize {
        self.count
    }
}

/// Whether a text is a valid graph, and what is wrong with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// True where there are no diagnostics.
    pub valid: bool,
    /// Faults with line and column.
    pub diagnostics: Vec<Diagnostic>,
}

/// Parses and verifies a text.
pub fn status(text: &str) -> Status {
    let diagnostics = match crate::parse(text).and_then(|graph| verify(&graph)) {
        Ok(_) => Vec::new(),
        Err(ArtifactError::Syntax(one)) => vec![one],
        Err(ArtifactError::Invalid(Diagnostics(all))) => all,
        Err(other) => vec![Diagnostic { at: At::default(), message: other.to_string() }],
    };
    Status { valid: diagnostics.is_empty(), diagnostics }
}

/// Checks every rule and makes the plan.
///
/// # Errors
/// [`ArtifactError::Invalid`] with every fault, at most a hundred.
pub fn verify(graph: &Graph) -> Result<Plan, ArtifactError> {
    let mut faults = Faults::default();
    module_attributes(graph, &mut faults);
    let mut scope = Scope::default();
    let inputs = arguments(graph, &mut scope, &mut faults);
    let (mut weights, mut nodes) = (Vec::new(), Vec::new());
    for operation in &graph.operations {
        operation::check(operation, &mut scope, &mut weights, &mut nodes, &mut faults);
    }
    let outputs = returns(graph, &scope, &mut faults);
    if faults.count() == 0 {
        return Ok(Plan { inputs, outputs, weights, nodes, values: scope.into_values() });
    }
    Err(ArtifactError::Invalid(Diagnostics(faults.listed)))
}

fn attribute<'a>(graph: &'a Graph, name: &str) -> Option<&'a Entry<ModuleAttribute>> {
    graph.attributes.iter().find(|entry| entry.name == name)
}

fn module_attributes(graph: &Graph, faults: &mut Faults) {
    let at = graph.attributes.first().map_or(At::default(), |entry| entry.at);
    for name in MODULE_ATTRIBUTES {
        if attribute(graph, name).is_none() {
            faults.add(at, format!("expected the module attribute `{name}`, found none"));
        }
    }
    for entry in &graph.attributes {
        let expected = match entry.name.as_str() {
            "lattice.ir_version" => ModuleAttribute::Integer(IR_VERSION),
            "lattice.schema_digest" => ModuleAttribute::Text(SCHEMA_DIGEST.into()),
            "lattice.weight_file" => ModuleAttribute::Text(WEIGHT_FILE.into()),
            name if MODULE_ATTRIBUTES.contains(&name) => continue,
            // Other namespaces are others' business: kept, and printed again.
            name if !name.starts_with(NAMESPACE) => continue,
            name => {
                let known = MODULE_ATTRIBUTES.join(", ");
                faults
                    .add(entry.at, format!("expected one of the module attributes {known}, found `{name}`"));
                continue;
            }
        };
        // A version is a number, of whatever type.
        let same = match (&entry.value, &expected) {
            (ModuleAttribute::Typed(found, _), ModuleAttribute::Integer(expected)) => found == expected,
            (found, expected) => found == expected,
        };
        if !same {
            let name = &entry.name;
            let what = "artifacts of another version are not read: export it again";
            faults.add(
                entry.at,
                format!("expected {name} = {expected}, found {}; {what}", cut(&entry.value.to_string())),
            );
        }
    }
}

/// A long text, cut for a message.
pub(crate) fn cut(text: &str) -> String {
    const LONGEST: usize = 120;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}..", &text[..end]),
        None => text.into(),
    }
}

/// Names of arguments or results, with their roles: as many as there are, each name once.
fn names_and_roles<R: Copy>(
    graph: &Graph,
    [names, roles]: [&str; 2],
    count: usize,
    role_of: impl Fn(&str) -> Option<R>,
    known: &str,
    faults: &mut Faults,
) -> Vec<Option<(String, R)>> {
    let mut texts = |name: &str| -> Option<(&Vec<String>, At)> {
        let entry = attribute(graph, name)?;
        match &entry.value {
            ModuleAttribute::Texts(texts) if texts.len() == count => Some((texts, entry.at)),
            other => {
                let found = match other {
                    ModuleAttribute::Texts(texts) => texts.len().to_string(),
                    other => cut(&other.to_string()),
                };
                faults.add(entry.at, format!("expected {name} to list {count} strings, found {found}"));
                None
            }
        }
    };
    let (Some((names, at)), Some((roles, roles_at))) = (texts(names), texts(roles)) else {
        return vec![None; count];
    };
    let mut seen = std::collections::HashSet::new();
    names
        .iter()
        .zip(roles)
        .map(|(name, role)| {
            if name.is_empty() {
                faults.add(at, "expected names that are not empty, found an empty one");
            } else if !seen.insert(name) {
                faults.add(at, format!("expected each name once, found `{}` twice", cut(name)));
            }
            let role = role_of(role).or_else(|| {
                faults.add(roles_at, format!("expected a role of {known}, found `{}`", cut(role)));
                None
            });
            role.map(|role| (name.clone(), role))
        })
        .collect()
}

fn arguments(graph: &Graph, scope: &mut Scope, faults: &mut Faults) -> Vec<Input> {
    let role = |word: &str| InputRole::ALL.into_iter().find(|role| role.name() == word);
    let known = InputRole::ALL.map(InputRole::name).join(", ");
    let lists = ["lattice.input_names", "lattice.input_roles"];
    let named = names_and_roles(graph, lists, graph.arguments.len(), role, &known, faults);
    let mut inputs = Vec::new();
    for (argument, named) in graph.arguments.iter().zip(named) {
        let value = scope.define(&argument.label, argument.ty.clone(), faults);
        let Type::Tensor(ty) = &argument.ty else {
            let found = &argument.ty;
            let fix = "a sparse input is three arguments: coordinates, features and active rows";
            faults.add(
                argument.label.at,
                format!("expected an argument of type tensor<..>, found {found}; {fix}"),
            );
            continue;
        };
        if let Some((name, role)) = named {
            inputs.push(Input { name, role, ty: ty.clone(), value });
        }
    }
    inputs
}

fn returns(graph: &Graph, scope: &Scope, faults: &mut Faults) -> Vec<Output> {
    let count = graph.results.len();
    let role = |word: &str| OutputRole::ALL.into_iter().find(|role| role.name() == word);
    let known = OutputRole::ALL.map(OutputRole::name).join(", ");
    let lists = ["lattice.output_names", "lattice.output_roles"];
    let named = names_and_roles(graph, lists, count, role, &known, faults);
    let at = graph.return_at;
    if graph.returned.len() != count || graph.returned_types != graph.results {
        let found = graph.returned.len();
        faults.add(
            at,
            format!(
                "expected {count} results of the types that @forward declares, found {found} of other types"
            ),
        );
        return Vec::new();
    }
    let mut outputs = Vec::new();
    for ((label, ty), named) in graph.returned.iter().zip(&graph.returned_types).zip(named) {
        let Some(value) = scope.used(label, Some(ty), faults) else { continue };
        let Some((name, role)) = named else { continue };
        let fits = match (ty, role) {
            (Type::Tensor(_), OutputRole::Tensor) => true,
            (Type::Sparse(ty), OutputRole::SparseTensor) => {
                sparse_type(ty, label.at, faults);
                true
            }
            _ => false,
        };
        if !fits {
            let (name, role) = (cut(&name), role.name());
            faults.add(label.at, format!("result `{name}`: expected a value of role {role}, found {ty}"));
            continue;
        }
        outputs.push(Output { name, role, ty: ty.clone(), value });
    }
    outputs
}

/// Conventions of a sparse type.
pub(crate) fn sparse_type(ty: &SparseType, at: At, faults: &mut Faults) {
    let conventions = SparseType::new(ty.element);
    if *ty != conventions {
        faults.add(at, format!("expected {conventions}, found {ty}"));
    } else if !ty.element.is_feature() {
        faults.add(at, format!("expected sparse features of type f32, f16 or bf16, found {}", ty.element));
    }
}
