//! Cells around a cell as bits of one word.
//!
//! The children of a cell and the ring of children around them are a window of 4 x 4 x 4 cells: bit `x + 4 y + 16 z`, the cell's own
//! children at 1 and 2 on each axis. The 3 x 3 x 3 cells around one of these children are then a shift and a mask away.
//!
//! A cell and the 26 around it are numbered `(dx + 1) + 3 (dy + 1) + 9 (dz + 1)`; 13 is the cell itself.

/// Children of a neighbour that lie in the window.
static NEAR: [u8; 27] = near_table();
/// How far the spread children of a neighbour are turned to their place.
static TURN: [u32; 27] = turn_table();
/// Children as bits `x + 4 y + 16 z`.
static SPREAD: [u64; 256] = spread_table();
/// For each cell of the window the neighbour that holds it, and which child of it it is.
pub(crate) static HOLDER: [(u8, u8); 64] = holder_table();

/// Bits of a window that surround the child at its low corner: 3 x 3 x 3 cells, the child in the middle.
pub(crate) const AROUND: u64 = 0x0777_0777_0777;

const fn near_table() -> [u8; 27] {
    let (mut table, mut d) = ([0u8; 27], 0);
    while d < 27 {
        let mut c = 0;
        while c < 8 {
            let (mut inside, mut axis, mut from) = (true, 0, d);
            while axis < 3 {
                // A neighbour below gives its upper children, one above its lower ones.
                let (side, half) = (from % 3, c >> axis & 1);
                inside = inside && !(side == 0 && half == 0) && !(side == 2 && half == 1);
                from /= 3;
                axis += 1;
            }
            if inside {
                table[d] |= 1 << c;
            }
            c += 1;
        }
        d += 1;
    }
    table
}

const fn turn_table() -> [u32; 27] {
    let (mut table, mut d) = ([0; 27], 0);
    while d < 27 {
        let side = [d as i32 % 3 - 1, d as i32 / 3 % 3 - 1, d as i32 / 9 - 1];
        let by = (1 + 2 * side[0]) + 4 * (1 + 2 * side[1]) + 16 * (1 + 2 * side[2]);
        table[d] = ((by + 64) % 64) as u32;
        d += 1;
    }
    table
}

const fn spread_table() -> [u64; 256] {
    let (mut table, mut children) = ([0; 256], 0);
    while children < 256 {
        let mut c = 0;
        while c < 8 {
            if children >> c & 1 == 1 {
                table[children] |= 1 << ((c & 1) + 4 * (c >> 1 & 1) + 16 * (c >> 2));
            }
            c += 1;
        }
        children += 1;
    }
    table
}

const fn holder_table() -> [(u8, u8); 64] {
    let (mut table, mut bit) = ([(0, 0); 64], 0);
    while bit < 64 {
        let at: [usize; 3] = [bit % 4, bit / 4 % 4, bit / 16];
        let (mut d, mut c, mut axis, mut place) = (0, 0, 0, 1);
        while axis < 3 {
            d += at[axis].div_ceil(2) * place;
            c |= ((at[axis] + 1) % 2) << axis;
            place *= 3;
            axis += 1;
        }
        table[bit] = (d as u8, c as u8);
        bit += 1;
    }
    table
}

/// The children of neighbour `d`, in the window.
#[inline]
pub(crate) fn placed(children: u8, d: usize) -> u64 {
    SPREAD[usize::from(children & NEAR[d])].rotate_left(TURN[d])
}

/// Bit of the low corner of what surrounds child `c`.
#[inline]
pub(crate) fn corner(c: u32) -> u32 {
    (c & 1) + 4 * (c >> 1 & 1) + 16 * (c >> 2)
}

/// Three rows of three bits of a plane of a window, as nine bits.
#[inline]
pub(crate) fn nine(plane: u64) -> usize {
    (plane & 7 | plane >> 1 & 0o70 | plane >> 2 & 0o700) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_hold_what_coordinates_say() {
        for d in 0..27usize {
            for c in 0..8usize {
                let mut expected = 0;
                let at: Vec<i32> = (0..3)
                    .map(|axis| 1 + 2 * (d as i32 / 3i32.pow(axis) % 3 - 1) + (c as i32 >> axis & 1))
                    .collect();
                if at.iter().all(|v| (0..4).contains(v)) {
                    let bit = at[0] + 4 * at[1] + 16 * at[2];
                    expected = 1u64 << bit;
                    assert_eq!(HOLDER[bit as usize], (d as u8, c as u8));
                }
                assert_eq!(placed(1 << c, d), expected, "child {c} of neighbour {d}");
            }
        }
        assert_eq!((0..27).map(|d| placed(0xff, d).count_ones()).sum::<u32>(), 64);
        let middle = 1u64 << (1 + 4 + 16);
        for c in 0..8 {
            assert_eq!(placed(1 << c, 13) >> corner(c), middle);
        }
        assert_eq!(AROUND.count_ones(), 27);
        assert_eq!(nine(0x777), 0x1ff);
        assert_eq!(nine(0x124), 0b001_010_100);
    }
}
