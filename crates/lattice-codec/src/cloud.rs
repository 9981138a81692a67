//! What is compressed: voxels in canonical order with their counts and attributes.

use lattice_core::{AttributeValues as Values, Coord, canonical_cmp, canonical_order};

use crate::error::{CodecError, Result};

/// Where voxels lie: voxel `v` is the cube from `origin + v · voxel_size` to `origin + (v + 1) · voxel_size`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grid {
    /// Edge of a voxel, in the unit of the scan.
    pub voxel_size: f64,
    /// Position of the low corner of voxel `(0, 0, 0)`, in the coordinates of the file.
    pub origin: [f64; 3],
}

impl Grid {
    /// Centre of a voxel from the origin: `(v + 0.5) · voxel_size`. Every point of the voxel is within half a voxel of it along each axis.
    #[inline]
    pub fn centre(&self, voxel: [i32; 3]) -> [f64; 3] {
        voxel.map(|v| (f64::from(v) + 0.5) * self.voxel_size)
    }

    pub(crate) fn check(&self, op: &'static str) -> Result<()> {
        if self.voxel_size.is_finite() && self.voxel_size > 0.0 && self.origin.iter().all(|o| o.is_finite()) {
            return Ok(());
        }
        let found = format!("size {} and origin {:?}", self.voxel_size, self.origin);
        Err(CodecError::value(
            op,
            "a finite voxel size above 0 and a finite origin",
            found,
            "give a length in the scan's unit",
        ))
    }
}

/// A named attribute.
#[derive(Clone, Debug, PartialEq)]
pub struct Attribute {
    /// Its name: 1 to 255 bytes.
    pub name: String,
    /// Its values.
    pub values: Values,
}

/// Distinct voxels in canonical order, with what is known of each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VoxelCloud {
    /// Voxels, as [`canonical_cmp`] orders them.
    pub voxels: Vec<[i32; 3]>,
    /// Points in each voxel, 1 or more; `None` where they are not kept.
    pub counts: Option<Vec<u32>>,
    /// Attributes, each with one value a voxel.
    pub attributes: Vec<Attribute>,
}

/// The voxels that points fall into.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Occupied {
    /// Distinct voxels in canonical order.
    pub voxels: Vec<[i32; 3]>,
    /// The first point of each voxel, in the order of the points.
    pub first_point: Vec<u32>,
    /// Points in each voxel.
    pub counts: Vec<u32>,
}

impl Occupied {
    /// Sorts the cells of points, `[0, x, y, z]` each, and merges equal ones. Time: linear.
    ///
    /// # Errors
    /// [`CodecError::Value`] for 2^32 points or more, or a batch id other than 0.
    pub fn of(cells: &[Coord]) -> Result<Self> {
        const OP: &str = "compress";
        if u32::try_from(cells.len()).is_err() {
            return Err(CodecError::value(
                OP,
                "fewer than 2^32 points",
                cells.len().to_string(),
                "split the scan",
            ));
        }
        if let Some(cell) = cells.iter().find(|c| c[0] != 0) {
            return Err(CodecError::value(
                OP,
                "batch id 0",
                cell[0].to_string(),
                "compress each item on its own",
            ));
        }
        let mut found = Self::default();
        for row in canonical_order(cells) {
            let [_, x, y, z] = cells[row as usize];
            match found.counts.last_mut() {
                Some(count) if found.voxels.last() == Some(&[x, y, z]) => *count += 1,
                _ => {
                    found.voxels.push([x, y, z]);
                    found.first_point.push(row);
                    found.counts.push(1);
                }
            }
        }
        Ok(found)
    }
}

impl VoxelCloud {
    /// Adds the next voxels of the same stream.
    pub(crate) fn append(&mut self, more: Self) {
        self.voxels.extend(more.voxels);
        if let (Some(all), Some(more)) = (&mut self.counts, more.counts) {
            all.extend(more);
        }
        for (all, more) in self.attributes.iter_mut().zip(more.attributes) {
            let appended = all.values.try_append(more.values);
            debug_assert!(appended.is_ok(), "one stream has one type for an attribute");
        }
    }

    /// Lengths, order and counts.
    pub(crate) fn check(&self, op: &'static str) -> Result<()> {
        let n = self.voxels.len();
        let coord = |[x, y, z]: [i32; 3]| [0, x, y, z];
        if let Some(at) =
            self.voxels.windows(2).position(|w| canonical_cmp(&coord(w[0]), &coord(w[1])).is_ge())
        {
            let found = format!("{:?} before {:?} at row {at}", self.voxels[at], self.voxels[at + 1]);
            return Err(CodecError::value(
                op,
                "distinct voxels in canonical order",
                found,
                "sort them with Occupied::of",
            ));
        }
        let lengths = self.attributes.iter().map(|a| (a.name.as_str(), a.values.len()));
        let counts = self.counts.iter().map(|c| ("the counts", c.len()));
        for (name, len) in lengths.chain(counts) {
            if len != n {
                let expected = format!("{n} values of {name}, one a voxel");
                return Err(CodecError::value(op, expected, len.to_string(), "give every voxel a value"));
            }
        }
        if let Some(row) = self.counts.iter().flatten().position(|&c| c == 0) {
            return Err(CodecError::value(
                op,
                "1 point or more in every voxel",
                format!("0 at row {row}"),
                "leave empty voxels out",
            ));
        }
        if self.attributes.len() > MAX_ATTRIBUTES {
            let found = self.attributes.len().to_string();
            return Err(CodecError::value(
                op,
                "at most 1024 attributes",
                found,
                "name the attributes to keep",
            ));
        }
        for (k, a) in self.attributes.iter().enumerate() {
            let again = self.attributes[..k].iter().any(|b| b.name == a.name);
            if a.name.is_empty() || a.name.len() > 255 || again {
                let found =
                    if again { format!("`{}` twice", a.name) } else { format!("{} bytes", a.name.len()) };
                return Err(CodecError::value(
                    op,
                    "attribute names of 1 to 255 bytes, each once",
                    found,
                    "rename the attribute",
                ));
            }
        }
        Ok(())
    }
}

/// Most attributes a stream can hold.
pub(crate) const MAX_ATTRIBUTES: usize = 1024;
