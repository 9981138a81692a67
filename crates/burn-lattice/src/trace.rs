//! Records what ran: one entry an operation, with its rows, pairs, route and time.
//!
//! Recording is per thread and off by default; an operation then pays one thread-local read. Names come from
//! [`scope`]s that networks open around their layers.

use std::cell::RefCell;
use std::time::Instant;

/// One recorded operation.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LayerRecord {
    /// Open scopes joined by dots; the operation's own name where there is none.
    pub name: String,
    /// Operation, with the relation's kind for convolutions: `conv.submanifold`, `pool.max`, ...
    pub kind: String,
    /// Input rows.
    pub rows_in: usize,
    /// Output rows.
    pub rows_out: usize,
    /// Row pairs that were combined.
    pub pairs: usize,
    /// Input channels.
    pub c_in: usize,
    /// Output channels.
    pub c_out: usize,
    /// Route that ran.
    pub route: &'static str,
    /// Milliseconds for finding or building the geometry.
    pub map_ms: f64,
    /// Milliseconds for the arithmetic; where a device is asynchronous, only its launch.
    pub ms: f64,
}

#[derive(Default)]
struct State {
    records: Option<Vec<LayerRecord>>,
    scopes: Vec<String>,
}

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
}

/// Runs `work` with recording on, and returns its result with the records in order.
pub fn record<R>(work: impl FnOnce() -> R) -> (R, Vec<LayerRecord>) {
    let outer = STATE.with(|s| s.borrow_mut().records.replace(Vec::new()));
    let result = work();
    let records = STATE.with(|s| std::mem::replace(&mut s.borrow_mut().records, outer));
    (result, records.unwrap_or_default())
}

/// Names the operations of `work` in records.
pub fn scope<R>(name: &str, work: impl FnOnce() -> R) -> R {
    let recording = STATE.with(|s| {
        let mut state = s.borrow_mut();
        if state.records.is_some() {
            state.scopes.push(name.to_string());
        }
        state.records.is_some()
    });
    let result = work();
    if recording {
        STATE.with(|s| s.borrow_mut().scopes.pop());
    }
    result
}

/// A clock that runs only while recording.
pub(crate) struct Clock(Option<Instant>);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(STATE.with(|s| s.borrow().records.is_some()).then(Instant::now))
    }

    pub(crate) fn ms(&self) -> f64 {
        self.0.map_or(0.0, |t| t.elapsed().as_secs_f64() * 1e3)
    }
}

/// Keeps a record, if recording is on; `make` gets the current name.
pub(crate) fn push(make: impl FnOnce() -> LayerRecord) {
    STATE.with(|s| {
        let mut state = s.borrow_mut();
        if state.records.is_none() {
            return;
        }
        let mut entry = make();
        if !state.scopes.is_empty() {
            entry.name = state.scopes.join(".");
        }
        if let Some(records) = &mut state.records {
            records.push(entry);
        }
    });
}
