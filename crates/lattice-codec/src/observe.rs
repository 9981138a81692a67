//! What the network is asked while a cloud is coded: what it is trained with.

use crate::block::whole;
use crate::coder::BitCoder;
use crate::error::Result;
use crate::features;
use crate::geometry;
use crate::judge::{Head, Judge, Sight};

/// How many features there are; each holds or does not.
pub const N_FEATURES: usize = features::COUNT;
/// How many kinds of questions there are.
pub const N_HEADS: usize = Head::COUNT;
/// Hidden numbers of the network.
pub const N_HIDDEN: usize = crate::network::WIDTH;

/// What happens while a block is coded, in order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event<'a> {
    /// A cell begins, with these features.
    Cell(&'a [u16]),
    /// A feature is added to those of the cell.
    Feature(u16),
    /// The kind of a question about the cell, its answer, and the probability of 65,536 that the contexts gave.
    Question(usize, bool, u32),
}

struct Watcher<F> {
    features: Vec<u16>,
    visit: F,
}

impl<F: FnMut(Event<'_>)> Judge for Watcher<F> {
    const LOOKS: bool = true;

    fn look(&mut self, sight: &Sight<'_>) {
        self.features.clear();
        features::of(sight, |feature| self.features.push(feature));
        (self.visit)(Event::Cell(&self.features));
    }

    fn code(&mut self, _: &mut impl BitCoder, head: Head, bit: bool, p: u32) -> bool {
        (self.visit)(Event::Question(head.number(), bit, p));
        if let Some(feature) = features::answered(head, bit) {
            (self.visit)(Event::Feature(feature));
        }
        bit
    }
}

/// A coder that writes nothing.
struct Nowhere;

impl BitCoder for Nowhere {
    fn code(&mut self, bit: bool, _: u32) -> bool {
        bit
    }
}

/// Tells what the network would be asked about voxels, which are distinct and in canonical order, as one block: at most [`crate::MAX_BLOCK_VOXELS`].
///
/// # Errors
/// [`crate::CodecError::Value`] for no voxels, too many, or another order.
pub fn observe(voxels: &[[i32; 3]], sensor: [i32; 3], visit: impl FnMut(Event<'_>)) -> Result<()> {
    let (shape, voxels) = whole(voxels, sensor)?;
    geometry::watch(shape, &voxels, Nowhere, Watcher { features: Vec::new(), visit });
    Ok(())
}
