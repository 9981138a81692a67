//! What is written over a picture: captions, the scale bar, the ramp or the classes.

use super::canvas::Canvas;
use super::colour::{Ramp, colour_of_id};
use super::font;

const INK: [u8; 3] = [222, 226, 232];
const FAINT: [u8; 3] = [142, 148, 160];

/// What the colours mean.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Key {
    /// Colours of the points themselves.
    None,
    /// A ramp over a range of an attribute.
    Range { name: String, lo: f64, hi: f64, ramp: Ramp },
    /// Classes with a name and the share of points in each.
    Classes(Vec<(i64, String, f64)>),
}

/// Text size for a picture of this height.
pub(super) fn text_scale(height: usize) -> usize {
    (height / 420).clamp(1, 6)
}

/// Digits in groups of three.
pub(super) fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Three significant digits, without idle zeros.
pub(super) fn short(v: f64) -> String {
    if v == 0.0 {
        return "0".to_owned();
    }
    let digits = (2 - v.abs().log10().floor() as i64).clamp(0, 9) as usize;
    if !(1e-7..1e9).contains(&v.abs()) {
        return format!("{v:.2e}");
    }
    let text = format!("{v:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// The longest of 1, 2, 5 times a power of ten that is no longer than `most`.
pub(super) fn round_length(most: f64) -> f64 {
    let power = 10f64.powf(most.log10().floor());
    [5.0, 2.0, 1.0].into_iter().map(|m| m * power).find(|&l| l <= most * (1.0 + 1e-9)).unwrap_or(power)
}

/// Writes a caption into the top left corner of a panel: a bright word, then faint ones.
pub(super) fn caption(canvas: &mut Canvas, x: usize, scale: usize, bright: &str, faint: &str) {
    let (left, top) = ((x + 8 * scale) as i64, 8 * scale as i64);
    let s = scale as i64;
    let gap = if faint.is_empty() { 0 } else { 8 * s };
    let wide = (font::width(bright, scale) + font::width(faint, scale)) as i64 + gap;
    dim(canvas, [left - 3 * s, top - 3 * s], [wide + 6 * s, 14 * s]);
    font::draw(canvas, left, top, scale, bright, INK);
    font::draw(canvas, left + font::width(bright, scale) as i64 + 8 * scale as i64, top, scale, faint, FAINT);
}

/// Draws a bar of a round length into the bottom left corner of a panel that begins at `x`.
pub(super) fn scale_bar(
    canvas: &mut Canvas,
    x: usize,
    panel: usize,
    scale: usize,
    pixels_a_unit: f64,
    unit: &str,
) {
    let length = round_length(0.25 * panel as f64 / pixels_a_unit);
    let wide = (length * pixels_a_unit).round();
    if !(wide.is_finite() && wide >= 1.0) {
        return;
    }
    let (s, wide) = (scale as i64, wide as i64);
    let (left, bottom) = (x as i64 + 8 * s, canvas.height as i64 - 8 * s);
    let text = if unit.is_empty() { short(length) } else { format!("{} {unit}", short(length)) };
    let dark = wide.max(font::width(&text, scale) as i64) + 8 * s;
    dim(canvas, [left - 4 * s, bottom - 19 * s], [dark, 23 * s]);
    canvas.fill([left, bottom - s], [wide, s], INK);
    for end in [left, left + wide - s] {
        canvas.fill([end, bottom - 4 * s], [s, 4 * s], INK);
    }
    font::draw(canvas, left, bottom - 15 * s, scale, &text, INK);
}

/// Draws the key of the colours into the bottom right corner.
pub(super) fn key(canvas: &mut Canvas, scale: usize, key: &Key) {
    let s = scale as i64;
    let (right, bottom) = (canvas.width as i64 - 8 * s, canvas.height as i64 - 8 * s);
    match key {
        Key::None => {}
        Key::Range { name, lo, hi, ramp } => {
            let wide = (canvas.width as i64 / 5).clamp(60 * s, 160 * s).min(right);
            let above = 18 * s;
            dim(canvas, [right - wide - 4 * s, bottom - above - 4 * s], [wide + 8 * s, above + 8 * s]);
            for x in 0..wide {
                let colour = ramp.at(x as f64 / (wide - 1).max(1) as f64);
                canvas.fill([right - wide + x, bottom - 7 * s], [1, 7 * s], colour);
            }
            let (lo, hi) = (short(*lo), short(*hi));
            let y = bottom - above;
            font::draw(canvas, right - wide, y, scale, &lo, FAINT);
            font::draw(canvas, right - font::width(&hi, scale) as i64, y, scale, &hi, FAINT);
            let ends = (font::width(&lo, scale) + font::width(&hi, scale)) as i64;
            // What does not fit between the numbers is cut.
            let room = (wide - ends - 12 * s).max(0) as usize;
            let name: String = name.chars().take(room / (6 * scale)).collect();
            let name_wide = font::width(&name, scale) as i64;
            font::draw(canvas, right - (wide + name_wide) / 2, y, scale, &name, INK);
        }
        Key::Classes(classes) => {
            let line = 12 * s;
            let rows = ((bottom - 24 * s) / line).max(1) as usize;
            let shown = &classes[..classes.len().min(rows)];
            let text = |(_, name, share): &(i64, String, f64)| {
                let percent = 100.0 * share;
                let percent =
                    if percent > 0.0 && percent < 0.1 { "<0.1%".into() } else { format!("{percent:.1}%") };
                (name.clone(), percent)
            };
            let widest =
                |f: &dyn Fn(&(i64, String, f64)) -> usize| shown.iter().map(f).max().unwrap_or(0) as i64;
            let name_wide = widest(&|c| font::width(&text(c).0, scale));
            let share_wide = widest(&|c| font::width(&text(c).1, scale));
            let wide = 14 * s + name_wide + 10 * s + share_wide;
            let height = shown.len() as i64 * line;
            dim(canvas, [right - wide - 6 * s, bottom - height - 4 * s], [wide + 12 * s, height + 8 * s]);
            for (i, class) in shown.iter().enumerate() {
                let y = bottom - height + i as i64 * line;
                let (name, share) = text(class);
                canvas.fill([right - wide, y], [9 * s, 8 * s], colour_of_id(class.0));
                font::draw(canvas, right - wide + 14 * s, y, scale, &name, INK);
                font::draw(canvas, right - font::width(&share, scale) as i64, y, scale, &share, FAINT);
            }
        }
    }
}

/// Darkens a rectangle, so that text on it can be read.
fn dim(canvas: &mut Canvas, corner: [i64; 2], size: [i64; 2]) {
    let clip = |at: i64, length: usize| at.clamp(0, length as i64) as usize;
    for y in clip(corner[1], canvas.height)..clip(corner[1] + size[1], canvas.height) {
        for x in clip(corner[0], canvas.width)..clip(corner[0] + size[0], canvas.width) {
            let pixel = &mut canvas.pixels[y * canvas.width + x];
            *pixel = pixel.map(|v| (u16::from(v) * 30 / 100) as u8 + 8);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_lengths_round() {
        assert_eq!([short(0.0), short(12.0), short(-0.051), short(1234.5)], ["0", "12", "-0.051", "1234"]);
        assert_eq!([short(0.30000001), short(2e12), short(100.0)], ["0.3", "2.00e12", "100"]);
        assert_eq!(
            [round_length(7.0), round_length(4.9), round_length(0.19), round_length(1.0)],
            [5.0, 2.0, 0.1, 1.0]
        );
        assert_eq!(
            [grouped(0), grouped(999), grouped(1000), grouped(1234567)],
            ["0", "999", "1,000", "1,234,567"]
        );
    }
}
