//! Labelled synthetic scenes: lidar sweeps of a street, RGB-D rooms, closed objects.
//!
//! A lidar sweep is made by casting every beam of a sensor against a street of terrain, buildings, cars, plants, poles
//! and people; a room by sampling the surfaces that a walking camera sees; an object by sampling a blended implicit
//! surface. Voxel counts and neighbour histograms follow those of real scans (see `STATISTICS.md` of the crate).
//!
//! The same kind, seed and options give the same points in the same order, on any number of threads.
//!
//! Not for: sensor simulation with waveforms, motion distortion or second returns; photographs.
//!
//! ```
//! use lattice_scenes::{SceneKind, SceneOptions, class_names, generate};
//!
//! let room = generate(SceneKind::Indoor, 7, &SceneOptions::default().with_density(0.1));
//! assert_eq!(room.attributes["label"].len(), room.len());
//! assert_eq!(class_names(SceneKind::Indoor)[1], "wall");
//! ```
#![forbid(unsafe_code)]

mod geometry;
mod object;
mod options;
mod random;
mod room;
mod scene;
mod street;
mod sweep;

pub use options::{Beams, ParseSceneKindError, RoomSampling, SceneKind, SceneOptions};
pub use random::Random;
pub use scene::{IGNORED, class_names, generate};
