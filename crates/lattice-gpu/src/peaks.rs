//! What a device can move and multiply at best.

use cubecl::ir::{ElemType, FloatKind};
use cubecl::std::throughput::measure_peak_throughput;
use cubecl::throughput::{
    MemoryAccess, ThroughputKey, ThroughputMode, compute_throughput_key, select_cmma_tile,
};

use crate::gpu::Gpu;

impl Gpu {
    /// Bytes read and written a second by a copy of 512 MiB, and multiplications and additions a second: of matrix units where they
    /// take the element type, else of f32 arithmetic. A second call finds them in CubeCL's cache; NaN where the device cannot say.
    pub fn peaks(&self, element: FloatKind) -> [f64; 2] {
        let element = ElemType::Float(element);
        let sum = ElemType::Float(FloatKind::F32);
        let tile = select_cmma_tile(self.client(), element, element, sum, (16, 16, 16));
        let compute = compute_throughput_key(tile, element, sum);
        let memory = ThroughputKey { mode: ThroughputMode::memory(MemoryAccess::Copy) };
        let measure = |key| measure_peak_throughput(self.client(), key).ok();
        [
            measure(memory).map_or(f64::NAN, |found| found.bytes_per_s(&memory)),
            measure(compute).map_or(f64::NAN, |found| found.ops_per_s()),
        ]
    }
}
