//! The header of a PLY file.

use super::text::Lines;
use crate::error::{Fault, Place, quote};
use crate::scalar::Scalar;
use crate::table::MAX_COLUMNS;

/// How the body is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Ascii,
    LittleEndian,
    BigEndian,
}

/// One property of an element.
#[derive(Debug, Clone)]
pub(crate) struct Property {
    pub(crate) name: String,
    /// Type of the count of a list; `None` for a single value.
    pub(crate) count: Option<Scalar>,
    pub(crate) scalar: Scalar,
}

/// One element: a table of rows.
#[derive(Debug, Clone)]
pub(crate) struct Element {
    pub(crate) name: String,
    pub(crate) rows: u64,
    pub(crate) properties: Vec<Property>,
}

impl Element {
    /// Fewest bytes that one row takes in a body of the given encoding.
    pub(crate) fn min_row_bytes(&self, encoding: Encoding) -> u64 {
        let of = |p: &Property| match encoding {
            Encoding::Ascii => 2, // a digit and what parts it from the next
            _ => p.count.unwrap_or(p.scalar).size() as u64,
        };
        self.properties.iter().map(of).sum()
    }
}

/// The header, and where the body begins.
#[derive(Debug)]
pub(crate) struct Header {
    pub(crate) encoding: Encoding,
    pub(crate) elements: Vec<Element>,
    pub(crate) body_at: usize,
    pub(crate) lines: u64,
}

const HELP: &str = "export it again as PLY 1.0";

fn scalar(word: &str) -> Option<Scalar> {
    Some(match word {
        "char" | "int8" => Scalar::I8,
        "uchar" | "uint8" => Scalar::U8,
        "short" | "int16" => Scalar::I16,
        "ushort" | "uint16" => Scalar::U16,
        "int" | "int32" => Scalar::I32,
        "uint" | "uint32" => Scalar::U32,
        "int64" | "long" => Scalar::I64,
        "uint64" | "ulong" => Scalar::U64,
        "float" | "float32" => Scalar::F32,
        "double" | "float64" => Scalar::F64,
        _ => return None,
    })
}

/// Parses from the first byte to the end of the line `end_header`.
pub(crate) fn parse(bytes: &[u8]) -> Result<Header, Fault> {
    let mut lines = Lines::new(bytes);
    let mut encoding = None;
    let mut elements: Vec<Element> = Vec::new();
    let mut n_properties = 0;
    let magic = lines.next_text().unwrap_or_default();
    if magic.trim_end() != "ply" {
        return Err(Fault::new(
            Place::Line(1),
            "`ply`",
            quote(&magic),
            "this is not a PLY file: check its name",
        ));
    }
    loop {
        let Some(line) = lines.next_text() else {
            return Err(Fault::truncated(
                bytes.len(),
                "a line `end_header`",
                format!("the end of the file after {} lines", lines.number),
            ));
        };
        let at = Place::Line(lines.number);
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let wrong = |expected: &str, fix: &str| Fault::new(at.clone(), expected, quote(&line), fix);
        match words.as_slice() {
            [] | ["comment" | "obj_info", ..] => {}
            ["format", kind, _version] => {
                encoding = Some(match *kind {
                    "ascii" => Encoding::Ascii,
                    "binary_little_endian" => Encoding::LittleEndian,
                    "binary_big_endian" => Encoding::BigEndian,
                    _ => {
                        return Err(wrong("format ascii, binary_little_endian or binary_big_endian", HELP));
                    }
                });
            }
            ["element", name, count] => {
                let rows = count
                    .parse()
                    .map_err(|_| wrong("`element NAME COUNT` with a whole, positive COUNT", HELP))?;
                elements.push(Element { name: (*name).to_owned(), rows, properties: Vec::new() });
            }
            ["property", rest @ ..] => {
                let shape = "`property TYPE NAME` or `property list TYPE TYPE NAME`";
                let kind = |word| {
                    scalar(word).ok_or_else(|| wrong("a PLY number type, such as float or uchar", HELP))
                };
                let property = match rest {
                    ["list", count, value, name] => {
                        let count = kind(count)?;
                        if count.is_float() {
                            return Err(wrong("a whole number type for the count of a list", HELP));
                        }
                        Property { name: (*name).to_owned(), count: Some(count), scalar: kind(value)? }
                    }
                    [value, name] => Property { name: (*name).to_owned(), count: None, scalar: kind(value)? },
                    _ => return Err(wrong(shape, HELP)),
                };
                n_properties += 1;
                if n_properties > MAX_COLUMNS {
                    return Err(wrong("at most 4096 properties", "remove the ones that are not needed"));
                }
                match elements.last_mut() {
                    Some(element) => element.properties.push(property),
                    None => return Err(wrong("an `element` line before the first property", HELP)),
                }
            }
            ["end_header"] => break,
            _ => {
                return Err(wrong(
                    "a PLY header line (format, element, property, comment, end_header)",
                    HELP,
                ));
            }
        }
    }
    let Some(encoding) = encoding else {
        return Err(Fault::new(Place::Line(lines.number), "a `format` line in the header", "none", HELP));
    };
    Ok(Header { encoding, elements, body_at: lines.at, lines: lines.number })
}
