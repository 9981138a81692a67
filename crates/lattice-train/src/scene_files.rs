//! Labelled scenes in files: one file, a folder, or SemanticKITTI sequences.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use lattice_io::{Format, ReadOptions};

use crate::{LabelMap, LabelledScene, Result, TrainError};

/// A scan and the file of its labels, where that is one of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    scan: PathBuf,
    labels: Option<PathBuf>,
}

/// Files of labelled scenes, in the order of their names.
#[derive(Debug)]
pub struct SceneFiles {
    entries: Vec<Entry>,
    map: LabelMap,
    columns: Option<usize>,
    /// Attributes of the scene that was read first, and its file: all others must have the same.
    attributes: OnceLock<(PathBuf, BTreeSet<String>)>,
}

impl SceneFiles {
    /// Finds the scenes at `path`.
    ///
    /// A file is one scene. In a folder, and the folders in it, every file of a known point format is one, but for what lies beside
    /// a folder `velodyne`. A `.label` file of the same name belongs to a scan: beside it, or in a folder `labels` beside the scan's
    /// folder `velodyne`.
    /// Without `map`, scans with `.label` files have raw SemanticKITTI ids and others have classes.
    ///
    /// # Errors
    /// A path that is not there, a folder without scenes, a scan of a `velodyne` folder without its labels.
    pub fn open(path: &Path, map: Option<LabelMap>) -> Result<Self> {
        let refuse = |found: String, fix: &str| {
            TrainError::scene(
                path.display().to_string(),
                format!("expected labelled scenes, found {found}; {fix}"),
            )
        };
        let meta = std::fs::metadata(path).map_err(|e| refuse(e.to_string(), "check the path"))?;
        let mut scans = Vec::new();
        if meta.is_dir() {
            collect(path, &mut scans, 0)?;
        } else {
            scans.push(path.to_path_buf());
        }
        scans.sort();
        let entries = scans.into_iter().map(entry).collect::<Result<Vec<_>>>()?;
        if entries.is_empty() {
            return Err(refuse(
                "a folder without point files".into(),
                "put .ply, .npz, .pcd, .las or .bin files with labels in it",
            ));
        }
        let beside = |e: &Entry| e.labels.is_some();
        let guess = if entries.iter().any(beside) { LabelMap::SemanticKittiRaw } else { LabelMap::Classes };
        Ok(Self { entries, map: map.unwrap_or(guess), columns: None, attributes: OnceLock::new() })
    }

    /// Names the file of the labels, where there is one scan.
    ///
    /// # Errors
    /// More than one scan.
    pub fn with_labels(mut self, labels: &Path, map: LabelMap) -> Result<Self> {
        let [entry] = self.entries.as_mut_slice() else {
            let what =
                format!("expected one scan beside it, found {} scans; name a scan", self.entries.len());
            return Err(TrainError::option("--labels", what));
        };
        entry.labels = Some(labels.to_path_buf());
        self.map = map;
        Ok(self)
    }

    /// Says how many columns `.bin` files have.
    #[must_use]
    pub fn with_columns(mut self, columns: Option<usize>) -> Self {
        self.columns = columns;
        self
    }

    /// Keeps the scenes whose number `keep` takes; used to set scenes apart.
    #[must_use]
    pub fn filter(mut self, keep: impl Fn(usize) -> bool) -> Self {
        let mut number = 0;
        self.entries.retain(|_| {
            number += 1;
            keep(number - 1)
        });
        self
    }

    /// Number of scenes.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no scenes.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How labels become classes.
    pub fn label_map(&self) -> LabelMap {
        self.map
    }

    /// The scan of scene `index`.
    ///
    /// # Panics
    /// When `index` is not below `len()`.
    pub fn path(&self, index: usize) -> &Path {
        &self.entries[index].scan
    }

    /// Reads scene `index`.
    ///
    /// # Errors
    /// A file that cannot be read; a scene without points or labels, with labels that are no class, or with other attributes than
    /// the scene that was read first.
    ///
    /// # Panics
    /// When `index` is not below `len()`.
    pub fn read(&self, index: usize, classes: usize) -> Result<LabelledScene> {
        let Entry { scan, labels } = &self.entries[index];
        let mut options = ReadOptions::default();
        options.columns = self.columns;
        options.labels = labels.clone();
        let cloud = lattice_io::read(scan, &options)?;
        let names: BTreeSet<String> = cloud.attributes.keys().cloned().collect();
        let scene = LabelledScene::from_cloud(&scan.display().to_string(), &cloud, self.map, classes)?;
        let (first, expected) = self.attributes.get_or_init(|| (scan.clone(), names.clone()));
        if *expected != names {
            let list = |names: &BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>().join(", ");
            return Err(TrainError::scene(
                scan.display().to_string(),
                format!(
                    "expected the attributes of {} ({}), found {}; give every scene the same ones",
                    first.display(),
                    list(expected),
                    list(&names)
                ),
            ));
        }
        Ok(scene)
    }
}

/// Folder of the sweeps in a SemanticKITTI sequence.
const SWEEPS: &str = "velodyne";

/// Deeper folders are not looked into: links may lead in circles.
const MAX_DEPTH: usize = 8;

/// Adds the point files of a folder and the folders in it.
fn collect(folder: &Path, scans: &mut Vec<PathBuf>, depth: usize) -> Result<()> {
    let refuse =
        |e: std::io::Error| TrainError::scene(folder.display().to_string(), format!("cannot be listed: {e}"));
    // What lies beside the sweeps of a sequence (poses, times, calibration) is no scan.
    let sequence = folder.join(SWEEPS).is_dir();
    for entry in std::fs::read_dir(folder).map_err(refuse)? {
        let path = entry.map_err(refuse)?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if path.is_dir() && !hidden && depth < MAX_DEPTH {
            collect(&path, scans, depth + 1)?;
        } else if !sequence && path.is_file() && !hidden && Format::from_path(&path).is_some() {
            scans.push(path);
        }
    }
    Ok(())
}

/// Finds the labels of a scan.
fn entry(scan: PathBuf) -> Result<Entry> {
    let beside = scan.with_extension("label");
    if beside.is_file() {
        return Ok(Entry { labels: Some(beside), scan });
    }
    let folder = scan.parent();
    if let Some(sequence) =
        folder.filter(|f| f.file_name().is_some_and(|n| n == SWEEPS)).and_then(Path::parent)
    {
        let labels = sequence.join("labels").join(beside.file_name().unwrap_or_default());
        if !labels.is_file() {
            let what = format!("expected its labels in {}, found none; copy them there", labels.display());
            return Err(TrainError::scene(scan.display().to_string(), what));
        }
        return Ok(Entry { labels: Some(labels), scan });
    }
    Ok(Entry { scan, labels: None })
}
