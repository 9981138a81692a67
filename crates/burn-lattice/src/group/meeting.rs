//! Where threads meet and hand each other numbers.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// What all ranks gave at one meeting, in the order of the ranks.
type Given = Arc<Vec<Vec<f64>>>;

/// Meetings of a number of threads, one after the other.
#[derive(Debug)]
pub(super) struct Meeting {
    state: Mutex<State>,
    changed: Condvar,
    ranks: usize,
}

#[derive(Debug)]
struct State {
    /// Meetings that are over.
    round: u64,
    given: Vec<Option<Vec<f64>>>,
    /// Of the last meeting; it stays until all have come to the next one, so a slow thread still finds it.
    last: Given,
    over: bool,
}

impl Meeting {
    pub(super) fn new(ranks: usize) -> Self {
        let state = State { round: 0, given: vec![None; ranks], last: Arc::default(), over: false };
        Self { state: Mutex::new(state), changed: Condvar::new(), ranks }
    }

    pub(super) fn ranks(&self) -> usize {
        self.ranks
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing here panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for all ranks. `None` where one has left.
    pub(super) fn exchange(&self, rank: usize, values: Vec<f64>) -> Option<Given> {
        let mut state = self.lock();
        if state.over {
            return None;
        }
        let round = state.round;
        state.given[rank] = Some(values);
        if state.given.iter().all(Option::is_some) {
            state.last = Arc::new(state.given.iter_mut().filter_map(Option::take).collect());
            state.round += 1;
            self.changed.notify_all();
        }
        while state.round == round && !state.over {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        // Where all came, they got what they came for, even if one left right after.
        (state.round > round).then(|| state.last.clone())
    }

    pub(super) fn leave(&self) -> bool {
        let mut state = self.lock();
        let first = !std::mem::replace(&mut state.over, true);
        self.changed.notify_all();
        first
    }

    pub(super) fn is_over(&self) -> bool {
        self.lock().over
    }
}
