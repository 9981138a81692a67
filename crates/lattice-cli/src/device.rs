//! The device a command computes on.

use anyhow::{Result, bail, ensure};
use burn::tensor::Device;
use burn_lattice::DeviceInfo;
use burn_lattice::routes::DeviceClass;

use crate::commands::bench::FloatKind;

/// Backends by the name that `--device` takes, in the order that `auto` tries; each but `cpu` is a cargo feature of that name.
pub const BACKENDS: [&str; 6] = ["cuda", "metal", "rocm", "vulkan", "webgpu", "cpu"];

/// A chosen device and its printed name.
#[derive(Clone)]
pub struct Chosen {
    /// The device.
    pub device: Device,
    /// Name as in `--device`.
    pub name: String,
}

impl Chosen {
    /// Refuses an element type that the device does not compute with.
    ///
    /// # Errors
    /// As said; the message names those that it takes.
    pub fn check_dtype(&self, dtype: FloatKind) -> Result<()> {
        let info = DeviceInfo::of(&self.device);
        let names: Vec<&str> =
            FloatKind::ALL.iter().filter(|k| info.takes(k.dtype())).map(|k| k.name()).collect();
        ensure!(
            info.takes(dtype.dtype()),
            "--dtype: expected an element type that {} computes with ({}), found {}",
            self.name,
            names.join(", "),
            dtype.name()
        );
        Ok(())
    }

    /// Whether it is a GPU.
    pub fn is_gpu(&self) -> bool {
        DeviceClass::of(&self.device).is_gpu()
    }
}

/// Whether a backend is compiled in.
pub fn compiled(backend: &str) -> bool {
    match backend {
        "cpu" => true,
        "cuda" => cfg!(feature = "cuda"),
        "metal" => cfg!(feature = "metal"),
        "rocm" => cfg!(feature = "rocm"),
        "vulkan" => cfg!(feature = "vulkan"),
        "webgpu" => cfg!(feature = "webgpu"),
        _ => false,
    }
}

/// The devices that a backend finds on this machine; none where it is not compiled in or its driver is missing.
pub fn found(backend: &str) -> Vec<Device> {
    #[cfg(any(
        feature = "cuda",
        feature = "metal",
        feature = "rocm",
        feature = "vulkan",
        feature = "webgpu"
    ))]
    {
        use burn::tensor::DeviceType;
        let kind = match backend {
            #[cfg(feature = "cuda")]
            "cuda" => Some(DeviceType::Cuda),
            #[cfg(feature = "metal")]
            "metal" => Some(DeviceType::Metal),
            #[cfg(feature = "rocm")]
            "rocm" => Some(DeviceType::Rocm),
            #[cfg(feature = "vulkan")]
            "vulkan" => Some(DeviceType::Vulkan),
            // WGSL on what the machine offers; `DeviceType::WebGpu` would be a browser's alone.
            #[cfg(feature = "webgpu")]
            "webgpu" => Some(DeviceType::Wgpu),
            _ => None,
        };
        if let Some(kind) = kind {
            return Device::enumerate(kind).into_vec();
        }
    }
    if backend == "cpu" { vec![Device::flex()] } else { Vec::new() }
}

/// Reads `--devices`: devices of one backend, each a name with a number, or a number that goes with the name before it.
///
/// # Errors
/// As [`choose`]; `auto`, a number without a name before it, a device that is named twice, several devices that are not of CUDA.
pub fn choose_several(words: &[String]) -> Result<Vec<Chosen>> {
    let mut backend: Option<&str> = None;
    let mut names: Vec<String> = Vec::with_capacity(words.len());
    for word in words.iter().map(|word| word.trim()) {
        let name = match (word.parse::<usize>(), backend) {
            (Ok(index), Some(backend)) => format!("{backend}:{index}"),
            (Ok(_), None) => {
                bail!("--devices: expected a backend before the first number, as in cuda:0,1, found `{word}`")
            }
            (Err(_), _) => {
                let (name, index) = word.split_once(':').unwrap_or((word, ""));
                backend = Some(name);
                if name == "cuda" && index.is_empty() { "cuda:0".into() } else { word.to_string() }
            }
        };
        ensure!(
            backend != Some("auto"),
            "--devices: expected devices by name, as in cuda:0,1, found `{word}`; --device auto finds one"
        );
        ensure!(
            !names.contains(&name),
            "--devices: expected each device once, found {name} twice; a batch is split over different devices"
        );
        names.push(name);
    }
    let other = names.iter().find(|name| !name.starts_with("cuda:"));
    if let (Some(other), true) = (other, names.len() > 1) {
        bail!(
            "--devices: expected CUDA devices, which NCCL connects, found `{other}`; name one device, or CUDA devices alone"
        );
    }
    let option = |e: anyhow::Error| anyhow::anyhow!("{}", e.to_string().replacen("--device", "--devices", 1));
    let chosen = names.iter().map(|name| choose(name).map_err(option)).collect::<Result<Vec<_>>>()?;
    Ok(chosen)
}

/// Reads `--device`.
///
/// # Errors
/// An unknown name, an index on `cpu`, a backend that is not compiled in (the error names its feature), a device that is not there.
pub fn choose(text: &str) -> Result<Chosen> {
    let (backend, index) = match text.split_once(':') {
        Some((backend, index)) => match index.parse::<usize>() {
            Ok(index) => (backend, Some(index)),
            Err(_) => bail!("--device: expected a number after `{backend}:`, found `{index}`"),
        },
        None => (text, None),
    };
    if backend == "auto" && index.is_none() {
        for name in BACKENDS {
            // A GPU that the processor imitates is slower than the processor: it runs only where it is asked for.
            let real = |device: &Device| !DeviceInfo::of(device).software;
            if let Some(device) = found(name).into_iter().find(real) {
                return Ok(Chosen { device, name: name.into() });
            }
        }
    }
    match backend {
        "auto" | "cpu" if index.is_some() => {
            bail!("--device: expected `{backend}` without an index, found `{text}`")
        }
        known if BACKENDS.contains(&known) && !compiled(known) => bail!(
            "--device {text}: the backend `{known}` is not compiled in; build with the cargo feature `{known}` \
             (cargo run --release --features {known}), or use --device cpu"
        ),
        known if BACKENDS.contains(&known) => {
            let devices = found(known);
            let (count, index) = (devices.len(), index.unwrap_or(0));
            match devices.into_iter().nth(index) {
                Some(device) => Ok(Chosen { device, name: text.into() }),
                None => bail!(
                    "--device {text}: expected a device of number {index}, found {count} on this machine; \
                     `lattice devices` lists them"
                ),
            }
        }
        _ => bail!(
            "--device: expected auto or one of {} (a GPU with :i for the i-th), found `{text}`",
            BACKENDS.join(", ")
        ),
    }
}
