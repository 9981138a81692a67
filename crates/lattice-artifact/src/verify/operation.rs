//! What every operation must keep: its operands, results and attributes are those of the schema.

use super::rules::{Checked, Rules};
use super::scope::Scope;
use super::{Faults, cut, sparse_type};
use crate::ir::{Attribute, Entry, Operation, Type};
use crate::plan::{Node, Weight};
use crate::schema::{AttributeKind, OpSchema, ValueKind, words_of};

fn kind_of(ty: &Type) -> ValueKind {
    match ty {
        Type::Tensor(_) => ValueKind::Tensor,
        Type::Sparse(_) => ValueKind::Sparse,
        Type::Weight(_) => ValueKind::Weight,
    }
}

/// Checks an operation, defines its results and adds it to the plan.
pub(super) fn check(
    operation: &Operation,
    scope: &mut Scope,
    weights: &mut Vec<Weight>,
    nodes: &mut Vec<Node>,
    faults: &mut Faults,
) {
    let at = operation.at;
    let Some(schema) = OpSchema::named(&operation.name) else {
        faults.add(at, format!("expected an operation of the dialect, found `{}`", cut(&operation.name)));
        return;
    };
    let before = faults.count();
    let operands = operands(operation, schema, scope, faults);
    attributes(operation, schema, faults);
    results(operation, schema, faults);
    let whole = faults.count() == before;
    let checked = if whole { Rules::of(operation, &operands, scope, weights, faults).check() } else { None };

    let defined: Vec<_> = operation
        .results
        .iter()
        .zip(operation.result_types.iter().cloned().map(Some).chain(std::iter::repeat(None)))
        .filter_map(|(label, ty)| ty.map(|ty| scope.define(label, ty, faults)))
        .collect();
    let label = || operation.results.first().map(|label| label.name.clone()).unwrap_or_default();
    match checked {
        Some(Checked::Op(op)) => {
            nodes.push(Node { op, name: schema.name, operands, results: defined, label: label(), at })
        }
        Some(Checked::Weight { key, family, packing }) => {
            let symbol = operation.symbol.clone().unwrap_or_default();
            scope.set_weight(defined[0], weights.len());
            weights.push(Weight { label: label(), symbol, key, family, packing, value: defined[0], at });
        }
        None => {}
    }
}

fn operands(
    operation: &Operation,
    schema: &OpSchema,
    scope: &Scope,
    faults: &mut Faults,
) -> Vec<crate::plan::ValueId> {
    let (fewest, most) = (schema.fewest_values(), schema.values().len());
    let found = operation.operands.len();
    let name = schema.name;
    if found < fewest || found > most || found != operation.operand_types.len() {
        let names: Vec<String> = schema
            .values()
            .iter()
            .map(|o| format!("{}{}", o.name, if o.optional { "?" } else { "" }))
            .collect();
        let types = operation.operand_types.len();
        faults.add(
            operation.at,
            format!(
                "{name}: expected operands ({}) and a type for each, found {found} and {types} types",
                names.join(", ")
            ),
        );
        return Vec::new();
    }
    let mut values = Vec::with_capacity(found);
    for ((label, ty), operand) in operation.operands.iter().zip(&operation.operand_types).zip(schema.values())
    {
        if kind_of(ty) != operand.kind {
            let (expected, operand) = (operand.kind.name(), operand.name);
            faults.add(
                label.at,
                format!("{name}: expected operand `{operand}` to be a {expected}, found {ty}"),
            );
            continue;
        }
        if let Type::Sparse(ty) = ty {
            sparse_type(ty, label.at, faults);
        }
        values.extend(scope.used(label, Some(ty), faults));
    }
    values
}

fn results(operation: &Operation, schema: &OpSchema, faults: &mut Faults) {
    let (expected, name) = (schema.results.len(), schema.name);
    let (found, types) = (operation.results.len(), operation.result_types.len());
    if found != expected || types != expected {
        faults.add(
            operation.at,
            format!("{name}: expected {expected} results with a type each, found {found} and {types} types"),
        );
        return;
    }
    for (ty, result) in operation.result_types.iter().zip(schema.results) {
        if kind_of(ty) != result.kind {
            let (expected, result) = (result.kind.name(), result.name);
            faults.add(operation.at, format!("{name}: expected `{result}` to be a {expected}, found {ty}"));
        } else if let Type::Sparse(ty) = ty {
            sparse_type(ty, operation.at, faults);
        }
    }
}

fn attributes(operation: &Operation, schema: &OpSchema, faults: &mut Faults) {
    let name = schema.name;
    for Entry { name: attribute, value, at } in &operation.attributes {
        let Some(known) = schema.attributes.iter().find(|known| known.name == attribute) else {
            let names: Vec<&str> = schema.attributes.iter().map(|known| known.name).collect();
            let expected = if names.is_empty() { "no attributes".into() } else { names.join(", ") };
            faults.add(*at, format!("{name}: expected {expected}, found the attribute `{}`", cut(attribute)));
            continue;
        };
        let found = || cut(&value.to_string());
        match (known.kind, value) {
            (AttributeKind::Word(mnemonic), Attribute::Word { mnemonic: written, word })
                if mnemonic == written =>
            {
                let words = words_of(mnemonic);
                if !words.contains(&word.as_str()) {
                    let words = words.join(", ");
                    faults.add(
                        *at,
                        format!("{name}: expected {attribute} to be one of {words}, found `{}`", cut(word)),
                    );
                }
            }
            (AttributeKind::Text, Attribute::Text(_))
            | (AttributeKind::Integer, Attribute::Integer(_))
            | (AttributeKind::Float, Attribute::Float(_))
            | (AttributeKind::Integers, Attribute::Integers(_))
            | (AttributeKind::Floats, Attribute::Floats(_))
            | (AttributeKind::Packing, Attribute::Packing(_)) => {}
            (kind, _) => {
                faults.add(
                    *at,
                    format!("{name}: expected {attribute} to be {}, found {}", kind.written(), found()),
                );
            }
        }
    }
    for known in schema.attributes {
        if !operation.attributes.iter().any(|entry| entry.name == known.name) {
            let written = known.kind.written();
            faults.add(
                operation.at,
                format!("{name}: expected the attribute {} ({written}), found none", known.name),
            );
        }
    }
}
