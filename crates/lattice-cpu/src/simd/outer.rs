//! The sum of outer products: what weight gradients are made of.

use super::lanes::Lanes;

/// `sum[i, sum_at..][..n] += x[x_rows[p], x_at + i] * g[g_rows[p], g_at..][..n]` over all pairs `p` and `i < k`, with
/// `n = vectors * lanes`.
///
/// # Layout
/// `x`, `g`, `sum`: rows of `x_stride`, `g_stride` and `sum_stride` floats.
pub(crate) struct Outer<'a> {
    /// Features.
    pub x: &'a [f32],
    /// Floats between two rows of `x`.
    pub x_stride: usize,
    /// First column of `x`.
    pub x_at: usize,
    /// Row of `x` of every pair.
    pub x_rows: &'a [u32],
    /// Gradients.
    pub g: &'a [f32],
    /// Floats between two rows of `g`.
    pub g_stride: usize,
    /// First column of `g`.
    pub g_at: usize,
    /// Row of `g` of every pair.
    pub g_rows: &'a [u16],
    /// Floats between two rows of the sum.
    pub sum_stride: usize,
    /// First column of the sum.
    pub sum_at: usize,
    /// Columns of `x`, rows of the sum.
    pub k: usize,
    /// Vectors side by side in `g` and the sum.
    pub vectors: usize,
}

impl Outer<'_> {
    /// Panics unless every address that a kernel touches lies within its slice. The kernels rely on it.
    #[inline(always)]
    pub(super) fn check(&self, lanes: usize, max_vectors: usize, sum_len: usize) {
        let n = self.vectors * lanes;
        assert!((1..=max_vectors).contains(&self.vectors), "vectors of a panel");
        assert_eq!(self.x_rows.len(), self.g_rows.len(), "one gradient row a pair");
        let last = self.x_rows.iter().fold(0, |m, &r| m.max(r)) as usize;
        assert!(
            last * self.x_stride + self.x_at + self.k <= self.x.len(),
            "an input row lies outside the features"
        );
        let last = self.g_rows.iter().fold(0, |m, &r| m.max(r)) as usize;
        assert!(last * self.g_stride + self.g_at + n <= self.g.len(), "a row lies outside the gradients");
        assert!((self.k - 1) * self.sum_stride + self.sum_at + n <= sum_len, "the sum is too short");
    }
}

/// Rows `first..first + MR` of the sum, in registers over all pairs.
///
/// # Safety
/// The instruction set of `V` is present, [`Outer::check`] has passed for its lanes and the slice behind `sum`,
/// `o.vectors == NV` and `first + MR <= o.k`.
#[inline(always)]
pub(super) unsafe fn rows<V: Lanes, const MR: usize, const NV: usize>(
    o: &Outer<'_>,
    sum: *mut f32,
    first: usize,
) {
    // SAFETY: the caller passed `check`.
    unsafe {
        let x = o.x.as_ptr().add(o.x_at + first);
        let g = o.g.as_ptr().add(o.g_at);
        let mut acc = [[V::zero(); NV]; MR];
        for (&x_row, &g_row) in o.x_rows.iter().zip(o.g_rows) {
            let x = x.add(x_row as usize * o.x_stride);
            let g = g.add(g_row as usize * o.g_stride);
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
        }
        for (r, acc) in acc.iter().enumerate() {
            let row = sum.add((first + r) * o.sum_stride + o.sum_at);
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
