//! Which streams of a device there are.
//!
//! CubeCL gives each thread a stream, and CUDA and ROCm run streams side by side. Where a thread uses what another one made, its stream waits
//! for the other one, but only if it has not waited since the *memory* was allocated. What is written later into memory that was there
//! before, as pieces of a block are, may be read before it is written. (So may what is changed in place; CubeCL has no remedy for that but one
//! stream.)

use std::sync::atomic::{AtomicU64, Ordering};

use cubecl_environment::stream::{StreamId, StreamPolicy, policy, set_policy};

/// All threads of the process share one stream of each device from now on: what one of them asked for before another one gets its result is
/// done before what that one asks for, and buffers are cut from blocks whatever the number of threads. To be called before anything is asked
/// of a device.
pub fn share_one_stream() {
    set_policy(StreamPolicy::Single);
}

/// The number of streams when the only thread that submits work asked last, itself counted; [`SEVERAL`] once there is another one.
static STREAMS: AtomicU64 = AtomicU64::new(0);
const SEVERAL: u64 = u64::MAX;

/// Whether all work of the process goes to one stream of each device: threads [share](share_one_stream) it, or one thread alone submits work
/// so far.
pub(crate) fn is_the_only_one() -> bool {
    match policy() {
        StreamPolicy::Single => true,
        StreamPolicy::PerThread => is_alone(),
        // Tasks are not counted.
        _ => false,
    }
}

fn is_alone() -> bool {
    let streams = STREAMS.load(Ordering::Relaxed);
    if streams == SEVERAL {
        return false;
    }
    // Threads are numbered when they first submit work, from 0 on. So is this question, which nobody submits work by.
    let (own, next) = (StreamId::current().value, StreamId::allocate().value);
    let alone = own == 0 && next == streams.max(1);
    STREAMS.fetch_max(if alone { next + 1 } else { SEVERAL }, Ordering::Relaxed);
    alone
}
