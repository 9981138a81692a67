//! Values that scans carry beside positions.

/// Values of one attribute, one a point or voxel: what scans carry beside positions, in files, streams and memory.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "each variant is named for its element type")]
pub enum AttributeValues {
    U8(Vec<u8>),
    U16(Vec<u16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    /// Red, green, blue.
    Rgb(Vec<[u8; 3]>),
}

impl AttributeValues {
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
    /// Adds values of the same type.
    ///
    /// # Errors
    /// Values of another type, which come back; nothing was added.
    pub fn try_append(&mut self, more: Self) -> Result<(), Self> {
        match (self, more) {
            (Self::U8(all), Self::U8(more)) => all.extend(more),
            (Self::U16(all), Self::U16(more)) => all.extend(more),
            (Self::U32(all), Self::U32(more)) => all.extend(more),
            (Self::I32(all), Self::I32(more)) => all.extend(more),
            (Self::F32(all), Self::F32(more)) => all.extend(more),
            (Self::F64(all), Self::F64(more)) => all.extend(more),
            (Self::Rgb(all), Self::Rgb(more)) => all.extend(more),
            (_, more) => return Err(more),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_chosen_and_put_together() {
        let mut all = AttributeValues::Rgb(vec![[1, 2, 3], [255, 255, 255]]);
        assert_eq!((all.len(), all.is_empty(), all.get(1).round()), (2, false, 255.0));
        assert_eq!(all.select(&[1, 0, 1]).get(0), all.get(1));
        assert_eq!(all.try_append(AttributeValues::Rgb(vec![[7; 3]])), Ok(()));
        assert_eq!(all.len(), 3);
        let other = AttributeValues::F32(vec![0.5]);
        assert_eq!(all.try_append(other.clone()), Err(other));
        assert_eq!(all.len(), 3);
    }
}
