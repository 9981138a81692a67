//! Freed memory stays with the process.

/// Tells the C library's allocator to keep freed memory in place of handing it back; returns whether it took the advice.
///
/// glibc maps every block above 32 MiB anew and unmaps it when it is freed, so each large output is faulted in page by page, which
/// costs as much as the kernel that fills it. Programs call this once at their start; libraries leave the choice to them. It
/// does nothing, and returns `false`, where the C library is not glibc. The process then holds on to its peak.
pub fn keep_pages() -> bool {
    #[cfg(all(target_os = "linux", target_env = "gnu", not(miri)))]
    {
        // SAFETY: `mallopt` sets numbers of the allocator under its own lock and touches no memory of ours.
        unsafe {
            libc::mallopt(libc::M_MMAP_MAX, 0) == 1 && libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX) == 1
        }
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu", not(miri))))]
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_blocks_can_still_be_made_and_freed() {
        let taken = keep_pages();
        assert_eq!(taken, cfg!(all(target_os = "linux", target_env = "gnu", not(miri))));
        for round in 0..3u8 {
            let block = vec![round; 40 << 20];
            assert!(block.iter().step_by(4096).all(|&v| v == round));
        }
    }
}
