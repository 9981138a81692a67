//! Ranks that share a batch: threads of one process, each with a device and a part of the batch, whose sums go over all parts.
//!
//! A [`Group`] is one rank's place among them. What every rank learns alike it learns here: numbers of the host
//! ([`Group::exchange`]), sums of tensors ([`Group::sum`]), and the statistics of batch norms ([`Group::share_norms`]). Ranks ask for the
//! same things in the same order.

mod device;
mod meeting;

use std::cell::RefCell;
use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};

use crate::{Error, Result};
use device::Link;
use meeting::Meeting;

/// A rank's place among the threads that work on one batch.
///
/// Numbers of the host meet in memory and are added in the order of the ranks. Tensors go the same way ([`Group::in_process`]), or from
/// GPU to GPU by NCCL ([`Group::over_devices`]), which adds in an order that the machine and its library decide: the same in every run, and
/// that of the ranks for two of them. Either way all ranks get the same bits.
#[derive(Clone, Debug)]
pub struct Group {
    rank: usize,
    meeting: Arc<Meeting>,
    link: Link,
}

thread_local! {
    /// The group whose batch norms this thread computes now.
    static SHARING: RefCell<Option<Group>> = const { RefCell::new(None) };
}

impl Group {
    /// The places of `ranks` threads whose tensors meet in host memory, which takes tensors of any device and waits for them.
    ///
    /// # Errors
    /// No ranks.
    pub fn in_process(ranks: usize) -> Result<Vec<Self>> {
        if ranks == 0 {
            return Err(refuse("expected at least one rank, found none; name a device".into()));
        }
        Ok(Self::linked(ranks, &Link::Host))
    }

    /// The places of threads with one CUDA device each, in the order of the devices; tensors go over NCCL and no thread waits for them.
    ///
    /// Opens the devices.
    ///
    /// # Errors
    /// No devices, one that is not of CUDA, one that is named twice, a machine without libnccl; each says what to do.
    pub fn over_devices(devices: &[Device]) -> Result<Vec<Self>> {
        let link = Link::over(devices)?;
        Ok(Self::linked(devices.len(), &link))
    }

    fn linked(ranks: usize, link: &Link) -> Vec<Self> {
        let meeting = Arc::new(Meeting::new(ranks));
        (0..ranks).map(|rank| Self { rank, meeting: meeting.clone(), link: link.clone() }).collect()
    }

    /// Number of this rank, from 0.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Number of ranks.
    pub fn ranks(&self) -> usize {
        self.meeting.ranks()
    }

    /// Waits until every rank has given its numbers; all get those of each rank, in the order of the ranks.
    ///
    /// # Errors
    /// A rank that has left: nobody will answer any more.
    pub fn exchange(&self, values: &[f64]) -> Result<Arc<Vec<Vec<f64>>>> {
        self.meeting.exchange(self.rank, values.to_vec()).ok_or_else(|| {
            refuse("expected all ranks to go on, found that one has ended; its own error says why".into())
        })
    }

    /// Sums over the ranks, added in their order.
    ///
    /// # Errors
    /// A rank that has left, or that gave another number of values.
    pub fn add(&self, values: &[f64]) -> Result<Vec<f64>> {
        let given = self.exchange(values)?;
        let mut sums = vec![0.0; values.len()];
        for (rank, part) in given.iter().enumerate() {
            if part.len() != sums.len() {
                return Err(refuse(format!(
                    "expected {} values of rank {rank}, found {}; all ranks do the same steps",
                    sums.len(),
                    part.len()
                )));
            }
            sums.iter_mut().zip(part).for_each(|(sum, value)| *sum += value);
        }
        Ok(sums)
    }

    /// Sum of the ranks' tensors `[n]`, the same bits on every rank. Outside of any graph; f32 for a group over devices.
    ///
    /// # Errors
    /// As [`add`](Self::add); a tensor of another device or type than the group's.
    pub fn sum(&self, values: Tensor<1>) -> Result<Tensor<1>> {
        match &self.link {
            Link::Host => {
                let (device, dtype, dims) = (values.device(), values.dtype(), values.dims());
                let values: Vec<f64> = values.into_data().iter::<f64>().collect();
                let sums = TensorData::new(self.add(&values)?, dims);
                Ok(Tensor::from_data(sums, (&device, dtype)))
            }
            #[cfg(feature = "gpu")]
            Link::Devices(ids) => {
                use burn::tensor::{DType, FloatDType};
                let values = if values.dtype() == DType::F32 { values } else { values.cast(FloatDType::F32) };
                device::sum(values, ids)
            }
        }
    }

    /// Runs `work` with the batch norms of this thread over the rows of all ranks: those that are in training find moments, and later the
    /// gradients that follow from them, over the whole batch. Every rank calls the same norms in the same order.
    ///
    /// Where a rank leaves meanwhile, the norm unwinds with an [`Error`] as its payload.
    pub fn share_norms<T>(&self, work: impl FnOnce() -> T) -> T {
        struct Before(Option<Group>);
        impl Drop for Before {
            fn drop(&mut self) {
                SHARING.set(self.0.take());
            }
        }
        let _before = Before(SHARING.replace(Some(self.clone())));
        work()
    }

    /// The group whose batch norms this thread computes now.
    pub(crate) fn sharing() -> Option<Self> {
        SHARING.with_borrow(Clone::clone)
    }

    /// Says that this rank ends: whoever waits for it, now or later, gets an error. True for the first that leaves.
    pub fn leave(&self) -> bool {
        self.meeting.leave()
    }

    /// Whether a rank has left.
    pub fn is_over(&self) -> bool {
        self.meeting.is_over()
    }
}

/// An exchange inside of an operation that has no result to refuse with: unwinds with the error, which the rank's thread catches.
pub(crate) fn or_unwind<T>(result: Result<T>) -> T {
    result.unwrap_or_else(|error| std::panic::resume_unwind(Box::new(error)))
}

fn refuse(what: String) -> Error {
    Error::Value { op: "Group", what }
}
