//! What the network is told of a cell: the numbers of the features that hold, each of them yes or no.

use crate::judge::{Head, Sight};

/// Cells of the level up to two away: 5 x 5 x 5 around the cell, of which its octant leaves four on each axis.
const CELLS: u16 = 0;
/// The 27 cells around the parent, for each octant.
const PARENTS: u16 = CELLS + 125;
/// Children of the cells around that are known, as [`crate::window`] numbers them.
const KNOWN: u16 = PARENTS + 27 * 8;
/// Cells around that come later.
const LATER: u16 = KNOWN + 64;
/// The octant.
const OCTANT: u16 = LATER + 27;
/// Levels below: 1 to 6, the last for more.
const LEVEL: u16 = OCTANT + 8;
/// Direction from the sensor along the ground, a sixteenth of a turn each.
const AZIMUTH: u16 = LEVEL + 6;
/// Binary logarithm of the distance along the ground, in halves of a child.
const RANGE: u16 = AZIMUTH + 16;
/// Height over distance from the sensor, an eighth each.
const SLOPE: u16 = RANGE + 16;
/// It was asked whether the cell has one child, and it has more.
const MANY: u16 = SLOPE + 16;
/// Children that were found so far.
const FOUND: u16 = MANY + 1;
/// How many there are.
pub(crate) const COUNT: usize = FOUND as usize + 8;

/// Place of a window's cell in the frame of 5 x 5 x 5 cells, for the last octant.
static FRAME: [u8; 64] = frame_table();

const fn frame_table() -> [u8; 64] {
    let (mut table, mut bit) = ([0; 64], 0);
    while bit < 64 {
        table[bit] = (bit % 4 + 5 * (bit / 4 % 4) + 25 * (bit / 16)) as u8;
        bit += 1;
    }
    table
}

/// Numbers of the bits that are set.
#[inline]
fn each_bit(mut bits: u64, mut f: impl FnMut(u16)) {
    while bits != 0 {
        f(bits.trailing_zeros() as u16);
        bits &= bits - 1;
    }
}

/// A sixteenth of a turn, from 0 on; which is which does not matter.
#[inline]
fn azimuth([x, y, _]: [i64; 3]) -> u16 {
    let (a, b) = (x.abs(), y.abs());
    let (least, most) = (a.min(b), a.max(b));
    // tan(22.5 degrees) is 0.4142.
    let outer = 29 * most < 70 * least;
    u16::from(x < 0) << 3 | u16::from(y < 0) << 2 | u16::from(a < b) << 1 | u16::from(outer)
}

/// Calls `f` with every feature that holds before anything is asked.
#[inline]
pub(crate) fn of(sight: &Sight<'_>, mut f: impl FnMut(u16)) {
    let octant = sight.octant as u16 & 7;
    let away = [octant & 1, octant >> 1 & 1, octant >> 2].map(|side| 1 - side);
    let from = CELLS + away[0] + 5 * away[1] + 25 * away[2];
    each_bit(sight.window, |bit| f(from + u16::from(FRAME[usize::from(bit)])));
    each_bit(u64::from(sight.parents), |d| f(PARENTS + 27 * octant + d));
    each_bit(sight.around.known, |bit| f(KNOWN + bit));
    each_bit(u64::from(sight.around.later), |d| f(LATER + d));
    f(OCTANT + octant);
    f(LEVEL + sight.around.levels_left.clamp(1, 6) as u16 - 1);
    f(AZIMUTH + azimuth(sight.centre));
    let range = sight.range.max(1);
    f(RANGE + (63 - range.leading_zeros()).min(15) as u16);
    f(SLOPE + ((sight.centre[2] * 8).div_euclid(range).clamp(-8, 7) + 8) as u16);
}

/// The feature that the answer to a question adds.
#[inline]
pub(crate) fn answered(head: Head, bit: bool) -> Option<u16> {
    match (head, bit) {
        (Head::Lone, false) => Some(MANY),
        (Head::Child(c), true) => Some(FOUND + (c & 7) as u16),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::occupancy::Surroundings;

    #[test]
    fn features_name_cells_by_where_they_lie() {
        for octant in 0..8u32 {
            for bit in 0..64 {
                let around = Surroundings {
                    cells: 1 << 13,
                    known: 0,
                    open: 0,
                    later: 0,
                    siblings: 1,
                    levels_left: 9,
                    elevation: [0; 2],
                };
                let sight =
                    Sight { around: &around, octant, window: 1 << bit, parents: 0, centre: [0; 3], range: 1 };
                let mut list = Vec::new();
                of(&sight, |f| list.push(f));
                // The cell itself is at 1 or 2 on each axis of its window, and in the middle of the frame.
                let away = |axis: u32| i64::from(bit >> (2 * axis) & 3) - i64::from(1 + (octant >> axis & 1));
                let expected = (away(0) + 2) + 5 * (away(1) + 2) + 25 * (away(2) + 2);
                assert_eq!(i64::from(list[0]), expected);
                assert_eq!(list.len(), 6);
                assert!(list.iter().all(|f| usize::from(*f) < COUNT));
            }
        }
    }

    #[test]
    fn directions_are_sixteen() {
        let mut seen = Vec::new();
        for step in 0..16 {
            let (s, c) = (f64::from(step) * 22.5 + 11.25).to_radians().sin_cos();
            seen.push(azimuth([(c * 1e6) as i64, (s * 1e6) as i64, 0]));
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..16).collect::<Vec<u16>>());
    }
}
