//! Device forms of supports, relations and row maps: built when a device first needs them, kept with the host form.

use std::sync::{Arc, Mutex, PoisonError};

use burn::backend::DeviceOps;
use burn_cubecl::CubeDevice;
use lattice_core::{self as core, Coord, Error, KernelSpec, MapOrigin, PairMap, Result};
use lattice_gpu::Gpu;
use lattice_gpu::conv::mma::Direction;
use lattice_gpu::conv::weight_grad::DevicePairs;
use lattice_gpu::rows::DeviceRowMap;
use lattice_gpu::tiles::{Geometry, Tiles, check_table};

use super::made::support;

/// Most rows of a support on a device: its index has two to four slots a row, numbered in 32 bits.
pub(super) const MAX_ROWS: usize = 1 << 30;

/// Number that tells devices apart.
pub(super) fn key(device: &CubeDevice) -> u64 {
    let id = DeviceOps::id(device);
    u64::from(id.type_id) << 16 | u64::from(id.index_id)
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
    // A relation that is its own mirror image has one form for both: only the taps run backwards.
    let backward = direction == Direction::Backward && !relation.is_symmetric();
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
        if Arc::ptr_eq(&from, &to)
            && let Some(tiles) = from.tiles_ahead(geometry)
        {
            return Ok(tiles);
        }
        // Relations between levels that were made together are built together.
        if let (Some((levels, source)), Some((others, target))) = (from.level(), to.level())
            && Arc::ptr_eq(levels, others)
            && let Some(tiles) = levels.tiles(gpu, [*source, *target], geometry)?
        {
            return Ok(tiles.as_ref().clone());
        }
        Tiles::build(gpu, from.index(gpu), &to.coords, onto.n_rows(), to.order(gpu), geometry)
    };
    let form = relation.attachments().get_or_build(key(device) << 1 | u64::from(backward), build);
    form.unwrap_or_else(|error| panic!("{error}"))
}

/// Rows that all kept identity tiles of the process have together, at most, where one alone has not more: 12 bytes each.
const IDENTITY_ROWS: usize = 1 << 22;

/// The tiles of a pointwise convolution of `n` rows; those asked for last are kept.
///
/// # Panics
/// For 2^32 rows or more, which operations refuse.
pub(super) fn identity_tiles(gpu: &Gpu, device: &CubeDevice, n: usize) -> Arc<Tiles> {
    type Kept = Vec<((u64, usize), Arc<Tiles>)>;
    static KEPT: Mutex<Kept> = Mutex::new(Vec::new());
    let key = (key(device), n);
    // Entries are inserted whole, so a panic elsewhere leaves the list as it should be.
    let lock = || KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let take = |kept: &mut Kept| kept.iter().position(|(at, _)| *at == key).map(|place| kept.remove(place));
    let found = take(&mut lock());
    // Made without the lock: other devices launch meanwhile.
    let entry = found.unwrap_or_else(|| {
        let tiles = Tiles::identity(gpu, n).unwrap_or_else(|error| panic!("{error}"));
        (key, Arc::new(tiles))
    });
    let mut kept = lock();
    // Two threads of a device may have made them at a time: one is enough.
    let entry = take(&mut kept).unwrap_or(entry);
    let tiles = entry.1.clone();
    kept.push(entry);
    while kept.len() > 1 && kept.iter().map(|((_, n), _)| n).sum::<usize>() > IDENTITY_ROWS {
        kept.remove(0);
    }
    tiles
}

/// The pairs by tap that a weight gradient reads.
///
/// # Panics
/// Where [`check`] refuses the relation, which operations ask first.
pub(super) fn pairs(gpu: &Gpu, device: &CubeDevice, relation: &core::Relation) -> Arc<DevicePairs> {
    let build = || match relation.is_given() {
        true => DevicePairs::from_host(gpu, relation),
        false => Ok(DevicePairs::from_tiles(gpu, &tiles(gpu, device, relation, Direction::Forward))),
    };
    let form = relation.attachments().get_or_build(key(device), build);
    form.unwrap_or_else(|error| panic!("{error}"))
}

/// Number of pairs of a relation, counted on the device where nobody knows it yet.
pub(super) fn n_pairs(gpu: &Gpu, device: &CubeDevice, relation: &core::Relation) -> usize {
    relation.known_pairs().unwrap_or_else(|| {
        relation.set_pairs(tiles(gpu, device, relation, Direction::Forward).n_pairs());
        relation.n_pairs()
    })
}

/// A row map on a device.
///
/// # Panics
/// Where [`check_map`] refuses the map.
pub(super) fn row_map(gpu: &Gpu, device: &CubeDevice, map: &core::RowMap) -> Arc<DeviceRowMap> {
    let build = || {
        let longest = match map.origin() {
            MapOrigin::Pairs(pairs) => Some(pairs.relation.taps()),
            MapOrigin::Elsewhere(made) => made.longest[usize::from(map.is_transposed())],
            _ => None,
        };
        match map.origin() {
            // What the host has is copied, but the other side of what lies there.
            MapOrigin::Given if map.known_entries().is_some() => DeviceRowMap::from_host(gpu, map),
            _ if map.is_transposed() => Ok(row_map(gpu, device, &map.transpose()).transposed(gpu, longest)),
            // Relations that a device cannot compute are listed by the host.
            MapOrigin::Pairs(pairs) if check("row map", &pairs.relation).is_ok() => {
                let tiles = tiles(gpu, device, &pairs.relation, Direction::Forward);
                Ok(DeviceRowMap::from_tiles(&tiles, &pairs.weights))
            }
            _ => DeviceRowMap::from_host(gpu, map),
        }
    };
    let form = map.attachments().get_or_build(key(device), build);
    form.unwrap_or_else(|error| panic!("{error}"))
}

/// Refuses a relation whose coordinates a device would compute outside 32 bits, or that is too long for its tables.
///
/// # Errors
/// [`Error::Limit`].
pub(super) fn check(op: &'static str, relation: &core::Relation) -> Result<()> {
    let limit = |what: String| Err(Error::Limit { op, what });
    let (n_in, n_out) = (relation.n_in(), relation.n_out());
    // Few enough rows cannot have too many pairs; for more of them the host counts.
    let most = n_out.saturating_mul(relation.taps());
    let few = u32::try_from(most).is_ok();
    let n_pairs = if few { most } else { relation.n_pairs() };
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
    let n = match map.origin() {
        MapOrigin::Elsewhere(_) => return Ok(()),
        MapOrigin::Pairs(PairMap { relation, .. }) => {
            let most = relation.n_out().saturating_mul(relation.taps());
            // Few enough rows cannot have too many pairs; for more of them the host counts.
            if u32::try_from(most).is_ok() { most } else { relation.n_pairs() }
        }
        _ => map.rows().len(),
    };
    match u32::try_from(n) {
        Ok(_) => Ok(()),
        Err(_) => Err(Error::Limit {
            op,
            what: format!("expected fewer than 2^32 row pairs on a GPU, found {n}; split the batch"),
        }),
    }
}
