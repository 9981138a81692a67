//! Device forms of supports, relations and row maps: built when a device first needs them, kept with the host form.

use std::sync::Arc;

use burn::backend::DeviceOps;
use burn_cubecl::CubeDevice;
use lattice_core::{self as core, Coord, Error, KernelSpec, Result, canonical_cmp};
use lattice_gpu::conv::mma::Direction;
use lattice_gpu::conv::weight_grad::DevicePairs;
use lattice_gpu::index::BlockIndex;
use lattice_gpu::rows::DeviceRowMap;
use lattice_gpu::tiles::{Geometry, Tiles, check_table};
use lattice_gpu::{Buffer, Gpu};

/// Most rows of a support on a device: its index has two to four slots a row, numbered in 32 bits.
const MAX_ROWS: usize = 1 << 30;

/// Number that tells devices apart.
pub(super) fn key(device: &CubeDevice) -> u64 {
    let id = DeviceOps::id(device);
    u64::from(id.type_id) << 16 | u64::from(id.index_id)
}

/// A support on a device.
struct DeviceSupport {
    coords: Buffer,
    /// Rows in canonical order, where they do not stand in it.
    order: Option<Buffer>,
    index: BlockIndex,
}

fn support(gpu: &Gpu, device: &CubeDevice, host: &core::Support) -> Arc<DeviceSupport> {
    let build = || {
        let coords = gpu.upload(host.coords().as_flattened());
        let order = (!host.is_canonical()).then(|| {
            let rows = host.coords();
            let mut order: Vec<u32> = (0..rows.len() as u32).collect();
            order.sort_unstable_by(|&a, &b| canonical_cmp(&rows[a as usize], &rows[b as usize]));
            gpu.upload(&order)
        });
        let index = BlockIndex::build(gpu, &coords, host.n_rows());
        Ok::<_, std::convert::Infallible>(DeviceSupport { coords, order, index })
    };
    match host.attachments().get_or_build(key(device), build) {
        Ok(form) => form,
    }
}

/// The tiles that a direction of a convolution reads.
///
/// # Panics
/// Where [`check`] refuses the relation, which operations ask first, or the device fails.
pub(super) fn tiles(
    gpu: &Gpu,
    device: &CubeDevice,
    relation: &core::Relation,
    direction: Direction,
) -> Arc<Tiles> {
    let backward = direction == Direction::Backward;
    let build = || -> Result<Tiles> {
        if relation.is_given() {
            return match backward {
                false => Tiles::from_pairs(gpu, relation),
                true => Tiles::from_pairs(gpu, &relation.transpose()),
            };
        }
        let (source, target, formula) = (relation.source(), relation.target(), Geometry::of(relation));
        let (from, onto, geometry) = match backward {
            false => (source, target, formula),
            true => (target, source, formula.swapped()),
        };
        let (from, to) = (support(gpu, device, from), support(gpu, device, onto));
        Tiles::build(gpu, &from.index, &to.coords, onto.n_rows(), to.order.as_ref(), geometry)
    };
    let form = relation.attachments().get_or_build(key(device) << 1 | u64::from(backward), build);
    form.unwrap_or_else(|error| panic!("{error}"))
}

/// The pairs by tap that a weight gradient reads.
///
/// # Panics
/// Where [`check`] refuses the relation, which operations ask first.
pub(super) fn pairs(gpu: &Gpu, device: &CubeDevice, relation: &core::Relation) -> Arc<DevicePairs> {
    let form = relation.attachments().get_or_build(key(device), || DevicePairs::from_host(gpu, relation));
    form.unwrap_or_else(|error| panic!("{error}"))
}

/// A row map on a device.
///
/// # Panics
/// Where [`check_map`] refuses the map.
pub(super) fn row_map(gpu: &Gpu, device: &CubeDevice, map: &core::RowMap) -> Arc<DeviceRowMap> {
    let form = map.attachments().get_or_build(key(device), || DeviceRowMap::from_host(gpu, map));
    form.unwrap_or_else(|error| panic!("{error}"))
}

/// Refuses a relation whose coordinates a device would compute outside 32 bits, or that is too long for its tables.
///
/// # Errors
/// [`Error::Limit`].
pub(super) fn check(op: &'static str, relation: &core::Relation) -> Result<()> {
    let limit = |what: String| Err(Error::Limit { op, what });
    let (n_in, n_out, n_pairs) = (relation.n_in(), relation.n_out(), relation.n_pairs());
    if u32::try_from(n_pairs).is_err() {
        return limit(format!("expected fewer than 2^32 pairs on a GPU, found {n_pairs}; split the batch"));
    }
    if n_in.max(n_out) > MAX_ROWS {
        let rows = n_in.max(n_out);
        return limit(format!("expected at most {MAX_ROWS} rows on a GPU, found {rows}; split the batch"));
    }
    check_table(n_in.max(n_out), relation.taps() as u32)?;
    if relation.is_given() {
        return Ok(());
    }
    let KernelSpec { size, stride, padding, dilation } = *relation.spec();
    let inside = |c: &Coord| {
        (0..3).all(|a| {
            let reach = i64::from(size[a]) * i64::from(dilation[a]) + i64::from(padding[a]);
            let at = i64::from(c[a + 1]).abs().max(1) * i64::from(stride[a]);
            i32::try_from(at.saturating_add(reach)).is_ok()
        })
    };
    let bounded = |s: &core::Support| s.bounds().is_none_or(|(low, high)| inside(&low) && inside(&high));
    match bounded(relation.source()) && bounded(relation.target()) {
        true => Ok(()),
        false => limit(
            "expected coordinates whose products with the stride stay inside 32 bits on a GPU, found larger ones; shift the scene \
             towards the origin, or compute on the CPU"
                .into(),
        ),
    }
}

/// Refuses a row map that is too long for a device's tables.
///
/// # Errors
/// [`Error::Limit`].
pub(super) fn check_map(op: &'static str, map: &core::RowMap) -> Result<()> {
    let n = map.rows().len();
    match u32::try_from(n) {
        Ok(_) => Ok(()),
        Err(_) => Err(Error::Limit {
            op,
            what: format!("expected fewer than 2^32 row pairs on a GPU, found {n}; split the batch"),
        }),
    }
}
