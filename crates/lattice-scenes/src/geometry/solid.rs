//! Solids: what a ray hits, what a surface sampler samples.

use super::{Frame, V3, add, cross, dot, mul, norm, scale, sub, unit};
use crate::random::{hash, unit as unit_of};

/// A half line with unit direction.
#[derive(Debug, Clone, Copy)]
pub struct Ray {
    /// Start.
    pub origin: V3,
    /// Unit direction.
    pub direction: V3,
    /// 1 / direction, axis by axis.
    pub inverse: V3,
}

impl Ray {
    /// The ray from `origin` along the unit vector `direction`.
    pub fn new(origin: V3, direction: V3) -> Self {
        Self { origin, direction, inverse: direction.map(|d| 1.0 / if d.abs() < 1e-12 { 1e-12 } else { d }) }
    }
}

/// Where a ray meets a solid.
#[derive(Debug, Clone, Copy)]
pub struct Hit {
    /// Metres along the ray.
    pub distance: f64,
    /// Outward unit normal.
    pub normal: V3,
    /// The beam went through glass and does not come back.
    pub is_lost: bool,
}

/// Look of a surface.
#[derive(Debug, Clone, Copy)]
pub struct Material {
    /// Diffuse reflectance for the laser, 0..=1.
    pub reflectance: f64,
    /// Roughness along the beam, metres, one standard deviation.
    pub roughness: f64,
    /// Red, green, blue, 0..=1.
    pub colour: V3,
}

impl Material {
    /// A grey surface.
    pub fn grey(reflectance: f64, roughness: f64) -> Self {
        Self { reflectance, roughness, colour: [reflectance; 3] }
    }

    /// A coloured, smooth surface.
    pub fn coloured(colour: V3) -> Self {
        Self { reflectance: (colour[0] + colour[1] + colour[2]) / 3.0, roughness: 0.0, colour }
    }
}

/// A grid of windows over the sides of a box.
#[derive(Debug, Clone, Copy)]
pub struct Windows {
    /// Distance of neighbouring windows along the wall and upwards.
    pub pitch: [f64; 2],
    /// Width and height of a window as a share of the pitch.
    pub share: [f64; 2],
    /// Depth of the pane behind the wall.
    pub recess: f64,
    /// Height of the first row's cell above the box's lower side.
    pub base: f64,
    /// Chance that a beam into glass is lost.
    pub loss: f64,
}

/// Form of a solid in its own frame.
#[derive(Debug, Clone)]
pub enum Shape {
    /// A box around the origin, with or without windows on its upright sides.
    Box { half: V3, windows: Option<Windows> },
    /// A convex body `normal · p <= offset` around the origin; bit i of `glass` makes plane i a pane.
    Hull { planes: Vec<(V3, f64)>, half: V3, glass: u32 },
    /// A truncated cone from z = 0 (radius `bottom`) to `height` (radius `top`), closed.
    Cone { bottom: f64, top: f64, height: f64 },
    /// An ellipsoid around the origin.
    Ellipsoid { half: V3 },
    /// Leaves in an ellipsoid or a box: a beam is stopped at random, `density` times a metre inside a clump.
    Leaves { half: V3, density: f64, is_box: bool, word: u64 },
}

/// One solid of a scene.
#[derive(Debug, Clone)]
pub struct Solid {
    /// Form.
    pub shape: Shape,
    /// Place.
    pub frame: Frame,
    /// Look.
    pub material: Material,
    /// Class.
    pub label: u8,
}

impl Solid {
    /// Corners of a world box around the solid.
    pub fn bounds(&self) -> (V3, V3) {
        let (centre, half) = match &self.shape {
            Shape::Box { half, .. } | Shape::Hull { half, .. } | Shape::Ellipsoid { half } => {
                ([0.0; 3], *half)
            }
            Shape::Leaves { half, .. } => ([0.0; 3], *half),
            Shape::Cone { bottom, top, height } => {
                let r = bottom.max(*top);
                ([0.0, 0.0, height / 2.0], [r, r, height / 2.0])
            }
        };
        let centre = self.frame.world(centre);
        let mut reach = [1e-6; 3];
        for (axis, h) in self.frame.axes.iter().zip(half) {
            for a in 0..3 {
                reach[a] += axis[a].abs() * h;
            }
        }
        (sub(centre, reach), add(centre, reach))
    }

    /// The first hit from outside nearer than `limit`.
    pub fn hit(&self, ray: &Ray, limit: f64, ray_word: u64) -> Option<Hit> {
        let o = self.frame.local(ray.origin);
        let d = self.frame.local_direction(ray.direction);
        let mut hit = match &self.shape {
            Shape::Box { half, windows } => {
                let (near, _, axis) = box_span(o, d, *half)?;
                let mut normal = [0.0; 3];
                normal[axis] = -d[axis].signum();
                match windows {
                    Some(w) if axis < 2 && near > 0.0 => w.hit(o, d, near, axis, *half, normal, ray_word)?,
                    _ => Hit { distance: near, normal, is_lost: false },
                }
            }
            Shape::Hull { planes, glass, .. } => hull_hit(o, d, planes, *glass, ray_word)?,
            Shape::Cone { bottom, top, height } => cone_hit(o, d, *bottom, *top, *height)?,
            Shape::Ellipsoid { half } => {
                let (near, _) = ellipsoid_span(o, d, *half)?;
                let p = add(o, scale(d, near));
                let normal = unit([p[0] / half[0].powi(2), p[1] / half[1].powi(2), p[2] / half[2].powi(2)]);
                Hit { distance: near, normal, is_lost: false }
            }
            Shape::Leaves { half, density, is_box, word } => {
                let (near, far) = if *is_box {
                    let (near, far, _) = box_span(o, d, *half)?;
                    (near, far)
                } else {
                    ellipsoid_span(o, d, *half)?
                };
                let distance =
                    leaf(o, d, [near.max(0.0), far.min(limit)], *density, hash(&[*word, ray_word]), *word)?;
                Hit { distance, normal: scale(d, -1.0), is_lost: false }
            }
        };
        (hit.distance > 1e-6 && hit.distance < limit).then(|| {
            hit.normal = self.frame.turn(hit.normal);
            hit
        })
    }
}

impl Windows {
    #[expect(clippy::too_many_arguments, reason = "the state of one intersection")]
    fn hit(&self, o: V3, d: V3, near: f64, axis: usize, half: V3, normal: V3, ray_word: u64) -> Option<Hit> {
        let wall = Hit { distance: near, normal, is_lost: false };
        let p = add(o, scale(d, near));
        let along = (p[1 - axis] + half[1 - axis]) / self.pitch[0];
        let up = (p[2] + half[2] - self.base) / self.pitch[1];
        let margin = |v: f64, share: f64| ((v - v.floor()) - 0.5).abs() < share / 2.0;
        let is_window = up > 0.0
            && p[2] < half[2] - 0.4
            && p[1 - axis].abs() < half[1 - axis] - 0.5
            && margin(along, self.share[0])
            && margin(up, self.share[1]);
        if !is_window {
            return Some(wall);
        }
        let slope = d[axis].abs().max(0.05);
        let pane = near + self.recess / slope;
        let side = (p[1 - axis] + d[1 - axis] * (pane - near) + half[1 - axis]) / self.pitch[0];
        if !margin(side, self.share[0]) {
            // The reveal beside the pane.
            return Some(Hit { distance: near + 0.5 * self.recess / slope, ..wall });
        }
        let draw = unit_of(hash(&[ray_word, 77]));
        if draw < self.loss {
            return Some(Hit { distance: pane, is_lost: true, ..wall });
        }
        let inside = if draw < self.loss + 0.3 * (1.0 - self.loss) {
            4.0 * unit_of(hash(&[ray_word, 78]))
        } else {
            0.0
        };
        Some(Hit { distance: pane + inside, ..wall })
    }
}

fn box_span(o: V3, d: V3, half: V3) -> Option<(f64, f64, usize)> {
    let (mut near, mut far, mut axis) = (f64::NEG_INFINITY, f64::INFINITY, 0);
    for a in 0..3 {
        if d[a].abs() < 1e-12 {
            if o[a].abs() > half[a] {
                return None;
            }
            continue;
        }
        let (p, q) = ((-half[a] - o[a]) / d[a], (half[a] - o[a]) / d[a]);
        if p.min(q) > near {
            near = p.min(q);
            axis = a;
        }
        far = far.min(p.max(q));
    }
    (near <= far && far > 0.0).then_some((near, far, axis))
}

fn ellipsoid_span(o: V3, d: V3, half: V3) -> Option<(f64, f64)> {
    let inv = half.map(|h| 1.0 / h);
    let (o, d) = (mul(o, inv), mul(d, inv));
    let (a, b, c) = (dot(d, d), dot(o, d), dot(o, o) - 1.0);
    let root = b * b - a * c;
    if root < 0.0 {
        return None;
    }
    let root = root.sqrt();
    (root > b).then(|| ((-b - root) / a, (-b + root) / a))
}

fn hull_hit(o: V3, d: V3, planes: &[(V3, f64)], glass: u32, ray_word: u64) -> Option<Hit> {
    let (mut near, mut far, mut face) = (f64::NEG_INFINITY, f64::INFINITY, 0);
    for (i, &(n, offset)) in planes.iter().enumerate() {
        let (gap, speed) = (offset - dot(n, o), dot(n, d));
        if speed.abs() < 1e-12 {
            if gap < 0.0 {
                return None;
            }
        } else if speed < 0.0 {
            if gap / speed > near {
                near = gap / speed;
                face = i;
            }
        } else {
            far = far.min(gap / speed);
        }
    }
    if near > far || near <= 0.0 {
        return None;
    }
    let mut hit = Hit { distance: near, normal: planes[face].0, is_lost: false };
    if glass >> face & 1 == 1 {
        let draw = unit_of(hash(&[ray_word, 79]));
        if draw < 0.5 {
            hit.is_lost = true;
        } else if draw < 0.8 {
            hit.distance = (near + 0.3 + 1.1 * unit_of(hash(&[ray_word, 80]))).min(far);
        }
    }
    Some(hit)
}

fn cone_hit(o: V3, d: V3, bottom: f64, top: f64, height: f64) -> Option<Hit> {
    let mut best: Option<Hit> = None;
    let mut offer = |distance: f64, normal: V3| {
        if distance > 1e-6 && best.is_none_or(|b| distance < b.distance) {
            best = Some(Hit { distance, normal, is_lost: false });
        }
    };
    let taper = (top - bottom) / height;
    let radius = bottom + taper * o[2];
    let a = d[0] * d[0] + d[1] * d[1] - (taper * d[2]).powi(2);
    let b = o[0] * d[0] + o[1] * d[1] - radius * taper * d[2];
    let c = o[0] * o[0] + o[1] * o[1] - radius * radius;
    let root = b * b - a * c;
    if a.abs() > 1e-12 && root >= 0.0 {
        for t in [(-b - root.sqrt()) / a, (-b + root.sqrt()) / a] {
            let p = add(o, scale(d, t));
            if (0.0..=height).contains(&p[2]) {
                offer(t, unit([p[0], p[1], -taper * (bottom + taper * p[2])]));
            }
        }
    }
    if d[2].abs() > 1e-12 {
        for (z, r, n) in [(0.0, bottom, -1.0), (height, top, 1.0)] {
            let t = (z - o[2]) / d[2];
            let p = add(o, scale(d, t));
            if p[0] * p[0] + p[1] * p[1] <= r * r {
                offer(t, [0.0, 0.0, n]);
            }
        }
    }
    best
}

/// The leaf that stops a beam: leaves stand in clumps of about 0.3 m, so the medium is dense here and empty there.
fn leaf(o: V3, d: V3, [near, far]: [f64; 2], density: f64, beam: u64, plant: u64) -> Option<f64> {
    const STEP: f64 = 0.1;
    const CLUMP: f64 = 0.32;
    let mut budget = -(1.0 - unit_of(beam)).ln();
    let mut t = near;
    while t < far {
        let step = STEP.min(far - t);
        let p = add(o, scale(d, t + step / 2.0));
        let cell = p.map(|v| (v / CLUMP).floor() as i64 as u64);
        let local =
            if unit_of(hash(&[plant, cell[0], cell[1], cell[2]])) < 0.45 { 2.1 } else { 0.1 } * density;
        if local * step >= budget {
            return Some(t + budget / local);
        }
        budget -= local * step;
        t += STEP;
    }
    None
}

impl Shape {
    /// A hull from eight corners of a deformed box: `low` and `high` are the lower and upper rectangle as
    /// `[x0, x1, half width]` at `z0` and `z1`. Bit i of `glass`: 0 rear, 1 front, 2 right, 3 left, 4 bottom, 5 top.
    pub fn tapered(low: V3, high: V3, z0: f64, z1: f64, glass: u32) -> Self {
        let corner = |r: V3, z: f64, front: bool, left: bool| {
            [r[usize::from(front)], if left { r[2] } else { -r[2] }, z]
        };
        let middle = scale(add([low[0] + low[1], 0.0, z0 * 2.0], [high[0] + high[1], 0.0, z1 * 2.0]), 0.25);
        let face = |a: V3, b: V3, c: V3| {
            let n = unit(cross(sub(b, a), sub(c, a)));
            let n = if dot(n, sub(a, middle)) < 0.0 { scale(n, -1.0) } else { n };
            (n, dot(n, a))
        };
        let planes = vec![
            face(corner(low, z0, false, false), corner(low, z0, false, true), corner(high, z1, false, true)),
            face(corner(low, z0, true, false), corner(low, z0, true, true), corner(high, z1, true, true)),
            face(corner(low, z0, false, false), corner(low, z0, true, false), corner(high, z1, true, false)),
            face(corner(low, z0, false, true), corner(low, z0, true, true), corner(high, z1, true, true)),
            face(corner(low, z0, false, false), corner(low, z0, true, false), corner(low, z0, true, true)),
            face(corner(high, z1, false, false), corner(high, z1, true, false), corner(high, z1, true, true)),
        ];
        let x = low[0].abs().max(low[1].abs()).max(high[0].abs()).max(high[1].abs());
        let half = [x, low[2].max(high[2]), z0.abs().max(z1.abs())];
        debug_assert!(norm(half) > 0.0);
        Self::Hull { planes, half, glass }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn solid(shape: Shape, at: V3) -> Solid {
        Solid { shape, frame: Frame::yaw(at, 0.4), material: Material::grey(0.5, 0.0), label: 1 }
    }

    fn shapes() -> Vec<Shape> {
        vec![
            Shape::Box { half: [0.5, 0.7, 0.3], windows: None },
            Shape::Cone { bottom: 0.6, top: 0.2, height: 0.9 },
            Shape::Ellipsoid { half: [0.4, 0.8, 0.5] },
        ]
    }

    #[test]
    fn a_ray_to_a_sample_of_the_near_side_hits_the_sample() {
        let mut random = Random::new(&[3]);
        let mut near = 0;
        for shape in shapes() {
            let solid = solid(shape, [5.0, 1.0, -0.5]);
            for _ in 0..200 {
                let (p, normal) = solid.sample(&mut random);
                let direction = unit(p);
                // The solids are convex: a point faces the ray exactly when nothing hides it.
                if dot(direction, normal) < -0.05 {
                    near += 1;
                    let hit =
                        solid.hit(&Ray::new([0.0; 3], direction), 100.0, 0).expect("the ray meets the solid");
                    assert!((hit.distance - norm(p)).abs() < 1e-6, "{:?}", solid.shape);
                    assert!(
                        norm(sub(hit.normal, normal)) < 1e-6,
                        "{:?} {:?} {normal:?}",
                        solid.shape,
                        hit.normal
                    );
                }
            }
        }
        assert!(near > 150);
    }

    #[test]
    fn samples_lie_inside_the_bounds() {
        let mut random = Random::new(&[4]);
        for shape in shapes() {
            let solid = solid(shape, [-2.0, 3.0, 1.0]);
            let (low, high) = solid.bounds();
            for _ in 0..200 {
                let (p, _) = solid.sample(&mut random);
                assert!((0..3).all(|a| p[a] >= low[a] - 1e-9 && p[a] <= high[a] + 1e-9));
            }
        }
    }

    #[test]
    fn a_tapered_hull_without_taper_is_a_box() {
        let block = Shape::tapered([-1.0, 1.0, 0.5], [-1.0, 1.0, 0.5], -0.4, 0.4, 0);
        let hull = solid(block, [4.0, 0.0, 0.0]);
        let cuboid = solid(Shape::Box { half: [1.0, 0.5, 0.4], windows: None }, [4.0, 0.0, 0.0]);
        for i in 0..60 {
            let direction = unit([1.0, 0.01 * f64::from(i) - 0.3, 0.004 * f64::from(i) - 0.1]);
            let ray = Ray::new([0.0; 3], direction);
            let (a, b) = (hull.hit(&ray, 50.0, 0), cuboid.hit(&ray, 50.0, 0));
            assert_eq!(a.is_some(), b.is_some());
            if let (Some(a), Some(b)) = (a, b) {
                assert!((a.distance - b.distance).abs() < 1e-9);
            }
        }
    }

    #[test]
    fn a_beam_stops_inside_a_dense_plant_and_passes_a_thin_one() {
        let plant = |density| {
            solid(Shape::Leaves { half: [1.0; 3], density, is_box: false, word: 9 }, [5.0, 0.0, 0.0])
        };
        let ray = Ray::new([0.0; 3], [1.0, 0.0, 0.0]);
        let stopped =
            |density: f64| (0..200).filter(|&w| plant(density).hit(&ray, 50.0, w).is_some()).count();
        assert!(stopped(50.0) > 190);
        assert!(stopped(0.02) < 40);
    }
}
