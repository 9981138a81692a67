//! Relations: which input row meets which output row under which kernel tap.

mod build;
mod cache;
mod csr;
mod exact;
mod gather;
mod grown;
mod halo;
mod neighbours;
mod reach;
mod record;
mod submanifold;
mod tiles;
mod views;

pub use build::SupportPolicy;
pub use cache::{CacheEntry, RelationCache, RelationKey};
pub use neighbours::{Neighbours, knn, radius};
pub use record::{Edge, Relation, RelationId, RelationKind};
pub use tiles::TapTiles;
pub use views::{InputView, NeighbourTable, SortedTable, TapView};
