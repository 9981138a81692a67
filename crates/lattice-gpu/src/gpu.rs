//! The device that kernels are launched on: its client, what it can do, and buffers.

use std::sync::atomic::{AtomicU64, Ordering};

use cubecl::prelude::*;
use cubecl::server::Handle;

/// A device's client and the properties that routes ask for.
#[derive(Clone)]
pub struct Gpu {
    client: Client,
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

    fn own(handle: Handle, len: usize) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self { handle, len, id: NEXT.fetch_add(1, Ordering::Relaxed) }
    }

    /// Whether both are clones of one buffer that this crate made.
    pub(crate) fn same_as(&self, other: &Self) -> bool {
        self.id != 0 && self.id == other.id
    }

    /// The buffer as a kernel argument, as vectors of `lanes` elements.
    pub(crate) fn arg(&self, lanes: usize) -> BufferArg {
        debug_assert!(self.len.is_multiple_of(lanes), "a buffer read as vectors holds whole ones");
        // SAFETY: `len` elements were allocated for `handle`, so `len / lanes` vectors lie inside it.
        unsafe { BufferArg::from_raw_parts(self.handle.clone(), self.len / lanes) }
    }
}

impl Gpu {
    /// The device behind a client.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// The client.
    pub fn client(&self) -> &Client {
        &self.client
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
        Buffer::own(self.client.empty((len * size).max(16)), len)
    }

    /// Copies a buffer to the host.
    ///
    /// # Panics
    /// Where the device fails.
    pub fn download<T: bytemuck::Pod>(&self, buffer: &Buffer) -> Vec<T> {
        let bytes = self.client.read_one_unchecked(buffer.handle.clone());
        let values = bytes.chunks_exact(size_of::<T>().max(1)).map(bytemuck::pod_read_unaligned);
        values.take(buffer.len).collect()
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
