//! Row maps of groupings: each row belongs to one group or to none, and groups are summed or averaged.

use burn::tensor::Device;
use lattice_core as core;
use lattice_core::MapOrigin;

use crate::backend::n_pairs;
use crate::{Error, Result, RowMap};

/// `out[g] = Σ x[i]` over the rows `i` of group `g`, ascending; divided by their number where `mean`. Rows of group -1 are
/// left out. Linear in rows and groups.
pub(crate) fn grouped(op: &'static str, groups: &[i32], n_groups: usize, mean: bool) -> Result<RowMap> {
    if u32::try_from(groups.len()).is_err() {
        return Err(Error::Limit {
            op,
            what: format!("expected fewer than 2^32 rows, found {}", groups.len()),
        });
    }
    let mut splits = vec![0usize; n_groups + 1];
    for &group in groups.iter().filter(|g| **g >= 0) {
        splits[group as usize + 1] += 1;
    }
    for group in 0..n_groups {
        splits[group + 1] += splits[group];
    }
    let mut next = splits.clone();
    let mut rows = vec![0u32; splits[n_groups]];
    for (row, &group) in groups.iter().enumerate().filter(|(_, g)| **g >= 0) {
        rows[next[group as usize]] = row as u32;
        next[group as usize] += 1;
    }
    let weights = mean.then(|| {
        let sizes = splits.windows(2).map(|s| s[1] - s[0]);
        sizes.flat_map(|size| std::iter::repeat_n(1.0 / size as f32, size)).collect()
    });
    Ok(core::RowMap::try_new(groups.len(), splits, rows, weights)?.into())
}

/// The map that copies row `rows[o]` to row `o`.
pub(crate) fn picked(n_in: usize, rows: Vec<u32>) -> Result<RowMap> {
    Ok(core::RowMap::try_new(n_in, (0..=rows.len()).collect(), rows, None)?.into())
}

/// Entries of a map that worked on a device.
pub(crate) fn entries(map: &RowMap, device: &Device) -> usize {
    match map.to_host().origin() {
        MapOrigin::Pairs(pairs) => n_pairs(device, &pairs.relation),
        _ => map.to_host().rows().len(),
    }
}
