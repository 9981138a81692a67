//! Kernels that are compiled before the thread of their device comes to them.
//!
//! CubeCL compiles a kernel when its first launch comes up, on the one thread of its device, and a network has dozens of them. The host is
//! ahead of that thread by then. So whoever launches a kernel for the first time in a process first shows the launch to a compiler: a second
//! CubeCL server of the same device, on a thread of its own, which compiles the kernel, finds that the launch is of no cubes, and touches no
//! buffer. What it compiled lies in the cache of kernels (and the driver's, which assembles), where the device's thread finds it: that one
//! waits for the compiler before it takes the launch. Compilers serve all devices of a process; they start when a kernel is met that this
//! build has not compiled on this machine before, and sleep when there was nothing to do for a while. They never end: a server's thread
//! takes its database down after what that needs is gone, which may abort the process (CubeCL 0.11 with turso 0.8), and awake it looks for work
//! every 150 microseconds.
//!
//! Only for CUDA and for Vulkan's SPIR-V, and only where kernels are kept: elsewhere there is nowhere to find them.

use std::any::TypeId;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use cubecl::prelude::*;
use cubecl::server::Handle;
use cubecl_common::device::DeviceId;
use cubecl_common::device_handle::DeviceHandle;
use cubecl_common::hash::{StableHash, StableHasher};
use cubecl_environment::persistence::Store;
use cubecl_environment::stream::StreamId;
use cubecl_server::compiler::{build_id_hash, compilation_store};
use cubecl_server::runtime::Runtime;

use crate::queue::Bell;
use crate::stand_in::in_place_of_buffers;

/// Compilers at most; more of them wait for the driver and for memory.
const MOST: usize = 6;
/// Kernels that a compiler holds: the one at work and the next. With more, whoever asks would wait for it.
const HELD: usize = 2;
/// What sets the servers of compilers apart from those that run kernels: bits of a device's type that CubeCL leaves to its users. Each backend
/// has so many.
const TYPE_OF_FIRST: u16 = 0x4C00;
const TYPES: u16 = 0x10;
/// How long compilers stay awake without work.
const IDLE: Duration = Duration::from_secs(3);
/// How long a device's thread waits for a compiler before it compiles for itself, and the end of a process for all of them: a compiler
/// must not run while its tables are taken down.
const PATIENCE: Duration = Duration::from_secs(60);

/// A backend whose kernels compile ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Backend {
    #[cfg(feature = "cuda")]
    Cuda,
    #[cfg(feature = "vulkan")]
    Vulkan,
}

impl Backend {
    const ALL: &[Self] = &[
        #[cfg(feature = "cuda")]
        Self::Cuda,
        #[cfg(feature = "vulkan")]
        Self::Vulkan,
    ];

    /// That of a client, where it is one of them.
    fn of(client: &Client) -> Option<Self> {
        let is = |backend: &&Self| match backend {
            #[cfg(feature = "cuda")]
            Self::Cuda => client.service_id().service == TypeId::of::<CudaServer>(),
            #[cfg(feature = "vulkan")]
            Self::Vulkan => {
                client.service_id().service == TypeId::of::<VulkanServer>() && client.name() == "wgpu<spirv>"
            }
        };
        Self::ALL.iter().find(is).copied()
    }

    /// What its kernels are kept under.
    fn name(self) -> &'static str {
        match self {
            #[cfg(feature = "cuda")]
            Self::Cuda => "cuda",
            #[cfg(feature = "vulkan")]
            Self::Vulkan => "vulkan",
        }
    }

    /// The device whose server is a compiler, for a device of this index. CubeCL takes Vulkan's of a type that it does not know for the default one.
    fn compiler(self, number: u16, index: u16) -> DeviceId {
        DeviceId::new(TYPE_OF_FIRST + self as u16 * TYPES + number, index)
    }

    fn load(self, device: DeviceId) -> Client {
        match self {
            #[cfg(feature = "cuda")]
            Self::Cuda => Client::load::<CudaServer>(device),
            #[cfg(feature = "vulkan")]
            Self::Vulkan => Client::load::<VulkanServer>(device),
        }
    }
}

#[cfg(feature = "cuda")]
type CudaServer = <cubecl::cuda::CudaRuntime as Runtime>::Server;
#[cfg(feature = "vulkan")]
type VulkanServer = <cubecl::wgpu::WgpuRuntime as Runtime>::Server;

/// Another server of a device, which compiles.
#[derive(Clone)]
struct Compiler {
    client: Client,
    bell: DeviceHandle<Bell>,
    /// Words at zero: the number of cubes, and in place of every buffer of a launch.
    nothing: Handle,
    /// Kernels that it holds.
    holds: Arc<AtomicUsize>,
    bed: Arc<Bed>,
}

/// Where the thread of a server sleeps.
#[derive(Default)]
struct Bed {
    asleep: Mutex<bool>,
    woken: Condvar,
}

impl Bed {
    fn asleep(&self) -> MutexGuard<'_, bool> {
        // A flag is whole whoever panicked.
        self.asleep.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the thread that the bell reaches to sleep, behind what it was asked for.
    fn lie_down(self: &Arc<Self>, bell: &DeviceHandle<Bell>) {
        if std::mem::replace(&mut *self.asleep(), true) {
            return;
        }
        let bed = self.clone();
        bell.submit(move |_| {
            // Awake, whoever panicked meanwhile.
            drop(bed.woken.wait_while(bed.asleep(), |asleep| *asleep));
        });
        bell.flush_queue();
    }

    fn wake(&self) {
        *self.asleep() = false;
        self.woken.notify_all();
    }
}

#[derive(Default)]
struct Compilers {
    /// Kernels that this build has compiled on this machine, now or before; `None` where none are kept.
    known: Option<Store<StableHash, bool>>,
    /// Those that compilers hold, by their hash in this process.
    open: HashMap<u64, Arc<Answer>>,
    ready: Vec<Compiler>,
    /// Whether a thread starts them and puts them to sleep, and whether it is starting them.
    kept: bool,
    starting: bool,
    /// How many ask for quiet.
    quiet: usize,
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

fn compilers(backend: Backend) -> MutexGuard<'static, Compilers> {
    static ALL: [OnceLock<Mutex<Compilers>>; Backend::ALL.len()] =
        [const { OnceLock::new() }; Backend::ALL.len()];
    let all = ALL[backend as usize].get_or_init(|| {
        let known = compilation_store("lattice-met", backend.name());
        Mutex::new(Compilers { known, ..Compilers::default() })
    });
    // Whoever panicked while it held the lock has left a list that lacks an entry at most.
    all.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Threads to compile on beside that of the device and the host's.
fn most() -> u16 {
    std::thread::available_parallelism().map_or(0, |n| (n.get() / 2).min(MOST)) as u16
}

/// Kernels that were compiled in this process before the thread of their device came to them.
pub fn compiled_ahead() -> usize {
    DONE.load(Ordering::Acquire)
}

/// Whether kernels are being compiled.
pub(crate) fn is_compiling() -> bool {
    OPEN.load(Ordering::Relaxed) > 0
}

/// Starts a launch on a client, by so many cubes, all of whose buffers are arguments that [`Buffer::arg`](crate::Buffer) makes inside of it.
type Start<'a> = &'a dyn Fn(&Client, CubeCount);

/// Shows a launch to a compiler, before it comes, whose kernel a thread has not launched before, and has the device wait for that. The hash tells
/// the kernel from others.
pub(crate) fn before_launch(client: &Client, hash: u64, start: Start<'_>) {
    let Some(backend) = Backend::of(client).filter(|_| !client.is_capturing()) else {
        return;
    };
    if let Some(answer) = shown(backend, client, hash, start) {
        DeviceHandle::<Bell>::new(client.service_id().device).submit(move |_| answer.wait());
    }
}

/// Whether devices of a type run no kernels, but compile them.
pub(crate) fn is_compiler(kind: u16) -> bool {
    (TYPE_OF_FIRST..TYPE_OF_FIRST + Backend::ALL.len() as u16 * TYPES).contains(&kind)
}

/// Shows a launch to a compiler where nobody has, and says whom to wait for; nobody for a kernel that was compiled before, or where all
/// compilers have enough to do.
fn shown(backend: Backend, client: &Client, hash: u64, start: Start<'_>) -> Option<Arc<Answer>> {
    let stable = StableHasher::hash_one(&(build_id_hash(), &client.properties().identity.name, hash));
    let mut all = compilers(backend);
    if let Some(answer) = all.open.get(&hash) {
        return Some(answer.clone());
    }
    if all.known.as_mut()?.get_mut(&stable).is_some() || all.quiet > 0 {
        return None;
    }
    all.asked = Some(Instant::now());
    if !std::mem::replace(&mut all.kept, true) {
        keep(backend, client);
    }
    let least = all.ready.iter().min_by_key(|compiler| compiler.holds.load(Ordering::Acquire));
    let Some(compiler) = least.filter(|compiler| compiler.holds.load(Ordering::Acquire) < HELD).cloned()
    else {
        // The device's own thread compiles this one.
        all.know(stable);
        return None;
    };
    let answer = Arc::new(Answer::default());
    all.open.insert(hash, answer.clone());
    // Whoever puts compilers to sleep looks for open kernels under the lock.
    OPEN.fetch_add(1, Ordering::AcqRel);
    compiler.holds.fetch_add(1, Ordering::AcqRel);
    compiler.bed.wake();
    drop(all);
    let open = Open { backend, hash, stable, answer: answer.clone(), holds: compiler.holds };
    in_place_of_buffers(&compiler.nothing, || {
        start(&compiler.client, CubeCount::Dynamic(compiler.nothing.clone().binding()));
    });
    compiler.bell.submit(move |_| {
        DONE.fetch_add(1, Ordering::AcqRel);
        drop(open);
    });
    compiler.bell.flush_queue();
    Some(answer)
}

/// A kernel that a compiler holds. When it goes, done or given up, whoever waits for it goes on.
struct Open {
    backend: Backend,
    hash: u64,
    stable: StableHash,
    answer: Arc<Answer>,
    holds: Arc<AtomicUsize>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.answer.give();
        let mut all = compilers(self.backend);
        all.know(self.stable);
        all.open.remove(&self.hash);
        drop(all);
        self.holds.fetch_sub(1, Ordering::AcqRel);
        OPEN.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What a compiler says when it is done with a kernel.
#[derive(Default)]
struct Answer(Mutex<bool>, Condvar);

impl Answer {
    fn give(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.1.notify_all();
    }

    /// Waits for it, or until patience ends: the launch behind this finds its kernel or compiles it.
    fn wait(&self) {
        let given = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = self.1.wait_timeout_while(given, PATIENCE, |given| !*given);
    }
}

/// Starts compilers for the device of a client where there are none, and puts them to sleep when nothing was asked for a while.
fn keep(backend: Backend, client: &Client) {
    static AT_END: OnceLock<()> = OnceLock::new();
    AT_END.get_or_init(|| {
        // SAFETY: `wait_for_compilers` reads an atomic and sleeps; it neither unwinds nor uses what the end of a process takes down.
        unsafe { libc::atexit(wait_for_compilers) };
    });
    let (index, properties) = (client.service_id().device.index_id, client.properties().checksum());
    let work = move || {
        let first = compilers(backend).ready.len() as u16;
        for number in first..most() {
            {
                let mut all = compilers(backend);
                all.starting = all.quiet == 0;
                if !all.starting {
                    break;
                }
            }
            let device = backend.compiler(number, index);
            let client = backend.load(device);
            let nothing = client.create_from_slice(&[0u8; 16]);
            let bell = DeviceHandle::new(device);
            let (holds, bed) = (Arc::default(), Arc::default());
            let mut all = compilers(backend);
            all.starting = false;
            if client.properties().checksum() != properties {
                // Another device, whose kernels nobody finds.
                all.known = None;
                return;
            }
            all.ready.push(Compiler { client, bell, nothing, holds, bed });
        }
        loop {
            std::thread::sleep(IDLE / 6);
            let mut all = compilers(backend);
            let idle = all.asked.is_none_or(|asked| asked.elapsed() > IDLE);
            if idle && all.open.is_empty() {
                all.ready.iter().for_each(|compiler| compiler.bed.lie_down(&compiler.bell));
                all.kept = false;
                return;
            }
        }
    };
    // Its own stream would count among those that work is submitted to.
    let work = move || StreamId { value: 0 }.executes(work);
    // Where the system has no thread to give, the device's own compiles.
    let _ = std::thread::Builder::new().name("kernel-compilers".into()).spawn(work);
}

/// Does some work while no compiler is at work and none starts: CUDA refuses what they ask of it as long as any thread records a graph, and
/// drops the record. Kernels that are met meanwhile are compiled by the thread of their device.
pub fn without_compilers<T>(work: impl FnOnce() -> T) -> T {
    struct Quiet;
    impl Drop for Quiet {
        fn drop(&mut self) {
            Backend::ALL.iter().for_each(|&backend| compilers(backend).quiet -= 1);
        }
    }
    Backend::ALL.iter().for_each(|&backend| compilers(backend).quiet += 1);
    let _quiet = Quiet;
    while is_compiling() || Backend::ALL.iter().any(|&backend| compilers(backend).starting) {
        std::thread::sleep(Duration::from_millis(1));
    }
    work()
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
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn whoever_waits_for_a_kernel_goes_on_when_it_is_given_up() {
        let (answer, holds) = (Arc::new(Answer::default()), Arc::new(AtomicUsize::new(1)));
        OPEN.fetch_add(1, Ordering::AcqRel);
        let backend = Backend::ALL[0];
        compilers(backend).open.insert(7, answer.clone());
        let open = Open { backend, hash: 7, stable: 7, answer: answer.clone(), holds: holds.clone() };
        let waiting = std::thread::spawn(move || {
            let since = Instant::now();
            answer.wait();
            since.elapsed()
        });
        let stopped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _open = open;
            panic!("as a launch that is refused does")
        }));
        assert!(stopped.is_err());
        assert!(waiting.join().unwrap() < PATIENCE / 2);
        assert_eq!((holds.load(Ordering::Acquire), compilers(backend).open.len()), (0, 0));
    }

    #[test]
    fn a_thread_that_sleeps_does_its_work_when_it_is_woken() {
        let bell = DeviceHandle::<Bell>::new(DeviceId::new(TYPE_OF_FIRST + 0x100, 0));
        let (bed, done) = (Arc::new(Bed::default()), Arc::new(AtomicUsize::new(0)));
        let work = || {
            let done = done.clone();
            bell.submit(move |_| {
                done.fetch_add(1, Ordering::AcqRel);
            });
            bell.flush_queue();
        };
        let becomes = |expected: usize| {
            let since = Instant::now();
            while done.load(Ordering::Acquire) != expected && since.elapsed() < PATIENCE / 2 {
                std::thread::sleep(Duration::from_millis(1));
            }
            assert_eq!(done.load(Ordering::Acquire), expected);
        };
        for round in 0..3 {
            // Twice is once.
            bed.lie_down(&bell);
            bed.lie_down(&bell);
            work();
            std::thread::sleep(Duration::from_millis(50));
            assert_eq!(done.load(Ordering::Acquire), 2 * round, "it sleeps");
            bed.wake();
            becomes(2 * round + 1);
            work();
            becomes(2 * round + 2);
        }
    }

    #[test]
    fn quiet_ends_with_the_work_it_was_asked_for() {
        let inside = || compilers(Backend::ALL[0]).quiet;
        assert_eq!(without_compilers(|| without_compilers(inside)), 2);
        let stopped = std::panic::catch_unwind(|| without_compilers(|| panic!("as some work does")));
        assert!(stopped.is_err());
        assert_eq!(compilers(Backend::ALL[0]).quiet, 0);
    }
}
