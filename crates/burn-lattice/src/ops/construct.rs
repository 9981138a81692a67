//! Building tensors from coordinates and features: one cloud with duplicates, or several clouds as one batch.

use std::str::FromStr;

use burn::tensor::{DType, Int, Tensor};
use lattice_core as core;

use super::conv::dtype_name;
use super::integers::{coord_rows, item_rows};
use super::mix_rows;
use super::row_groups::{entries, grouped};
use super::row_trace::{ROW_MIX, RowTrace};
use crate::tensor::check_features;
use crate::{CoordinateManager, Error, Result, SparseTensor, Support};

/// What becomes of rows that share a coordinate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DuplicateReduction {
    /// They are refused; rows keep the caller's order.
    #[default]
    None,
    /// Their features are averaged; rows come out in canonical order.
    Mean,
}

impl FromStr for DuplicateReduction {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        match word {
            "none" => Ok(Self::None),
            "mean" => Ok(Self::Mean),
            _ => Err(Error::Value {
                op: "duplicate_reduction",
                what: format!("expected one of none, mean, found `{word}`"),
            }),
        }
    }
}

fn check_rows(op: &'static str, coords: usize, feats: &Tensor<2>) -> Result<()> {
    check_features(op, feats)?;
    match feats.dims()[0] == coords {
        true => Ok(()),
        false => Err(Error::Shape {
            op,
            expected: format!("{coords} feature rows, one a coordinate"),
            found: format!("{} rows", feats.dims()[0]),
        }),
    }
}

fn build(
    op: &'static str,
    coords: Vec<core::Coord>,
    feats: Tensor<2>,
    stride: [u32; 3],
    batch_counts: Option<&[usize]>,
    reduction: DuplicateReduction,
) -> Result<SparseTensor> {
    if let Some(row) = coords.iter().position(|c| c[0] < 0) {
        return Err(Error::OutOfRange {
            op,
            row,
            what: format!("expected a batch id of 0 or more, found {}", coords[row][0]),
        });
    }
    if let Some(counts) = batch_counts {
        check_counts(op, &coords, counts)?;
    }
    let manager = CoordinateManager::new();
    let (support, feats) = match reduction {
        DuplicateReduction::None => (Support::try_new(coords)?, feats),
        DuplicateReduction::Mean => {
            let trace = RowTrace::start(op, "construct.mean");
            let support = core::Support::canonical(coords.clone())?;
            let map = grouped(op, &support.lookup_all(&coords), support.n_rows(), true)?;
            let trace = trace.mapped(&feats);
            let merged = mix_rows(feats.clone(), &map, 0.0);
            trace.finish(feats.dims(), &merged, |device| entries(&map, device), ROW_MIX);
            (support.into(), merged)
        }
    };
    let tensor = SparseTensor::with_manager(support, feats, stride, manager)?;
    let Some(declared) = batch_counts else { return Ok(tensor) };
    let mut counts = tensor.support().to_host().batch_counts();
    counts.resize(declared.len(), 0);
    tensor.with_batch_counts(&counts)
}

/// Refuses counts that differ from the batch column.
fn check_counts(op: &'static str, coords: &[core::Coord], declared: &[usize]) -> Result<()> {
    let mut found = vec![0; declared.len()];
    for (row, c) in coords.iter().enumerate() {
        let Some(count) = found.get_mut(c[0] as usize) else {
            return Err(Error::OutOfRange {
                op,
                row,
                what: format!(
                    "expected a batch id below the {} declared items, found {}",
                    declared.len(),
                    c[0]
                ),
            });
        };
        *count += 1;
    }
    match found == declared {
        true => Ok(()),
        false => Err(Error::Shape {
            op,
            expected: format!("the rows of each batch item, {found:?}"),
            found: format!("{declared:?}"),
        }),
    }
}

/// Binds features to coordinates that may hold duplicates. Differentiable in the features.
///
/// `batch_counts` declares the rows of each batch item as given, duplicates included; they are recounted after merging, and
/// items without rows stay.
///
/// # Shapes
/// `coords [n, 4]` (batch, x, y, z), `feats [n, c]`; result `[rows, c]`, in a manager of its own.
/// # Errors
/// Shapes that do not fit, values outside i32, negative batch ids, wrong counts, a stride with a zero component; duplicates,
/// where they are not merged.
pub fn sparse_from_coordinates(
    coords: Tensor<2, Int>,
    feats: Tensor<2>,
    stride: [u32; 3],
    batch_counts: Option<&[usize]>,
    reduction: DuplicateReduction,
) -> Result<SparseTensor> {
    let op = "sparse_from_coordinates";
    let coords = coord_rows(op, coords)?;
    check_rows(op, coords.len(), &feats)?;
    build(op, coords, feats, stride, batch_counts, reduction)
}

/// Features of a batch must have one width and one element type, on one device.
fn check_batch(op: &'static str, feats: &[Tensor<2>]) -> Result<()> {
    let first = &feats[0];
    for other in feats {
        if other.dims()[1] != first.dims()[1] {
            return Err(Error::Channels { op, expected: first.dims()[1], found: other.dims()[1] });
        }
        let (expected, found): (DType, DType) = (first.dtype(), other.dtype());
        if expected != found {
            return Err(Error::Dtype { op, expected: dtype_name(expected), found: format!("{found:?}") });
        }
        if other.device() != first.device() {
            return Err(Error::Value {
                op,
                what: format!("expected one device, found {:?} and {:?}", first.device(), other.device()),
            });
        }
    }
    Ok(())
}

fn batch_id(op: &'static str, item: usize) -> Result<i32> {
    i32::try_from(item)
        .map_err(|_| Error::Limit { op, what: format!("expected fewer than 2^31 items, found {item}") })
}

/// Puts several clouds into one batch: cloud `i` becomes batch item `i`, rows one cloud after another. Declares the batch counts,
/// zeros included. Differentiable in the features.
///
/// # Shapes
/// `coords[i] [n_i, 3]` (x, y, z), `feats[i] [n_i, c]`; result `[Σ n_i, c]`, fewer rows where duplicates are merged.
/// # Errors
/// Empty lists or lists of different lengths; shapes, channels, element types or devices that differ; values outside i32;
/// duplicates within a cloud, where they are not merged.
pub fn sparse_collate(
    coords: &[Tensor<2, Int>],
    feats: &[Tensor<2>],
    stride: [u32; 3],
    reduction: DuplicateReduction,
) -> Result<SparseTensor> {
    let op = "sparse_collate";
    if coords.is_empty() || coords.len() != feats.len() {
        return Err(Error::Shape {
            op,
            expected: "as many feature tensors as coordinate tensors, at least one".into(),
            found: format!("{} and {}", feats.len(), coords.len()),
        });
    }
    check_batch(op, feats)?;
    let (mut rows, mut counts) = (Vec::new(), Vec::new());
    for (item, (coords, feats)) in coords.iter().zip(feats).enumerate() {
        let cloud = item_rows(op, coords.clone(), batch_id(op, item)?)?;
        check_rows(op, cloud.len(), feats)?;
        counts.push(cloud.len());
        rows.extend(cloud);
    }
    build(op, rows, Tensor::cat(feats.to_vec(), 0), stride, Some(&counts), reduction)
}

/// [`sparse_collate`] of tensors that each hold one batch item, under any id: tensor `i` becomes batch item `i` of a tensor in a
/// manager of its own. Differentiable.
///
/// # Errors
/// An empty list; strides, channels, element types or devices that differ; a tensor with rows of two batch items.
pub fn sparse_collate_tensors(tensors: &[SparseTensor]) -> Result<SparseTensor> {
    let op = "sparse_collate";
    let Some(first) = tensors.first() else {
        return Err(Error::Shape {
            op,
            expected: "at least one tensor".into(),
            found: "an empty list".into(),
        });
    };
    let feats: Vec<Tensor<2>> = tensors.iter().map(|t| t.feats().clone()).collect();
    check_batch(op, &feats)?;
    let (mut rows, mut counts) = (Vec::new(), Vec::new());
    for (item, tensor) in tensors.iter().enumerate() {
        if tensor.stride() != first.stride() {
            return Err(Error::StrideMismatch { op, expected: first.stride(), found: tensor.stride() });
        }
        let coords = tensor.support().to_host().coords();
        if let Some(row) = coords.iter().position(|c| c[0] != coords[0][0]) {
            return Err(Error::OutOfRange {
                op,
                row,
                what: format!(
                    "expected tensors of one batch item each, found items {} and {} in tensor {item}",
                    coords[0][0], coords[row][0]
                ),
            });
        }
        let id = batch_id(op, item)?;
        rows.extend(coords.iter().map(|&[_, x, y, z]| [id, x, y, z]));
        counts.push(coords.len());
    }
    build(op, rows, Tensor::cat(feats, 0), first.stride(), Some(&counts), DuplicateReduction::None)
}
