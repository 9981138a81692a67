//! PLY files.

use std::io::{self, Write};
use std::path::Path;

use super::{atomic, check, fits_f32};
use crate::{Attribute, PointCloud, WriteError};

/// How the body of a PLY file is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PlyFormat {
    /// Text; numbers are written so that reading gives the same bits.
    Ascii,
    /// Binary, little endian: the smallest and fastest.
    #[default]
    BinaryLittleEndian,
    /// Binary, big endian.
    BinaryBigEndian,
}

/// Writes points, attributes and triangles, with the origin added back.
///
/// Coordinates are `float` where float32 holds all of them exactly, else `double`; `rgb` becomes `red`, `green`, `blue`.
/// # Errors
/// [`WriteError`]; nothing partial stands under `path` then.
pub fn write_ply(path: impl AsRef<Path>, cloud: &PointCloud, format: PlyFormat) -> Result<(), WriteError> {
    let path = path.as_ref();
    check(path, cloud)?;
    atomic::write_file(path, |out| write(out, cloud, format))
}

fn write(out: &mut dyn Write, cloud: &PointCloud, format: PlyFormat) -> io::Result<()> {
    let double = !fits_f32(cloud);
    let kind = if double { "double" } else { "float" };
    let encoding = match format {
        PlyFormat::Ascii => "ascii",
        PlyFormat::BinaryLittleEndian => "binary_little_endian",
        PlyFormat::BinaryBigEndian => "binary_big_endian",
    };
    writeln!(out, "ply\nformat {encoding} 1.0\nelement vertex {}", cloud.len())?;
    for axis in ["x", "y", "z"] {
        writeln!(out, "property {kind} {axis}")?;
    }
    for (name, values) in &cloud.attributes {
        let kind = match values {
            Attribute::U8(_) => "uchar",
            Attribute::U16(_) => "ushort",
            Attribute::U32(_) => "uint",
            Attribute::I32(_) => "int",
            Attribute::F32(_) => "float",
            Attribute::F64(_) => "double",
            Attribute::Rgb(_) => {
                // One colour is the usual triple; further ones carry their name.
                let prefix = if name == "rgb" { String::new() } else { format!("{name}_") };
                for channel in ["red", "green", "blue"] {
                    writeln!(out, "property uchar {prefix}{channel}")?;
                }
                continue;
            }
        };
        writeln!(out, "property {kind} {name}")?;
    }
    if !cloud.triangles.is_empty() {
        writeln!(out, "element face {}\nproperty list uchar uint vertex_indices", cloud.triangles.len())?;
    }
    writeln!(out, "end_header")?;
    let mut row = Row { format, bytes: Vec::new() };
    for i in 0..cloud.len() {
        for v in cloud.world(i) {
            if double { row.f64(v) } else { row.f32(v as f32) }
        }
        for values in cloud.attributes.values() {
            match values {
                Attribute::U8(v) => row.u8(v[i]),
                Attribute::U16(v) => row.put(v[i], v[i].to_le_bytes()),
                Attribute::U32(v) => row.u32(v[i]),
                Attribute::I32(v) => row.put(v[i], v[i].to_le_bytes()),
                Attribute::F32(v) => row.f32(v[i]),
                Attribute::F64(v) => row.f64(v[i]),
                Attribute::Rgb(v) => v[i].into_iter().for_each(|c| row.u8(c)),
            }
        }
        row.end(out)?;
    }
    for triangle in &cloud.triangles {
        row.u8(3);
        triangle.iter().for_each(|&corner| row.u32(corner));
        row.end(out)?;
    }
    Ok(())
}

/// One row in the making.
struct Row {
    format: PlyFormat,
    bytes: Vec<u8>,
}

impl Row {
    fn put<T: std::fmt::Display, const N: usize>(&mut self, value: T, mut le: [u8; N]) {
        match self.format {
            // Writing into a vector cannot fail.
            PlyFormat::Ascii => {
                let _ = write!(self.bytes, "{value} ");
            }
            PlyFormat::BinaryLittleEndian => self.bytes.extend_from_slice(&le),
            PlyFormat::BinaryBigEndian => {
                le.reverse();
                self.bytes.extend_from_slice(&le);
            }
        }
    }

    fn u8(&mut self, v: u8) {
        self.put(v, [v]);
    }

    fn u32(&mut self, v: u32) {
        self.put(v, v.to_le_bytes());
    }

    fn f32(&mut self, v: f32) {
        self.put(v, v.to_le_bytes());
    }

    fn f64(&mut self, v: f64) {
        self.put(v, v.to_le_bytes());
    }

    fn end(&mut self, out: &mut dyn Write) -> io::Result<()> {
        if self.format == PlyFormat::Ascii
            && let Some(last) = self.bytes.last_mut()
        {
            *last = b'\n';
        }
        out.write_all(&self.bytes)?;
        self.bytes.clear();
        Ok(())
    }
}
