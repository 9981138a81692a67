//! Buffers that one thread makes and another one reads.
#![cfg(feature = "cubecl")]
#![allow(clippy::unwrap_used, reason = "tests")]

mod harness;

use std::sync::mpsc::sync_channel;
use std::thread;

use lattice_gpu::conv::ConvShape;
use lattice_gpu::conv::mma::{Direction, Epilogue};
use lattice_gpu::conv::plain::pointwise_plain;
use lattice_gpu::{Buffer, Gpu};

/// `rows` rows of `channels` channels times a weight of ones: sums of a row.
fn sums(gpu: &Gpu, x: &Buffer, weight: &Buffer, rows: usize, channels: usize) -> Buffer {
    let shape = ConvShape { c_in: channels, c_out: channels, groups: 1 };
    pointwise_plain::<f32>(gpu, x, weight, rows, shape, Direction::Forward, &Epilogue::none())
}

/// Another thread makes buffers, one after the other, and this one reads each when it gets it. The reader has waited for the writer's stream
/// once when it gets what was written after that, behind work that takes the device long.
fn hand_over(device: &str, gpu: &Gpu) {
    const ROUNDS: usize = 12;
    let rows = if harness::is_software(gpu) { 1 << 12 } else { 1 << 20 };
    let (send, receive) = sync_channel(1);
    let writer = gpu.clone();
    let writing = thread::spawn(move || {
        let long = writer.upload(&vec![1.0f32; rows * 64]);
        let wide = writer.upload(&vec![1.0f32; 64 * 64]);
        let ones = writer.upload(&[1.0f32; 16]);
        for round in 0..ROUNDS {
            for _ in 0..20 {
                sums(&writer, &long, &wide, rows, 64);
            }
            let x = writer.upload(&[round as f32; 32]);
            send.send(sums(&writer, &x, &ones, 8, 4)).unwrap();
        }
    });
    for (round, buffer) in receive.iter().enumerate() {
        let found = gpu.download::<f32>(&buffer);
        assert_eq!(found, [4.0 * round as f32; 32], "round {round} on {device}");
    }
    writing.join().unwrap();
}

/// Whether buffers are cut from blocks.
fn cuts_blocks(gpu: &Gpu) -> bool {
    let x = gpu.upload(&[1.0f32; 32]);
    let ones = gpu.upload(&[1.0f32; 16]);
    (0..2).all(|_| sums(gpu, &x, &ones, 8, 4).is_piece())
}

/// One test, since threads are counted and streams are shared by the process.
#[test]
fn what_a_thread_made_is_read_after_it_was_written() {
    let devices = harness::devices_of_many_streams();
    for (device, gpu) in &devices {
        assert!(cuts_blocks(gpu), "one thread works on {device}");
    }
    for (device, gpu) in &devices {
        hand_over(device, gpu);
        assert!(!cuts_blocks(gpu), "two threads work on {device}");
    }
    for (device, gpu) in &harness::devices() {
        assert!(cuts_blocks(gpu), "all threads share one stream of {device}");
        hand_over(device, gpu);
    }
}
