//! Point Transformer V3: a U-Net of attention within serialized patches.
//!
//! Source: Wu et al., "Point Transformer V3" (CVPR 2024, arXiv:2312.10035); depths, widths, heads and patch sizes are those of its
//! published configuration. Blocks take the four orders in turn; the published training shuffles them. No weights are shipped.

mod block;
mod network;

pub use block::*;
pub use network::*;
