//! The coarser levels of a support, made and indexed together, and the tiles of relations between them.
//!
//! Networks that halve a lattice once mostly do it again, and on the few rows of deep levels every launch takes as long as on many. So
//! levels are marked in one launch, moved in another and indexed in a third, and the first relation between two of them brings the tiles of
//! all relations like it.

use std::sync::{Arc, Mutex, PoisonError};

use cubecl::prelude::*;
use lattice_core::Result;

use super::kernel::{ITEMS, MARK, MARKED, shifted_row};
use super::order::is_canonical;
use crate::gpu::{Buffer, Gpu};
use crate::index::{BlockIndex, Tables, clear_slot};
use crate::sort::{SUM_UNITS, cube_exclusive_sum, plane_lanes, sum_segments};
use crate::tiles::{Geometry, Tiles, build_together};

/// Levels of a pyramid.
pub(crate) const LEVELS: usize = 4;
/// How marks find rows: in the order in which they stand, in another one, or in that where they do not stand in canonical order.
const AS_THEY_STAND: u32 = 0;
const ORDERED: u32 = 1;
const UNLESS_CANONICAL: u32 = 2;
/// Units of a cube that moves rows.
const UNITS: u32 = 256;
/// Rows of a level begin at multiples of this many, so that each is a buffer of its own.
const ROW_ALIGNMENT: usize = 32;

/// Marks rows that differ from the one before, divided by `2^level`, for every level from 1: `places[level, p]` counts the marked rows before
/// `p` among those of the cube, with a bit for its own mark; `totals[level, cube]` counts those of the cube. One cube [`MARKED`] rows.
///
/// `ordered` says how rows are found; `description` is read for [`UNLESS_CANONICAL`] alone, and `order` where rows go by it.
#[cube(launch_unchecked)]
fn mark_levels_kernel(
    coords: &[Vector<i32, Const<4>>],
    order: &[u32],
    description: &[i32],
    places: &mut [u32],
    totals: &mut [u32],
    n: u32,
    n_tiles: u32,
    ordered: u32,
    #[comptime] lanes: u32,
) {
    let tile = CUBE_POS as u32;
    if tile >= n_tiles {
        terminate!();
    }
    let mut goes_by_order = ordered == ORDERED;
    if ordered == UNLESS_CANONICAL {
        goes_by_order = !is_canonical(description);
    }
    let items = comptime!(ITEMS as usize);
    let first = (tile * SUM_UNITS + UNIT_POS) * ITEMS;
    let mut before = Vector::<i32, Const<4>>::new(-1i32);
    if first > 0u32 && first < n {
        before = coords[row_at(first - 1u32, order, n, goes_by_order) as usize];
    }
    // How many levels up a row is another one than the row before.
    let mut differs = Array::<u32>::new(items);
    #[unroll]
    for item in 0usize..items {
        let at = first + item as u32;
        let mut height = 0u32;
        if at < n {
            let c = coords[row_at(at, order, n, goes_by_order) as usize];
            let bits = u32::cast_from(c.extract(1usize) ^ before.extract(1usize))
                | u32::cast_from(c.extract(2usize) ^ before.extract(2usize))
                | u32::cast_from(c.extract(3usize) ^ before.extract(3usize));
            // The very first row is one on every level.
            let is_new = c.extract(0usize) != before.extract(0usize);
            height = select(is_new, 32u32, 32u32 - u32::cast_from(bits.leading_zeros()));
            before = c;
        }
        differs[item] = height;
    }
    let mut sums = Shared::<[u32]>::new_slice(comptime!(SUM_UNITS as usize));
    // Two levels are summed at once, in halves of a word: a cube has fewer rows than a half can count.
    #[unroll]
    for pair in 0u32..comptime!(LEVELS as u32 / 2) {
        let level = 2u32 * pair;
        let mut own = 0u32;
        #[unroll]
        for item in 0usize..items {
            own += select(differs[item] > level + 1u32, 1u32, 0u32)
                + select(differs[item] > level + 2u32, 1u32 << 16u32, 0u32);
        }
        let (start, total) = cube_exclusive_sum(own, &mut sums, lanes);
        let mut low = start & 0xFFFFu32;
        let mut high = start >> 16u32;
        #[unroll]
        for item in 0usize..items {
            let at = first + item as u32;
            let marks_low = select(differs[item] > level + 1u32, 1u32, 0u32);
            let marks_high = select(differs[item] > level + 2u32, 1u32, 0u32);
            if at < n {
                places[(level as usize) * n as usize + at as usize] = low | (marks_low << 31u32);
                places[(level as usize + 1usize) * n as usize + at as usize] = high | (marks_high << 31u32);
            }
            low += marks_low;
            high += marks_high;
        }
        if UNIT_POS == SUM_UNITS - 1u32 {
            totals[(level * n_tiles + tile) as usize] = total & 0xFFFFu32;
            totals[((level + 1u32) * n_tiles + tile) as usize] = total >> 16u32;
        }
    }
}

/// The row at a position. Where rows repeat each other not every place of their order is written: whatever stands there is not followed.
#[cube]
fn row_at(at: u32, order: &[u32], n: u32, goes_by_order: bool) -> u32 {
    let mut row = at;
    if goes_by_order {
        row = min(order[at as usize], n - 1u32);
    }
    row
}

/// Moves marked rows of every level to their places, and clears the tables that they will be indexed in. One unit a row and a slot.
#[cube(launch_unchecked)]
fn move_levels_kernel(
    coords: &[Vector<i32, Const<4>>],
    order: &[u32],
    places: &[u32],
    starts: &[u32],
    out: &mut [Vector<i32, Const<4>>],
    slots: &mut [u32],
    occupancy: &mut [u32],
    counters: &mut [u32],
    first_rows: Sequence<u32>,
    n: u32,
    n_tiles: u32,
    n_slots: u32,
    n_counters: u32,
    #[comptime] ordered: bool,
) {
    let at = ABSOLUTE_POS as u32;
    clear_slot(at, slots, occupancy, counters, n_slots, n_counters);
    if at < n {
        #[unroll]
        for level in 0usize..LEVELS {
            let place = places[level * n as usize + at as usize];
            // Rows that stay on a level stay on those below.
            if place >= MARK {
                let start = starts[level * n_tiles as usize + (at / MARKED) as usize];
                let to = *first_rows.index(level) + start + (place & comptime!(MARK - 1));
                out[to as usize] = shifted_row(coords, order, at, comptime!(level as i32 + 1), ordered);
            }
        }
    }
}

/// Which rows of a support are those of its levels, marked in two launches: what a [`Pyramid`] is made from.
pub struct LevelMarks {
    places: Buffer,
    /// Marked rows before each cube, once they are summed.
    totals: Buffer,
    /// Rows of each level, on the device.
    pub(super) counts: Buffer,
}

impl LevelMarks {
    /// The marks of rows in an order, if they do not stand in it. With a `description`, only where that says that they do not.
    pub(super) fn new(
        gpu: &Gpu,
        coords: &Buffer,
        order: Option<&Buffer>,
        description: Option<&Buffer>,
    ) -> Self {
        let n = coords.len / 4;
        let n_tiles = n.div_ceil(MARKED as usize).max(1);
        let (places, totals) = (gpu.empty(LEVELS * n, 4), gpu.empty(LEVELS * n_tiles, 4));
        let ordered = match (order, description) {
            (None, _) => AS_THEY_STAND,
            (Some(_), None) => ORDERED,
            (Some(_), Some(_)) => UNLESS_CANONICAL,
        };
        gpu.launch(Gpu::cubes(n_tiles, 1), ("mark_levels", plane_lanes(gpu)), |client, count| {
            // SAFETY: positions and rows are checked against the count; what is not there is not read.
            unsafe {
                mark_levels_kernel::launch_unchecked(
                    client,
                    count,
                    CubeDim::new_1d(SUM_UNITS),
                    coords.arg(4),
                    order.unwrap_or(coords).arg(1),
                    description.unwrap_or(coords).arg(1),
                    places.arg(1),
                    totals.arg(1),
                    n as u32,
                    n_tiles as u32,
                    ordered,
                    plane_lanes(gpu),
                );
            }
        });
        let counts = sum_segments(gpu, &totals, LEVELS);
        Self { places, totals, counts }
    }

    /// Bytes that are held.
    pub fn bytes(&self) -> usize {
        4 * (self.places.len + self.totals.len)
    }
}

impl std::fmt::Debug for LevelMarks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LevelMarks({} rows)", self.places.len / LEVELS)
    }
}

/// The distinct `floor(row / 2^level)` for four levels from 1, each in canonical order and indexed.
pub struct Pyramid {
    levels: Vec<BlockIndex>,
    /// Tiles between levels, by the difference between target and source and the formula; those of each source level.
    tiles: Mutex<Vec<(Between, TilesOfLevels)>>,
}

/// Which relations: levels from the source up to the target, and the formula.
type Between = (isize, Geometry);
/// Tiles of every source level that has them.
type TilesOfLevels = Vec<Option<Arc<Tiles>>>;

impl Pyramid {
    /// The levels above rows; `order` is that of rows which do not stand in canonical order. Four launches, and one wait for the numbers of
    /// rows.
    pub fn build(gpu: &Gpu, coords: &Buffer, order: Option<&Buffer>) -> Self {
        let marks = LevelMarks::new(gpu, coords, order, None);
        let counts = gpu.download::<u32>(&marks.counts);
        Self::of_marks(gpu, coords, order, &marks, &counts)
    }

    /// The levels above rows whose marks were counted. Two launches.
    ///
    /// # Panics
    /// Where the marks are of other rows.
    pub fn of_marks(
        gpu: &Gpu,
        coords: &Buffer,
        order: Option<&Buffer>,
        marks: &LevelMarks,
        counts: &[u32],
    ) -> Self {
        let LevelMarks { places, totals, .. } = marks;
        let n = coords.len / 4;
        assert_eq!((places.len, counts.len()), (LEVELS * n, LEVELS), "pyramid: marks of the rows");
        let n_tiles = n.div_ceil(MARKED as usize).max(1);
        let mut end = 0;
        let part = |&n: &u32| {
            let first = end;
            end = (first + n as usize).next_multiple_of(ROW_ALIGNMENT);
            (first, n as usize)
        };
        let parts: Vec<_> = counts.iter().map(part).collect();
        let all = gpu.empty(4 * end, 4);
        let tables = Tables::room(gpu, &parts);
        let kernel = ("move_levels", parts.len(), order.is_some());
        gpu.launch(Gpu::cubes(n.max(tables.n_slots), UNITS as usize), kernel, |client, count| {
            // SAFETY: marked rows were counted, so their places lie within their levels; slots are checked against their number.
            unsafe {
                move_levels_kernel::launch_unchecked(
                    client,
                    count,
                    CubeDim::new_1d(UNITS),
                    coords.arg(4),
                    order.unwrap_or(places).arg(1),
                    places.arg(1),
                    totals.arg(1),
                    all.arg(4),
                    tables.slots.arg(1),
                    tables.occupancy.arg(1),
                    tables.counters.arg(1),
                    parts.iter().map(|&(first, _)| first as u32).collect(),
                    n as u32,
                    n_tiles as u32,
                    tables.n_slots as u32,
                    tables.n_counters as u32,
                    order.is_some(),
                );
            }
        });
        Self { levels: tables.insert(gpu, &all), tiles: Mutex::new(Vec::new()) }
    }

    /// Levels above the rows.
    pub fn n_levels(&self) -> usize {
        self.levels.len()
    }

    /// Rows `[n, 4]` of a level and their number; 0 is the level next to the rows that were given.
    pub fn rows(&self, level: usize) -> (&Buffer, usize) {
        let index = &self.levels[level];
        (&index.coords, index.n_rows)
    }

    /// The index of a level.
    pub fn index_of(&self, level: usize) -> &BlockIndex {
        &self.levels[level]
    }

    /// The tiles of a relation from one level onto another. The first call brings those of all levels as far apart, in one launch without a
    /// wait. `None` where they would have to be counted: [`Tiles::build`] makes such.
    ///
    /// # Errors
    /// As [`Tiles::build`].
    pub fn tiles(
        &self,
        gpu: &Gpu,
        [from, onto]: [usize; 2],
        geometry: Geometry,
    ) -> Result<Option<Arc<Tiles>>> {
        let between = (onto as isize - from as isize, geometry);
        // Entries are pushed whole, so a panic elsewhere leaves the list as it should be.
        let mut known = self.tiles.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, tiles)) = known.iter().find(|(at, _)| *at == between) {
            return Ok(tiles[from].clone());
        }
        let n = self.levels.len();
        let targets = (0..n).map(|level| level.checked_add_signed(between.0).filter(|&onto| onto < n));
        let relations: Vec<_> = targets
            .clone()
            .enumerate()
            .filter_map(|(from, onto)| Some((&self.levels[from], &self.levels[onto?])))
            .collect();
        let mut built = build_together(gpu, &relations, geometry)?.into_iter();
        let tiles: Vec<_> = targets.map(|onto| onto.and_then(|_| built.next()?).map(Arc::new)).collect();
        let found = tiles[from].clone();
        known.push((between, tiles));
        Ok(found)
    }
}

impl std::fmt::Debug for Pyramid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rows: Vec<usize> = self.levels.iter().map(|level| level.n_rows).collect();
        write!(f, "Pyramid({rows:?})")
    }
}
