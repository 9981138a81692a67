//! Cars, vans, trucks and bicycles.

use super::class;
use crate::geometry::{Frame, Material, Shape, Solid};
use crate::random::Random;

/// Appends a passenger car, a van or a truck that stands at `frame` (wheels on local z = 0, front along local x).
/// Returns its length.
pub fn push_vehicle(out: &mut Vec<Solid>, random: &mut Random, frame: &Frame, allow_truck: bool) -> f64 {
    let draw = random.unit();
    if allow_truck && draw < 0.07 {
        push_truck(out, random, frame)
    } else if draw < 0.22 {
        push_van(out, random, frame)
    } else {
        push_car(out, random, frame)
    }
}

fn paint(random: &mut Random) -> Material {
    let reflectance = if random.chance(0.3) { random.range(0.02, 0.08) } else { random.range(0.15, 0.6) };
    Material::grey(reflectance, 0.006)
}

fn hull(shape: Shape, frame: Frame, material: Material) -> Solid {
    Solid { shape, frame, material, label: class::VEHICLE }
}

fn push_car(out: &mut Vec<Solid>, random: &mut Random, frame: &Frame) -> f64 {
    let length = random.range(3.7, 4.9);
    let (half, width) = (length / 2.0, random.range(0.83, 0.93));
    let (sill, belt) = (random.range(0.22, 0.3), random.range(0.85, 1.0));
    let top = random.range(1.38, 1.62) + if random.chance(0.2) { 0.2 } else { 0.0 };
    let style = random.below(3); // 0 saloon, 1 hatchback, 2 estate
    let hood = random.range(0.85, 1.15);
    let boot = [0.75, 0.15, 0.05][style];
    let body = paint(random);
    let dark = Material::grey(0.06, 0.01);
    let middle = (sill + belt) / 2.0;
    // Lower body up to the belt, then bonnet and cabin on it.
    out.push(hull(
        Shape::tapered(
            [-half + 0.12, half - 0.15, width - 0.06],
            [-half, half, width],
            sill - middle,
            0.0,
            0,
        ),
        frame.child([0.0, 0.0, middle], 0.0, 0.0),
        body,
    ));
    out.push(hull(
        Shape::tapered(
            [-half, half, width],
            [-half + 0.12, half - 0.55, width - 0.05],
            -0.02,
            belt - middle,
            0,
        ),
        frame.child([0.0, 0.0, middle], 0.0, 0.0),
        body,
    ));
    let roof =
        [-half + boot + [0.75, 0.45, 0.25][style], half - hood - random.range(0.7, 0.95), width - 0.25];
    out.push(hull(
        Shape::tapered([-half + boot, half - hood, width - 0.06], roof, 0.0, top - belt - 0.05, 0b1111),
        frame.child([0.0, 0.0, belt], 0.0, 0.0),
        dark,
    ));
    // The roof with its pillars' upper ends: opaque.
    out.push(hull(
        Shape::tapered([roof[0] - 0.05, roof[1] + 0.05, roof[2] + 0.02], roof, 0.0, 0.06, 0),
        frame.child([0.0, 0.0, top - 0.06], 0.0, 0.0),
        body,
    ));
    // Pillars between the side windows.
    for x in [(roof[0] + roof[1]) / 2.0, roof[0] - 0.1] {
        for side in [-1.0, 1.0] {
            let lean = (0.25 - 0.06) / (top - belt);
            let mut at = frame.child([x, side * (width - 0.16), (belt + top) / 2.0], 0.0, 0.0);
            let up = at.turn([0.0, -side * lean, 1.0]);
            at = Frame::along(at.origin, up);
            let shape = Shape::Cone { bottom: 0.055, top: 0.055, height: (top - belt) / 2.0 };
            out.push(hull(shape, at, body));
        }
    }
    push_wheels(
        out,
        frame,
        half - random.range(0.72, 0.85),
        -half + random.range(0.65, 0.8),
        width - 0.02,
        0.31,
    );
    for side in [-1.0, 1.0] {
        let at = frame.child([half - hood - 0.35, side * (width + 0.07), belt + 0.05], 0.0, 0.0);
        out.push(hull(Shape::Box { half: [0.07, 0.08, 0.06], windows: None }, at, body));
    }
    length
}

fn push_van(out: &mut Vec<Solid>, random: &mut Random, frame: &Frame) -> f64 {
    let length = random.range(4.6, 5.9);
    let (half, width, top) = (length / 2.0, random.range(0.93, 1.02), random.range(1.85, 2.6));
    let (sill, belt) = (0.3, 1.15);
    let body = paint(random);
    out.push(hull(
        Shape::tapered([-half, half, width], [-half, half - 0.1, width], 0.0, belt - sill, 0),
        frame.child([0.0, 0.0, sill], 0.0, 0.0),
        body,
    ));
    out.push(hull(
        Shape::tapered(
            [half - 1.6, half - 0.35, width - 0.03],
            [half - 1.6, half - 1.1, width - 0.15],
            0.0,
            top - belt - 0.08,
            0b1110,
        ),
        frame.child([0.0, 0.0, belt], 0.0, 0.0),
        Material::grey(0.06, 0.01),
    ));
    let glass = if random.chance(0.4) { 0b0001 } else { 0 };
    out.push(hull(
        Shape::tapered(
            [-half, half - 1.6, width],
            [-half + 0.06, half - 1.5, width - 0.1],
            0.0,
            top - belt,
            glass,
        ),
        frame.child([0.0, 0.0, belt], 0.0, 0.0),
        body,
    ));
    push_wheels(out, frame, half - 0.9, -half + 0.9, width, 0.34);
    length
}

fn push_truck(out: &mut Vec<Solid>, random: &mut Random, frame: &Frame) -> f64 {
    let length = random.range(6.5, 9.5);
    let (half, width) = (length / 2.0, 1.22);
    let cab = random.range(1.7, 2.2);
    let top = random.range(2.7, 3.5);
    let body = paint(random);
    out.push(hull(
        Shape::tapered([half - cab, half, width], [half - cab, half - 0.1, width], 0.0, 1.0, 0),
        frame.child([0.0, 0.0, 0.45], 0.0, 0.0),
        body,
    ));
    out.push(hull(
        Shape::tapered(
            [half - cab, half - 0.1, width],
            [half - cab, half - 0.35, width - 0.1],
            0.0,
            1.1,
            0b1110,
        ),
        frame.child([0.0, 0.0, 1.45], 0.0, 0.0),
        body,
    ));
    let load = Shape::Box { half: [(length - cab) / 2.0 - 0.1, width, (top - 1.0) / 2.0], windows: None };
    out.push(hull(load, frame.child([-cab / 2.0 - 0.05, 0.0, (top + 1.0) / 2.0], 0.0, 0.0), paint(random)));
    let beam = Shape::Box { half: [half - 0.5, 0.45, 0.15], windows: None };
    out.push(hull(beam, frame.child([0.0, 0.0, 0.8], 0.0, 0.0), Material::grey(0.1, 0.01)));
    push_wheels(out, frame, half - 1.2, -half + 1.5, width, 0.48);
    length
}

fn push_wheels(out: &mut Vec<Solid>, frame: &Frame, front: f64, rear: f64, half_width: f64, radius: f64) {
    for x in [front, rear] {
        for side in [-1.0, 1.0] {
            let at =
                frame.child([x, side * half_width - if side > 0.0 { 0.2 } else { 0.0 }, radius], 0.0, 0.0);
            let axle = Frame::along(at.origin, at.axes[1]);
            let shape = Shape::Cone { bottom: radius, top: radius, height: 0.2 };
            out.push(hull(shape, axle, Material::grey(0.05, 0.008)));
        }
    }
}

/// Appends a bicycle at `frame`, front along local x, with the given class.
pub fn push_bicycle(out: &mut Vec<Solid>, frame: &Frame, label: u8) {
    let material = Material::grey(0.2, 0.01);
    for x in [-0.52, 0.52] {
        let at = frame.child([x, -0.02, 0.34], 0.0, 0.0);
        let shape = Shape::Cone { bottom: 0.33, top: 0.33, height: 0.03 };
        out.push(Solid { shape, frame: Frame::along(at.origin, at.axes[1]), material, label });
    }
    for (at, half) in [([0.0, 0.0, 0.62], [0.42, 0.025, 0.05]), ([-0.2, 0.0, 0.9], [0.12, 0.07, 0.04])] {
        let frame = frame.child(at, 0.0, 0.0);
        out.push(Solid { shape: Shape::Box { half, windows: None }, frame, material, label });
    }
    let bar = frame.child([0.42, 0.0, 1.0], 0.0, 0.0);
    out.push(Solid {
        shape: Shape::Box { half: [0.03, 0.28, 0.02], windows: None },
        frame: bar,
        material,
        label,
    });
}
