//! Work that a device was asked for and never did.
//!
//! CubeCL runs what it is asked for on a thread of the device. Where that panics, it writes a line to the log and takes the next task: the launch
//! is gone, nobody is told, and whoever reads what it should have written gets what lay there before. So panics of those threads are counted,
//! by a hook in front of the process's own: of whatever comes while a kernel of this crate is launched for the first time, when it is compiled
//! or read from disk, and of the database that kernels are kept in (turso) whoever launched. What else panics there is not counted: libraries
//! that try kernels out (Burn's autotune) expect some to panic, and catch them.

use std::cell::Cell;
use std::panic::{PanicHookInfo, set_hook, take_hook};
use std::sync::{Once, OnceLock};

use cubecl_common::device::DeviceId;
use cubecl_common::device_handle::DeviceHandle;

use crate::queue::Bell;

/// The first panic that took work with it.
static LOST: OnceLock<String> = OnceLock::new();

thread_local! {
    /// Whether this thread of a device is at a launch that is watched.
    static WATCHED: Cell<bool> = const { Cell::new(false) };
}

/// What a device's thread panicked with when it gave up work of this process, if it did: whatever was computed since then may be wrong. Every
/// launch and every wait for a result of this crate panics from then on; this is for whoever reads results by other ways.
pub fn lost_work() -> Option<&'static str> {
    LOST.get().map(String::as_str)
}

/// # Panics
/// Where a device has lost work.
pub(crate) fn check() {
    if let Some(what) = lost_work() {
        panic!(
            "a device's thread gave up work that it was asked for ({what}): results since then are not to be trusted; start the process again"
        );
    }
}

/// Has panics of devices' threads counted from now on.
pub(crate) fn watch() {
    static ONCE: Once = Once::new();
    // A hook cannot be set while a thread unwinds.
    if std::thread::panicking() {
        return;
    }
    ONCE.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |info| {
            note(info);
            before(info);
        }));
    });
}

/// Has a device asked for something while panics of its thread count.
pub(crate) fn watched(device: DeviceId, ask: impl FnOnce()) {
    // A browser has no such thread.
    if cfg!(target_family = "wasm") {
        return ask();
    }
    /// Ends what it began, whatever becomes of the launch.
    struct Watch(DeviceHandle<Bell>);
    impl Drop for Watch {
        fn drop(&mut self) {
            self.0.submit(|_| WATCHED.set(false));
        }
    }
    let watch = Watch(DeviceHandle::new(device));
    watch.0.submit(|_| WATCHED.set(true));
    ask();
}

fn note(info: &PanicHookInfo<'_>) {
    let file = info.location().map_or("", |place| place.file());
    let thread = std::thread::current();
    let watched = WATCHED.try_with(Cell::get).unwrap_or(false);
    if !thread.name().is_some_and(runs_kernels) || !(watched || is_of_database(file)) {
        return;
    }
    let text = info.payload_as_str().unwrap_or("no message");
    let line = info.location().map_or(0, |place| place.line());
    // The first one is told; it is what those that follow come from.
    let _ = LOST.set(format!("{text} at {file}:{line}"));
}

/// Whether a thread of this name runs kernels: CubeCL's names are `DS`, a stage, and the type and number of the device. Threads that only compile
/// ahead of them have types of their own, and what they do not do the device's does.
fn runs_kernels(name: &str) -> bool {
    let mut parts = name.split('-');
    let stage = parts.next().is_some_and(|stage| stage.starts_with("DS"));
    let kind = parts.next().and_then(|kind| kind.parse::<u16>().ok());
    stage && kind.is_some_and(|kind| !is_compiler(kind))
}

#[cfg(any(feature = "cuda", feature = "vulkan"))]
use crate::ahead::is_compiler;

#[cfg(not(any(feature = "cuda", feature = "vulkan")))]
fn is_compiler(_: u16) -> bool {
    false
}

fn is_of_database(file: &str) -> bool {
    file.contains("turso")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn threads_of_devices_are_known_by_name() {
        assert!(runs_kernels("DSD-0-0") && runs_kernels("DSU-3-1"));
        for other in ["main", "DSD", "DSD-x-0", "kernel-compilers", ""] {
            assert!(!runs_kernels(other), "{other}");
        }
        #[cfg(any(feature = "cuda", feature = "vulkan"))]
        assert!(!runs_kernels("DSD-19456-0"), "a compiler");
        assert!(
            !is_of_database(file!())
                && is_of_database("/home/me/.cargo/registry/src/x/turso_core-0.8.3/storage/wal.rs")
        );
    }

    /// One test, since what is lost stays lost for the process.
    #[test]
    fn work_that_a_device_gives_up_is_told() {
        watch();
        let device = DeviceId::new(0x4BFF, 0);
        let bell = DeviceHandle::<Bell>::new(device);
        let give_up = || bell.submit(|_| panic!("as the database does"));
        let done = || bell.submit_blocking(|_| ()).unwrap();
        give_up();
        std::thread::spawn(|| panic!("on no device's thread")).join().unwrap_err();
        done();
        assert_eq!(lost_work(), None, "nobody watches what panics here");
        check();
        watched(device, || bell.submit(|_| ()));
        give_up();
        std::panic::catch_unwind(|| watched(device, || panic!("as a launch that is refused does")))
            .unwrap_err();
        give_up();
        done();
        assert_eq!(lost_work(), None, "after a launch nobody watches");
        watched(device, give_up);
        done();
        let told = lost_work().unwrap();
        assert!(told.starts_with("as the database does at ") && told.contains("lost.rs:"), "{told}");
        std::panic::catch_unwind(check).unwrap_err();
    }
}
