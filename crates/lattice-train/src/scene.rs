//! A scene with a class at every point.

use lattice_io::{Attribute, PointCloud};

use crate::labels::{IGNORED, LabelMap};
use crate::{Result, TrainError};

/// Points of a scene and their classes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LabelledScene {
    /// File or generated scene, for messages.
    pub name: String,
    /// One position a point: x, y, z.
    pub positions: Vec<[f32; 3]>,
    /// One class a point, 255 where it is ignored.
    pub labels: Vec<u8>,
}

impl LabelledScene {
    /// Takes the positions and the attribute `label` of a cloud.
    ///
    /// # Errors
    /// A cloud without points or without that attribute; a label that is no class; a coordinate that f32 does not hold.
    pub fn from_cloud(name: &str, cloud: &PointCloud, map: LabelMap, classes: usize) -> Result<Self> {
        let refuse = |what: String| TrainError::scene(name, what);
        if cloud.is_empty() {
            return Err(refuse(format!(
                "expected points, found none ({} left out because they are not finite); leave the file out",
                cloud.dropped
            )));
        }
        let labels = cloud.attributes.get("label").ok_or_else(|| {
            let found: Vec<&str> = cloud.attributes.keys().map(String::as_str).collect();
            let found = if found.is_empty() { "no attributes".into() } else { found.join(", ") };
            refuse(format!(
                "expected an attribute `label` (or a .label file beside it), found {found}; add one class a point"
            ))
        })?;
        let labels = classes_of(labels, map, classes).map_err(|point| {
            refuse(format!(
                "point {point}: expected {}, found {}; relabel it, or choose other classes or another label map",
                map.expected(classes),
                labels.get(point)
            ))
        })?;
        let positions: Vec<[f32; 3]> = cloud.positions.iter().map(|p| p.map(|v| v as f32)).collect();
        if let Some(point) = positions.iter().position(|p| p.iter().any(|v| !v.is_finite())) {
            return Err(refuse(format!(
                "point {point}: expected coordinates that float32 holds (up to 3.4e38), found {:?}; rescale the scan",
                cloud.positions[point]
            )));
        }
        Ok(Self { name: name.into(), positions, labels })
    }

    /// Number of points.
    pub fn len(&self) -> usize {
        self.positions.len()
    }

    /// Whether there are no points.
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    /// Bytes of memory that it takes.
    pub(crate) fn bytes(&self) -> usize {
        13 * self.len() + self.name.len()
    }

    /// Points of each class; those to ignore are not counted.
    pub fn class_counts(&self, classes: usize) -> Vec<u64> {
        let mut counts = vec![0; classes];
        for &label in self.labels.iter().filter(|&&label| label != IGNORED) {
            counts[usize::from(label)] += 1;
        }
        counts
    }
}

/// The class of every label, or the first point that has none.
fn classes_of(labels: &Attribute, map: LabelMap, classes: usize) -> Result<Vec<u8>, usize> {
    // A table answers for the labels that nearly all files have.
    let table: Vec<Option<u8>> = (0..1024).map(|label| map.class(f64::from(label), classes)).collect();
    let class = |point: usize| {
        let label = labels.get(point);
        let known = (label.fract() == 0.0 && (0.0..1024.0).contains(&label)).then_some(label as usize);
        known.map_or_else(|| map.class(label, classes), |label| table[label]).ok_or(point)
    };
    (0..labels.len()).map(class).collect()
}
