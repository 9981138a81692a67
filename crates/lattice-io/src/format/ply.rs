//! PLY: ascii, binary little and big endian.
//!
//! A reader of our own: the registry's PLY crates read whole elements into maps of vectors, allocate what the header
//! promises, or know no big endian; here the promise is checked against the file's size first and rows go straight into
//! columns. Properties of `vertex` become attributes (list properties there are skipped), `face` lists become triangles,
//! other elements are skipped.

use super::ply_header::{self, Element, Encoding, Header};
use super::text::Lines;
use crate::error::{Fault, Place, quote};
use crate::read::{FormatReader, Input};
use crate::scalar::{Column, Value};
use crate::{PointCloud, table};

pub(crate) struct Ply;

impl FormatReader for Ply {
    fn name(&self) -> &'static str {
        "PLY"
    }

    fn extensions(&self) -> &'static [&'static str] {
        &["ply"]
    }

    fn sniff(&self, head: &[u8]) -> bool {
        head.starts_with(b"ply\n") || head.starts_with(b"ply\r\n")
    }

    fn read(&self, input: &Input<'_>) -> Result<PointCloud, Fault> {
        let bytes = input.bytes.as_ref();
        let header = ply_header::parse(bytes)?;
        check_promises(&header, bytes.len())?;
        let mut body = Body::new(&header, bytes);
        let mut columns = None;
        let mut faces = Faces::default();
        for element in &header.elements {
            // Rows without properties take no bytes: nothing to walk, however many are promised.
            if element.properties.is_empty() {
                continue;
            }
            match element.name.as_str() {
                "vertex" if columns.is_none() => columns = Some(read_vertices(&mut body, element)?),
                "face" => read_faces(&mut body, element, &mut faces)?,
                _ => {
                    for row in 0..element.rows {
                        body.row(element, row, |_, _, _| Ok(()))?;
                    }
                }
            }
        }
        let Some(columns) = columns else {
            let names: Vec<&str> = header.elements.iter().take(20).map(|e| e.name.as_str()).collect();
            return Err(Fault::new(
                Place::Line(header.lines),
                "an element `vertex` with properties",
                format!("elements [{}]", names.join(", ")),
                "export the points as vertices",
            ));
        };
        let n_vertices = columns.first().map_or(0, Column::len);
        faces.check(n_vertices)?;
        table::assemble(columns, faces.triangles, faces.found)
    }
}

/// Refuses a header whose rows cannot fit into the rest of the file.
fn check_promises(header: &Header, file_bytes: usize) -> Result<(), Fault> {
    let have = (file_bytes - header.body_at) as u64;
    let mut needed = 0u64;
    for element in &header.elements {
        let rows = element.rows.checked_mul(element.min_row_bytes(header.encoding));
        needed = rows.and_then(|r| needed.checked_add(r)).unwrap_or(u64::MAX);
        // The last value of a text needs nothing behind it.
        let slack = u64::from(header.encoding == Encoding::Ascii);
        if needed > have.saturating_add(slack) {
            return Err(Fault::truncated(
                file_bytes,
                format!(
                    "{} rows of element `{}`, at least {needed} bytes of data",
                    element.rows, element.name
                ),
                format!("{have} bytes of data"),
            ));
        }
    }
    Ok(())
}

/// Walks the rows of the body in either encoding.
struct Body<'a> {
    bytes: &'a [u8],
    at: usize,
    encoding: Encoding,
    lines: Lines<'a>,
    header_lines: u64,
}

impl<'a> Body<'a> {
    fn new(header: &Header, bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: header.body_at,
            encoding: header.encoding,
            lines: Lines::new(&bytes[header.body_at..]),
            header_lines: header.lines,
        }
    }

    /// Where the row read last stands.
    fn place(&self) -> Place {
        match self.encoding {
            Encoding::Ascii => Place::Line(self.header_lines + self.lines.number),
            _ => Place::Byte(self.at as u64),
        }
    }

    /// Reads one row: `take(property number, None for a single value or Some(list length), value)`. Of a list, the
    /// length is told with each of its values; an empty list is told by nothing.
    fn row(
        &mut self,
        element: &Element,
        row: u64,
        mut take: impl FnMut(usize, Option<u64>, Value) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        if self.encoding == Encoding::Ascii {
            return self.text_row(element, row, take);
        }
        let big = self.encoding == Encoding::BigEndian;
        for (number, property) in element.properties.iter().enumerate() {
            let length = match property.count {
                None => None,
                Some(count) => {
                    let value = count.read(self.bytes_of(count.size(), element, row)?, big);
                    let length = value.as_count().ok_or_else(|| {
                        Fault::new(
                            Place::Byte(self.at as u64),
                            format!("a list length in row {row} of `{}`", element.name),
                            format!("{value:?}"),
                            "export it again",
                        )
                    })?;
                    Some(length)
                }
            };
            let size = property.scalar.size();
            let total = length.unwrap_or(1).checked_mul(size as u64).and_then(|t| usize::try_from(t).ok());
            let values = self.bytes_of(total.unwrap_or(usize::MAX), element, row)?;
            for value in values.chunks_exact(size) {
                take(number, length, property.scalar.read(value, big))?;
            }
        }
        Ok(())
    }

    fn bytes_of(&mut self, size: usize, element: &Element, row: u64) -> Result<&'a [u8], Fault> {
        let rest = &self.bytes[self.at..];
        let found = rest.get(..size).ok_or_else(|| {
            Fault::truncated(
                self.at,
                format!("{size} more bytes for row {row} of {} of `{}`", element.rows, element.name),
                format!("{} bytes", rest.len()),
            )
        })?;
        self.at += size;
        Ok(found)
    }

    fn text_row(
        &mut self,
        element: &Element,
        row: u64,
        mut take: impl FnMut(usize, Option<u64>, Value) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let Some(line) = self.lines.next_filled() else {
            return Err(Fault::truncated(
                self.bytes.len(),
                format!("row {row} of {} of element `{}`", element.rows, element.name),
                "the end of the file",
            ));
        };
        let place = Place::Line(self.header_lines + self.lines.number);
        let mut words = line.split_ascii_whitespace();
        let mut next = |scalar: crate::scalar::Scalar, name: &str| {
            let word = words.next().ok_or_else(|| {
                Fault::new(
                    place.clone(),
                    format!("a value of `{name}`"),
                    "the end of the line",
                    "the row is too short: export it again",
                )
            })?;
            scalar.parse(word).ok_or_else(|| {
                Fault::new(
                    place.clone(),
                    format!("a number for `{name}` ({scalar:?})"),
                    quote(word),
                    "correct the number or the header's type",
                )
            })
        };
        for (number, property) in element.properties.iter().enumerate() {
            let length = match property.count {
                None => None,
                Some(count) => {
                    let value = next(count, &property.name)?;
                    Some(value.as_count().ok_or_else(|| {
                        Fault::new(place.clone(), "a list length", format!("{value:?}"), "export it again")
                    })?)
                }
            };
            // A length that lies runs into the end of the line at once.
            for _ in 0..length.unwrap_or(1) {
                take(number, length, next(property.scalar, &property.name)?)?;
            }
        }
        Ok(())
    }
}

fn read_vertices(body: &mut Body<'_>, element: &Element) -> Result<Vec<Column>, Fault> {
    // `check_promises` has proved that the file holds this many rows, or for text that it may.
    let capacity = if body.encoding == Encoding::Ascii { 0 } else { element.rows as usize };
    let mut columns = Vec::new();
    let mut column_of = Vec::with_capacity(element.properties.len());
    for property in &element.properties {
        column_of.push(property.count.is_none().then_some(columns.len()));
        if property.count.is_none() {
            columns.push(Column::new(property.name.clone(), property.scalar, capacity));
        }
    }
    for row in 0..element.rows {
        body.row(element, row, |number, _, value| {
            if let Some(column) = column_of[number] {
                columns[column].push(value);
            }
            Ok(())
        })?;
    }
    if columns.is_empty() {
        return Err(Fault::new(
            body.place(),
            "properties x, y and z of element `vertex`",
            "list properties only",
            "export positions as single values",
        ));
    }
    Ok(columns)
}

/// Triangles of the faces, polygons cut into fans.
#[derive(Default)]
struct Faces {
    triangles: Vec<[u32; 3]>,
    found: bool,
    largest: Option<(u64, Place)>,
}

impl Faces {
    /// Every corner must be a vertex. Checked at the end, since faces may stand before their vertices.
    fn check(&self, n_vertices: usize) -> Result<(), Fault> {
        match &self.largest {
            Some((index, place)) if *index >= n_vertices as u64 => Err(Fault::new(
                place.clone(),
                format!("faces of vertices below {n_vertices}"),
                format!("vertex {index}"),
                "export the mesh again",
            )),
            _ => Ok(()),
        }
    }
}

fn read_faces(body: &mut Body<'_>, element: &Element, faces: &mut Faces) -> Result<(), Fault> {
    let list = element
        .properties
        .iter()
        .position(|p| p.count.is_some() && matches!(p.name.as_str(), "vertex_indices" | "vertex_index"));
    let Some(list) = list.filter(|&l| !element.properties[l].scalar.is_float()) else {
        return Err(Fault::new(
            body.place(),
            "a whole-number list property `vertex_indices` of element `face`",
            "none",
            "export the mesh with vertex_indices, or without faces",
        ));
    };
    faces.found |= element.rows > 0;
    let mut corners: Vec<u32> = Vec::new();
    for row in 0..element.rows {
        corners.clear();
        let mut largest = 0u64;
        let mut bad = None;
        body.row(element, row, |number, _, value| {
            if number == list {
                match value.as_count() {
                    Some(index) => {
                        largest = largest.max(index);
                        corners.push(index.min(u64::from(u32::MAX)) as u32);
                    }
                    None => bad = Some(value),
                }
            }
            Ok(())
        })?;
        let place = body.place();
        if let Some(value) = bad {
            let found = format!("{value:?}");
            return Err(Fault::new(place, "a vertex number of 0 or more", found, "export the mesh again"));
        }
        if faces.largest.as_ref().is_none_or(|(l, _)| largest > *l) && !corners.is_empty() {
            faces.largest = Some((largest, place));
        }
        faces.triangles.extend((2..corners.len()).map(|i| [corners[0], corners[i - 1], corners[i]]));
    }
    Ok(())
}
