//! Products of bytes: AVX-512 VNNI, and AVX2 by way of 16-bit integers.

use std::arch::x86_64::*;

use super::IntProduct;
use super::x86::Avx2;

/// Proof that this CPU has AVX-512 F, BW, VL and VNNI. Only [`Vnni::detect`] makes one.
#[derive(Clone, Copy, Debug)]
pub struct Vnni(());

impl Vnni {
    /// `None` where this CPU lacks the instructions.
    pub fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni");
        has.then_some(Self(()))
    }

    /// Twin: [`super::scalar::int_product`].
    pub(super) fn int_product(self, p: &IntProduct<'_>, tile: &mut [f32]) {
        let tile = tile.as_mut_ptr();
        // SAFETY: `self` proves the instructions; `IntEngine::product` checked `p` and the tile; `vectors` selects the kernel.
        unsafe {
            match p.vectors {
                1 => wide::<1>(p, tile),
                2 => wide::<2>(p, tile),
                3 => wide::<3>(p, tile),
                _ => wide::<4>(p, tile),
            }
        }
    }
}

/// All pairs: as many at a time as the registers hold, then the rest in falling powers of two.
///
/// # Safety
/// AVX-512 VNNI is present, `IntProduct::check` has passed for 16 lanes and the tile, and `p.vectors == NV`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn wide<const NV: usize>(p: &IntProduct<'_>, tile: *mut f32) {
    let pairs = p.rows.len();
    let mut at = 0;
    // SAFETY: passed on to the caller; no call goes past `pairs`.
    unsafe {
        match NV {
            1 | 2 => {
                while at + 12 <= pairs {
                    wide_rows::<12, NV>(p, tile, at);
                    at += 12;
                }
            }
            3 => {}
            _ => {
                while at + 6 <= pairs {
                    wide_rows::<6, NV>(p, tile, at);
                    at += 6;
                }
            }
        }
        while NV < 4 && at + 8 <= pairs {
            wide_rows::<8, NV>(p, tile, at);
            at += 8;
        }
        while at + 4 <= pairs {
            wide_rows::<4, NV>(p, tile, at);
            at += 4;
        }
        while at + 2 <= pairs {
            wide_rows::<2, NV>(p, tile, at);
            at += 2;
        }
        if at < pairs {
            wide_rows::<1, NV>(p, tile, at);
        }
    }
}

/// `MR` pairs from pair `first` on: `MR x NV` accumulators stay in registers over all quads.
///
/// # Safety
/// As [`wide`], and `first + MR <= p.rows.len()`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline(never)]
unsafe fn wide_rows<const MR: usize, const NV: usize>(p: &IntProduct<'_>, tile: *mut f32, first: usize) {
    // SAFETY: the caller passed `check`, so every row, panel, factor and tile address is within its slice; prefetches touch nothing.
    unsafe {
        let x = p.x.as_ptr();
        let mut a = [x; MR];
        for (r, a) in a.iter_mut().enumerate() {
            *a = x.add(*p.rows.get_unchecked(first + r) as usize * p.stride + p.at);
        }
        if first + 2 * MR <= p.rows.len() {
            for r in 0..MR {
                let row = *p.rows.get_unchecked(first + MR + r) as usize;
                let next = x.wrapping_add(row * p.stride + p.at);
                let mut line = 0;
                while line < 4 * p.quads {
                    _mm_prefetch::<_MM_HINT_T0>(next.wrapping_add(line).cast());
                    line += 64;
                }
            }
        }
        let mut sum = [[_mm512_setzero_si512(); NV]; MR];
        for j in 0..NV {
            let begin = _mm512_loadu_si512(p.begin.as_ptr().add(16 * j).cast());
            for sum in &mut sum {
                sum[j] = begin;
            }
        }
        let mut b = p.b.as_ptr();
        for quad in 0..p.quads {
            let mut panel = [_mm512_setzero_si512(); NV];
            for (j, panel) in panel.iter_mut().enumerate() {
                *panel = _mm512_loadu_si512(b.add(16 * j).cast());
            }
            b = b.add(16 * NV);
            for (sum, a) in sum.iter_mut().zip(&a) {
                let a = _mm512_set1_epi32(a.add(4 * quad).cast::<i32>().read_unaligned());
                for (sum, &panel) in sum.iter_mut().zip(&panel) {
                    *sum = _mm512_dpbusd_epi32(*sum, a, panel);
                }
            }
        }
        for (r, sum) in sum.iter().enumerate() {
            let out = *p.out_local.get_unchecked(first + r) as usize;
            let row = tile.add(out * p.tile_stride + p.tile_at);
            let own = *p.rows.get_unchecked(first + r) as usize * p.sum_stride + p.sum_at;
            let own = _mm512_set1_ps(*p.sums.get_unchecked(own));
            for (j, &sum) in sum.iter().enumerate() {
                let c = row.add(16 * j);
                let scale = _mm512_loadu_ps(p.scales.as_ptr().add(16 * j));
                let offset = _mm512_loadu_ps(p.offsets.as_ptr().add(16 * j));
                let y = _mm512_fmadd_ps(own, offset, _mm512_loadu_ps(c));
                _mm512_storeu_ps(c, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), scale, y));
            }
        }
    }
}

impl Avx2 {
    /// Twin: [`super::scalar::int_product`].
    pub(super) fn int_product(self, p: &IntProduct<'_>, tile: &mut [f32]) {
        let tile = tile.as_mut_ptr();
        let pairs = p.rows.len();
        // SAFETY: `self` proves the instructions; `IntEngine::product` checked `p` and the tile; no call goes past `pairs`.
        unsafe {
            for vector in 0..p.vectors {
                let mut at = 0;
                while at + 4 <= pairs {
                    narrow_rows::<4>(p, tile, at, vector);
                    at += 4;
                }
                while at < pairs {
                    narrow_rows::<1>(p, tile, at, vector);
                    at += 1;
                }
            }
        }
    }
}

/// `MR` pairs from pair `first` on and one vector of 8 columns. `vpmaddubsw` would saturate where two products of a byte with a code
/// pass 16 bits, so that both are widened and summed by `vpmaddwd`.
///
/// # Safety
/// AVX2 and FMA are present, `IntProduct::check` has passed for 8 lanes and the tile, `vector < p.vectors`, and
/// `first + MR <= p.rows.len()`.
#[target_feature(enable = "avx2,fma")]
unsafe fn narrow_rows<const MR: usize>(p: &IntProduct<'_>, tile: *mut f32, first: usize, vector: usize) {
    // SAFETY: the caller passed `check`, so every row, panel, factor and tile address is within its slice.
    unsafe {
        let x = p.x.as_ptr();
        let mut a = [x; MR];
        for (r, a) in a.iter_mut().enumerate() {
            *a = x.add(*p.rows.get_unchecked(first + r) as usize * p.stride + p.at);
        }
        // Of each column two sums lie side by side: of channels 0 and 1, and of 2 and 3 of every quad.
        let mut low = [_mm256_setzero_si256(); MR];
        let mut high = [_mm256_setzero_si256(); MR];
        let mut b = p.b.as_ptr().add(8 * vector);
        for quad in 0..p.quads {
            let b_low = _mm256_cvtepi8_epi16(_mm_loadu_si128(b.cast()));
            let b_high = _mm256_cvtepi8_epi16(_mm_loadu_si128(b.add(4).cast()));
            b = b.add(8 * p.vectors);
            for r in 0..MR {
                let four = a[r].add(4 * quad).cast::<i32>().read_unaligned();
                let four = _mm256_cvtepu8_epi16(_mm_set1_epi32(four));
                low[r] = _mm256_add_epi32(low[r], _mm256_madd_epi16(four, b_low));
                high[r] = _mm256_add_epi32(high[r], _mm256_madd_epi16(four, b_high));
            }
        }
        let at = 8 * vector;
        let begin = _mm256_loadu_si256(p.begin.as_ptr().add(at).cast());
        let scale = _mm256_loadu_ps(p.scales.as_ptr().add(at));
        let offset = _mm256_loadu_ps(p.offsets.as_ptr().add(at));
        for r in 0..MR {
            // Neighbours are added: columns 0 1 4 5 2 3 6 7, then put in order.
            let sum = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_hadd_epi32(low[r], high[r]));
            let sum = _mm256_cvtepi32_ps(_mm256_add_epi32(sum, begin));
            let out = *p.out_local.get_unchecked(first + r) as usize;
            let c = tile.add(out * p.tile_stride + p.tile_at + at);
            let own = *p.rows.get_unchecked(first + r) as usize * p.sum_stride + p.sum_at;
            let own = _mm256_set1_ps(*p.sums.get_unchecked(own));
            let y = _mm256_fmadd_ps(own, offset, _mm256_loadu_ps(c));
            _mm256_storeu_ps(c, _mm256_fmadd_ps(sum, scale, y));
        }
    }
}
