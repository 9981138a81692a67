//! AVX2 and AVX-512.

use super::lanes::Lanes;
use super::outer::define_outer;
use super::product::define_product;
use super::{Outer, Product};

/// Proof that this CPU has AVX2, FMA and F16C. Only [`Avx2::detect`] makes one.
#[derive(Clone, Copy, Debug)]
pub struct Avx2(());

/// Proof that this CPU has AVX-512 F, VL, BW and DQ beside AVX2, FMA and F16C. Only [`Avx512::detect`] makes one.
#[derive(Clone, Copy, Debug)]
pub struct Avx512(());

macro_rules! methods {
    ($token:ident, $module:ident) => {
        impl $token {
            /// Twin: [`super::scalar::product`].
            pub(super) fn product(self, p: &Product<'_>, tile: &mut [f32]) {
                // SAFETY: `self` proves the instructions; `Engine::product` checked `p` and the tile.
                unsafe { $module::run_product(p, tile) }
            }

            /// Twin: [`super::scalar::outer`].
            pub(super) fn outer(self, o: &Outer<'_>, sum: &mut [f32]) {
                // SAFETY: `self` proves the instructions; `Engine::outer` checked `o` and the sum.
                unsafe { $module::run_outer(o, sum) }
            }

            /// Twin: the call of `f` itself.
            #[inline(always)]
            pub fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
                // SAFETY: `self` proves the instructions.
                unsafe { $module::call(f) }
            }

            /// Twin: [`super::scalar::widen_f16`].
            pub fn widen_f16(self, from: &[u16], to: &mut [f32]) {
                assert_eq!(from.len(), to.len());
                // SAFETY: `self` proves the instructions; the lengths agree.
                unsafe { $module::widen_f16(from, to) }
            }

            /// Twin: [`super::scalar::narrow_f16`].
            pub fn narrow_f16(self, from: &[f32], to: &mut [u16]) {
                assert_eq!(from.len(), to.len());
                // SAFETY: `self` proves the instructions; the lengths agree.
                unsafe { $module::narrow_f16(from, to) }
            }
        }
    };
}
methods!(Avx2, avx2);
methods!(Avx512, avx512);

impl Avx2 {
    /// `None` where this CPU lacks the instructions.
    pub fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        has.then_some(Self(()))
    }
}

impl Avx512 {
    /// `None` where this CPU lacks the instructions.
    pub fn detect() -> Option<Self> {
        let has = Avx2::detect().is_some()
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq");
        has.then_some(Self(()))
    }
}

mod avx2 {
    use std::arch::x86_64::*;

    use super::{Lanes, Outer, Product, define_outer, define_product};
    use crate::simd::{outer, product, scalar};

    #[derive(Clone, Copy)]
    pub(super) struct F32x8(__m256);

    impl Lanes for F32x8 {
        const N: usize = 8;
        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: the caller has AVX2.
            Self(unsafe { _mm256_setzero_ps() })
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> Self {
            // SAFETY: the caller has AVX2 and 8 floats at `p`.
            Self(unsafe { _mm256_loadu_ps(p) })
        }
        #[inline(always)]
        unsafe fn store(self, p: *mut f32) {
            // SAFETY: the caller has AVX2 and room for 8 floats at `p`.
            unsafe { _mm256_storeu_ps(p, self.0) }
        }
        #[inline(always)]
        unsafe fn splat(p: *const f32) -> Self {
            // SAFETY: the caller has AVX2 and a float at `p`.
            Self(unsafe { _mm256_set1_ps(*p) })
        }
        #[inline(always)]
        unsafe fn fma(self, a: Self, b: Self) -> Self {
            // SAFETY: the caller has FMA.
            Self(unsafe { _mm256_fmadd_ps(a.0, b.0, self.0) })
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: the caller has AVX2.
            Self(unsafe { _mm256_add_ps(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn prefetch(p: *const f32) {
            // SAFETY: a prefetch touches no memory.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
        }
    }

    define_product!(F32x8, "avx2,fma,f16c", [(1, 12), (2, 6)], [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16]);
    define_outer!(F32x8, "avx2,fma,f16c", [(1, 12), (2, 6)], [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16]);

    /// # Safety
    /// The instruction set is present and `p` was checked.
    pub(super) unsafe fn run_product(p: &Product<'_>, tile: &mut [f32]) {
        // SAFETY: passed on to the caller.
        unsafe { product(p, tile.as_mut_ptr()) }
    }

    /// # Safety
    /// The instruction set is present and `o` was checked.
    pub(super) unsafe fn run_outer(o: &Outer<'_>, sum: &mut [f32]) {
        // SAFETY: passed on to the caller.
        unsafe { outer(o, sum.as_mut_ptr()) }
    }

    /// # Safety
    /// The instruction set is present.
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) unsafe fn call<R>(f: impl FnOnce() -> R) -> R {
        f()
    }

    /// # Safety
    /// The instruction set is present and the lengths are equal.
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) unsafe fn widen_f16(from: &[u16], to: &mut [f32]) {
        let whole = from.len() / 8 * 8;
        for i in (0..whole).step_by(8) {
            // SAFETY: `i + 8` is within both slices.
            unsafe {
                let half = _mm_loadu_si128(from.as_ptr().add(i).cast());
                _mm256_storeu_ps(to.as_mut_ptr().add(i), _mm256_cvtph_ps(half));
            }
        }
        scalar::widen_f16(&from[whole..], &mut to[whole..]);
    }

    /// # Safety
    /// The instruction set is present and the lengths are equal.
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) unsafe fn narrow_f16(from: &[f32], to: &mut [u16]) {
        let whole = from.len() / 8 * 8;
        for i in (0..whole).step_by(8) {
            // SAFETY: `i + 8` is within both slices.
            unsafe {
                let half =
                    _mm256_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT }>(_mm256_loadu_ps(from.as_ptr().add(i)));
                _mm_storeu_si128(to.as_mut_ptr().add(i).cast(), half);
            }
        }
        scalar::narrow_f16(&from[whole..], &mut to[whole..]);
    }
}

mod avx512 {
    use std::arch::x86_64::*;

    use super::{Lanes, Outer, Product, define_outer, define_product};
    use crate::simd::{outer, product, scalar};

    #[derive(Clone, Copy)]
    pub(super) struct F32x16(__m512);

    impl Lanes for F32x16 {
        const N: usize = 16;
        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: the caller has AVX-512 F.
            Self(unsafe { _mm512_setzero_ps() })
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> Self {
            // SAFETY: the caller has AVX-512 F and 16 floats at `p`.
            Self(unsafe { _mm512_loadu_ps(p) })
        }
        #[inline(always)]
        unsafe fn store(self, p: *mut f32) {
            // SAFETY: the caller has AVX-512 F and room for 16 floats at `p`.
            unsafe { _mm512_storeu_ps(p, self.0) }
        }
        #[inline(always)]
        unsafe fn splat(p: *const f32) -> Self {
            // SAFETY: the caller has AVX-512 F and a float at `p`.
            Self(unsafe { _mm512_set1_ps(*p) })
        }
        #[inline(always)]
        unsafe fn fma(self, a: Self, b: Self) -> Self {
            // SAFETY: the caller has AVX-512 F.
            Self(unsafe { _mm512_fmadd_ps(a.0, b.0, self.0) })
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: the caller has AVX-512 F.
            Self(unsafe { _mm512_add_ps(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn prefetch(p: *const f32) {
            // SAFETY: a prefetch touches no memory.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
        }
    }

    // Heights by measurement (`examples/conv_timing.rs`): at most 24 accumulators of the 32 registers.
    define_product!(F32x16, "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,f16c", [(1, 12), (2, 12), (3, 8), (4, 6)], [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16]);
    define_outer!(F32x16, "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,f16c", [(1, 16), (2, 12), (3, 8), (4, 6)], [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16]);

    /// # Safety
    /// The instruction set is present and `p` was checked.
    pub(super) unsafe fn run_product(p: &Product<'_>, tile: &mut [f32]) {
        // SAFETY: passed on to the caller.
        unsafe { product(p, tile.as_mut_ptr()) }
    }

    /// # Safety
    /// The instruction set is present and `o` was checked.
    pub(super) unsafe fn run_outer(o: &Outer<'_>, sum: &mut [f32]) {
        // SAFETY: passed on to the caller.
        unsafe { outer(o, sum.as_mut_ptr()) }
    }

    /// # Safety
    /// The instruction set is present.
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,f16c")]
    pub(super) unsafe fn call<R>(f: impl FnOnce() -> R) -> R {
        f()
    }

    /// # Safety
    /// The instruction set is present and the lengths are equal.
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,f16c")]
    pub(super) unsafe fn widen_f16(from: &[u16], to: &mut [f32]) {
        let whole = from.len() / 16 * 16;
        for i in (0..whole).step_by(16) {
            // SAFETY: `i + 16` is within both slices.
            unsafe {
                let half = _mm256_loadu_si256(from.as_ptr().add(i).cast());
                _mm512_storeu_ps(to.as_mut_ptr().add(i), _mm512_cvtph_ps(half));
            }
        }
        scalar::widen_f16(&from[whole..], &mut to[whole..]);
    }

    /// # Safety
    /// The instruction set is present and the lengths are equal.
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,f16c")]
    pub(super) unsafe fn narrow_f16(from: &[f32], to: &mut [u16]) {
        let whole = from.len() / 16 * 16;
        for i in (0..whole).step_by(16) {
            // SAFETY: `i + 16` is within both slices.
            unsafe {
                let half =
                    _mm512_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT }>(_mm512_loadu_ps(from.as_ptr().add(i)));
                _mm256_storeu_si256(to.as_mut_ptr().add(i).cast(), half);
            }
        }
        scalar::narrow_f16(&from[whole..], &mut to[whole..]);
    }
}
