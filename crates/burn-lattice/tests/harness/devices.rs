//! The devices that tests walk: the CPU always, and the GPUs that the compiled backends find.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::sync::OnceLock;

use burn::tensor::{DType, Device};
use burn_lattice::DeviceInfo;

/// GPUs by the name that `--device` takes, one of a kind: the one that `LATTICE_TEST_DEVICE` names, else every one found but those
/// that a processor imitates, which are slow and run only where they are named. Prints a line when there is none.
///
/// # Panics
/// Where the named device is missing.
pub fn gpus() -> Vec<(String, Device)> {
    // Asked by sixteen threads at once, NVIDIA's Vulkan driver has said that there is no device, and stayed with it.
    static FOUND: OnceLock<Vec<(String, Device)>> = OnceLock::new();
    FOUND.get_or_init(found).clone()
}

fn found() -> Vec<(String, Device)> {
    // As programs of several threads do: tests are threads.
    burn_lattice::share_one_stream();
    #[allow(unused_mut, reason = "a build without GPU features has none")]
    let mut found: Vec<(String, Device)> = Vec::new();
    let wanted = wanted();
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
            // WGSL on what the machine offers; `DeviceType::WebGpu` would be a browser's alone.
            #[cfg(feature = "webgpu")]
            ("webgpu", DeviceType::Wgpu),
        ];
        for (name, kind) in kinds {
            if wanted.as_ref().is_some_and(|wanted| wanted != name) {
                continue;
            }
            let walked = |device: &Device| wanted.is_some() || !DeviceInfo::of(device).software;
            // One device of a kind: others of it run the same code.
            found.extend(
                Device::enumerate(kind)
                    .into_vec()
                    .into_iter()
                    .filter(walked)
                    .take(1)
                    .map(|device| (name.into(), device)),
            );
        }
    }
    if found.is_empty() {
        let missing = wanted.as_deref().filter(|&wanted| wanted != "cpu");
        assert!(missing.is_none(), "LATTICE_TEST_DEVICE={}: no such device", missing.unwrap_or_default());
        println!("no GPU: only the CPU is tested");
    }
    found
}

/// The device that tests are asked to run on.
fn wanted() -> Option<String> {
    std::env::var("LATTICE_TEST_DEVICE").ok()
}

/// The device that suites run on: the CPU, or what `LATTICE_TEST_DEVICE` names.
///
/// # Panics
/// Where the named device is missing.
pub fn chosen() -> Device {
    match wanted().as_deref() {
        None | Some("cpu") => Device::flex(),
        Some(_) => gpus().remove(0).1,
    }
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
