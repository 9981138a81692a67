//! Buffers cut from large ones.
//!
//! To find room for a buffer CubeCL walks every buffer of its page twice, and moves the numbers of all that follow when it cuts one off:
//! with the hundreds of buffers of a training step, two thirds of what launching it costs. Here a buffer is the next piece of a
//! block, and a block whose pieces are all gone is cut anew. Blocks belong to a thread, as CubeCL's streams do, so that
//! pieces are used in the order they were cut.
//!
//! Pieces that others may get are cut only [where all work goes to one stream](crate::stream::is_the_only_one): a stream waits for what
//! another one wrote by when its memory was allocated, which of a block is long before.

use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use cubecl::prelude::*;
use cubecl::server::Handle;

use crate::gpu::{Buffer, Gpu};
use crate::queue::Queue;
use crate::stream;
use crate::tiles::Halos;

/// How long a buffer lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// As long as its owner likes. It keeps a block from being used again, but all blocks together are a small part of the device's memory.
    Lasting,
    /// Until the launches that follow have been asked for. One that is kept longer keeps a large block from being used again.
    Passing,
    /// Much longer than what is made around it, or as long as something is known by its memory: an allocation of its own.
    Apart,
}

/// Longest piece of a small block, in bytes.
const SMALL: usize = 32 << 10;
/// Bytes of a block of passing pieces, and of the longest of them.
const PASSING: [usize; 2] = [64 << 20, 16 << 20];
/// Pieces that a block of larger ones holds at least, and blocks of them that a device's memory holds at least.
const LEAST_PIECES: usize = 8;
const LEAST_BLOCKS: usize = 1024;
/// Part of a device's memory that blocks of lasting pieces take at most: who keeps a piece keeps its block.
const MOST_PART: usize = 16;

/// Bytes of all blocks of lasting pieces of the process, over all threads and devices.
static LASTING_BYTES: AtomicUsize = AtomicUsize::new(0);

/// Pieces are cut from the front.
struct Block {
    whole: Handle,
    bytes: usize,
    used: usize,
}

impl Block {
    fn takes(&self, bytes: usize) -> bool {
        self.used + bytes <= self.bytes
    }

    /// Whether the device has given the memory, or may still do so: where it was out of memory, launches have come by and it has not.
    fn is_there(&self) -> bool {
        let memory = &self.whole.memory;
        memory.descriptor().is_allocated() || memory.is_bound()
    }

    /// Whether nobody holds a piece. Where others than its own thread may have used it (`anywhere`), none of their launches may wait either.
    fn is_free(&self, anywhere: bool) -> bool {
        self.whole.can_mut() && !(anywhere && self.whole.memory.is_bound())
    }

    fn cut(&mut self, bytes: usize, alignment: usize) -> Handle {
        let start = self.used;
        self.used = (start + bytes).next_multiple_of(alignment);
        self.whole.clone().offset_start(start as u64).offset_end((self.bytes - start - bytes) as u64)
    }
}

/// Blocks of one size; pieces are cut from the one at `open`.
struct Pool {
    blocks: Vec<Block>,
    open: usize,
    /// Whether pieces may go to other threads, and blocks count among [`LASTING_BYTES`].
    lasting: bool,
}

impl Pool {
    /// A piece of the open block, else of one that is free again, else of a new one where `most` bytes are not reached.
    fn cut(&mut self, client: &Client, bytes: usize, block: usize, most: usize) -> Option<Handle> {
        let alignment = client.properties().memory.alignment as usize;
        let goes_on = |open: &Block| open.takes(bytes) && (open.used == 0 || open.is_there());
        if !self.blocks.get(self.open).is_some_and(goes_on) {
            self.open = self.free().or_else(|| self.grow(client, block, most))?;
            self.blocks[self.open].used = 0;
        }
        Some(self.blocks[self.open].cut(bytes, alignment))
    }

    /// A block whose pieces are all gone. Blocks that the device had no memory for are given up.
    fn free(&mut self) -> Option<usize> {
        let lasting = self.lasting;
        let gone = self.blocks.extract_if(.., |block| block.is_free(true) && !block.is_there());
        let bytes: usize = gone.map(|block| block.bytes).sum();
        if bytes > 0 {
            self.open = 0;
            if lasting {
                LASTING_BYTES.fetch_sub(bytes, Ordering::Relaxed);
            }
        }
        // The one that was opened longest ago is the likeliest.
        let n = self.blocks.len();
        (1..=n).map(|i| (self.open + i) % n).find(|&at| self.blocks[at].is_free(self.lasting))
    }

    fn grow(&mut self, client: &Client, block: usize, most: usize) -> Option<usize> {
        if self.lasting && LASTING_BYTES.fetch_add(block, Ordering::Relaxed) + block > most {
            LASTING_BYTES.fetch_sub(block, Ordering::Relaxed);
            return None;
        }
        let at = self.blocks.len().min(self.open + 1);
        self.blocks.insert(at, Block { whole: client.empty(block), bytes: block, used: 0 });
        Some(at)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if self.lasting {
            let bytes = self.blocks.iter().map(|block| block.bytes).sum();
            LASTING_BYTES.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

/// The blocks of a thread on a device.
struct Arena {
    /// Where the properties of the device's client lie, which live as long as the process.
    device: usize,
    small: Pool,
    large: Pool,
    passing: Pool,
    counters: Option<Buffer>,
    zeroed: Vec<((usize, usize), Buffer)>,
    queue: Queue,
    /// Halos whose counts are to come along with the next answer.
    uncounted: Vec<Weak<Halos>>,
}

impl Arena {
    /// Runs `with` on the arena of this thread on a device.
    fn with<T>(client: &Client, with: impl FnOnce(&mut Self) -> T) -> T {
        let device = std::ptr::from_ref(client.properties()).addr();
        ARENAS.with_borrow_mut(|arenas| {
            let at = arenas.iter().position(|arena| arena.device == device).unwrap_or_else(|| {
                let pool = |lasting| Pool { blocks: Vec::new(), open: 0, lasting };
                let [small, large, passing] = [true, true, false].map(pool);
                let (counters, zeroed, queue) = (None, Vec::new(), Queue::of(client));
                let uncounted = Vec::new();
                arenas.push(Self { device, small, large, passing, counters, zeroed, queue, uncounted });
                arenas.len() - 1
            });
            with(&mut arenas[at])
        })
    }
}

thread_local! {
    static ARENAS: RefCell<Vec<Arena>> = const { RefCell::new(Vec::new()) };
}

/// Room for some bytes, aligned as the device asks; an allocation of its own where it is too long for a block, or blocks have taken their
/// part of the memory.
pub(crate) fn room(client: &Client, bytes: usize, life: Life) -> Handle {
    let properties = client.properties();
    // Blocks of large pieces are a power of two, so that they fill the pages they lie in.
    let [large, most] = match properties.memory.max_memory() {
        Some(all) => [(all as usize / LEAST_BLOCKS).clamp(1 << 20, 128 << 20), all as usize / MOST_PART],
        None => [0, usize::MAX],
    };
    let large = if large == 0 { 0 } else { 1 << large.ilog2() };
    let longest = match life {
        Life::Lasting => SMALL.max(large / LEAST_PIECES),
        Life::Passing => PASSING[1],
        Life::Apart => 0,
    };
    // In a browser a buffer may not be read and written in one launch, not even in different places. What a recorded graph writes to has to
    // be seen to belong to it: a block would be cut anew.
    if bytes > longest || cfg!(target_family = "wasm") || client.is_capturing() {
        return client.empty(bytes);
    }
    let alone = life == Life::Passing || stream::is_the_only_one();
    Arena::with(client, |arena| {
        arena.queue.hand_over();
        let piece = match life {
            _ if !alone => None,
            Life::Passing => arena.passing.cut(client, bytes, PASSING[0], usize::MAX),
            Life::Lasting if bytes <= SMALL => arena.small.cut(client, bytes, SMALL * LEAST_PIECES, most),
            Life::Lasting => arena.large.cut(client, bytes, large, most),
            Life::Apart => None,
        };
        piece.unwrap_or_else(|| client.empty(bytes))
    })
}

/// Hands what this thread has asked for over to the device.
pub(crate) fn hand_over(client: &Client) {
    Arena::with(client, |arena| arena.queue.hand_over_now());
}

/// The host waited for a result of the device.
pub(crate) fn waited(client: &Client) {
    Arena::with(client, |arena| arena.queue.waited());
}

/// Has the counts of halos come along with the next answer that this thread waits for, and says which halos wait for theirs.
pub(crate) fn ask_for_counts(client: &Client, halos: &Arc<Halos>) -> Vec<Arc<Halos>> {
    Arena::with(client, |arena| {
        arena.uncounted.push(Arc::downgrade(halos));
        let waiting: Vec<_> = arena.uncounted.iter().filter_map(Weak::upgrade).collect();
        arena.uncounted.retain(|halos| halos.strong_count() > 1);
        waiting
    })
}

/// Halos whose counts were asked for and that are still there, once.
pub(crate) fn take_uncounted(client: &Client) -> Vec<Arc<Halos>> {
    let taken = Arena::with(client, |arena| std::mem::take(&mut arena.uncounted));
    taken.iter().filter_map(Weak::upgrade).filter(|halos| halos.is_uncounted()).collect()
}

/// At least `n` counters at zero, the same ones each time: kernels set those they use back to zero.
pub(crate) fn counters(gpu: &Gpu, n: usize) -> Buffer {
    Arena::with(gpu.client(), |arena| {
        let enough = arena.counters.take().filter(|counters| counters.len >= n);
        let counters = enough.unwrap_or_else(|| gpu.upload(&vec![0u32; n.next_multiple_of(256)]));
        arena.counters.insert(counters).clone()
    })
}

/// `len` elements at zero but for what the callers of a key wrote before, in an allocation of its own that this thread keeps.
pub(crate) fn zeroed_apart(gpu: &Gpu, len: usize, key: (usize, usize)) -> Buffer {
    Arena::with(gpu.client(), |arena| {
        let kept = arena.zeroed.iter().find(|(at, buffer)| *at == key && buffer.len == len);
        if let Some((_, buffer)) = kept {
            return buffer.clone();
        }
        let buffer = gpu.upload(&vec![0u32; len]);
        arena.zeroed.push((key, buffer.clone()));
        buffer
    })
}
