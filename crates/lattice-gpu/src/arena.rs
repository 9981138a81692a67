//! Small and short-lived buffers, cut from large ones.
//!
//! To find room for a buffer CubeCL walks every buffer of its page, and moves the numbers of all that follow when it cuts one off: with
//! the hundreds of buffers of a training step, two thirds of what launching it costs. Here a buffer is the next piece of a
//! block. Blocks belong to a thread, as CubeCL's streams do, so that pieces are used in the order they were cut.

use std::cell::RefCell;

use cubecl::prelude::*;
use cubecl::server::Handle;

/// How long a buffer lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// As long as its owner likes. It keeps no more than a small block from being freed.
    Lasting,
    /// Until the launches that follow have been asked for. One that is kept longer keeps a large block from being used again.
    Passing,
}

/// Bytes of a block of lasting pieces, and of the longest of them.
const LASTING: [usize; 2] = [256 << 10, 32 << 10];
/// Bytes of a block of passing pieces, and of the longest of them.
const PASSING: [usize; 2] = [64 << 20, 16 << 20];

/// Pieces are cut from the front; a block whose pieces are all gone is cut anew.
struct Block {
    whole: Handle,
    used: usize,
}

/// The blocks of a thread on a device.
struct Arena {
    /// Where the properties of the device's client lie, which live as long as the process.
    device: usize,
    blocks: [Option<Block>; 2],
}

thread_local! {
    static ARENAS: RefCell<Vec<Arena>> = const { RefCell::new(Vec::new()) };
}

/// Room for some bytes, aligned as the device asks; an allocation of its own where it is too long for a block.
pub(crate) fn room(client: &Client, bytes: usize, life: Life) -> Handle {
    let [block, longest] = match life {
        Life::Lasting => LASTING,
        Life::Passing => PASSING,
    };
    // In a browser a buffer may not be read and written in one launch, not even in different places.
    if bytes > longest || cfg!(target_family = "wasm") {
        return client.empty(bytes);
    }
    let properties = client.properties();
    let alignment = properties.memory.alignment as usize;
    let device = std::ptr::from_ref(properties).addr();
    ARENAS.with_borrow_mut(|arenas| {
        let at = arenas.iter().position(|arena| arena.device == device).unwrap_or_else(|| {
            arenas.push(Arena { device, blocks: [None, None] });
            arenas.len() - 1
        });
        let open = &mut arenas[at].blocks[life as usize];
        let takes = |open: &Block| open.used + bytes <= block;
        if !open.as_ref().is_some_and(takes) {
            match open {
                // Nobody else holds it. What was launched with its pieces comes first on the device, too.
                Some(open) if open.whole.can_mut() => open.used = 0,
                _ => *open = Some(Block { whole: client.empty(block), used: 0 }),
            }
        }
        let open = open.as_mut().expect("there is a block with room");
        let start = open.used;
        open.used = (start + bytes).next_multiple_of(alignment);
        open.whole.clone().offset_start(start as u64).offset_end((block - start - bytes) as u64)
    })
}
