//! The plan of a room: shell with openings, what stands along the walls and in the middle.

use std::f64::consts::{FRAC_PI_2, TAU};

use super::class;
use super::furniture::{Piece, push_chair, push_lamp, push_piece, push_pile, push_table};
use crate::geometry::{Frame, Material, Shape, Solid, V3};
use crate::random::Random;

/// A furnished room in its own frame: x and y from 0 to `size`, floor at z = 0.
pub struct Plan {
    /// Width, length, height, metres.
    pub size: V3,
    /// Everything in it.
    pub solids: Vec<Solid>,
    /// Places where furniture stands: centre x, y and half extents.
    pub taken: Vec<[f64; 4]>,
}

impl Plan {
    /// The room of a seed.
    pub fn new(random: &mut Random) -> Self {
        let size = [random.range(2.7, 4.6), random.range(3.0, 6.0), random.range(2.4, 2.9)];
        let mut plan = Self { size, solids: Vec::new(), taken: Vec::new() };
        plan.shell(random);
        plan.along_walls(random);
        plan.middle(random);
        plan.clutter(random);
        plan
    }

    /// Whether a rectangle is inside the room and free, and if so takes it.
    fn take(&mut self, x: f64, y: f64, half: [f64; 2]) -> bool {
        let [w, l, _] = self.size;
        let inside =
            x - half[0] > -0.01 && x + half[0] < w + 0.01 && y - half[1] > -0.01 && y + half[1] < l + 0.01;
        let free =
            self.taken.iter().all(|t| (t[0] - x).abs() > t[2] + half[0] || (t[1] - y).abs() > t[3] + half[1]);
        if inside && free {
            self.taken.push([x, y, half[0], half[1]]);
        }
        inside && free
    }

    fn shell(&mut self, random: &mut Random) {
        let [w, l, h] = self.size;
        let colour = |r: &mut Random, base: f64| {
            let tint = base + r.range(-0.1, 0.1);
            Material::coloured([tint, tint + r.range(-0.05, 0.03), tint + r.range(-0.12, 0.02)])
        };
        let (floor, wall) = (colour(random, 0.45), colour(random, 0.8));
        self.slab([0.0, 0.0, -0.05], [w, l, 0.0], 2, floor, class::FLOOR);
        self.slab([0.0, 0.0, h], [w, l, h + 0.05], 2, Material::coloured([0.88; 3]), class::CEILING);
        // One door, one to three windows; each wall is cut around its openings.
        let door_wall = random.below(4);
        for side in 0..4usize {
            let length = if side.is_multiple_of(2) { w } else { l };
            let mut openings: Vec<[f64; 4]> = Vec::new();
            if side == door_wall {
                let at = random.range(0.2, length - 1.15);
                openings.push([at, at + 0.9, 0.0, 2.02]);
            } else if random.chance(0.5) {
                let width = random.range(0.8, (length - 0.8).min(2.2));
                let at = random.range(0.3, length - 0.3 - width);
                openings.push([at, at + width, random.range(0.75, 1.0), random.range(1.9, 2.25)]);
            }
            self.wall(side, length, &openings, wall, random);
        }
        if random.chance(0.5) {
            let half = [random.range(0.6, 1.2).min(w / 3.0), random.range(0.5, 1.0), 0.008];
            let at = Frame::yaw([w / 2.0, l / 2.0, 0.008], random.range(0.0, 0.3));
            let material = Material { roughness: 0.004, ..Material::coloured([0.6, 0.3, 0.25]) };
            self.push(Shape::Box { half, windows: None }, at, material, class::FLOOR);
        }
    }

    fn push(&mut self, shape: Shape, frame: Frame, material: Material, label: u8) {
        self.solids.push(Solid { shape, frame, material, label });
    }

    /// A box from corner to corner, cut into tiles of about a metre so that unseen ones are skipped as a whole.
    fn slab(&mut self, low: V3, high: V3, thin: usize, material: Material, label: u8) {
        let axes: Vec<usize> = (0..3).filter(|&a| a != thin).collect();
        let tiles = |a: usize| ((high[a] - low[a]).ceil() as usize).max(1);
        let (n, m) = (tiles(axes[0]), tiles(axes[1]));
        for i in 0..n {
            for j in 0..m {
                let (mut lo, mut hi) = (low, high);
                for (a, k, count) in [(axes[0], i, n), (axes[1], j, m)] {
                    let step = (high[a] - low[a]) / count as f64;
                    lo[a] = low[a] + k as f64 * step;
                    hi[a] = lo[a] + step;
                }
                let half = [0, 1, 2].map(|a| (hi[a] - lo[a]) / 2.0);
                let centre = [0, 1, 2].map(|a| (hi[a] + lo[a]) / 2.0);
                self.push(Shape::Box { half, windows: None }, Frame::yaw(centre, 0.0), material, label);
            }
        }
    }

    /// A wall as strips left, right, below and above its openings (`[from, to, low, high]`), with frames and radiators.
    fn wall(
        &mut self,
        side: usize,
        length: f64,
        openings: &[[f64; 4]],
        material: Material,
        random: &mut Random,
    ) {
        let [w, l, h] = self.size;
        let thick = 0.1;
        let place = |from: f64, to: f64, low: f64, high: f64, near: f64, far: f64| -> (V3, V3) {
            match side {
                0 => ([from, -far, low], [to, -near, high]),
                1 => ([w + near, from, low], [w + far, to, high]),
                2 => ([from, l + near, low], [to, l + far, high]),
                _ => ([-far, from, low], [-near, to, high]),
            }
        };
        let thin = if side.is_multiple_of(2) { 1 } else { 0 };
        let mut at = 0.0;
        for &[from, to, low, high] in openings {
            let pieces = [(at, from, 0.0, h), (from, to, 0.0, low), (from, to, high, h)];
            for (f, t, lo, hi) in pieces {
                if t - f > 0.01 && hi - lo > 0.01 {
                    let (a, b) = place(f, t, lo, hi, 0.0, thick);
                    self.slab(a, b, thin, material, class::WALL);
                }
            }
            let frame = Material::coloured([0.75, 0.73, 0.7]);
            for (f, t, lo, hi) in [
                (from - 0.06, from + 0.02, low, high + 0.06),
                (to - 0.02, to + 0.06, low, high + 0.06),
                (from, to, high - 0.02, high + 0.06),
            ] {
                let (a, b) = place(f, t, lo, hi, -0.025, 0.06);
                self.slab(a, b, thin, frame, class::WALL);
            }
            if low > 0.3 {
                let (a, b) = place(from + 0.1, to - 0.1, 0.12, low - 0.12, -0.14, -0.04);
                self.slab(a, b, thin, frame, class::FURNITURE);
                let (a, b) = place(from - 0.05, to + 0.05, low - 0.03, low, -0.18, 0.06);
                self.slab(a, b, 2, frame, class::WALL);
                if random.chance(0.5) {
                    let cloth = Material { roughness: 0.015, ..Material::coloured([0.5, 0.45, 0.55]) };
                    let (a, b) = place(from - 0.35, from + 0.1, 0.05, high + 0.15, -0.14, -0.06);
                    self.slab(a, b, thin, cloth, class::OTHER);
                }
            } else {
                // A door leaf, half open into the room.
                let (hinge, _) = place(from, to, 0.0, 2.0, 0.0, 0.0);
                let turn = [0.0, FRAC_PI_2, 0.0, FRAC_PI_2][side]
                    + random.range(0.2, 1.2) * [1.0, 1.0, -1.0, -1.0][side];
                let leaf = Frame::yaw(hinge, turn).child([0.44, 0.0, 1.0], 0.0, 0.0);
                let half = [0.43, 0.02, 1.0];
                self.push(
                    Shape::Box { half, windows: None },
                    leaf,
                    Material::coloured([0.55, 0.4, 0.28]),
                    class::WALL,
                );
                self.taken.push([hinge[0], hinge[1], 0.9, 0.9]);
            }
            at = to;
        }
        if length - at > 0.01 {
            let (a, b) = place(at, length, 0.0, h, 0.0, thick);
            self.slab(a, b, thin, material, class::WALL);
        }
        let (a, b) = place(0.0, length, 0.0, 0.08, -0.012, 0.0);
        if openings.iter().all(|o| o[2] > 0.0) {
            self.slab(a, b, thin, Material::coloured([0.6; 3]), class::WALL);
        }
        if random.chance(0.6) {
            let (x, z) = (random.range(0.4, length - 0.4), random.range(1.4, 1.8));
            let (a, b) = place(x - 0.3, x + 0.3, z - 0.22, z + 0.22, -0.025, 0.0);
            self.slab(a, b, thin, Material::coloured([0.3, 0.4, 0.55]), class::OTHER);
        }
    }

    fn along_walls(&mut self, random: &mut Random) {
        let [w, l, _] = self.size;
        for _ in 0..random.count(14, 30) {
            let side = random.below(4);
            let piece = Piece::draw(random);
            let [width, depth] = piece.footprint();
            let along = random.range(
                width / 2.0,
                (if side.is_multiple_of(2) { w } else { l } - width / 2.0).max(width / 2.0 + 0.01),
            );
            let gap = random.range(0.01, 0.08);
            let (x, y, yaw) = match side {
                0 => (along, gap, 0.0),
                1 => (w - gap, along, FRAC_PI_2),
                2 => (along, l - gap, 2.0 * FRAC_PI_2),
                _ => (gap, along, 3.0 * FRAC_PI_2),
            };
            let frame = Frame::yaw([x, y, 0.0], yaw + 0.01 * random.normal());
            let centre = frame.world([0.0, depth / 2.0, 0.0]);
            let half =
                if side.is_multiple_of(2) { [width / 2.0, depth / 2.0] } else { [depth / 2.0, width / 2.0] };
            if self.take(centre[0], centre[1], half) {
                push_piece(&mut self.solids, random, &frame, &piece);
                if matches!(piece, Piece::Desk { .. }) {
                    let seat = frame.world([random.range(-0.2, 0.2), depth + 0.2, 0.0]);
                    let turn = yaw + std::f64::consts::PI + 0.5 * random.normal();
                    push_chair(&mut self.solids, random, &Frame::yaw(seat, turn));
                    self.taken.push([seat[0], seat[1], 0.25, 0.25]);
                }
            }
        }
    }

    fn middle(&mut self, random: &mut Random) {
        let [w, l, _] = self.size;
        for _ in 0..6 {
            let (x, y) = (random.range(0.3, 0.7) * w, random.range(0.3, 0.7) * l);
            let half = [random.range(0.4, 0.9), random.range(0.35, 0.55)];
            let low = random.chance(0.3);
            if !self.take(x, y, [half[0] + 0.25, half[1] + 0.25]) {
                continue;
            }
            let yaw = if random.chance(0.7) { 0.0 } else { random.range(0.0, TAU) };
            let frame = Frame::yaw([x, y, 0.0], yaw);
            push_table(&mut self.solids, random, &frame, half, if low { 0.45 } else { 0.74 });
            for side in 0..if low { 0 } else { random.count(2, 4) } {
                let turn = FRAC_PI_2 * side as f64;
                let reach = if side.is_multiple_of(2) { half[1] } else { half[0] } + random.range(0.0, 0.3);
                let at = frame.child([0.0; 3], turn, 0.0).world([0.0, -reach, 0.0]);
                let seat = Frame::yaw(at, yaw + turn + 0.3 * random.normal());
                push_chair(&mut self.solids, random, &seat);
            }
        }
        if random.chance(0.6) {
            let frame =
                Frame::yaw([random.range(0.3, 0.7) * w, random.range(0.3, 0.7) * l, self.size[2]], 0.0);
            push_lamp(&mut self.solids, random, &frame, true);
        }
    }

    fn clutter(&mut self, random: &mut Random) {
        let [w, l, _] = self.size;
        for _ in 0..random.count(4, 12) {
            let (x, y) = (random.range(0.2, w - 0.2), random.range(0.2, l - 0.2));
            if self.take(x, y, [0.2, 0.2]) {
                let frame = Frame::yaw([x, y, 0.0], random.range(0.0, TAU));
                if random.chance(0.2) {
                    push_lamp(&mut self.solids, random, &frame, false);
                } else {
                    push_pile(&mut self.solids, random, &frame, 0.3);
                }
            }
        }
    }
}
