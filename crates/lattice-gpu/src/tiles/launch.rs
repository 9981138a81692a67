//! Builds tiles from two supports and the formula between them.

use std::sync::OnceLock;

use cubecl::prelude::*;
use lattice_core::{Error, KernelSpec, Relation, RelationKind, Result};

use super::kernel::{BuildShape, MAX_GROUP_TAPS, SPAN_WORDS, build_tiles_kernel};
use super::{HALO_ROWS, TILE_ROWS};
use crate::gpu::{Buffer, Gpu};
use crate::index::{BlockIndex, LIST};
use crate::sort::plane_lanes;

/// Shared memory of the builder, in bytes, besides a table of neighbours that grows with the taps of a group.
const FIXED_BYTES: usize = 20_480;

/// Longest halo, in rows of all tiles, that room is made for without counting: 8 MB, to save a wait for the device.
const UNCOUNTED_HALO: usize = 1 << 21;

/// How the formula of a relation finds an input coordinate `c` from an output coordinate `q` and a tap offset `f`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Placement {
    /// `c = q * stride + f - padding`.
    Multiply,
    /// `c = (q + padding - f) / stride`, where that is whole.
    Divide,
}

/// The formula of a relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Geometry {
    pub(crate) placement: Placement,
    pub(crate) size: [u32; 3],
    pub(crate) stride: [i32; 3],
    pub(crate) first: [i32; 3],
    pub(crate) dilation: [i32; 3],
    pub(crate) padding: [i32; 3],
}

impl Geometry {
    /// The formula of a kind of relation whose support no policy chose; [`Geometry::of`] is that of any relation.
    pub fn new(kind: RelationKind, spec: &KernelSpec) -> Self {
        let (placement, centred) = match kind {
            RelationKind::Forward | RelationKind::Target | RelationKind::Submanifold => {
                (Placement::Multiply, true)
            }
            RelationKind::Inverse => (Placement::Divide, true),
            _ => (Placement::Divide, false),
        };
        let offsets = if centred { spec.centred_offsets() } else { spec.indexed_offsets() };
        let signed = |v: [u32; 3]| v.map(|v| v as i32);
        Self {
            placement,
            size: spec.size,
            stride: signed(spec.stride),
            first: offsets[0],
            dilation: signed(spec.dilation),
            padding: signed(spec.padding),
        }
    }

    /// The formula that the pairs of a relation obey, whatever its offsets and also for a transpose.
    pub fn of(relation: &Relation) -> Self {
        let spec = relation.spec();
        let signed = |v: [u32; 3]| v.map(|v| v as i32);
        let placement = match relation.kind() {
            RelationKind::Forward | RelationKind::Target | RelationKind::Submanifold => Placement::Multiply,
            _ => Placement::Divide,
        };
        let formula = Self {
            placement,
            size: spec.size,
            stride: signed(spec.stride),
            first: relation.offsets()[0],
            dilation: signed(spec.dilation),
            padding: signed(spec.padding),
        };
        if relation.is_adjoint() { formula.swapped() } else { formula }
    }

    /// The formula with inputs and outputs swapped, under the same taps.
    pub fn swapped(self) -> Self {
        let placement = match self.placement {
            Placement::Multiply => Placement::Divide,
            Placement::Divide => Placement::Multiply,
        };
        Self { placement, ..self }
    }

    /// Whether every row meets itself under some tap, if source and target are one.
    fn is_centred(&self) -> bool {
        let has_zero = |a: usize| {
            (0..self.size[a] as i32).any(|i| i * self.dilation[a] + self.first[a] == self.padding[a])
        };
        self.stride == [1; 3] && (0..3).all(has_zero)
    }

    /// Number of taps.
    pub fn taps(&self) -> u32 {
        self.size.iter().product()
    }

    /// Whether no input row meets two output rows, or no output row two input rows, because windows do not overlap.
    fn is_exclusive(&self) -> bool {
        let apart = |a: usize| {
            let steps = 1..self.size[a] as i64;
            steps.into_iter().all(|i| i * i64::from(self.dilation[a]) % i64::from(self.stride[a]) != 0)
        };
        (0..3).all(apart)
    }

    /// Most pairs of a relation between supports of these sizes, and so most rows of all halos, where windows do not overlap.
    fn exclusive_pairs(&self, n_in: usize, n_out: usize) -> Option<usize> {
        let rows = match self.placement {
            Placement::Multiply => n_in,
            Placement::Divide => n_out,
        };
        self.is_exclusive().then_some(rows)
    }
}

/// What the builder counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct TileCounts {
    pub(super) halo_rows: usize,
    pub(super) phases: usize,
    pub(super) n_pairs: usize,
}

impl TileCounts {
    fn read(gpu: &Gpu, (counters, first): &(Buffer, usize)) -> Self {
        let found = gpu.download::<u32>(counters);
        let found = &found[*first..];
        let [halo_rows, phases, n_pairs] = [found[0], found[1], found[2]].map(|n| n as usize);
        Self { halo_rows, phases, n_pairs }
    }
}

/// A relation as tiles; see the [module](super).
#[derive(Clone, Debug)]
pub struct Tiles {
    pub(crate) rows: Buffer,
    pub(crate) table: Buffer,
    pub(crate) chunks: Buffer,
    pub(crate) halo: Buffer,
    pub(crate) spans: Buffer,
    pub(crate) n_tiles: usize,
    pub(crate) taps: u32,
    pub(crate) span_words: u32,
    pub(crate) n_in: usize,
    pub(crate) n_out: usize,
    /// Most pairs that there can be.
    pub(super) most_pairs: usize,
    /// What the builder counted, on the device, and where in the buffer; read when first asked for.
    pub(super) counters: (Buffer, usize),
    pub(super) counts: OnceLock<TileCounts>,
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
        Self::build_in_groups(gpu, source, targets, n_out, order, geometry, group_taps(gpu))
    }

    /// [`Tiles::build`] on a device whose shared memory holds the neighbours of so many taps, an even number up to 32: what others do there,
    /// for tests.
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
        let taps = geometry.taps();
        let n_tiles = n_out.div_ceil(TILE_ROWS);
        let words = taps.div_ceil(2) as usize;
        let table_len = n_tiles * words * TILE_ROWS;
        check_table(n_out, taps)?;
        let same = order.is_none() && geometry.is_centred() && source.coords.same_as(targets);
        let shape =
            BuildShape { geometry, group_taps, ordered: order.is_some(), same, lanes: plane_lanes(gpu) };
        let mut tiles = Self {
            rows: gpu.empty(n_tiles * TILE_ROWS, 4),
            table: gpu.empty(table_len, 4),
            chunks: gpu.empty(n_tiles * taps as usize, 4),
            halo: gpu.empty(0, 4),
            spans: gpu.empty(n_tiles * shape.span_words() as usize, 4),
            n_tiles,
            taps,
            span_words: shape.span_words(),
            n_in: source.n_rows,
            n_out,
            most_pairs: geometry.exclusive_pairs(source.n_rows, n_out).unwrap_or(n_out * taps as usize),
            counters: source.counters(gpu),
            counts: OnceLock::new(),
            gpu: gpu.clone(),
        };
        if n_tiles == 0 {
            return Ok(tiles);
        }
        let known = geometry.exclusive_pairs(source.n_rows, n_out).filter(|_| !same);
        // No phase is of fewer than two taps, and none has a longer halo.
        let most = n_tiles * words * HALO_ROWS;
        let bound = known.or_else(|| (most <= UNCOUNTED_HALO).then_some(most));
        // Four input rows an output row are more than scans need; where it is not enough, the count says what is.
        let mut capacity = bound.unwrap_or(4 * n_out).max(HALO_ROWS);
        loop {
            tiles.halo = gpu.empty(capacity, 4);
            // SAFETY: rows, slots and positions come from the index and from `order`, which lists rows of `targets`; tables have
            // room for every tile, and halo writes are checked against the capacity.
            unsafe {
                build_tiles_kernel::launch_unchecked(
                    gpu.client(),
                    Gpu::cubes(n_tiles, 1),
                    CubeDim::new_1d(TILE_ROWS as u32),
                    targets.arg(4),
                    order.unwrap_or(&source.rows).arg(1),
                    source.coords.arg(4),
                    source.slots.arg(1),
                    source.occupancy.arg(1),
                    source.first.arg(1),
                    source.rows.arg(1),
                    tiles.rows.arg(1),
                    tiles.table.arg(1),
                    tiles.chunks.arg(1),
                    tiles.halo.arg(1),
                    tiles.spans.arg(1),
                    tiles.counters.0.arg(1),
                    n_out as u32,
                    n_tiles as u32,
                    source.mask,
                    capacity as u32,
                    tiles.counters.1 as u32,
                    shape,
                );
            }
            if bound.is_some() {
                return Ok(tiles);
            }
            let counts = TileCounts::read(gpu, &tiles.counters);
            if counts.halo_rows <= capacity {
                tiles.counts = counts.into();
                return Ok(tiles);
            }
            capacity = counts.halo_rows;
            tiles.counters = (gpu.upload(&[0u32; LIST]), 0);
        }
    }

    fn counts(&self) -> &TileCounts {
        self.counts.get_or_init(|| TileCounts::read(&self.gpu, &self.counters))
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
        self.counts.get().map_or(self.most_pairs, |counts| counts.n_pairs)
    }

    /// Input rows that all tiles stage together. Waits as [`Tiles::n_pairs`] does.
    pub fn halo_rows(&self) -> usize {
        self.counts().halo_rows
    }

    /// Phases of all tiles; one a tile, but for those whose halo is too long. Waits as [`Tiles::n_pairs`] does.
    pub fn phases(&self) -> usize {
        self.counts().phases
    }

    /// Bytes of all tables.
    pub fn bytes(&self) -> usize {
        4 * (self.rows.len + self.table.len + self.chunks.len + self.halo.len + self.spans.len)
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
        let halo = gpu.download::<u32>(&self.halo);
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

/// Taps whose neighbours a device can hold in shared memory beside the rest of the builder's tables.
fn group_taps(gpu: &Gpu) -> u32 {
    let room = gpu.client().properties().hardware.max_shared_memory_size.saturating_sub(FIXED_BYTES);
    ((room / (4 * TILE_ROWS)) as u32 / 8 * 8).clamp(8, MAX_GROUP_TAPS)
}
