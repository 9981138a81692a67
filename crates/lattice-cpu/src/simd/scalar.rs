//! The scalar twins: the same functions in plain loops.

use half::f16;

use super::{IntProduct, Outer, Product};

/// Twin of the gathered product. `lanes` is the width that the panel was packed for.
pub(super) fn product(p: &Product<'_>, lanes: usize, tile: &mut [f32]) {
    let n = p.vectors * lanes;
    for (&row, &out) in p.rows.iter().zip(p.out_local) {
        let a = &p.x[row as usize * p.stride + p.at..][..p.k];
        let c = &mut tile[out as usize * p.tile_stride + p.tile_at..][..n];
        for (&a, b) in a.iter().zip(p.b.chunks_exact(n)) {
            for (c, &b) in c.iter_mut().zip(b) {
                *c += a * b;
            }
        }
    }
}

/// Twin of the sum of outer products.
pub(super) fn outer(o: &Outer<'_>, lanes: usize, sum: &mut [f32]) {
    let n = o.vectors * lanes;
    for (&x_row, &g_row) in o.x_rows.iter().zip(o.g_rows) {
        let x = &o.x[x_row as usize * o.x_stride + o.x_at..][..o.k];
        let g = &o.g[g_row as usize * o.g_stride + o.g_at..][..n];
        for (i, &x) in x.iter().enumerate() {
            let sum = &mut sum[i * o.sum_stride + o.sum_at..][..n];
            for (sum, &g) in sum.iter_mut().zip(g) {
                *sum += x * g;
            }
        }
    }
}

/// Twin of the gathered product of bytes. `lanes` is the width that the panel was packed for.
#[inline(always)]
pub(super) fn int_product(p: &IntProduct<'_>, lanes: usize, tile: &mut [f32]) {
    let n = p.vectors * lanes;
    let mut sums = [0; super::int_product::MOST_COLUMNS];
    let sums = &mut sums[..n];
    for (&row, &out) in p.rows.iter().zip(p.out_local) {
        let q = &p.x[row as usize * p.stride + p.at..][..4 * p.quads];
        sums.copy_from_slice(&p.begin[..n]);
        for (q, b) in q.as_chunks::<4>().0.iter().zip(p.b.chunks_exact(n)) {
            let q = q.map(i32::from);
            for (sum, b) in sums.iter_mut().zip(b) {
                let b = b.to_le_bytes().map(|b| i32::from(b as i8));
                *sum += q[0] * b[0] + q[1] * b[1] + q[2] * b[2] + q[3] * b[3];
            }
        }
        let own = p.sums[row as usize * p.sum_stride + p.sum_at];
        let c = &mut tile[out as usize * p.tile_stride + p.tile_at..][..n];
        for (j, (c, &sum)) in c.iter_mut().zip(&*sums).enumerate() {
            *c += own * p.offsets[j];
            *c += sum as f32 * p.scales[j];
        }
    }
}

/// Exact.
pub(super) fn widen_f16(from: &[u16], to: &mut [f32]) {
    for (to, &from) in to.iter_mut().zip(from) {
        *to = f16::from_bits(from).to_f32_const();
    }
}

/// To nearest, ties to even.
pub(super) fn narrow_f16(from: &[f32], to: &mut [u16]) {
    for (to, &from) in to.iter_mut().zip(from) {
        *to = f16::from_f32_const(from).to_bits();
    }
}
