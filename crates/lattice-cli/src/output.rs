//! What goes to stdout: a closed pipe or a full disk is an error value, never a panic.

use std::fmt::Display;
use std::io::Write;

use anyhow::{Context, Result};
use serde::Serialize;

/// Writes one line (or several) to stdout.
///
/// # Errors
/// What the system refuses: a reader that closed its end, a full disk.
pub fn line(text: impl Display) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).context("cannot write to stdout")
}

/// Writes one JSON document, indented.
///
/// # Errors
/// As [`line()`].
pub fn json(document: &impl Serialize) -> Result<()> {
    line(serde_json::to_string_pretty(document)?)
}
