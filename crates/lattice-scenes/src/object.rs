//! Closed objects: blended implicit bodies, polygonised and sampled uniformly by area.

use std::collections::BTreeMap;
use std::f64::consts::TAU;

use lattice_io::{Attribute, PointCloud};
use rayon::prelude::*;

use crate::SceneOptions;
use crate::geometry::{V3, add, cross, dot, norm, scale, sub};
use crate::random::Random;

/// Cells of the polygonising grid along each side of the cube from -1 to 1.
const CELLS: usize = 128;
/// Cells along each side of a block that is skipped as a whole when the surface is far.
const BLOCK: usize = 8;
/// Triangles that one task samples; fixed, so results do not depend on the number of threads.
const TRIANGLES_A_TASK: usize = 4_096;

/// A part of a body: negative inside, roughly metric.
enum Part {
    /// Round cone between two points with a radius at each.
    Limb(V3, V3, [f64; 2]),
    /// Superquadric around a centre: half axes, exponents across and upwards.
    Super(V3, V3, [f64; 2]),
    /// Tube of a radius along the body's knot.
    Knot(f64),
}

struct Body {
    parts: Vec<Part>,
    /// Width of the blend between parts.
    blend: f64,
    /// Ripples of the surface: amplitude and wave numbers.
    ripple: (f64, V3),
    /// Points along a torus knot.
    knot: Vec<V3>,
}

/// The object of a seed.
pub fn generate(seed: u64, options: &SceneOptions) -> PointCloud {
    let mut random = Random::new(&[seed, 0x0b1ec7]);
    let body = Body::draw(&mut random);
    let triangles = polygonise(&body);
    let mut positions = sample(&triangles, options.scaled(2_000_000), seed);
    let mut low = [f64::INFINITY; 3];
    let mut high = [f64::NEG_INFINITY; 3];
    for p in &positions {
        for a in 0..3 {
            low[a] = low[a].min(p[a]);
            high[a] = high[a].max(p[a]);
        }
    }
    let side = sub(high, low).into_iter().fold(1e-9, f64::max);
    for p in &mut positions {
        // A hair below 1, so that `floor(n · x)` never reaches n.
        *p = scale(sub(*p, low), (1.0 - 1e-9) / side);
    }
    let label = vec![0; positions.len()];
    PointCloud {
        positions,
        attributes: BTreeMap::from([("label".to_owned(), Attribute::U8(label))]),
        ..PointCloud::default()
    }
}

impl Body {
    fn draw(random: &mut Random) -> Self {
        let ripple = (random.range(0.006, 0.016), [0, 1, 2].map(|_| random.range(22.0, 50.0)));
        let mut body = Self { parts: Vec::new(), blend: 0.06, ripple, knot: Vec::new() };
        match random.below(4) {
            0 => body.sitting_animal(random),
            1 => body.standing_animal(random),
            2 => body.turned_solids(random),
            _ => body.knot(random),
        }
        body
    }

    /// A heap of round limbs with long ears.
    fn sitting_animal(&mut self, r: &mut Random) {
        self.limb([0.1, 0.0, -0.4], [-0.05, 0.0, -0.1], [r.range(0.36, 0.46), 0.33]);
        self.limb([-0.3, 0.0, 0.15], [-0.45, 0.0, 0.12], [r.range(0.2, 0.26), 0.13]);
        for side in [-1.0, 1.0] {
            let lean = r.range(-0.1, 0.3);
            self.limb([-0.22, 0.1 * side, 0.3], [-0.1 + lean, 0.2 * side, r.range(0.65, 0.85)], [0.09, 0.05]);
            self.limb([0.05, 0.3 * side, -0.6], [-0.4, 0.28 * side, -0.72], [0.17, 0.1]);
            self.limb([-0.3, 0.14 * side, -0.25], [-0.45, 0.14 * side, -0.7], [0.12, 0.09]);
        }
        self.limb([0.5, 0.0, -0.55], [0.58, 0.0, -0.48], [0.13, 0.1]);
    }

    /// A body on four legs with a neck and a tail.
    fn standing_animal(&mut self, r: &mut Random) {
        let leg = r.range(0.35, 0.6);
        self.limb([-0.45, 0.0, 0.1], [0.4, 0.0, 0.12], [r.range(0.2, 0.28), r.range(0.18, 0.26)]);
        let head = [0.7, 0.0, r.range(0.4, 0.75)];
        self.limb([0.42, 0.0, 0.2], head, [0.17, 0.1]);
        self.limb(head, add(head, [0.2, 0.0, r.range(-0.2, 0.05)]), [0.12, 0.06]);
        for side in [-1.0, 1.0] {
            for x in [-0.5, 0.38] {
                let knee = [x + r.range(-0.08, 0.08), 0.13 * side, 0.1 - 0.55 * leg];
                self.limb([x, 0.12 * side, 0.0], knee, [0.13, 0.07]);
                self.limb(knee, [x + r.range(-0.06, 0.06), 0.14 * side, 0.0 - leg], [0.07, 0.05]);
            }
            self.limb(
                add(head, [-0.02, 0.05 * side, 0.08]),
                add(head, [-0.05, 0.09 * side, 0.2]),
                [0.04, 0.02],
            );
        }
        self.limb([-0.65, 0.0, 0.15], [-0.85, 0.0, r.range(-0.3, 0.3)], [0.06, 0.04]);
        self.blend = 0.05;
    }

    fn turned_solids(&mut self, r: &mut Random) {
        for i in 0..r.count(2, 5) {
            let spread = if i == 0 { 0.0 } else { 0.38 };
            let centre = [0, 1, 2].map(|_| r.range(-spread, spread));
            let half = [0, 1, 2].map(|_| r.range(0.18, 0.5));
            self.parts.push(Part::Super(centre, half, [r.range(0.3, 1.5), r.range(0.3, 1.5)]));
        }
        self.blend = r.range(0.02, 0.12);
    }

    fn knot(&mut self, r: &mut Random) {
        let windings = [[2.0, 3.0], [3.0, 2.0], [2.0, 5.0], [3.0, 4.0]][r.below(4)];
        let radii = [0.52, r.range(0.2, 0.28), r.range(0.08, 0.13)];
        let n = 240;
        for i in 0..n {
            let t = TAU * f64::from(i) / f64::from(n);
            let (s, c) = (windings[0] * t).sin_cos();
            let (sq, cq) = (windings[1] * t).sin_cos();
            let ring = radii[0] + radii[1] * cq;
            self.knot.push([ring * c, ring * s, radii[1] * 1.3 * sq]);
        }
        self.parts.push(Part::Knot(radii[2]));
    }

    fn limb(&mut self, a: V3, b: V3, radii: [f64; 2]) {
        self.parts.push(Part::Limb(a, b, radii));
    }

    /// Negative inside; smooth minimum of the parts plus ripples.
    fn value(&self, p: V3) -> f64 {
        let mut low = f64::INFINITY;
        for part in &self.parts {
            let d = self.part(part, p);
            // Polynomial smooth minimum.
            let h = (self.blend - (low - d).abs()).max(0.0);
            low = if low.is_finite() { low.min(d) - h * h / (4.0 * self.blend) } else { d };
        }
        let (amplitude, k) = self.ripple;
        low + amplitude
            * ((k[0] * p[0]).sin() * (k[1] * p[1] + 1.0).sin() + (k[2] * p[2]).sin() * (k[0] * p[1]).cos())
            / 2.0
    }

    fn part(&self, part: &Part, p: V3) -> f64 {
        match part {
            Part::Limb(a, b, radii) => {
                let axis = sub(*b, *a);
                let f = (dot(sub(p, *a), axis) / dot(axis, axis).max(1e-12)).clamp(0.0, 1.0);
                norm(sub(p, add(*a, scale(axis, f)))) - (radii[0] + (radii[1] - radii[0]) * f)
            }
            Part::Super(centre, half, [across, upwards]) => {
                let q = sub(p, *centre);
                let [x, y, z] = [0, 1, 2].map(|a| (q[a] / half[a]).abs().max(1e-9));
                let ring = (x.powf(2.0 / across) + y.powf(2.0 / across)).powf(across / upwards);
                let f = (ring + z.powf(2.0 / upwards)).powf(upwards / 2.0);
                let size = half.iter().copied().fold(f64::INFINITY, f64::min);
                (f - 1.0) * size
            }
            Part::Knot(tube) => {
                let nearest =
                    self.knot.iter().map(|c| sub(p, *c)).map(|d| dot(d, d)).fold(f64::INFINITY, f64::min);
                nearest.sqrt() - tube
            }
        }
    }
}

/// Triangles of the surface by marching tetrahedra: six tetrahedra a cell around its diagonal.
fn polygonise(body: &Body) -> Vec<[V3; 3]> {
    let n = CELLS + 1;
    let at = |i: usize| 2.1 * i as f64 / CELLS as f64 - 1.05;
    // Where a block's centre is farther from the surface than its corners, the whole block has one sign.
    let blocks = CELLS / BLOCK;
    let middle = |i: usize| 0.5 * (at(i * BLOCK) + at(i * BLOCK + BLOCK));
    let reach = 1.25 * 0.5 * 3f64.sqrt() * BLOCK as f64 * 2.1 / CELLS as f64;
    let is_near: Vec<bool> = (0..blocks * blocks * blocks)
        .into_par_iter()
        .map(|b| {
            body.value([b / (blocks * blocks), b / blocks % blocks, b % blocks].map(middle)).abs() < reach
        })
        .collect();
    let near_point = |p: V3, c: [usize; 3]| {
        // A grid point on a border belongs to the blocks of both sides.
        let sides = c.map(|v| [(v.max(1) - 1) / BLOCK, (v / BLOCK).min(blocks - 1)]);
        let near = (0..8)
            .any(|k| is_near[(sides[0][k & 1] * blocks + sides[1][k >> 1 & 1]) * blocks + sides[2][k >> 2]]);
        if near { body.value(p) } else { f64::INFINITY }
    };
    let values: Vec<f64> = (0..n * n)
        .into_par_iter()
        .flat_map_iter(|ij| {
            (0..n).map(move |k| near_point([at(ij / n), at(ij % n), at(k)], [ij / n, ij % n, k]))
        })
        .collect();
    const TETRAHEDRA: [[usize; 4]; 6] =
        [[0, 1, 3, 7], [0, 3, 2, 7], [0, 2, 6, 7], [0, 6, 4, 7], [0, 4, 5, 7], [0, 5, 1, 7]];
    let slices: Vec<Vec<[V3; 3]>> = (0..CELLS)
        .into_par_iter()
        .map(|i| {
            let mut out = Vec::new();
            for j in 0..CELLS {
                for k in 0..CELLS {
                    if !is_near[(i / BLOCK * blocks + j / BLOCK) * blocks + k / BLOCK] {
                        continue;
                    }
                    let corner = |c: usize| {
                        let (x, y, z) = (i + (c & 1), j + (c >> 1 & 1), k + (c >> 2));
                        ([at(x), at(y), at(z)], values[(x * n + y) * n + z])
                    };
                    let inside = (0..8).filter(|&c| corner(c).1 < 0.0).count();
                    if inside == 0 || inside == 8 {
                        continue;
                    }
                    for t in TETRAHEDRA {
                        cut(t.map(corner), &mut out);
                    }
                }
            }
            out
        })
        .collect();
    slices.into_iter().flatten().collect()
}

/// The part of the surface inside one tetrahedron: none, a triangle or two.
fn cut(corners: [(V3, f64); 4], out: &mut Vec<[V3; 3]>) {
    let (inside, outside): (Vec<_>, Vec<_>) = corners.into_iter().partition(|c| c.1 < 0.0);
    let cross_at = |a: &(V3, f64), b: &(V3, f64)| add(a.0, scale(sub(b.0, a.0), a.1 / (a.1 - b.1)));
    let edges: Vec<V3> = inside.iter().flat_map(|a| outside.iter().map(move |b| cross_at(a, b))).collect();
    match edges[..] {
        [a, b, c] => out.push([a, b, c]),
        [a, b, c, d] => out.extend([[a, b, c], [b, c, d]]),
        _ => {}
    }
}

/// About `count` points, uniform by area: systematic over the triangles.
fn sample(triangles: &[[V3; 3]], count: usize, seed: u64) -> Vec<V3> {
    let area = |t: &[V3; 3]| 0.5 * norm(cross(sub(t[1], t[0]), sub(t[2], t[0])));
    let mut bound = Vec::with_capacity(triangles.len() + 1);
    let mut total = 0.0;
    bound.push(0.0);
    for t in triangles {
        total += area(t);
        bound.push(total);
    }
    let density = count as f64 / f64::max(total, 1e-12);
    let parts: Vec<Vec<V3>> = triangles
        .par_chunks(TRIANGLES_A_TASK)
        .enumerate()
        .map(|(task, chunk)| {
            let mut random = Random::new(&[seed, 4, task as u64]);
            let mut out = Vec::new();
            for (i, t) in chunk.iter().enumerate() {
                let at = task * TRIANGLES_A_TASK + i;
                let n = (bound[at + 1] * density).floor() - (bound[at] * density).floor();
                // A low-discrepancy sequence with a random start leaves no gaps (the plastic-number sequence).
                let start = [random.unit(), random.unit()];
                for k in 0..n as usize {
                    let mut u = (start[0] + 0.754_877_666_246_692_7 * k as f64).fract();
                    let mut v = (start[1] + 0.569_840_290_998_053_3 * k as f64).fract();
                    if u + v > 1.0 {
                        (u, v) = (1.0 - u, 1.0 - v);
                    }
                    out.push(add(t[0], add(scale(sub(t[1], t[0]), u), scale(sub(t[2], t[0]), v))));
                }
            }
            out
        })
        .collect();
    parts.into_iter().flatten().collect()
}
