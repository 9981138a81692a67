//! The fence: every `unsafe` of this crate stands here.
//!
//! [`Engine`] is a proof of which instructions this CPU has, made once an operation; its methods check their slices and then run
//! the kernel of that instruction set. Each has a scalar twin of the same name in [`scalar`], which is also its test.

mod convert;
mod int_product;
mod lanes;
#[cfg(target_arch = "aarch64")]
mod neon;
mod outer;
mod product;
mod scalar;
mod tile_mut;
#[cfg(target_arch = "x86_64")]
mod vnni;
#[cfg(target_arch = "x86_64")]
mod x86;

pub(crate) use int_product::{IntEngine, IntProduct};
pub(crate) use outer::Outer;
pub(crate) use product::Product;
pub(crate) use tile_mut::{TileMut, split_tiles};

use crate::Isa;

/// Proof that this CPU has an instruction set. Only [`Engine::new`] makes one.
#[derive(Clone, Copy, Debug)]
pub enum Engine {
    /// Plain loops.
    Scalar,
    /// 8 lanes, 16 registers.
    #[cfg(target_arch = "x86_64")]
    Avx2(x86::Avx2),
    /// 16 lanes, 32 registers.
    #[cfg(target_arch = "x86_64")]
    Avx512(x86::Avx512),
    /// 4 lanes, 32 registers.
    #[cfg(target_arch = "aarch64")]
    Neon(neon::Neon),
}

impl Engine {
    /// `None` where this CPU lacks the instructions.
    pub fn new(isa: Isa) -> Option<Self> {
        match isa {
            Isa::Scalar => Some(Self::Scalar),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => x86::Avx2::detect().map(Self::Avx2),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => x86::Avx512::detect().map(Self::Avx512),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => neon::Neon::detect().map(Self::Neon),
            #[allow(unreachable_patterns, reason = "the instruction sets of other architectures")]
            _ => None,
        }
    }

    /// `f32` lanes of one vector.
    pub fn lanes(self) -> usize {
        match self {
            Self::Scalar => 8,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => 8,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => 16,
            #[cfg(target_arch = "aarch64")]
            Self::Neon(_) => 4,
        }
    }

    /// Most vectors that one micro-kernel holds side by side.
    pub fn max_vectors(self) -> usize {
        match self {
            Self::Scalar => 2,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => 2,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => 4,
            #[cfg(target_arch = "aarch64")]
            Self::Neon(_) => 4,
        }
    }

    /// `tile[out_local[p]] += x[rows[p]] @ b` for every pair `p`; see [`Product`].
    pub(crate) fn product(self, p: &Product<'_>, tile: &mut [f32]) {
        if p.rows.is_empty() || p.k == 0 {
            return;
        }
        self.vectorize(|| p.check(self.lanes(), self.max_vectors(), tile.len()));
        match self {
            Self::Scalar => scalar::product(p, self.lanes(), tile),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(token) => token.product(p, tile),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(token) => token.product(p, tile),
            #[cfg(target_arch = "aarch64")]
            Self::Neon(token) => token.product(p, tile),
        }
    }

    /// `sum += outer(x[x_rows[p]], g[g_rows[p]])` over all pairs `p`; see [`Outer`].
    pub(crate) fn outer(self, o: &Outer<'_>, sum: &mut [f32]) {
        if o.x_rows.is_empty() || o.k == 0 {
            return;
        }
        self.vectorize(|| o.check(self.lanes(), self.max_vectors(), sum.len()));
        match self {
            Self::Scalar => scalar::outer(o, self.lanes(), sum),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(token) => token.outer(o, sum),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(token) => token.outer(o, sum),
            #[cfg(target_arch = "aarch64")]
            Self::Neon(token) => token.outer(o, sum),
        }
    }

    /// Asks the cache for the first lines of a row that is read soon; a hint that changes no value.
    #[inline(always)]
    pub fn prefetch<T>(self, row: &[T]) {
        /// Hardware fetches the rest of a longer row by itself.
        const MOST_LINES: usize = 8;
        #[cfg(target_arch = "x86_64")]
        for line in (0..size_of_val(row)).step_by(64).take(MOST_LINES) {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: a prefetch touches no memory, and SSE, which has it, is part of every x86-64 CPU.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(row.as_ptr().cast::<i8>().wrapping_add(line)) }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (row, MOST_LINES);
    }

    /// Compiles `f` for this instruction set, so that the compiler vectorises plain loops with it. `f` must be small enough to be
    /// inlined whole.
    #[inline(always)]
    pub fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
        match self {
            Self::Scalar => f(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(token) => token.vectorize(f),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(token) => token.vectorize(f),
            #[cfg(target_arch = "aarch64")]
            Self::Neon(_) => f(),
        }
    }
}

#[cfg(test)]
mod tests;
