//! The devices that tests walk: the CPU always, and the GPUs that the compiled backends find.
#![allow(dead_code, reason = "each test file uses a part of it")]

use burn::tensor::{DType, Device};
use burn_lattice::DeviceInfo;

/// GPUs by the name that `--device` takes; prints a line when there is none.
pub fn gpus() -> Vec<(String, Device)> {
    #[allow(unused_mut, reason = "a build without GPU features has none")]
    let mut found: Vec<(String, Device)> = Vec::new();
    #[cfg(any(
        feature = "cuda",
        feature = "metal",
        feature = "rocm",
        feature = "vulkan",
        feature = "webgpu"
    ))]
    {
        use burn::tensor::DeviceType;
        let kinds = [
            #[cfg(feature = "cuda")]
            ("cuda", DeviceType::Cuda),
            #[cfg(feature = "metal")]
            ("metal", DeviceType::Metal),
            #[cfg(feature = "rocm")]
            ("rocm", DeviceType::Rocm),
            #[cfg(feature = "vulkan")]
            ("vulkan", DeviceType::Vulkan),
            #[cfg(feature = "webgpu")]
            ("webgpu", DeviceType::WebGpu),
        ];
        // What a processor imitates is tested where that is asked for.
        let imitated = std::env::var_os("LATTICE_TEST_SOFTWARE").is_some();
        let real = |device: &Device| imitated || !DeviceInfo::of(device).software;
        for (name, kind) in kinds {
            // One device of a kind: others of it run the same code.
            found.extend(
                Device::enumerate(kind)
                    .into_vec()
                    .into_iter()
                    .filter(real)
                    .take(1)
                    .map(|device| (name.into(), device)),
            );
        }
    }
    if found.is_empty() {
        println!("no GPU: only the CPU is tested");
    }
    found
}

/// The CPU and every GPU.
pub fn devices() -> Vec<(String, Device)> {
    std::iter::once(("cpu".to_string(), Device::flex())).chain(gpus()).collect()
}

/// The device that suites run on: `LATTICE_TEST_DEVICE`, a name of [`devices`], else the CPU.
///
/// # Panics
/// Where no such device is found.
pub fn chosen() -> Device {
    let Ok(wanted) = std::env::var("LATTICE_TEST_DEVICE") else { return Device::flex() };
    let found = devices().into_iter().find(|(name, _)| *name == wanted);
    found.unwrap_or_else(|| panic!("LATTICE_TEST_DEVICE={wanted}: no such device")).1
}

/// Whether suites run on a GPU.
pub fn on_gpu() -> bool {
    DeviceInfo::of(&chosen()).class.is_gpu()
}

/// The element types of features on the device that suites run on.
pub fn dtypes() -> Vec<DType> {
    DeviceInfo::of(&chosen()).dtypes
}

/// Whether features of an element type are tested on the device that suites run on.
pub fn has(dtype: DType) -> bool {
    DeviceInfo::of(&chosen()).takes(dtype)
}
