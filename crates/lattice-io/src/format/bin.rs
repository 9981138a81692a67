//! Raw rows of little-endian float32: KITTI `.bin` (x y z intensity) and nuScenes `.pcd.bin` (... ring).

use crate::error::{Fault, Place};
use crate::read::{FormatReader, Input};
use crate::scalar::whole;
use crate::{Attribute, PointCloud, table};

/// Most columns the option `columns` may ask for.
pub(crate) const MAX_COLUMNS: usize = 256;

pub(crate) struct Bin;

impl FormatReader for Bin {
    fn name(&self) -> &'static str {
        "raw float32 (.bin)"
    }

    fn extensions(&self) -> &'static [&'static str] {
        &["bin"]
    }

    fn read(&self, input: &Input<'_>) -> Result<PointCloud, Fault> {
        let bytes = input.bytes.as_ref();
        let name =
            input.path.file_name().map(|n| n.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
        let by_name = if name.ends_with(".pcd.bin") { 5 } else { 4 };
        let columns = input.options.columns.unwrap_or(by_name);
        let row = 4 * columns;
        if !bytes.len().is_multiple_of(row) {
            return Err(Fault::new(
                Place::Byte((bytes.len() - bytes.len() % row) as u64),
                format!("rows of {columns} float32 = {row} bytes"),
                format!("{} bytes, {} left over", bytes.len(), bytes.len() % row),
                "say how many columns it has (`columns`), or copy the file again",
            ));
        }
        let value =
            |r: &[u8], c: usize| f32::from_le_bytes([r[4 * c], r[4 * c + 1], r[4 * c + 2], r[4 * c + 3]]);
        let rows = bytes.chunks_exact(row);
        let positions = rows.clone().map(|r| [0, 1, 2].map(|c| f64::from(value(r, c)))).collect();
        let mut cloud = PointCloud { positions, ..PointCloud::default() };
        for c in 3..columns {
            let values = rows.clone().map(|r| value(r, c));
            let (name, values) = match c {
                3 => ("intensity".to_owned(), Attribute::F32(values.collect())),
                4 => {
                    let rings = whole(values.clone().map(f64::from));
                    ("ring".to_owned(), rings.unwrap_or_else(|| Attribute::F32(values.collect())))
                }
                _ => (format!("column_{c}"), Attribute::F32(values.collect())),
            };
            cloud.attributes.insert(name, values);
        }
        table::finish(cloud, false)
    }
}
