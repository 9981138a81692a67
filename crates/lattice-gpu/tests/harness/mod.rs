//! The devices, dtypes and random inputs that every test walks.
#![allow(dead_code, reason = "each test file uses its part")]

use half::{bf16, f16};
use lattice_core::{Coord, Support};
use lattice_gpu::conv::mma::Multiplied;
use lattice_gpu::{Buffer, Gpu, cubecl};
use lattice_testkit::tolerances::{BF16, F16, F32, Tolerance};

/// The devices that tests walk, one of a kind, of each of which all threads share one stream. `LATTICE_TEST_DEVICE` names one: tests then
/// run there alone. Else every GPU of this machine that the build has a runtime for; what a processor imitates is slow and runs only where it
/// is named.
///
/// # Panics
/// Where the named device is missing.
pub fn devices() -> Vec<(String, Gpu)> {
    lattice_gpu::share_one_stream();
    devices_of_many_streams()
}

/// [`devices`], with a stream for each thread where nobody has called that.
pub fn devices_of_many_streams() -> Vec<(String, Gpu)> {
    let default = cubecl::device::WgpuDeviceKind::default;
    let kinds = [
        ("cuda", cfg!(feature = "cuda"), cubecl::Device::cuda(0)),
        ("rocm", cfg!(feature = "rocm"), cubecl::Device::rocm(0)),
        ("vulkan", cfg!(feature = "vulkan"), cubecl::Device::vulkan(default())),
        ("metal", cfg!(feature = "metal"), cubecl::Device::metal_msl(default())),
        // WGSL on the machine's own graphics interface. With the compilers of the two above, devices come up on these instead.
        (
            "webgpu",
            cfg!(feature = "webgpu") && !cfg!(any(feature = "vulkan", feature = "metal")),
            cubecl::Device::wgpu(default()),
        ),
    ];
    let wanted = std::env::var("LATTICE_TEST_DEVICE").ok();
    let mut devices = Vec::new();
    for (name, compiled, device) in kinds {
        if !compiled || wanted.as_ref().is_some_and(|wanted| wanted != name) {
            continue;
        }
        let client = match device {
            Ok(device) => device.client(),
            Err(reason) => {
                println!("without {name}: {reason}");
                continue;
            }
        };
        let gpu = Gpu::new(client);
        let found = &gpu.client().properties().identity.name;
        if wanted.is_none() && is_software(&gpu) {
            println!("without {name}: {found} is a processor");
            continue;
        }
        println!("on {name}: {found}");
        devices.push((name.to_string(), gpu));
    }
    if devices.is_empty() {
        let missing = wanted.filter(|wanted| wanted != "cpu");
        assert!(missing.is_none(), "LATTICE_TEST_DEVICE={}: no such device", missing.unwrap_or_default());
        println!("no device: nothing was tested");
    }
    devices
}

/// Whether a processor imitates the device.
pub fn is_software(gpu: &Gpu) -> bool {
    gpu.client().properties().identity.physical.is_none()
}

/// The cases that a device is tested with: all, or the first `few` where a processor imitates it, since such a driver takes up to half a
/// minute to compile a kernel. Prints how many it leaves out.
pub fn cases<T>(gpu: &Gpu, what: &str, all: impl IntoIterator<Item = T>, few: usize) -> Vec<T> {
    let mut cases: Vec<T> = all.into_iter().collect();
    if is_software(gpu) && cases.len() > few {
        println!("{what}: {few} of {} cases on a software device", cases.len());
        cases.truncate(few);
    }
    cases
}

/// A dtype under test.
pub trait Element: Multiplied + bytemuck::Pod + Into<f64> {
    const NAME: &'static str;
    const TOLERANCE: Tolerance;
    fn of(value: f64) -> Self;
    /// Whether a device computes with it.
    fn runs_on(gpu: &Gpu) -> bool {
        gpu.client().properties().supports_type(Self::elem_type_native())
    }
}

macro_rules! element {
    ($($ty:ty, $name:literal, $tolerance:ident, $of:expr;)*) => {
        $(impl Element for $ty {
            const NAME: &'static str = $name;
            const TOLERANCE: Tolerance = $tolerance;
            fn of(value: f64) -> Self {
                $of(value)
            }
        })*
    };
}
element! {
    f32, "f32", F32, |v| v as f32;
    f16, "f16", F16, f16::from_f64;
    bf16, "bf16", BF16, bf16::from_f64;
}

/// A small generator of reproducible numbers (splitmix64).
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    /// Uniform in -1..1.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    pub fn values<T: Element>(&mut self, n: usize) -> Vec<T> {
        (0..n).map(|_| T::of(self.unit())).collect()
    }

    /// `n` distinct coordinates of two batch items around the origin, in no order.
    pub fn support(&mut self, n: usize, reach: i32) -> Support {
        let side = 2 * reach as usize;
        let mut seen = std::collections::HashSet::new();
        let mut coords: Vec<Coord> = Vec::new();
        while coords.len() < n {
            let mut axis = || self.below(side) as i32 - reach;
            let [x, y, z] = [axis(), axis(), axis()];
            let coord = [self.below(2) as i32, x, y, z];
            if seen.insert(coord) {
                coords.push(coord);
            }
        }
        Support::try_new(coords).unwrap()
    }
}

pub fn wide<T: Element>(values: &[T]) -> Vec<f64> {
    values.iter().map(|&v| v.into()).collect()
}

pub fn absolute(values: &[f64]) -> Vec<f64> {
    values.iter().map(|v| v.abs()).collect()
}

/// Coordinates on the device.
pub fn upload_support(gpu: &Gpu, support: &Support) -> Buffer {
    gpu.upload(support.coords().as_flattened())
}

/// Every element within the tolerance of `T`, for f32 sums whose absolute terms add up to at most `magnitude`.
#[track_caller]
pub fn assert_close<T: Element>(what: &str, found: &[T], expected: &[f64], magnitude: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{what}: length");
    for (at, ((&found, &expected), &magnitude)) in found.iter().zip(expected).zip(magnitude).enumerate() {
        let found: f64 = found.into();
        let allowed = T::TOLERANCE.atol + T::TOLERANCE.rtol * expected.abs() + F32.rtol * magnitude;
        let close = (found - expected).abs() <= allowed || (found.is_nan() && expected.is_nan());
        assert!(
            close,
            "{what} {}: element {at}: expected {expected}, found {found}, allowed {allowed:e}",
            T::NAME
        );
    }
}
