//! Who has the last word on a bit's probability: the contexts alone, or a network that sees more of the scan.

use crate::coder::BitCoder;
use crate::occupancy::Surroundings;

/// What is asked about a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Head {
    /// Whether one voxel is below it.
    Tail,
    /// Whether it has one child.
    Lone,
    /// A bit of its only child's number, z first, after the bits of the prefix: 1, then 2 and 3, then 4 to 7.
    Only(u32),
    /// Whether it has this child.
    Child(u32),
}

impl Head {
    /// How many there are.
    pub(crate) const COUNT: usize = 17;

    /// Its number.
    #[inline]
    pub(crate) fn number(self) -> usize {
        match self {
            Self::Tail => 0,
            Self::Lone => 1,
            Self::Only(prefix) => 1 + (prefix & 7) as usize,
            Self::Child(c) => 9 + (c & 7) as usize,
        }
    }
}

/// A cell and more of what is around it than the contexts read.
pub(crate) struct Sight<'a> {
    pub(crate) around: &'a Surroundings,
    /// Which child of its parent the cell is.
    pub(crate) octant: u32,
    /// Cells of its level around its parent's children, numbered as in [`crate::window`].
    pub(crate) window: u64,
    /// The cells around its parent.
    pub(crate) parents: u32,
    /// From the sensor to the cell's centre, in halves of a child.
    pub(crate) centre: [i64; 3],
    /// Its length along the ground, 1 or more.
    pub(crate) range: i64,
}

/// Codes bits with the probabilities that the contexts give, or with better ones.
pub(crate) trait Judge {
    /// Whether [`Judge::look`] wants to be called.
    const LOOKS: bool;

    /// Hears of a cell before it is asked about.
    fn look(&mut self, sight: &Sight<'_>);

    /// Codes a bit of the cell that was seen last; `p` is what the contexts say, of 65,536.
    fn code(&mut self, coder: &mut impl BitCoder, head: Head, bit: bool, p: u32) -> bool;
}

/// The contexts alone.
pub(crate) struct Contexts;

impl Judge for Contexts {
    const LOOKS: bool = false;

    #[inline]
    fn look(&mut self, _: &Sight<'_>) {}

    #[inline]
    fn code(&mut self, coder: &mut impl BitCoder, _: Head, bit: bool, p: u32) -> bool {
        coder.code(bit, p)
    }
}
