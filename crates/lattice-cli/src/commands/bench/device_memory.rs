//! What work takes of a device's memory.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};
use burn::tensor::Device;
use serde_json::{Map, Value};

/// Between two readings: an allocation is seen if it lives as long.
const PAUSE: Duration = Duration::from_micros(200);

/// Runs `work` and reads meanwhile, from a thread of its own, how much of the device's memory live allocations have: `before_mib`, and
/// `peak_mib`, the highest reading. Devices that do not say, such as the CPU, have neither, and nothing is run there.
///
/// Readings wait in the device's queue, so the time of `work` says nothing.
///
/// # Errors
/// Those of `work`, and of the device.
pub fn watched(device: &Device, work: impl FnOnce() -> Result<()>) -> Result<Map<String, Value>> {
    let sync = || device.sync().map_err(|e| anyhow!("device: {e:?}"));
    sync()?;
    let in_use = || device.memory_pool_usage().map(|usage| usage.bytes_in_use);
    let Some(before) = in_use() else { return Ok(Map::new()) };
    let done = AtomicBool::new(false);
    let peak = thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut peak = before;
            while !done.load(Ordering::Relaxed) {
                peak = peak.max(in_use().unwrap_or(before));
                thread::sleep(PAUSE);
            }
            peak
        });
        let worked = work().and_then(|()| sync());
        done.store(true, Ordering::Relaxed);
        let peak = watch.join().map_err(|_| anyhow!("reading the device's memory: the thread ended early"));
        worked.and(peak)
    })?;
    let mib = |bytes: u64| Value::from((bytes as f64 / f64::from(1 << 20) * 10.0).round() / 10.0);
    Ok([("before_mib".into(), mib(before)), ("peak_mib".into(), mib(peak))].into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_that_do_not_say_have_no_figures() {
        let found = watched(&Device::flex(), || Err(anyhow!("it was run")));
        assert!(found.is_ok_and(|found| found.is_empty()));
    }
}
