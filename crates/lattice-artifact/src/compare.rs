//! Results against expected ones: dense by position, sparse as sets of rows.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;

use crate::array::Array;

/// How much results may differ: `|found - expected| <= atol + rtol · |expected|`.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    /// Relative part.
    pub rtol: f64,
    /// Absolute part.
    pub atol: f64,
}

/// Where one result differs most.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Worst {
    /// The coordinate batch, x, y, z of a sparse result, or the indices of a dense one.
    pub at: Vec<i64>,
    /// Channel of a sparse result.
    pub channel: Option<usize>,
    /// Value found.
    pub found: f64,
    /// Value expected.
    pub expected: f64,
}

/// How one result compares.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// Name of the result.
    pub name: String,
    /// Whether it agrees.
    pub agrees: bool,
    /// Values compared.
    pub values: usize,
    /// Values past the tolerance.
    pub differing: usize,
    /// The value that differs most, relative to what it may.
    pub worst: Option<Worst>,
    /// What else differs: a missing result, a shape, rows that only one of both has.
    pub fault: Option<String>,
}

impl Comparison {
    fn fault(name: &str, what: String) -> Self {
        Self { name: name.into(), agrees: false, values: 0, differing: 0, worst: None, fault: Some(what) }
    }
}

/// Arrays by name.
pub type Arrays = BTreeMap<String, Array>;

/// Names of the three parts of a sparse result: as results are written, and as a graph returns a tensor that it took apart.
const PARTS: [[&str; 3]; 2] = [[".coords", ".features", ".active"], ["_coords", "_features", "_active"]];

/// Compares every result that is expected, and refuses results that are not.
pub fn compare(found: &Arrays, expected: &Arrays, tolerance: Tolerance) -> Vec<Comparison> {
    let mut left: BTreeSet<&str> = expected.keys().map(String::as_str).collect();
    let mut comparisons = Vec::new();
    for [coords, features, active] in PARTS {
        let names: Vec<&str> = left.iter().filter_map(|name| name.strip_suffix(coords)).collect();
        for name in names {
            let parts = [coords, features, active].map(|part| format!("{name}{part}"));
            if !parts.iter().all(|part| left.contains(part.as_str())) {
                continue;
            }
            let of = |arrays: &Arrays| parts.each_ref().map(|part| arrays.get(part).cloned());
            comparisons.push(sparse(name, of(found), of(expected), tolerance));
            left.retain(|name| !parts.iter().any(|part| part == name));
        }
    }
    comparisons.extend(left.iter().map(|name| dense(name, found.get(*name), &expected[*name], tolerance)));
    let extra = found.keys().filter(|name| !expected.contains_key(*name));
    comparisons
        .extend(extra.map(|name| Comparison::fault(name, "expected no such result, found one".into())));
    comparisons
}

/// Counts values past the tolerance and keeps the worst.
struct Tally {
    tolerance: Tolerance,
    values: usize,
    differing: usize,
    worst: Option<(f64, Worst)>,
}

impl Tally {
    fn new(tolerance: Tolerance) -> Self {
        Self { tolerance, values: 0, differing: 0, worst: None }
    }

    fn add(&mut self, found: f64, expected: f64, at: impl FnOnce() -> (Vec<i64>, Option<usize>)) {
        self.values += 1;
        let same = found == expected || (found.is_nan() && expected.is_nan());
        let allowed = self.tolerance.atol + self.tolerance.rtol * expected.abs();
        let off = (found - expected).abs();
        // How many times the tolerance; a difference that is no number is past any.
        let excess = match (same, off.is_finite()) {
            (true, _) => 0.0,
            (false, true) if allowed > 0.0 => off / allowed,
            (false, true) => f64::MAX.min(off * 1e300),
            (false, false) => f64::INFINITY,
        };
        // A difference that is no number is within no tolerance.
        let within = off <= allowed;
        if !same && !within {
            self.differing += 1;
        }
        if self.worst.as_ref().is_none_or(|(most, _)| excess > *most) {
            let (at, channel) = at();
            self.worst = Some((excess, Worst { at, channel, found, expected }));
        }
    }

    fn finish(self, name: &str, fault: Option<String>) -> Comparison {
        Comparison {
            name: name.into(),
            agrees: self.differing == 0 && fault.is_none(),
            values: self.values,
            differing: self.differing,
            worst: self.worst.map(|(_, worst)| worst),
            fault,
        }
    }
}

fn numbers(array: &Array) -> Option<Vec<f64>> {
    let floats = array.to_f32().map(|values| values.into_iter().map(f64::from).collect());
    floats.or_else(|| array.to_i32().map(|values| values.into_iter().map(f64::from).collect()))
}

fn dense(name: &str, found: Option<&Array>, expected: &Array, tolerance: Tolerance) -> Comparison {
    let Some(found) = found else {
        return Comparison::fault(
            name,
            format!("expected a result of shape {:?}, found none", expected.dims()),
        );
    };
    if found.dims() != expected.dims() {
        return Comparison::fault(
            name,
            format!("expected shape {:?}, found {:?}", expected.dims(), found.dims()),
        );
    }
    let (Some(a), Some(e)) = (numbers(found), numbers(expected)) else {
        let what = format!("expected floats or i32, found {} and {}", found.element(), expected.element());
        return Comparison::fault(name, what);
    };
    let mut tally = Tally::new(tolerance);
    for (i, (a, e)) in a.iter().zip(&e).enumerate() {
        tally.add(*a, *e, || {
            let mut rest = i;
            let mut at: Vec<i64> = Vec::new();
            for &dim in expected.dims().iter().rev() {
                at.push((rest % dim.max(1)) as i64);
                rest /= dim.max(1);
            }
            at.reverse();
            (at, None)
        });
    }
    tally.finish(name, None)
}

/// Active rows of a sparse result, and their features row by row.
struct Rows {
    rows: Vec<[i32; 4]>,
    values: Vec<f32>,
    channels: usize,
}

fn rows(parts: [Option<Array>; 3]) -> Result<Rows, String> {
    let [Some(coords), Some(features), Some(active)] = parts else {
        return Err("coordinates, features and active rows, found one of them missing".into());
    };
    let (Some(mut rows), Some(values)) = (coords.to_coords(), features.to_f32()) else {
        return Err(format!(
            "i32 rows batch, x, y, z and floats, found {} and {}",
            coords.element(),
            features.element()
        ));
    };
    let &[n, channels] = features.dims() else {
        return Err(format!("features with two axes, found shape {:?}", features.dims()));
    };
    let count =
        active.to_i32().and_then(|values| values.first().copied()).and_then(|n| usize::try_from(n).ok());
    match count {
        Some(count) if count <= n && n == rows.len() => {
            rows.truncate(count);
            Ok(Rows { rows, values: values[..count * channels].to_vec(), channels })
        }
        _ => Err(format!(
            "as many features as rows and at most as many active, found {n}, {} and {count:?}",
            rows.len()
        )),
    }
}

fn sparse(
    name: &str,
    found: [Option<Array>; 3],
    expected: [Option<Array>; 3],
    tolerance: Tolerance,
) -> Comparison {
    let (found, expected) = match (rows(found), rows(expected)) {
        (Ok(found), Ok(expected)) => (found, expected),
        (Err(what), _) => return Comparison::fault(name, format!("expected a sparse result of {what}")),
        (_, Err(what)) => return Comparison::fault(name, format!("the expected file: expected {what}")),
    };
    let Rows { rows: found_rows, values: found_values, channels } = found;
    let Rows { rows, values, channels: expected_channels } = expected;
    if channels != expected_channels {
        return Comparison::fault(name, format!("expected {expected_channels} channels, found {channels}"));
    }
    let place: HashMap<[i32; 4], usize> = found_rows.iter().enumerate().map(|(i, row)| (*row, i)).collect();
    let mut tally = Tally::new(tolerance);
    let mut missing = Vec::new();
    let mut met = vec![false; found_rows.len()];
    for (row, expected) in rows.iter().zip(values.chunks(channels.max(1)).chain(std::iter::repeat(&[][..]))) {
        let Some(&i) = place.get(row) else {
            missing.push(*row);
            continue;
        };
        met[i] = true;
        let found = &found_values[i * channels..(i + 1) * channels];
        for (channel, (a, e)) in found.iter().zip(expected).enumerate() {
            let at = || (row.iter().map(|&v| i64::from(v)).collect(), Some(channel));
            tally.add(f64::from(*a), f64::from(*e), at);
        }
    }
    let extra: Vec<[i32; 4]> =
        found_rows.iter().zip(&met).filter(|(_, met)| !**met).map(|(row, _)| *row).collect();
    let fault = match (missing.first(), extra.first()) {
        (None, None) => None,
        (Some(row), _) => Some(format!(
            "expected {} rows, found {} of them missing, such as {row:?} (batch, x, y, z), and {} others",
            rows.len(),
            missing.len(),
            extra.len()
        )),
        (None, Some(row)) => Some(format!(
            "expected {} rows, found {} others, such as {row:?} (batch, x, y, z)",
            rows.len(),
            extra.len()
        )),
    };
    tally.finish(name, fault)
}
