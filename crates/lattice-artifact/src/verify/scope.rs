//! Values by label: each defined once, before it is used.

use std::collections::HashMap;

use super::Faults;
use crate::ir::{Label, Type};
use crate::plan::{ValueId, ValueInfo};

/// Values that are defined so far.
#[derive(Default)]
pub(super) struct Scope {
    by_label: HashMap<String, ValueId>,
    values: Vec<ValueInfo>,
}

impl Scope {
    /// Defines a value; one of the same label before it is a fault.
    pub(super) fn define(&mut self, label: &Label, ty: Type, faults: &mut Faults) -> ValueId {
        let value = ValueId(self.values.len());
        if self.by_label.insert(label.name.clone(), value).is_some() {
            let what = format!("expected each value to be defined once, found {label} defined again");
            faults.add(label.at, super::cut(&what));
        }
        self.values.push(ValueInfo { label: label.name.clone(), ty, weight: None });
        value
    }

    /// Notes that a value is a weight.
    pub(super) fn set_weight(&mut self, value: ValueId, weight: usize) {
        self.values[value.0].weight = Some(weight);
    }

    /// The weight that a value is.
    pub(super) fn weight(&self, value: ValueId) -> Option<usize> {
        self.values[value.0].weight
    }

    /// A value that is used as `ty`; one that is not defined yet, or has another type, is a fault.
    pub(super) fn used(&self, label: &Label, ty: Option<&Type>, faults: &mut Faults) -> Option<ValueId> {
        let Some(&value) = self.by_label.get(&label.name) else {
            let what = format!("expected a value that is defined before it is used, found {label}");
            faults.add(label.at, super::cut(&what));
            return None;
        };
        let defined = &self.values[value.0].ty;
        match ty {
            Some(ty) if ty != defined => {
                faults.add(
                    label.at,
                    format!(
                        "expected {} to be used as {defined}, found {ty}",
                        super::cut(&label.to_string())
                    ),
                );
                None
            }
            _ => Some(value),
        }
    }

    pub(super) fn into_values(self) -> Vec<ValueInfo> {
        self.values
    }
}
