//! Whether two lists of rows are the same.

use cubecl::prelude::*;

use crate::address::UNITS;
use crate::gpu::{Buffer, Gpu};

/// Counts the rows that differ. One unit a row; a unit that finds nothing writes nothing.
#[cube(launch_unchecked)]
fn differ_kernel(
    a: &[Vector<i32, Const<4>>],
    b: &[Vector<i32, Const<4>>],
    differ: &mut [Atomic<u32>],
    n: u32,
) {
    let row = ABSOLUTE_POS as u32;
    if row < n {
        let (c, k) = (a[row as usize], b[row as usize]);
        let same = c.extract(0usize) == k.extract(0usize)
            && c.extract(1usize) == k.extract(1usize)
            && c.extract(2usize) == k.extract(2usize)
            && c.extract(3usize) == k.extract(3usize);
        if !same {
            differ[0].fetch_or(1u32);
        }
    }
}

/// Whether both hold equal rows in equal order. Waits for the device.
pub fn same_rows(gpu: &Gpu, a: &Buffer, b: &Buffer) -> bool {
    if a.len != b.len {
        return false;
    }
    let differ = gpu.upload(&[0u32]);
    let n = a.len / 4;
    // SAFETY: one unit a row, checked against the count, which both have.
    unsafe {
        differ_kernel::launch_unchecked(
            gpu.client(),
            Gpu::cubes(n, UNITS as usize),
            CubeDim::new_1d(UNITS),
            a.arg(4),
            b.arg(4),
            differ.arg(1),
            n as u32,
        );
    }
    gpu.download::<u32>(&differ)[0] == 0
}
