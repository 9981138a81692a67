//! How much of a tile's work is of use: for people and for tests.

use lattice_core::Form;

use super::{CHUNK_ROWS, Tiles};

/// What tiles stage and compute, against what the relation has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TileReport {
    /// Tiles of 256 output rows.
    pub tiles: usize,
    /// Times that rows are staged; one a tile, but for those whose halo is too long.
    pub phases: usize,
    /// Input rows staged, over all phases.
    pub staged_rows: usize,
    /// Pairs of the relation.
    pub pairs: usize,
    /// Rows that matrix units multiply, over all taps: sixteen at a time where one of them has the tap.
    pub computed: usize,
    /// Bytes of all tables.
    pub bytes: usize,
}

impl Tiles {
    /// Counts the work of the tiles. Reads a word a tile and tap from the device.
    pub fn report(&self) -> TileReport {
        let words = match self.n_tiles {
            0 => Vec::new(),
            _ => self.gpu.download::<u32>(&self.chunks),
        };
        // Two neighbouring chunks are multiplied together.
        let both = |word: &u32| ((word | word >> 1) & 0x5555_5555).count_ones() as usize;
        TileReport {
            tiles: self.n_tiles,
            phases: self.phases(),
            staged_rows: self.halo_rows(),
            pairs: self.n_pairs(),
            computed: words.iter().map(both).sum::<usize>() * 2 * CHUNK_ROWS,
            bytes: self.bytes(),
        }
    }
}
