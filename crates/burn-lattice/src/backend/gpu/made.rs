//! Supports on a device: those copied to it, and those made there.
//!
//! What can be made without a trip to the host is; where it cannot (keys past 64 bits, strides past `i32`, rows that would leave
//! `i32`), the functions answer `None` and the host makes the same rows, or the error that says what is wrong.

use std::cell::Cell;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use burn::tensor::{DType, Device, Int, Tensor};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{CubeBackend, CubeDevice};
use lattice_core::{
    self as core, Coord, KernelSpec, MAX_BATCH_ID, RelationKind, SupportPolicy, canonical_cmp,
};
use lattice_gpu::index::BlockIndex;
use lattice_gpu::support::{
    LevelMarks, NewRows, Pyramid, canonical_order, children, coarser, describe, describe_with, expanded,
    reached,
};
use lattice_gpu::tiles::{ExpectedRelation, Geometry, Tiles};
use lattice_gpu::{Buffer, Gpu};

use super::device::gpu_device;
use super::forms::{MAX_ROWS, key};
use super::rows::tensor_of;

/// A support on a device.
pub(super) struct DeviceSupport {
    pub(super) coords: Buffer,
    host: Rows,
    order: OnceLock<Option<Buffer>>,
    index: OnceLock<BlockIndex>,
    /// The levels above, each coarser by two.
    above: OnceLock<Arc<Pyramid>>,
    /// What they are made from, where it was marked and counted when the rows were described.
    marks: Mutex<Option<(LevelMarks, Vec<u32>)>>,
    /// Where rows were described: the tiles of a relation with themselves that were built meanwhile, until the first one is asked for.
    ahead: Mutex<Option<Ahead>>,
    /// Where it is a level itself.
    level: Option<(Arc<Pyramid>, usize)>,
}

/// Tiles of a relation that was expected, if there are any.
type Ahead = Option<(Geometry, Tiles)>;

/// Most rows that levels are made of together: the places of all are numbered in 32 bits.
const PYRAMID_ROWS: usize = 1 << 28;

thread_local! {
    /// Whether the levels of the support that this thread checked last were asked for: those of the next one likely are, too, as each scan
    /// that a network sees comes as a support. Where they are marked before the wait for the check, they need none of their own, a tenth of a
    /// millisecond; where nobody asks for them, two short launches were in vain, and the next support is not marked.
    static LEVELS_FOLLOW: Cell<bool> = const { Cell::new(false) };
    /// The first relation with itself that the support was asked for which this thread checked last, and the order of its rows. For the same
    /// reason: the device builds its tiles while the host waits for the check.
    static RELATION_FOLLOWS: Cell<Option<ExpectedRelation>> = const { Cell::new(None) };
}

/// What is known of the rows of a support without reading them.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    pub(super) n: usize,
    pub(super) canonical: bool,
    pub(super) bounds: Option<(Coord, Coord)>,
}

impl Rows {
    fn of(support: &core::Support) -> Self {
        Self { n: support.n_rows(), canonical: support.is_canonical(), bounds: support.bounds() }
    }
}

impl DeviceSupport {
    pub(super) fn new(coords: Buffer, host: Rows) -> Self {
        let (order, index, above) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        let (marks, ahead) = (Mutex::new(None), Mutex::new(None));
        Self { coords, host, order, index, above, marks, ahead, level: None }
    }

    /// The tiles of a relation of the rows with themselves, where they were built while the rows were described.
    pub(super) fn tiles_ahead(&self, geometry: Geometry) -> Option<Tiles> {
        // Taken whole, so a panic elsewhere leaves it as it should be.
        let ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        let canonical = self.host.canonical;
        RELATION_FOLLOWS.set(Some(ExpectedRelation { geometry, canonical }));
        ahead.filter(|(built, _)| *built == geometry).map(|(_, tiles)| tiles)
    }

    /// The level of a pyramid that these rows are, if they are one.
    pub(super) fn level(&self) -> Option<&(Arc<Pyramid>, usize)> {
        self.level.as_ref()
    }

    /// The level that holds the rows divided by two, made by the first caller together with those above.
    fn halved(&self, gpu: &Gpu) -> (Arc<Pyramid>, usize) {
        match &self.level {
            Some((levels, level)) if level + 1 < levels.n_levels() => (levels.clone(), level + 1),
            _ => {
                let make = || {
                    LEVELS_FOLLOW.set(true);
                    // Taken whole, so a panic elsewhere leaves it as it should be.
                    let marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner).take();
                    let (coords, order) = (&self.coords, self.order(gpu));
                    Arc::new(match marks {
                        Some((marks, counts)) => Pyramid::of_marks(gpu, coords, order, &marks, &counts),
                        None => Pyramid::build(gpu, coords, order),
                    })
                };
                (self.above.get_or_init(make).clone(), 0)
            }
        }
    }

    /// The index, built by the first caller.
    pub(super) fn index(&self, gpu: &Gpu) -> &BlockIndex {
        if let Some((levels, level)) = &self.level {
            return levels.index_of(*level);
        }
        self.index.get_or_init(|| match self.host.canonical {
            true => BlockIndex::of_canonical(gpu, &self.coords, self.host.n),
            false => BlockIndex::build(gpu, &self.coords, self.host.n),
        })
    }

    /// Rows in canonical order, where they do not stand in it.
    pub(super) fn order(&self, gpu: &Gpu) -> Option<&Buffer> {
        let sort = || {
            let bounds = self.host.bounds.filter(|_| !self.host.canonical)?;
            if let Some(order) = self.index(gpu).order(gpu) {
                return Some(order.clone());
            }
            Some(canonical_order(gpu, &self.coords, &bounds).unwrap_or_else(|| {
                let rows = read_rows(gpu, &self.coords);
                let mut order: Vec<u32> = (0..rows.len() as u32).collect();
                order.sort_unstable_by(|&a, &b| canonical_cmp(&rows[a as usize], &rows[b as usize]));
                gpu.upload(&order)
            }))
        };
        self.order.get_or_init(sort).as_ref()
    }
}

impl core::Form for DeviceSupport {
    /// Bytes of the rows, of their order, of an index of their own, of the marks of their levels and of tiles that nobody has asked for.
    fn bytes(&self) -> usize {
        let order = self.order.get().and_then(Option::as_ref).map_or(0, |order| order.len);
        let marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        let marks = marks.as_ref().map_or(0, |(marks, _)| marks.bytes());
        let ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        let tiles = ahead.iter().flatten().map(|(_, tiles)| tiles.held_bytes()).sum::<usize>();
        4 * (self.coords.len + order) + self.index.get().map_or(0, BlockIndex::bytes) + marks + tiles
    }
}

fn read_rows(gpu: &Gpu, coords: &Buffer) -> Vec<Coord> {
    gpu.download::<i32>(coords).as_chunks::<4>().0.to_vec()
}

/// The form of a support on a device; copied there, where it was not made there.
pub(super) fn support(gpu: &Gpu, device: &CubeDevice, host: &core::Support) -> Arc<DeviceSupport> {
    let copy = || {
        let coords = gpu.upload(host.coords().as_flattened());
        Ok::<_, std::convert::Infallible>(DeviceSupport::new(coords, Rows::of(host)))
    };
    match host.attachments().get_or_build(key(device), copy) {
        Ok(form) => form,
    }
}

/// A support whose rows were made on a device. `None` past the rows that a support may have.
pub(super) fn made(gpu: &Gpu, device: &CubeDevice, form: DeviceSupport) -> Option<core::Support> {
    let Rows { n, canonical, bounds } = form.host;
    let (reader, coords) = (gpu.clone(), form.coords.clone());
    let support =
        core::Support::made_elsewhere(n, canonical, bounds, move || read_rows(&reader, &coords)).ok()?;
    let kept = support.attachments().get_or_build(key(device), || Ok::<_, std::convert::Infallible>(form));
    match kept {
        Ok(_) => Some(support),
    }
}

/// The support of coordinates `[n, 4]` that lie on a GPU as 32-bit integers, checked there. `None` where they lie elsewhere, and where
/// something is wrong with them: the checks on the host say what.
pub(crate) fn support_from_tensor(coords: &Tensor<2, Int>) -> Option<core::Support> {
    let device = gpu_device(&coords.device())?;
    let [n, columns] = coords.dims();
    if columns != 4 || n > MAX_ROWS {
        return None;
    }
    let gpu = Gpu::new(device.client());
    let coords = int_buffer(coords)?;
    let expected = RELATION_FOLLOWS.take();
    let NewRows { index, found, marks, tiles } =
        describe_with(&gpu, &coords, n, LEVELS_FOLLOW.take(), expected);
    let (low, high) = found.bounds?;
    if found.duplicates > 0 || low[0] < 0 || high[0] > MAX_BATCH_ID {
        return None;
    }
    let rows = Rows { n, canonical: found.canonical, bounds: found.bounds };
    let ahead: Ahead = expected.map(|expected| expected.geometry).zip(tiles);
    let form = DeviceSupport {
        index: index.into(),
        marks: Mutex::new(marks),
        ahead: Mutex::new(Some(ahead)),
        ..DeviceSupport::new(coords, rows)
    };
    made(&gpu, &device, form)
}

/// The rows of a support as a tensor `[n, 4]` on a GPU; `None` for another device.
pub(crate) fn support_to_tensor(device: &Device, host: &core::Support) -> Option<Tensor<2, Int>> {
    let cube = gpu_device(device).filter(|_| !host.is_empty())?;
    let gpu = Gpu::new(cube.client());
    let form = support(&gpu, &cube, host);
    let tensor: CubeTensor = tensor_of(&gpu, &cube, form.coords.clone(), [host.n_rows(), 4], DType::I32);
    Some(int_tensor(device, tensor))
}

/// Integers that lie on a GPU in 32 bits, as a buffer; `None` for others, and where there are none: memory without bytes cannot be
/// bound.
pub(super) fn int_buffer<const D: usize>(tensor: &Tensor<D, Int>) -> Option<Buffer> {
    let n = tensor.shape().num_elements();
    if n == 0 || tensor.dtype() != DType::I32 {
        return None;
    }
    let tensor = tensor.clone().without_autodiff().try_into_primitive::<CubeBackend>().ok()?;
    Some(Buffer::adopt(into_contiguous(tensor).handle, n))
}

/// Integers of a GPU as a tensor of `device`, with autodiff where that has it.
pub(super) fn int_tensor<const D: usize>(device: &Device, tensor: CubeTensor) -> Tensor<D, Int> {
    let tensor = Tensor::from_primitive::<CubeBackend>(tensor);
    if device.is_autodiff() { Tensor::from_inner(tensor) } else { tensor }
}

/// The rows that a relation creates, made on a GPU. `None` for another device and where the host must make them.
pub(crate) fn created_support(
    device: &Device,
    kind: RelationKind,
    source: &core::Support,
    spec: &KernelSpec,
    policy: SupportPolicy,
) -> Option<core::Support> {
    let cube = gpu_device(device)?;
    let bounds = source.bounds()?;
    // The host says what is wrong with a kernel.
    KernelSpec::try_new(spec.size, spec.stride, spec.padding, spec.dilation).ok()?;
    let gpu = Gpu::new(cube.client());
    match (kind, policy) {
        (RelationKind::Forward, SupportPolicy::Floor) => floor_support(&gpu, &cube, source, spec.stride),
        (RelationKind::Forward, SupportPolicy::KernelReach { range }) => {
            reach_support(&gpu, &cube, source, spec, range)
        }
        (RelationKind::Transposed | RelationKind::Generative, _) => {
            grown_support(&gpu, &cube, source, spec, &bounds)
        }
        _ => None,
    }
}

/// The distinct `floor(row / stride)`.
fn floor_support(
    gpu: &Gpu,
    device: &CubeDevice,
    source: &core::Support,
    stride: [u32; 3],
) -> Option<core::Support> {
    // Stride 1 creates nothing, or rows in another order.
    if stride == [1; 3] || source.n_rows() > MAX_ROWS {
        return None;
    }
    let bounds = source.bounds()?;
    let form = support(gpu, device, source);
    let (coords, n, level) = match stride {
        [2, 2, 2] if source.n_rows() <= PYRAMID_ROWS => {
            let (levels, level) = form.halved(gpu);
            let (coords, n) = levels.rows(level);
            (coords.clone(), n, Some((levels, level)))
        }
        _ => {
            let created = coarser(gpu, &form.coords, form.order(gpu), &bounds, stride)?;
            (created.coords, created.n_rows, None)
        }
    };
    let div = |c: &Coord| {
        let axis = |a: usize| i64::from(c[a + 1]).div_euclid(i64::from(stride[a])) as i32;
        [c[0], axis(0), axis(1), axis(2)]
    };
    let rows = Rows { n, canonical: true, bounds: Some((div(&bounds.0), div(&bounds.1))) };
    made(gpu, device, DeviceSupport { level, ..DeviceSupport::new(coords, rows) })
}

/// Whether every value fits `i32`.
fn fits(values: impl IntoIterator<Item = i64>) -> bool {
    values.into_iter().all(|value| i32::try_from(value).is_ok())
}

/// All `q` of [`SupportPolicy::KernelReach`].
fn reach_support(
    gpu: &Gpu,
    device: &CubeDevice,
    source: &core::Support,
    spec: &KernelSpec,
    range: Option<[u32; 3]>,
) -> Option<core::Support> {
    let (low, high) = source.bounds()?;
    let candidates = source.n_rows() as u64 * spec.taps() as u64;
    if candidates > i32::MAX as u64 {
        return None;
    }
    let last = SupportPolicy::last_reached(spec, range, &high);
    let wide = |a: usize| {
        let [s, p, d, k] = [spec.stride, spec.padding, spec.dilation, spec.size].map(|v| i64::from(v[a]));
        (s, p, d * (k - 1))
    };
    let inside = |a: usize| {
        let (s, p, reach) = wide(a);
        fits([s, p, reach, i64::from(low[a + 1]) + p - reach, i64::from(high[a + 1]) + p, last[a]])
    };
    if !(0..3).all(inside) {
        return None;
    }
    let ends: [i32; 3] = std::array::from_fn(|a| {
        let (s, p, _) = wide(a);
        (i64::from(high[a + 1]) + p).div_euclid(s).min(last[a]).max(0) as i32
    });
    let created = ([low[0], 0, 0, 0], [high[0], ends[0], ends[1], ends[2]]);
    let form = support(gpu, device, source);
    let (coords, n) = reached(gpu, &form.coords, spec, &created, last.map(|last| last.max(-1) as i32))?;
    let (index, found) = describe(gpu, &coords, n);
    let rows = Rows { n, canonical: true, bounds: found.bounds };
    let form = DeviceSupport { index: index.into(), ..DeviceSupport::new(coords, rows) };
    made(gpu, device, form)
}

/// All `row * stride + position * dilation - padding`.
fn grown_support(
    gpu: &Gpu,
    device: &CubeDevice,
    source: &core::Support,
    spec: &KernelSpec,
    (low, high): &(Coord, Coord),
) -> Option<core::Support> {
    let n = source.n_rows() as u64 * spec.taps() as u64;
    if n > MAX_ROWS as u64 {
        return None;
    }
    let end = |c: &Coord, a: usize, position: i64| {
        let [s, p, d] = [spec.stride, spec.padding, spec.dilation].map(|v| i64::from(v[a]));
        i64::from(c[a + 1]) * s + position * d - p
    };
    let last = |a: usize| i64::from(spec.size[a]) - 1;
    let inside = |a: usize| {
        let [s, p, d] = [spec.stride, spec.padding, spec.dilation].map(|v| i64::from(v[a]));
        // Partial sums too.
        let products = [i64::from(low[a + 1]) * s, i64::from(high[a + 1]) * s, last(a) * d];
        let sums = [end(low, a, 0), end(low, a, last(a)), end(high, a, 0), end(high, a, last(a))];
        fits([s, p, d]) && fits(products) && fits(sums) && fits(sums.map(|sum| sum + p))
    };
    if !(0..3).all(inside) {
        return None;
    }
    let row = |c: &Coord, at: fn(i64) -> i64| {
        let axis = |a: usize| end(c, a, at(last(a))) as i32;
        [c[0], axis(0), axis(1), axis(2)]
    };
    let bounds = (row(low, |_| 0), row(high, |last| last));
    let form = support(gpu, device, source);
    let size = spec.size[0];
    let tiles_lattice = spec.size == spec.stride
        && spec.size == [size; 3]
        && size.is_power_of_two()
        && spec.padding == [0; 3]
        && spec.dilation == [1; 3];
    let (coords, n) = match tiles_lattice {
        true => (children(gpu, &form.coords, form.order(gpu), spec), n as usize),
        false => expanded(gpu, &form.coords, spec, &bounds)?,
    };
    made(gpu, device, DeviceSupport::new(coords, Rows { n, canonical: true, bounds: Some(bounds) }))
}
