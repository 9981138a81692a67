//! Records what ran: one entry an operation, with its rows, pairs, route and time.
//!
//! Recording is per thread and off by default; an operation then pays one thread-local read. While it is on, every recorded
//! operation waits for its device, so that times are true and launches no longer overlap. Names come from
//! [`scope`]s that networks open around their layers.

use std::cell::{Cell, RefCell};
use std::time::Instant;

use burn::tensor::Tensor;

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
    /// Milliseconds for the arithmetic, until the device has finished it.
    pub ms: f64,
}

#[derive(Default)]
struct State {
    records: Option<Vec<LayerRecord>>,
    scopes: Vec<String>,
}

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
    static DERIVED: Cell<u64> = const { Cell::new(0) };
}

/// How many forms this thread has derived from parameters for the kernels of a GPU: weights in the order of matrix units, cast biases, folded
/// norms. Without autodiff they are kept while the parameters live, so a second call of a layer derives none; but for parameters that are a part of a
/// larger tensor, whose forms serve one call.
pub fn derived_forms() -> u64 {
    DERIVED.get()
}

/// Counts one more of [`derived_forms`].
#[cfg_attr(not(feature = "gpu"), allow(dead_code, reason = "forms are those of GPUs"))]
pub(crate) fn count_derived_form() {
    DERIVED.set(DERIVED.get() + 1);
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

/// Whether this thread records.
pub(crate) fn is_recording() -> bool {
    STATE.with(|s| s.borrow().records.is_some())
}

fn wait_for(tensor: &Tensor<2>) {
    // A device that failed says so again, with its reason, where its results are read.
    let _ = tensor.device().sync();
}

/// A clock that runs only while recording.
pub(crate) struct Clock(Option<Instant>);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(is_recording().then(Instant::now))
    }

    /// Starts once the device of a tensor has done what it was given before.
    pub(crate) fn start_on(tensor: &Tensor<2>) -> Self {
        if is_recording() {
            wait_for(tensor);
        }
        Self::start()
    }

    /// Time of work on the host.
    pub(crate) fn ms(&self) -> f64 {
        self.0.map_or(0.0, |t| t.elapsed().as_secs_f64() * 1e3)
    }

    /// Time until the device of a tensor has finished what it was given.
    pub(crate) fn ms_on(&self, tensor: &Tensor<2>) -> f64 {
        if self.0.is_some() {
            wait_for(tensor);
        }
        self.ms()
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
