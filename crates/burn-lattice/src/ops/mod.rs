//! Functional forms of every operation. Each checks its input before any work and returns a `Result`.

mod conv;
mod normalized;
mod rows;

pub use conv::*;
pub use normalized::*;
pub use rows::*;
