//! A point cloud with named attributes.

use std::collections::BTreeMap;

use lattice_core::AttributeValues as Attribute;

/// Points with named attributes of equal length.
///
/// Positions are f64 in the unit of the file, with `origin` already subtracted: world position = `positions[i] + origin`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PointCloud {
    /// One position a point: x, y, z.
    pub positions: Vec<[f64; 3]>,
    /// What was subtracted from the file's coordinates; added back on writing.
    pub origin: [f64; 3],
    /// Values by name (`intensity`, `rgb`, `label`, `ring`, ...), each as long as `positions`.
    pub attributes: BTreeMap<String, Attribute>,
    /// Triangles of a mesh file, as point numbers; empty where the file has none.
    pub triangles: Vec<[u32; 3]>,
    /// Points of the file that were left out because a coordinate was not finite.
    pub dropped: usize,
}

impl PointCloud {
    /// Number of points.
    pub fn len(&self) -> usize {
        self.positions.len()
    }

    /// Whether there are no points.
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    /// Smallest and largest coordinate along each axis, origin not added; `None` without points.
    pub fn bounds(&self) -> Option<([f64; 3], [f64; 3])> {
        let first = *self.positions.first()?;
        Some(self.positions.iter().fold((first, first), |(mut lo, mut hi), p| {
            for a in 0..3 {
                lo[a] = lo[a].min(p[a]);
                hi[a] = hi[a].max(p[a]);
            }
            (lo, hi)
        }))
    }

    /// Position of point `row` in the coordinates of the file: `positions[row] + origin`.
    ///
    /// # Panics
    /// When `row` is not below `len()`.
    pub fn world(&self, row: usize) -> [f64; 3] {
        let [x, y, z] = self.positions[row];
        [x + self.origin[0], y + self.origin[1], z + self.origin[2]]
    }

    /// The given points with their attributes, in the given order, without triangles; same origin.
    ///
    /// # Panics
    /// When a row is not below `len()`.
    pub fn select(&self, rows: &[u32]) -> Self {
        Self {
            positions: rows.iter().map(|&r| self.positions[r as usize]).collect(),
            origin: self.origin,
            attributes: self.attributes.iter().map(|(name, v)| (name.clone(), v.select(rows))).collect(),
            triangles: Vec::new(),
            dropped: self.dropped,
        }
    }

    /// Removes points with a coordinate that is not finite, with their attributes and triangles; counts them in
    /// `dropped`.
    pub fn drop_non_finite(&mut self) {
        let finite = |p: &[f64; 3]| p.iter().all(|v| v.is_finite());
        if self.positions.iter().all(finite) {
            return;
        }
        const GONE: u32 = u32::MAX;
        let mut kept = Vec::new();
        let mut new_row = vec![GONE; self.positions.len()];
        for (row, p) in self.positions.iter().enumerate() {
            if finite(p) {
                new_row[row] = kept.len() as u32;
                kept.push(row as u32);
            }
        }
        let triangles = std::mem::take(&mut self.triangles)
            .into_iter()
            .map(|t| t.map(|i| new_row.get(i as usize).copied().unwrap_or(GONE)))
            .filter(|t| !t.contains(&GONE))
            .collect();
        let dropped = self.dropped + self.positions.len() - kept.len();
        *self = Self { triangles, dropped, ..self.select(&kept) };
    }
}
