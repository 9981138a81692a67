//! Points as text: `x y z ...`, one point a line, parted by spaces, tabs, commas or semicolons.
//!
//! A first line of names is taken where a word in it is no number; lines that begin with `#` or `//` are comments, but
//! one before the first point that names x, y and z counts as the names. A first line of one whole number (the count of
//! `.pts` files) is skipped. Columns without names are told by their number: see [`table::name_extra_columns`].

use super::text::Lines;
use crate::error::{Fault, Place, quote};
use crate::read::{FormatReader, Input};
use crate::scalar::{Column, Scalar, Value, whole};
use crate::table::MAX_COLUMNS;
use crate::{Attribute, PointCloud, table};

pub(crate) struct Xyz;

impl FormatReader for Xyz {
    fn name(&self) -> &'static str {
        "XYZ text"
    }

    fn extensions(&self) -> &'static [&'static str] {
        &["xyz", "txt", "csv", "asc", "pts"]
    }

    fn read(&self, input: &Input<'_>) -> Result<PointCloud, Fault> {
        let bytes = input.bytes.as_ref();
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let mut lines = Lines::new(bytes);
        let mut names: Option<Vec<String>> = None;
        let mut columns: Vec<Column> = Vec::new();
        while let Some(line) = lines.next_filled() {
            let place = Place::Line(lines.number);
            let comment =
                line.trim_start().strip_prefix("//").or_else(|| line.trim_start().strip_prefix('#'));
            if let Some(comment) = comment {
                let words: Vec<&str> = split(comment).collect();
                let named = ["x", "y", "z"].iter().all(|a| words.iter().any(|w| w.eq_ignore_ascii_case(a)));
                if named && columns.is_empty() && names.is_none() {
                    names = Some(words.into_iter().map(str::to_owned).collect());
                }
                continue;
            }
            if columns.is_empty() {
                let words: Vec<&str> = split(&line).collect();
                if words.len() > MAX_COLUMNS {
                    let found = format!("{} columns", words.len());
                    return Err(Fault::new(place, "at most 4096 columns", found, "this is not a point file"));
                }
                if lines.number == 1 && words.len() == 1 && words[0].parse::<u64>().is_ok() {
                    continue;
                }
                if names.is_none() && words.iter().any(|w| w.parse::<f64>().is_err()) {
                    if !words.iter().any(|w| w.eq_ignore_ascii_case("x")) {
                        return Err(Fault::new(
                            place,
                            "numbers, or names with x, y and z",
                            quote(&line),
                            "this is not a point file, or its header needs x, y and z",
                        ));
                    }
                    names = Some(words.into_iter().map(str::to_owned).collect());
                    continue;
                }
                let n = names.as_ref().map_or(words.len(), Vec::len);
                if n < 3 {
                    return Err(Fault::new(
                        place,
                        "3 columns or more",
                        format!("{n}"),
                        "each line needs x, y and z, parted by spaces, commas or semicolons",
                    ));
                }
                columns = (0..n).map(|i| Column::new(format!("{i}"), Scalar::F64, 0)).collect();
            }
            push_row(&line, &mut columns, place)?;
        }
        if columns.is_empty() {
            let found = format!("{} lines without points", lines.number);
            return Err(Fault::new(Place::File, "lines of x y z", found, "copy or export it again"));
        }
        let names = names.unwrap_or_else(|| {
            let axes = ["x", "y", "z"].map(str::to_owned);
            axes.into_iter().chain(table::name_extra_columns(&columns[3..])).collect()
        });
        for (column, name) in columns.iter_mut().zip(names) {
            column.name = name;
        }
        let mut cloud = table::assemble(columns, Vec::new(), false)?;
        for values in cloud.attributes.values_mut() {
            if let Attribute::F64(v) = values
                && let Some(small) = whole(v.iter().copied())
            {
                *values = small;
            }
        }
        Ok(cloud)
    }
}

fn push_row(line: &str, columns: &mut [Column], place: Place) -> Result<(), Fault> {
    let n = columns.len();
    let mut words = split(line);
    for (i, column) in columns.iter_mut().enumerate() {
        let Some(word) = words.next() else {
            return Err(Fault::new(
                place,
                format!("{n} columns"),
                format!("{i}"),
                "complete or remove the line",
            ));
        };
        match word.parse() {
            Ok(x) => column.push(Value::Float(x)),
            Err(_) => return Err(Fault::new(place, "a number", quote(word), "correct or remove the line")),
        }
    }
    if words.next().is_some() {
        return Err(Fault::new(place, format!("{n} columns"), "more", "give every line the same columns"));
    }
    Ok(())
}

/// Words between spaces, commas and semicolons, without the quotes around them.
fn split(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| c.is_ascii_whitespace() || c == ',' || c == ';')
        .filter(|w| !w.is_empty())
        .map(|w| w.trim_matches('"'))
}
