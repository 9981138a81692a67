//! What is known of a GPU, what it refuses, and what is made for a relation there.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use burn::backend::{Backend, DType, DispatchDevice};
use burn::tensor::Device;
use burn_cubecl::{CubeBackend, CubeDevice};
use lattice_core as core;
use lattice_gpu::Gpu;
use lattice_gpu::conv::cmma;
use lattice_gpu::conv::mma::{self, Direction};
use lattice_gpu::cubecl::ir::{ElemType, FloatKind};

use super::forms;
use crate::routes::{ConvWork, DeviceClass, MatrixUnits};
use crate::{Error, Result};

/// The GPU of a device, if it is one.
pub(crate) fn gpu_device(device: &Device) -> Option<CubeDevice> {
    match device.clone().without_autodiff().as_dispatch() {
        DispatchDevice::Cube(device) => Some(device.clone()),
        _ => None,
    }
}

/// What routes ask of a device.
pub(crate) fn device_class(device: &Device) -> DeviceClass {
    gpu_device(device).map_or(DeviceClass::Cpu, |device| known(&device).class)
}

/// What every operation asks of a device.
#[derive(Clone, Copy)]
pub(super) struct Known {
    pub(super) class: DeviceClass,
    /// Bytes of the largest buffer.
    longest: u64,
    /// Whether it has features in 32 bits, in f16 and in bf16.
    floats: [bool; 3],
}

thread_local! {
    /// What this thread has asked for already: every operation asks, of one device or two.
    static ASKED: RefCell<Vec<(u64, Known)>> = const { RefCell::new(Vec::new()) };
}

/// What is known of a device; asked of the driver once.
pub(super) fn known(device: &CubeDevice) -> Known {
    let key = forms::key(device);
    let asked = ASKED.with_borrow(|asked| asked.iter().find(|(at, _)| *at == key).map(|(_, known)| *known));
    asked.unwrap_or_else(|| {
        let found = asked_once(device, key);
        ASKED.with_borrow_mut(|asked| asked.push((key, found)));
        found
    })
}

fn asked_once(device: &CubeDevice, key: u64) -> Known {
    static KNOWN: Mutex<Option<HashMap<u64, Known>>> = Mutex::new(None);
    // Entries are inserted whole, so a panic elsewhere leaves the map as it should be.
    let lock = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = lock().as_ref().and_then(|known| known.get(&key).copied()) {
        return found;
    }
    let gpu = Gpu::new(device.client());
    gpu.reserve_room();
    let class = DeviceClass::Gpu(MatrixUnits {
        manual: mma::has_matrix_units(&gpu),
        tf32: mma::has_tf32(&gpu),
        bytes: mma::has_byte_units(&gpu),
        f16: cmma::has_fragments(&gpu, ElemType::Float(FloatKind::F16)),
        bf16: cmma::has_fragments(&gpu, ElemType::Float(FloatKind::BF16)),
    });
    let floats =
        [DType::F32, DType::F16, DType::BF16].map(|dtype| CubeBackend::supports_dtype(device, dtype));
    let found = Known { class, longest: gpu.client().properties().memory.max_page_size, floats };
    lock().get_or_insert_default().insert(key, found);
    found
}

/// What the driver calls a device.
pub(crate) fn device_name(device: &Device) -> String {
    gpu_device(device).map_or("cpu".into(), |device| device.client().properties().identity.name.clone())
}

/// Whether there is no card behind a GPU device.
pub(crate) fn is_software(device: &Device) -> bool {
    gpu_device(device).is_some_and(|device| device.client().properties().identity.physical.is_none())
}

/// Whether kernels of this crate compute with features of a type on a device.
pub(crate) fn takes_dtype(device: &Device, dtype: DType) -> bool {
    match gpu_device(device) {
        Some(device) => {
            let [f32, f16, bf16] = known(&device).floats;
            match dtype {
                DType::F32 => f32,
                DType::F16 => f16,
                DType::BF16 => bf16,
                _ => false,
            }
        }
        None => true,
    }
}

/// Refuses a relation that a GPU cannot hold; a CPU takes all.
pub(crate) fn check_relation(op: &'static str, device: &Device, relation: &core::Relation) -> Result<()> {
    gpu_device(device).map_or(Ok(()), |_| forms::check(op, relation))
}

/// Refuses a row map that a GPU cannot hold; a CPU takes all.
pub(crate) fn check_row_map(op: &'static str, device: &Device, map: &core::RowMap) -> Result<()> {
    gpu_device(device).map_or(Ok(()), |_| forms::check_map(op, map))
}

/// Refuses a result that is larger than a device's largest buffer.
pub(crate) fn check_room(op: &'static str, device: &Device, bytes: u64) -> Result<()> {
    match gpu_device(device).map(|device| known(&device).longest) {
        Some(most) if bytes > most => Err(Error::Limit {
            op,
            what: format!(
                "expected a result of at most {most} bytes, the largest buffer of this device, found {bytes}; split the batch or \
                 take fewer channels"
            ),
        }),
        _ => Ok(()),
    }
}

/// Builds what convolutions read on a GPU, with gradients in training; nothing on the CPU. `check_relation` was asked.
pub(crate) fn prepare(device: &Device, relation: &core::Relation, training: bool) {
    if let Some(device) = gpu_device(device) {
        let gpu = Gpu::new(device.client());
        forms::tiles(&gpu, &device, relation, Direction::Forward);
        if training {
            forms::tiles(&gpu, &device, relation, Direction::Backward);
            forms::pairs(&gpu, &device, relation);
        }
    }
}

/// Pairs of a relation; a GPU counts those that nobody listed.
pub(crate) fn n_pairs(device: &Device, relation: &core::Relation) -> usize {
    match gpu_device(device) {
        Some(device) => forms::n_pairs(&Gpu::new(device.client()), &device, relation),
        None => relation.n_pairs(),
    }
}

/// What a convolution over a relation stages and computes there, besides what it must.
pub(crate) fn conv_work(device: &Device, relation: &core::Relation) -> Option<ConvWork> {
    let device = gpu_device(device)?;
    let gpu = Gpu::new(device.client());
    let found = forms::tiles(&gpu, &device, relation, Direction::Forward).report();
    Some(ConvWork {
        tiles: found.tiles,
        phases: found.phases,
        staged_rows: found.staged_rows,
        computed: found.computed,
        table_bytes: found.bytes,
    })
}

/// Bytes and operations a second that a device reaches at best.
pub(crate) fn peaks(device: &Device, dtype: DType) -> Option<[f64; 2]> {
    let gpu = Gpu::new(gpu_device(device)?.client());
    let element = match dtype {
        DType::F16 => FloatKind::F16,
        DType::BF16 => FloatKind::BF16,
        _ => FloatKind::F32,
    };
    Some(gpu.peaks(element))
}
