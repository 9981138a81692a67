//! The devices of a run, one a rank, and the threads that train on them.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use burn::tensor::Device;
use burn_lattice::Group;

use crate::{Event, Outcome, Result, StepReport, TrainError, Validation};

/// The devices that a run trains on, a thread each. A program calls [`burn_lattice::share_one_stream`] first: with a stream for every thread
/// launches on GPUs cost more.
#[derive(Clone, Debug)]
pub struct Ranks {
    pub(crate) members: Vec<(Device, Option<Group>)>,
}

impl Ranks {
    /// One device.
    pub fn one(device: &Device) -> Self {
        Self { members: vec![(device.clone(), None)] }
    }

    /// CUDA devices of this machine, connected by NCCL; one device needs no connection.
    ///
    /// # Errors
    /// As [`Group::over_devices`].
    pub fn over_devices(devices: &[Device]) -> Result<Self> {
        match devices {
            [device] => Ok(Self::one(device)),
            _ => Ok(Self::with(devices, Group::over_devices(devices)?)),
        }
    }

    /// Devices of any kind, the same one several times if need be, connected through host memory: slower than one device where they are one, and
    /// the way to see that a run over several gives what one gives.
    ///
    /// # Errors
    /// No devices.
    pub fn in_process(devices: &[Device]) -> Result<Self> {
        Ok(Self::with(devices, Group::in_process(devices.len())?))
    }

    fn with(devices: &[Device], groups: Vec<Group>) -> Self {
        Self { members: devices.iter().cloned().zip(groups.into_iter().map(Some)).collect() }
    }

    /// Number of devices.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }
}

/// Scenes of a batch, by their place in it, that rank `rank` of `ranks` takes: all ranks together take each once, and none more than one scene more
/// than another.
///
/// # Panics
/// When there are no ranks.
pub fn part_of_batch(batch: usize, rank: usize, ranks: usize) -> Range<usize> {
    rank * batch / ranks..(rank + 1) * batch / ranks
}

/// How long the threads of other ranks may take to notice that one has ended: a thread that waits for its device, which waits for the rank that
/// ended, never does.
pub(crate) const GRACE: Duration = Duration::from_secs(20);

/// What a thread of its own trains.
pub(crate) trait Member: Send + 'static {
    /// The ranks that share the batches.
    fn group(&self) -> Option<&Group>;

    /// Trains up to a step, or to the end.
    ///
    /// # Errors
    /// What ends the run.
    fn train(&mut self, until: Option<usize>, events: &mut dyn FnMut(&Event<'_>)) -> Result<Outcome>;
}

/// What threads tell the one that waits for them.
enum Message<M> {
    Event(Told),
    /// A rank's thread ended; the rank is gone where it panicked.
    Ended {
        number: usize,
        rank: Option<Box<M>>,
        result: Result<Outcome>,
        first: bool,
    },
}

/// An [`Event`] on its way between threads.
enum Told {
    Steps { reports: Vec<StepReport>, of: usize, seconds: f64 },
    Scored { scenes: usize, of: usize },
    Validated { validation: Validation, loss: f64, best: bool },
}

impl Told {
    fn from_event(event: &Event<'_>) -> Self {
        match *event {
            Event::Steps { reports, of, seconds } => Self::Steps { reports: reports.to_vec(), of, seconds },
            Event::Scored { scenes, of } => Self::Scored { scenes, of },
            Event::Validated { validation, loss, best } => {
                Self::Validated { validation: validation.clone(), loss, best }
            }
        }
    }

    fn as_event(&self) -> Event<'_> {
        match *self {
            Self::Steps { ref reports, of, seconds } => Event::Steps { reports, of, seconds },
            Self::Scored { scenes, of } => Event::Scored { scenes, of },
            Self::Validated { ref validation, loss, best } => Event::Validated { validation, loss, best },
        }
    }
}

/// Trains all ranks, each on a thread of its own, and gives them back in `ranks`; where one ended in a panic, or never came back, `ranks` is
/// empty.
///
/// # Errors
/// That of the rank that failed first; the others end at their next exchange, or are left behind.
pub(crate) fn train<M: Member>(
    ranks: &mut Vec<M>,
    until: Option<usize>,
    grace: Duration,
    events: &mut dyn FnMut(&Event<'_>),
) -> Result<Outcome> {
    let n = ranks.len();
    let (send, receive) = channel();
    let group = ranks.first().and_then(|rank| rank.group().cloned());
    for (number, rank) in ranks.drain(..).enumerate() {
        let send = send.clone();
        let name = format!("rank {number}");
        let work = move || train_one(number, rank, until, &send);
        if let Err(e) = thread::Builder::new().name(name).spawn(work) {
            // Those that began must not wait for it.
            if let Some(group) = group {
                group.leave();
            }
            let what = format!("expected a thread for it, found: {e}; free some of the system's");
            return Err(TrainError::Rank { rank: number, what });
        }
    }
    drop(send);
    let mut back: Vec<Option<Box<M>>> = (0..n).map(|_| None).collect();
    let mut outcome = Ok(Outcome::Complete);
    let mut deadline: Option<Instant> = None;
    for _ in 0..n {
        let (number, rank, result, first) = loop {
            let message = match deadline {
                None => receive.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(end) => receive.recv_timeout(end.saturating_duration_since(Instant::now())),
            };
            match message {
                Ok(Message::Event(told)) => events(&told.as_event()),
                Ok(Message::Ended { number, rank, result, first }) => break (number, rank, result, first),
                // Somebody waits for a device that never answers: nothing of that rank can be used any more.
                Err(_) => return outcome,
            }
        };
        back[number] = rank;
        match result {
            Ok(found) if outcome.is_ok() && number == 0 => outcome = Ok(found),
            Ok(_) => {}
            Err(error) => {
                deadline.get_or_insert_with(|| Instant::now() + grace);
                // The others only heard that one had left.
                if first || outcome.is_ok() {
                    outcome = Err(error);
                }
            }
        }
    }
    if back.iter().all(Option::is_some) {
        ranks.extend(back.into_iter().flatten().map(|rank| *rank));
    }
    outcome
}

/// The thread of a rank.
fn train_one<M: Member>(number: usize, rank: M, until: Option<usize>, send: &Sender<Message<M>>) {
    let mut rank = Box::new(rank);
    let group = rank.group().cloned();
    let mut tell = |event: &Event<'_>| {
        // Nobody listens any more where another rank failed.
        let _ = send.send(Message::Event(Told::from_event(event)));
    };
    let work = AssertUnwindSafe(|| rank.train(until, &mut tell));
    let (result, panicked) = match catch_unwind(work) {
        Ok(result) => (result, false),
        Err(payload) => match payload.downcast::<burn_lattice::Error>() {
            // A norm whose exchange was cut short.
            Ok(error) => (Err(TrainError::Lattice(*error)), false),
            Err(payload) => {
                let text = payload.downcast_ref::<String>().cloned();
                let text = text.or_else(|| payload.downcast_ref::<&str>().map(ToString::to_string));
                let what = format!(
                    "expected it to go on, found: {}; take smaller batches where its device is out of memory, else report it",
                    text.unwrap_or_default()
                );
                (Err(TrainError::Rank { rank: number, what }), true)
            }
        },
    };
    let first = result.is_err() && group.is_some_and(|group| group.leave());
    let rank = (!panicked).then_some(rank);
    let _ = send.send(Message::Ended { number, rank, result, first });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A rank that meets the others once a step until something happens to it.
    struct Fake {
        group: Group,
        step: usize,
        end: fn(&Fake) -> Option<Result<Outcome>>,
    }

    impl Member for Fake {
        fn group(&self) -> Option<&Group> {
            Some(&self.group)
        }

        fn train(&mut self, _: Option<usize>, events: &mut dyn FnMut(&Event<'_>)) -> Result<Outcome> {
            loop {
                self.group.exchange(&[self.step as f64])?;
                self.step += 1;
                events(&Event::Scored { scenes: self.step, of: self.group.rank() });
                if let Some(end) = (self.end)(self) {
                    return end;
                }
            }
        }
    }

    /// What training two ranks came to, how many came back, and how many events there were.
    fn trained(end: fn(&Fake) -> Option<Result<Outcome>>) -> (Result<Outcome>, usize, usize) {
        let groups = Group::in_process(2).expect("two ranks");
        let mut ranks: Vec<Fake> = groups.into_iter().map(|group| Fake { group, step: 0, end }).collect();
        let mut told = 0;
        let outcome = train(&mut ranks, None, Duration::from_millis(300), &mut |_| told += 1);
        (outcome, ranks.len(), told)
    }

    fn is_last(fake: &Fake) -> bool {
        fake.group.rank() == 1 && fake.step == 3
    }

    #[test]
    fn ranks_that_end_come_back_and_are_heard() {
        let (outcome, back, told) = trained(|fake| (fake.step == 5).then_some(Ok(Outcome::Paused)));
        assert!(matches!(outcome, Ok(Outcome::Paused)), "{outcome:?}");
        assert_eq!((back, told), (2, 10));
    }

    #[test]
    fn the_error_of_the_rank_that_failed_is_the_one_that_is_told() {
        let (outcome, back, _) = trained(|fake| {
            is_last(fake).then(|| Err(TrainError::option("test", "expected a rank, found a failure")))
        });
        let text = outcome.map(|_| ()).map_err(|e| e.to_string());
        assert_eq!(text, Err("test: expected a rank, found a failure".into()));
        assert_eq!(back, 2, "the other one heard of it at its next exchange");
    }

    #[test]
    fn a_rank_that_panics_ends_the_run_and_does_not_come_back() {
        let (outcome, back, _) = trained(|fake| {
            // Without the hook that prints it.
            is_last(fake).then(|| std::panic::resume_unwind(Box::new("no memory")))
        });
        let text = outcome.map(|_| ()).map_err(|e| e.to_string()).expect_err("it panicked");
        assert!(text.starts_with("rank 1: expected it to go on, found: no memory"), "{text}");
        assert_eq!(back, 0);
    }

    #[test]
    fn a_thread_that_never_answers_is_left_behind() {
        let clock = Instant::now();
        let (outcome, back, _) = trained(|fake| {
            if fake.group.rank() == 0 && fake.step == 3 {
                // As one that waits for a device whose work hangs on another's.
                thread::sleep(Duration::from_secs(3600));
            }
            is_last(fake).then(|| Err(TrainError::option("test", "expected a rank, found a failure")))
        });
        assert!(outcome.is_err_and(|error| error.to_string().contains("found a failure")));
        assert_eq!(back, 0);
        assert!(clock.elapsed() < Duration::from_secs(60), "nobody waits for it for ever");
    }

    #[test]
    fn parts_of_a_batch_hold_each_scene_once() {
        for batch in 1..20 {
            for ranks in 1..=batch {
                let parts: Vec<_> = (0..ranks).map(|rank| part_of_batch(batch, rank, ranks)).collect();
                let all: Vec<usize> = parts.iter().cloned().flatten().collect();
                assert_eq!(all, (0..batch).collect::<Vec<_>>(), "{parts:?}");
                let lens = parts.iter().map(ExactSizeIterator::len);
                let [least, most] = [lens.clone().min(), lens.max()].map(Option::unwrap_or_default);
                assert!(least >= 1 && most - least <= 1, "{parts:?}");
            }
        }
    }
}
