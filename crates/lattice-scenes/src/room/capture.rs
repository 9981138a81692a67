//! Sampling of what cameras in a room see.

use std::collections::BTreeMap;
use std::f64::consts::TAU;

use lattice_io::{Attribute, PointCloud};
use rayon::prelude::*;

use super::plan::Plan;
use crate::geometry::{Frame, Ray, Solid, Tree, V3, add, cross, dot, norm, scale, sub, unit};
use crate::random::{Random, hash, unit as unit_of};
use crate::{RoomSampling, SceneOptions};

/// Candidates that one task samples; fixed, so results do not depend on the number of threads.
const CANDIDATES_A_TASK: usize = 2_048;

/// A pinhole camera: axes right, down, forward.
struct Camera {
    frame: Frame,
    /// Tangents of the half angles of view.
    view: [f64; 2],
    /// Nearest and farthest depth.
    depth: [f64; 2],
}

struct Sample {
    position: V3,
    colour: [u8; 3],
    label: u8,
}

struct Room {
    tree: Tree,
    cameras: Vec<Camera>,
    seed: u64,
    noise: f64,
    /// Noise of a smooth surface, metres.
    blur: f64,
}

/// The room of a seed.
pub fn generate(seed: u64, options: &SceneOptions) -> PointCloud {
    let mut random = Random::new(&[seed, 0x4007]);
    let mut plan = Plan::new(&mut random);
    let is_fused = options.room == RoomSampling::DenseFragment;
    let cameras = if is_fused { Vec::new() } else { walk(&plan, &mut random) };
    let count = options.scaled(if is_fused { 280_000 } else { 50_000 });
    // Fusion of many frames averages the noise away.
    let blur = if is_fused { 0.0023 } else { 0.0035 };
    let solids = std::mem::take(&mut plan.solids);
    let mut room = Room { tree: Tree::new(solids), cameras, seed, noise: options.noise_factor(), blur };
    if is_fused {
        room.choose_view(&plan, random.range(6.0, 6.9), &mut random);
    }
    let out_from_room = match options.room {
        // Turned at will; the floor a little above zero, as scanners leave it.
        RoomSampling::MeshVertices => {
            Frame::yaw([0.0, 0.0, random.range(0.015, 0.085)], random.range(0.0, TAU))
        }
        RoomSampling::DenseFragment => {
            let f = room.cameras[0].frame;
            let rows = [0, 1, 2].map(|a| [f.axes[0][a], f.axes[1][a], f.axes[2][a]]);
            Frame { origin: scale(f.local_direction(f.origin), -1.0), axes: rows }
        }
    };
    let samples = room.capture(count);
    PointCloud {
        positions: samples.iter().map(|s| out_from_room.world(s.position)).collect(),
        attributes: BTreeMap::from([
            ("label".to_owned(), Attribute::U8(samples.iter().map(|s| s.label).collect())),
            ("rgb".to_owned(), Attribute::Rgb(samples.iter().map(|s| s.colour).collect())),
        ]),
        ..PointCloud::default()
    }
}

/// Cameras of somebody who walks through the free part of the room and looks around.
fn walk(plan: &Plan, random: &mut Random) -> Vec<Camera> {
    let [w, l, _] = plan.size;
    let n = random.count(22, 40);
    (0..n)
        .map(|i| {
            let mut at = [w / 2.0, l / 2.0, 1.4];
            for _ in 0..20 {
                let p = [random.range(0.35, w - 0.35), random.range(0.35, l - 0.35), random.range(1.15, 1.7)];
                if plan.taken.iter().all(|t| (t[0] - p[0]).abs() > t[2] || (t[1] - p[1]).abs() > t[3]) {
                    at = p;
                    break;
                }
            }
            let yaw = TAU * f64::from(i as u32) / f64::from(n as u32) + random.range(-0.4, 0.4);
            let pitch = if random.chance(0.1) { random.range(0.1, 0.45) } else { random.range(-0.85, -0.1) };
            camera(at, yaw, [pitch, 0.0], [0.4, random.range(3.2, 4.5)])
        })
        .collect()
}

/// A few neighbouring cameras that look at one corner of the room.
fn glance(plan: &Plan, random: &mut Random) -> Vec<Camera> {
    let [w, l, _] = plan.size;
    let target = plan.taken[random.below(plan.taken.len())];
    let away = random.range(1.4, 2.2);
    let (dx, dy) = (w / 2.0 - target[0], l / 2.0 - target[1]);
    let reach = dx.hypot(dy).max(0.3);
    let at = [
        (target[0] + away * dx / reach).clamp(0.3, w - 0.3),
        (target[1] + away * dy / reach).clamp(0.3, l - 0.3),
        random.range(1.1, 1.5),
    ];
    let yaw = (target[1] - at[1]).atan2(target[0] - at[0]);
    let (pitch, roll) = (random.range(-0.5, -0.12), 0.2 * random.normal());
    (0..6)
        .map(|i| {
            let step = f64::from(i);
            let p = [at[0] + 0.05 * step * random.normal(), at[1] + 0.05 * step * random.normal(), at[2]];
            camera(p, yaw + 0.02 * step * random.normal(), [pitch + 0.02 * random.normal(), roll], [0.4, 3.6])
        })
        .collect()
}

fn camera(at: V3, yaw: f64, [pitch, roll]: [f64; 2], depth: [f64; 2]) -> Camera {
    let forward = [yaw.cos() * pitch.cos(), yaw.sin() * pitch.cos(), pitch.sin()];
    let right = unit(cross(forward, [0.0, 0.0, 1.0]));
    let down = cross(forward, right);
    let (s, c) = roll.sin_cos();
    let axes = [add(scale(right, c), scale(down, s)), sub(scale(down, c), scale(right, s)), forward];
    Camera { frame: Frame { origin: at, axes }, view: [0.56, 0.43], depth }
}

impl Room {
    /// Looks around until a view holds `area` square metres, then sets the depth that shows about as much.
    fn choose_view(&mut self, plan: &Plan, area: f64, random: &mut Random) {
        let (mut best, mut most) = (Vec::new(), -1.0);
        for _ in 0..12 {
            self.cameras = glance(plan, random);
            let seen = self.seen_areas().iter().sum::<f64>();
            if seen > most {
                most = seen;
                best = std::mem::take(&mut self.cameras);
            }
            if most > area {
                break;
            }
        }
        self.cameras = best;
        let (mut low, mut high) = (0.8, 6.0);
        for _ in 0..8 {
            let middle = 0.5 * (low + high);
            self.cameras.iter_mut().for_each(|c| c.depth[1] = middle);
            if self.seen_areas().iter().sum::<f64>() < area { low = middle } else { high = middle }
        }
    }

    /// Seen area of every solid, m², estimated from a pilot.
    fn seen_areas(&self) -> Vec<f64> {
        let pilot = |(i, solid): (usize, &Solid)| {
            let n = ((solid.area() * 80.0) as usize).clamp(24, 400);
            let mut random = Random::new(&[self.seed, 1, i as u64]);
            let hits = (0..n).filter(|_| self.sample(solid, &mut random).is_some()).count();
            solid.area() * hits as f64 / n as f64
        };
        self.tree.solids().par_iter().enumerate().map(pilot).collect()
    }

    /// About `count` points of the seen surface, uniform by area up to the unevenness of the scanner.
    fn capture(&self, count: usize) -> Vec<Sample> {
        let solids = self.tree.solids();
        let seen = self.seen_areas();
        let density = 1.03 * count as f64 / seen.iter().sum::<f64>().max(1e-3);
        let tasks: Vec<(usize, usize, usize)> = solids
            .iter()
            .enumerate()
            .filter(|&(i, _)| seen[i] > 0.0)
            .flat_map(|(i, solid)| {
                let n = (density * solid.area()).round() as usize;
                (0..n.div_ceil(CANDIDATES_A_TASK))
                    .map(move |c| (i, c, CANDIDATES_A_TASK.min(n - c * CANDIDATES_A_TASK)))
            })
            .collect();
        let parts: Vec<Vec<Sample>> = tasks
            .into_par_iter()
            .map(|(i, chunk, n)| {
                let mut random = Random::new(&[self.seed, 2, i as u64, chunk as u64]);
                (0..n).filter_map(|_| self.sample(&solids[i], &mut random)).collect()
            })
            .collect();
        let mut samples: Vec<Sample> = parts.into_iter().flatten().collect();
        // Leave out points at random until the count fits; what is missing stays missing.
        let extra = samples.len().saturating_sub(count);
        let mut random = Random::new(&[self.seed, 3]);
        let (mut left, mut drop) = (samples.len(), extra);
        samples.retain(|_| {
            let out = random.unit() * (left as f64) < drop as f64;
            left -= 1;
            drop -= usize::from(out);
            !out
        });
        samples
    }

    fn sample(&self, solid: &Solid, random: &mut Random) -> Option<Sample> {
        let (p, normal) = solid.sample(random);
        // Depth maps have holes: whole patches of a decimetre are thinner than others.
        let cell = p.map(|v| (v / 0.13).floor() as i64 as u64);
        let patch = unit_of(hash(&[self.seed, cell[0], cell[1], cell[2]]));
        let keep = if patch < 0.03 { 0.05 } else { 0.75 + 0.25 * patch };
        let draw = random.unit();
        let (along, shade) = (random.normal(), random.normal());
        if draw > keep || !self.cameras.iter().any(|c| self.sees(c, p, normal)) {
            return None;
        }
        let bend = 0.005 * ((1.7 * p[0] + 0.9 * p[1]).sin() + (1.3 * p[1] - 2.1 * p[2] + 1.0).sin());
        let rough = self.blur + self.blur / 0.0035 * solid.material.roughness;
        let position = add(p, scale(normal, self.noise * (bend + rough * along)));
        let light = 0.75 + 0.25 * normal[2] + 0.1 * normal[0] + 0.03 * shade;
        let colour = solid.material.colour.map(|c| (255.0 * (c * light).clamp(0.0, 1.0)).round() as u8);
        Some(Sample { position, colour, label: solid.label })
    }

    fn sees(&self, camera: &Camera, p: V3, normal: V3) -> bool {
        let q = camera.frame.local(p);
        let [near, far] = camera.depth;
        if q[2] < near
            || q[2] > far
            || q[0].abs() > camera.view[0] * q[2]
            || q[1].abs() > camera.view[1] * q[2]
        {
            return false;
        }
        let to = sub(p, camera.frame.origin);
        let distance = norm(to);
        let direction = scale(to, 1.0 / distance);
        // Grazing surfaces give no depth.
        dot(direction, normal) < -0.12
            && self.tree.first_hit(&Ray::new(camera.frame.origin, direction), distance - 0.006, 0).is_none()
    }
}
