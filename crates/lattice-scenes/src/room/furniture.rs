//! Pieces of furniture from boxes, cylinders and ellipsoids.
//!
//! Frames: origin on the floor at the wall side's middle, local y into the room, z up.

use super::class;
use crate::geometry::{Frame, Material, Shape, Solid, V3};
use crate::random::Random;

/// What stands along a wall, with its width, depth and height, metres.
pub enum Piece {
    /// Open shelves with books.
    Shelf { width: f64, height: f64 },
    /// A closed cabinet or wardrobe.
    Cabinet { width: f64, depth: f64, height: f64 },
    /// A sofa or armchair.
    Sofa { width: f64 },
    /// A bed, head at the wall.
    Bed { width: f64 },
    /// A desk with a screen.
    Desk { width: f64 },
}

impl Piece {
    /// A random piece.
    pub fn draw(random: &mut Random) -> Self {
        match random.below(7) {
            0 | 1 => Self::Shelf { width: random.range(0.6, 1.4), height: random.range(0.9, 2.1) },
            2 | 3 => {
                let (width, depth) = (random.range(0.5, 1.6), random.range(0.35, 0.62));
                Self::Cabinet { width, depth, height: random.range(0.6, 2.0) }
            }
            4 => Self::Sofa { width: random.range(0.85, 2.1) },
            5 => Self::Bed { width: random.range(0.9, 1.6) },
            _ => Self::Desk { width: random.range(1.0, 1.7) },
        }
    }

    /// Width along the wall and depth into the room.
    pub fn footprint(&self) -> [f64; 2] {
        match self {
            Self::Shelf { width, .. } => [*width, 0.32],
            Self::Cabinet { width, depth, .. } => [*width, *depth],
            Self::Sofa { width } => [*width, 0.9],
            Self::Bed { width } => [*width, 2.05],
            Self::Desk { width } => [*width, 0.7],
        }
    }
}

struct Maker<'a> {
    out: &'a mut Vec<Solid>,
    frame: Frame,
    material: Material,
    label: u8,
}

impl Maker<'_> {
    /// A box by centre and full size.
    fn block(&mut self, centre: V3, size: V3) {
        let shape = Shape::Box { half: size.map(|v| v / 2.0), windows: None };
        self.push(shape, self.frame.child(centre, 0.0, 0.0));
    }

    fn post(&mut self, foot: V3, radius: f64, height: f64) {
        self.push(Shape::Cone { bottom: radius, top: radius, height }, self.frame.child(foot, 0.0, 0.0));
    }

    fn cushion(&mut self, centre: V3, half: V3) {
        self.push(Shape::Ellipsoid { half }, self.frame.child(centre, 0.0, 0.0));
    }

    fn push(&mut self, shape: Shape, frame: Frame) {
        self.out.push(Solid { shape, frame, material: self.material, label: self.label });
    }
}

fn wood(random: &mut Random) -> Material {
    let light = random.range(0.35, 1.0);
    Material::coloured([0.72 * light, 0.52 * light, 0.36 * light])
}

fn cloth(random: &mut Random) -> Material {
    let colour = [random.range(0.15, 0.8), random.range(0.15, 0.7), random.range(0.15, 0.7)];
    Material { roughness: 0.006, ..Material::coloured(colour) }
}

/// Appends a piece at the wall.
pub fn push_piece(out: &mut Vec<Solid>, random: &mut Random, frame: &Frame, piece: &Piece) {
    let material = match piece {
        Piece::Sofa { .. } | Piece::Bed { .. } => cloth(random),
        _ => wood(random),
    };
    let mut m = Maker { out, frame: *frame, material, label: class::FURNITURE };
    match *piece {
        Piece::Shelf { width, height } => {
            for side in [-0.5, 0.5] {
                m.block([side * (width - 0.03), 0.15, height / 2.0], [0.03, 0.3, height]);
            }
            m.block([0.0, 0.005, height / 2.0], [width, 0.01, height]);
            let boards = (height / 0.36).round().max(2.0) as usize;
            for i in 0..=boards {
                let z = 0.05 + (height - 0.07) * i as f64 / boards as f64;
                m.block([0.0, 0.15, z], [width, 0.3, 0.025]);
            }
            for i in 0..boards {
                let z = 0.065 + (height - 0.07) * i as f64 / boards as f64;
                let mut x = -width / 2.0 + 0.05;
                while x < width / 2.0 - 0.15 {
                    let thick = random.range(0.03, 0.16);
                    if random.chance(0.75) {
                        let (deep, tall) = (random.range(0.12, 0.24), random.range(0.15, 0.29));
                        let mut books =
                            Maker { out: m.out, frame: *frame, material: cloth(random), label: class::OTHER };
                        books
                            .block([x + thick / 2.0, 0.02 + deep / 2.0, z + tall / 2.0], [thick, deep, tall]);
                        m = Maker { out: books.out, frame: *frame, material, label: class::FURNITURE };
                    }
                    x += thick + if random.chance(0.2) { 0.12 } else { 0.004 };
                }
            }
        }
        Piece::Cabinet { width, depth, height } => {
            m.block([0.0, depth / 2.0, 0.04 + height / 2.0], [width, depth, height]);
            let doors = (width / 0.45).ceil() as usize;
            for i in 0..doors {
                let x = width * ((i as f64 + 0.5) / doors as f64 - 0.5);
                m.block(
                    [x, depth + 0.01, 0.05 + height / 2.0],
                    [width / doors as f64 - 0.03, 0.02, height - 0.06],
                );
                m.block([x + 0.08, depth + 0.035, 0.5 * height + 0.1], [0.02, 0.03, 0.12]);
            }
            if height < 1.5 {
                push_pile(
                    m.out,
                    random,
                    &frame.child([0.0, depth / 2.0, height + 0.04], 0.0, 0.0),
                    width / 2.5,
                );
            }
        }
        Piece::Sofa { width } => {
            m.block([0.0, 0.45, 0.22], [width, 0.86, 0.3]);
            m.block([0.0, 0.12, 0.55], [width, 0.22, 0.55]);
            for side in [-0.5, 0.5] {
                m.block([side * (width - 0.18), 0.45, 0.38], [0.18, 0.86, 0.5]);
            }
            let seats = ((width - 0.36) / 0.6).round().max(1.0) as usize;
            let pitch = (width - 0.36) / seats as f64;
            for i in 0..seats {
                let x = (i as f64 + 0.5) * pitch - (width - 0.36) / 2.0;
                m.block([x, 0.54, 0.42], [pitch - 0.02, 0.64, 0.12]);
                m.cushion([x, 0.28, 0.62], [pitch * 0.45, 0.12, 0.2]);
            }
        }
        Piece::Bed { width } => {
            m.block([0.0, 1.02, 0.4], [width - 0.06, 1.96, 0.22]);
            m.cushion([0.0, 1.25, 0.5], [width / 2.0, 0.75, 0.1]);
            for side in [-1.0, 1.0] {
                m.cushion([side * width * 0.23, 0.32, 0.56], [width * 0.2, 0.2, 0.09]);
            }
            m.material = wood(random);
            m.block([0.0, 1.02, 0.22], [width, 2.02, 0.14]);
            m.block([0.0, 0.02, 0.5], [width, 0.04, 0.9]);
        }
        Piece::Desk { width } => {
            push_table(m.out, random, &frame.child([0.0, 0.35, 0.0], 0.0, 0.0), [width / 2.0, 0.34], 0.73);
            let mut s = Maker {
                out: m.out,
                frame: *frame,
                material: Material::coloured([0.12; 3]),
                label: class::OTHER,
            };
            s.block([0.0, 0.2, 1.02], [random.range(0.45, 0.65), 0.03, 0.34]);
            s.block([0.0, 0.2, 0.8], [0.05, 0.05, 0.14]);
            s.block([0.0, 0.42, 0.745], [0.42, 0.14, 0.02]);
        }
    }
}

/// Appends a table around `frame` with things on it; `half` is the half size of its top.
pub fn push_table(out: &mut Vec<Solid>, random: &mut Random, frame: &Frame, half: [f64; 2], height: f64) {
    let mut m = Maker { out, frame: *frame, material: wood(random), label: class::FURNITURE };
    if random.chance(0.15) {
        let r = half[1].max(0.4);
        m.post([0.0, 0.0, height - 0.03], r, 0.03);
        m.post([0.0, 0.0, 0.0], 0.05, height);
        m.post([0.0, 0.0, 0.0], 0.25, 0.03);
    } else {
        m.block([0.0, 0.0, height - 0.015], [2.0 * half[0], 2.0 * half[1], 0.03]);
        for x in [-1.0, 1.0] {
            for y in [-1.0, 1.0] {
                m.block(
                    [x * (half[0] - 0.05), y * (half[1] - 0.05), height / 2.0 - 0.015],
                    [0.05, 0.05, height - 0.03],
                );
            }
        }
    }
    push_pile(out, random, &frame.child([0.0, 0.0, height], 0.0, 0.0), half[1]);
}

/// Appends a chair at `frame`, its back towards local -y: four legs, or a swivel foot.
pub fn push_chair(out: &mut Vec<Solid>, random: &mut Random, frame: &Frame) {
    let swivel = random.chance(0.4);
    let material = if swivel { cloth(random) } else { wood(random) };
    let mut m = Maker { out, frame: *frame, material, label: class::FURNITURE };
    m.block([0.0, 0.0, 0.45], [0.44, 0.43, if swivel { 0.08 } else { 0.03 }]);
    let back = frame.child([0.0, -0.22, 0.72], 0.0, 0.0);
    m.push(Shape::Box { half: [0.21, if swivel { 0.03 } else { 0.012 }, 0.2], windows: None }, back);
    if swivel {
        m.post([0.0, 0.0, 0.08], 0.03, 0.34);
        for i in 0..5 {
            let leg = frame.child([0.0, 0.0, 0.07], std::f64::consts::TAU * f64::from(i) / 5.0, 0.0);
            m.push(
                Shape::Box { half: [0.14, 0.02, 0.02], windows: None },
                leg.child([0.15, 0.0, 0.0], 0.0, 0.0),
            );
        }
    } else {
        for x in [-0.19, 0.19] {
            m.block([x, 0.18, 0.22], [0.035, 0.035, 0.44]);
            m.block([x, -0.2, 0.45], [0.035, 0.035, 0.9]);
        }
    }
}

/// Appends a floor lamp, or one that hangs from `frame` at the ceiling.
pub fn push_lamp(out: &mut Vec<Solid>, random: &mut Random, frame: &Frame, hangs: bool) {
    let shade = random.range(0.12, 0.25);
    let mut m =
        Maker { out, frame: *frame, material: Material::coloured([0.85, 0.8, 0.65]), label: class::OTHER };
    if hangs {
        m.post([0.0, 0.0, -0.4], 0.012, 0.4);
        m.push(
            Shape::Cone { bottom: shade, top: 0.6 * shade, height: 0.2 },
            frame.child([0.0, 0.0, -0.6], 0.0, 0.0),
        );
    } else {
        m.post([0.0, 0.0, 0.0], 0.14, 0.03);
        m.post([0.0, 0.0, 0.0], 0.014, 1.5);
        m.push(
            Shape::Cone { bottom: shade, top: 0.7 * shade, height: 0.28 },
            frame.child([0.0, 0.0, 1.4], 0.0, 0.0),
        );
    }
}

/// Appends a handful of small things within `reach` metres of `frame`.
pub fn push_pile(out: &mut Vec<Solid>, random: &mut Random, frame: &Frame, reach: f64) {
    for _ in 0..random.count(1, 5) {
        let at = [random.range(-reach, reach) * 0.9, random.range(-reach, reach).clamp(-0.22, 0.22), 0.0];
        let turned = frame.child(at, random.range(0.0, 3.0), 0.0);
        let mut m = Maker { out, frame: turned, material: cloth(random), label: class::OTHER };
        let tall = random.range(0.04, 0.32);
        match random.below(3) {
            0 => m.block([0.0, 0.0, tall / 2.0], [random.range(0.06, 0.35), random.range(0.06, 0.28), tall]),
            1 => m.post([0.0; 3], random.range(0.03, 0.13), tall),
            _ => m.cushion(
                [0.0, 0.0, tall / 2.0],
                [random.range(0.05, 0.2), random.range(0.05, 0.15), tall / 2.0],
            ),
        }
    }
}
