//! Point clouds in and out of files, and pictures of them.
//!
//! [`read`] chooses among PLY, PCD, LAS/LAZ, KITTI/nuScenes `.bin`, NPY, NPZ and text by the file's extension;
//! [`write_ply`], [`write_npy`] and [`write_npz`] write files that are complete or not there;
//! [`render_png`] draws a cloud.
//!
//! Not for streaming: a file is read whole, so memory bounds the size of a scan (about three times the file for most
//! formats). Not for meshes beyond their triangles, nor for the waveforms and extra bytes of LAS.

#![forbid(unsafe_code)]

mod cloud;
mod error;
mod format;
mod npy_array;
mod picture;
mod read;
mod safetensors_header;
mod safetensors_texts;
mod scalar;
mod table;
mod write;

pub use cloud::*;
pub use error::{Fault, Place, ReadError, WriteError};
pub use lattice_core::AttributeValues as Attribute;
pub use npy_array::{NpyArray, read_npy_array, write_npy_array};
pub use picture::{
    Canvas, ColourBy, Curve, Ramp, RenderOptions, Up, View, class_colour, curves_png, matrix_png, render,
    render_png,
};
pub use read::{Format, ReadOptions, read, read_from_bytes};
pub use safetensors_header::order_safetensors_header;
pub use safetensors_texts::{LONGEST_SAFETENSORS_HEADER, safetensors_texts};
pub use write::{PlyFormat, write_bytes, write_npy, write_npz, write_ply, write_text};
