//! The gathered product: rows of features times one panel of weights, added to rows of a tile.

use super::lanes::Lanes;

/// `tile[out_local[p], tile_at..][..n] += x[rows[p], at..][..k] @ b`, with `n = vectors * lanes`.
///
/// # Layout
/// `x`: rows of `stride` floats. `b`: `[k, n]`. `tile`: rows of `tile_stride` floats. An output row may occur once a call.
pub(crate) struct Product<'a> {
    /// Features.
    pub x: &'a [f32],
    /// Floats between two rows of `x`.
    pub stride: usize,
    /// First column of `x`.
    pub at: usize,
    /// Row of `x` of every pair.
    pub rows: &'a [u32],
    /// Row of the tile of every pair.
    pub out_local: &'a [u16],
    /// Packed weights.
    pub b: &'a [f32],
    /// Columns of `x` and rows of `b`.
    pub k: usize,
    /// Vectors side by side in `b`.
    pub vectors: usize,
    /// Floats between two rows of the tile.
    pub tile_stride: usize,
    /// First column of the tile.
    pub tile_at: usize,
}

impl Product<'_> {
    /// Panics unless every address that a kernel touches lies within its slice. The kernels rely on it.
    #[inline(always)]
    pub(super) fn check(&self, lanes: usize, max_vectors: usize, tile_len: usize) {
        let n = self.vectors * lanes;
        assert!((1..=max_vectors).contains(&self.vectors), "vectors of a panel");
        assert_eq!(self.rows.len(), self.out_local.len(), "one output row a pair");
        assert!(self.k * n <= self.b.len(), "the weight panel is too short");
        let last = self.rows.iter().fold(0, |m, &r| m.max(r)) as usize;
        assert!(
            last * self.stride + self.at + self.k <= self.x.len(),
            "an input row lies outside the features"
        );
        let last = self.out_local.iter().fold(0, |m, &r| m.max(r)) as usize;
        assert!(
            last * self.tile_stride + self.tile_at + n <= tile_len,
            "an output row lies outside the tile"
        );
    }
}

/// Groups of `MR` pairs from pair `first` on: `MR x NV` accumulators stay in registers over all of `k`.
///
/// # Safety
/// The instruction set of `V` is present, [`Product::check`] has passed for its lanes and the tile behind `tile`,
/// `p.vectors == NV` and `first + groups * MR <= p.rows.len()`.
#[inline(always)]
pub(super) unsafe fn groups<V: Lanes, const MR: usize, const NV: usize>(
    p: &Product<'_>,
    tile: *mut f32,
    first: usize,
    groups: usize,
) {
    let x = p.x.as_ptr();
    let pairs = p.rows.len();
    for group in 0..groups {
        let at = first + group * MR;
        // SAFETY: the caller passed `check`, so every row, panel and tile address is within its slice; prefetches touch nothing.
        unsafe {
            let mut a = [x; MR];
            for (r, a) in a.iter_mut().enumerate() {
                *a = x.add(*p.rows.get_unchecked(at + r) as usize * p.stride + p.at);
            }
            let ahead = at + MR;
            if ahead + MR <= pairs {
                for r in 0..MR {
                    let next = x.wrapping_add(*p.rows.get_unchecked(ahead + r) as usize * p.stride + p.at);
                    let mut line = 0;
                    while line < p.k {
                        V::prefetch(next.wrapping_add(line));
                        line += 16;
                    }
                }
            }
            let mut sum = [[V::zero(); NV]; MR];
            let mut b = p.b.as_ptr();
            let mut k = 0;
            while k + 4 <= p.k {
                for u in 0..4 {
                    step::<V, MR, NV>(&mut sum, &a, k + u, b);
                    b = b.add(NV * V::N);
                }
                k += 4;
            }
            while k < p.k {
                step::<V, MR, NV>(&mut sum, &a, k, b);
                b = b.add(NV * V::N);
                k += 1;
            }
            for (r, sum) in sum.iter().enumerate() {
                let row = tile.add(*p.out_local.get_unchecked(at + r) as usize * p.tile_stride + p.tile_at);
                for (j, sum) in sum.iter().enumerate() {
                    let c = row.add(j * V::N);
                    sum.add(V::load(c)).store(c);
                }
            }
        }
    }
}

/// One rank-1 update of the accumulators.
///
/// # Safety
/// The instruction set of `V` is present, `a[r] + k` and `NV` vectors at `b` are readable.
#[inline(always)]
unsafe fn step<V: Lanes, const MR: usize, const NV: usize>(
    sum: &mut [[V; NV]; MR],
    a: &[*const f32; MR],
    k: usize,
    b: *const f32,
) {
    // SAFETY: passed on to the caller.
    unsafe {
        let mut panel = [V::zero(); NV];
        for (j, panel) in panel.iter_mut().enumerate() {
            *panel = V::load(b.add(j * V::N));
        }
        for (sum, a) in sum.iter_mut().zip(a) {
            let a = V::splat(a.add(k));
            for (sum, &panel) in sum.iter_mut().zip(&panel) {
                *sum = sum.fma(a, panel);
            }
        }
    }
}

/// Defines `product(p, tile)` for one instruction set: full groups of the widest kernel, then smaller kernels for the rest, the
/// last two of about equal height so that no kernel waits on its own latency.
macro_rules! define_product {
    ($lanes:ty, $features:literal, [$(($vectors:literal, $rows:literal)),+], [$($height:literal)+]) => {
        /// # Safety
        /// The instruction set is present and `Product::check` has passed.
        #[target_feature(enable = $features)]
        unsafe fn product(p: &Product<'_>, tile: *mut f32) {
            // SAFETY: passed on to the caller; `vectors` selects the kernel of that width.
            unsafe {
                match p.vectors {
                    $($vectors => product_split::<$vectors, $rows>(p, tile),)+
                    _ => unreachable!("`check` bounds the vectors"),
                }
            }
        }

        /// # Safety
        /// As `product`, and `p.vectors == NV`.
        #[target_feature(enable = $features)]
        unsafe fn product_split<const NV: usize, const MR: usize>(p: &Product<'_>, tile: *mut f32) {
            let pairs = p.rows.len();
            let (full, rest) = (pairs / MR, pairs % MR);
            // SAFETY: the parts below add up to `pairs`.
            unsafe {
                if rest == 0 {
                    product_groups::<MR, NV>(p, tile, 0, full);
                } else if full == 0 || 2 * rest >= MR {
                    product_groups::<MR, NV>(p, tile, 0, full);
                    product_rest::<NV, MR>(p, tile, full * MR, rest);
                } else {
                    let both = MR + rest;
                    product_groups::<MR, NV>(p, tile, 0, full - 1);
                    product_rest::<NV, MR>(p, tile, pairs - both, both - both / 2);
                    product_rest::<NV, MR>(p, tile, pairs - both / 2, both / 2);
                }
            }
        }

        /// # Safety
        /// As `product_split`, and pairs `first..first + rest` exist, `rest < MR`.
        #[target_feature(enable = $features)]
        unsafe fn product_rest<const NV: usize, const MR: usize>(p: &Product<'_>, tile: *mut f32, first: usize, rest: usize) {
            match rest {
                // SAFETY: passed on to the caller.
                $($height => if const { $height < MR } { unsafe { product_groups::<$height, NV>(p, tile, first, 1) } },)*
                _ => unreachable!("no kernel is higher than 16 rows"),
            }
        }

        /// # Safety
        /// As `groups`.
        #[target_feature(enable = $features)]
        #[inline(never)]
        unsafe fn product_groups<const MR: usize, const NV: usize>(p: &Product<'_>, tile: *mut f32, first: usize, count: usize) {
            // SAFETY: passed on to the caller.
            unsafe { product::groups::<$lanes, MR, NV>(p, tile, first, count) }
        }
    };
}
pub(super) use define_product;
