//! Choosing a format and reading a file.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Fault, Place};
use crate::format::{bin, las, npy, npz, pcd, ply, xyz};
use crate::{Attribute, PointCloud, ReadError};

/// A point file format that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// Stanford polygon file, ascii or binary.
    Ply,
    /// Point Cloud Library, ascii, binary or binary_compressed.
    Pcd,
    /// ASPRS LAS and its compressed form LAZ.
    Las,
    /// Raw little-endian float32 rows (KITTI, nuScenes).
    Bin,
    /// One NumPy array.
    Npy,
    /// A NumPy archive.
    Npz,
    /// Text: x y z and more, one point a line.
    Xyz,
}

/// What every format offers: bytes in, cloud out.
pub(crate) trait FormatReader: Sync {
    /// Name for messages.
    fn name(&self) -> &'static str;
    /// Extensions, lower case, without the dot.
    fn extensions(&self) -> &'static [&'static str];
    /// Whether a file that begins so is surely of this format.
    fn sniff(&self, _head: &[u8]) -> bool {
        false
    }
    /// Reads a whole file. Never panics; allocates no more than a fixed multiple of the file's (unpacked) size.
    fn read(&self, input: &Input<'_>) -> Result<PointCloud, Fault>;
}

/// Every format, in the order in which first bytes are tried.
const FORMATS: [(Format, &dyn FormatReader); 7] = [
    (Format::Ply, &ply::Ply),
    (Format::Pcd, &pcd::Pcd),
    (Format::Las, &las::Las),
    (Format::Npy, &npy::Npy),
    (Format::Npz, &npz::Npz),
    (Format::Bin, &bin::Bin),
    (Format::Xyz, &xyz::Xyz),
];

const EXTENSIONS: &str = ".ply .pcd .las .laz .bin .npy .npz .xyz .txt .csv .asc .pts";

impl Format {
    fn reader(self) -> &'static dyn FormatReader {
        // Every variant stands in the table; the test `every_format_has_a_reader` walks it.
        FORMATS.iter().find(|(f, _)| *f == self).map_or(&xyz::Xyz, |(_, r)| *r)
    }

    /// The format that the extension of `path` names, upper or lower case.
    pub fn from_path(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        FORMATS.iter().find(|(_, r)| r.extensions().contains(&extension.as_str())).map(|(f, _)| *f)
    }

    /// The format that the first bytes of a file name; `None` for formats without a mark of their own.
    pub fn from_head(head: &[u8]) -> Option<Self> {
        FORMATS.iter().find(|(_, r)| r.sniff(head)).map(|(f, _)| *f)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reader().name())
    }
}

/// How to read; the default suits files with a telling extension.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ReadOptions {
    /// The format, where the extension does not tell.
    pub format: Option<Format>,
    /// Columns of a `.bin` file: 5 for `.pcd.bin`, else 4, unless given here.
    pub columns: Option<usize>,
    /// A file with one label a point: SemanticKITTI `.label` (low half of each u32: class, high half: instance) or `.npy`.
    /// Becomes the attributes `label` and, for `.label`, `instance`.
    pub labels: Option<PathBuf>,
}

impl ReadOptions {
    /// Names the format instead of leaving it to the extension.
    pub fn with_format(mut self, format: Format) -> Self {
        self.format = Some(format);
        self
    }

    /// Says how many float32 columns a `.bin` file has.
    pub fn with_columns(mut self, columns: usize) -> Self {
        self.columns = Some(columns);
        self
    }

    /// Reads labels from a side file.
    pub fn with_labels(mut self, path: impl Into<PathBuf>) -> Self {
        self.labels = Some(path.into());
        self
    }
}

/// A file in memory, and how to read it.
pub(crate) struct Input<'a> {
    pub(crate) path: &'a Path,
    pub(crate) bytes: SharedBytes,
    pub(crate) options: &'a ReadOptions,
}

/// Bytes that a decoder may keep for as long as it lives.
#[derive(Clone)]
pub(crate) struct SharedBytes(Arc<Vec<u8>>);

impl AsRef<[u8]> for SharedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Reads a point cloud; the extension says the format, or for an unknown one the first bytes, or `options.format`.
///
/// Positions come as f64 in the unit of the file. LAS/LAZ files and mesh files (a PLY with faces) have their minimum corner
/// subtracted, reported as `origin`; others keep their coordinates and have origin 0. Points with a coordinate that is
/// not finite are left out, with their attributes and their triangles, and counted in `dropped`. Triples of red, green
/// and blue, and packed colours, become one attribute `rgb`.
///
/// Cost: the file is read into memory whole; what is allocated beyond it is bounded by the file's real size, whatever
/// its header says.
/// # Errors
/// [`ReadError`]: names the file, the place (line or byte), what was expected, what was found, and the fix.
pub fn read(path: impl AsRef<Path>, options: &ReadOptions) -> Result<PointCloud, ReadError> {
    let path = path.as_ref();
    let bytes = read_bytes(path)?;
    let mut cloud = parse(path, bytes, options)?;
    if let Some(side) = &options.labels {
        add_labels(&mut cloud, side)?;
    }
    Ok(cloud)
}

/// Reads a cloud from the bytes of a file; `name` stands for the file in messages and tells the format by its extension.
/// # Errors
/// As [`read`].
pub fn read_from_bytes(
    name: impl AsRef<Path>,
    bytes: Vec<u8>,
    options: &ReadOptions,
) -> Result<PointCloud, ReadError> {
    parse(name.as_ref(), bytes, options)
}

/// The file's content; a folder, a device or nothing at all is an error.
pub(crate) fn read_bytes(path: &Path) -> Result<Vec<u8>, ReadError> {
    let meta = std::fs::metadata(path).map_err(|e| ReadError::from_io(path, e))?;
    let refuse = |found: &str, fix: &'static str| ReadError::Open {
        path: path.to_owned(),
        found: found.to_owned(),
        fix,
        source: None,
    };
    if meta.is_dir() {
        return Err(refuse("a folder", "name a file in it"));
    }
    if !meta.is_file() {
        return Err(refuse("a device or a pipe", "copy it into a file first"));
    }
    std::fs::read(path).map_err(|e| ReadError::from_io(path, e))
}

fn parse(path: &Path, bytes: Vec<u8>, options: &ReadOptions) -> Result<PointCloud, ReadError> {
    let format = options.format.or_else(|| Format::from_path(path)).or_else(|| Format::from_head(&bytes));
    let Some(format) = format else {
        let found = match path.extension() {
            Some(e) => format!("`.{}`", e.to_string_lossy()),
            None => "no extension".to_owned(),
        };
        return Err(ReadError::UnknownFormat { path: path.to_owned(), expected: EXTENSIONS, found });
    };
    let malformed = |fault: Fault| ReadError::Malformed {
        path: path.to_owned(),
        format: format.reader().name(),
        fault: Box::new(fault),
    };
    if options.columns.is_some_and(|c| !(3..=bin::MAX_COLUMNS).contains(&c)) {
        return Err(ReadError::Option {
            path: path.to_owned(),
            option: "columns",
            expected: format!("3 to {}", bin::MAX_COLUMNS),
            found: options.columns.map_or_else(String::new, |c| c.to_string()),
        });
    }
    if bytes.is_empty() {
        return Err(malformed(Fault::new(
            Place::File,
            "points",
            "an empty file (0 bytes)",
            "copy or export it again",
        )));
    }
    // Raw rows and text have no mark of their own: any other format's bytes behind their names are a mistake.
    let seen = Format::from_head(&bytes);
    if let Some(seen) = seen.filter(|s| *s != format && format == Format::Xyz) {
        return Err(malformed(Fault::new(
            Place::Byte(0),
            "text",
            format!("a {seen} file"),
            "rename it to its true extension or name its format",
        )));
    }
    let input = Input { path, bytes: SharedBytes(Arc::new(bytes)), options };
    format.reader().read(&input).map_err(malformed)
}

/// Reads labels of a side file and adds them to `cloud`.
fn add_labels(cloud: &mut PointCloud, side: &Path) -> Result<(), ReadError> {
    let bytes = read_bytes(side)?;
    let malformed = |fault: Fault| ReadError::Malformed {
        path: side.to_owned(),
        format: "labels",
        fault: Box::new(fault),
    };
    let stored = cloud.len() + cloud.dropped;
    let extension = side.extension().and_then(|e| e.to_str()).unwrap_or("").to_ascii_lowercase();
    let mut columns = if extension == "npy" {
        vec![("label", npy::labels(&bytes).map_err(malformed)?)]
    } else {
        if bytes.len() % 4 != 0 {
            return Err(malformed(Fault::new(
                Place::Byte(bytes.len() as u64),
                "4 bytes a point",
                format!("{} bytes", bytes.len()),
                "name a SemanticKITTI .label file or an .npy file",
            )));
        }
        let raw = bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        vec![
            ("label", Attribute::U16(raw.clone().map(|v| v as u16).collect())),
            ("instance", Attribute::U16(raw.map(|v| (v >> 16) as u16).collect())),
        ]
    };
    for (name, values) in columns.drain(..) {
        if values.len() != stored || cloud.dropped > 0 && values.len() != cloud.len() {
            return Err(malformed(Fault::new(
                Place::File,
                format!("one label for each of the {stored} points (and no point dropped)"),
                format!("{} labels, {} points dropped", values.len(), cloud.dropped),
                "name the labels that belong to this scan",
            )));
        }
        cloud.attributes.insert(name.to_owned(), values);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn every_format_has_a_reader() {
        for (format, reader) in FORMATS {
            assert_eq!(format.to_string(), reader.name());
            for extension in reader.extensions() {
                assert_eq!(
                    Format::from_path(Path::new(&format!("a.{}", extension.to_uppercase()))),
                    Some(format)
                );
                assert!(EXTENSIONS.contains(extension), "{extension}");
            }
        }
    }
}
