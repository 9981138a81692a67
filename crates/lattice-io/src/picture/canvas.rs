//! A picture in memory.

/// An RGB picture, rows from top to bottom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Canvas {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `width * height` colours: red, green, blue.
    pub pixels: Vec<[u8; 3]>,
}

impl Canvas {
    pub(super) fn new(width: usize, height: usize, colour: [u8; 3]) -> Self {
        Self { width, height, pixels: vec![colour; width * height] }
    }

    /// Fills a rectangle; what lies outside is left out.
    pub(super) fn fill(&mut self, corner: [i64; 2], size: [i64; 2], colour: [u8; 3]) {
        let clip = |at: i64, length: usize| at.clamp(0, length as i64) as usize;
        let (x0, x1) = (clip(corner[0], self.width), clip(corner[0] + size[0], self.width));
        for y in clip(corner[1], self.height)..clip(corner[1] + size[1], self.height) {
            self.pixels[y * self.width + x0..y * self.width + x1].fill(colour);
        }
    }

    /// Copies `from` with its top left corner at (x, y); it must fit.
    pub(super) fn paste(&mut self, from: &Self, x: usize, y: usize) {
        for (row, pixels) in from.pixels.chunks_exact(from.width.max(1)).enumerate() {
            let at = (y + row) * self.width + x;
            self.pixels[at..at + from.width].copy_from_slice(pixels);
        }
    }
}
