//! The ground: a bent road with kerbs, verges and slopes, as a height over x and y.

use crate::geometry::{Frame, Ray};
use crate::random::{Random, hash, unit};

/// Where the ground is, and what it is made of.
#[derive(Debug, Clone, Copy)]
pub struct Ground {
    /// z, metres.
    pub height: f64,
    /// Diffuse reflectance.
    pub reflectance: f64,
    /// Roughness along the beam, metres.
    pub roughness: f64,
}

/// A road along a circular arc with optional side streets, on gently rolling land.
///
/// Street coordinates: `s` metres along the centre line from the sensor, `d` metres to the left of it.
#[derive(Debug, Clone)]
pub struct Terrain {
    word: u64,
    /// Direction of the road at the sensor and its curvature, 1/m.
    pub yaw: f64,
    pub bend: f64,
    /// The sensor's `d`.
    pub sensor_d: f64,
    /// Half width of the carriageway with its parking lanes.
    pub half_road: f64,
    /// Width of the sidewalk right and left; 0 where grass begins at once.
    pub sidewalk: [f64; 2],
    /// Height of the kerb.
    pub kerb: f64,
    /// Side streets: `s`, half width, and whether they leave right and left.
    pub junctions: Vec<(f64, f64, [bool; 2])>,
    /// Rise per metre behind the sidewalk, right and left, over `bank_width` metres.
    pub bank: [f64; 2],
    pub bank_width: f64,
    /// Amplitude of the grass, metres.
    pub grass: f64,
    slope: [f64; 2],
    waves: [[f64; 4]; 3],
    /// Height of the sensor above the road.
    pub sensor_height: f64,
    zero: f64,
}

impl Terrain {
    /// A flat plan to be shaped by the caller, with random slope and waves.
    pub fn new(random: &mut Random, word: u64, sensor_height: f64) -> Self {
        let wave = |random: &mut Random, length: f64, amplitude: f64| {
            let angle = random.range(0.0, std::f64::consts::TAU);
            let k = std::f64::consts::TAU / (length * random.range(0.7, 1.4));
            [
                k * angle.cos(),
                k * angle.sin(),
                random.range(0.0, std::f64::consts::TAU),
                amplitude * random.unit(),
            ]
        };
        Self {
            word,
            yaw: 0.0,
            bend: 0.0,
            sensor_d: 0.0,
            half_road: 4.0,
            sidewalk: [2.0; 2],
            kerb: 0.1,
            junctions: Vec::new(),
            bank: [0.0; 2],
            bank_width: 8.0,
            grass: 0.03,
            slope: [0.016 * random.normal(), 0.016 * random.normal()],
            waves: [wave(random, 140.0, 0.9), wave(random, 70.0, 0.2), wave(random, 35.0, 0.06)],
            sensor_height,
            zero: 0.0,
        }
    }

    /// Fixes the height at the sensor once the plan is complete.
    pub fn level(&mut self) {
        self.zero = 0.0;
        self.zero = self.at(0.0, 0.0).height + self.sensor_height;
    }

    /// The world place of street coordinates.
    pub fn world(&self, s: f64, d: f64) -> [f64; 2] {
        let (x, y) = if self.bend.abs() < 1e-6 {
            (s, 0.0)
        } else {
            ((self.bend * s).sin() / self.bend, (1.0 - (self.bend * s).cos()) / self.bend)
        };
        let (sin, cos) = (self.bend * s).sin_cos();
        let (x, y) = (x - d * sin, y + d * cos - self.sensor_d);
        let (sin, cos) = self.yaw.sin_cos();
        [cos * x - sin * y, sin * x + cos * y]
    }

    /// Direction of the road at `s`, radians in the world.
    pub fn heading(&self, s: f64) -> f64 {
        self.yaw + self.bend * s
    }

    /// Street coordinates of a world place.
    pub fn street(&self, x: f64, y: f64) -> [f64; 2] {
        let (sin, cos) = self.yaw.sin_cos();
        let (x, y) = (cos * x + sin * y, -sin * x + cos * y + self.sensor_d);
        if self.bend.abs() < 1e-6 {
            return [x, y];
        }
        let radius = 1.0 / self.bend;
        let (dx, dy) = (x, y - radius);
        let distance = (dx * dx + dy * dy).sqrt();
        let angle = (dx * radius.signum()).atan2(-dy * radius.signum());
        [angle * radius, radius - radius.signum() * distance]
    }

    /// Whether a place of the street lies on a side street or its mouth, `margin` metres around included.
    pub fn is_junction(&self, s: f64, d: f64, margin: f64) -> bool {
        self.junctions
            .iter()
            .any(|&(at, half, open)| (s - at).abs() < half + margin && open[usize::from(d > 0.0)])
    }

    /// The ground at a world place.
    pub fn at(&self, x: f64, y: f64) -> Ground {
        let [s, d] = self.street(x, y);
        let mut height = self.slope[0] * x + self.slope[1] * y - self.zero;
        for [kx, ky, phase, amplitude] in self.waves {
            height += amplitude * (kx * x + ky * y + phase).sin();
        }
        let side = usize::from(d > 0.0);
        let mut beyond = d.abs() - self.half_road;
        let mut crossing = false;
        for &(at, half, open) in &self.junctions {
            if open[side] {
                let across = (s - at).abs() - half;
                crossing |= across < 0.0;
                beyond = beyond.min(across.max(-half.min(self.half_road)));
            }
        }
        height -= 0.015 * d.abs().min(self.half_road);
        let road = Ground { height, reflectance: 0.16, roughness: 0.004 };
        if beyond <= 0.0 || crossing {
            return road;
        }
        let sidewalk = self.sidewalk[side];
        height += self.kerb * (beyond / 0.06).min(1.0);
        if beyond < sidewalk {
            return Ground { height: height + 0.015 * beyond, reflectance: 0.24, roughness: 0.005 };
        }
        let deep = beyond - sidewalk;
        height += self.bank[side] * deep.min(self.bank_width);
        let ramp = (deep / 0.5).min(1.0) * self.grass;
        height += ramp * (noise(self.word, x, y, 0.35) + 2.0 * noise(self.word + 1, x, y, 1.7) - 1.0);
        Ground { height, reflectance: 0.34, roughness: 0.25 * self.grass }
    }

    /// A frame on the ground at street coordinates; local x turned by `turn` against the street's direction.
    pub fn place(&self, s: f64, d: f64, turn: f64) -> Frame {
        let [x, y] = self.world(s, d);
        Frame::yaw([x, y, self.at(x, y).height], self.heading(s) + turn)
    }

    /// A vehicle's frame: tilted with the ground under its ends.
    pub fn place_vehicle(&self, s: f64, d: f64, turn: f64) -> Frame {
        let level = self.place(s, d, turn);
        let height = |dx: f64| {
            let p = level.world([dx, 0.0, 0.0]);
            self.at(p[0], p[1]).height
        };
        let (front, rear) = (height(1.4), height(-1.4));
        let mut frame = level.child([0.0; 3], 0.0, -((front - rear) / 2.8).atan());
        frame.origin[2] = 0.5 * (front + rear);
        frame
    }

    /// Metres along the ray to the ground, or `None` before `limit`.
    pub fn hit(&self, ray: &Ray, limit: f64) -> Option<f64> {
        let gap = |t: f64| {
            let p = [ray.origin[0] + ray.direction[0] * t, ray.origin[1] + ray.direction[1] * t];
            ray.origin[2] + ray.direction[2] * t - self.at(p[0], p[1]).height
        };
        let (mut t, mut last) = (0.8, 0.0);
        let slope = ray.direction[2].abs() + 0.09;
        for _ in 0..400 {
            let above = gap(t);
            if above <= 0.0 {
                let (mut low, mut high) = (last, t);
                for _ in 0..12 {
                    let middle = 0.5 * (low + high);
                    if gap(middle) <= 0.0 { high = middle } else { low = middle }
                }
                return Some(0.5 * (low + high));
            }
            last = t;
            t += (above / slope).max(0.04 + 0.001 * t);
            if t > limit || (above > 8.0 && ray.direction[2] > 0.0) {
                return None;
            }
        }
        None
    }
}

/// Smooth noise in `0..=1` over cells of `cell` metres.
fn noise(word: u64, x: f64, y: f64, cell: f64) -> f64 {
    let (x, y) = (x / cell, y / cell);
    let (fx, fy) = (x.floor(), y.floor());
    let corner = |dx: i64, dy: i64| unit(hash(&[word, (fx as i64 + dx) as u64, (fy as i64 + dy) as u64]));
    let smooth = |t: f64| t * t * (3.0 - 2.0 * t);
    let (u, v) = (smooth(x - fx), smooth(y - fy));
    let low = corner(0, 0) + u * (corner(1, 0) - corner(0, 0));
    let high = corner(0, 1) + u * (corner(1, 1) - corner(0, 1));
    low + v * (high - low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn street_coordinates_come_back() {
        let mut terrain = Terrain::new(&mut Random::new(&[1]), 1, 1.73);
        terrain.sensor_d = -1.6;
        for (yaw, bend) in [(0.3, 0.0), (-0.2, 0.004), (0.1, -0.006)] {
            terrain.yaw = yaw;
            terrain.bend = bend;
            for (s, d) in [(0.0, 0.0), (20.0, 5.0), (-35.0, -8.0), (60.0, 3.0)] {
                let [x, y] = terrain.world(s, d);
                let [s2, d2] = terrain.street(x, y);
                assert!((s - s2).abs() < 1e-9 && (d - d2).abs() < 1e-9, "{s} {d} -> {s2} {d2}");
            }
        }
    }
}
