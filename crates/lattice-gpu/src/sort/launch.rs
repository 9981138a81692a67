//! Sorts rows.

use cubecl::prelude::*;

use super::kernel::{DIGITS, TILE, UNITS, count_digits_kernel, move_rows_kernel, number_rows_kernel};
use super::scan::exclusive_sum;
use crate::arena::Life;
use crate::gpu::{Buffer, Gpu};

/// Keys of up to 64 bits as two words each, of which the low `bits` count.
#[derive(Clone, Debug)]
pub struct Keys {
    /// Bits 0 to 31.
    pub low: Buffer,
    /// Bits 32 to 63; not read where there are none.
    pub high: Buffer,
    /// How many of the bits may be set.
    pub bits: u32,
}

/// Tiles whose counts each of their cubes adds up for itself, which spares a launch; with more of them that would take longer.
const BY_TILE: usize = 256;

/// Sorts keys in ascending order, equal ones in the order they stood in; returns the sorted keys and the row each came from.
pub fn sort_rows(gpu: &Gpu, keys: &Keys) -> (Keys, Buffer) {
    let n = keys.low.len;
    let mut rows = gpu.empty(n, 4);
    let dim = CubeDim::new_1d(UNITS);
    let mut keys = keys.clone();
    if keys.bits == 0 || n == 0 {
        // SAFETY: positions are checked against the count, which is the length of the buffer.
        unsafe {
            number_rows_kernel::launch_unchecked(
                gpu.client(),
                Gpu::cubes(n, UNITS as usize),
                dim,
                rows.arg(1),
                n as u32,
            );
        }
        return (keys, rows);
    }
    let n_tiles = n.div_ceil(TILE as usize);
    let wide = keys.bits > 32;
    let lanes = gpu.client().properties().hardware.plane_size_max.min(UNITS);
    let passes = keys.bits.div_ceil(8);
    let by_tile = n_tiles <= BY_TILE;
    for pass in 0..passes {
        let life = if pass + 1 == passes { Life::Lasting } else { Life::Passing };
        let counts = gpu.room(DIGITS as usize * n_tiles, 4, Life::Passing);
        let high = if wide { gpu.room(n, 4, life) } else { keys.high.clone() };
        let moved = Keys { low: gpu.room(n, 4, life), high, bits: keys.bits };
        let moved_rows = gpu.room(n, 4, life);
        // SAFETY: positions are checked against the count, which is the length of every buffer that is read; places are a permutation
        // of the rows.
        unsafe {
            count_digits_kernel::launch_unchecked(
                gpu.client(),
                Gpu::cubes(n_tiles, 1),
                dim,
                keys.low.arg(1),
                keys.high.arg(1),
                counts.arg(1),
                n as u32,
                n_tiles as u32,
                8 * pass,
                by_tile,
            );
            if !by_tile {
                exclusive_sum(gpu, &counts);
            }
        }
        let kernel = ("move_rows", wide, pass == 0, lanes, by_tile);
        gpu.launch(Gpu::cubes(n_tiles, 1), kernel, |client, n_cubes| {
            // SAFETY: as above.
            unsafe {
                move_rows_kernel::launch_unchecked(
                    client,
                    n_cubes,
                    dim,
                    keys.low.arg(1),
                    keys.high.arg(1),
                    rows.arg(1),
                    counts.arg(1),
                    moved.low.arg(1),
                    moved.high.arg(1),
                    moved_rows.arg(1),
                    n as u32,
                    n_tiles as u32,
                    8 * pass,
                    wide,
                    pass == 0,
                    lanes,
                    by_tile,
                );
            }
        });
        (keys, rows) = (moved, moved_rows);
    }
    (keys, rows)
}
