//! Convolution with matrix instructions whose fragments the device lays out: 16 x 16 x 16, on every device that has them.
//!
//! A plane does 16 or 32 output rows of a tile and a block of output channels ([`CmmaPlan`]). For each tap that one of the rows has it gathers
//! their input rows into shared memory of its own, zeros where a row lacks the tap, and multiplies them by the tap's weights, which
//! are packed into whole fragments first. Planes wait for one another where a tile has another halo, and nowhere else.

mod kernel;
mod pack;
mod plan;

use cubecl::ir::features::Plane;
use cubecl::ir::{ElemType, FloatKind};
use cubecl::prelude::*;

use kernel::{CmmaShape, SizesLaunch, conv_cmma_kernel};
pub use pack::{FragmentWeights, pack_fragments};
pub use plan::CmmaPlan;

use super::finish::{check_epilogue, operands_of};
use super::mma::Epilogue;
use crate::address::address_of;
use crate::gpu::{Buffer, Gpu};
use crate::tiles::Tiles;

/// Rows and columns of a fragment.
const EDGE: usize = 16;

/// Units of a plane, where all planes of a device have as many and the kernel has a form for it.
fn lanes(gpu: &Gpu) -> Option<u32> {
    let hardware = &gpu.client().properties().hardware;
    let (least, most) = (hardware.plane_size_min, hardware.plane_size_max);
    (least == most && [32, 64].contains(&most)).then_some(most)
}

/// Whether a device has 16 x 16 x 16 fragments of an element type with f32 sums, and what else the kernel needs.
pub fn has_fragments(gpu: &Gpu, element: ElemType) -> bool {
    let properties = gpu.client().properties();
    let fits = |c: &cubecl::features::MmaConfig| {
        (c.m, c.n, c.k) == (EDGE as u32, EDGE as u32, EDGE as u32)
            && c.a_type == element
            && c.b_type == element
            && c.cd_type == ElemType::Float(FloatKind::F32)
    };
    let largest = CmmaPlan::choose(usize::MAX, usize::MAX);
    let units = lanes(gpu).map(|lanes| lanes * largest.planes);
    properties.features.matmul.cmma.iter().any(fits)
        && properties.features.plane.contains(Plane::Sync)
        && properties.features.plane.contains(Plane::Ops)
        && properties.hardware.max_shared_memory_size >= largest.shared_bytes()
        && units.is_some_and(|units| units <= properties.hardware.max_units_per_cube)
}

/// The convolution `[n_in, c_in]` to `[n_out, c_out]`; one launch.
///
/// # Panics
/// When a buffer does not have its shape, the weights are of another number of taps, or [`has_fragments`] does not hold.
pub fn conv_cmma<F: Float + CubeElement>(
    gpu: &Gpu,
    x: &Buffer,
    weights: &FragmentWeights,
    tiles: &Tiles,
    epilogue: &Epilogue,
) -> Buffer {
    const OP: &str = "conv_cmma";
    let FragmentWeights { c_in, c_out, plan, .. } = *weights;
    assert_eq!(x.len, tiles.n_in() * c_in, "{OP}: length of the features");
    assert_eq!(weights.taps, tiles.taps(), "{OP}: taps of the weights");
    check_epilogue(OP, epilogue, tiles.n_out(), c_out);
    let lanes = lanes(gpu).expect("`has_fragments` was asked, and holds for planes of one size alone");
    let y = gpu.empty(tiles.n_out() * c_out, 2);
    if tiles.n_tiles == 0 || c_out == 0 {
        return y;
    }
    let room = gpu.client().properties().hardware.max_shared_memory_size;
    assert!(plan.shared_bytes() <= room, "{OP}: a cube of {plan:?} takes more shared memory than there is");
    let blocks = c_out.div_ceil(EDGE * plan.columns);
    let shape = CmmaShape { lanes, plan, after: epilogue.after };
    let x_lanes = if c_in.is_multiple_of(8) { 8 } else { 1 };
    let y_lanes = [8, 4, 2].into_iter().find(|&lanes| c_out.is_multiple_of(lanes)).unwrap_or(1);
    let halo = tiles.halo();
    let address = address_of(&[x, &y]);
    let cubes = Gpu::cubes(tiles.n_tiles * plan.parts() as usize * blocks, 1);
    let name = ("conv_cmma", std::any::type_name::<F>());
    let kernel = (name, [x_lanes, y_lanes], (epilogue.operands(), address), shape);
    gpu.launch(cubes, kernel, |client, cubes| {
        // SAFETY: tiles hold rows of the source and the target, whose features `x` and `y` are; the operands have the shapes that
        // the epilogue says; packed weights hold whole plans of every tap.
        unsafe {
            conv_cmma_kernel::launch_unchecked::<F>(
                client,
                cubes,
                CubeDim::new_1d(plan.planes * lanes),
                address,
                x_lanes,
                y_lanes,
                x.arg(x_lanes),
                weights.buffer.arg(8),
                operands_of(epilogue, y_lanes),
                y.arg(y_lanes),
                tiles.rows.arg(1),
                tiles.table.arg(1),
                tiles.chunks.arg(1),
                halo.arg(1),
                tiles.spans.arg(1),
                tiles.n_out as u32,
                SizesLaunch::new(c_in as u32, c_out as u32, tiles.taps, tiles.span_words, blocks as u32),
                shape,
            );
        }
    });
    y
}
