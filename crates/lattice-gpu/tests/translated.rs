//! Kernels that only a card has are translated to SPIR-V and to Metal's language, on a machine without one.
#![cfg(feature = "check-translations")]
#![allow(clippy::unwrap_used, reason = "tests")]

use half::f16;
use lattice_core::{KernelSpec, RelationKind};
use lattice_gpu::conv::ConvShape;
use lattice_gpu::conv::cmma::{CmmaPlan, conv_cmma, has_fragments, pack_fragments};
use lattice_gpu::conv::mma::{Direction, Epilogue};
use lattice_gpu::conv::weight_grad::{DevicePairs, weight_grad};
use lattice_gpu::cubecl::prelude::*;
use lattice_gpu::index::BlockIndex;
use lattice_gpu::support::{Pyramid, canonical_order, describe};
use lattice_gpu::tiles::{Geometry, Tiles};
use lattice_gpu::{Life, card_of_translator, translations};

#[test]
fn kernels_of_a_card_are_translated() {
    let gpu = card_of_translator();
    assert!(gpu.is_coherent() && has_fragments(&gpu, f16::elem_type_native()), "it is taken for a card");
    let n = 3000;
    let coords = gpu.upload(&vec![0i32; 4 * n]);
    let index = BlockIndex::of_canonical(&gpu, &coords, n);
    describe(&gpu, &coords, n);
    canonical_order(&gpu, &coords, &([0; 4], [0, 500, 500, 500])).unwrap();
    Pyramid::build(&gpu, &coords, None);
    let geometry = Geometry::new(RelationKind::Submanifold, &KernelSpec::cube(3, 1).unwrap());
    let tiles = Tiles::build(&gpu, &index, &coords, n, None, geometry).unwrap();
    let before = translations().0;
    assert!(before > 8, "supports, levels and tiles have kernels: {before}");
    for (c_in, c_out) in [(4, 16), (64, 64), (128, 96)] {
        let x = gpu.upload(&vec![f16::ZERO; n * c_in]);
        let weights = gpu.upload(&vec![f16::ZERO; 27 * c_in * c_out]);
        let direction = (Direction::Forward, false);
        let plan = CmmaPlan::choose(c_in, c_out);
        let weights =
            pack_fragments::<f16>(&gpu, &weights, 27, [c_in, c_out], plan, direction, Life::Passing);
        conv_cmma::<f16>(&gpu, &x, &weights, &tiles, &Epilogue::none());
        let g = gpu.upload(&vec![f16::ZERO; n * c_out]);
        let shape = ConvShape { c_in, c_out, groups: 1 };
        weight_grad::<f16, f16>(&gpu, &x, &g, &DevicePairs::from_tiles(&gpu, &tiles), shape);
    }
    gpu.client().flush().unwrap();
    let (forms, refused) = translations();
    assert!(forms >= before + 2 * 4, "convolutions and their gradients have kernels: {forms}");
    assert_eq!(refused, Vec::<String>::new());
}
