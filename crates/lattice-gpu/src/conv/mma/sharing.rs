//! Sums that several cubes share: handed over by each, and added up by the one that comes last.

use cubecl::prelude::*;

use super::shape::MmaShape;

/// Hands the sums of a unit over: `[block of the tile, split, fragment, unit]`.
#[cube]
pub(super) fn hand_over<NC: Size>(
    handed: &mut [Vector<f32, Const<4>>],
    sums: &Sequence<Array<Vector<f32, NC>>>,
    of_block: u32,
    split: u32,
    splits: u32,
    #[comptime] shape: MmaShape,
) {
    let plan = comptime!(shape.plan);
    let nc = NC::value();
    let fragments = comptime!(shape.fragments());
    let length = comptime!(fragments * plan.units());
    let first = of_block as usize * splits as usize * length + UNIT_POS as usize;
    #[unroll]
    for fragment in 0usize..fragments {
        let sum = sums.index(fragment);
        let mut four = Vector::<f32, Const<4>>::empty();
        #[unroll]
        for e in 0usize..4usize {
            four.insert(e, sum[comptime!(e / nc)].extract(comptime!(e % nc)));
        }
        handed[first + split as usize * length + comptime!(fragment * plan.units())] = four;
    }
}

/// The sums of all cubes, in their order, so that they do not depend on who comes last; those of two cubes are asked for together.
#[cube]
pub(super) fn add_handed<NC: Size>(
    sums: &mut Sequence<Array<Vector<f32, NC>>>,
    handed: &[Vector<f32, Const<4>>],
    of_block: u32,
    splits: u32,
    #[comptime] shape: MmaShape,
) {
    let plan = comptime!(shape.plan);
    let nc = NC::value();
    let n_c = comptime!(4 / nc);
    let fragments = comptime!(shape.fragments());
    let length = comptime!(fragments * plan.units());
    let first = of_block as usize * splits as usize * length + UNIT_POS as usize;
    #[unroll]
    for fragment in 0usize..fragments {
        let sum = sums.index_mut(fragment);
        #[unroll]
        for i in 0usize..n_c {
            sum[i] = Vector::new(0.0f32);
        }
    }
    for pair in 0u32..splits.div_ceil(2u32) {
        let mut theirs = Array::<Vector<f32, Const<4>>>::new(comptime!(2 * fragments));
        #[unroll]
        for side in 0usize..2usize {
            let other = min(2u32 * pair + side as u32, splits - 1u32);
            #[unroll]
            for fragment in 0usize..fragments {
                theirs[comptime!(side * fragments + fragment)] =
                    handed[first + other as usize * length + comptime!(fragment * plan.units())];
            }
        }
        #[unroll]
        for side in 0usize..2usize {
            if 2u32 * pair + (side as u32) < splits {
                #[unroll]
                for fragment in 0usize..fragments {
                    let sum = sums.index_mut(fragment);
                    let four = theirs[comptime!(side * fragments + fragment)];
                    #[unroll]
                    for i in 0usize..n_c {
                        let mut some = Vector::<f32, NC>::empty();
                        #[unroll]
                        for e in 0usize..nc {
                            some.insert(e, four.extract(comptime!(i * nc + e)));
                        }
                        sum[i] += some;
                    }
                }
            }
        }
    }
}
