//! What to generate: the kind of scene and its options.

use std::fmt;
use std::str::FromStr;

/// Kind of a generated scene.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SceneKind {
    /// One rotation of a spinning lidar on a car in a street; sensor frame, x forward, z up, metres.
    Lidar,
    /// A furnished room as an RGB-D camera maps it, metres.
    Indoor,
    /// A closed surface of longest side 1, minimum corner at the origin.
    Object,
}

impl SceneKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Lidar, Self::Indoor, Self::Object];

    /// Name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lidar => "lidar",
            Self::Indoor => "indoor",
            Self::Object => "object",
        }
    }
}

impl fmt::Display for SceneKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no scene kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseSceneKindError(String);

impl fmt::Display for ParseSceneKindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "scene kind: expected lidar, indoor or object, found `{}`", self.0)
    }
}

impl std::error::Error for ParseSceneKindError {}

impl FromStr for SceneKind {
    type Err = ParseSceneKindError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|k| k.name() == s).ok_or_else(|| ParseSceneKindError(s.to_owned()))
    }
}

/// Sensor of a lidar sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Beams {
    /// 32 beams from +10.7 to -30.7 degrees, 1,084 columns, on a roof that it sees itself (nuScenes).
    B32,
    /// 64 beams in two blocks from +2 to -24.3 degrees, 2,083 columns (KITTI, SemanticKITTI).
    #[default]
    B64,
    /// 128 beams from +11.2 to -11.2 degrees, 1,024 columns (Ouster OS-2).
    B128,
}

/// How a room is turned into points.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum RoomSampling {
    /// 50,000 random vertices of the mesh of a whole room, z up (ScanNet).
    #[default]
    MeshVertices,
    /// About 280,000 points of the few square metres before a camera, in the camera's frame (3DMatch).
    DenseFragment,
}

/// Options of a scene. The defaults give a 64-beam sweep, a room of 50,000 points, an object of 2,000,000 points.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct SceneOptions {
    /// Sensor of a lidar sweep.
    pub beams: Beams,
    /// How a room is sampled.
    pub room: RoomSampling,
    /// Factor on the number of points: columns of a sweep, samples of a room or object. Kept within 0.001..=100.
    pub density: f64,
    /// Factor on all sensor noise; 0 gives points on the surfaces.
    pub noise: f64,
}

impl Default for SceneOptions {
    fn default() -> Self {
        Self { beams: Beams::default(), room: RoomSampling::default(), density: 1.0, noise: 1.0 }
    }
}

impl SceneOptions {
    /// Sets the lidar sensor.
    #[must_use]
    pub fn with_beams(mut self, beams: Beams) -> Self {
        self.beams = beams;
        self
    }

    /// Sets how a room is sampled.
    #[must_use]
    pub fn with_room(mut self, room: RoomSampling) -> Self {
        self.room = room;
        self
    }

    /// Sets the factor on the number of points.
    #[must_use]
    pub fn with_density(mut self, density: f64) -> Self {
        self.density = density;
        self
    }

    /// Sets the factor on all sensor noise.
    #[must_use]
    pub fn with_noise(mut self, noise: f64) -> Self {
        self.noise = noise;
        self
    }

    /// `count` times the density, at least 1; a density that is no number counts as 1.
    pub(crate) fn scaled(&self, count: usize) -> usize {
        let density = if self.density.is_finite() { self.density.clamp(0.001, 100.0) } else { 1.0 };
        ((count as f64 * density).round() as usize).max(1)
    }

    /// The noise factor, finite and not negative.
    pub(crate) fn noise_factor(&self) -> f64 {
        if self.noise.is_finite() { self.noise.clamp(0.0, 100.0) } else { 1.0 }
    }
}
