//! Which input row meets which output row under which tap: the definitions, as loops over output row, tap, input row.

use crate::coords::{Coord, canonical, canonical_cmp, coarser, floor_div};
use crate::offsets::{Kernel, centred, indexed};

/// One pair of a relation: `(in_row, out_row, tap)`.
pub type Edge = (u32, u32, u16);

/// A relation written out: both supports and every pair, sorted by `(out_row, tap, in_row)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pairs {
    /// Input coordinates, in row order.
    pub source: Vec<Coord>,
    /// Output coordinates, in row order.
    pub target: Vec<Coord>,
    /// Number of taps, whether they have pairs or not.
    pub taps: usize,
    /// The pairs.
    pub edges: Vec<Edge>,
}

impl Pairs {
    /// Number of input rows.
    pub fn n_in(&self) -> usize {
        self.source.len()
    }

    /// Number of output rows.
    pub fn n_out(&self) -> usize {
        self.target.len()
    }

    /// True when no input row occurs in two pairs.
    pub fn input_exclusive(&self) -> bool {
        (0..self.n_in() as u32).all(|row| self.edges.iter().filter(|e| e.0 == row).count() <= 1)
    }
}

/// The pairs in the order every relation uses: `(out_row, tap, in_row)`.
pub fn sorted(mut edges: Vec<Edge>) -> Vec<Edge> {
    edges.sort_by_key(|&(i, o, k)| (o, k, i));
    edges
}

/// Pairs with `source[i] == target[o]·stride + offset[k] - padding` in one batch item, by the given offsets.
fn gather_pairs(source: &[Coord], target: &[Coord], kernel: &Kernel, offsets: &[[i64; 3]]) -> Vec<Edge> {
    let mut edges = Vec::new();
    for (o, q) in target.iter().enumerate() {
        for (k, offset) in offsets.iter().enumerate() {
            let wanted = [0, 1, 2].map(|a| {
                i64::from(q[a + 1]) * i64::from(kernel.stride[a]) + offset[a] - i64::from(kernel.padding[a])
            });
            for (i, c) in source.iter().enumerate() {
                if c[0] == q[0] && (0..3).all(|a| i64::from(c[a + 1]) == wanted[a]) {
                    edges.push((i as u32, o as u32, k as u16));
                }
            }
        }
    }
    sorted(edges)
}

/// The relation onto a given support: `source = q·stride + centred offset - padding`.
pub fn target(source: &[Coord], target: &[Coord], kernel: &Kernel) -> Pairs {
    let edges = gather_pairs(source, target, kernel, &centred(kernel));
    Pairs { source: source.to_vec(), target: target.to_vec(), taps: kernel.taps(), edges }
}

/// As [`target`], with indexed offsets in place of centred ones: `source = q·stride + position·dilation - padding`.
pub fn target_indexed(source: &[Coord], target: &[Coord], kernel: &Kernel) -> Pairs {
    let edges = gather_pairs(source, target, kernel, &indexed(kernel));
    Pairs { source: source.to_vec(), target: target.to_vec(), taps: kernel.taps(), edges }
}

/// The relation of a support onto itself. Sizes must be odd, strides 1, paddings 0.
pub fn submanifold(source: &[Coord], kernel: &Kernel) -> Pairs {
    assert!(kernel.is_odd(), "submanifold: sizes must be odd");
    assert_eq!((kernel.stride, kernel.padding), ([1; 3], [0; 3]), "submanifold: stride 1, padding 0");
    target(source, source, kernel)
}

/// Output support of [`forward`]: the input rows themselves for stride 1 and padding 0, else the distinct
/// `floor(c / stride)` in canonical order. Size, padding and dilation do not enter.
pub fn floor_support(source: &[Coord], kernel: &Kernel) -> Vec<Coord> {
    if kernel.stride == [1; 3] && kernel.padding == [0; 3] {
        return source.to_vec();
    }
    canonical(&source.iter().map(|c| coarser(c, kernel.stride)).collect::<Vec<_>>())
}

/// The forward relation on its floor support.
pub fn forward(source: &[Coord], kernel: &Kernel) -> Pairs {
    target(source, &floor_support(source, kernel), kernel)
}

/// Output support under the reach rule: every `q >= 0` with `q·stride + position·dilation - padding == c` for some input
/// `c` and indexed position, in canonical order, bounded above per axis.
///
/// With a spatial `range`: `q < floor((range + 2·padding - dilation·(size-1) - 1) / stride) + 1`. Without:
/// `q <= floor((largest input + 2·padding - (size-1)) / stride)`, the largest over all batch items.
///
/// # Panics
/// When such a `q` lies outside `i32`: [`kernel_reach_outside`] tells.
pub fn kernel_reach_support(source: &[Coord], kernel: &Kernel, range: Option<[u32; 3]>) -> Vec<Coord> {
    let reached = kernel_reach_candidates(source, kernel, range);
    canonical(
        &reached.iter().map(|&(row, q)| in_range(source[row][0], q).expect(OUTSIDE)).collect::<Vec<_>>(),
    )
}

/// First input row that creates a row outside `i32` under the rule of [`kernel_reach_support`].
pub fn kernel_reach_outside(source: &[Coord], kernel: &Kernel, range: Option<[u32; 3]>) -> Option<usize> {
    first_outside(&kernel_reach_candidates(source, kernel, range))
}

/// `(input row, q)` under the rule of [`kernel_reach_support`].
fn kernel_reach_candidates(
    source: &[Coord],
    kernel: &Kernel,
    range: Option<[u32; 3]>,
) -> Vec<(usize, [i64; 3])> {
    let last = [0, 1, 2].map(|a| {
        let [size, stride, padding, dilation] =
            [kernel.size, kernel.stride, kernel.padding, kernel.dilation].map(|of| i64::from(of[a]));
        match range {
            Some(range) => floor_div(i64::from(range[a]) + 2 * padding - dilation * (size - 1) - 1, stride),
            None => {
                let largest = source.iter().map(|c| i64::from(c[a + 1])).max().unwrap_or(0);
                floor_div(largest + 2 * padding - (size - 1), stride)
            }
        }
    });
    let mut reached = Vec::new();
    for (row, c) in source.iter().enumerate() {
        for offset in indexed(kernel) {
            let moved = [0, 1, 2].map(|a| i64::from(c[a + 1]) + i64::from(kernel.padding[a]) - offset[a]);
            if let Some(q) = exact_quotient(moved, kernel.stride)
                && (0..3).all(|a| q[a] >= 0 && q[a] <= last[a])
            {
                reached.push((row, q));
            }
        }
    }
    reached
}

/// The relation on the support of [`kernel_reach_support`], by the indexed offsets that created it.
pub fn forward_kernel_reach(source: &[Coord], kernel: &Kernel, range: Option<[u32; 3]>) -> Pairs {
    target_indexed(source, &kernel_reach_support(source, kernel, range), kernel)
}

/// The transposed relation: every input row reaches `c·stride + indexed offset - padding`; the distinct targets in
/// canonical order are the output support.
///
/// # Panics
/// When a target lies outside `i32`: [`transposed_outside`] tells.
pub fn transposed(source: &[Coord], kernel: &Kernel) -> Pairs {
    let targets: Vec<Coord> = transposed_targets(source, kernel)
        .iter()
        .map(|&(row, q)| in_range(source[row][0], q).expect(OUTSIDE))
        .collect();
    let out = canonical(&targets);
    let mut edges = Vec::new();
    for (n, q) in targets.iter().enumerate() {
        let o = out.binary_search_by(|row| canonical_cmp(row, q)).expect("every target was collected");
        edges.push(((n / kernel.taps()) as u32, o as u32, (n % kernel.taps()) as u16));
    }
    Pairs { source: source.to_vec(), target: out, taps: kernel.taps(), edges: sorted(edges) }
}

/// First input row with a target of [`transposed`] outside `i32`.
pub fn transposed_outside(source: &[Coord], kernel: &Kernel) -> Option<usize> {
    first_outside(&transposed_targets(source, kernel))
}

/// `(input row, target)` row by row, tap by tap.
fn transposed_targets(source: &[Coord], kernel: &Kernel) -> Vec<(usize, [i64; 3])> {
    let mut targets = Vec::new();
    for (row, c) in source.iter().enumerate() {
        for offset in indexed(kernel) {
            targets.push((
                row,
                [0, 1, 2].map(|a| {
                    i64::from(c[a + 1]) * i64::from(kernel.stride[a]) + offset[a]
                        - i64::from(kernel.padding[a])
                }),
            ));
        }
    }
    targets
}

/// The generative relation: [`transposed`] without padding and dilation, coordinates that coincide merged.
pub fn generative(source: &[Coord], size: [u32; 3], stride: [u32; 3]) -> Pairs {
    transposed(source, &Kernel::new(size, stride, [0; 3], [1; 3]))
}

/// The transposed relation onto a given support, in gather form: with `n = target + padding - indexed offset`, the pair
/// exists when `stride` divides every component of `n` and the row `n / stride` is active.
pub fn target_transposed(source: &[Coord], target: &[Coord], kernel: &Kernel) -> Pairs {
    let mut edges = Vec::new();
    for (o, t) in target.iter().enumerate() {
        for (k, offset) in indexed(kernel).iter().enumerate() {
            let n = [0, 1, 2].map(|a| i64::from(t[a + 1]) + i64::from(kernel.padding[a]) - offset[a]);
            let Some(q) = exact_quotient(n, kernel.stride) else { continue };
            for (i, c) in source.iter().enumerate() {
                if c[0] == t[0] && (0..3).all(|a| i64::from(c[a + 1]) == q[a]) {
                    edges.push((i as u32, o as u32, k as u16));
                }
            }
        }
    }
    Pairs { source: source.to_vec(), target: target.to_vec(), taps: kernel.taps(), edges: sorted(edges) }
}

/// The same pairs read backwards, from the output support to the input support.
pub fn inverse(pairs: &Pairs) -> Pairs {
    Pairs {
        source: pairs.target.clone(),
        target: pairs.source.clone(),
        taps: pairs.taps,
        edges: sorted(pairs.edges.iter().map(|&(i, o, k)| (o, i, k)).collect()),
    }
}

/// `n / stride` where the stride divides every component, negative ones included.
fn exact_quotient(n: [i64; 3], stride: [u32; 3]) -> Option<[i64; 3]> {
    let q = [0, 1, 2].map(|a| floor_div(n[a], i64::from(stride[a])));
    (0..3).all(|a| q[a] * i64::from(stride[a]) == n[a]).then_some(q)
}

const OUTSIDE: &str = "an output coordinate lies outside i32";

fn first_outside(created: &[(usize, [i64; 3])]) -> Option<usize> {
    created.iter().find(|&&(_, q)| in_range(0, q).is_none()).map(|&(row, _)| row)
}

fn in_range(batch: i32, at: [i64; 3]) -> Option<Coord> {
    let [x, y, z] = at.map(|v| i32::try_from(v).ok());
    Some([batch, x?, y?, z?])
}
