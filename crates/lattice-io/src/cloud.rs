//! A point cloud with named attributes.

use std::collections::BTreeMap;

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

/// Values of one attribute, one a point.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each variant is named for its element type")]
pub enum Attribute {
    U8(Vec<u8>),
    U16(Vec<u16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    /// Red, green, blue.
    Rgb(Vec<[u8; 3]>),
}

impl Attribute {
    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Self::U8(v) => v.len(),
            Self::U16(v) => v.len(),
            Self::U32(v) => v.len(),
            Self::I32(v) => v.len(),
            Self::F32(v) => v.len(),
            Self::F64(v) => v.len(),
            Self::Rgb(v) => v.len(),
        }
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value of point `row` as f64; a colour gives its brightness, 0..=255.
    ///
    /// # Panics
    /// When `row` is not below `len()`.
    pub fn get(&self, row: usize) -> f64 {
        match self {
            Self::U8(v) => f64::from(v[row]),
            Self::U16(v) => f64::from(v[row]),
            Self::U32(v) => f64::from(v[row]),
            Self::I32(v) => f64::from(v[row]),
            Self::F32(v) => f64::from(v[row]),
            Self::F64(v) => v[row],
            Self::Rgb(v) => {
                let [r, g, b] = v[row].map(f64::from);
                0.299 * r + 0.587 * g + 0.114 * b
            }
        }
    }

    /// The values of the given points, in their order.
    ///
    /// # Panics
    /// When a row is not below `len()`.
    pub fn select(&self, rows: &[u32]) -> Self {
        fn pick<T: Copy>(values: &[T], rows: &[u32]) -> Vec<T> {
            rows.iter().map(|&r| values[r as usize]).collect()
        }
        match self {
            Self::U8(v) => Self::U8(pick(v, rows)),
            Self::U16(v) => Self::U16(pick(v, rows)),
            Self::U32(v) => Self::U32(pick(v, rows)),
            Self::I32(v) => Self::I32(pick(v, rows)),
            Self::F32(v) => Self::F32(pick(v, rows)),
            Self::F64(v) => Self::F64(pick(v, rows)),
            Self::Rgb(v) => Self::Rgb(pick(v, rows)),
        }
    }
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
