//! The device that kernels are launched on: its client, what it can do, and buffers.

use std::cell::RefCell;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cubecl::bytes::Bytes;
use cubecl::prelude::*;
use cubecl::server::{Handle, ServerError};
use cubecl_common::device::DeviceId;
use cubecl_environment::future::reader::read_sync;

use crate::arena::{self, Life};
use crate::lost;
use crate::tiles::Halos;

thread_local! {
    /// Kernels that this thread has launched, by device and hash.
    static MET: RefCell<HashSet<(DeviceId, u64)>> = RefCell::default();
}

/// A device's client and the properties that routes ask for.
#[derive(Clone)]
pub struct Gpu {
    client: Client,
}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Gpu({})", self.client.properties().identity.name)
    }
}

/// A device buffer of `len` elements of four bytes, or of the size that its owner says.
#[derive(Clone, Debug)]
pub struct Buffer {
    /// Where it lies.
    pub handle: Handle,
    /// Elements in it.
    pub len: usize,
    /// Number that clones share; 0 where the memory is another library's.
    pub(crate) id: u64,
}

impl Buffer {
    /// The memory of another library, which holds `len` elements.
    pub fn from_handle(handle: Handle, len: usize) -> Self {
        Self { handle, len, id: 0 }
    }

    /// The memory of another library as a buffer of this crate: clones of it count as one buffer. Nobody writes to it from now on.
    pub fn adopt(handle: Handle, len: usize) -> Self {
        Self::own(handle, len)
    }

    fn own(handle: Handle, len: usize) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self { handle, len, id: NEXT.fetch_add(1, Ordering::Relaxed) }
    }

    /// Number of the memory, which no other memory of the process ever has, and where the buffer begins in it.
    pub fn memory(&self) -> (usize, u64) {
        Self::memory_of(&self.handle)
    }

    /// [`Buffer::memory`] of a handle.
    pub fn memory_of(handle: &Handle) -> (usize, u64) {
        (handle.memory.descriptor().id.value, handle.offset_start.unwrap_or(0))
    }

    /// Whether it is a part of a larger memory, which others may hold.
    pub fn is_piece(&self) -> bool {
        // An allocation of its own ends less than one alignment after its last element.
        const PAGE: u64 = 4096;
        self.handle.offset_start.unwrap_or(0) > 0 || self.handle.offset_end.unwrap_or(0) >= PAGE
    }

    /// Whether nobody else holds the memory.
    pub fn is_last(&self) -> bool {
        self.handle.can_mut()
    }

    /// Whether both are clones of one buffer that this crate made.
    pub(crate) fn same_as(&self, other: &Self) -> bool {
        self.id != 0 && self.id == other.id
    }

    /// The first `len` elements.
    pub(crate) fn first(&self, len: usize) -> Self {
        debug_assert!(len <= self.len, "the beginning of a buffer lies inside it");
        Self { handle: self.handle.clone(), len, id: 0 }
    }

    /// `len` elements of four bytes from one on, as a buffer of its own. The first one must lie where a buffer may begin on the device: every
    /// 128th does on all.
    pub(crate) fn part(&self, first: usize, len: usize) -> Self {
        debug_assert!(first + len <= self.len, "a part of a buffer lies inside it");
        if (first, len) == (0, self.len) {
            return self.clone();
        }
        let rest = self.handle.size_in_used() - 4 * (first + len) as u64;
        Self::own(self.handle.clone().offset_start(4 * first as u64).offset_end(rest), len)
    }

    /// The buffer as a kernel argument, as vectors of `lanes` elements.
    pub(crate) fn arg(&self, lanes: usize) -> BufferArg {
        debug_assert!(self.len.is_multiple_of(lanes), "a buffer read as vectors holds whole ones");
        #[cfg(any(feature = "cuda", feature = "vulkan", feature = "check-translations"))]
        if let Some(handle) = crate::stand_in::stand_in() {
            // SAFETY: a launch that is shown to a compiler has no cubes or never runs, so nobody reads or writes what stands for its buffers.
            return unsafe { BufferArg::from_raw_parts(handle, self.len / lanes) };
        }
        // SAFETY: `len` elements were allocated for `handle`, so `len / lanes` vectors lie inside it.
        unsafe { BufferArg::from_raw_parts(self.handle.clone(), self.len / lanes) }
    }
}

impl Gpu {
    /// The device behind a client.
    pub fn new(client: Client) -> Self {
        lost::watch();
        Self { client }
    }

    /// The client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Launches a kernel by so many cubes: `start` does, on a client, with arguments that it makes of buffers. What it is compiled for makes
    /// up `kernel`, from its name on: where it is met for the first time, other threads may compile it before the device's own comes to it.
    ///
    /// # Panics
    /// Where a device of the process has lost work.
    pub(crate) fn launch(&self, cubes: CubeCount, kernel: impl Hash, start: impl Fn(&Client, CubeCount)) {
        lost::check();
        let mut hasher = DefaultHasher::new();
        kernel.hash(&mut hasher);
        let hash = hasher.finish();
        if !MET.with_borrow_mut(|met| met.insert((self.client.service_id().device, hash))) {
            return start(&self.client, cubes);
        }
        #[cfg(feature = "check-translations")]
        crate::translate::check(&self.client, &start);
        #[cfg(any(feature = "cuda", feature = "vulkan"))]
        crate::ahead::before_launch(&self.client, hash, &start);
        lost::watched(self.client.service_id().device, || start(&self.client, cubes));
    }

    /// Takes a large block of memory from the driver, which stays for later buffers: a 128th of the device's, or nothing where it does
    /// not say how much it has. To be called once, before the first buffer that lives long.
    ///
    /// CubeCL's pages are as large as the largest buffer so far. Each time one outgrows them, those that came before stay while
    /// anything lives in them, and every later allocation walks all that lives there: half of the host's time in a forward pass.
    pub fn reserve_room(&self) {
        let memory = &self.client.properties().memory;
        if let Some(all) = memory.max_memory() {
            let bytes = (all / 128).min(memory.max_page_size);
            drop(self.client.empty(bytes as usize));
        }
    }

    /// Copies elements of four bytes to the device.
    pub fn upload<T: bytemuck::Pod>(&self, values: &[T]) -> Buffer {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        // A buffer without bytes cannot be bound.
        let handle = match bytes.is_empty() {
            true => self.client.empty(16),
            false => self.client.create_from_slice(bytes),
        };
        Buffer::own(handle, values.len())
    }

    /// Room for `len` elements of `size` bytes, not initialised.
    pub fn empty(&self, len: usize, size: usize) -> Buffer {
        self.room(len, size, Life::Lasting)
    }

    /// Room for `len` elements of `size` bytes, not initialised, that lives so long.
    pub(crate) fn room(&self, len: usize, size: usize, life: Life) -> Buffer {
        Buffer::own(arena::room(&self.client, (len * size).max(16), life), len)
    }

    /// At least `n` counters at zero, of this thread, for a kernel that sets those it uses back to zero.
    pub(crate) fn counters(&self, n: usize) -> Buffer {
        arena::counters(self, n)
    }

    /// `len` elements of four bytes at zero, the same ones each time that this thread asks for them under a key: each key writes to
    /// a place of its own in them, so that the rest stays zero.
    pub(crate) fn zeroed_apart(&self, len: usize, key: (usize, usize)) -> Buffer {
        arena::zeroed_apart(self, len, key)
    }

    /// Whether cubes of one launch may hand each other what they wrote.
    pub fn is_coherent(&self) -> bool {
        self.client.properties().features.device_memory_scope
    }

    /// Copies a buffer to the host.
    ///
    /// # Panics
    /// Where the device fails, or one of the process has lost work.
    pub fn download<T: bytemuck::Pod>(&self, buffer: &Buffer) -> Vec<T> {
        let bytes = self.ask(&[buffer]).wait().remove(0);
        let values = bytes.chunks_exact(size_of::<T>().max(1)).map(bytemuck::pod_read_unaligned);
        values.take(buffer.len).collect()
    }

    /// Copies buffers of 32-bit words to the host, waiting once for all of them.
    ///
    /// # Panics
    /// Where the device fails, or one of the process has lost work.
    pub fn download_all(&self, buffers: &[&Buffer]) -> Vec<Vec<u32>> {
        self.ask(buffers).words(buffers)
    }

    /// Has buffers copied to the host as they are once the launches so far are done, with counts that somebody asked to come along. Launches
    /// that follow are not waited for.
    pub(crate) fn ask(&self, buffers: &[&Buffer]) -> Answer<'_> {
        let uncounted = arena::take_uncounted(&self.client);
        let counters = uncounted.iter().map(|halos| halos.counters());
        let handles = buffers.iter().copied().chain(counters).map(|buffer| buffer.handle.clone()).collect();
        let bytes = Box::pin(self.client.read_async(handles));
        Answer { client: &self.client, bytes, uncounted }
    }

    /// Hands what was asked for so far over to the device.
    pub(crate) fn hand_over(&self) {
        arena::hand_over(&self.client);
    }

    /// Cubes for `units` work items, `per_cube` a cube, spread over two axes where one would pass 65,535.
    pub(crate) fn cubes(units: usize, per_cube: usize) -> CubeCount {
        let cubes = units.div_ceil(per_cube).max(1);
        match cubes <= 65_535 {
            true => CubeCount::Static(cubes as u32, 1, 1),
            false => CubeCount::Static(65_535, cubes.div_ceil(65_535) as u32, 1),
        }
    }
}

/// Buffers that are on their way to the host, and counts that come along.
pub(crate) struct Answer<'a> {
    client: &'a Client,
    bytes: Pin<Box<dyn Future<Output = Result<Vec<Bytes>, ServerError>> + Send + 'a>>,
    uncounted: Vec<Arc<Halos>>,
}

impl Answer<'_> {
    /// Waits for the 32-bit words of the buffers that were asked for.
    ///
    /// # Panics
    /// Where the device fails, or one of the process has lost work.
    pub(crate) fn words(self, buffers: &[&Buffer]) -> Vec<Vec<u32>> {
        let found = self.wait();
        found.iter().zip(buffers).map(|(bytes, buffer)| words(bytes).take(buffer.len).collect()).collect()
    }

    /// Waits for the bytes of each buffer.
    ///
    /// # Panics
    /// Where the device fails, or one of the process has lost work.
    fn wait(self) -> Vec<Bytes> {
        let Self { client, bytes, uncounted } = self;
        let mut found = read_sync(bytes).expect("the device answers");
        lost::check();
        arena::waited(client);
        let counts = found.split_off(found.len() - uncounted.len());
        for (halos, bytes) in uncounted.iter().zip(counts) {
            halos.learn(&words(&bytes).collect::<Vec<_>>());
        }
        found
    }
}

/// Words of 32 bits.
fn words(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.as_chunks::<4>().0.iter().map(|word| u32::from_ne_bytes(*word))
}
