//! How the planes of a cube share a tile.

use super::EDGE;
use crate::tiles::{HALO_ROWS, TILE_ROWS};

/// How a tile is shared: what a plane does, and how many of them a cube has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CmmaPlan {
    /// Planes of a cube.
    pub planes: u32,
    /// Fragments of 16 rows that a plane does: 1 or 2.
    pub sides: usize,
    /// Fragments of 16 output channels that a plane holds sums of.
    pub columns: usize,
    /// Fragments of 16 input channels that are gathered at a time.
    pub steps: usize,
}

impl CmmaPlan {
    /// The plan of a convolution, found by `examples/conv_timing.rs` through Vulkan on an H200. Cubes of four planes fill multiprocessors better than
    /// those of eight (128 channels: 0.38 and 0.43 ms on 95 k rows); planes of one fragment of rows, or of four, take 1.1 to 1.9 times as long, and
    /// room for the rows of two taps up to 2 times, as fewer cubes are at work at once then.
    ///
    /// Weights are filled up to whole plans, so fragments are shared as evenly as plans allow.
    pub fn choose(c_in: usize, c_out: usize) -> Self {
        let even = |n: usize, least: usize, most: usize| {
            let n = n.max(1);
            let divides = |&size: &usize| n.is_multiple_of(size);
            (least..=most).rev().find(divides).unwrap_or(n.div_ceil(n.div_ceil(most)))
        };
        Self {
            planes: 4,
            sides: 2,
            // Many output channels are done at once, so that rows are gathered once for all of them.
            columns: even(c_out.div_ceil(EDGE), 4, 8),
            steps: even(c_in.div_ceil(EDGE), 2, 4),
        }
    }

    /// Rows of a tile that a plane does.
    pub(super) const fn rows(&self) -> usize {
        self.sides * EDGE
    }

    /// Cubes of a tile and a block of output channels.
    pub(super) const fn parts(&self) -> u32 {
        (TILE_ROWS / self.rows()) as u32 / self.planes
    }

    /// Vectors of eight that a row takes where it is gathered: one more than it has channels, so that rows fall on different banks.
    pub(super) const fn row_vectors(&self) -> usize {
        2 * self.steps + 1
    }

    /// Bytes of shared memory of a cube.
    pub(super) const fn shared_bytes(&self) -> usize {
        let planes = self.planes as usize;
        planes * (self.rows() * self.row_vectors() * 16 + EDGE * EDGE * 4) + HALO_ROWS * 4
    }

    /// Panics where planes do not share a tile evenly.
    pub(super) fn check(&self) {
        assert!(
            matches!(self.sides, 1 | 2) && self.columns > 0 && self.steps > 0,
            "conv_cmma: fragments of a plane"
        );
        let rows = self.planes as usize * self.rows();
        assert!(rows > 0 && TILE_ROWS.is_multiple_of(rows), "conv_cmma: planes share a tile evenly");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_channels_fill_their_plans() {
        let sizes = |c: usize| {
            let plan = CmmaPlan::choose(c, c);
            (plan.columns, plan.steps)
        };
        let usual = [4, 16, 32, 48, 64, 96, 128, 160, 192, 256, 512];
        let expected =
            [(1, 1), (1, 1), (2, 2), (3, 3), (4, 4), (6, 3), (8, 4), (5, 2), (6, 4), (8, 4), (8, 4)];
        assert_eq!(usual.map(sizes), expected);
        for c in 1..600 {
            let plan = CmmaPlan::choose(c, c);
            plan.check();
            assert!(plan.columns <= 8 && plan.steps <= 4, "{plan:?}");
            let (fragments, column_room) =
                (c.div_ceil(EDGE), c.div_ceil(EDGE).next_multiple_of(plan.columns));
            assert!(
                column_room - fragments < fragments.div_ceil(8),
                "{c} channels are filled up to {column_room}"
            );
            assert!(
                plan.shared_bytes() <= 32 << 10,
                "every device with matrix units of Vulkan has room for {plan:?}"
            );
        }
    }
}
