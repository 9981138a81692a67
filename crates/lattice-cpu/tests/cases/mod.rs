//! Random relations and features, and the dtypes and instruction sets that every test walks.
#![allow(dead_code, reason = "each test file uses its part")]

use half::{bf16, f16};
use lattice_core::{Edge, KernelSpec, Relation, RelationKind, RowMap, Support};
use lattice_cpu::{Isa, Scalar};
use lattice_testkit::tolerances::{BF16, F16, F32, F64, Tolerance};

/// A small generator of reproducible numbers (splitmix64).
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    /// Uniform in -1..1.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    pub fn values<T: Element>(&mut self, n: usize) -> Vec<T> {
        (0..n).map(|_| T::of(self.unit())).collect()
    }
}

/// A dtype under test.
pub trait Element: Scalar + Into<f64> {
    const TOLERANCE: Tolerance;
    fn of(value: f64) -> Self;
}

macro_rules! element {
    ($($ty:ty, $tolerance:ident, $of:expr;)*) => {
        $(impl Element for $ty {
            const TOLERANCE: Tolerance = $tolerance;
            fn of(value: f64) -> Self {
                $of(value)
            }
        })*
    };
}
element! {
    f32, F32, |v| v as f32;
    f64, F64, |v| v;
    f16, F16, f16::from_f64;
    bf16, BF16, bf16::from_f64;
}

pub fn wide<T: Element>(values: &[T]) -> Vec<f64> {
    values.iter().map(|&v| v.into()).collect()
}

/// Instruction sets of this machine.
pub fn available() -> Vec<Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.is_available()).collect()
}

pub fn line(n: usize) -> Support {
    Support::try_new((0..n as i32).map(|x| [0, x, 0, 0]).collect()).unwrap()
}

/// About `density` of all pairs of an output row and a tap have an edge, from anywhere; each third tap has many more.
pub fn random_relation(
    numbers: &mut Numbers,
    n_in: usize,
    n_out: usize,
    taps: usize,
    density: f64,
) -> Relation {
    let mut edges = Vec::new();
    if n_in > 0 {
        for out_row in 0..n_out as u32 {
            for tap in 0..taps as u16 {
                let density = if tap % 3 == 1 { density * 2.5 } else { density };
                if numbers.unit() * 0.5 + 0.5 < density {
                    edges.push(Edge { in_row: numbers.below(n_in) as u32, out_row, tap });
                }
            }
        }
    }
    let spec = KernelSpec::try_new([taps as u32, 1, 1], [1; 3], [0; 3], [1; 3]).unwrap();
    Relation::from_edges(&line(n_in), &line(n_out), &spec, RelationKind::Target, &edges).unwrap()
}

pub fn edges(relation: &Relation) -> Vec<(u32, u32, u16)> {
    relation.edges().iter().map(|e| (e.in_row, e.out_row, e.tap)).collect()
}

pub fn random_row_map(
    numbers: &mut Numbers,
    n_in: usize,
    n_out: usize,
    longest: usize,
    weighted: bool,
) -> RowMap {
    let (mut splits, mut rows) = (vec![0], Vec::new());
    for _ in 0..n_out {
        for _ in 0..if n_in == 0 { 0 } else { numbers.below(longest + 1) } {
            rows.push(numbers.below(n_in) as u32);
        }
        splits.push(rows.len());
    }
    let weights = weighted.then(|| rows.iter().map(|_| numbers.unit() as f32).collect());
    RowMap::try_new(n_in, splits, rows, weights).unwrap()
}

/// Every element within the tolerance of `T`, for sums whose absolute terms add up to at most `magnitude`.
pub fn assert_close<T: Element>(what: &str, found: &[T], expected: &[f64], magnitude: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (at, ((&found, &expected), &magnitude)) in found.iter().zip(expected).zip(magnitude).enumerate() {
        let found: f64 = found.into();
        // Sums in f32 err with the size of their terms; the rounding to T with the size of the result.
        let sums = if T::TOLERANCE == F64 { F64 } else { F32 };
        let allowed = T::TOLERANCE.atol + T::TOLERANCE.rtol * expected.abs() + sums.rtol * magnitude;
        let close = (found - expected).abs() <= allowed || (found.is_nan() && expected.is_nan());
        assert!(close, "{what}: element {at}: expected {expected}, found {found}, allowed {allowed:e}");
    }
}
