//! Which cube of a launch comes last: it puts together what all of them found, so that no second launch is needed.

use cubecl::prelude::*;

/// Whether all `cubes` that count on `counter` have come by; true in one cube alone, the last, which sees what the others wrote before
/// and sets the counter back to zero. To be reached by all units of a cube. `arrived`: one word.
///
/// For devices whose cubes may hand each other what they wrote: [`Gpu::is_coherent`](crate::Gpu::is_coherent).
#[cube]
pub(crate) fn is_last(
    counters: &mut [Atomic<u32>],
    counter: u32,
    cubes: u32,
    arrived: &mut Shared<[u32]>,
) -> bool {
    sync_storage();
    if UNIT_POS == 0u32 {
        let before = counters[counter as usize].fetch_add(1u32);
        arrived[0] = before;
        if before + 1u32 == cubes {
            counters[counter as usize].store(0u32);
        }
    }
    sync_cube();
    let last = arrived[0] + 1u32 == cubes;
    if last {
        // Only who reads what others wrote waits for it.
        sync_storage();
    }
    last
}
