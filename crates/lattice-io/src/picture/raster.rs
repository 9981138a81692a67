//! Splats into a depth buffer, then eye-dome lighting and one averaging to the final size.
//!
//! Everything is drawn at twice the final width and height. A splat is a round, flat disc facing the eye. The triangles
//! of a mesh are filled instead, with the colour of the nearest corner and a light from the eye's left shoulder.

use super::camera::{Camera, Seen, cross, dot};
use super::canvas::Canvas;

/// Drawn pixels along each axis for one final pixel.
const OVERSAMPLING: usize = 2;
/// Final pixels that a splat may be wide.
const WIDEST: f64 = 7.0;
/// Darkening for a doubling of depth (perspective), or for a step of the scene's own size (top view).
const LIGHT_STRENGTH: f64 = 6.0;

pub(super) struct Scene<'a> {
    pub(super) positions: &'a [[f64; 3]],
    pub(super) colours: &'a [[u8; 3]],
    /// Corners, all of them points; nothing is drawn of the points themselves where there are triangles.
    pub(super) triangles: &'a [[u32; 3]],
    pub(super) background: [[u8; 3]; 2],
    /// Final pixels a splat is wide in the middle of the scene; found from the density where not given.
    pub(super) point_size: Option<f64>,
}

/// Draws a scene into a panel of `width` x `height` final pixels. `make` builds the camera for the drawn size.
pub(super) fn draw(
    scene: &Scene<'_>,
    width: usize,
    height: usize,
    make: impl Fn([f64; 2]) -> Camera,
) -> Canvas {
    let (w, h) = (width * OVERSAMPLING, height * OVERSAMPLING);
    let camera = make([w as f64, h as f64]);
    let mut layer = Layer { w, h, depth: vec![f32::INFINITY; w * h], colour: vec![[0u8; 3]; w * h] };
    if scene.triangles.is_empty() {
        draw_points(scene, &camera, &mut layer);
    } else {
        draw_triangles(scene, &camera, &mut layer);
    }
    let shade = lighting(&layer.depth, w, h, &camera);
    average(&layer.depth, &layer.colour, &shade, width, height, scene.background)
}

/// What is in front, at every drawn pixel.
struct Layer {
    w: usize,
    h: usize,
    depth: Vec<f32>,
    colour: Vec<[u8; 3]>,
}

impl Layer {
    fn put(&mut self, at: usize, depth: f64, colour: [u8; 3]) {
        if (depth as f32) < self.depth[at] {
            self.depth[at] = depth as f32;
            self.colour[at] = colour;
        }
    }
}

fn draw_triangles(scene: &Scene<'_>, camera: &Camera, layer: &mut Layer) {
    let seen: Vec<Option<Seen>> = scene.positions.iter().map(|p| camera.see(*p)).collect();
    let light = camera.light();
    for corners in scene.triangles {
        let corners = corners.map(|i| i as usize);
        let [Some(a), Some(b), Some(c)] = corners.map(|i| seen.get(i).copied().flatten()) else { continue };
        let area = (b.x - a.x) * (c.y - a.y) - (c.x - a.x) * (b.y - a.y);
        if area == 0.0 || !area.is_finite() {
            continue;
        }
        let [p, q, r] = corners.map(|i| scene.positions[i]);
        let normal = cross(std::array::from_fn(|k| q[k] - p[k]), std::array::from_fn(|k| r[k] - p[k]));
        let length = dot(normal, normal).sqrt();
        // Either side is lit: scans seldom agree on which is out.
        let facing = if length > 0.0 { (dot(normal, light) / length).abs() } else { 1.0 };
        let bright = 0.42 + 0.58 * facing;
        let range = |v: [f64; 3], length: usize| {
            let (lo, hi) = (v.into_iter().fold(f64::MAX, f64::min), v.into_iter().fold(f64::MIN, f64::max));
            (lo - 0.5).ceil().max(0.0) as usize..((hi + 0.5).floor().max(0.0) as usize).min(length)
        };
        for y in range([a.y, b.y, c.y], layer.h) {
            for x in range([a.x, b.x, c.x], layer.w) {
                let (px, py) = (x as f64 + 0.5, y as f64 + 0.5);
                let wb = ((px - a.x) * (c.y - a.y) - (c.x - a.x) * (py - a.y)) / area;
                let wc = ((b.x - a.x) * (py - a.y) - (px - a.x) * (b.y - a.y)) / area;
                let weights = [1.0 - wb - wc, wb, wc];
                if weights.iter().all(|&v| v >= -1e-9) {
                    let depth = weights[0] * a.depth + wb * b.depth + wc * c.depth;
                    let heaviest = if wb > weights[0] {
                        usize::from(wc > wb) + 1
                    } else {
                        2 * usize::from(wc > weights[0])
                    };
                    let colour = scene.colours[corners[heaviest]].map(|v| (f64::from(v) * bright) as u8);
                    layer.put(y * layer.w + x, depth, colour);
                }
            }
        }
    }
}

fn draw_points(scene: &Scene<'_>, camera: &Camera, layer: &mut Layer) {
    let (w, h) = (layer.w, layer.h);
    let middle = median_scale(scene, camera, w, h);
    let size =
        scene.point_size.map_or_else(|| automatic_size(scene, camera, w, h), |s| s * OVERSAMPLING as f64);
    for (p, &c) in scene.positions.iter().zip(scene.colours) {
        let Some(seen) = camera.see(*p) else { continue };
        let wide = (size * (seen.scale / middle).clamp(0.3, 3.0)).clamp(1.0, WIDEST * OVERSAMPLING as f64);
        let r = 0.5 * wide;
        // Whole discs outside, and positions that no integer holds, are left out here.
        if !(seen.x > -r && seen.y > -r && seen.x < w as f64 + r && seen.y < h as f64 + r) {
            continue;
        }
        let range = |at: f64, length: usize| {
            let from = (at - r).round().max(0.0) as usize;
            from..((at + r).round() as usize).max(from + 1).min(length)
        };
        let reach = (r + 0.25) * (r + 0.25);
        for y in range(seen.y, h) {
            for x in range(seen.x, w) {
                let (dx, dy) = (x as f64 + 0.5 - seen.x, y as f64 + 0.5 - seen.y);
                if wide <= 2.0 || dx * dx + dy * dy <= reach {
                    layer.put(y * w + x, seen.depth, c);
                }
            }
        }
    }
}

/// Median of the pixels a unit, over the points that are in sight.
fn median_scale(scene: &Scene<'_>, camera: &Camera, w: usize, h: usize) -> f64 {
    let step = (scene.positions.len() / 20_000).max(1);
    let mut scales: Vec<f64> = scene
        .positions
        .iter()
        .step_by(step)
        .filter_map(|p| camera.see(*p))
        .filter(|s| s.x >= 0.0 && s.y >= 0.0 && s.x < w as f64 && s.y < h as f64)
        .map(|s| s.scale)
        .collect();
    scales.sort_unstable_by(f64::total_cmp);
    scales.get(scales.len() / 2).copied().unwrap_or(1.0)
}

/// A width at which splats just about close the surfaces: from how many pixels of the blocks that hold points are hit.
fn automatic_size(scene: &Scene<'_>, camera: &Camera, w: usize, h: usize) -> f64 {
    const BLOCK: usize = 16;
    let (columns, rows) = (w.div_ceil(BLOCK), h.div_ceil(BLOCK));
    let mut hit = vec![false; w * h];
    let mut blocks = vec![0u32; columns * rows];
    for p in scene.positions {
        let Some(seen) = camera.see(*p) else { continue };
        if seen.x >= 0.0 && seen.y >= 0.0 && seen.x < w as f64 && seen.y < h as f64 {
            let (x, y) = (seen.x as usize, seen.y as usize);
            if !std::mem::replace(&mut hit[y * w + x], true) {
                blocks[y / BLOCK * columns + x / BLOCK] += 1;
            }
        }
    }
    // The median block stands for the scene: empty ones and the densest tell nothing.
    let mut filled: Vec<u32> = blocks.into_iter().filter(|&n| n > 1).collect();
    filled.sort_unstable();
    let median = filled.get(filled.len() / 2).copied().unwrap_or(1);
    let spacing = 1.2 * ((BLOCK * BLOCK) as f64 / f64::from(median.max(1))).sqrt();
    spacing.clamp(1.5 * OVERSAMPLING as f64, 4.5 * OVERSAMPLING as f64)
}

/// Eye-dome lighting: a pixel darkens by how far its neighbours stand in front of it.
///
/// # Source
/// C. Boucheny, 2009: depth differences alone, no normals.
fn lighting(depth: &[f32], w: usize, h: usize, camera: &Camera) -> Vec<f32> {
    // Equal steps of this measure look alike: ratios of distance, or heights of a parallel view.
    let measure: Vec<f32> = match camera {
        Camera::Perspective { .. } => depth.iter().map(|d| d.log2()).collect(),
        Camera::Top { scale, .. } => {
            // A step as high as this many pixels are wide counts as a doubling.
            let unit = *scale as f32 / 250.0;
            depth.iter().map(|d| d * unit).collect()
        }
    };
    const RINGS: [i64; 2] = [2, 5];
    let mut shade = vec![1.0; w * h];
    for y in 0..h as i64 {
        for x in 0..w as i64 {
            let at = y as usize * w + x as usize;
            let own = measure[at];
            if !own.is_finite() {
                continue;
            }
            let mut sum = 0.0;
            for ring in RINGS {
                for (dx, dy) in [(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1)] {
                    let (nx, ny) = (x + dx * ring, y + dy * ring);
                    if nx < 0 || ny < 0 || nx >= w as i64 || ny >= h as i64 {
                        continue;
                    }
                    let other = measure[ny as usize * w + nx as usize];
                    if other.is_finite() {
                        // One cliff must not outweigh all the rest.
                        sum += (own - other).clamp(0.0, 0.15);
                    }
                }
            }
            shade[at] = (-(LIGHT_STRENGTH as f32) * sum).exp().max(0.25);
        }
    }
    shade
}

/// Averages drawn pixels to final ones, in linear light, over a background that brightens towards the top.
fn average(
    depth: &[f32],
    colour: &[[u8; 3]],
    shade: &[f32],
    width: usize,
    height: usize,
    background: [[u8; 3]; 2],
) -> Canvas {
    let linear: Vec<f32> = (0..256).map(|v| (v as f32 / 255.0).powf(2.2)).collect();
    let mut canvas = Canvas::new(width, height, background[1]);
    let w = width * OVERSAMPLING;
    let share = 1.0 / (OVERSAMPLING * OVERSAMPLING) as f32;
    for y in 0..height {
        let down = y as f32 / height.max(2) as f32;
        for x in 0..width {
            let mut sum = [0.0f32; 3];
            for k in 0..OVERSAMPLING * OVERSAMPLING {
                let at = (y * OVERSAMPLING + k / OVERSAMPLING) * w + x * OVERSAMPLING + k % OVERSAMPLING;
                for c in 0..3 {
                    sum[c] += share
                        * if depth[at].is_finite() {
                            linear[usize::from(colour[at][c])] * shade[at]
                        } else {
                            let (top, bottom) = (background[0][c], background[1][c]);
                            linear[usize::from(top)] * (1.0 - down) + linear[usize::from(bottom)] * down
                        };
                }
            }
            canvas.pixels[y * width + x] =
                sum.map(|v| (v.powf(1.0 / 2.2) * 255.0).round().clamp(0.0, 255.0) as u8);
        }
    }
    canvas
}
