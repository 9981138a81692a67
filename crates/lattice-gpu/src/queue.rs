//! Launches that wait to be handed to a device.
//!
//! CubeCL has a thread for each device, and hands it launches by the 32, or when someone waits for a result. Until then the device has
//! nothing to do: after every wait, for as long as the host takes to ask for 32 launches, and where the host is slower than the device, after
//! every batch. So whoever asks for room, as nearly every operation does before its launch, hands over what has come together, at growing
//! intervals after a wait, where the device's thread is through with what it was handed before. A batch that is handed over while it is not
//! keeps the host from asking for more: where that thread is behind, whole batches follow, and it is asked again now and then.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use cubecl::prelude::Client;
use cubecl_common::device::{DeviceId, DeviceService, ServerUtilitiesHandle};
use cubecl_common::device_handle::DeviceHandle;

/// How long launches after a wait come together at first: about three of them.
const LEAST: Duration = Duration::from_micros(15);
/// How long they come together at most. Handing over costs both threads a few microseconds, as places of the batch that are left change hands,
/// too.
const MOST: Duration = Duration::from_micros(120);
/// How long the device's thread may take for a batch before it counts as behind.
const UNDER_WAY: Duration = Duration::from_micros(300);
/// How long a thread that was behind is handed whole batches.
const LATER: Duration = Duration::from_millis(1);

/// A service without any work, which shares the thread of a device and so reaches its queue.
pub(crate) struct Bell;

impl DeviceService for Bell {
    fn init(_: DeviceId) -> Self {
        Self
    }

    fn utilities(&self) -> ServerUtilitiesHandle {
        Arc::new(())
    }
}

/// The queue of a device, as one host thread sees it.
pub(crate) struct Queue {
    bell: DeviceHandle<Bell>,
    /// Batches that were handed over, and how many of them the device's thread is through with.
    handed: u32,
    done: Arc<AtomicU32>,
    /// When the last one was handed over, or somebody asked for the first time after a wait.
    since: Option<Instant>,
    /// How long launches come together now.
    patience: Duration,
}

impl Queue {
    /// The queue of a client's device. The first one waits for the device's thread.
    pub(crate) fn of(client: &Client) -> Self {
        let bell = DeviceHandle::new(client.service_id().device);
        Self { bell, handed: 0, done: Arc::default(), since: None, patience: LEAST }
    }

    /// The host waited for a result: everything was handed over, and the device has nothing to do.
    pub(crate) fn waited(&mut self) {
        (self.since, self.patience) = (None, LEAST);
    }

    /// Hands over what has come together, where the host is about to wait.
    pub(crate) fn hand_over_now(&self) {
        if !cfg!(target_family = "wasm") {
            self.bell.flush_queue();
        }
    }

    /// Hands over what has come together for long enough, where the device's thread has nothing else to do.
    pub(crate) fn hand_over(&mut self) {
        // A browser has no such clock, and no thread to hand over to.
        if cfg!(target_family = "wasm") {
            return;
        }
        // While kernels are compiled the device's thread takes nothing, and a part of a batch handed over would keep the host from going on.
        #[cfg(any(feature = "cuda", feature = "vulkan"))]
        if crate::ahead::is_compiling() {
            return;
        }
        let now = Instant::now();
        let Some(since) = self.since else {
            // Whoever asks first has launched nothing yet.
            self.since = Some(now);
            return;
        };
        let waiting = now - since;
        if waiting < self.patience {
            return;
        }
        let is_behind = self.patience > MOST;
        if !is_behind && self.done.load(Ordering::Acquire) != self.handed {
            if waiting > UNDER_WAY {
                self.patience = LATER;
            }
            return;
        }
        self.handed += 1;
        let (done, batch) = (self.done.clone(), self.handed);
        self.bell.submit(move |_| done.store(batch, Ordering::Release));
        self.bell.flush_queue();
        self.since = Some(now);
        self.patience = if is_behind { MOST } else { (2 * self.patience).min(MOST) };
    }
}
