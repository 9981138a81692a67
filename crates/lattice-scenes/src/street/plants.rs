//! Trees, bushes and hedges.

use super::class;
use crate::geometry::{Frame, Material, Shape, Solid};
use crate::random::{Random, hash};

fn leaves(half: [f64; 3], density: f64, is_box: bool, frame: Frame, random: &mut Random) -> Solid {
    let word = hash(&[(random.unit() * 1e15) as u64]);
    Solid {
        shape: Shape::Leaves { half, density, is_box, word },
        frame,
        material: Material::grey(0.35, 0.012),
        label: class::VEGETATION,
    }
}

/// Appends a tree at `frame` (z = 0 on the ground): round-headed, or a conifer with branches from the ground.
pub fn push_tree(out: &mut Vec<Solid>, random: &mut Random, frame: &Frame) {
    let height = random.range(4.5, 13.0);
    let radius = random.range(0.06, 0.14) + 0.012 * height;
    let lean = [0.05 * random.normal(), 0.05 * random.normal(), 1.0];
    let trunk = Frame::along(frame.world([0.0, 0.0, -0.3]), frame.turn(lean));
    let bark = Material::grey(0.3, 0.012);
    let conifer = random.chance(0.18);
    let clear = if conifer { 0.3 } else { random.range(0.9, 3.2).min(0.4 * height) };
    out.push(Solid {
        shape: Shape::Cone { bottom: radius, top: radius * 0.6, height: 0.3 + 0.7 * height },
        frame: trunk,
        material: bark,
        label: class::VEGETATION,
    });
    if conifer {
        for i in 0..4 {
            let f = f64::from(i) / 4.0;
            let r = random.range(0.9, 1.1) * (1.0 - f) * 0.22 * height + 0.3;
            let z = clear + (f + 0.12) * (height - clear);
            out.push(leaves([r, r, 0.16 * height], 2.2, false, frame.child([0.0, 0.0, z], 0.0, 0.0), random));
        }
        return;
    }
    let spread = random.range(0.2, 0.34) * height;
    let density = random.range(0.5, 1.6);
    for i in 0..random.count(3, 6) {
        let angle = random.range(0.0, std::f64::consts::TAU);
        let off = if i == 0 { 0.0 } else { random.range(0.2, 0.7) * spread };
        let half = [
            spread * random.range(0.5, 0.9),
            spread * random.range(0.5, 0.9),
            random.range(0.22, 0.4) * (height - clear),
        ];
        let z = random.range(clear + 0.8 * half[2], height - 0.5 * half[2]);
        let at = frame.child([off * angle.cos(), off * angle.sin(), z], angle, 0.0);
        out.push(leaves(half, density, false, at, random));
    }
    for _ in 0..random.count(2, 5) {
        let angle = random.range(0.0, std::f64::consts::TAU);
        let up = frame.turn([angle.cos(), angle.sin(), random.range(0.4, 1.6)]);
        let at = Frame::along(frame.world([0.0, 0.0, clear * random.range(0.9, 1.5)]), up);
        let shape = Shape::Cone { bottom: 0.4 * radius, top: 0.1 * radius, height: 0.8 * spread };
        out.push(Solid { shape, frame: at, material: bark, label: class::VEGETATION });
    }
}

/// Appends a bush of one to three clumps, `size` metres wide.
pub fn push_bush(out: &mut Vec<Solid>, random: &mut Random, frame: &Frame, size: f64) {
    let density = random.range(0.9, 2.2) * random.range(1.0, 3.0);
    for _ in 0..random.count(1, 3) {
        let half =
            [size * random.range(0.3, 0.55), size * random.range(0.3, 0.55), size * random.range(0.3, 0.6)];
        let at =
            [0.3 * size * random.normal(), 0.3 * size * random.normal(), half[2] * random.range(0.6, 0.95)];
        out.push(leaves(half, density, false, frame.child(at, random.range(0.0, 3.0), 0.0), random));
    }
}

/// Appends a clipped hedge of `length` along local x.
pub fn push_hedge(out: &mut Vec<Solid>, random: &mut Random, frame: &Frame, length: f64, height: f64) {
    let half = [length / 2.0, random.range(0.25, 0.5), height / 2.0 + 0.1];
    let density = random.range(5.0, 14.0);
    out.push(leaves(half, density, true, frame.child([0.0, 0.0, height / 2.0 - 0.1], 0.0, 0.0), random));
}
