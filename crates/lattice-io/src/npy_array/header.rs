//! The header of an NPY file: a Python dictionary of `descr`, `fortran_order` and `shape`.

use crate::error::{Fault, Place, quote};
use crate::scalar::Scalar;

/// First bytes of every NPY file.
pub(crate) const MAGIC: &[u8] = b"\x93NUMPY";

/// One number in each item of an array; a plain array has one nameless field.
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) scalar: Scalar,
    pub(crate) big_endian: bool,
    pub(crate) offset: usize,
}

/// An array as it lies in the file; `data` holds exactly `shape` items.
pub(crate) struct RawArray<'a> {
    pub(crate) fields: Vec<Field>,
    pub(crate) structured: bool,
    pub(crate) item_bytes: usize,
    pub(crate) shape: Vec<usize>,
    pub(crate) fortran: bool,
    pub(crate) data: &'a [u8],
}

/// A Python literal, as far as NPY headers use it.
#[derive(Debug, PartialEq)]
enum Literal {
    Text(String),
    Whole(u64),
    Flag(bool),
    /// A tuple or a list.
    Row(Vec<Literal>),
    Dict(Vec<(Literal, Literal)>),
}

const HELP: &str = "save it again with numpy.save";

impl<'a> RawArray<'a> {
    /// Parses the header and checks that the data is all there.
    pub(crate) fn parse(bytes: &'a [u8], place: &Place) -> Result<Self, Fault> {
        let wrong =
            |expected: &str, found: String| Fault::new(place.clone(), expected.to_owned(), found, HELP);
        if !bytes.starts_with(MAGIC) {
            let found = format!("{:02x?}", &bytes[..bytes.len().min(6)]);
            return Err(wrong("the first bytes `\\x93NUMPY`", found));
        }
        let (length, text_at) = match bytes.get(6..12) {
            Some([1, _, a, b, _, _]) => (u64::from(u16::from_le_bytes([*a, *b])), 10),
            Some([2 | 3, _, a, b, c, d]) => (u64::from(u32::from_le_bytes([*a, *b, *c, *d])), 12),
            Some([version, ..]) => return Err(wrong("NPY version 1, 2 or 3", version.to_string())),
            _ => return Err(Fault::truncated(bytes.len(), "an NPY header", "the end of the file")),
        };
        let rest = &bytes[text_at..];
        if length > rest.len() as u64 {
            let expected = format!("a header of {length} bytes");
            return Err(Fault::truncated(bytes.len(), expected, format!("{} bytes", rest.len())));
        }
        let (text, data) = rest.split_at(length as usize);
        let text = String::from_utf8_lossy(text);
        let mut parser = Parser { rest: text.trim() };
        let Some(Literal::Dict(entries)) = parser.literal(0) else {
            return Err(wrong("a dictionary of descr, fortran_order and shape", quote(&text)));
        };
        let entry =
            |name: &str| entries.iter().find(|(k, _)| *k == Literal::Text(name.into())).map(|(_, v)| v);
        let Some(Literal::Flag(fortran)) = entry("fortran_order") else {
            return Err(wrong("`fortran_order` True or False", quote(&text)));
        };
        let mut shape = Vec::new();
        match entry("shape") {
            Some(Literal::Row(dims)) if dims.len() <= 32 => {
                for dim in dims {
                    match dim {
                        Literal::Whole(d) if usize::try_from(*d).is_ok() => shape.push(*d as usize),
                        _ => return Err(wrong("`shape` of whole numbers", quote(&text))),
                    }
                }
            }
            _ => return Err(wrong("`shape` of 32 axes at most", quote(&text))),
        }
        let descr = entry("descr").ok_or_else(|| wrong("`descr`", quote(&text)))?;
        let (fields, item_bytes, structured) = fields(descr).ok_or_else(|| {
            wrong(
                "`descr` of numbers: b1, i1 to i8, u1 to u8, f2, f4, f8, or named fields of these",
                quote(&text),
            )
        })?;
        let n = shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d as u64));
        let needed = n.and_then(|n| n.checked_mul(item_bytes as u64));
        match needed {
            Some(needed) if needed <= data.len() as u64 => Ok(Self {
                fields,
                structured,
                item_bytes,
                shape,
                fortran: *fortran,
                data: &data[..needed as usize],
            }),
            _ => Err(Fault::truncated(
                bytes.len(),
                format!("{item_bytes} bytes for each item of shape {shape:?}"),
                format!("{} bytes of data", data.len()),
            )),
        }
    }
}

/// Fields, bytes of an item, and whether the fields have names.
fn fields(descr: &Literal) -> Option<(Vec<Field>, usize, bool)> {
    match descr {
        Literal::Text(code) => {
            let (scalar, big_endian, size) = scalar(code)?;
            let field = Field { name: String::new(), scalar: scalar?, big_endian, offset: 0 };
            Some((vec![field], size, false))
        }
        Literal::Row(rows) => {
            let (mut fields, mut offset) = (Vec::new(), 0usize);
            for row in rows {
                let Literal::Row(pair) = row else { return None };
                let [Literal::Text(name), Literal::Text(code)] = pair.as_slice() else { return None };
                let (scalar, big_endian, size) = scalar(code)?;
                if let Some(scalar) = scalar {
                    fields.push(Field { name: name.clone(), scalar, big_endian, offset });
                }
                offset = offset.checked_add(size)?;
            }
            (!fields.is_empty()).then_some((fields, offset, true))
        }
        _ => None,
    }
}

/// Type (`None` for padding), byte order and size of a code such as `<f4`.
fn scalar(code: &str) -> Option<(Option<Scalar>, bool, usize)> {
    let (big_endian, code) = match code.as_bytes().first()? {
        b'>' => (true, &code[1..]),
        b'<' | b'|' | b'=' => (false, &code[1..]),
        _ => (false, code),
    };
    let scalar = match code {
        "b1" | "u1" => Scalar::U8,
        "i1" => Scalar::I8,
        "u2" => Scalar::U16,
        "i2" => Scalar::I16,
        "u4" => Scalar::U32,
        "i4" => Scalar::I32,
        "u8" => Scalar::U64,
        "i8" => Scalar::I64,
        "f2" => Scalar::F16,
        "f4" => Scalar::F32,
        "f8" => Scalar::F64,
        _ => return code.strip_prefix('V')?.parse().ok().filter(|&n| n > 0).map(|n| (None, false, n)),
    };
    Some((Some(scalar), big_endian, scalar.size()))
}

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn take(&mut self, token: &str) -> bool {
        self.rest = self.rest.trim_start();
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// One literal; `depth` bounds the nesting, so that no text can exhaust the stack.
    fn literal(&mut self, depth: usize) -> Option<Literal> {
        if depth > 4 {
            return None;
        }
        for quote in ["'", "\""] {
            if self.take(quote) {
                let (text, rest) = self.rest.split_once(quote)?;
                let text = text.to_owned();
                self.rest = rest;
                return Some(Literal::Text(text));
            }
        }
        for (open, close) in [("(", ")"), ("[", "]")] {
            if self.take(open) {
                let mut items = Vec::new();
                while !self.take(close) {
                    items.push(self.literal(depth + 1)?);
                    if !self.take(",") {
                        return self.take(close).then_some(Literal::Row(items));
                    }
                }
                return Some(Literal::Row(items));
            }
        }
        if self.take("{") {
            let mut entries = Vec::new();
            while !self.take("}") {
                let key = self.literal(depth + 1)?;
                if !self.take(":") {
                    return None;
                }
                entries.push((key, self.literal(depth + 1)?));
                if !self.take(",") {
                    return self.take("}").then_some(Literal::Dict(entries));
                }
            }
            return Some(Literal::Dict(entries));
        }
        if self.take("True") {
            return Some(Literal::Flag(true));
        }
        if self.take("False") {
            return Some(Literal::Flag(false));
        }
        let end = self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len());
        let number = self.rest[..end].parse().ok()?;
        self.rest = &self.rest[end..];
        // Python 2 wrote long numbers with an L.
        self.take("L");
        Some(Literal::Whole(number))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn headers_of_old_and_new_numpy_parse() {
        let mut parser = Parser {
            rest: "{'descr': [('x', '<f4'), ('t', '|V4')], 'fortran_order': False, 'shape': (2L,)}",
        };
        let Literal::Dict(entries) = parser.literal(0).unwrap() else { panic!() };
        let (fields, size, structured) = fields(&entries[0].1).unwrap();
        assert_eq!((fields.len(), size, structured), (1, 8, true));
        assert_eq!(entries[2].1, Literal::Row(vec![Literal::Whole(2)]));
    }

    #[test]
    fn deep_nesting_is_refused() {
        assert_eq!(Parser { rest: &"(".repeat(100_000) }.literal(0), None);
    }
}
