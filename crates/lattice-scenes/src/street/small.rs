//! Poles, lamps, signs, people, bins, fences and walls.

use super::class;
use crate::geometry::{Frame, Material, Shape, Solid};
use crate::random::Random;

fn push(out: &mut Vec<Solid>, shape: Shape, frame: Frame, reflectance: f64, label: u8) {
    out.push(Solid { shape, frame, material: Material::grey(reflectance, 0.006), label });
}

fn cuboid(half: [f64; 3]) -> Shape {
    Shape::Box { half, windows: None }
}

/// Appends a street lamp or a plain mast.
pub fn push_lamp(out: &mut Vec<Solid>, random: &mut Random, frame: &Frame, inwards: f64) {
    let (height, radius) = (random.range(4.5, 9.0), random.range(0.05, 0.13));
    let base = frame.child([0.0, 0.0, -0.2], 0.0, 0.0);
    push(
        out,
        Shape::Cone { bottom: radius, top: 0.6 * radius, height: height + 0.2 },
        base,
        0.3,
        class::POLE,
    );
    push(out, Shape::Cone { bottom: 1.6 * radius, top: 1.4 * radius, height: 1.0 }, base, 0.3, class::POLE);
    if random.chance(0.6) {
        let reach = random.range(0.8, 2.0);
        let arm = frame.child([0.0, inwards * reach / 2.0, height], 0.0, 0.0);
        push(out, cuboid([0.05, reach / 2.0, 0.04]), arm, 0.3, class::POLE);
    }
}

/// Appends a traffic sign, facing along local x.
pub fn push_sign(out: &mut Vec<Solid>, random: &mut Random, frame: &Frame) {
    let height = random.range(1.9, 2.8);
    let base = frame.child([0.0, 0.0, -0.2], 0.0, 0.0);
    push(out, Shape::Cone { bottom: 0.035, top: 0.035, height: height + 0.5 }, base, 0.35, class::POLE);
    let half = [0.012, random.range(0.2, 0.42), random.range(0.2, 0.42)];
    let plate = frame.child([0.05, 0.0, height], 0.15 * random.normal(), 0.0);
    push(out, cuboid(half), plate, 0.95, class::POLE);
}

/// Appends a person facing local x: legs, body, arms, head.
pub fn push_person(out: &mut Vec<Solid>, random: &mut Random, frame: &Frame, rides: bool) {
    let tall = random.range(1.5, 1.92);
    let k = tall / 1.75;
    let stride = if rides { 0.1 } else { random.range(0.0, 0.3) };
    let cloth = random.range(0.08, 0.5);
    let lift = if rides { 0.25 } else { 0.0 };
    for side in [-1.0, 1.0] {
        let hip = frame.world([0.0, 0.1 * side, lift + 0.85 * k]);
        let foot = frame.world([side * stride, 0.1 * side, lift]);
        let down = [foot[0] - hip[0], foot[1] - hip[1], foot[2] - hip[2]];
        let leg = Shape::Cone { bottom: 0.1, top: 0.06, height: 0.86 * k };
        push(out, leg, Frame::along(hip, down), cloth, class::PERSON);
        let shoulder = frame.world([0.0, 0.23 * side, lift + 1.4 * k]);
        let hang = frame.turn([-side * stride * 0.8, 0.05 * side, -0.6]);
        let arm = Shape::Cone { bottom: 0.06, top: 0.045, height: 0.6 * k };
        push(out, arm, Frame::along(shoulder, hang), cloth, class::PERSON);
    }
    let chest = Shape::Ellipsoid { half: [0.14, 0.22, 0.36 * k] };
    push(
        out,
        chest,
        frame.child([0.0, 0.0, lift + 1.13 * k], 0.0, if rides { 0.3 } else { 0.0 }),
        cloth,
        class::PERSON,
    );
    let head = Shape::Ellipsoid { half: [0.1, 0.085, 0.13] };
    push(out, head, frame.child([0.02, 0.0, lift + 1.61 * k], 0.0, 0.0), 0.35, class::PERSON);
}

/// Appends a rubbish bin, a box or a drum.
pub fn push_bin(out: &mut Vec<Solid>, random: &mut Random, frame: &Frame) {
    if random.chance(0.5) {
        let half = [random.range(0.25, 0.6), random.range(0.25, 0.4), random.range(0.45, 0.65)];
        push(
            out,
            cuboid(half),
            frame.child([0.0, 0.0, half[2]], 0.2 * random.normal(), 0.0),
            0.2,
            class::OTHER,
        );
    } else {
        let drum = Shape::Cone { bottom: 0.22, top: 0.27, height: random.range(0.7, 1.1) };
        push(out, drum, *frame, 0.25, class::OTHER);
    }
}

/// Appends a garden wall, a board fence or a railing of `length` along local x.
pub fn push_fence(out: &mut Vec<Solid>, random: &mut Random, frame: &Frame, length: f64) {
    let height = random.range(0.6, 1.9);
    if random.chance(0.4) {
        let wall = cuboid([length / 2.0, 0.12, height / 2.0 + 0.15]);
        push(out, wall, frame.child([0.0, 0.0, height / 2.0 - 0.15], 0.0, 0.0), 0.35, class::OTHER);
        return;
    }
    let pitch = random.range(0.12, 0.3);
    let board = if random.chance(0.5) { 0.4 * pitch } else { 0.02 };
    let n = (length / pitch) as usize;
    for i in 0..n.min(80) {
        let x = (i as f64 + 0.5) * pitch - length / 2.0;
        push(
            out,
            cuboid([board, 0.015, height / 2.0]),
            frame.child([x, 0.0, height / 2.0], 0.0, 0.0),
            0.35,
            class::OTHER,
        );
    }
    for z in [0.15, 0.9] {
        push(
            out,
            cuboid([length / 2.0, 0.02, 0.04]),
            frame.child([0.0, 0.03, z * height], 0.0, 0.0),
            0.35,
            class::OTHER,
        );
    }
}

/// Appends a guard rail of `length` along local x.
pub fn push_guard_rail(out: &mut Vec<Solid>, frame: &Frame, length: f64) {
    push(out, cuboid([length / 2.0, 0.03, 0.16]), frame.child([0.0, 0.0, 0.6], 0.0, 0.0), 0.5, class::OTHER);
    for i in 0..(length / 2.0) as usize {
        let x = 2.0 * i as f64 + 1.0 - length / 2.0;
        push(out, cuboid([0.05, 0.05, 0.35]), frame.child([x, 0.0, 0.3], 0.0, 0.0), 0.4, class::OTHER);
    }
}
