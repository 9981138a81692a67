//! Kernels that are compiled before the thread of their device comes to them.
//!
//! CubeCL compiles a kernel when its first launch comes up, on the one thread of its device, and a network has dozens of them. The host is
//! ahead of that thread by then. So whoever launches a kernel for the first time in a process first shows the launch to a compiler: a second
//! CubeCL server of the same device, on a thread of its own, which compiles the kernel, finds that the launch is of no cubes, and touches no
//! buffer. What it compiled lies in the cache of kernels (and the driver's, which assembles), where the device's thread finds it: that one
//! waits for the compiler before it takes the launch. Compilers serve all devices of a process; they start when a kernel is met that this
//! build has not compiled on this machine before, and end when there was nothing to do for a while.
//!
//! Only for CUDA, and only where kernels are kept: elsewhere there is nowhere to find them.

use std::cell::RefCell;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use cubecl::cuda::CudaRuntime;
use cubecl::prelude::*;
use cubecl::server::Handle;
use cubecl_common::device::DeviceId;
use cubecl_common::device_handle::DeviceHandle;
use cubecl_common::hash::{StableHash, StableHasher};
use cubecl_environment::persistence::Store;
use cubecl_server::compiler::{build_id_hash, compilation_store};
use cubecl_server::runtime::Runtime;

use crate::queue::Bell;

/// Compilers at most; more of them wait for the driver and for memory.
const MOST: usize = 12;
/// Kernels that a compiler holds: the one at work and the next. With more, whoever asks would wait for it.
const HELD: usize = 2;
/// What sets the servers of compilers apart from those that run kernels: bits of a device's type that CubeCL leaves to its users.
const TYPE_OF_FIRST: u16 = 0x4C00;
/// How long compilers stay without work.
const IDLE: Duration = Duration::from_secs(3);
/// How long a device's thread waits for a compiler before it compiles for itself, and the end of a process for all of them: a compiler
/// must not run while its tables are taken down.
const PATIENCE: Duration = Duration::from_secs(60);

type Server = <CudaRuntime as Runtime>::Server;

/// Another server of a device, which compiles.
#[derive(Clone)]
struct Compiler {
    client: Client,
    bell: DeviceHandle<Bell>,
    /// Words at zero: the number of cubes, and in place of every buffer of a launch.
    nothing: Handle,
    /// Kernels that it holds.
    holds: Arc<AtomicUsize>,
}

#[derive(Default)]
struct Compilers {
    /// Kernels that this build has compiled on this machine, now or before; `None` where none are kept.
    known: Option<Store<StableHash, bool>>,
    ready: Vec<Compiler>,
    /// Whether a thread starts and ends them.
    kept: bool,
    asked: Option<Instant>,
}

impl Compilers {
    /// Says of a kernel that it is compiled, or about to be.
    fn know(&mut self, hash: StableHash) {
        if let Some(known) = self.known.as_mut() {
            // Where another process was faster, the entry is there.
            let _ = known.insert(hash, true);
        }
    }
}

/// Kernels that compilers hold.
static OPEN: AtomicUsize = AtomicUsize::new(0);
/// Kernels that compilers have compiled.
static DONE: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Hashes of the kernels that this thread has launched.
    static MET: RefCell<HashSet<u64>> = RefCell::default();
    /// What stands for every buffer while a launch is shown to a compiler.
    static STAND_IN: RefCell<Option<Handle>> = const { RefCell::new(None) };
}

fn compilers() -> MutexGuard<'static, Compilers> {
    static ALL: OnceLock<Mutex<Compilers>> = OnceLock::new();
    let all = ALL.get_or_init(|| {
        Mutex::new(Compilers { known: compilation_store("lattice-met", "cuda"), ..Compilers::default() })
    });
    // Whoever panicked while it held the lock has left a list that lacks an entry at most.
    all.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Threads to compile on beside that of the device and the host's.
fn most() -> u16 {
    std::thread::available_parallelism().map_or(0, |n| (3 * n.get() / 4).min(MOST)) as u16
}

/// Kernels that were compiled in this process before the thread of their device came to them.
pub fn compiled_ahead() -> usize {
    DONE.load(Ordering::Acquire)
}

/// Whether kernels are being compiled.
pub(crate) fn is_compiling() -> bool {
    OPEN.load(Ordering::Relaxed) > 0
}

/// The handle that stands for every buffer of a launch which is shown to a compiler on this thread.
pub(crate) fn stand_in() -> Option<Handle> {
    STAND_IN.with_borrow(Clone::clone)
}

/// Shows a launch to a compiler where its kernel, told from others by `kernel`, is met for the first time, and has the device wait for that.
/// To be called before the launch. `start` launches it on a client, by so many cubes, all of whose buffers are arguments that
/// [`Buffer::arg`](crate::Buffer) made inside of it.
pub(crate) fn show(client: &Client, kernel: &impl Hash, start: &dyn Fn(&Client, CubeCount)) {
    let service = client.service_id();
    if service.service != std::any::TypeId::of::<Server>() {
        return;
    }
    let mut hasher = DefaultHasher::new();
    kernel.hash(&mut hasher);
    let hash = hasher.finish();
    if !MET.with_borrow_mut(|met| met.insert(hash)) || client.is_capturing() {
        return;
    }
    let hash = StableHasher::hash_one(&(build_id_hash(), &client.properties().identity.name, hash));
    let mut all = compilers();
    if all.known.as_mut().is_none_or(|known| known.get_mut(&hash).is_some()) {
        return;
    }
    all.asked = Some(Instant::now());
    if !std::mem::replace(&mut all.kept, true) {
        keep(service.device.index_id);
    }
    let least = all.ready.iter().min_by_key(|compiler| compiler.holds.load(Ordering::Acquire));
    let Some(compiler) = least.filter(|compiler| compiler.holds.load(Ordering::Acquire) < HELD).cloned()
    else {
        // The device's own thread compiles this one.
        all.know(hash);
        return;
    };
    drop(all);
    OPEN.fetch_add(1, Ordering::AcqRel);
    compiler.holds.fetch_add(1, Ordering::AcqRel);
    {
        STAND_IN.set(Some(compiler.nothing.clone()));
        let _showing = Showing;
        start(&compiler.client, CubeCount::Dynamic(compiler.nothing.binding()));
    }
    let (answer, answered) = std::sync::mpsc::channel();
    let holds = compiler.holds;
    compiler.bell.submit(move |_| {
        // Nobody hears it where the device has lost its patience.
        let _ = answer.send(());
        compilers().know(hash);
        DONE.fetch_add(1, Ordering::AcqRel);
        holds.fetch_sub(1, Ordering::AcqRel);
        OPEN.fetch_sub(1, Ordering::AcqRel);
    });
    compiler.bell.flush_queue();
    DeviceHandle::<Bell>::new(service.device).submit(move |_| {
        // Whatever comes of it, the launch behind this finds its kernel or compiles it.
        let _ = answered.recv_timeout(PATIENCE);
    });
}

/// While a launch is shown, and no longer, whatever becomes of it.
struct Showing;

impl Drop for Showing {
    fn drop(&mut self) {
        STAND_IN.set(None);
    }
}

/// Starts compilers for a device, and ends them when nothing was asked for a while.
fn keep(index: u16) {
    static AT_END: OnceLock<()> = OnceLock::new();
    AT_END.get_or_init(|| {
        // SAFETY: `wait_for_compilers` reads an atomic and sleeps; it neither unwinds nor uses what the end of a process takes down.
        unsafe { libc::atexit(wait_for_compilers) };
    });
    let work = move || {
        for number in 0..most() {
            let device = DeviceId::new(TYPE_OF_FIRST + number, index);
            let client = Client::load::<Server>(device);
            let nothing = client.create_from_slice(&[0u8; 16]);
            let (bell, holds) = (DeviceHandle::new(device), Arc::default());
            compilers().ready.push(Compiler { client, bell, nothing, holds });
        }
        loop {
            std::thread::sleep(IDLE / 6);
            let mut all = compilers();
            if !is_compiling() && all.asked.is_none_or(|asked| asked.elapsed() > IDLE) {
                let ended: Vec<DeviceId> =
                    all.ready.drain(..).map(|compiler| compiler.bell.device_id()).collect();
                drop(all);
                for device in ended {
                    DeviceHandle::<Bell>::shutdown(device);
                }
                compilers().kept = false;
                return;
            }
        }
    };
    // Where the system has no thread to give, the device's own compiles.
    let _ = std::thread::Builder::new().name("kernel-compilers".into()).spawn(work);
}

/// At the end of a process: waits until no kernel is being compiled.
extern "C" fn wait_for_compilers() {
    let since = Instant::now();
    while is_compiling() && since.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_stands_in_for_buffers_outside_of_a_showing() {
        assert!(stand_in().is_none());
        assert!(!is_compiling());
    }
}
