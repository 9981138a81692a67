//! Half precision to and from `f32`.

use half::{bf16, f16};

use super::{Engine, scalar};

impl Engine {
    /// Exact. Panics when the lengths differ.
    pub fn widen_f16(self, from: &[f16], to: &mut [f32]) {
        assert_eq!(from.len(), to.len());
        let from: &[u16] = bytemuck::cast_slice(from);
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(token) => token.widen_f16(from, to),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(token) => token.widen_f16(from, to),
            _ => scalar::widen_f16(from, to),
        }
    }

    /// To nearest, ties to even. Panics when the lengths differ.
    pub fn narrow_f16(self, from: &[f32], to: &mut [f16]) {
        assert_eq!(from.len(), to.len());
        let to: &mut [u16] = bytemuck::cast_slice_mut(to);
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(token) => token.narrow_f16(from, to),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(token) => token.narrow_f16(from, to),
            _ => scalar::narrow_f16(from, to),
        }
    }

    /// Exact. Panics when the lengths differ.
    pub fn widen_bf16(self, from: &[bf16], to: &mut [f32]) {
        assert_eq!(from.len(), to.len());
        self.vectorize(|| {
            for (to, from) in to.iter_mut().zip(from) {
                *to = f32::from_bits(u32::from(from.to_bits()) << 16);
            }
        });
    }

    /// To nearest, ties to even; NaN stays a (quiet) NaN. Panics when the lengths differ.
    pub fn narrow_bf16(self, from: &[f32], to: &mut [bf16]) {
        assert_eq!(from.len(), to.len());
        self.vectorize(|| {
            for (to, &from) in to.iter_mut().zip(from) {
                let bits = from.to_bits();
                let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
                let quiet = bits >> 16 | 0x40;
                *to = bf16::from_bits(if from.is_nan() { quiet } else { rounded } as u16);
            }
        });
    }
}
