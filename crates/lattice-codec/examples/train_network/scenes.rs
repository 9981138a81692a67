//! Scenes to train with: generated ones, turned, shifted and cut into voxels of many sizes.

use lattice_codec::{MAX_BLOCK_VOXELS, Occupied};
use lattice_scenes::{Beams, Random, RoomSampling, SceneKind, SceneOptions, generate};

/// Voxels of one block and the sensor's.
pub struct Scene {
    pub voxels: Vec<[i32; 3]>,
    pub sensor: [i32; 3],
}

type Turn = [[f64; 3]; 3];

/// Any rotation, evenly.
fn any_turn(random: &mut Random) -> Turn {
    let q = [0; 4].map(|_| random.normal());
    let n = q.iter().map(|v| v * v).sum::<f64>().sqrt();
    let [w, x, y, z] = q.map(|v| v / n);
    [
        [1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y - z * w), 2.0 * (x * z + y * w)],
        [2.0 * (x * y + z * w), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z - x * w)],
        [2.0 * (x * z - y * w), 2.0 * (y * z + x * w), 1.0 - 2.0 * (x * x + y * y)],
    ]
}

/// A rotation about z.
fn about_z(random: &mut Random) -> Turn {
    let (s, c) = random.range(0.0, std::f64::consts::TAU).sin_cos();
    [[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]]
}

fn log_range(random: &mut Random, low: f64, high: f64) -> f64 {
    (random.range(low.ln(), high.ln())).exp()
}

/// Terrain from above with houses and trees, as an aircraft's lidar sees it: points at random places of the ground plane.
fn terrain(random: &mut Random) -> Vec<[f64; 3]> {
    let waves = [0; 8].map(|_| {
        let (length, turn) = (log_range(random, 15.0, 400.0), random.range(0.0, std::f64::consts::TAU));
        [
            turn.cos() / length,
            turn.sin() / length,
            random.range(0.0, std::f64::consts::TAU),
            0.02 * length * random.unit(),
        ]
    });
    let side = 300.0;
    let places = |random: &mut Random, n, low, high| -> Vec<[f64; 6]> {
        let one = |random: &mut Random| {
            let (s, c) = random.range(0.0, std::f64::consts::TAU).sin_cos();
            let half = [random.range(low, high), random.range(low, high)];
            [random.range(0.0, side), random.range(0.0, side), s, c, half[0], half[1]]
        };
        (0..n).map(|_| one(random)).collect()
    };
    let n_houses = random.count(0, 60);
    let houses = places(random, n_houses, 4.0, 15.0);
    let n_trees = random.count(0, 250);
    let trees = places(random, n_trees, 2.0, 6.0);
    let noise = log_range(random, 0.005, 0.1);
    let n = random.count(80_000, 250_000);
    let inside = |place: &[f64; 6], x: f64, y: f64| {
        let (dx, dy) = (x - place[0], y - place[1]);
        [(dx * place[3] + dy * place[2]) / place[4], (dy * place[3] - dx * place[2]) / place[5]]
    };
    let mut points = Vec::with_capacity(n);
    for _ in 0..n {
        let (x, y) = (random.range(0.0, side), random.range(0.0, side));
        let ground: f64 = waves
            .iter()
            .map(|[a, b, phase, high]| high * (std::f64::consts::TAU * (a * x + b * y) + phase).sin())
            .sum();
        let mut z = ground;
        for house in &houses {
            let [u, v] = inside(house, x, y);
            if u.abs() < 1.0 && v.abs() < 1.0 {
                z = ground + house[4] * 0.5 + (1.0 - u.abs()) * house[5] * 0.3;
            }
        }
        for tree in &trees {
            let [u, v] = inside(tree, x, y);
            let left = 1.0 - u * u - v * v;
            if left > 0.0 && random.chance(0.8) {
                z = z.max(ground + tree[4] + left.sqrt() * tree[4] * random.range(0.2, 1.0));
            }
        }
        points.push([x, y, z + noise * random.normal()]);
    }
    points
}

/// Scene `number` of a seed.
pub fn scene(seed: u64, number: u64) -> Result<Scene, Box<dyn std::error::Error>> {
    let mut random = Random::new(&[seed, 3, number]);
    let options = SceneOptions::default().with_noise(log_range(&mut random, 0.3, 2.0));
    let from = random.below(1 << 40) as u64;
    let room = |random: &mut Random, sampling| {
        let options = options.clone().with_room(sampling).with_density(log_range(random, 0.2, 1.2));
        generate(SceneKind::Indoor, from, &options).positions
    };
    let (points, turn, size) = match number % 6 {
        0 | 1 => {
            let beams = [Beams::B32, Beams::B64, Beams::B128][random.below(3)];
            let options = options.clone().with_beams(beams).with_density(random.range(0.7, 1.3));
            let points = generate(SceneKind::Lidar, from, &options).positions;
            (points, about_z(&mut random), log_range(&mut random, 0.015, 0.25))
        }
        2 => {
            let points = room(&mut random, RoomSampling::DenseFragment);
            (points, any_turn(&mut random), log_range(&mut random, 0.003, 0.03))
        }
        3 => {
            let points = room(&mut random, RoomSampling::MeshVertices);
            (points, about_z(&mut random), log_range(&mut random, 0.008, 0.06))
        }
        4 => {
            let options = options.clone().with_density(log_range(&mut random, 0.02, 0.3));
            let points = generate(SceneKind::Object, from, &options).positions;
            (points, any_turn(&mut random), 0.0)
        }
        _ => (terrain(&mut random), about_z(&mut random), log_range(&mut random, 0.3, 3.0)),
    };
    // Where a size says nothing, voxels across the longest side.
    let size = if size > 0.0 {
        size
    } else {
        let bounds =
            |a: usize| points.iter().fold([f64::MAX, f64::MIN], |[l, h], p| [l.min(p[a]), h.max(p[a])]);
        let extent = (0..3).map(bounds).map(|[l, h]| h - l).fold(0.0, f64::max);
        extent / log_range(&mut random, 60.0, 500.0)
    };
    let shift = [0; 3].map(|_| random.range(-500.0, 500.0).round());
    let cells: Vec<[i32; 4]> = points
        .iter()
        .map(|p| {
            let at = [0, 1, 2].map(|a| (0..3).map(|b| turn[a][b] * p[b]).sum::<f64>() / size + shift[a]);
            let [x, y, z] = at.map(|v| v.floor() as i32);
            [0, x, y, z]
        })
        .collect();
    let mut voxels = Occupied::of(&cells)?.voxels;
    voxels.truncate(MAX_BLOCK_VOXELS);
    // Some scans come without the place of their sensor.
    let lost = number % 6 > 3 || random.chance(0.3);
    let sensor =
        if lost { [0; 3].map(|_| random.range(-2000.0, 2000.0) as i32) } else { shift.map(|v| v as i32) };
    Ok(Scene { voxels, sensor })
}
