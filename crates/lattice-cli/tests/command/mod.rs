//! Starts the real binary in a folder of its own.

#![allow(dead_code, reason = "each test file uses a part")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// A temporary folder that commands run in.
pub struct Place {
    folder: tempfile::TempDir,
}

/// What a command left.
pub struct Ran {
    /// Exit status; -1 where a signal ended it.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Place {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    pub fn bytes(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// Names in the folder, sorted.
    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// A command in this folder, without what the environment would force.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lattice"));
        command.args(args).current_dir(self.folder.path()).stdin(Stdio::null());
        for variable in ["LATTICE_ROUTE", "LATTICE_CPU_ISA", "RUST_BACKTRACE"] {
            command.env_remove(variable);
        }
        command
    }

    pub fn run(&self, args: &[&str]) -> Ran {
        Ran::from(self.command(args).output().unwrap())
    }

    /// Runs a command that succeeds; stderr is a pipe, so it must stay empty.
    pub fn succeed(&self, args: &[&str]) -> String {
        let ran = self.run(args);
        assert_eq!(ran.code, 0, "{args:?}: {}", ran.stderr);
        assert_eq!(ran.stderr, "", "{args:?} is quiet in a pipe");
        ran.stdout
    }

    /// Runs a command that succeeds and prints one JSON document.
    pub fn json(&self, args: &[&str]) -> Value {
        let text = self.succeed(args);
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{args:?}: {e} in {text}"))
    }

    /// Runs a command that prints a JSON document a line.
    pub fn json_lines(&self, args: &[&str]) -> Vec<Value> {
        let text = self.succeed(args);
        text.lines()
            .map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{args:?}: {e} in {l}")))
            .collect()
    }

    /// Runs a command that fails with status 1 and one line that holds each of `parts`.
    #[track_caller]
    pub fn fail(&self, args: &[&str], parts: &[&str]) -> String {
        Ran::from(self.command(args).output().unwrap()).refused(args, parts)
    }
}

impl Ran {
    /// Checks a refusal: status 1, nothing on stdout, one line on stderr that holds each of `parts`.
    #[track_caller]
    pub fn refused(self, args: &[&str], parts: &[&str]) -> String {
        let Self { code, stdout, stderr } = self;
        assert_eq!(code, 1, "{args:?}: {stderr}");
        assert_eq!(stdout, "", "{args:?}: a failure prints nothing on stdout");
        assert!(stderr.starts_with("error: ") && stderr.ends_with('\n'), "{args:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{args:?}: one line: {stderr}");
        assert!(
            !stderr.contains("panicked") && !stderr.contains("fault inside lattice"),
            "{args:?}: {stderr}"
        );
        for part in parts {
            assert!(stderr.contains(part), "{args:?}: expected `{part}` in: {stderr}");
        }
        stderr
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// Points of a small, uneven terrain with a box on it: text, x y z a line.
pub fn terrain(points: usize) -> String {
    let mut state = 7u64;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / (1u64 << 24) as f64
    };
    let line = |i: usize| {
        let (x, y) = (4.0 * next() - 1.0, 4.0 * next() - 1.0);
        let z = if i.is_multiple_of(5) { 0.5 + next() } else { 0.1 * (x + y).sin() };
        format!("{x:.4} {y:.4} {z:.4}\n")
    };
    (0..points).map(line).collect()
}

/// The bytes of an .npy file.
pub fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

/// Rows batch, x, y, z as an int32 .npy file.
pub fn coords(rows: &[[i32; 4]]) -> Vec<u8> {
    let data: Vec<u8> = rows.iter().flatten().flat_map(|v| v.to_le_bytes()).collect();
    npy("<i4", &format!("({}, 4)", rows.len()), &data)
}

/// All cells of a cube of 5: 125 rows, 13^3 = 2,197 pairs under a kernel of 3.
pub fn cube() -> Vec<u8> {
    let rows: Vec<[i32; 4]> = (0..125).map(|i| [0, i % 5, i / 5 % 5, i / 25]).collect();
    coords(&rows)
}

/// The folder of real scans, where there is one.
pub fn scans() -> Option<PathBuf> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data"));
    if folder.is_dir() {
        return Some(folder.to_path_buf());
    }
    println!("skipped: no scan folder");
    None
}

/// Whether file permissions do not bind this user.
pub fn is_root(place: &Place) -> bool {
    let path = place.write("permission", "x");
    let mut permissions = std::fs::metadata(&path).unwrap().permissions();
    permissions.set_readonly(true);
    std::fs::set_permissions(&path, permissions).unwrap();
    let root = std::fs::OpenOptions::new().append(true).open(&path).is_ok();
    std::fs::remove_file(path).unwrap();
    root
}
