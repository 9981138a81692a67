//! Launches that wait to be handed to a device.
//!
//! CubeCL has a thread for each device, and hands it launches by the 32, or when someone waits for a result. Until then the device has
//! nothing to do: after every wait, for as long as the host takes to ask for 32 launches. So after a wait whoever asks for room, as nearly
//! every operation does before its launch, hands over what has come together, at growing intervals. Once the device has work, whole batches
//! are cheaper: a host that runs into a full queue again and again slows the device's thread down.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cubecl::prelude::Client;
use cubecl_common::device::{DeviceId, DeviceService, ServerUtilitiesHandle};
use cubecl_common::device_handle::DeviceHandle;

/// How long launches after a wait come together at first: about three of them. Handing over costs a fraction of a microsecond.
const LEAST: Duration = Duration::from_micros(15);
/// How long they come together at most, before whole batches follow.
const MOST: Duration = Duration::from_micros(240);

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
    /// When the oldest launch that was not handed over may have been asked for.
    since: Option<Instant>,
    /// How long launches come together now.
    patience: Duration,
}

impl Queue {
    /// The queue of a client's device. The first one waits for the device's thread.
    pub(crate) fn of(client: &Client) -> Self {
        Self { bell: DeviceHandle::new(client.service_id().device), since: None, patience: LEAST }
    }

    /// The host waited for a result: everything was handed over, and the device has nothing to do.
    pub(crate) fn waited(&mut self) {
        (self.since, self.patience) = (None, LEAST);
    }

    /// Hands over what has come together for long enough.
    pub(crate) fn hand_over(&mut self) {
        // A browser has no such clock, and no thread to hand over to.
        if self.patience > MOST || cfg!(target_family = "wasm") {
            return;
        }
        // While kernels are compiled the device's thread takes nothing, and a part of a batch handed over would keep the host from going on.
        #[cfg(feature = "cuda")]
        if crate::ahead::is_compiling() {
            return;
        }
        let now = Instant::now();
        match self.since {
            Some(since) if now - since < self.patience => {}
            Some(_) => {
                self.bell.flush_queue();
                (self.since, self.patience) = (Some(now), 2 * self.patience);
            }
            None => self.since = Some(now),
        }
    }
}
