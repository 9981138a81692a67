//! Joins, selections, grids and counts on a device against those of `lattice-core`, row for row.
#![cfg(feature = "cubecl")]
#![allow(clippy::unwrap_used, reason = "tests")]

mod harness;

use harness::{Numbers, devices, upload_support};
use lattice_core::{Alignment, Coord, Join, Support, align, generative_union};
use lattice_gpu::index::BlockIndex;
use lattice_gpu::support::{
    CellGrid, Joined, batch_counts, batch_ids, bounds, cells, flattened, inside, inverse, join_appended,
    join_inner, join_outer, lookup, named, same_rows, top_rows,
};
use lattice_gpu::{Buffer, Gpu};

fn rows(gpu: &Gpu, coords: &Buffer) -> Vec<Coord> {
    gpu.download::<i32>(coords).as_chunks::<4>().0.to_vec()
}

/// Pairs of supports that share some of their rows, in both orders.
fn pairs() -> Vec<(Support, Support)> {
    let mut numbers = Numbers(31);
    let mut found = Vec::new();
    for (n, reach) in [(1, 4), (60, 3), (4000, 14), (30_000, 60)] {
        let a = numbers.support(n, reach);
        let b = numbers.support(n / 2 + 1, reach);
        let sorted = |s: &Support| Support::canonical(s.coords().to_vec()).unwrap();
        found.extend([(sorted(&a), sorted(&b)), (b, a)]);
    }
    found
}

#[track_caller]
fn assert_joined(gpu: &Gpu, what: &str, found: &Joined, expected: &Alignment) {
    assert_eq!(found.n_rows, expected.support.n_rows(), "{what}: number of rows");
    assert!(rows(gpu, &found.coords) == expected.support.coords(), "{what}: rows");
    assert!(gpu.download::<i32>(&found.lhs) == expected.lhs_rows, "{what}: rows of the left operand");
    assert!(gpu.download::<i32>(&found.rhs) == expected.rhs_rows, "{what}: rows of the right operand");
}

#[test]
fn joins_are_those_of_the_host() {
    for (device, gpu) in devices() {
        for (a, b) in pairs() {
            let what = |join: &str| format!("{join} of {} and {} rows on {device}", a.n_rows(), b.n_rows());
            let [left, right] = [&a, &b].map(|s| upload_support(&gpu, s));
            let index = |coords: &Buffer| BlockIndex::build(&gpu, coords, coords.len / 4);
            let found = join_inner(&gpu, &left, &index(&right));
            assert_joined(&gpu, &what("inner"), &found, &align(&a, &b, Join::Inner).unwrap());
            let (low, high) = (a.bounds().unwrap(), b.bounds().unwrap());
            let hull: (Coord, Coord) = (
                std::array::from_fn(|c| low.0[c].min(high.0[c])),
                std::array::from_fn(|c| low.1[c].max(high.1[c])),
            );
            let found = join_outer(&gpu, &left, &right, &hull).unwrap();
            assert_joined(&gpu, &what("outer"), &found, &align(&a, &b, Join::Outer).unwrap());
            let found = lookup(&gpu, &index(&right), &left);
            let expected = align(&a, &b, Join::Left).unwrap();
            assert!(gpu.download::<i32>(&found) == expected.rhs_rows, "{}", what("left"));
            if a.n_rows() >= b.n_rows() {
                let found = join_appended(&gpu, &index(&left), &right);
                assert_joined(&gpu, &what("generative"), &found, &generative_union(&a, &b).unwrap());
            }
        }
    }
}

#[test]
fn equal_rows_are_told_from_others() {
    for (device, gpu) in devices() {
        for (a, b) in pairs() {
            let [left, right] = [&a, &b].map(|s| upload_support(&gpu, s));
            assert!(same_rows(&gpu, &left, &upload_support(&gpu, &a)), "{device}");
            assert!(!same_rows(&gpu, &left, &right), "{device}");
            let mut changed = a.coords().to_vec();
            changed[a.n_rows() / 2][3] += 1;
            assert!(!same_rows(&gpu, &left, &gpu.upload(changed.as_flattened())), "{device}");
        }
    }
}

#[test]
fn chosen_rows_are_those_of_the_host() {
    let mut numbers = Numbers(8);
    for (device, gpu) in devices() {
        for (support, _) in pairs() {
            let coords = upload_support(&gpu, &support);
            assert_eq!(bounds(&gpu, &coords), support.bounds(), "{device}");
            for (low, high) in [([-2, -1, -3], [3, 2, 1]), ([i32::MIN; 3], [i32::MAX; 3]), ([1; 3], [0; 3])] {
                let within = |c: &Coord| (0..3).all(|a| low[a] <= c[a + 1] && c[a + 1] <= high[a]);
                let expected: Vec<u32> = (0..support.n_rows() as u32)
                    .filter(|&row| within(&support.coords()[row as usize]))
                    .collect();
                let found = inside(&gpu, &coords, low, high);
                assert_eq!(found.n_rows, expected.len(), "{device}");
                assert!(gpu.download::<u32>(&found.rows) == expected, "{low:?} to {high:?} on {device}");
            }
            // A third of the rows: ascending, then in another order, then one of them twice, then one that is none.
            let n = support.n_rows();
            let mut chosen: Vec<i32> = (0..n as i32).filter(|row| row % 3 == 0).collect();
            for step in 0..4 {
                match step {
                    1 => chosen.reverse(),
                    2 => chosen.push(chosen[0]),
                    3 => *chosen.last_mut().unwrap() = if n % 2 == 0 { n as i32 } else { -1 },
                    _ => {}
                }
                let found = named(&gpu, &coords, &gpu.upload(&chosen));
                assert_eq!(found.is_some(), step < 2, "step {step} of {n} rows on {device}");
                if let Some(found) = found {
                    assert_eq!(found.ascending, chosen.is_sorted_by(|a, b| a < b), "{device}");
                    let expected: Vec<Coord> =
                        chosen.iter().map(|&row| support.coords()[row as usize]).collect();
                    assert!(rows(&gpu, &found.coords) == expected, "{device}");
                }
            }
            // Few distinct scores, so that they tie; both zeros and a NaN among them.
            let scores: Vec<f32> = (0..n)
                .map(|_| [-1.5, -0.0, 0.0, 2.5, f32::INFINITY, f32::NAN, -3e-40][numbers.below(7)])
                .collect();
            let items = support.batch_rows();
            let counts: Vec<usize> = items.iter().map(Vec::len).collect();
            let wanted: Vec<usize> = counts.iter().map(|&count| numbers.below(count + 1)).collect();
            let mut expected = Vec::new();
            for (mut rows, wanted) in items.into_iter().zip(&wanted) {
                rows.sort_by(|&a, &b| {
                    let score = |row: u32| f64::from(scores[row as usize]) + 0.0;
                    score(a).total_cmp(&score(b))
                });
                expected.extend_from_slice(&rows[rows.len() - wanted..]);
            }
            let found = top_rows(&gpu, &coords, &gpu.upload(&scores), &counts, &wanted);
            assert!(gpu.download::<u32>(&found) == expected, "largest scores on {device}");
        }
    }
}

#[test]
fn rows_fall_into_the_cells_of_a_grid() {
    for (device, gpu) in devices() {
        for (support, _) in pairs() {
            let coords = upload_support(&gpu, &support);
            let (low, high) = support.bounds().unwrap();
            let extent = |c: usize| (high[c] - low[c] + 1) as u32;
            let grid = CellGrid {
                offset: [0, low[1], low[2], low[3]],
                extent: [high[0] as u32 + 1, extent(1), extent(2), extent(3)],
                step: [extent(1) * extent(2) * extent(3), extent(2) * extent(3), extent(3), 1],
                clamped: None,
            };
            let cell = |c: &Coord, grid: &CellGrid| -> i32 {
                (0..4)
                    .map(|a| {
                        let at = i64::from(c[a]) - i64::from(grid.offset[a]);
                        let last = i64::from(grid.extent[a]) - 1;
                        let at = if grid.clamped == Some(a) { at.clamp(0, last) } else { at };
                        at as i32 * grid.step[a] as i32
                    })
                    .sum()
            };
            let found = cells(&gpu, &coords, &grid).unwrap();
            let expected: Vec<i32> = support.coords().iter().map(|c| cell(c, &grid)).collect();
            assert!(gpu.download::<i32>(&found) == expected, "{device}");
            let n_cells = grid.extent.iter().product::<u32>() as usize;
            let mut sources = vec![-1; n_cells];
            expected.iter().enumerate().for_each(|(row, &cell)| sources[cell as usize] = row as i32);
            let found = inverse(&gpu, &found, 0, support.n_rows(), n_cells);
            assert!(gpu.download::<i32>(&found) == sources, "{device}");
            if extent(3) > 2 {
                let smaller =
                    CellGrid { extent: [grid.extent[0], extent(1), extent(2), extent(3) - 2], ..grid };
                assert!(cells(&gpu, &coords, &smaller).is_none(), "{device}");
                let moved = CellGrid { offset: [0, low[1], low[2], low[3] + 1], clamped: Some(3), ..smaller };
                let expected: Vec<i32> = support.coords().iter().map(|c| cell(c, &moved)).collect();
                assert!(gpu.download::<i32>(&cells(&gpu, &coords, &moved).unwrap()) == expected, "{device}");
                // A column without a step does not count, wherever its values lie.
                let flat = CellGrid { step: [1, 0, 0, 0], ..smaller };
                let ids: Vec<i32> = support.coords().iter().map(|c| c[0]).collect();
                assert!(gpu.download::<i32>(&cells(&gpu, &coords, &flat).unwrap()) == ids, "{device}");
                assert!(gpu.download::<i32>(&batch_ids(&gpu, &coords)) == ids, "{device}");
            }
            let mut counts = support.batch_counts();
            assert_eq!(batch_counts(&gpu, &coords, counts.len()), counts, "{device}");
            counts.resize(300, 0);
            assert_eq!(batch_counts(&gpu, &coords, 300), counts, "{device}");
        }
    }
}

#[test]
fn flattened_rows_are_those_of_the_host() {
    for (device, gpu) in devices() {
        for (support, _) in pairs() {
            let coords = upload_support(&gpu, &support);
            for (stride, axis) in [([1, 1, 1], 2), ([2, 2, 1], 2), ([3, 1, 3], 1), ([1, 5, 5], 0)] {
                let flat = |c: &Coord| {
                    let place = |a: usize| if a == axis { 0 } else { c[a + 1].div_euclid(stride[a] as i32) };
                    [c[0], place(0), place(1), place(2)]
                };
                let all: Vec<Coord> = support.coords().iter().map(flat).collect();
                let expected = Support::canonical(all.clone()).unwrap();
                let found = flattened(&gpu, &coords, &support.bounds().unwrap(), stride, axis).unwrap();
                assert!(
                    rows(&gpu, &found.coords) == expected.coords(),
                    "{stride:?} along {axis} on {device}"
                );
                assert!(gpu.download::<i32>(&found.rows) == expected.lookup_all(&all), "{device}");
            }
        }
    }
}
