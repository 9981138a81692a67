//! Houses: a body with windows, and what breaks its facade.

use super::class;
use crate::geometry::{Frame, Material, Shape, Solid, Windows};
use crate::random::Random;

fn push(out: &mut Vec<Solid>, shape: Shape, frame: Frame, material: Material) {
    out.push(Solid { shape, frame, material, label: class::BUILDING });
}

fn cuboid(half: [f64; 3]) -> Shape {
    Shape::Box { half, windows: None }
}

/// Appends a house whose front faces local -y: `frame` is the middle of the front on the ground.
pub fn push_house(
    out: &mut Vec<Solid>,
    random: &mut Random,
    frame: &Frame,
    width: f64,
    depth: f64,
    height: f64,
) {
    let material = Material::grey(random.range(0.2, 0.55), random.range(0.004, 0.015));
    let windows = Windows {
        pitch: [random.range(1.8, 3.8), random.range(2.7, 3.3)],
        share: [random.range(0.3, 0.6), random.range(0.4, 0.6)],
        recess: random.range(0.06, 0.3),
        base: random.range(0.4, 1.2) + 2.0,
        loss: random.range(0.3, 0.7),
    };
    // Foundations reach below sloping ground.
    let half = [width / 2.0, depth / 2.0, height / 2.0 + 1.0];
    let body = frame.child([0.0, half[1], height / 2.0 - 1.0], 0.0, 0.0);
    push(out, Shape::Box { half, windows: Some(windows) }, body, material);
    if height < 9.0 {
        // A gable roof with eaves; its ridge runs along the street or across it.
        let rise = random.range(1.5, 4.0);
        let roof = frame.child([0.0, half[1], height], 0.0, 0.0);
        let eave = random.range(0.2, 0.5);
        let low = [-half[0] - eave, half[0] + eave, half[1] + eave];
        let high = if random.chance(0.5) { [-half[0], half[0], 0.05] } else { [-0.05, 0.05, half[1]] };
        push(out, Shape::tapered(low, high, 0.0, rise, 0), roof, Material::grey(0.25, 0.02));
    }
    // Insets and bays, the plinth, doors, steps, balconies, rain pipes.
    for _ in 0..random.count(0, 2) {
        let bay = [
            random.range(0.8, 2.5).min(half[0] * 0.6),
            random.range(0.2, 0.9),
            height * random.range(0.3, 0.5),
        ];
        let x = random.range(-half[0] + bay[0], half[0] - bay[0]);
        let at = frame.child([x, 0.0, bay[2] - 0.3], 0.0, 0.0);
        push(
            out,
            Shape::Box { half: bay, windows: Some(Windows { base: windows.base + 0.2, ..windows }) },
            at,
            material,
        );
    }
    if random.chance(0.4) {
        push(out, cuboid([half[0], 0.08, 1.0]), frame.child([0.0, -0.03, -0.3], 0.0, 0.0), material);
    }
    for _ in 0..random.count(1, 2) {
        let x = random.range(-0.7, 0.7) * half[0];
        let frame_half = 0.12;
        for side in [-0.62, 0.62] {
            let at = frame.child([x + side, 0.0, 1.0], 0.0, 0.0);
            push(out, cuboid([frame_half, 0.15, 1.3]), at, material);
        }
        let steps = random.count(0, 3);
        for i in 0..steps {
            let deep = 0.3 * (steps - i) as f64;
            push(
                out,
                cuboid([0.7, deep, 0.09]),
                frame.child([x, 0.0, 0.18 * i as f64 + 0.09], 0.0, 0.0),
                material,
            );
        }
        if random.chance(0.4) {
            push(out, cuboid([1.0, 0.6, 0.06]), frame.child([x, 0.0, 2.45], 0.0, 0.0), material);
        }
    }
    if height > 6.0 && random.chance(0.5) {
        for _ in 0..random.count(1, 4) {
            let at = frame.child([random.range(-0.8, 0.8) * half[0], -0.5, 2.9], 0.0, 0.0);
            push(out, cuboid([1.2, 0.55, 0.08]), at, material);
        }
    }
    for side in [-1.0, 1.0] {
        if random.chance(0.5) {
            let at = frame.child([side * (half[0] - 0.3), -0.08, -0.5], 0.0, 0.0);
            push(out, Shape::Cone { bottom: 0.06, top: 0.06, height: height + 0.4 }, at, material);
        }
    }
}

/// Appends a shed or garage beside a house.
pub fn push_shed(out: &mut Vec<Solid>, random: &mut Random, frame: &Frame) {
    let half = [random.range(1.3, 2.0), random.range(2.0, 3.2), random.range(1.1, 1.5) + 0.3];
    let material = Material::grey(random.range(0.2, 0.5), 0.01);
    push(out, cuboid(half), frame.child([0.0, half[1], half[2] - 0.5], 0.0, 0.0), material);
}
