//! Rooms: walls with openings, furniture, and the surfaces that a walking camera sees.

mod capture;
mod furniture;
mod plan;

pub use capture::generate;

/// Classes of a room.
pub mod class {
    /// Floor and carpets.
    pub const FLOOR: u8 = 0;
    /// Walls, doors and window frames.
    pub const WALL: u8 = 1;
    /// Ceiling.
    pub const CEILING: u8 = 2;
    /// Furniture.
    pub const FURNITURE: u8 = 3;
    /// Clutter and lamps.
    pub const OTHER: u8 = 4;
}
