//! Refuses work that cannot fit, before the allocator has to give up.

use anyhow::{Result, ensure};

/// Assumed where the system does not say what it has.
const UNKNOWN_BYTES: f64 = 64.0 * 1e9;

/// Bytes that this process may still take, as far as the system tells.
pub fn available_bytes() -> f64 {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let free = read("/proc/meminfo").and_then(|text| meminfo_bytes(&text, "MemAvailable:"));
    let group = read("/sys/fs/cgroup/memory.max").and_then(|text| text.trim().parse::<f64>().ok());
    free.unwrap_or(UNKNOWN_BYTES).min(group.unwrap_or(f64::INFINITY))
}

/// A field of `/proc/meminfo`, which counts in KiB.
pub fn meminfo_bytes(text: &str, field: &str) -> Option<f64> {
    let line = text.lines().find_map(|l| l.strip_prefix(field))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? * 1024.0)
}

/// Refuses `bytes` of tensors where the machine does not have them; `what` names the arguments that ask for them.
///
/// # Errors
/// More bytes than [`available_bytes`].
pub fn ensure_fits(bytes: f64, what: &str) -> Result<()> {
    let available = available_bytes();
    ensure!(
        bytes <= available,
        "{what}: expected tensors of at most {:.1} GB (free memory), found {:.1} GB; use fewer channels or rows",
        available / 1e9,
        bytes / 1e9
    );
    Ok(())
}

/// Bytes of a convolution's features, result and weight as they are made (f32) and cast.
pub fn conv_bytes(
    rows_in: usize,
    rows_out: usize,
    taps: usize,
    [c_in, c_out]: [usize; 2],
    groups: usize,
) -> f64 {
    let [rows_in, rows_out, taps, c_in, c_out] = [rows_in, rows_out, taps, c_in, c_out].map(|n| n as f64);
    12.0 * (rows_in * c_in + rows_out * c_out + taps * c_in / groups as f64 * c_out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_read_in_bytes() {
        let text = "MemTotal:       16384 kB\nMemAvailable:    1024 kB\n";
        assert_eq!(meminfo_bytes(text, "MemAvailable:"), Some(1024.0 * 1024.0));
        assert_eq!(meminfo_bytes(text, "SwapFree:"), None);
    }

    #[test]
    fn what_does_not_fit_is_refused_without_overflow() {
        assert!(ensure_fits(1e3, "--cin").is_ok());
        let bytes = conv_bytes(125, 125, 27, [usize::MAX, usize::MAX], 1);
        let text = ensure_fits(bytes, "--cin and --cout").expect_err("no machine has it").to_string();
        assert!(text.starts_with("--cin and --cout: expected") && text.contains("fewer channels"), "{text}");
    }
}
