//! NEON, part of every 64-bit Arm CPU that runs an operating system.

use std::arch::aarch64::*;

use super::lanes::Lanes;
use super::outer::define_outer;
use super::product::define_product;
use super::{Outer, Product, outer, product};

/// Proof that this CPU has NEON. Only [`Neon::detect`] makes one.
#[derive(Clone, Copy, Debug)]
pub struct Neon(());

impl Neon {
    /// `None` where this CPU lacks the instructions.
    pub fn detect() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("neon").then_some(Self(()))
    }

    /// Twin: [`super::scalar::product`].
    pub(super) fn product(self, p: &Product<'_>, tile: &mut [f32]) {
        // SAFETY: `self` proves the instructions; `Engine::product` checked `p` and the tile.
        unsafe { product(p, tile.as_mut_ptr()) }
    }

    /// Twin: [`super::scalar::outer`].
    pub(super) fn outer(self, o: &Outer<'_>, sum: &mut [f32]) {
        // SAFETY: `self` proves the instructions; `Engine::outer` checked `o` and the sum.
        unsafe { outer(o, sum.as_mut_ptr()) }
    }
}

#[derive(Clone, Copy)]
struct F32x4(float32x4_t);

impl Lanes for F32x4 {
    const N: usize = 4;
    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller has NEON.
        Self(unsafe { vdupq_n_f32(0.0) })
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller has NEON and 4 floats at `p`.
        Self(unsafe { vld1q_f32(p) })
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller has NEON and room for 4 floats at `p`.
        unsafe { vst1q_f32(p, self.0) }
    }
    #[inline(always)]
    unsafe fn splat(p: *const f32) -> Self {
        // SAFETY: the caller has NEON and a float at `p`.
        Self(unsafe { vld1q_dup_f32(p) })
    }
    #[inline(always)]
    unsafe fn fma(self, a: Self, b: Self) -> Self {
        // SAFETY: the caller has NEON.
        Self(unsafe { vfmaq_f32(self.0, a.0, b.0) })
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the caller has NEON.
        Self(unsafe { vaddq_f32(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn prefetch(_p: *const f32) {}
}

// 24 accumulators of the 32 registers.
define_product!(F32x4, "neon", [(1, 12), (2, 12), (3, 8), (4, 6)], [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16]);
define_outer!(F32x4, "neon", [(1, 16), (2, 12), (3, 8), (4, 6)], [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16]);
