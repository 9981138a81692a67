//! The pairs of a relation, grouped by tap, and how they are cut.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use lattice_core::{Error, Relation, Result};

use crate::gpu::{Buffer, Gpu};

/// The pairs of a relation on the device, grouped by tap, in ascending order of the output rows.
///
/// # Layout
/// Pairs of tap `t` stand at `splits[t]..splits[t + 1]` of both row buffers; the splits stay on the host. Memory: 8 bytes a pair.
#[derive(Clone, Debug)]
pub struct DevicePairs {
    pub(crate) in_rows: Buffer,
    pub(crate) out_rows: Buffer,
    pub(crate) splits: Vec<usize>,
    cuts: Cuts,
    n_in: usize,
    n_out: usize,
}

/// Cuts of one list of pairs that were made, by the length of their segments.
type Cuts = Arc<Mutex<HashMap<usize, Arc<Cut>>>>;

/// Segments on the device.
#[derive(Debug)]
pub(crate) struct Cut {
    pub(crate) bounds: Buffer,
    pub(crate) of_tap: Buffer,
    pub(crate) n_segments: usize,
}

impl Cut {
    /// Cuts pairs with these splits and copies the bounds to the device.
    pub(crate) fn upload(gpu: &Gpu, splits: &[usize], length: usize) -> Self {
        let segments = Segments::cut(splits, length);
        Self {
            bounds: gpu.upload(segments.bounds.as_flattened()),
            of_tap: gpu.upload(&segments.of_tap),
            n_segments: segments.bounds.len(),
        }
    }
}

impl DevicePairs {
    /// Copies the pairs of a relation to the device.
    ///
    /// # Errors
    /// [`Error::Limit`] for a relation of 2^32 pairs or more.
    pub fn from_host(gpu: &Gpu, relation: &Relation) -> Result<Self> {
        let n = relation.n_pairs();
        let Ok(_) = u32::try_from(n) else {
            let what = format!("expected fewer than 2^32 pairs, found {n}; split the batch");
            return Err(Error::Limit { op: "DevicePairs::from_host", what });
        };
        let view = relation.by_tap();
        Ok(Self {
            in_rows: gpu.upload(&view.in_rows),
            out_rows: gpu.upload(&view.out_rows),
            splits: view.splits.clone(),
            cuts: Cuts::default(),
            n_in: relation.n_in(),
            n_out: relation.n_out(),
        })
    }

    /// The pairs cut into segments of at most `length`, found once for each length.
    pub(crate) fn cut(&self, gpu: &Gpu, length: usize) -> Arc<Cut> {
        let mut cuts = self.cuts.lock().unwrap_or_else(PoisonError::into_inner);
        cuts.entry(length).or_insert_with(|| Arc::new(Cut::upload(gpu, &self.splits, length))).clone()
    }

    /// Number of taps.
    pub fn taps(&self) -> usize {
        self.splits.len() - 1
    }

    /// Input rows.
    pub fn n_in(&self) -> usize {
        self.n_in
    }

    /// Output rows.
    pub fn n_out(&self) -> usize {
        self.n_out
    }

    /// Pairs over all taps.
    pub fn n_pairs(&self) -> usize {
        self.in_rows.len
    }

    /// Bytes of all tables.
    pub fn bytes(&self) -> usize {
        4 * (self.in_rows.len + self.out_rows.len) + size_of_val(self.splits.as_slice())
    }
}

/// Pairs cut into segments, none of which spans two taps.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Segments {
    /// First and last but one pair of each segment.
    pub(crate) bounds: Vec<[u32; 2]>,
    /// Bounds of the segments of each tap.
    pub(crate) of_tap: Vec<u32>,
}

impl Segments {
    /// Segments of at most `length` pairs; those of a tap are about equally long.
    pub(crate) fn cut(splits: &[usize], length: usize) -> Self {
        let mut segments = Self { bounds: Vec::new(), of_tap: vec![0] };
        for tap in splits.windows(2) {
            let (start, n) = (tap[0], tap[1] - tap[0]);
            let parts = n.div_ceil(length);
            for part in 0..parts {
                let at = |part: usize| (start + n * part / parts) as u32;
                segments.bounds.push([at(part), at(part + 1)]);
            }
            segments.of_tap.push(segments.bounds.len() as u32);
        }
        segments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_cover_each_tap_in_order() {
        let segments = Segments::cut(&[0, 5, 5, 8], 2);
        assert_eq!(segments.bounds, [[0, 1], [1, 3], [3, 5], [5, 6], [6, 8]]);
        assert_eq!(segments.of_tap, [0, 3, 3, 5]);
    }
}
