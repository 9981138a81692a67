//! Curves over steps, and matrices of shares.

use std::path::Path;

use super::canvas::Canvas;
use super::colour::{Ramp, class_colour};
use super::{encode, font, legend};
use crate::WriteError;
use crate::write::atomic;

const BACKGROUND: [u8; 3] = [18, 20, 26];
const GRID: [u8; 3] = [44, 48, 58];
const INK: [u8; 3] = [222, 226, 232];
const FAINT: [u8; 3] = [142, 148, 160];
/// Pixels a cell of the font.
const TEXT: usize = 2;
/// Width and height of a curve's panel.
const PANEL: [usize; 2] = [720, 420];
/// Left, right, top and bottom of a panel that its curve does not use.
const MARGIN: [usize; 4] = [96, 24, 44, 52];

/// A curve of a [`curves_png`] picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// Caption.
    pub name: String,
    /// Points x, y in the order of x; those that are not finite are left out.
    pub points: Vec<[f64; 2]>,
    /// Lets the vertical axis begin at 0.
    pub from_zero: bool,
}

/// Draws curves, a panel each, side by side, over an axis of one name; writes the picture as PNG. Nothing partial stands under
/// `path`, ever. A curve without points gives an empty panel.
/// # Errors
/// [`WriteError`] when there are no curves or more than eight, or the file cannot be written.
pub fn curves_png(path: impl AsRef<Path>, axis: &str, curves: &[Curve]) -> Result<(), WriteError> {
    let path = path.as_ref();
    if !(1..=8).contains(&curves.len()) {
        let found = curves.len().to_string();
        return Err(WriteError::value(path, "one to eight curves", found, "draw several pictures"));
    }
    let mut canvas = Canvas::new(PANEL[0] * curves.len(), PANEL[1], BACKGROUND);
    for (i, curve) in curves.iter().enumerate() {
        panel(&mut canvas, (i * PANEL[0]) as i64, axis, curve, class_colour(2 * i + 2));
    }
    atomic::write_file(path, |out| encode(out, &canvas))
}

/// Smallest and largest value, apart from each other.
fn range(values: impl Iterator<Item = f64>, from_zero: bool) -> [f64; 2] {
    let first = if from_zero { [0.0, 0.0] } else { [f64::INFINITY, f64::NEG_INFINITY] };
    let [low, high] = values.fold(first, |[low, high], v| [low.min(v), high.max(v)]);
    if low < high {
        [low, high]
    } else if low.is_finite() {
        [low, low + 1.0]
    } else {
        [0.0, 1.0]
    }
}

fn panel(canvas: &mut Canvas, left: i64, axis: &str, curve: &Curve, colour: [u8; 3]) {
    let points: Vec<[f64; 2]> =
        curve.points.iter().copied().filter(|p| p.iter().all(|v| v.is_finite())).collect();
    let [x0, x1] = range(points.iter().map(|p| p[0]), true);
    let [y0, y1] = range(points.iter().map(|p| p[1]), curve.from_zero);
    let y1 = y1 + 0.05 * (y1 - y0);
    let step = legend::round_length((y1 - y0) / 4.0);
    let [corner, size] = [
        [left + MARGIN[0] as i64, MARGIN[2] as i64],
        [(PANEL[0] - MARGIN[0] - MARGIN[1]) as i64, (PANEL[1] - MARGIN[2] - MARGIN[3]) as i64],
    ];
    let y_at = |v: f64| corner[1] + size[1] - ((v - y0) / (y1 - y0) * size[1] as f64).round() as i64;
    let x_at = |v: f64| corner[0] + ((v - x0) / (x1 - x0) * size[0] as f64).round() as i64;
    let bottom = corner[1] + size[1];
    let mut tick = (y0 / step).ceil() * step;
    while tick <= y1 + step * 1e-6 {
        canvas.fill([corner[0], y_at(tick)], [size[0], 1], GRID);
        let text = legend::short(tick);
        let x = corner[0] - 10 - font::width(&text, TEXT) as i64;
        font::draw(canvas, x, y_at(tick) - 7, TEXT, &text, FAINT);
        tick += step;
    }
    let step = legend::round_length((x1 - x0) / 4.0);
    let mut tick = (x0 / step).ceil() * step;
    while tick <= x1 + step * 1e-6 {
        canvas.fill([x_at(tick), corner[1]], [1, size[1]], GRID);
        let text = legend::short(tick);
        font::draw(canvas, x_at(tick) - font::width(&text, TEXT) as i64 / 2, bottom + 10, TEXT, &text, FAINT);
        tick += step;
    }
    font::draw(canvas, corner[0], 14, TEXT, &curve.name, INK);
    let x = corner[0] + size[0] - font::width(axis, TEXT) as i64;
    font::draw(canvas, x, bottom + 30, TEXT, axis, FAINT);
    let pixels: Vec<[i64; 2]> = points.iter().map(|p| [x_at(p[0]), y_at(p[1])]).collect();
    for pair in pixels.windows(2) {
        line(canvas, pair[0], pair[1], colour);
    }
    // A single point has no line.
    for p in pixels.iter().filter(|_| pixels.len() < 40) {
        canvas.fill([p[0] - 3, p[1] - 3], [7, 7], colour);
    }
}

/// A line of three pixels.
fn line(canvas: &mut Canvas, from: [i64; 2], to: [i64; 2], colour: [u8; 3]) {
    let steps = (to[0] - from[0]).abs().max((to[1] - from[1]).abs()).max(1);
    for i in 0..=steps {
        let at = |axis: usize| from[axis] + ((to[axis] - from[axis]) * i + steps / 2).div_euclid(steps);
        canvas.fill([at(0) - 1, at(1) - 1], [3, 3], colour);
    }
}

/// Pixels of a cell of a matrix.
const CELL: usize = 64;

/// Draws a matrix of counts, each row as shares of its sum, and writes it as PNG: rows are true classes, columns found ones.
/// # Errors
/// [`WriteError`] when there are no rows or more than 64, rows are not as long as `names`, or the file cannot be written.
pub fn matrix_png(path: impl AsRef<Path>, names: &[String], rows: &[&[u64]]) -> Result<(), WriteError> {
    let path = path.as_ref();
    let n = names.len();
    if !(1..=64).contains(&n) || rows.len() != n || rows.iter().any(|row| row.len() != n) {
        return Err(WriteError::value(
            path,
            "a square of 1 to 64 names",
            format!("{n} names and {} rows", rows.len()),
            "give one row and one column a name",
        ));
    }
    let longest = names.iter().map(|name| font::width(name, TEXT)).max().unwrap_or(0);
    let (left, top) = (longest + 28, 72);
    let column = (longest + 12).max(CELL);
    let mut canvas = Canvas::new(left + n * column + 20, top + n * CELL + 20, BACKGROUND);
    font::draw(&mut canvas, 12, 12, TEXT, "row: true class, column: found; % of the row", FAINT);
    for (i, name) in names.iter().enumerate() {
        let x = left + i * column + (column - font::width(name, TEXT)) / 2;
        font::draw(&mut canvas, x as i64, 44, TEXT, name, INK);
        let x = left - 14 - font::width(name, TEXT);
        font::draw(&mut canvas, x as i64, (top + i * CELL + CELL / 2 - 8) as i64, TEXT, name, INK);
        let sum = rows[i].iter().sum::<u64>();
        for (j, &count) in rows[i].iter().enumerate() {
            let share = count as f64 / sum.max(1) as f64;
            let corner = [(left + j * column) as i64 + 1, (top + i * CELL) as i64 + 1];
            let fill = if sum == 0 { GRID } else { Ramp::Viridis.at(share) };
            canvas.fill(corner, [column as i64 - 2, CELL as i64 - 2], fill);
            let text = if sum == 0 { "-".to_owned() } else { format!("{:.1}", 100.0 * share) };
            let ink = if share > 0.55 { [12, 13, 17] } else { INK };
            let x = corner[0] + (column as i64 - font::width(&text, TEXT) as i64) / 2;
            font::draw(&mut canvas, x, corner[1] + CELL as i64 / 2 - 8, TEXT, &text, ink);
        }
    }
    atomic::write_file(path, |out| encode(out, &canvas))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn size(path: &Path) -> [u32; 2] {
        let reader = png::Decoder::new(std::io::BufReader::new(std::fs::File::open(path).unwrap()));
        let info = reader.read_info().unwrap();
        [info.info().width, info.info().height]
    }

    #[test]
    fn curves_of_any_points_are_drawn() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.png");
        let curve =
            |points: &[[f64; 2]]| Curve { name: "loss".into(), points: points.to_vec(), from_zero: false };
        let curves = [
            curve(&[]),
            curve(&[[3.0, 2.0]]),
            curve(&[[0.0, f64::NAN], [1.0, -5.0], [1e9, 1e-30]]),
            curve(&[[0.0, 1.0], [5.0, 1.0]]),
        ];
        curves_png(&path, "step", &curves).unwrap();
        assert_eq!(size(&path), [4 * 720, 420]);
        assert!(curves_png(&path, "step", &[]).is_err());
    }

    #[test]
    fn matrices_are_drawn_and_ragged_ones_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.png");
        let names = ["a".to_owned(), "b".to_owned()];
        matrix_png(&path, &names, &[&[3, 1], &[0, 0]]).unwrap();
        assert!(path.is_file());
        assert!(matrix_png(&path, &names, &[&[3, 1], &[0]]).is_err());
        assert!(matrix_png(&path, &[], &[]).is_err());
    }
}
