//! The geometry of a kernel: its size, stride, padding and dilation, and the offsets of its taps.

use crate::{Error, Result};

/// Most taps that a kernel may have: tap numbers are stored in 16 bits.
pub const MAX_TAPS: usize = u16::MAX as usize;

/// Size, stride, padding and dilation of a kernel, each along x, y and z, in voxels of the lattice it stands on.
///
/// Tap `(i, j, l)` of a kernel of size `(Kx, Ky, Kz)` has number `(i * Ky + j) * Kz + l`: x outermost, z fastest. Weight rows,
/// mask bits and tap ids all use this number.
///
/// Values are checked by [`KernelSpec::try_new`]; operations that take a spec check it again, so a spec that was put together by
/// hand gives an error there and never a wrong answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KernelSpec {
    /// Taps along x, y, z.
    pub size: [u32; 3],
    /// Voxels of the finer lattice per voxel of the coarser one.
    pub stride: [u32; 3],
    /// Shift of the window towards the negative side, in voxels. It never adds rows; `0` keeps odd kernels centred.
    pub padding: [u32; 3],
    /// Distance between neighbouring taps, in voxels.
    pub dilation: [u32; 3],
}

impl KernelSpec {
    /// A checked spec.
    ///
    /// # Errors
    /// [`Error::Value`] when a size, stride or dilation is 0, or a stride or padding passes `i32::MAX`; [`Error::Limit`] when
    /// the kernel has more than [`MAX_TAPS`] taps or an offset passes 32 bits.
    pub fn try_new(size: [u32; 3], stride: [u32; 3], padding: [u32; 3], dilation: [u32; 3]) -> Result<Self> {
        let spec = Self { size, stride, padding, dilation };
        spec.check("kernel")?;
        Ok(spec)
    }

    /// A kernel with `size` taps and the same `stride` along every axis, without padding and dilation.
    ///
    /// # Errors
    /// As [`KernelSpec::try_new`].
    pub fn cube(size: u32, stride: u32) -> Result<Self> {
        Self::try_new([size; 3], [stride; 3], [0; 3], [1; 3])
    }

    /// Refuses what [`KernelSpec::try_new`] refuses, in the name of `op`.
    pub(crate) fn check(&self, op: &'static str) -> Result<()> {
        let positive = |name: &str, values: [u32; 3]| match values.iter().all(|&v| v > 0) {
            true => Ok(()),
            false => Err(Error::Value {
                op,
                what: format!("{name} {values:?} expected to be at least 1 on every axis"),
            }),
        };
        positive("kernel size", self.size)?;
        positive("stride", self.stride)?;
        positive("dilation", self.dilation)?;
        for (name, values) in [("stride", self.stride), ("padding", self.padding)] {
            if values.iter().any(|&v| v > i32::MAX as u32) {
                return Err(Error::Value {
                    op,
                    what: format!("{name} {values:?} expected to be at most {}", i32::MAX),
                });
            }
        }
        let taps = self.size.iter().fold(1u128, |n, &k| n * u128::from(k));
        if taps > MAX_TAPS as u128 {
            let what = format!(
                "kernel of size {:?} has {taps} taps, at most {MAX_TAPS} are possible; use a smaller kernel",
                self.size
            );
            return Err(Error::Limit { op, what });
        }
        for axis in 0..3 {
            let reach = u64::from(self.size[axis] - 1) * u64::from(self.dilation[axis]);
            if reach > i32::MAX as u64 {
                let what = format!(
                    "dilation {:?} puts taps {reach} voxels apart, at most {} are possible",
                    self.dilation,
                    i32::MAX
                );
                return Err(Error::Limit { op, what });
            }
        }
        Ok(())
    }

    /// Number of taps.
    pub fn taps(&self) -> usize {
        self.size.iter().map(|&k| k as usize).product()
    }

    /// True for a size-1 kernel without stride, padding and dilation: a plain matrix product, for which no relation is needed.
    pub fn is_pointwise(&self) -> bool {
        self.size == [1; 3] && self.stride == [1; 3] && self.padding == [0; 3] && self.dilation == [1; 3]
    }

    /// True when every size is odd, so that the kernel has a middle tap.
    pub fn is_odd(&self) -> bool {
        self.size.iter().all(|k| k % 2 == 1)
    }

    /// Offset of every tap in the forward, submanifold and target formulas: `(i - (K - 1) / 2) * d` on axes of odd size and
    /// `i * d` on axes of even size.
    pub fn centred_offsets(&self) -> Vec<[i32; 3]> {
        self.offsets_from(self.first_offsets(TapOrigin::Centred))
    }

    /// Offset of every tap in the transposed, generative and target-transposed formulas: `i * d` on every axis.
    pub fn indexed_offsets(&self) -> Vec<[i32; 3]> {
        self.offsets_from([0; 3])
    }

    /// True when windows of neighbouring outputs share inputs on some axis: `stride <= (size - 1) * dilation`.
    pub fn overlaps(&self) -> bool {
        (0..3).any(|a| u64::from(self.stride[a]) <= u64::from(self.size[a] - 1) * u64::from(self.dilation[a]))
    }

    /// Offset of tap 0 per axis. The phase of even kernels is decided here and nowhere else.
    pub(crate) fn first_offsets(&self, origin: TapOrigin) -> [i64; 3] {
        std::array::from_fn(|a| match origin {
            TapOrigin::Centred if self.size[a] % 2 == 1 => {
                -i64::from((self.size[a] - 1) / 2) * i64::from(self.dilation[a])
            }
            _ => 0,
        })
    }

    fn offsets_from(&self, first: [i64; 3]) -> Vec<[i32; 3]> {
        let at = |a: usize, i: u32| (first[a] + i64::from(i) * i64::from(self.dilation[a])) as i32;
        let mut offsets = Vec::with_capacity(self.taps());
        for i in 0..self.size[0] {
            for j in 0..self.size[1] {
                offsets.extend((0..self.size[2]).map(|l| [at(0, i), at(1, j), at(2, l)]));
            }
        }
        offsets
    }
}

/// Which offset tap 0 has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TapOrigin {
    /// Odd axes are centred; even axes start at 0.
    Centred,
    /// Every axis starts at 0.
    Indexed,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use rstest::rstest;

    fn spec(size: [u32; 3], dilation: [u32; 3]) -> KernelSpec {
        KernelSpec::try_new(size, [1; 3], [0; 3], dilation).unwrap()
    }

    #[test]
    fn taps_are_numbered_with_z_fastest() {
        assert_eq!(spec([3, 1, 1], [1; 3]).centred_offsets(), [[-1, 0, 0], [0, 0, 0], [1, 0, 0]]);
        let mixed = [[0, -1, 0], [0, 0, 0], [0, 1, 0], [1, -1, 0], [1, 0, 0], [1, 1, 0]];
        assert_eq!(spec([2, 3, 1], [1; 3]).centred_offsets(), mixed);
        assert_eq!(spec([4, 1, 1], [2; 3]).centred_offsets(), [[0, 0, 0], [2, 0, 0], [4, 0, 0], [6, 0, 0]]);
        let cube = spec([3; 3], [1; 3]).centred_offsets();
        for (tap, offset) in [
            (0, [-1, -1, -1]),
            (1, [-1, -1, 0]),
            (2, [-1, -1, 1]),
            (3, [-1, 0, -1]),
            (13, [0; 3]),
            (14, [0, 0, 1]),
            (26, [1; 3]),
        ] {
            assert_eq!(cube[tap], offset);
        }
        assert_eq!(spec([2; 3], [1; 3]).centred_offsets()[6], [1, 1, 0]);
        assert_eq!(spec([3, 1, 1], [2; 3]).indexed_offsets(), [[0, 0, 0], [2, 0, 0], [4, 0, 0]]);
    }

    #[rstest]
    #[case::exact(2, 2, 1, false)]
    #[case::overlap(3, 2, 1, true)]
    #[case::gap(2, 3, 1, false)]
    #[case::dilated(2, 2, 2, true)]
    #[case::stride_one(1, 1, 1, false)]
    fn windows_overlap_when_the_stride_is_short(
        #[case] k: u32,
        #[case] s: u32,
        #[case] d: u32,
        #[case] overlaps: bool,
    ) {
        assert_eq!(KernelSpec::try_new([k; 3], [s; 3], [0; 3], [d; 3]).unwrap().overlaps(), overlaps);
    }

    #[test]
    fn impossible_kernels_are_refused() {
        assert!(matches!(KernelSpec::cube(0, 1), Err(Error::Value { .. })));
        assert!(matches!(KernelSpec::cube(3, 0), Err(Error::Value { .. })));
        assert!(matches!(KernelSpec::try_new([3; 3], [1; 3], [0; 3], [1, 0, 1]), Err(Error::Value { .. })));
        assert!(matches!(
            KernelSpec::try_new([3; 3], [1; 3], [u32::MAX; 3], [1; 3]),
            Err(Error::Value { .. })
        ));
        assert!(matches!(KernelSpec::cube(41, 1), Err(Error::Limit { .. })));
        assert!(matches!(KernelSpec::cube(u32::MAX, 1), Err(Error::Limit { .. })));
        assert!(matches!(
            KernelSpec::try_new([3; 3], [1; 3], [0; 3], [u32::MAX; 3]),
            Err(Error::Limit { .. })
        ));
        assert_eq!(KernelSpec::cube(40, 1).unwrap().taps(), 64_000);
        assert!(KernelSpec::cube(1, 1).unwrap().is_pointwise());
    }
}
