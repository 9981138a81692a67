//! The folder that results go to.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// A folder that can be written to. What was made for it is removed again unless [`OutFolder::keep`] is called.
#[derive(Debug)]
pub struct OutFolder {
    path: PathBuf,
    /// Folders that did not exist before, outermost first.
    made: Vec<PathBuf>,
}

impl OutFolder {
    /// Makes the folder where there is none and finds out whether `files` can be written in it.
    ///
    /// # Errors
    /// A file in the way, a folder that may not be written to, a folder under the name of one of `files`.
    pub fn prepare(path: &Path, files: &[&str]) -> Result<Self> {
        let shown = path.display();
        let refuse = |error: std::io::Error| {
            let fix = match error.kind() {
                ErrorKind::AlreadyExists | ErrorKind::NotADirectory => {
                    "a file is in the way: name another folder"
                }
                ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                    "name a folder that you may write to"
                }
                ErrorKind::StorageFull => "free some disk space",
                _ => "check the path and the disk",
            };
            anyhow::anyhow!("--out {shown}: expected a folder that can be written to, found: {error}; {fix}")
        };
        let missing =
            path.ancestors().take_while(|p| !p.as_os_str().is_empty() && p.symlink_metadata().is_err());
        let mut made: Vec<PathBuf> = missing.map(Path::to_path_buf).collect();
        made.reverse();
        let folder = Self { path: path.to_path_buf(), made };
        std::fs::create_dir_all(path).map_err(refuse)?;
        let probe = path.join(format!(".lattice-{}.part", std::process::id()));
        std::fs::File::create(&probe).and_then(|_| std::fs::remove_file(&probe)).map_err(refuse)?;
        for file in files {
            if path.join(file).is_dir() {
                bail!("--out {shown}: expected no folder named {file} in it, found one; name another folder");
            }
        }
        Ok(folder)
    }

    /// Path of a file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Leaves the folder in place.
    pub fn keep(mut self) {
        self.made.clear();
    }
}

impl Drop for OutFolder {
    fn drop(&mut self) {
        for folder in self.made.iter().rev() {
            // A folder that is not empty holds complete results: it stays.
            let _ = std::fs::remove_dir(folder);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn folders_that_stay_empty_are_removed_and_kept_ones_stay() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b");
        drop(OutFolder::prepare(&path, &[]).unwrap());
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
        OutFolder::prepare(&path, &[]).unwrap().keep();
        assert!(path.is_dir());
        drop(OutFolder::prepare(&path, &[]).unwrap());
        assert!(path.is_dir(), "it stood there before");
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("f");
        std::fs::write(&file, "x").unwrap();
        for path in [file.clone(), file.join("sub")] {
            let text = OutFolder::prepare(&path, &[]).unwrap_err().to_string();
            assert!(text.contains("--out") && text.contains("a file is in the way"), "{text}");
        }
    }
}
