//! Vectors, solids that rays hit, and the tree over them.

mod solid;
mod surface;
mod tree;
mod vector;

pub use solid::{Hit, Material, Ray, Shape, Solid, Windows};
pub use tree::Tree;
pub use vector::{Frame, V3, add, cross, dot, mul, norm, scale, sub, unit};
