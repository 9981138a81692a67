//! What is derived from parameters at inference, kept on a GPU while the parameters live: folded norms, and weights in the order of kernels.
//!
//! An entry holds the memory it was derived from, so nobody writes to that memory meanwhile and its number stays taken. Entries whose
//! memory nobody else holds any more are dropped when the next one comes.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::backend::TensorMetadata;
use burn::tensor::{DType, FloatDType, Tensor};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use lattice_cpu::PackedShape;
use lattice_gpu::conv::mma::MmaPlan;
use lattice_gpu::{Buffer, Gpu, norm};

use super::device::gpu_device;
use super::rows::tensor_of;
use crate::trace;

/// Where a tensor of known sizes lies. Tensors made from host data have room between their rows on some devices, so that contiguous ones
/// are not the rule.
#[derive(PartialEq, Eq, Hash)]
struct Place {
    memory: (usize, u64),
    strides: Vec<usize>,
}

impl Place {
    fn of(tensor: &CubeTensor) -> Self {
        Self { memory: Buffer::memory_of(&tensor.handle), strides: tensor.meta.strides().to_vec() }
    }
}

/// What a form was derived from, and how.
#[derive(PartialEq, Eq, Hash)]
enum Key {
    /// Place, taps and channels of a packed weight, and the plan where the order of its fragments depends on one.
    Packed(Place, [usize; 3], Option<MmaPlan>),
    /// Places of the codes, scales and biases of a packed weight (and of the steps of its activations), its sizes, the plan, and the element
    /// type that codes become; none where they are multiplied with bytes.
    Codes(Vec<Place>, PackedShape, MmaPlan, Option<DType>),
    /// Memory and length of a vector that is cast, and the type it takes.
    Cast((usize, u64), usize, DType),
    /// Memories of the statistics and parameters of a norm, its channels, the bits of its `eps`, and whether it has a gamma.
    Folded(Vec<(usize, u64)>, usize, [u64; 2]),
}

struct Entry {
    sources: Vec<Buffer>,
    form: Arc<dyn Any + Send + Sync>,
}

/// The form under a key, derived by the first caller.
fn kept<T: Any + Send + Sync>(
    key: Key,
    sources: impl FnOnce() -> Vec<Buffer>,
    derive: impl FnOnce() -> T,
) -> Arc<T> {
    found(&key).unwrap_or_else(|| {
        let sources = sources();
        keep(key, sources, derive())
    })
}

static KEPT: Mutex<Option<HashMap<Key, Entry>>> = Mutex::new(None);

/// The entries. They are inserted whole, so a panic elsewhere leaves the map as it should be.
fn entries() -> MutexGuard<'static, Option<HashMap<Key, Entry>>> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The form under a key, where it is kept.
fn found<T: Any + Send + Sync>(key: &Key) -> Option<Arc<T>> {
    let form = entries().as_ref()?.get(key)?.form.clone();
    Arc::downcast(form).ok()
}

/// Keeps a form for as long as its sources live.
fn keep<T: Any + Send + Sync>(key: Key, sources: Vec<Buffer>, form: T) -> Arc<T> {
    trace::count_derived_form();
    let form = Arc::new(form);
    // What computed a part of a larger memory may free it without anyone seeing it go: nothing is kept for that.
    if sources.iter().any(Buffer::is_piece) {
        return form;
    }
    let mut guard = entries();
    let kept = guard.get_or_insert_default();
    kept.retain(|_, entry| !entry.sources.iter().any(Buffer::is_last));
    kept.insert(key, Entry { sources, form: form.clone() });
    form
}

/// Whether what is derived from a tensor can be kept: not where it is a part of a larger memory, which nobody sees go.
pub(super) fn can_be_kept(tensor: &CubeTensor) -> bool {
    !buffer(tensor).is_piece()
}

/// A weight in the order that matrix units read, packed once for as long as the weight lives.
pub(super) fn packed_weight<T: Any + Send + Sync>(
    weight: &CubeTensor,
    shape: [usize; 3],
    plan: Option<MmaPlan>,
    pack: impl FnOnce() -> T,
) -> Arc<T> {
    kept(Key::Packed(Place::of(weight), shape, plan), || vec![buffer(weight)], pack)
}

/// The codes of a packed weight in the order that matrix units read, put there once for as long as its tensors live.
pub(super) fn ordered_codes<T: Any + Send + Sync>(
    tensors: &[&CubeTensor],
    shape: PackedShape,
    plan: MmaPlan,
    elements: Option<DType>,
    pack: impl FnOnce() -> T,
) -> Arc<T> {
    let places = tensors.iter().map(|tensor| Place::of(tensor)).collect();
    let sources = || tensors.iter().map(|tensor| buffer(tensor)).collect();
    kept(Key::Codes(places, shape, plan, elements), sources, pack)
}

/// Scale and shift of a norm, from its mean and variance and from its gamma and beta: `fold` makes them, once on a GPU for as long as these
/// live, each time elsewhere.
pub(crate) fn folded(
    statistics: [Tensor<1>; 2],
    affine: [Option<Tensor<1>>; 2],
    eps: f64,
    fold: impl FnOnce([Tensor<1>; 2], [Option<Tensor<1>>; 2]) -> (Tensor<1>, Tensor<1>),
) -> (Tensor<1>, Tensor<1>) {
    let is_plain = |tensor: &Tensor<1>| gpu_device(&tensor.device()).is_some() && !tensor.is_autodiff();
    if !statistics.iter().chain(affine.iter().flatten()).all(is_plain) {
        return fold(statistics, affine);
    }
    // A clone of a tensor takes as long as all else that a norm which is known costs.
    let primitive = |tensor: Tensor<1>| {
        let primitive: CubeTensor =
            tensor.try_into_primitive::<CubeBackend>().expect("a plain tensor of a GPU");
        primitive
    };
    let statistics = statistics.map(primitive);
    let affine = affine.map(|operand| operand.map(primitive));
    let tensor = Tensor::from_primitive::<CubeBackend>;
    let sources = || statistics.iter().chain(affine.iter().flatten());
    // Views of other tensors have no memory of their own to be known by.
    if !sources().all(CubeTensor::is_contiguous) {
        return fold(statistics.map(tensor), affine.map(|operand| operand.map(tensor)));
    }
    // A norm with beta alone is told from one with gamma alone by nothing else.
    let has_gamma = u64::from(affine[0].is_some());
    let memories = sources().map(|primitive| Buffer::memory_of(&primitive.handle)).collect();
    // Vectors that begin where longer ones do are other vectors.
    let channels = statistics[0].meta.num_elements();
    let key = Key::Folded(memories, channels, [eps.to_bits(), has_gamma]);
    if let Some(folded) = found::<(Tensor<1>, Tensor<1>)>(&key) {
        return folded.as_ref().clone();
    }
    let buffers: Vec<Buffer> = sources().map(buffer).collect();
    let (statistics, affine) = (statistics.map(tensor), affine.map(|operand| operand.map(tensor)));
    let at_once = fold_at_once(&statistics, &affine, &buffers, eps);
    let folded = at_once.unwrap_or_else(|| fold(statistics, affine));
    keep(key, buffers, folded).as_ref().clone()
}

/// Scale and shift in one launch where everything is f32 on one device; `buffers` are those of the tensors that there are.
fn fold_at_once(
    statistics: &[Tensor<1>; 2],
    affine: &[Option<Tensor<1>>; 2],
    buffers: &[Buffer],
    eps: f64,
) -> Option<(Tensor<1>, Tensor<1>)> {
    let device = statistics[0].device();
    let at_once = |tensor: &Tensor<1>| tensor.dtype() == DType::F32 && tensor.device() == device;
    let all = || statistics.iter().chain(affine.iter().flatten());
    let c = statistics[0].dims()[0];
    if c == 0 || !all().all(|tensor| at_once(tensor) && tensor.dims() == [c]) {
        return None;
    }
    let cube = gpu_device(&device)?;
    let gpu = Gpu::new(cube.client());
    let [mean, var, rest @ ..] = buffers else { return None };
    let mut rest = rest.iter();
    let [gamma, beta] = affine.each_ref().map(|operand| operand.as_ref().and_then(|_| rest.next()));
    let folded = norm::fold(&gpu, [mean, var], [gamma, beta], eps as f32);
    let tensor =
        |buffer| Tensor::from_primitive::<CubeBackend>(tensor_of(&gpu, &cube, buffer, [c], DType::F32));
    let [scale, shift] = folded.map(tensor);
    Some((scale, shift))
}

/// A bias in the type of the features: cast once on a GPU for as long as it lives, each time elsewhere. A launch a layer is much where a
/// convolution is one.
pub(crate) fn cast_bias(bias: Tensor<1>, dtype: FloatDType) -> Tensor<1> {
    if bias.dtype() == DType::from(dtype) {
        return bias;
    }
    let Some(buffer) = buffer_of(&bias) else { return bias.cast(dtype) };
    let key = Key::Cast(buffer.memory(), buffer.len, dtype.into());
    kept(key, || vec![buffer], || bias.cast(dtype)).as_ref().clone()
}

/// The memory of a tensor of a GPU without a graph.
fn buffer_of(tensor: &Tensor<1>) -> Option<Buffer> {
    gpu_device(&tensor.device()).filter(|_| !tensor.is_autodiff())?;
    let primitive: CubeTensor = tensor.clone().try_into_primitive::<CubeBackend>().ok()?;
    primitive.is_contiguous().then(|| buffer(&primitive))
}

/// The memory of a tensor, however its rows lie in it.
fn buffer(primitive: &CubeTensor) -> Buffer {
    Buffer::from_handle(primitive.handle.clone(), primitive.shape().num_elements())
}
