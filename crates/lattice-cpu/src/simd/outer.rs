//! The sum of outer products: what weight gradients are made of.

use super::lanes::Lanes;

/// `sum[i, sum_at..][..n] += x[p, at + i] * g[p, g_at..][..n]` over all pairs `p` and `i < k`, with `n = vectors * lanes`.
///
/// # Layout
/// `x`, `g`: one row a pair, of `x_stride` and `g_stride` floats. `sum`: `k` rows of `g_stride` floats.
pub(crate) struct Outer<'a> {
    /// Gathered input rows.
    pub x: &'a [f32],
    /// Floats between two rows of `x`.
    pub x_stride: usize,
    /// Gathered gradient rows.
    pub g: &'a [f32],
    /// Floats between two rows of `g`, and of the sum.
    pub g_stride: usize,
    /// First column of `g`, and of the sum.
    pub g_at: usize,
    /// Pairs.
    pub pairs: usize,
    /// Columns of `x`.
    pub k: usize,
    /// Vectors side by side in `g`.
    pub vectors: usize,
}

impl Outer<'_> {
    /// Panics unless every address that a kernel touches lies within its slice. The kernels rely on it.
    pub(super) fn check(&self, lanes: usize, max_vectors: usize, sum_len: usize) {
        let n = self.vectors * lanes;
        assert!((1..=max_vectors).contains(&self.vectors), "vectors of a panel");
        let last = self.pairs - 1;
        assert!(last * self.x_stride + self.k <= self.x.len(), "an input row lies outside the panel");
        assert!(last * self.g_stride + self.g_at + n <= self.g.len(), "a gradient row lies outside the panel");
        assert!((self.k - 1) * self.g_stride + self.g_at + n <= sum_len, "the sum is too short");
    }
}

/// Rows `first..first + MR` of the sum, in registers over all pairs.
///
/// # Safety
/// The instruction set of `V` is present, [`Outer::check`] has passed for its lanes and the slice behind `sum`,
/// `o.vectors == NV` and `first + MR <= o.k`.
#[inline(always)]
pub(super) unsafe fn rows<V: Lanes, const MR: usize, const NV: usize>(o: &Outer<'_>, sum: *mut f32, first: usize) {
    // SAFETY: the caller passed `check`.
    unsafe {
        let mut x = o.x.as_ptr().add(first);
        let mut g = o.g.as_ptr().add(o.g_at);
        let mut acc = [[V::zero(); NV]; MR];
        for _ in 0..o.pairs {
            let mut row = [V::zero(); NV];
            for (j, row) in row.iter_mut().enumerate() {
                *row = V::load(g.add(j * V::N));
            }
            for (r, acc) in acc.iter_mut().enumerate() {
                let a = V::splat(x.add(r));
                for (acc, &row) in acc.iter_mut().zip(&row) {
                    *acc = acc.fma(a, row);
                }
            }
            x = x.wrapping_add(o.x_stride);
            g = g.wrapping_add(o.g_stride);
        }
        for (r, acc) in acc.iter().enumerate() {
            let row = sum.add((first + r) * o.g_stride + o.g_at);
            for (j, acc) in acc.iter().enumerate() {
                let c = row.add(j * V::N);
                acc.add(V::load(c)).store(c);
            }
        }
    }
}

/// Defines `outer(o, sum)` for one instruction set: the rows of the sum in kernels of about equal height.
macro_rules! define_outer {
    ($lanes:ty, $features:literal, [$(($vectors:literal, $rows:literal)),+], [$($height:literal)+]) => {
        /// # Safety
        /// The instruction set is present and `Outer::check` has passed.
        #[target_feature(enable = $features)]
        unsafe fn outer(o: &Outer<'_>, sum: *mut f32) {
            // SAFETY: passed on to the caller; `vectors` selects the kernel of that width.
            unsafe {
                match o.vectors {
                    $($vectors => outer_split::<$vectors, $rows>(o, sum),)+
                    _ => unreachable!("`check` bounds the vectors"),
                }
            }
        }

        /// # Safety
        /// As `outer`, and `o.vectors == NV`.
        #[target_feature(enable = $features)]
        unsafe fn outer_split<const NV: usize, const MR: usize>(o: &Outer<'_>, sum: *mut f32) {
            let parts = o.k.div_ceil(MR);
            for part in 0..parts {
                let (first, end) = (o.k * part / parts, o.k * (part + 1) / parts);
                match end - first {
                    // SAFETY: the heights add up to `k`.
                    $($height => if const { $height <= MR } { unsafe { outer_rows::<$height, NV>(o, sum, first) } },)*
                    _ => unreachable!("no kernel is higher than 16 rows"),
                }
            }
        }

        /// # Safety
        /// As `rows`.
        #[target_feature(enable = $features)]
        #[inline(never)]
        unsafe fn outer_rows<const MR: usize, const NV: usize>(o: &Outer<'_>, sum: *mut f32, first: usize) {
            // SAFETY: passed on to the caller.
            unsafe { outer::rows::<$lanes, MR, NV>(o, sum, first) }
        }
    };
}
pub(super) use define_outer;
