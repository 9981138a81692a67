//! The weights of an artifact: as the file stores them, and as operations read them.

mod bind;
mod packed;
mod place;
mod stored;

pub(crate) use bind::{Bound, Use, bind, check};
pub use packed::PackedWeight;
pub use stored::StoredKind;
pub(crate) use stored::StoredWeight;
