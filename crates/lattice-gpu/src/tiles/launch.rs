//! Builds tiles from two supports and the formula between them.

use std::sync::Arc;

use cubecl::prelude::*;
use lattice_core::{Error, Form, Result};

use super::blocks;
use super::geometry::Geometry;
use super::halo::{ALIGNMENT, Halos, TileCounts};
use super::job::Job;
use super::kernel::{
    ANYHOW, BuildShape, IF_CANONICAL, MAX_GROUP_TAPS, SPAN_WORDS, UNLESS_CANONICAL, build_tiles_kernel,
};
use super::order::Order;
use super::{HALO_ROWS, TILE_ROWS};
use crate::gpu::{Buffer, Gpu};
use crate::index::{BlockIndex, LIST};
use crate::sort::plane_lanes;
use crate::support::LEVELS;

/// Shared memory of the builder, in bytes, besides a table of neighbours that grows with the taps of a group.
const FIXED_BYTES: usize = 17_408;

/// Longest halo, in rows of all tiles, that room is made for without counting: 32 MB, until the counts are known.
const UNCOUNTED_HALO: usize = 1 << 23;

/// A relation as tiles; see the [module](super).
#[derive(Clone, Debug)]
pub struct Tiles {
    pub(crate) rows: Buffer,
    pub(crate) table: Buffer,
    pub(crate) chunks: Buffer,
    /// Those of all relations that were built together, and which of them this one is.
    pub(super) halos: (Arc<Halos>, usize),
    pub(crate) spans: Buffer,
    pub(crate) n_tiles: usize,
    pub(crate) taps: u32,
    pub(crate) span_words: u32,
    pub(crate) n_in: usize,
    pub(crate) n_out: usize,
    /// Most pairs that there can be.
    pub(super) most_pairs: usize,
    pub(super) order: Arc<Order>,
    pub(super) gpu: Gpu,
}

impl Tiles {
    /// The tiles of a relation from the rows of `source` onto `n_out` target coordinates, taken in the given order or as they
    /// stand. Where windows do not overlap, and for few rows, nothing is waited for; else for the device once, or again where a halo is
    /// larger than expected.
    ///
    /// # Errors
    /// [`Error::Limit`] for a relation whose tables pass what a device buffer can be indexed with.
    pub fn build(
        gpu: &Gpu,
        source: &BlockIndex,
        targets: &Buffer,
        n_out: usize,
        order: Option<&Buffer>,
        geometry: Geometry,
    ) -> Result<Self> {
        check_table(n_out, geometry.taps())?;
        let shape = shape_of(gpu, geometry, !source.is_canonical);
        Ok(Self::build_in_shape(gpu, source, targets, n_out, order, shape))
    }

    /// [`Tiles::build`] on a device whose shared memory holds the neighbours of so many taps, an even number up to 32, and no blocks: what others do
    /// there, for tests.
    ///
    /// # Errors
    /// As [`Tiles::build`].
    ///
    /// # Panics
    /// For another number of taps.
    pub fn build_in_groups(
        gpu: &Gpu,
        source: &BlockIndex,
        targets: &Buffer,
        n_out: usize,
        order: Option<&Buffer>,
        geometry: Geometry,
        group_taps: u32,
    ) -> Result<Self> {
        assert!(
            (2..=MAX_GROUP_TAPS).contains(&group_taps) && group_taps.is_multiple_of(2),
            "tiles: expected an even number of taps up to {MAX_GROUP_TAPS}, found {group_taps}"
        );
        check_table(n_out, geometry.taps())?;
        let shape =
            BuildShape { group_taps, by_blocks: false, ..shape_of(gpu, geometry, !source.is_canonical) };
        Ok(Self::build_in_shape(gpu, source, targets, n_out, order, shape))
    }

    fn build_in_shape(
        gpu: &Gpu,
        source: &BlockIndex,
        targets: &Buffer,
        n_out: usize,
        order: Option<&Buffer>,
        shape: BuildShape,
    ) -> Self {
        let geometry = shape.geometry;
        let in_place = || match order {
            None => source.is_canonical,
            Some(order) => source.order(gpu).is_some_and(|listed| listed.same_as(order)),
        };
        let same = geometry.is_centred() && source.coords.same_as(targets) && in_place();
        let part = Part { source, first_target: 0, n_out, same };
        let bound = part.halo_bound(&geometry);
        // Four input rows an output row are more than scans need; where it is not enough, the count says what is.
        let mut capacity = bound.unwrap_or(4 * n_out).max(HALO_ROWS);
        loop {
            let tiles = build(gpu, &[part], &[capacity], (targets, order), shape, None).remove(0);
            if bound.is_some() || n_out == 0 {
                tiles.halos.0.ask_for_counts(gpu);
                return tiles;
            }
            let halo_rows = tiles.counts().halo_rows;
            if halo_rows <= capacity {
                return tiles;
            }
            capacity = halo_rows;
        }
    }

    /// The tiles of a relation of rows with themselves, of which nobody knows yet whether they stand in canonical order and whether some repeat
    /// each other: the device leaves them out where they are not as `expected`. To be [confirmed](Tiles::confirmed) when that is known. One
    /// launch; `None` for a relation whose halos would have to be counted, and for rows in an order that is not listed.
    pub(crate) fn build_ahead(
        gpu: &Gpu,
        index: &BlockIndex,
        description: &Buffer,
        expected: ExpectedRelation,
    ) -> Option<Self> {
        let ExpectedRelation { geometry, canonical } = expected;
        check_table(index.n_rows, geometry.taps()).ok()?;
        let (order, source) = match canonical {
            true => (None, index.clone().in_canonical_order()),
            false => (Some(index.known_order()?.clone()), index.clone()),
        };
        let shape = shape_of(gpu, geometry, !canonical);
        let part =
            Part { source: &source, first_target: 0, n_out: index.n_rows, same: geometry.is_centred() };
        let capacity = part.halo_bound(&geometry)?.max(HALO_ROWS);
        let unless = if canonical { IF_CANONICAL } else { UNLESS_CANONICAL };
        let condition = Condition { description, unless };
        let rows = (&index.coords, order.as_ref());
        build(gpu, &[part], &[capacity], rows, shape, Some(condition)).pop()
    }

    /// The tiles, where the rows that they were [built of ahead](Tiles::build_ahead) are as expected.
    pub(crate) fn confirmed(self) -> Self {
        self.halos.0.ask_for_counts(&self.gpu);
        self
    }

    /// Bytes of all tables as they lie. Never waits.
    pub fn held_bytes(&self) -> usize {
        self.bytes_with(self.halos.0.room())
    }

    /// Bytes of all tables with so many words of halos.
    fn bytes_with(&self, halo: usize) -> usize {
        4 * (self.rows.len + self.table.len + self.chunks.len + halo + self.spans.len + self.order.len())
    }

    fn counts(&self) -> &TileCounts {
        let (halos, part) = &self.halos;
        &halos.counts(&self.gpu)[*part]
    }

    /// Input rows of all halos, for a launch.
    pub(crate) fn halo(&self) -> Buffer {
        self.halos.0.rows(&self.gpu, self.halos.1)
    }

    /// Rows of the source.
    pub fn n_in(&self) -> usize {
        self.n_in
    }

    /// Rows of the target.
    pub fn n_out(&self) -> usize {
        self.n_out
    }

    /// The device they lie on.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Tiles of [`TILE_ROWS`] output rows.
    pub fn n_tiles(&self) -> usize {
        self.n_tiles
    }

    /// Taps of the kernel.
    pub fn taps(&self) -> u32 {
        self.taps
    }

    /// Pairs over all taps. Waits for the device where nobody asked before.
    pub fn n_pairs(&self) -> usize {
        self.counts().n_pairs
    }

    /// The number of pairs where it was counted, else a number that it does not pass. Never waits.
    pub(crate) fn most_pairs(&self) -> usize {
        self.halos.0.known(self.halos.1).map_or(self.most_pairs, |counts| counts.n_pairs)
    }

    /// Input rows that all tiles stage together. Waits as [`Tiles::n_pairs`] does.
    pub fn halo_rows(&self) -> usize {
        self.counts().halo_rows
    }

    /// Phases of all tiles; one a tile, but for those whose halo is too long. Waits as [`Tiles::n_pairs`] does.
    pub fn phases(&self) -> usize {
        self.counts().phases
    }

    /// Output rows, place by place.
    pub fn rows_to_host(&self, gpu: &Gpu) -> Vec<u32> {
        gpu.download(&self.rows)
    }

    /// Pairs `(in_row, out_row, tap)` in host memory, in no particular order. For tests and reports.
    pub fn pairs_to_host(&self, gpu: &Gpu) -> Vec<(u32, u32, u32)> {
        if self.n_tiles == 0 {
            return Vec::new();
        }
        let rows = gpu.download::<u32>(&self.rows);
        let table = gpu.download::<u32>(&self.table);
        let halo = gpu.download::<u32>(&self.halo());
        let spans = gpu.download::<u32>(&self.spans);
        let chunks = gpu.download::<u32>(&self.chunks);
        let words = self.taps.div_ceil(2) as usize;
        let mut pairs = Vec::with_capacity(self.n_pairs());
        for tile in 0..self.n_tiles {
            let spans = &spans[tile * self.span_words as usize..][..self.span_words as usize];
            let phases = spans.chunks_exact(SPAN_WORDS as usize).skip(1).take(spans[0] as usize);
            for (tap, span) in phases.flat_map(|span| (span[2]..span[3]).map(move |tap| (tap, span))) {
                let halo = &halo[span[0] as usize..][..span[1] as usize];
                for place in 0..TILE_ROWS {
                    let word = table[(tile * words + tap as usize / 2) * TILE_ROWS + place];
                    let local = (word >> (16 * (tap % 2))) & 0xFFFF;
                    if (local as usize) < HALO_ROWS {
                        let chunks = chunks[tile * self.taps as usize + tap as usize];
                        let chunk = place / super::CHUNK_ROWS;
                        assert!(
                            chunks >> chunk & 1 == 1,
                            "chunk {chunk} of tile {tile} has a pair under tap {tap} and does not say so: {chunks:#b}"
                        );
                        pairs.push((halo[local as usize], rows[tile * TILE_ROWS + place], tap));
                    }
                }
            }
        }
        pairs
    }
}

impl Form for Tiles {
    /// Bytes of all tables. Waits for the device where halos lie in longer room than they need, and moves them.
    fn bytes(&self) -> usize {
        self.bytes_with(self.halos.0.settled_len(&self.gpu, self.halos.1))
    }
}

/// A relation of rows with themselves that is likely asked for, and whether they likely stand in canonical order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpectedRelation {
    /// Its formula.
    pub geometry: Geometry,
    /// Whether the rows stand in canonical order.
    pub canonical: bool,
}

/// What has to be so for tiles to be built, as the device finds it.
struct Condition<'a> {
    /// Of the rows, of which none may repeat another one either.
    description: &'a Buffer,
    unless: u32,
}

/// One of the relations whose tiles are built in one launch.
#[derive(Clone, Copy)]
struct Part<'a> {
    source: &'a BlockIndex,
    first_target: usize,
    n_out: usize,
    /// Whether source and target are one support, whose rows are in the order of tiles where they are looked up, and every row meets itself.
    same: bool,
}

impl Part<'_> {
    fn n_tiles(&self) -> usize {
        self.n_out.div_ceil(TILE_ROWS)
    }

    /// Longest halo that there can be, in rows of all tiles, where room is made for it without counting.
    fn halo_bound(&self, geometry: &Geometry) -> Option<usize> {
        // No phase is of fewer than two taps, and none has a longer halo.
        let most = self.n_tiles() * geometry.taps().div_ceil(2) as usize * HALO_ROWS;
        self.pairs_bound(geometry).or_else(|| (most <= UNCOUNTED_HALO).then_some(most))
    }

    /// Most rows of all halos where no row is in two of them: about as many as there are.
    fn pairs_bound(&self, geometry: &Geometry) -> Option<usize> {
        geometry.exclusive_pairs(self.source.n_rows, self.n_out).filter(|_| !self.same)
    }
}

/// The tiles of relations between supports whose rows lie in one buffer and were indexed together, from each source onto its target, by one
/// formula: one launch, no wait. `None` for a relation that would have to be counted.
///
/// # Errors
/// [`Error::Limit`] for a relation whose tables pass what a device buffer can be indexed with.
pub(crate) fn build_together(
    gpu: &Gpu,
    relations: &[(&BlockIndex, &BlockIndex)],
    geometry: Geometry,
) -> Result<Vec<Option<Tiles>>> {
    let centred = geometry.is_centred();
    let mut parts = Vec::with_capacity(relations.len());
    for &(source, target) in relations {
        check_table(target.n_rows, geometry.taps())?;
        let same = centred && source.first_row == target.first_row;
        let part = Part { source, first_target: target.first_row, n_out: target.n_rows, same };
        parts.push(part.halo_bound(&geometry).map(|bound| (part, bound.max(HALO_ROWS))));
    }
    let (bounded, capacities): (Vec<_>, Vec<_>) = parts.iter().flatten().copied().unzip();
    let Some(&(source, _)) = relations.first().filter(|_| !bounded.is_empty()) else {
        return Ok(vec![None; relations.len()]);
    };
    let shape = shape_of(gpu, geometry, false);
    let tiles = build(gpu, &bounded, &capacities, (&source.all, None), shape, None);
    // One for all.
    tiles[0].halos.0.ask_for_counts(gpu);
    let mut tiles = tiles.into_iter();
    Ok(parts.iter().map(|part| part.and_then(|_| tiles.next())).collect())
}

/// Launches the builder. All parts have one table of slots and one buffer of rows; with a `condition` there is one part, of a new index.
fn build(
    gpu: &Gpu,
    parts: &[Part<'_>],
    capacities: &[usize],
    (targets, order): (&Buffer, Option<&Buffer>),
    shape: BuildShape,
    condition: Option<Condition<'_>>,
) -> Vec<Tiles> {
    let geometry = &shape.geometry;
    let (taps, span_words) = (geometry.taps(), shape.span_words());
    let words = taps.div_ceil(2) as usize;
    let all_tiles: usize = parts.iter().map(Part::n_tiles).sum();
    let padded = |n: usize| n.next_multiple_of(ALIGNMENT);
    // A part alone is not padded.
    let lists = match parts {
        [part] => part.n_tiles(),
        _ => parts.iter().map(|part| padded(part.n_tiles())).sum(),
    };
    let rows = gpu.empty(all_tiles * TILE_ROWS, 4);
    let table = gpu.empty(all_tiles * words * TILE_ROWS, 4);
    let chunks = gpu.empty(lists * taps as usize, 4);
    let spans = gpu.empty(lists * span_words as usize, 4);
    // Room that is likely too long is held until the counts are known.
    let fit = parts.iter().all(|part| part.pairs_bound(geometry).is_some());
    let mut halo_end = 0;
    let place = |&capacity: &usize| {
        let first = halo_end;
        halo_end += padded(capacity);
        (first, padded(capacity))
    };
    let halo_parts: Vec<_> = capacities.iter().map(place).collect();
    let halo = gpu.empty(halo_end, 4);
    let (counters, first_counters) = lists_of(gpu, parts);
    let of_parts = (counters.clone(), first_counters.clone());
    let halos = Arc::new(Halos::uncounted(halo.clone(), halo_parts.clone(), of_parts, fit));
    let (mut first_tile, mut first_spans) = (0, 0);
    let mut jobs = Vec::with_capacity(parts.len());
    let mut tiles = Vec::with_capacity(parts.len());
    for (at, &Part { source, first_target, n_out, same }) in parts.iter().enumerate() {
        let ((first_halo, _), first_counter, capacity) = (halo_parts[at], first_counters[at], capacities[at]);
        let n_tiles = n_out.div_ceil(TILE_ROWS);
        jobs.push(Job {
            first_tile: first_tile as u32,
            first_spans: first_spans as u32,
            n_out: n_out as u32,
            first_target: first_target as u32,
            first_source: source.first_row as u32,
            first_slot: source.first_slot as u32,
            mask: source.mask,
            first_halo: first_halo as u32,
            halo_capacity: capacity as u32,
            first_counter: first_counter as u32,
            same: u32::from(same),
        });
        tiles.push(Tiles {
            rows: rows.part(first_tile * TILE_ROWS, n_tiles * TILE_ROWS),
            table: table.part(first_tile * words * TILE_ROWS, n_tiles * words * TILE_ROWS),
            chunks: chunks.part(first_spans * taps as usize, n_tiles * taps as usize),
            spans: spans.part(first_spans * span_words as usize, n_tiles * span_words as usize),
            halos: (halos.clone(), at),
            n_tiles,
            taps,
            span_words,
            n_in: source.n_rows,
            n_out,
            most_pairs: geometry.exclusive_pairs(source.n_rows, n_out).unwrap_or(n_out * taps as usize),
            order: Arc::default(),
            gpu: gpu.clone(),
        });
        first_tile += n_tiles;
        first_spans += padded(n_tiles);
    }
    let Some(&Part { source, .. }) = parts.first().filter(|_| all_tiles > 0) else { return tiles };
    let listed = shape.listed.then(|| source.listed(gpu));
    let unless = condition.as_ref().map_or(ANYHOW, |condition| condition.unless);
    debug_assert!(unless == ANYHOW || source.counts_in(&counters), "repeated rows are counted beside halos");
    // One kernel builds relations alone and together: those that are not there have no tile.
    while jobs.len() < LEVELS {
        jobs.push(Job { first_tile: u32::MAX, ..jobs[0] });
    }
    gpu.launch(Gpu::cubes(all_tiles, 1), ("build_tiles", jobs.len(), &shape), |client, n_cubes| {
        // SAFETY: rows and slots come from the index, positions from `order`, which lists rows of `targets`; tables have room for every
        // tile, and halo writes are checked against the capacity.
        unsafe {
            build_tiles_kernel::launch_unchecked(
                client,
                n_cubes,
                CubeDim::new_1d(TILE_ROWS as u32),
                targets.arg(4),
                order.unwrap_or(&source.slots).arg(1),
                source.all.arg(4),
                source.slots.arg(1),
                source.occupancy.arg(1),
                listed.map_or(&source.slots, |listed| &listed.first).arg(1),
                listed.map_or(&source.slots, |listed| &listed.rows).arg(1),
                rows.arg(1),
                table.arg(1),
                chunks.arg(1),
                halo.arg(1),
                spans.arg(1),
                counters.arg(1),
                condition.as_ref().map_or(&source.slots, |condition| condition.description).arg(1),
                jobs.iter().map(Job::arg).collect(),
                u32::from(order.is_some()),
                unless,
                source.repeated_rows() as u32,
                shape,
            );
        }
    });
    tiles
}

/// Counters at zero for each part: a buffer that holds them and where each begins.
fn lists_of(gpu: &Gpu, parts: &[Part<'_>]) -> (Buffer, Vec<usize>) {
    let spare: Option<Vec<usize>> = parts.iter().map(|part| part.source.spare_list()).collect();
    match (spare, parts.first()) {
        (Some(lists), Some(part)) => (part.source.counters.clone(), lists),
        _ => (gpu.upload(&vec![0u32; LIST * parts.len()]), (0..parts.len()).map(|at| LIST * at).collect()),
    }
}

/// Refuses a relation of more rows and taps than tables are indexed with.
///
/// # Errors
/// [`Error::Limit`].
pub fn check_table(n_out: usize, taps: u32) -> Result<()> {
    let words = n_out.div_ceil(TILE_ROWS).saturating_mul(TILE_ROWS).saturating_mul(taps.div_ceil(2) as usize);
    match u32::try_from(words) {
        Ok(_) => Ok(()),
        Err(_) => Err(Error::Limit {
            op: "relation tiles",
            what: format!(
                "expected at most 2^32 table words, found {n_out} rows of {taps} taps; split the batch"
            ),
        }),
    }
}

/// Shared memory from which on the builder's phases share a set: room for it beside the neighbours of all taps.
const SHARING_BYTES: usize = 65_536;

/// What the builder is compiled for on a device.
fn shape_of(gpu: &Gpu, geometry: Geometry, listed: bool) -> BuildShape {
    let most = gpu.client().properties().hardware.max_shared_memory_size;
    let room = most.saturating_sub(FIXED_BYTES) / 4;
    // The neighbours of all taps of a window together, or of so many at a time.
    let held = (room / TILE_ROWS) as u32;
    let group_taps = match geometry.taps() <= held {
        true => MAX_GROUP_TAPS,
        false => (held / 8 * 8).clamp(8, MAX_GROUP_TAPS),
    };
    let by_blocks = blocks::fits(&geometry) && blocks::WORDS <= room;
    BuildShape {
        geometry,
        group_taps,
        listed,
        lanes: plane_lanes(gpu),
        by_blocks,
        // Rows that are found block by block need no set for phases but where that fails.
        shares: most >= SHARING_BYTES && !by_blocks,
    }
}
