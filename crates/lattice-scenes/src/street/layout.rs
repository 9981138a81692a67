//! Where things stand: a street drawn from one of four characters.

use std::f64::consts::{FRAC_PI_2, PI, TAU};

use super::buildings::{push_house, push_shed};
use super::cars::{push_bicycle, push_vehicle};
use super::plants::{push_bush, push_hedge, push_tree};
use super::small::{push_bin, push_fence, push_guard_rail, push_lamp, push_person, push_sign};
use super::{Terrain, class};
use crate::geometry::{Solid, Tree};
use crate::random::Random;

/// How far along the street things are placed, metres either way.
const REACH: f64 = 85.0;

/// A street with everything in it; the sensor stands at the origin.
pub struct Street {
    /// The ground.
    pub terrain: Terrain,
    /// All solids.
    pub tree: Tree,
}

#[derive(Clone, Copy, PartialEq)]
enum Character {
    /// Closed rows of tall houses.
    City,
    /// Houses with front gardens.
    Residential,
    /// Few houses, many trees.
    Park,
    /// Fields, banks, guard rails.
    Country,
}

/// One side of the street.
struct Side {
    /// -1 right, 1 left.
    sign: f64,
    /// Distance of the facades from the sidewalk.
    setback: f64,
    /// Chances a place along the side is taken.
    houses: f64,
    parked: f64,
    trees: f64,
    bushes: f64,
    hedges: f64,
    fences: f64,
}

struct Builder {
    terrain: Terrain,
    random: Random,
    out: Vec<Solid>,
}

impl Street {
    /// The street of a seed, for a sensor `sensor_height` above the road.
    pub fn new(seed: u64, sensor_height: f64) -> Self {
        let mut random = Random::new(&[seed, 0x57]);
        let character = match random.unit() {
            u if u < 0.22 => Character::City,
            u if u < 0.62 => Character::Residential,
            u if u < 0.86 => Character::Park,
            _ => Character::Country,
        };
        let terrain = plan(&mut random, seed, sensor_height, character);
        let mut builder = Builder { terrain, random, out: Vec::new() };
        for sign in [-1.0, 1.0] {
            let side = draw_side(&mut builder.random, character, sign);
            builder.fill_side(&side, character);
        }
        builder.fill_road(character);
        Self { terrain: builder.terrain, tree: Tree::new(builder.out) }
    }
}

fn plan(random: &mut Random, seed: u64, sensor_height: f64, character: Character) -> Terrain {
    let mut terrain = Terrain::new(random, seed ^ 0x7e44, sensor_height);
    let lane = random.range(3.0, 3.9);
    let lanes = if character != Character::Residential && random.chance(0.3) { 2.0 } else { 1.0 };
    let parking = if character == Character::Country { 0.4 } else { random.range(0.6, 2.6) };
    terrain.half_road = lanes * lane + parking;
    terrain.sensor_d = -(lanes - 0.5) * lane + random.range(-0.3, 0.5);
    terrain.yaw = 0.06 * random.normal() + if random.chance(0.12) { random.range(-0.7, 0.7) } else { 0.0 };
    terrain.bend = if random.chance(0.6) { 0.0025 * random.normal() } else { 0.0 };
    terrain.bend = terrain.bend.clamp(-0.006, 0.006);
    terrain.kerb = random.range(0.04, 0.15);
    for side in 0..2 {
        let broad =
            if character == Character::City { random.range(2.0, 5.0) } else { random.range(1.4, 3.4) };
        let none = if character == Character::Country { 0.9 } else { 0.12 };
        terrain.sidewalk[side] = if random.chance(none) { 0.0 } else { broad };
        let steep = if character == Character::Country { 0.25 } else { 0.09 };
        terrain.bank[side] = steep * random.normal();
    }
    terrain.bank_width = random.range(4.0, 14.0);
    terrain.grass = random.range(0.02, 0.07);
    if random.chance(if character == Character::Country { 0.2 } else { 0.6 }) {
        let mut open = [random.chance(0.7), random.chance(0.7)];
        open[usize::from(!open[0])] = true;
        terrain.junctions.push((random.range(-45.0, 50.0), random.range(2.8, 5.5), open));
        if random.chance(0.35) {
            terrain.junctions.push((
                terrain.junctions[0].0 + random.sign() * 55.0,
                random.range(2.8, 4.0),
                open,
            ));
        }
    }
    terrain.level();
    terrain
}

fn draw_side(random: &mut Random, character: Character, sign: f64) -> Side {
    let r = random;
    match character {
        Character::City => Side {
            sign,
            setback: r.range(0.0, 1.5),
            houses: r.range(0.85, 1.0),
            parked: r.range(0.05, 0.6),
            trees: r.range(0.1, 0.6),
            bushes: r.range(0.1, 0.5),
            hedges: 0.1,
            fences: 0.1,
        },
        Character::Residential => Side {
            sign,
            setback: r.range(2.5, 9.0),
            houses: r.range(0.45, 0.85),
            parked: r.range(0.0, 0.4),
            trees: r.range(0.3, 0.8),
            bushes: r.range(0.6, 1.0),
            hedges: r.range(0.2, 0.7),
            fences: r.range(0.1, 0.4),
        },
        Character::Park => Side {
            sign,
            setback: r.range(6.0, 18.0),
            houses: r.range(0.05, 0.45),
            parked: r.range(0.0, 0.35),
            trees: r.range(0.5, 1.0),
            bushes: r.range(0.7, 1.0),
            hedges: r.range(0.1, 0.6),
            fences: r.range(0.05, 0.3),
        },
        Character::Country => Side {
            sign,
            setback: r.range(10.0, 25.0),
            houses: r.range(0.1, 0.3),
            parked: r.range(0.0, 0.15),
            trees: r.range(0.3, 1.0),
            bushes: r.range(0.7, 1.0),
            hedges: r.range(0.1, 0.7),
            fences: r.range(0.05, 0.3),
        },
    }
}

impl Builder {
    fn fill_side(&mut self, side: &Side, character: Character) {
        let index = usize::from(side.sign > 0.0);
        let kerb = self.terrain.half_road;
        let edge = kerb + self.terrain.sidewalk[index];
        self.houses(side, edge);
        self.parked_cars(side, kerb);
        let front = edge + side.setback;
        // Garden line: hedges and fences in pieces.
        let line = edge + self.random.range(0.2, 0.8);
        let mut s = -REACH;
        while s < REACH && side.setback > 1.2 {
            let length = self.random.range(4.0, 14.0);
            let middle = s + length / 2.0;
            let draw = self.random.unit();
            if !self.terrain.is_junction(middle, side.sign, length / 2.0 + 1.0) {
                let piece = length - self.random.range(0.5, 3.0);
                let frame = self.terrain.place(middle, side.sign * line, 0.0);
                if draw < side.hedges {
                    let height = self.random.range(0.7, 2.2);
                    push_hedge(&mut self.out, &mut self.random, &frame, piece, height);
                } else if draw < side.hedges + side.fences {
                    push_fence(&mut self.out, &mut self.random, &frame, piece);
                }
            }
            s += length;
        }
        if character == Character::Country && self.random.chance(0.6) {
            for i in -10..10 {
                let at = 8.0 * f64::from(i) + 4.0;
                if !self.terrain.is_junction(at, side.sign, 5.0) {
                    let frame = self.terrain.place(at, side.sign * (kerb + 0.6), 0.0);
                    push_guard_rail(&mut self.out, &frame, 8.0);
                }
            }
        }
        self.plants(side, kerb, front);
        self.furniture(side, kerb, edge);
    }

    fn houses(&mut self, side: &Side, edge: f64) {
        let city = side.setback < 1.6;
        let height = self.random.range(4.0, if city { 18.0 } else { 8.5 });
        let mut s = -REACH;
        while s < REACH {
            let width = self.random.range(7.0, if city { 22.0 } else { 14.0 });
            let middle = s + width / 2.0;
            let draw = self.random.unit();
            let front = edge
                + side.setback
                + if city { 0.0 } else { self.random.range(-0.4, 1.6) * 0.5 * side.setback };
            // The front faces the road: local -y towards it.
            let turn = if side.sign > 0.0 { 0.0 } else { PI };
            if self.terrain.is_junction(middle, side.sign, width / 2.0 + 2.5) {
                s += 3.0;
                continue;
            }
            if draw < side.houses {
                let frame = self.terrain.place(middle, side.sign * front.max(edge + 0.3), turn);
                let (depth, tall) = (self.random.range(7.0, 13.0), height * self.random.range(0.8, 1.25));
                push_house(&mut self.out, &mut self.random, &frame, width - 0.05, depth, tall);
                if !city && self.random.chance(0.4) {
                    let shed =
                        self.terrain.place(middle + width / 2.0 + 2.0, side.sign * (front + 3.0), turn);
                    push_shed(&mut self.out, &mut self.random, &shed);
                }
            }
            s += width + if city && self.random.chance(0.8) { 0.0 } else { self.random.range(2.0, 9.0) };
        }
        self.side_streets(side, edge, height);
    }

    /// Houses, hedges, trees along the side streets.
    fn side_streets(&mut self, side: &Side, edge: f64, height: f64) {
        for (at, half, open) in self.terrain.junctions.clone() {
            if !open[usize::from(side.sign > 0.0)] {
                continue;
            }
            for (towards, turn) in [(-1.0, FRAC_PI_2), (1.0, -FRAC_PI_2)] {
                let line = at + towards * (half + self.random.range(1.2, 2.8));
                let mut d = edge + 1.0;
                while d < 45.0 {
                    let length = self.random.range(4.0, 10.0);
                    let draw = self.random.unit();
                    let frame = self.terrain.place(line, side.sign * (d + length / 2.0), FRAC_PI_2);
                    if draw < side.hedges {
                        let tall = self.random.range(0.6, 1.8);
                        push_hedge(&mut self.out, &mut self.random, &frame, length - 0.5, tall);
                    } else if draw < side.hedges + side.fences {
                        push_fence(&mut self.out, &mut self.random, &frame, length - 0.5);
                    } else if draw > 1.0 - 0.6 * side.bushes {
                        let size = self.random.range(1.0, 3.2);
                        push_bush(&mut self.out, &mut self.random, &frame, size);
                    }
                    if self.random.chance(0.7 * side.trees) {
                        let beside = line + towards * self.random.range(0.5, 3.0);
                        let frame = self.terrain.place(beside, side.sign * (d + 0.3 * length), 0.0);
                        push_tree(&mut self.out, &mut self.random, &frame);
                    }
                    d += length;
                }
                let mut d = edge + 14.0;
                while d < 70.0 {
                    let width = self.random.range(8.0, 16.0);
                    if self.random.chance(side.houses) {
                        let along = at + towards * (half + 2.0 + side.setback.min(6.0));
                        let frame = self.terrain.place(along, side.sign * (d + width / 2.0), turn);
                        let tall = height * self.random.range(0.8, 1.2);
                        push_house(&mut self.out, &mut self.random, &frame, width, 8.0, tall);
                    }
                    d += width + self.random.range(0.0, 8.0);
                }
            }
        }
    }

    fn parked_cars(&mut self, side: &Side, kerb: f64) {
        let mut s = -REACH + self.random.range(0.0, 6.0);
        let across = self.random.chance(0.12);
        let pitch = if across { 2.6 } else { 5.6 };
        while s < REACH {
            if self.random.chance(side.parked) && !self.terrain.is_junction(s, side.sign, 5.0) {
                // Never in the way of the sensor's car: where the road is narrow, half on the sidewalk.
                let least = if side.sign < 0.0 { 2.9 - self.terrain.sensor_d } else { 0.0 };
                let d = side.sign
                    * (kerb + if across { 1.6 } else { -1.05 } + 0.12 * self.random.normal()).max(least);
                let turn =
                    if across { FRAC_PI_2 } else { 0.0 } + if self.random.chance(0.5) { PI } else { 0.0 };
                let frame = self.terrain.place_vehicle(s, d, turn + 0.03 * self.random.normal());
                push_vehicle(&mut self.out, &mut self.random, &frame, false);
            }
            s += pitch + self.random.range(0.0, 1.6) * if across { 0.2 } else { 1.0 };
        }
        // On drives beside the houses.
        if side.setback > 4.0 {
            for _ in 0..self.random.count(0, 6) {
                let s = self.random.range(-50.0, 50.0);
                let d = side.sign * (kerb + self.terrain.sidewalk[usize::from(side.sign > 0.0)] + 2.7);
                let frame = self.terrain.place_vehicle(s, d, side.sign * FRAC_PI_2);
                push_vehicle(&mut self.out, &mut self.random, &frame, false);
            }
        }
    }

    fn plants(&mut self, side: &Side, kerb: f64, front: f64) {
        let index = usize::from(side.sign > 0.0);
        let edge = kerb + self.terrain.sidewalk[index];
        let alley = self.random.chance(0.35);
        let pitch = self.random.range(6.0, 13.0);
        let mut s = -REACH;
        while s < REACH {
            let at = s + self.random.range(0.0, 0.4) * pitch;
            if self.random.chance(side.trees) && !self.terrain.is_junction(at, side.sign, 2.5) {
                let d = if alley {
                    kerb + (0.3 * self.terrain.sidewalk[index]).max(0.8)
                } else if side.setback > 1.6 {
                    self.random.range(edge + 0.8, front.max(edge + 1.5))
                } else {
                    kerb + 0.8
                };
                let frame = self.terrain.place(at, side.sign * d, 0.0);
                push_tree(&mut self.out, &mut self.random, &frame);
            }
            if self.random.chance(side.bushes) && side.setback > 1.2 {
                for _ in 0..self.random.count(2, 7) {
                    let d = self.random.range(edge + 0.6, front.max(edge + 2.0));
                    let at = s + self.random.range(0.0, pitch);
                    if !self.terrain.is_junction(at, side.sign, 1.5) {
                        let frame = self.terrain.place(at, side.sign * d, 0.0);
                        let size = self.random.range(0.5, 1.4) * self.random.range(1.0, 2.2);
                        push_bush(&mut self.out, &mut self.random, &frame, size);
                    }
                }
            }
            s += pitch;
        }
        if self.random.chance(1.0 - side.houses) {
            // A thicket along the edge.
            let (from, reach) = (self.random.range(-70.0, 20.0), self.random.range(15.0, 80.0));
            let mut s = from;
            while s < from + reach {
                let size = self.random.range(1.2, 3.6);
                if !self.terrain.is_junction(s, side.sign, 2.5) {
                    let d = edge + 0.5 * size + self.random.range(0.3, 2.5);
                    let frame = self.terrain.place(s, side.sign * d, 0.0);
                    push_bush(&mut self.out, &mut self.random, &frame, size);
                }
                s += self.random.range(0.5, 1.0) * size;
            }
        }
        // Behind the first row of houses, or where there are none.
        let far = (260.0 * (1.0 - side.houses) * side.trees + 60.0 * side.bushes) as usize;
        for _ in 0..far {
            let s = self.random.range(-REACH, REACH);
            let d = front + 45.0 * self.random.unit().powf(1.5);
            if self.terrain.is_junction(s, side.sign, 2.0) {
                continue;
            }
            let frame = self.terrain.place(s, side.sign * d, 0.0);
            if self.random.chance(0.45) {
                push_tree(&mut self.out, &mut self.random, &frame);
            } else {
                let size = self.random.range(0.6, 3.2);
                push_bush(&mut self.out, &mut self.random, &frame, size);
            }
        }
    }

    fn furniture(&mut self, side: &Side, kerb: f64, edge: f64) {
        let pitch = self.random.range(14.0, 30.0);
        let mut s = -REACH + self.random.range(0.0, pitch);
        while s < REACH {
            if !self.terrain.is_junction(s, side.sign, 0.5) && self.random.chance(0.8) {
                let frame = self.terrain.place(s, side.sign * (kerb + 0.5), 0.0);
                push_lamp(&mut self.out, &mut self.random, &frame, -side.sign);
            }
            s += pitch;
        }
        for _ in 0..self.random.count(3, 9) {
            let s = self.random.range(-45.0, 45.0);
            let turn = if self.random.chance(0.5) { 0.0 } else { FRAC_PI_2 };
            let frame = self.terrain.place(s, side.sign * (kerb + self.random.range(0.3, 0.9)), turn);
            if !self.terrain.is_junction(s, side.sign, 0.0) {
                push_sign(&mut self.out, &mut self.random, &frame);
            }
        }
        for _ in 0..self.random.count(1, 7) {
            let s = self.random.range(-30.0, 30.0);
            let frame = self.terrain.place(s, side.sign * self.random.range(edge - 0.5, edge + 0.6), 0.0);
            push_bin(&mut self.out, &mut self.random, &frame);
        }
        for i in 0..self.random.count(2, 9) {
            // Two walkers stand near, so that every sweep has some.
            let s = if i < 2 {
                self.random.sign() * self.random.range(4.5, 12.0)
            } else {
                self.random.range(-45.0, 45.0)
            };
            let frame = self.terrain.place(
                s,
                side.sign * (kerb + self.random.range(0.3, 1.4)),
                self.random.range(0.0, TAU),
            );
            push_person(&mut self.out, &mut self.random, &frame, false);
        }
        for _ in 0..self.random.count(0, 3) {
            let s = self.random.range(-30.0, 30.0);
            let frame = self.terrain.place(s, side.sign * (edge - 0.2), 0.2 * self.random.normal());
            push_bicycle(&mut self.out, &frame, class::OTHER);
        }
    }

    fn fill_road(&mut self, character: Character) {
        let lane = self.terrain.sensor_d;
        let busy = if character == Character::Residential { 2 } else { 6 };
        for side in [lane, -lane] {
            let mut taken: Vec<f64> = vec![0.0];
            for _ in 0..self.random.count(0, busy) {
                let s = self.random.range(-60.0, 65.0);
                if taken.iter().any(|t| (t - s).abs() < if side == lane { 12.0 } else { 9.0 })
                    && !(side != lane && taken.len() == 1)
                {
                    continue;
                }
                taken.push(s);
                let turn = if side == lane { 0.0 } else { PI };
                let frame = self.terrain.place_vehicle(
                    s,
                    side + 0.2 * self.random.normal(),
                    turn + 0.02 * self.random.normal(),
                );
                push_vehicle(&mut self.out, &mut self.random, &frame, s.abs() > 15.0);
            }
        }
        if self.random.chance(0.35) {
            let s = self.random.sign() * self.random.range(6.0, 30.0);
            let d = self.random.sign() * (self.terrain.half_road - 2.3).max(0.8);
            let frame = self.terrain.place(s, d, if d > 0.0 { PI } else { 0.0 });
            push_bicycle(&mut self.out, &frame, class::PERSON);
            push_person(&mut self.out, &mut self.random, &frame, true);
        }
    }
}
