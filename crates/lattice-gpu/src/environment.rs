//! Databases of compiled kernels, one to a process.
//!
//! Turso 0.8, which CubeCL 0.11 keeps kernels in, fails where processes share a database: it panics, which costs the launch that wanted the
//! kernel, or gives another entry than it was asked for. So an environment of CubeCL has several, and a process takes the first that no other
//! one has.

use std::fs::{File, TryLockError};
use std::path::Path;

/// The name of the first of an environment's databases in a folder that no other process has, and what keeps others away from it while it lives;
/// none where a file cannot be made or locked there, or very many processes are at work.
pub fn own_environment(folder: &Path, named: &str) -> Option<(String, File)> {
    const MOST: usize = 256;
    std::fs::create_dir_all(folder).ok()?;
    for number in 0..MOST {
        let name = match number {
            0 => named.to_string(),
            _ => format!("{named}-{number}"),
        };
        let lock = File::create(folder.join(format!("{name}.lock"))).ok()?;
        match lock.try_lock() {
            Ok(()) => return Some((name, lock)),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(_)) => return None,
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// Files that are opened apart keep each other away as those of processes do.
    #[test]
    fn each_process_has_a_database_to_itself() {
        let folder = std::env::temp_dir().join(format!("lattice-environments-{}", std::process::id()));
        let own = |named| own_environment(&folder, named);
        let (first, held) = own("lattice").unwrap();
        let (second, _held) = own("lattice").unwrap();
        assert_eq!((first.as_str(), second.as_str()), ("lattice", "lattice-1"));
        assert_eq!(own("other").unwrap().0, "other", "another environment");
        drop(held);
        assert_eq!(own("lattice").unwrap().0, "lattice", "a process that ended leaves its own");
        std::fs::remove_dir_all(&folder).unwrap();
        // Where there cannot be a folder nothing is kept.
        std::fs::write(&folder, "a file").unwrap();
        assert!(own("lattice").is_none());
        std::fs::remove_file(&folder).unwrap();
    }
}
