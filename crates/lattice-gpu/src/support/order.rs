//! What rows hold, and their canonical order.

use cubecl::prelude::*;
use lattice_core::Coord;

use super::kernel::{describe_kernel, pack_keys_kernel};
use super::pyramid::LevelMarks;
use crate::address::UNITS;
use crate::arena::Life;
use crate::gpu::{Buffer, Gpu};
use crate::index::{BlockIndex, DESCRIPTION};
use crate::sort::{Keys, sort_rows};
use crate::tiles::{ExpectedRelation, Tiles};

/// What [`describe`] finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Described {
    /// Smallest and largest value of each column; none without rows.
    pub bounds: Option<(Coord, Coord)>,
    /// Whether every row stands above the one before in canonical order.
    pub canonical: bool,
    /// Rows that repeat a coordinate of another row.
    pub duplicates: usize,
}

/// Smallest and largest value of each column; none without rows. One launch, and a wait.
pub fn bounds(gpu: &Gpu, coords: &Buffer) -> Option<(Coord, Coord)> {
    let n = coords.len / 4;
    if n == 0 {
        return None;
    }
    let mut start = [0i32; DESCRIPTION];
    start[..4].fill(i32::MAX);
    start[4..8].fill(i32::MIN);
    let found = gpu.upload(&start);
    // SAFETY: units past the rows only wait; the description has its words.
    unsafe {
        describe_kernel::launch_unchecked(
            gpu.client(),
            Gpu::cubes(n, UNITS as usize),
            CubeDim::new_1d(UNITS),
            coords.arg(4),
            found.arg(1),
            n as u32,
        );
    }
    Described::read(&gpu.download::<i32>(&found), 0).bounds
}

/// Whether a description is that of rows in canonical order.
#[cube]
pub(crate) fn is_canonical(description: &[i32]) -> bool {
    description[8] == 0i32
}

/// What is made of new rows before anyone knows what they are, with one wait for what that is.
pub struct NewRows {
    /// Their index.
    pub index: BlockIndex,
    /// What they are.
    pub found: Described,
    /// The marks of the coarser levels and the rows of each, where they were asked for and are known without another wait: of up to 2^20 rows.
    pub marks: Option<(LevelMarks, Vec<u32>)>,
    /// The tiles of the expected relation, where the rows are as expected, none repeats another one, and nothing had to be counted.
    pub tiles: Option<Tiles>,
}

/// The index of rows that may stand in any order and repeat each other, and what they hold. Two launches, four more that list up to 2^20 rows
/// in canonical order where they do not stand so, and a wait.
///
/// # Panics
/// As [`BlockIndex::build`].
pub fn describe(gpu: &Gpu, coords: &Buffer, n_rows: usize) -> (BlockIndex, Described) {
    let NewRows { index, found, .. } = describe_with(gpu, coords, n_rows, false, None);
    (index, found)
}

/// [`describe`], with what likely follows made before the wait, so that the device goes on meanwhile: the marks of `levels` in two launches
/// more, the tiles of an expected relation in one.
///
/// # Panics
/// As [`BlockIndex::build`].
pub fn describe_with(
    gpu: &Gpu,
    coords: &Buffer,
    n_rows: usize,
    levels: bool,
    expected: Option<ExpectedRelation>,
) -> NewRows {
    let (index, description) = BlockIndex::described(gpu, coords, n_rows);
    if n_rows == 0 {
        let found = Described { bounds: None, canonical: true, duplicates: 0 };
        return NewRows { index, found, marks: None, tiles: None };
    }
    // Repeated rows take each other's places, and nobody looks any up.
    index.list_unless_canonical(gpu);
    let order = index.known_order().filter(|_| levels);
    let marks = order.map(|order| LevelMarks::new(gpu, coords, Some(order), Some(&description)));
    let counts = marks.as_ref().map(|marks| &marks.counts);
    let read: Vec<&Buffer> = [&description, &index.counters].into_iter().chain(counts).collect();
    let asked = gpu.ask(&read);
    // After the answer, which does not wait for them.
    let tiles = expected.and_then(|expected| Tiles::build_ahead(gpu, &index, &description, expected));
    if tiles.is_some() {
        gpu.hand_over();
    }
    let answers = asked.words(&read);
    let columns: Vec<i32> = answers[0].iter().map(|word| word.cast_signed()).collect();
    let found = Described::read(&columns, answers[1][index.repeated_rows()] as usize);
    let as_expected = expected.is_some_and(|expected| expected.canonical == found.canonical);
    let tiles = tiles.filter(|_| as_expected && found.duplicates == 0).map(Tiles::confirmed);
    let marks = marks.zip(answers.into_iter().nth(2));
    let index = if found.canonical { index.in_canonical_order() } else { index };
    NewRows { index, found, marks, tiles }
}

impl Described {
    fn read(words: &[i32], duplicates: usize) -> Self {
        let columns = |from: usize| std::array::from_fn(|column| words[from + column]);
        Self { bounds: Some((columns(0), columns(4))), canonical: words[8] == 0, duplicates }
    }
}

/// The rows in canonical order, equal ones in the order they stand in. `None` where keys of these rows pass 64 bits: where the bits in
/// which rows differ along the axes, and those of the batch ids, are more in all.
pub fn canonical_order(gpu: &Gpu, coords: &Buffer, bounds: &(Coord, Coord)) -> Option<Buffer> {
    let (first, last) = bounds;
    let used: [(u32, u32); 3] = std::array::from_fn(|a| match (first[a + 1], last[a + 1]) {
        // The bits of the largest magnitude, and the sign.
        (low, high) if low < 0 && high >= 0 => (i32::BITS - high.max(!low).leading_zeros(), 1),
        // Rows between two values share the bits above the highest one in which those differ.
        (low, high) => (i32::BITS - (low ^ high).leading_zeros(), 0),
    });
    let signs = used.iter().rev().fold(0, |signs, (_, sign)| signs << 1 | sign);
    let batch_bits = i32::BITS - (last[0] - first[0]).leading_zeros();
    let bits = used.iter().map(|(bits, sign)| bits + sign).sum::<u32>() + batch_bits;
    if bits > 64 {
        return None;
    }
    let n = coords.len / 4;
    let [low, high] = [0; 2].map(|_| gpu.room(n, 4, Life::Passing));
    let keys = Keys { low, high, bits };
    // SAFETY: one unit a row, checked against the count.
    unsafe {
        pack_keys_kernel::launch_unchecked(
            gpu.client(),
            Gpu::cubes(n, UNITS as usize),
            CubeDim::new_1d(UNITS),
            coords.arg(4),
            keys.low.arg(1),
            keys.high.arg(1),
            n as u32,
            used[0].0,
            used[1].0,
            used[2].0,
            signs,
            first[0],
        );
    }
    Some(sort_rows(gpu, &keys).1)
}
