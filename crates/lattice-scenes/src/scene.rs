//! The front door: kind, seed and options in, labelled points out.

use lattice_io::PointCloud;

use crate::{SceneKind, SceneOptions, object, room, sweep};

/// Label of points without a class (returns from the sensor's own car).
pub const IGNORED: u8 = 255;

/// Names of the classes of a kind; the label is the place in the list.
pub fn class_names(kind: SceneKind) -> &'static [&'static str] {
    match kind {
        SceneKind::Lidar => &["ground", "building", "vehicle", "vegetation", "pole", "person", "other"],
        SceneKind::Indoor => &["floor", "wall", "ceiling", "furniture", "other"],
        SceneKind::Object => &["surface"],
    }
}

/// A labelled scene.
///
/// # Attributes
/// `label` (u8, 255 = ignored) always. Lidar: `intensity` (f32, 0..=1), `ring` (u8, 0 = highest beam); points in
/// firing order, column by column. Indoor: `rgb`. Origin is zero; there are no triangles.
///
/// # Cost
/// A default lidar sweep or room takes a few tenths of a second on two cores, an object under a second.
pub fn generate(kind: SceneKind, seed: u64, options: &SceneOptions) -> PointCloud {
    match kind {
        SceneKind::Lidar => sweep::generate(seed, options),
        SceneKind::Indoor => room::generate(seed, options),
        SceneKind::Object => object::generate(seed, options),
    }
}
