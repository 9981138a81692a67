//! Attention among the rows of patches.

use burn::backend::Flex;
use burn::tensor::{Device, Tensor, activation};
use lattice_cpu::PatchRun;

use super::precision::{runs_on_cpu_kernels, widened};
use crate::backend::attend_on_cpu;
use crate::routes::DeviceClass;
use crate::tensor::check_features;
use crate::{Error, Result};

/// Scores that are computed at once where they are a tensor, at most; a few times this many f32 values are alive.
const SCORES: usize = 1 << 21;
/// The same on a GPU, where few large launches are better.
const GPU_SCORES: usize = 1 << 25;

/// `softmax(q · kᵀ / sqrt(channels / heads)) · v` among the rows of each patch, per head. Computed in f32 (f64 for f64)
/// and rounded once. Differentiable.
///
/// On the CPU without autodiff one kernel holds the scores of 32 rows at a time; elsewhere scores are tensors of a bounded number of
/// patches, and autodiff keeps all of them.
///
/// # Shapes
/// `qkv [n, 3 · channels]`: queries, keys and values side by side, each with the channels of a head next to each other; `runs`, in order, hold
/// all rows; result `[n, channels]`. Cost: `4 · channels · length` operations a row of a patch of `length`. On a GPU the products are Burn's, which
/// may round f32 to tf32 (ten bits of the mantissa).
/// # Errors
/// A dtype that is not a float of the device, columns that are not three times a multiple of `heads`, zero heads, or runs that do not hold each row once, in order.
pub fn patch_attention(qkv: Tensor<2>, runs: &[PatchRun], heads: usize) -> Result<Tensor<2>> {
    let op = "patch_attention";
    check_features(op, &qkv)?;
    let [n, columns] = qkv.dims();
    if heads == 0 || !columns.is_multiple_of(3 * heads) {
        return Err(Error::Shape {
            op,
            expected: format!("three times a multiple of {heads} columns, for as many heads"),
            found: format!("{columns} columns"),
        });
    }
    let mut at = 0usize;
    for run in runs {
        if run.first != at {
            return Err(Error::Value {
                op,
                what: format!("expected a run that begins at row {at}, found one at {}", run.first),
            });
        }
        at = run.patches.checked_mul(run.length).and_then(|rows| at.checked_add(rows)).unwrap_or(usize::MAX);
    }
    if at != n {
        return Err(Error::Shape {
            op,
            expected: format!("runs of {n} rows"),
            found: format!("runs of {at}"),
        });
    }
    let device = qkv.device();
    if columns == 0 || n == 0 {
        return Ok(Tensor::zeros([n, columns / 3], (&device, qkv.dtype())));
    }
    Ok(widened(qkv, |qkv| {
        if runs_on_cpu_kernels(&qkv) {
            on_cpu(qkv, runs, heads)
        } else {
            by_tensors(qkv, &device, runs, heads)
        }
    }))
}

fn on_cpu(qkv: Tensor<2>, runs: &[PatchRun], heads: usize) -> Tensor<2> {
    let qkv = qkv.try_into_primitive::<Flex>().expect("the CPU's tensors are those of Flex");
    Tensor::from_primitive::<Flex>(attend_on_cpu(qkv, runs, heads))
}

/// As many patches at a time as bound the scores.
fn by_tensors(qkv: Tensor<2>, device: &Device, runs: &[PatchRun], heads: usize) -> Tensor<2> {
    let most = if DeviceClass::of(device).is_gpu() { GPU_SCORES } else { SCORES };
    let mut mixed = Vec::new();
    for run in runs.iter().filter(|run| run.length > 0) {
        let at_once = (most / run.length.saturating_mul(run.length).saturating_mul(heads)).max(1);
        for done in (0..run.patches).step_by(at_once) {
            let count = at_once.min(run.patches - done);
            let part = qkv.clone().narrow(0, run.first + done * run.length, count * run.length);
            mixed.push(attend(part, count, run.length, heads));
        }
    }
    Tensor::cat(mixed, 0)
}

/// Attention within `count` patches of `length` rows: `[count · length, 3 c]` to `[count · length, c]`.
fn attend(qkv: Tensor<2>, count: usize, length: usize, heads: usize) -> Tensor<2> {
    let channels = qkv.dims()[1] / 3;
    let width = channels / heads;
    let split: Tensor<5> = qkv.reshape([count, length, 3, heads, width]);
    let split = split.permute([2, 0, 3, 1, 4]);
    let [q, k, v] = [0, 1, 2].map(|i| split.clone().narrow(0, i, 1).reshape([count, heads, length, width]));
    let scores: Tensor<4> = q.mul_scalar((width as f64).powf(-0.5)).matmul(k.swap_dims(2, 3));
    let mixed = activation::softmax(scores, 3).matmul(v);
    mixed.swap_dims(1, 2).reshape([count * length, channels])
}
