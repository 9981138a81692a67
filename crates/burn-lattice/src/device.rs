//! What a device is called and can do.

use burn::tensor::{DType, Device};

use crate::backend;
use crate::routes::DeviceClass;

/// Name and capabilities of a device.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DeviceInfo {
    /// As the driver names a GPU; `cpu` for the CPU.
    pub name: String,
    /// Whether it is a GPU that a processor imitates: correct at best, and slow.
    pub software: bool,
    /// What routes ask.
    pub class: DeviceClass,
    /// Element types that features may have there.
    pub dtypes: Vec<DType>,
}

impl DeviceInfo {
    /// Asks a device. Opens a GPU that was not used before.
    pub fn of(device: &Device) -> Self {
        let all = [DType::F64, DType::F32, DType::F16, DType::BF16];
        Self {
            name: backend::device_name(device),
            software: backend::is_software(device),
            class: DeviceClass::of(device),
            dtypes: all.into_iter().filter(|&dtype| backend::takes_dtype(device, dtype)).collect(),
        }
    }

    /// Whether features there may have an element type.
    pub fn takes(&self, dtype: DType) -> bool {
        self.dtypes.contains(&dtype)
    }
}
