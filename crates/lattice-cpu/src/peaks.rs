//! What this processor can move and multiply at best.

use std::time::{Duration, Instant};

use rayon::prelude::*;

use crate::{ConvShape, Epilogue, pointwise};

/// Elements of the buffers: far above the caches.
const ELEMENTS: usize = 1 << 24;

/// Bytes a second, read and written, of a copy by all threads, and multiplications and additions a second of this crate's dense f32
/// product of 256 channels. The best of five runs each, a fraction of a second in all.
pub fn measure_peaks() -> [f64; 2] {
    let x = vec![1.0f32; ELEMENTS];
    let mut y = vec![0.0f32; ELEMENTS];
    let copy = shortest(|| {
        y.par_chunks_mut(1 << 16).zip(x.par_chunks(1 << 16)).for_each(|(y, x)| y.copy_from_slice(x));
    });
    let channels = 256;
    let weight = vec![1.0f32; channels * channels];
    let shape = ConvShape { c_in: channels, c_out: channels, groups: 1 };
    let product = shortest(|| pointwise(&x, &weight, shape, &Epilogue::default(), &mut y));
    [
        (2 * size_of::<f32>() * ELEMENTS) as f64 / copy.as_secs_f64(),
        (2 * channels * ELEMENTS) as f64 / product.as_secs_f64(),
    ]
}

fn shortest(mut work: impl FnMut()) -> Duration {
    let run = |_| {
        let start = Instant::now();
        work();
        start.elapsed()
    };
    (0..5).map(run).min().unwrap_or_default()
}
