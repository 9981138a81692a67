//! NPZ: a zip archive of NPY arrays.
//!
//! Positions are the array `xyz`, or else the only float array of shape (N, C >= 3). Other arrays of N rows are
//! attributes: (N,) and (N, 1) under their own name, (N, 3) named rgb, color or colors as `rgb`, others one attribute a
//! column (`name_0`, ...). Whole numbers `triangles` of shape (T, 3) are the triangles. The rest is left out.

use std::io::{Cursor, Read};

use crate::error::{Fault, Place};
use crate::npy_array::RawArray;
use crate::read::{FormatReader, Input};
use crate::scalar::Column;
use crate::table::MAX_COLUMNS;
use crate::{PointCloud, table};

pub(crate) struct Npz;

/// What one byte of a deflate stream can unpack to, at most.
const MAX_RATIO: u64 = 1032;

const HELP: &str = "save it again with numpy.savez";

/// A member of the archive: its name without `.npy`, and its bytes.
struct Member {
    name: String,
    bytes: Vec<u8>,
}

impl FormatReader for Npz {
    fn name(&self) -> &'static str {
        "NPZ"
    }

    fn extensions(&self) -> &'static [&'static str] {
        &["npz"]
    }

    fn sniff(&self, head: &[u8]) -> bool {
        head.starts_with(b"PK\x03\x04")
    }

    fn read(&self, input: &Input<'_>) -> Result<PointCloud, Fault> {
        let members = unpack(input.bytes.as_ref())?;
        let mut arrays = Vec::with_capacity(members.len());
        for member in &members {
            let place = Place::Member(member.name.clone());
            match RawArray::parse(&member.bytes, &place) {
                Ok(array) => arrays.push((member.name.as_str(), array)),
                // An array of other things than numbers (texts, objects) is no attribute, yet no damage either.
                Err(_) if holds_no_numbers(&member.bytes) => {}
                Err(fault) => return Err(Fault { place, ..fault }),
            }
        }
        let is_table = |a: &RawArray<'_>| a.shape.len() == 2 && a.shape[1] >= 3 && !a.structured;
        let chosen = arrays.iter().position(|(name, a)| *name == "xyz" && is_table(a)).or_else(|| {
            let float = |a: &RawArray<'_>| a.fields.iter().all(|f| f.scalar.is_float());
            let mut tables = arrays.iter().enumerate().filter(|(_, (_, a))| is_table(a) && float(a));
            match (tables.next(), tables.next()) {
                (Some((i, _)), None) => Some(i),
                _ => None,
            }
        });
        let Some(chosen) = chosen else {
            let found: Vec<String> =
                arrays.iter().take(20).map(|(name, a)| format!("{name} {:?}", a.shape)).collect();
            return Err(Fault::new(
                Place::File,
                "an array `xyz` of shape (N, 3), or one float array of shape (N, 3 or more)",
                format!("[{}]", found.join("; ")),
                "name the positions `xyz`",
            ));
        };
        let (name, xyz) = arrays.remove(chosen);
        let n = xyz.shape[0];
        let mut columns = super::npy::position_columns(xyz.columns(&Place::Member(name.to_owned()))?)?;
        let mut triangles = Vec::new();
        for (name, array) in &arrays {
            let place = Place::Member((*name).to_owned());
            let whole = array.fields.iter().all(|f| !f.scalar.is_float());
            if *name == "triangles" && array.shape.len() == 2 && array.shape[1] == 3 && whole {
                triangles = read_triangles(&array.columns(&place)?, n, &place)?;
            } else if array.shape.first() == Some(&n)
                && array.shape.len() <= 2
                && (array.shape.len() == 1 || !array.structured)
            {
                let mut found = array.columns(&place)?;
                name_columns(name, &mut found);
                columns.append(&mut found);
                if columns.len() > MAX_COLUMNS {
                    let found = format!("{}", columns.len());
                    return Err(Fault::new(
                        place,
                        "at most 4096 columns in all",
                        found,
                        "save fewer columns",
                    ));
                }
            }
        }
        table::assemble(columns, triangles, false)
    }
}

/// Names the columns of the array `name` of N rows.
fn name_columns(name: &str, columns: &mut [Column]) {
    let colour = matches!(name, "rgb" | "color" | "colors" | "colour" | "colours");
    match columns {
        [one] if one.name.is_empty() => one.name = name.to_owned(),
        [r, g, b] if colour => {
            for (column, name) in [(r, "red"), (g, "green"), (b, "blue")] {
                column.name = name.to_owned();
            }
        }
        many => {
            for (i, column) in many.iter_mut().enumerate() {
                let own = if column.name.is_empty() { i.to_string() } else { column.name.clone() };
                column.name = format!("{name}_{own}");
            }
        }
    }
}

fn read_triangles(columns: &[Column], n: usize, place: &Place) -> Result<Vec<[u32; 3]>, Fault> {
    let rows = columns.first().map_or(0, Column::len);
    let mut out = Vec::with_capacity(rows);
    for row in 0..rows {
        let corners: [f64; 3] = std::array::from_fn(|c| columns[c].get(row));
        if corners.iter().any(|&c| c < 0.0 || c >= n as f64) {
            let found = format!("{corners:?} in row {row}");
            return Err(Fault::new(place.clone(), format!("point numbers below {n}"), found, HELP));
        }
        out.push(corners.map(|c| c as u32));
    }
    Ok(out)
}

/// Whether this is a whole NPY file, only of a type that is not a number.
fn holds_no_numbers(bytes: &[u8]) -> bool {
    let head = String::from_utf8_lossy(&bytes[..bytes.len().min(256)]);
    ["'descr': '|O'", "'descr': '<U", "'descr': '|S", "'descr': '<M", "'descr': '<m", "'descr': '<c"]
        .iter()
        .any(|d| head.contains(d))
}

fn unpack(bytes: &[u8]) -> Result<Vec<Member>, Fault> {
    let damaged = |place: Place, e: String| Fault::new(place, "a sound zip archive", format!("`{e}`"), HELP);
    let mut archive =
        zip::ZipArchive::new(Cursor::new(bytes)).map_err(|e| damaged(Place::File, e.to_string()))?;
    if archive.len() > MAX_COLUMNS {
        let found = format!("{}", archive.len());
        return Err(Fault::new(Place::File, "at most 4096 members", found, "save fewer arrays"));
    }
    let mut members = Vec::new();
    // Members may share packed bytes: bound what all of them unpack to.
    let mut budget = (bytes.len() as u64).saturating_mul(MAX_RATIO);
    for i in 0..archive.len() {
        let mut file = archive.by_index(i).map_err(|e| damaged(Place::File, e.to_string()))?;
        let name = file.name().map_err(|e| damaged(Place::File, e.to_string()))?.into_owned();
        let Some(name) = name.strip_suffix(".npy").map(str::to_owned) else { continue };
        let place = Place::Member(name.clone());
        let limit = budget.min(file.compressed_size().saturating_mul(MAX_RATIO).saturating_add(64));
        let mut unpacked = Vec::new();
        file.by_ref()
            .take(limit)
            .read_to_end(&mut unpacked)
            .map_err(|e| damaged(place.clone(), e.to_string()))?;
        if (unpacked.len() as u64) < file.size() {
            let found = format!("{} bytes", unpacked.len());
            return Err(Fault::new(place, format!("{} unpacked bytes", file.size()), found, HELP));
        }
        budget -= unpacked.len() as u64;
        members.push(Member { name, bytes: unpacked });
    }
    Ok(members)
}
