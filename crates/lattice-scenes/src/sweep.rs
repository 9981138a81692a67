//! A lidar sweep: sensors, and the casting of their beams against a street.

use std::collections::BTreeMap;
use std::f64::consts::TAU;

use lattice_io::{Attribute, PointCloud};
use rayon::prelude::*;

use crate::geometry::{Ray, V3, dot};
use crate::random::{Random, hash, unit};
use crate::street::{Street, class};
use crate::{Beams, IGNORED, SceneOptions};

/// Columns that one task casts; fixed, so results do not depend on the number of threads.
const COLUMNS_A_TASK: usize = 16;

/// A spinning sensor.
struct Sensor {
    /// Elevation of each beam, radians, highest first.
    elevation: Vec<f64>,
    /// Azimuth of each beam against its column, radians.
    shift: Vec<f64>,
    /// Error of each beam's range, metres.
    bias: Vec<f64>,
    columns: usize,
    height: f64,
    /// Metres beyond which nothing comes back.
    reach: f64,
    /// Weakest detectable `reflectance · cos(incidence) / distance²`.
    threshold: f64,
    /// Standard deviation of the range, metres.
    range_noise: f64,
    /// Chance that a beam is lost without reason.
    dropout: f64,
    /// The car's own roof is seen.
    sees_roof: bool,
}

struct Return {
    position: V3,
    intensity: f32,
    ring: u8,
    label: u8,
}

/// The sweep of a seed.
pub fn generate(seed: u64, options: &SceneOptions) -> PointCloud {
    let sensor = Sensor::new(options, &mut Random::new(&[seed, 0x11da]));
    let street = Street::new(seed, sensor.height);
    let noise = options.noise_factor();
    let tasks = sensor.columns.div_ceil(COLUMNS_A_TASK);
    let parts: Vec<Vec<Return>> = (0..tasks)
        .into_par_iter()
        .map(|task| {
            let first = task * COLUMNS_A_TASK;
            let last = (first + COLUMNS_A_TASK).min(sensor.columns);
            let beams = sensor.elevation.len();
            (first..last)
                .flat_map(|column| (0..beams).map(move |beam| (column, beam)))
                .filter_map(|(column, beam)| cast(&sensor, &street, seed, noise, column, beam))
                .collect()
        })
        .collect();
    let returns: Vec<Return> = parts.into_iter().flatten().collect();
    PointCloud {
        positions: returns.iter().map(|r| r.position).collect(),
        attributes: BTreeMap::from([
            ("intensity".to_owned(), Attribute::F32(returns.iter().map(|r| r.intensity).collect())),
            ("label".to_owned(), Attribute::U8(returns.iter().map(|r| r.label).collect())),
            ("ring".to_owned(), Attribute::U8(returns.iter().map(|r| r.ring).collect())),
        ]),
        ..PointCloud::default()
    }
}

impl Sensor {
    fn new(options: &SceneOptions, random: &mut Random) -> Self {
        let noise = options.noise_factor();
        let (degrees, columns): (Vec<f64>, usize) = match options.beams {
            // Upper block every third of a degree, lower block every half; each beam is a little off.
            Beams::B64 => {
                let table = (0..64)
                    .map(f64::from)
                    .map(|i| if i < 32.0 { 2.0 - i / 3.0 } else { -8.83 - 0.5 * (i - 32.0) });
                (table.map(|e| e + noise * 0.03 * random.normal()).collect(), 2_083)
            }
            Beams::B32 => ((0..32).map(|i| 10.67 - 41.34 * f64::from(i) / 31.0).collect(), 1_084),
            Beams::B128 => ((0..128).map(|i| 11.25 - 22.5 * f64::from(i) / 127.0).collect(), 1_024),
        };
        let beams = degrees.len();
        let bias = if options.beams == Beams::B64 { 0.012 } else { 0.003 };
        let spread = if options.beams == Beams::B64 { 0.4 } else { 0.05 };
        Self {
            elevation: degrees.iter().map(|e| e.to_radians()).collect(),
            shift: (0..beams).map(|_| (spread * random.normal()).to_radians()).collect(),
            bias: (0..beams).map(|_| noise * bias * random.normal()).collect(),
            columns: options.scaled(columns),
            height: match options.beams {
                Beams::B64 => 1.73,
                Beams::B32 => 1.84,
                Beams::B128 => 1.9,
            } + 0.03 * random.normal(),
            reach: if options.beams == Beams::B128 { 120.0 } else { 80.0 },
            threshold: match options.beams {
                Beams::B64 => 1.0e-6,
                Beams::B32 => 4e-6,
                Beams::B128 => 1.2e-5,
            },
            range_noise: noise * if options.beams == Beams::B128 { 0.008 } else { 0.013 },
            dropout: 0.015,
            sees_roof: options.beams == Beams::B32,
        }
    }
}

fn cast(
    sensor: &Sensor,
    street: &Street,
    seed: u64,
    noise: f64,
    column: usize,
    beam: usize,
) -> Option<Return> {
    let word = hash(&[seed, column as u64, beam as u64]);
    let mut random = Random::new(&[word, 1]);
    let jitter = noise * 0.0002;
    let azimuth =
        TAU * (column as f64 + 0.5) / sensor.columns as f64 + sensor.shift[beam] + jitter * random.normal();
    let elevation = sensor.elevation[beam] + jitter * random.normal();
    // The sensor turns clockwise, from straight behind.
    let (sin, cos) = (std::f64::consts::PI - azimuth).sin_cos();
    let direction = [elevation.cos() * cos, elevation.cos() * sin, elevation.sin()];
    let lost = random.unit() < sensor.dropout;
    if sensor.sees_roof
        && let Some(found) = roof(direction, beam, &mut random)
    {
        return (!lost).then_some(found);
    }
    let ray = Ray::new([0.0; 3], direction);
    let ground = street.terrain.hit(&ray, sensor.reach);
    let limit = ground.unwrap_or(sensor.reach);
    let (distance, reflectance, roughness, cosine, label) = match street.tree.first_hit(&ray, limit, word) {
        Some((hit, _)) if hit.is_lost => return None,
        Some((hit, solid)) => {
            let cosine = -dot(hit.normal, direction);
            (hit.distance, solid.material.reflectance, solid.material.roughness, cosine.abs(), solid.label)
        }
        None => {
            let t = ground?;
            let g = street.terrain.at(direction[0] * t, direction[1] * t);
            (t, g.reflectance, g.roughness, -direction[2] + 0.015, class::GROUND)
        }
    };
    let speckle = (0.25 * random.normal()).exp();
    let quality = reflectance * cosine.max(0.03) / (distance * distance) * speckle;
    let chance = 1.0 / (1.0 + (sensor.threshold / quality).powi(3));
    if lost || unit(hash(&[word, 2])) > chance {
        return None;
    }
    let spread = (sensor.range_noise.powi(2) + (noise * roughness).powi(2)).sqrt();
    let range = distance + spread * random.normal() + sensor.bias[beam];
    if range < 0.9 {
        return None;
    }
    let intensity = (reflectance * (0.4 + 0.6 * cosine) * speckle).clamp(0.0, 1.0);
    Some(Return {
        position: direction.map(|d| d * range),
        intensity: (intensity * 100.0).round() as f32 / 100.0,
        ring: beam as u8,
        label,
    })
}

/// A return from the sensor's own car: its roof, bonnet and boot as two plates under the sensor.
fn roof(direction: V3, beam: usize, random: &mut Random) -> Option<Return> {
    if direction[2] > -0.05 {
        return None;
    }
    for (height, x, y) in [(0.42, [-1.2, 0.6], 0.62), (0.9, [-1.9, 1.9], 0.8)] {
        let t = -height / direction[2];
        let p = direction.map(|d| d * (t + 0.002 * random.normal()));
        if p[0] > x[0] && p[0] < x[1] && p[1].abs() < y {
            return Some(Return { position: p, intensity: 0.05, ring: beam as u8, label: IGNORED });
        }
    }
    None
}
