//! One module a format.

pub(crate) mod bin;
pub(crate) mod las;
mod laz_layers;
mod lzf;
pub(crate) mod npy;
pub(crate) mod npz;
pub(crate) mod pcd;
pub(crate) mod ply;
mod ply_header;
mod text;
pub(crate) mod xyz;
