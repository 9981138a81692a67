//! Writing clouds: PLY, NPY, NPZ. Every file is complete under its final name, or not there.

pub(crate) mod atomic;
mod npz;
mod ply;

use std::io::Write;
use std::path::Path;

pub use npz::{write_npy, write_npz};
pub use ply::{PlyFormat, write_ply};

use crate::{PointCloud, WriteError};

/// Writes a text, such as a report; nothing partial stands under `path`, ever.
/// # Errors
/// [`WriteError`] when the file cannot be written.
pub fn write_text(path: impl AsRef<Path>, text: &str) -> Result<(), WriteError> {
    write_bytes(path, text.as_bytes())
}

/// Writes a file of another format, such as weights; nothing partial stands under `path`, ever.
/// # Errors
/// [`WriteError`] when the file cannot be written.
pub fn write_bytes(path: impl AsRef<Path>, bytes: &[u8]) -> Result<(), WriteError> {
    atomic::write_file(path.as_ref(), |out| out.write_all(bytes))
}

/// Attributes must be as long as the cloud, with names that every format can hold; triangles must name its points.
fn check(path: &Path, cloud: &PointCloud) -> Result<(), WriteError> {
    for (name, values) in &cloud.attributes {
        if values.len() != cloud.len() {
            return Err(WriteError::value(
                path,
                format!("{} values of `{name}`, one a point", cloud.len()),
                format!("{}", values.len()),
                "give every point a value or remove the attribute",
            ));
        }
        let reserved = ["x", "y", "z", "xyz", "triangles"].iter().any(|r| name.eq_ignore_ascii_case(r));
        if reserved
            || name.is_empty()
            || !name.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b'\\')
        {
            return Err(WriteError::value(
                path,
                "attribute names of visible ASCII letters, other than x, y, z, xyz and triangles",
                format!("{name:?}"),
                "rename the attribute",
            ));
        }
    }
    match cloud.triangles.iter().flatten().find(|&&i| i as usize >= cloud.len()) {
        Some(i) => Err(WriteError::value(
            path,
            format!("triangles of points below {}", cloud.len()),
            format!("point {i}"),
            "remove the triangle",
        )),
        None => Ok(()),
    }
}

/// Whether float32 holds every coordinate, origin added, exactly.
fn fits_f32(cloud: &PointCloud) -> bool {
    (0..cloud.len()).all(|i| cloud.world(i).iter().all(|&v| f64::from(v as f32) == v))
}
