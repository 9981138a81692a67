//! Row maps made on a device: joins, selections, grids and groups of rows that lie there.
//!
//! As in `made.rs`, the functions answer `None` where the host must do the work, or say what is wrong with its input.

use burn::tensor::{Bool, DType, Device, Int, Tensor};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::{CubeBackend, CubeDevice};
use lattice_core::{self as core, Coord, Join};
use lattice_gpu::rows::DeviceRowMap;
use lattice_gpu::support::{self as there, CellGrid, Created, Joined};
use lattice_gpu::{Buffer, Gpu};

use super::device::gpu_device;
use super::forms::{MAX_ROWS, key};
use super::made::{DeviceSupport, Rows, int_buffer, int_tensor, made, support};
use super::rows::tensor_of;
use crate::backend::Grid;

/// Batch items whose rows a device counts.
const MOST_ITEMS: usize = 1 << 16;

/// The rows of a join, and the maps that copy the operands' rows onto them.
pub(crate) struct JoinedMaps {
    pub(crate) support: core::Support,
    pub(crate) lhs: core::RowMap,
    pub(crate) rhs: core::RowMap,
}

/// A map that was made on a device, with the form of its transpose where it was made too.
pub(super) fn made_map(
    gpu: &Gpu,
    device: &CubeDevice,
    form: DeviceRowMap,
    longest: [Option<usize>; 2],
    transpose: Option<DeviceRowMap>,
) -> Option<core::RowMap> {
    let (reader, read) = (gpu.clone(), form.clone());
    let map = core::RowMap::made_elsewhere(form.n_in(), form.n_out(), longest, move || read.to_host(&reader));
    let map = map.ok()?;
    let keep = |map: &core::RowMap, form| {
        let kept = map.attachments().get_or_build(key(device), || Ok::<_, std::convert::Infallible>(form));
        match kept {
            Ok(_form) => {}
        }
    };
    keep(&map, form);
    if let Some(transpose) = transpose {
        keep(&map.transpose(), transpose);
    }
    Some(map)
}

/// The map that copies row `sources[o]` to row `o`, where no row is copied twice.
fn copied(gpu: &Gpu, device: &CubeDevice, sources: &Buffer, n_in: usize) -> Option<core::RowMap> {
    made_map(gpu, device, DeviceRowMap::gather(gpu, sources, n_in), [Some(1); 2], None)
}

/// The map that sums or averages the rows of each group, ascending.
fn grouped(
    gpu: &Gpu,
    device: &CubeDevice,
    groups: &Buffer,
    n_groups: usize,
    mean: bool,
    longest: Option<usize>,
) -> Option<core::RowMap> {
    let to_group = DeviceRowMap::gather(gpu, groups, n_groups);
    let sum = to_group.transposed(gpu, longest);
    match mean {
        true => made_map(gpu, device, sum.averaged(gpu), [longest, Some(1)], None),
        false => made_map(gpu, device, sum, [longest, Some(1)], Some(to_group)),
    }
}

/// The device and its client, for work over so many rows that lie there or can be copied there.
fn at_work(device: &Device, n_rows: usize) -> Option<(Gpu, CubeDevice)> {
    let cube = gpu_device(device).filter(|_| n_rows > 0 && n_rows <= MAX_ROWS)?;
    Some((Gpu::new(cube.client()), cube))
}

fn hull((low_a, high_a): (Coord, Coord), (low_b, high_b): (Coord, Coord)) -> (Coord, Coord) {
    let low = std::array::from_fn(|column| low_a[column].min(low_b[column]));
    (low, std::array::from_fn(|column| high_a[column].max(high_b[column])))
}

/// The join of two supports; without a rule the rows of the larger operand come first.
pub(crate) fn joined(
    device: &Device,
    lhs: &core::Support,
    rhs: &core::Support,
    join: Option<Join>,
) -> Option<JoinedMaps> {
    let (n_lhs, n_rhs) = (lhs.n_rows(), rhs.n_rows());
    let (gpu, cube) = at_work(device, n_lhs + n_rhs)?;
    let all = hull(lhs.bounds()?, rhs.bounds()?);
    let (left, right) = (support(&gpu, &cube, lhs), support(&gpu, &cube, rhs));
    let maps = |result: core::Support, sources: [&Buffer; 2]| {
        Some(JoinedMaps {
            support: result,
            lhs: copied(&gpu, &cube, sources[0], n_lhs)?,
            rhs: copied(&gpu, &cube, sources[1], n_rhs)?,
        })
    };
    let (Joined { coords, n_rows, lhs: from_lhs, rhs: from_rhs }, canonical) = match join {
        Some(Join::Left) => {
            let found = there::lookup(&gpu, right.index(&gpu), &left.coords);
            return maps(lhs.clone(), [&there::count_up(&gpu, n_lhs, n_lhs), &found]);
        }
        Some(Join::Right) => {
            let found = there::lookup(&gpu, left.index(&gpu), &right.coords);
            return maps(rhs.clone(), [&found, &there::count_up(&gpu, n_rhs, n_rhs)]);
        }
        Some(Join::Inner) => (there::join_inner(&gpu, &left.coords, right.index(&gpu)), lhs.is_canonical()),
        Some(Join::Outer) => (there::join_outer(&gpu, &left.coords, &right.coords, &all)?, true),
        None if n_rhs > n_lhs => {
            let Joined { lhs, rhs, coords, n_rows } =
                there::join_appended(&gpu, right.index(&gpu), &left.coords);
            (Joined { coords, n_rows, lhs: rhs, rhs: lhs }, false)
        }
        None => (there::join_appended(&gpu, left.index(&gpu), &right.coords), false),
    };
    // An inner join without rows has no bounds to speak of; the host says the same.
    let bounds = match join {
        Some(Join::Inner) => there::bounds(&gpu, &coords)?,
        _ => all,
    };
    let rows = Rows { n: n_rows, canonical, bounds: Some(bounds) };
    let result = made(&gpu, &cube, DeviceSupport::new(coords, rows))?;
    maps(result, [&from_lhs, &from_rhs])
}

/// Whether two supports hold equal rows in equal order; compared where they lie.
pub(crate) fn same_rows(device: &Device, a: &core::Support, b: &core::Support) -> bool {
    if a.same_identity(b)
        || a.n_rows() != b.n_rows()
        || a.bounds() != b.bounds()
        || a.is_read() && b.is_read()
    {
        return a.same_rows(b);
    }
    match at_work(device, a.n_rows()) {
        Some((gpu, cube)) => {
            let [a, b] = [a, b].map(|side| support(&gpu, &cube, side));
            there::same_rows(&gpu, &a.coords, &b.coords)
        }
        None => a.same_rows(b),
    }
}

/// Rows that were chosen, in their order, and the map that copies them.
fn chosen(
    gpu: &Gpu,
    device: &CubeDevice,
    source: &core::Support,
    found: Created,
    canonical: bool,
) -> Option<(core::Support, core::RowMap)> {
    let bounds = there::bounds(gpu, &found.coords)?;
    let map = copied(gpu, device, &found.rows, source.n_rows())?;
    let rows = Rows { n: found.n_rows, canonical, bounds: Some(bounds) };
    Some((made(gpu, device, DeviceSupport::new(found.coords, rows))?, map))
}

/// As [`at_work`], where the argument lies on the device of the rows.
fn lies_on(device: &Device, argument: &Device, source: &core::Support) -> Option<(Gpu, CubeDevice)> {
    at_work(device, source.n_rows()).filter(|(_, cube)| gpu_device(argument).as_ref() == Some(cube))
}

/// Rows of each batch item of a support, at least `items` of them; kept with it.
pub(crate) fn batch_counts(device: &Device, source: &core::Support, items: usize) -> Option<Vec<usize>> {
    struct Counts(Vec<usize>);
    impl core::Form for Counts {
        fn bytes(&self) -> usize {
            size_of_val(self.0.as_slice())
        }
    }
    let (gpu, cube) = at_work(device, source.n_rows()).filter(|_| !source.is_read())?;
    let (_, high) = source.bounds()?;
    let all = high[0] as usize + 1;
    if all > MOST_ITEMS {
        return None;
    }
    let count = || {
        let counts = match all {
            1 => vec![source.n_rows()],
            _ => there::batch_counts(&gpu, &support(&gpu, &cube, source).coords, all),
        };
        Ok::<_, std::convert::Infallible>(Counts(counts))
    };
    match source.attachments().get_or_build(key(&cube), count) {
        Ok(counts) => {
            let mut counts = counts.0.clone();
            counts.resize(items.max(all), 0);
            Some(counts)
        }
    }
}

/// The rows whose flag is set.
pub(crate) fn rows_where(
    device: &Device,
    source: &core::Support,
    mask: &Tensor<1, Bool>,
) -> Option<(core::Support, core::RowMap)> {
    let (gpu, cube) = lies_on(device, &mask.device(), source)?;
    let flags = int_buffer(&mask.clone().int())?;
    let found = there::kept(&gpu, &support(&gpu, &cube, source).coords, &flags);
    chosen(&gpu, &cube, source, found, source.is_canonical())
}

/// The rows with `low <= xyz <= high`.
pub(crate) fn rows_inside(
    device: &Device,
    source: &core::Support,
    low: [i32; 3],
    high: [i32; 3],
) -> Option<(core::Support, core::RowMap)> {
    let (gpu, cube) = at_work(device, source.n_rows())?;
    let found = there::inside(&gpu, &support(&gpu, &cube, source).coords, low, high);
    chosen(&gpu, &cube, source, found, source.is_canonical())
}

/// The rows with the given numbers.
pub(crate) fn rows_named(
    device: &Device,
    source: &core::Support,
    numbers: &Tensor<1, Int>,
) -> Option<(core::Support, core::RowMap)> {
    let (gpu, cube) = lies_on(device, &numbers.device(), source)?;
    let numbers = int_buffer(numbers)?;
    let named = there::named(&gpu, &support(&gpu, &cube, source).coords, &numbers)?;
    let canonical = named.ascending && source.is_canonical();
    let found = Created { n_rows: numbers.len, coords: named.coords, rows: numbers };
    chosen(&gpu, &cube, source, found, canonical)
}

/// Numbers of the rows with the largest scores of every batch item, of which item `b` has `rows[b]` rows and gives `wanted[b]`.
pub(crate) fn top_rows(
    source: &core::Support,
    scores: &Tensor<1>,
    rows: &[usize],
    wanted: &[usize],
) -> Option<Tensor<1, Int>> {
    let device = scores.device();
    let (gpu, cube) = at_work(&device, source.n_rows())?;
    let chosen: usize = wanted.iter().sum();
    if chosen == 0 || rows.iter().sum::<usize>() != source.n_rows() {
        return None;
    }
    let scores = scores.clone().without_autodiff().cast(DType::F32);
    let tensor = into_contiguous(scores.try_into_primitive::<CubeBackend>().ok()?);
    let scores = Buffer::adopt(tensor.handle, source.n_rows());
    let found = there::top_rows(&gpu, &support(&gpu, &cube, source).coords, &scores, rows, wanted);
    Some(int_tensor(&device, tensor_of(&gpu, &cube, found, [chosen], DType::I32)))
}

/// The map that sums rows into the cells of a grid; `single` where no two rows share one.
pub(crate) fn cell_map(
    device: &Device,
    source: &core::Support,
    grid: &Grid,
    single: bool,
) -> Option<core::RowMap> {
    let (gpu, cube) = at_work(device, source.n_rows())?;
    let n_cells = grid.cells;
    i32::try_from(n_cells).ok()?;
    // Fewer than 2^31 cells have no longer side and no wider step, but for sides that no row counts along.
    let narrow = |v: [usize; 4]| v.map(|v| u32::try_from(v).unwrap_or(u32::MAX));
    let Grid { offset, extent, step, clamped, .. } = *grid;
    let grid = &CellGrid { offset, extent: narrow(extent), step: narrow(step), clamped };
    let cells = there::cells(&gpu, &support(&gpu, &cube, source).coords, grid)?;
    if !single {
        return grouped(&gpu, &cube, &cells, n_cells, false, None);
    }
    let sources = there::inverse(&gpu, &cells, 0, cells.len, n_cells);
    let to_cell = DeviceRowMap::gather(&gpu, &cells, n_cells);
    let map = DeviceRowMap::gather(&gpu, &sources, source.n_rows());
    made_map(&gpu, &cube, map, [Some(1); 2], Some(to_cell))
}

/// The map that sums or averages the rows of each of `items` batch items, which no batch id passes.
pub(crate) fn batch_map(
    device: &Device,
    source: &core::Support,
    items: usize,
    mean: bool,
) -> Option<core::RowMap> {
    let (gpu, cube) = at_work(device, source.n_rows())?;
    let ids = there::batch_ids(&gpu, &support(&gpu, &cube, source).coords);
    grouped(&gpu, &cube, &ids, items, mean, None)
}

/// The rows once an axis is dropped and the others are divided by `step`, and the map that sums or averages those that meet.
pub(crate) fn flat_map(
    device: &Device,
    source: &core::Support,
    step: [u32; 3],
    axis: usize,
    mean: bool,
) -> Option<(core::Support, core::RowMap)> {
    let (gpu, cube) = at_work(device, source.n_rows())?;
    let bounds = source.bounds()?;
    let form = support(&gpu, &cube, source);
    let flat = there::flattened(&gpu, &form.coords, &bounds, step, axis)?;
    let map = grouped(&gpu, &cube, &flat.rows, flat.n_rows, mean, None)?;
    // Rounding down keeps the order of values, so the ends of the rows become those of the flat ones.
    let end = |c: &Coord| -> Coord {
        std::array::from_fn(|column| match column.checked_sub(1) {
            None => c[0],
            Some(a) if a == axis => 0,
            Some(a) => i64::from(c[column]).div_euclid(i64::from(step[a])) as i32,
        })
    };
    let bounds = Some((end(&bounds.0), end(&bounds.1)));
    let rows = Rows { n: flat.n_rows, canonical: true, bounds };
    Some((made(&gpu, &cube, DeviceSupport::new(flat.coords, rows))?, map))
}
