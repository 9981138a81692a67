//! NumPy arrays: the `.npy` format, versions 1 to 3.
//!
//! A reader of our own: the registry's crates ask for the element type at compile time or reserve what the header
//! promises; here the type is found in the file and the promise checked against the file's size first.

mod header;

use std::path::Path;

use crate::error::{Fault, Place};
use crate::read::read_bytes;
use crate::scalar::Column;
use crate::table::MAX_COLUMNS;
use crate::{Attribute, ReadError, WriteError};

pub(crate) use header::{MAGIC, RawArray};

/// An n-dimensional array of numbers, in C order (last index fastest).
///
/// `f2` is widened to f32, `i1` and `i2` to i32, `b1` to u8; 64-bit integers become 32-bit where all fit, else f64.
#[derive(Debug, Clone, PartialEq)]
pub struct NpyArray {
    /// Length along each axis; their product is the number of values.
    pub shape: Vec<usize>,
    /// The values; never the `Rgb` variant when read from a file.
    pub data: Attribute,
}

impl NpyArray {
    /// Parses the bytes of an `.npy` file.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, Fault> {
        RawArray::parse(bytes, &Place::File)?.to_array()
    }
}

/// Reads one array of numbers of any shape, C or Fortran order, little or big endian.
/// # Errors
/// [`ReadError`] when the file cannot be read, is no NPY file, is cut off, or holds other things than plain numbers.
pub fn read_npy_array(path: impl AsRef<Path>) -> Result<NpyArray, ReadError> {
    let path = path.as_ref();
    let bytes = read_bytes(path)?;
    NpyArray::from_bytes(&bytes).map_err(|fault| ReadError::Malformed {
        path: path.to_owned(),
        format: "NPY",
        fault: Box::new(fault),
    })
}

/// Writes one array; `Rgb` data adds a last axis of 3 to `shape`. Nothing partial stands under the final name, ever.
/// # Errors
/// [`WriteError`] when the shape's product is not the number of values, or the file cannot be written.
pub fn write_npy_array(path: impl AsRef<Path>, array: &NpyArray) -> Result<(), WriteError> {
    let path = path.as_ref();
    let n = array.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    if n != Some(array.data.len()) {
        return Err(WriteError::value(
            path,
            format!("as many values as shape {:?} has cells", array.shape),
            format!("{} values", array.data.len()),
            "give the array's true shape",
        ));
    }
    crate::write::atomic::write_file(path, |out| write_array(out, &array.shape, &array.data))
}

/// Columns of an array of rows: named ones of a structured array, or nameless ones of an (N,) or (N, C) array.
pub(crate) fn parse_columns(bytes: &[u8], place: &Place) -> Result<Vec<Column>, Fault> {
    RawArray::parse(bytes, place)?.columns(place)
}

impl RawArray<'_> {
    /// Splits rows into columns.
    pub(crate) fn columns(&self, place: &Place) -> Result<Vec<Column>, Fault> {
        let (rows, width) = match self.shape.as_slice() {
            [n] => (*n, 1),
            [n, c] if !self.structured => (*n, *c),
            shape => {
                return Err(Fault::new(
                    place.clone(),
                    "an array of N rows and C columns",
                    format!("shape {shape:?}"),
                    "save positions as an (N, 3) array",
                ));
            }
        };
        if width > MAX_COLUMNS || self.fields.len() > MAX_COLUMNS {
            let found = format!("{}", width.max(self.fields.len()));
            return Err(Fault::new(place.clone(), "at most 4096 columns", found, "save fewer columns"));
        }
        let mut columns = Vec::new();
        for c in 0..width {
            for field in &self.fields {
                let mut column = Column::new(field.name.clone(), field.scalar, rows);
                for r in 0..rows {
                    let cell = if self.fortran { c * rows + r } else { r * width + c };
                    let at = cell * self.item_bytes + field.offset;
                    column.push(field.scalar.read(&self.data[at..], field.big_endian));
                }
                columns.push(column);
            }
        }
        Ok(columns)
    }

    /// All values in C order.
    pub(crate) fn to_array(&self) -> Result<NpyArray, Fault> {
        let [field] = self.fields.as_slice() else {
            return Err(Fault::new(
                Place::File,
                "an array of plain numbers",
                "a structured array",
                "save its columns as arrays of their own",
            ));
        };
        let n: usize = self.data.len() / self.item_bytes;
        let mut column = Column::new("", field.scalar, n);
        let mut index = vec![0usize; self.shape.len()];
        for cell in 0..n {
            let cell = if self.fortran {
                // First index fastest: Horner from the last axis.
                index.iter().zip(&self.shape).rev().fold(0, |at, (i, d)| at * d + i)
            } else {
                cell
            };
            column.push(
                field.scalar.read(&self.data[cell * self.item_bytes + field.offset..], field.big_endian),
            );
            for (i, d) in index.iter_mut().zip(&self.shape).rev() {
                *i += 1;
                if *i < *d {
                    break;
                }
                *i = 0;
            }
        }
        Ok(NpyArray { shape: self.shape.clone(), data: column.into_attribute() })
    }
}

/// Writes an array in NPY version 1, little endian, C order.
pub(crate) fn write_array(
    out: &mut dyn std::io::Write,
    shape: &[usize],
    data: &Attribute,
) -> std::io::Result<()> {
    let (descr, colour): (&str, &[usize]) = match data {
        Attribute::U8(_) => ("|u1", &[]),
        Attribute::U16(_) => ("<u2", &[]),
        Attribute::U32(_) => ("<u4", &[]),
        Attribute::I32(_) => ("<i4", &[]),
        Attribute::F32(_) => ("<f4", &[]),
        Attribute::F64(_) => ("<f8", &[]),
        Attribute::Rgb(_) => ("|u1", &[3]),
    };
    let dims: Vec<String> = shape.iter().chain(colour).map(|d| format!("{d},")).collect();
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({}), }}", dims.join(" "));
    // Magic, version and length take 10 bytes; the data begins at a multiple of 64.
    let unpadded = 10 + text.len() + 1;
    text.extend(std::iter::repeat_n(' ', unpadded.next_multiple_of(64) - unpadded));
    text.push('\n');
    let length = u16::try_from(text.len())
        .map_err(|_| std::io::Error::new(std::io::ErrorKind::InvalidInput, "an array of too many axes"))?;
    out.write_all(MAGIC)?;
    out.write_all(&[1, 0])?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(text.as_bytes())?;
    match data {
        Attribute::U8(v) => out.write_all(v),
        Attribute::U16(v) => each(out, v, |x| x.to_le_bytes()),
        Attribute::U32(v) => each(out, v, |x| x.to_le_bytes()),
        Attribute::I32(v) => each(out, v, |x| x.to_le_bytes()),
        Attribute::F32(v) => each(out, v, |x| x.to_le_bytes()),
        Attribute::F64(v) => each(out, v, |x| x.to_le_bytes()),
        Attribute::Rgb(v) => each(out, v, |x| x),
    }
}

fn each<T: Copy, const N: usize>(
    out: &mut dyn std::io::Write,
    values: &[T],
    bytes: impl Fn(T) -> [u8; N],
) -> std::io::Result<()> {
    let mut block = Vec::with_capacity(4096 * N);
    for chunk in values.chunks(4096) {
        block.clear();
        chunk.iter().for_each(|&x| block.extend_from_slice(&bytes(x)));
        out.write_all(&block)?;
    }
    Ok(())
}
