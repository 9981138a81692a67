//! What a packed weight says of itself.

use lattice_cpu::PackedShape;

use crate::{Error, Result};

/// The logical form of a weight, which storage does not show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PackedLayout {
    /// `[c_out, c_in]`.
    Linear,
    /// `[taps, c_in, c_out]`.
    KernelMajor,
    /// `[c_out, x, y, z, c_in]`, taps z fastest.
    Dense5d,
}

impl PackedLayout {
    /// The name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::KernelMajor => "kernel_major",
            Self::Dense5d => "dense_5d",
        }
    }

    /// The layout of a name in files.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Linear, Self::KernelMajor, Self::Dense5d].into_iter().find(|layout| layout.name() == name)
    }

    /// Axes of the logical form.
    pub fn rank(self) -> usize {
        match self {
            Self::Linear => 2,
            Self::KernelMajor => 3,
            Self::Dense5d => 5,
        }
    }
}

/// Sizes and logical form of a packed weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PackedRecord {
    shape: PackedShape,
    kernel_size: [usize; 3],
    layout: PackedLayout,
}

impl PackedRecord {
    /// A record of `[c_in, c_out]` channels; with channel groups `c_in` is that of a group.
    ///
    /// # Errors
    /// Bits, group size or channels that cannot be stored; a kernel size that the layout does not have.
    pub fn try_new(
        bits: u32,
        group_size: usize,
        channels: [usize; 2],
        kernel_size: [usize; 3],
        layout: PackedLayout,
    ) -> Result<Self> {
        let op = "PackedRecord";
        let fits = match layout {
            PackedLayout::Linear => kernel_size == [1; 3],
            PackedLayout::KernelMajor => kernel_size[1..] == [1; 2],
            PackedLayout::Dense5d => true,
        };
        let taps = kernel_size.iter().try_fold(1usize, |n, &k| n.checked_mul(k));
        let Some(taps) = taps.filter(|_| fits) else {
            return Err(Error::Value {
                op,
                what: format!(
                    "expected a kernel size of the layout {} ([1, 1, 1] for linear, [taps, 1, 1] for kernel_major), found {kernel_size:?}",
                    layout.name()
                ),
            });
        };
        Ok(Self { shape: PackedShape::try_new(op, bits, group_size, taps, channels)?, kernel_size, layout })
    }

    /// Bits, group size, taps and channels, and the storage that follows from them.
    pub fn shape(&self) -> PackedShape {
        self.shape
    }

    /// Kernel cells along x, y, z.
    pub fn kernel_size(&self) -> [usize; 3] {
        self.kernel_size
    }

    /// Logical form.
    pub fn layout(&self) -> PackedLayout {
        self.layout
    }

    /// Dimensions of the logical form.
    pub fn logical_dims(&self) -> Vec<usize> {
        let (c_in, c_out) = (self.shape.c_in(), self.shape.c_out());
        let [x, y, z] = self.kernel_size;
        match self.layout {
            PackedLayout::Linear => vec![c_out, c_in],
            PackedLayout::KernelMajor => vec![self.shape.taps(), c_in, c_out],
            PackedLayout::Dense5d => vec![c_out, x, y, z, c_in],
        }
    }
}
