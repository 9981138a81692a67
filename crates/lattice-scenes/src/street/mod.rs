//! Streets: terrain with a road, and everything that stands beside it.

mod buildings;
mod cars;
mod layout;
mod plants;
mod small;
mod terrain;

pub use layout::Street;
pub use terrain::Terrain;

/// Classes of a lidar sweep.
pub mod class {
    /// Road, sidewalk, grass.
    pub const GROUND: u8 = 0;
    /// Houses.
    pub const BUILDING: u8 = 1;
    /// Cars, vans, trucks.
    pub const VEHICLE: u8 = 2;
    /// Trees with their trunks, bushes, hedges.
    pub const VEGETATION: u8 = 3;
    /// Poles, lamps, signs.
    pub const POLE: u8 = 4;
    /// Walkers and riders.
    pub const PERSON: u8 = 5;
    /// Fences, walls, bins, bicycles.
    pub const OTHER: u8 = 6;
}
