//! NPY and NPZ files.

use std::io;
use std::path::Path;

use zip::write::SimpleFileOptions;

use super::{atomic, check, fits_f32};
use crate::npy_array::write_array;
use crate::{Attribute, PointCloud, WriteError};

/// Coordinates, origin added back, as one row after the other: float32 where that holds all of them exactly, else float64.
fn coordinates(cloud: &PointCloud) -> Attribute {
    let all = (0..cloud.len()).flat_map(|i| cloud.world(i));
    if fits_f32(cloud) {
        Attribute::F32(all.map(|v| v as f32).collect())
    } else {
        Attribute::F64(all.collect())
    }
}

/// Writes the positions alone as an (N, 3) array, with the origin added back; attributes are left out.
/// # Errors
/// [`WriteError`]; nothing partial stands under `path` then.
pub fn write_npy(path: impl AsRef<Path>, cloud: &PointCloud) -> Result<(), WriteError> {
    atomic::write_file(path.as_ref(), |out| write_array(out, &[cloud.len(), 3], &coordinates(cloud)))
}

/// Writes positions (`xyz`, origin added back), attributes under their names and `triangles` into a compressed archive.
///
/// The same cloud gives the same bytes. Read in Python by `numpy.load`.
/// # Errors
/// [`WriteError`]; nothing partial stands under `path` then.
pub fn write_npz(path: impl AsRef<Path>, cloud: &PointCloud) -> Result<(), WriteError> {
    let path = path.as_ref();
    check(path, cloud)?;
    atomic::write_file(path, |out| {
        let mut archive = zip::ZipWriter::new(out);
        let mut add = |name: &str, shape: &[usize], data: &Attribute| -> io::Result<()> {
            // No time of day: the default is 1980-01-01.
            let options = SimpleFileOptions::DEFAULT
                .compression_method(zip::CompressionMethod::Deflated)
                .large_file(data.len() > 100_000_000);
            archive.start_file(format!("{name}.npy"), options).map_err(io::Error::from)?;
            write_array(&mut archive, shape, data)
        };
        add("xyz", &[cloud.len(), 3], &coordinates(cloud))?;
        for (name, values) in &cloud.attributes {
            add(name, &[cloud.len()], values)?;
        }
        if !cloud.triangles.is_empty() {
            let corners = cloud.triangles.iter().flatten().copied().collect();
            add("triangles", &[cloud.triangles.len(), 3], &Attribute::U32(corners))?;
        }
        archive.finish().map_err(io::Error::from)?;
        Ok(())
    })
}
