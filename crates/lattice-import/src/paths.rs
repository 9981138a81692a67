//! From names in a file to paths in a network.

use std::collections::BTreeMap;

use regex::Regex;

use crate::checkpoint::{Stored, Tensors};
use crate::{ImportError, Mapping, Result};

/// The path in a network that a mapping gives to each tensor of a file; none where it holds no parameter or lies outside.
///
/// # Errors
/// A pattern that is not one.
pub fn paths(tensors: &Tensors, mapping: &Mapping) -> Result<BTreeMap<String, Option<String>>> {
    let renamed = rename(tensors, mapping)?;
    let mut paths: BTreeMap<String, Option<String>> =
        tensors.keys().map(|name| (name.clone(), None)).collect();
    for (path, tensor) in renamed.tensors {
        paths.insert(tensor.name.into(), Some(path));
    }
    Ok(paths)
}

/// A tensor with its name in the file.
pub(crate) struct Named<'a> {
    pub(crate) name: &'a str,
    pub(crate) stored: &'a Stored,
}

/// Tensors by the network's paths.
pub(crate) struct Renamed<'a> {
    pub(crate) tensors: BTreeMap<String, Named<'a>>,
    pub(crate) ignored: Vec<String>,
    pub(crate) outside: Vec<String>,
    /// Names that were given twice.
    pub(crate) twice: Vec<String>,
}

/// Dictionaries that hold the parameters beside other things.
const ROOTS: [&str; 4] = ["state_dict.", "model_state.", "model_state_dict.", "net_state_dict."];
/// Prefixes that wrappers give to all parameters.
const WRAPPERS: [&str; 4] = ["module.", "model.", "net.", "network."];
/// What training leaves beside the parameters.
const TRAINING: [&str; 7] = ["optimizer", "optim", "lr_scheduler", "scheduler", "ema", "scaler", "epoch"];

pub(crate) fn rename<'a>(tensors: &'a Tensors, mapping: &Mapping) -> Result<Renamed<'a>> {
    let pattern = |text: &String| {
        Regex::new(text).map_err(|e| ImportError::Mapping(format!("expected a pattern, found `{text}`: {e}")))
    };
    let ignore: Vec<Regex> = mapping.ignore.iter().map(pattern).collect::<Result<_>>()?;
    let renames: Vec<(Regex, &str)> =
        mapping.rename.iter().map(|(from, to)| Ok((pattern(from)?, to.as_str()))).collect::<Result<_>>()?;

    let mut outside = Vec::new();
    // (name in the file, name inside its part)
    let mut parts: Vec<(&str, &str)> = tensors.keys().map(|name| (name.as_str(), name.as_str())).collect();
    let mut keep_only = |parts: &mut Vec<(&'a str, &'a str)>, prefix: &str| {
        parts.retain_mut(|(name, inner)| match inner.strip_prefix(prefix) {
            Some(rest) => {
                *inner = rest;
                true
            }
            None => {
                outside.push((*name).to_owned());
                false
            }
        });
    };
    if let Some(root) = ROOTS.iter().find(|root| parts.iter().any(|(_, inner)| inner.starts_with(*root))) {
        keep_only(&mut parts, root);
    }
    let of_training = |inner: &str| TRAINING.iter().any(|t| inner.split('.').next() == Some(t));
    while let Some(wrapper) = WRAPPERS.iter().find(|wrapper| {
        let mut own = parts.iter().filter(|(_, inner)| !of_training(inner)).peekable();
        own.peek().is_some() && own.all(|(_, inner)| inner.starts_with(*wrapper))
    }) {
        keep_only(&mut parts, wrapper);
    }
    if let Some(scope) = mapping.scope.iter().find(|s| parts.iter().any(|(_, inner)| inner.starts_with(*s))) {
        keep_only(&mut parts, scope);
    }

    let mut renamed = Renamed { tensors: BTreeMap::new(), ignored: Vec::new(), outside, twice: Vec::new() };
    for (name, inner) in parts {
        if ignore.iter().any(|pattern| pattern.is_match(inner)) {
            renamed.ignored.push(name.into());
            continue;
        }
        let path =
            renames.iter().fold(inner.to_owned(), |path, (from, to)| from.replace(&path, *to).into_owned());
        let tensor = Named { name, stored: &tensors[name] };
        if let Some(other) = renamed.tensors.insert(path.clone(), tensor) {
            renamed.twice.push(format!(
                "`{name}`: expected a place of its own, found `{}` at `{path}` too",
                other.name
            ));
        }
    }
    Ok(renamed)
}
