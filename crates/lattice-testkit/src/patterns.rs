//! The deterministic patterns that benches and tests share: rows, points, feature and weight values by formula.

use crate::coords::Coord;

/// A support pattern; row `i` of every batch item follows the variant's formula.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// `x = 3i`: no neighbours.
    Isolated,
    /// `x = i`: three neighbours, itself included.
    Line,
    /// Width `ceil(sqrt n)`, x fastest: nine neighbours.
    Plane,
    /// 97 × 97 cells a layer, x fastest: towards 27 neighbours.
    Grid,
    /// Dense cubes of edge `S`, x fastest, on a lattice of pitch `S + 3` with `ceil(cbrt(n / S³))` cubes per axis.
    Block(u32),
}

impl Pattern {
    /// Every pattern of the benches.
    pub const ALL: [Pattern; 8] = [
        Pattern::Isolated,
        Pattern::Line,
        Pattern::Plane,
        Pattern::Grid,
        Pattern::Block(2),
        Pattern::Block(3),
        Pattern::Block(4),
        Pattern::Block(8),
    ];

    /// Name in bench cases: `isolated`, `line`, `plane`, `grid`, `block2` ...
    pub fn name(self) -> String {
        match self {
            Self::Isolated => "isolated".into(),
            Self::Line => "line".into(),
            Self::Plane => "plane".into(),
            Self::Grid => "grid".into(),
            Self::Block(edge) => format!("block{edge}"),
        }
    }

    /// `n` rows in each of `n_batches` items, item after item.
    pub fn coords(self, n: usize, n_batches: usize) -> Vec<Coord> {
        let mut coords = Vec::new();
        for batch in 0..n_batches {
            for i in 0..n {
                let [x, y, z] = self.site(i, n);
                coords.push([batch as i32, x as i32, y as i32, z as i32]);
            }
        }
        coords
    }

    /// Site of row `i` out of `n`.
    fn site(self, i: usize, n: usize) -> [usize; 3] {
        match self {
            Self::Isolated => [3 * i, 0, 0],
            Self::Line => [i, 0, 0],
            Self::Plane => {
                let width = (1..).find(|w| w * w >= n).unwrap_or(1);
                [i % width, i / width, 0]
            }
            Self::Grid => [i % 97, i / 97 % 97, i / (97 * 97)],
            Self::Block(edge) => {
                let edge = edge as usize;
                let volume = edge * edge * edge;
                let per_axis = (1..).find(|m| m * m * m * volume >= n).unwrap_or(1);
                let inner = cell(i % volume, edge);
                let outer = cell(i / volume, per_axis);
                [0, 1, 2].map(|a| inner[a] + outer[a] * (edge + 3))
            }
        }
    }

    /// Neighbours per row that a kernel of size 3 finds far from the borders.
    pub fn expected_neighbours(self) -> f64 {
        match self {
            Self::Isolated => 1.0,
            Self::Line => 3.0,
            Self::Plane => 9.0,
            Self::Grid => 27.0,
            Self::Block(edge) => (3.0 * f64::from(edge) - 2.0).powi(3) / f64::from(edge).powi(3),
        }
    }
}

fn cell(i: usize, edge: usize) -> [usize; 3] {
    [i % edge, i / edge % edge, i / (edge * edge)]
}

/// `n` points, three to a bucket: `x = bucket + {0, 0.1, 0.2}`, `y = (bucket/17) mod 17 + 0.05`,
/// `z = (bucket/289) mod 17 + 0.025`.
pub fn points(n: usize) -> Vec<[f32; 3]> {
    (0..n)
        .map(|i| {
            let bucket = i / 3;
            let step = [0.0, 0.1, 0.2][i % 3];
            [bucket as f32 + step, (bucket / 17 % 17) as f32 + 0.05, (bucket / 289 % 17) as f32 + 0.025]
        })
        .collect()
}

/// `[n, c]` features: `((row + 1)·(channel + 3) mod 37) / 37`.
pub fn features(n: usize, c: usize) -> Vec<f64> {
    (0..n * c).map(|at| ((at / c + 1) * (at % c + 3) % 37) as f64 / 37.0).collect()
}

/// `n` weights: `((i mod 23) - 11) / 23`.
pub fn weights(n: usize) -> Vec<f64> {
    (0..n).map(|i| ((i % 23) as f64 - 11.0) / 23.0).collect()
}
