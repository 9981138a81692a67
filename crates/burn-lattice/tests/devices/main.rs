//! Every operation on every GPU that is found, against the CPU: values and gradients, in each element type of the device.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../harness/devices.rs"]
mod devices;

mod compare;
mod convolutions;
mod points;
mod rows;
mod supports;
