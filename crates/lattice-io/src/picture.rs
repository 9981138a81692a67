//! Pictures of point clouds: from above, in perspective, or both side by side.
//!
//! Points are drawn as discs into a depth buffer and shaded by depth differences alone, so any cloud shows its shape, with
//! or without normals. The camera frames the bulk of the points (1st to 99th percentile along each axis); stray points
//! may lie outside the picture. Cost: one pass over the points and a few over the pixels, at four samples a pixel.

mod camera;
mod canvas;
mod chart;
mod colour;
mod font;
mod legend;
mod options;
mod raster;

use std::io::{self, Write};
use std::path::Path;

pub use canvas::Canvas;
pub use chart::{Curve, curves_png, matrix_png};
pub use colour::{Ramp, class_colour};
pub use options::{ColourBy, RenderOptions, Up, View};

use crate::write::atomic;
use crate::{Attribute, PointCloud, WriteError};
use camera::Camera;
use colour::percentiles;
use legend::Key;

/// Colours of the sky and the ground behind the points.
const BACKGROUND: [[u8; 3]; 2] = [[26, 30, 38], [12, 13, 17]];
/// Widest and highest picture.
const MAX_SIDE: usize = 16_384;

/// Draws a cloud and writes the picture as PNG; nothing partial stands under `path`, ever. An empty cloud gives an empty
/// picture.
/// # Errors
/// [`WriteError`] when an attribute is not there, the size is not within 16..=16384, or the file cannot be written.
pub fn render_png(
    path: impl AsRef<Path>,
    cloud: &PointCloud,
    options: &RenderOptions,
) -> Result<(), WriteError> {
    let path = path.as_ref();
    let canvas = draw(path, cloud, options)?;
    atomic::write_file(path, |out| encode(out, &canvas))
}

/// Draws a cloud into memory.
/// # Errors
/// As [`render_png`], with an empty path.
pub fn render(cloud: &PointCloud, options: &RenderOptions) -> Result<Canvas, WriteError> {
    draw(Path::new(""), cloud, options)
}

fn encode(out: &mut dyn Write, canvas: &Canvas) -> io::Result<()> {
    // Both sides are at most MAX_SIDE.
    let mut encoder = png::Encoder::new(out, canvas.width as u32, canvas.height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().map_err(io::Error::other)?;
    let bytes: Vec<u8> = canvas.pixels.iter().flatten().copied().collect();
    writer.write_image_data(&bytes).map_err(io::Error::other)?;
    writer.finish().map_err(io::Error::other)
}

fn draw(path: &Path, cloud: &PointCloud, options: &RenderOptions) -> Result<Canvas, WriteError> {
    let [width, height] = options.size;
    if ![width, height].iter().all(|side| (16..=MAX_SIDE).contains(side)) {
        return Err(WriteError::value(
            path,
            "a width and a height of 16 to 16384 pixels",
            format!("{width} x {height}"),
            "choose another size",
        ));
    }
    let mut positions = upright(cloud, options.up);
    let frame = Frame::of(&positions);
    let ceiling = frame.ceiling(&positions).filter(|_| cloud.triangles.is_empty());
    let open;
    let shown = match ceiling {
        // A room is seen without its lid.
        Some(top) => {
            let below: Vec<u32> =
                (0..cloud.len() as u32).filter(|&i| positions[i as usize][2] < top).collect();
            positions = below.iter().map(|&i| positions[i as usize]).collect();
            open = cloud.select(&below);
            &open
        }
        None => cloud,
    };
    let frame = if ceiling.is_some() { Frame::of(&positions) } else { frame };
    let (colours, key) = colours(path, shown, options, &positions)?;
    let mut canvas = Canvas::new(width, height, BACKGROUND[1]);
    let scene = raster::Scene {
        positions: &positions,
        colours: &colours,
        triangles: &shown.triangles,
        background: BACKGROUND,
        point_size: options.point_size.filter(|s| s.is_finite() && *s > 0.0),
    };
    let text = legend::text_scale(height);
    let panels: &[(View, usize, usize)] = match options.view {
        View::Both => {
            &[(View::Top, 0, width / 2 - 1), (View::Perspective, width / 2 + 1, width - width / 2 - 1)]
        }
        view => &[(view, 0, width)],
    };
    for &(view, left, wide) in panels {
        let make = |panel: [f64; 2]| match view {
            View::Top => Camera::top(frame.lo, frame.hi, panel),
            _ => Camera::perspective(&frame.sample, frame.lo, frame.hi, panel, frame.elevation()),
        };
        canvas.paste(&raster::draw(&scene, wide, height, make), left, 0);
        let points = format!("{} points", legend::grouped(cloud.len()));
        if view == View::Top {
            let cut = if ceiling.is_some() { "ceiling cut" } else { "" };
            let faint = if panels.len() > 1 { cut } else { &points };
            legend::caption(&mut canvas, left, text, "from above", faint);
            if let Camera::Top { scale, .. } = make([wide as f64, height as f64])
                && !cloud.is_empty()
            {
                legend::scale_bar(&mut canvas, left, wide, text, scale, &options.unit);
            }
        } else {
            let bright = if options.title.is_empty() { "perspective" } else { &options.title };
            legend::caption(&mut canvas, left, text, bright, &points);
        }
    }
    if !cloud.is_empty() {
        legend::key(&mut canvas, text, &key);
    }
    Ok(canvas)
}

/// The box of the bulk of the points, and some points of it.
struct Frame {
    lo: [f64; 3],
    hi: [f64; 3],
    sample: Vec<[f64; 3]>,
}

impl Frame {
    fn of(positions: &[[f64; 3]]) -> Self {
        let (mut lo, mut hi) = ([0.0; 3], [1.0; 3]);
        for a in 0..3 {
            if let Some([from, to]) = percentiles(positions.iter().map(|p| p[a]), [0.01, 0.99]) {
                // Without strays the whole cloud is the bulk.
                let whole = positions.iter().map(|p| p[a]).filter(|v| v.is_finite());
                let (least, most) = whole.fold((from, to), |(least, most), v| (least.min(v), most.max(v)));
                let whole = most - least <= 1.25 * (to - from);
                let (from, to) = if whole { (least, most) } else { (from, to) };
                let air = if whole { 0.0 } else { 0.02 * (to - from) };
                (lo[a], hi[a]) = (from - air, to + air);
            }
        }
        let widest = (0..3).map(|a| hi[a] - lo[a]).fold(0.0, f64::max);
        for a in 0..3 {
            if hi[a] - lo[a] < 1e-3 * widest || widest == 0.0 {
                let half = if widest == 0.0 { 0.5 } else { 0.5e-3 * widest };
                (lo[a], hi[a]) = (lo[a] - half, hi[a] + half);
            }
        }
        let inside = |p: &&[f64; 3]| (0..3).all(|a| (lo[a]..=hi[a]).contains(&p[a]));
        let step = (positions.len() / 20_000).max(1);
        let sample = positions.iter().step_by(step).filter(inside).copied().collect();
        Self { lo, hi, sample }
    }

    /// Height at which to cut a room open: where most of the floor has a layer of points over it, all at the top.
    fn ceiling(&self, positions: &[[f64; 3]]) -> Option<f64> {
        const SIDE: usize = 24;
        const FLOOR: u8 = 1;
        const LID: u8 = 2;
        let size: [f64; 3] = std::array::from_fn(|a| self.hi[a] - self.lo[a]);
        let cut = self.hi[2] - 0.12 * size[2];
        let mut cells = [0u8; SIDE * SIDE];
        let (mut within, mut over) = (0usize, 0usize);
        for p in positions {
            let cell = [0, 1].map(|a| ((p[a] - self.lo[a]) / size[a] * SIDE as f64).floor());
            if cell.iter().all(|c| (0.0..SIDE as f64).contains(c)) {
                within += 1;
                over += usize::from(p[2] > cut);
                let cell = &mut cells[cell[0] as usize * SIDE + cell[1] as usize];
                if p[2] < self.lo[2] + 0.35 * size[2] {
                    *cell |= FLOOR;
                } else if p[2] > cut {
                    *cell |= LID;
                }
            }
        }
        let floor = cells.iter().filter(|&&c| c & FLOOR != 0).count();
        let lid = cells.iter().filter(|&&c| c == FLOOR | LID).count();
        let room = size[2] < size[0].max(size[1]) && floor > 20 && 2 * lid > floor && 10 * over > within;
        room.then_some(cut)
    }

    /// Angle of sight below the horizon: steep over flat scenes, shallow before tall objects.
    fn elevation(&self) -> f64 {
        let side = |a: usize| self.hi[a] - self.lo[a];
        let flatness = side(2) / side(0).max(side(1));
        0.35 + 0.3 * (1.0 - flatness).clamp(0.0, 1.0)
    }
}

/// Positions with the third axis up.
fn upright(cloud: &PointCloud, up: Up) -> Vec<[f64; 3]> {
    let up = match up {
        Up::Auto if !cloud.triangles.is_empty() => Up::Y,
        Up::Auto if in_camera_view(cloud) => Up::MinusY,
        Up::Auto => Up::Z,
        up => up,
    };
    let turn = |p: &[f64; 3]| match up {
        Up::Y => [p[0], -p[2], p[1]],
        Up::MinusY => [p[0], p[2], -p[1]],
        _ => *p,
    };
    cloud.positions.iter().map(turn).collect()
}

/// Whether the points look as a depth camera sees them: in front of it along z, within some 50 degrees of its axis, and on
/// either side of it.
fn in_camera_view(cloud: &PointCloud) -> bool {
    if cloud.origin != [0.0; 3] || cloud.len() < 100 {
        return false;
    }
    let n = cloud.len() as f64;
    let within =
        cloud.positions.iter().filter(|p| p[2] > 0.0 && p[0].abs().max(p[1].abs()) < 1.2 * p[2]).count();
    let left = cloud.positions.iter().filter(|p| p[0] < 0.0).count();
    within as f64 > 0.99 * n && (0.1 * n..0.9 * n).contains(&(left as f64))
}

/// A colour for each point, and what it means.
fn colours(
    path: &Path,
    cloud: &PointCloud,
    options: &RenderOptions,
    positions: &[[f64; 3]],
) -> Result<(Vec<[u8; 3]>, Key), WriteError> {
    let find = |name: &str| {
        cloud.attributes.get(name).filter(|v| v.len() == cloud.len()).ok_or_else(|| {
            let found: Vec<&str> = cloud.attributes.keys().map(String::as_str).collect();
            WriteError::value(
                path,
                format!("an attribute `{name}` with one value a point"),
                format!("attributes [{}]", found.join(", ")),
                "colour by one of these, or by height",
            )
        })
    };
    let chosen = match &options.colour {
        ColourBy::Auto if cloud.attributes.contains_key("label") => {
            ColourBy::Classes { attribute: "label".to_owned(), names: Vec::new() }
        }
        ColourBy::Auto if cloud.attributes.contains_key("rgb") => ColourBy::Rgb,
        ColourBy::Auto => ColourBy::Height,
        other => other.clone(),
    };
    let ramp = |name: &str, value: &dyn Fn(usize) -> f64| {
        let [lo, hi] = percentiles((0..cloud.len()).map(value), [0.02, 0.98]).unwrap_or([0.0, 1.0]);
        let span = if hi > lo { hi - lo } else { 1.0 };
        let colours = (0..cloud.len()).map(|i| options.ramp.at((value(i) - lo) / span)).collect();
        (colours, Key::Range { name: name.to_owned(), lo, hi, ramp: options.ramp })
    };
    Ok(match chosen {
        ColourBy::Auto | ColourBy::Height => ramp("height", &|i| positions[i][2]),
        ColourBy::Attribute(name) => {
            let values = find(&name)?;
            ramp(&name, &|i| values.get(i))
        }
        ColourBy::Rgb => match find("rgb")? {
            Attribute::Rgb(rgb) => (rgb.clone(), Key::None),
            other => ramp("rgb", &|i| other.get(i)),
        },
        ColourBy::Classes { attribute, names } => {
            let values = find(&attribute)?;
            // What is no whole number has no class.
            let class = |i: usize| if values.get(i).fract() == 0.0 { values.get(i) as i64 } else { -1 };
            let mut counts = std::collections::BTreeMap::<i64, usize>::new();
            for i in 0..cloud.len() {
                *counts.entry(class(i)).or_default() += 1;
            }
            let named = |id: i64| {
                let own = usize::try_from(id).ok().and_then(|i| names.get(i)).cloned();
                own.unwrap_or_else(|| {
                    if id == 255 || id < 0 { "no class".into() } else { format!("class {id}") }
                })
            };
            let share = |n: usize| n as f64 / cloud.len().max(1) as f64;
            let key = counts.into_iter().map(|(id, n)| (id, named(id), share(n))).collect();
            ((0..cloud.len()).map(|i| colour::colour_of_id(class(i))).collect(), Key::Classes(key))
        }
    })
}
