//! Areas of solids and points on their surfaces, uniform by area.

use super::{Shape, Solid, V3, mul, unit};
use crate::random::Random;

impl Solid {
    /// Area of the surface, m²; 0 for leaves and hulls, which are not sampled.
    pub fn area(&self) -> f64 {
        match &self.shape {
            Shape::Box { half: [x, y, z], .. } => 8.0 * (x * y + y * z + z * x),
            Shape::Cone { bottom, top, height } => {
                let slant = ((bottom - top).powi(2) + height * height).sqrt();
                std::f64::consts::PI * ((bottom + top) * slant + bottom * bottom + top * top)
            }
            Shape::Ellipsoid { half: [x, y, z] } => {
                let mean = ((x * y).powf(1.6) + (y * z).powf(1.6) + (z * x).powf(1.6)) / 3.0;
                4.0 * std::f64::consts::PI * mean.powf(1.0 / 1.6)
            }
            Shape::Hull { .. } | Shape::Leaves { .. } => 0.0,
        }
    }

    /// A point of the surface, uniform by area, with its outward normal.
    pub fn sample(&self, random: &mut Random) -> (V3, V3) {
        let (p, n) = match &self.shape {
            Shape::Box { half, .. } => box_sample(*half, random),
            Shape::Cone { bottom, top, height } => cone_sample(*bottom, *top, *height, random),
            Shape::Ellipsoid { half } | Shape::Hull { half, .. } | Shape::Leaves { half, .. } => {
                let u = unit([random.normal(), random.normal(), random.normal()]);
                (mul(u, *half), unit([u[0] / half[0], u[1] / half[1], u[2] / half[2]]))
            }
        };
        (self.frame.world(p), self.frame.turn(n))
    }
}

fn box_sample([x, y, z]: V3, random: &mut Random) -> (V3, V3) {
    let mut draw = random.unit() * (x * y + y * z + z * x);
    let side = random.sign();
    let (u, v) = (random.range(-1.0, 1.0), random.range(-1.0, 1.0));
    draw -= x * y;
    if draw < 0.0 {
        return ([u * x, v * y, side * z], [0.0, 0.0, side]);
    }
    if draw < y * z {
        ([side * x, u * y, v * z], [side, 0.0, 0.0])
    } else {
        ([u * x, side * y, v * z], [0.0, side, 0.0])
    }
}

fn cone_sample(bottom: f64, top: f64, height: f64, random: &mut Random) -> (V3, V3) {
    let slant = ((bottom - top).powi(2) + height * height).sqrt();
    let (wall, low, high) = ((bottom + top) * slant, bottom * bottom, top * top);
    let draw = random.unit() * (wall + low + high);
    let (s, c) = (std::f64::consts::TAU * random.unit()).sin_cos();
    if draw < wall {
        // Inverse of the area below height fraction f of a truncated cone.
        let q = random.unit();
        let f = if (bottom - top).abs() < 1e-9 {
            q
        } else {
            (bottom - (bottom * bottom - q * (bottom * bottom - top * top)).max(0.0).sqrt()) / (bottom - top)
        };
        let r = bottom + (top - bottom) * f;
        return ([r * c, r * s, f * height], unit([c, s, (bottom - top) / height]));
    }
    let (r, z, n) = if draw < wall + low { (bottom, 0.0, -1.0) } else { (top, height, 1.0) };
    let r = r * random.unit().sqrt();
    ([r * c, r * s, z], [0.0, 0.0, n])
}
