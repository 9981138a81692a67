//! One file a command: its arguments, and a `run` that calls the library and prints.

pub mod artifact;
pub mod bench;
pub mod compress;
pub mod decompress;
pub mod devices;
pub mod eval;
pub mod explain;
pub mod generate;
pub mod import;
pub mod info;
pub mod quantize;
pub mod run;
pub mod train;
