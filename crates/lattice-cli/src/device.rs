//! The device a command computes on.

use anyhow::{Result, bail};
use burn::tensor::Device;

/// Backends by the name that `--device` takes, in the order that `auto` tries, with the feature that compiles each in.
pub const BACKENDS: [&str; 6] = ["cuda", "metal", "rocm", "vulkan", "webgpu", "cpu"];

/// A chosen device and its printed name.
pub struct Chosen {
    /// The device.
    pub device: Device,
    /// Name as in `--device`.
    pub name: String,
}

/// Reads `--device`.
///
/// # Errors
/// An unknown name, an index on `cpu`, or a backend that is not compiled in (the error names its feature).
pub fn choose(text: &str) -> Result<Chosen> {
    let (backend, index) = match text.split_once(':') {
        Some((backend, index)) => match index.parse::<usize>() {
            Ok(index) => (backend, Some(index)),
            Err(_) => bail!("--device: expected a number after `{backend}:`, found `{index}`"),
        },
        None => (text, None),
    };
    match backend {
        // GPU backends join here with their kernels; until then `auto` is the CPU.
        "auto" | "cpu" if index.is_none() => Ok(Chosen { device: Device::flex(), name: "cpu".into() }),
        "auto" | "cpu" => bail!("--device: expected `{backend}` without an index, found `{text}`"),
        known if BACKENDS.contains(&known) => bail!(
            "--device {text}: the backend `{known}` is not compiled in; it needs the cargo feature `{known}`, \
             which this version does not have yet; use --device cpu"
        ),
        _ => bail!(
            "--device: expected auto or one of {} (a GPU with :i for the i-th), found `{text}`",
            BACKENDS.join(", ")
        ),
    }
}
