//! Batches made by background threads while the device works.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use crate::{Batch, Result, TrainError};

/// Batches of numbers `first..end`, in order, each made ahead of its use by one of several threads.
///
/// What a batch holds depends on its number alone, never on which thread made it.
pub struct Loader {
    next: u64,
    end: u64,
    lanes: Vec<Receiver<Result<Batch>>>,
}

/// Batches that each thread may be ahead.
const AHEAD: usize = 2;

impl Loader {
    /// Starts `threads` threads (at least one) that call `make` with the numbers of batches.
    pub fn start(
        first: u64,
        end: u64,
        threads: usize,
        make: impl Fn(u64) -> Result<Batch> + Send + Sync + 'static,
    ) -> Self {
        let threads = threads.max(1);
        let make = Arc::new(make);
        let lanes = (0..threads as u64).map(|lane| {
            let (send, receive) = sync_channel(AHEAD);
            let make = make.clone();
            thread::spawn(move || {
                let mut number = first + lane;
                // A closed channel says that nobody wants more.
                while number < end && send.send(make(number)).is_ok() {
                    number += threads as u64;
                }
            });
            receive
        });
        let lanes = lanes.collect();
        Self { next: 0, end: end.saturating_sub(first), lanes }
    }

    /// The next batch; `None` after the last one.
    ///
    /// # Errors
    /// What making the batch met, or that its thread stopped.
    pub fn next_batch(&mut self) -> Option<Result<Batch>> {
        if self.next >= self.end {
            return None;
        }
        let lane = (self.next % self.lanes.len() as u64) as usize;
        self.next += 1;
        let stopped = |e: std::sync::mpsc::RecvError| TrainError::Loader(e.to_string());
        Some(self.lanes[lane].recv().map_err(stopped).and_then(|batch| batch))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::{LabelledScene, make_batch};

    fn batch(number: u64) -> Result<Batch> {
        let scene = LabelledScene {
            name: number.to_string(),
            positions: vec![[0.5; 3]; number as usize],
            labels: vec![0; number as usize],
        };
        make_batch(&[&scene], 1.0, 1)
    }

    #[test]
    fn batches_come_in_order_from_any_number_of_threads() {
        for threads in [1, 2, 5] {
            let mut loader = Loader::start(3, 10, threads, batch);
            let points = std::iter::from_fn(|| loader.next_batch()).map(|b| b.unwrap().points);
            assert_eq!(points.collect::<Vec<_>>(), [3, 4, 5, 6, 7, 8, 9]);
        }
    }

    #[test]
    fn errors_arrive_at_their_place_and_a_dropped_loader_stops() {
        let mut loader = Loader::start(0, 1 << 40, 2, batch);
        assert!(loader.next_batch().unwrap().is_err(), "batch 0 has no points");
        assert_eq!(loader.next_batch().unwrap().unwrap().points, 1);
        drop(loader);
    }
}
