//! Kernel geometry: which displacement each tap stands for.

/// The geometry of one kernel, per axis x, y, z.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Cells per axis, at least 1.
    pub size: [u32; 3],
    /// Output step in input voxels, at least 1.
    pub stride: [u32; 3],
    /// Shift of the window towards the negative side, in input voxels.
    pub padding: [u32; 3],
    /// Distance of neighbouring cells in input voxels, at least 1.
    pub dilation: [u32; 3],
}

impl Kernel {
    /// A kernel of any geometry.
    pub const fn new(size: [u32; 3], stride: [u32; 3], padding: [u32; 3], dilation: [u32; 3]) -> Self {
        Self { size, stride, padding, dilation }
    }

    /// The same size and stride on every axis, no padding, dilation 1.
    pub const fn cube(size: u32, stride: u32) -> Self {
        Self::new([size; 3], [stride; 3], [0; 3], [1; 3])
    }

    /// `size` and `stride` on the x axis, 1 on the others; for worked examples on a line.
    pub const fn line(size: u32, stride: u32, padding: u32, dilation: u32) -> Self {
        Self::new([size, 1, 1], [stride, 1, 1], [padding, 0, 0], [dilation, 1, 1])
    }

    /// Number of taps: the product of the sizes.
    pub fn taps(&self) -> usize {
        self.size.iter().map(|&n| n as usize).product()
    }

    /// True when every size is odd, as a submanifold relation demands.
    pub fn is_odd(&self) -> bool {
        self.size.iter().all(|n| n % 2 == 1)
    }
}

/// Offsets of the forward, submanifold and target relations, tap by tap (x outermost, z fastest).
///
/// Position `i` of an axis of size `K` and dilation `d` stands at `(i - (K-1)/2)·d` for odd `K`, at `i·d` for even `K`.
pub fn centred(kernel: &Kernel) -> Vec<[i64; 3]> {
    let at = |axis: usize, position: u32| {
        let size = i64::from(kernel.size[axis]);
        let first = if size % 2 == 1 { (size - 1) / 2 } else { 0 };
        (i64::from(position) - first) * i64::from(kernel.dilation[axis])
    };
    every_position(kernel.size, at)
}

/// Offsets of the transposed, generative and target-transposed relations: position `i` stands at `i·d` for every size.
pub fn indexed(kernel: &Kernel) -> Vec<[i64; 3]> {
    every_position(kernel.size, |axis, position| i64::from(position) * i64::from(kernel.dilation[axis]))
}

fn every_position(size: [u32; 3], at: impl Fn(usize, u32) -> i64) -> Vec<[i64; 3]> {
    let mut offsets = Vec::new();
    for i in 0..size[0] {
        for j in 0..size[1] {
            for l in 0..size[2] {
                offsets.push([at(0, i), at(1, j), at(2, l)]);
            }
        }
    }
    offsets
}
