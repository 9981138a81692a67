//! Neighbours found on a device against those of `lattice-core`, value for value.
#![cfg(feature = "cubecl")]
#![allow(clippy::unwrap_used, reason = "tests")]

mod harness;

use harness::{Numbers, devices, upload_support};
use lattice_core::{Coord, Support};
use lattice_gpu::neighbours::{MOST_NEIGHBOURS, Neighbours, SearchRows, knn, radius};
use lattice_gpu::support::canonical_order;
use lattice_gpu::{Buffer, Gpu};

/// A support on a device.
struct Rows {
    coords: Buffer,
    order: Option<Buffer>,
    bounds: (Coord, Coord),
}

impl Rows {
    fn new(gpu: &Gpu, support: &Support) -> Self {
        let (coords, bounds) = (upload_support(gpu, support), support.bounds().unwrap());
        let order = (!support.is_canonical()).then(|| canonical_order(gpu, &coords, &bounds).unwrap());
        Self { coords, order, bounds }
    }

    fn search(&self) -> SearchRows<'_> {
        SearchRows { coords: &self.coords, order: self.order.as_ref(), bounds: self.bounds }
    }
}

#[track_caller]
fn assert_found(what: &str, gpu: &Gpu, found: Option<&Neighbours>, expected: &lattice_core::Neighbours) {
    let found = found.unwrap_or_else(|| panic!("{what}: left to the host"));
    assert_eq!(found.n_pairs, expected.source_rows.len(), "{what}: pairs");
    let splits: Vec<usize> = gpu.download::<u32>(&found.splits).into_iter().map(|s| s as usize).collect();
    assert!(splits == expected.splits, "{what}: splits");
    assert!(gpu.download::<u32>(&found.source_rows) == expected.source_rows, "{what}: rows");
    let each = splits.windows(2).enumerate();
    let queries: Vec<u32> = each.flat_map(|(query, s)| vec![query as u32; s[1] - s[0]]).collect();
    assert!(gpu.download::<u32>(&found.query_rows) == queries, "{what}: queries");
    let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    assert!(bits(&gpu.download::<f32>(&found.distances)) == bits(&expected.distances), "{what}: distances");
    assert!(gpu.download::<u32>(&found.neighbour_ids) == expected.neighbour_ids, "{what}: ranks");
}

/// Sources and queries: few and many rows, sparse and dense, in canonical and in other orders.
fn supports() -> Vec<[Support; 2]> {
    let mut numbers = Numbers(43);
    let mut pairs = Vec::new();
    for (n, n_queries, reach) in [(1, 1, 3), (5, 40, 3), (900, 300, 9), (3000, 1200, 15_000), (9, 400, 9000)]
    {
        let (source, query) = (numbers.support(n, reach), numbers.support(n_queries, reach));
        let canonical = Support::canonical(source.coords().to_vec()).unwrap();
        pairs.extend([[source.clone(), source.clone()], [source, query.clone()]]);
        pairs.extend([[canonical.clone(), canonical.clone()], [canonical, query]]);
    }
    // Items that only one side has.
    let items = |batch: [i32; 3]| {
        let row = |i: usize| [batch[i % 3], i as i32 / 3 % 7, i as i32 / 21, 2];
        Support::try_new((0..200).map(row).collect()).unwrap()
    };
    pairs.push([items([0, 3, 8]), items([3, 5, 9])]);
    pairs
}

#[test]
fn the_nearest_are_those_of_the_host() {
    for (device, gpu) in devices() {
        for [source, query] in supports() {
            let (there, queries) = (Rows::new(&gpu, &source), Rows::new(&gpu, &query));
            for k in [1, 3, 8, 20, MOST_NEIGHBOURS] {
                let what = format!("{k} of {} rows for {} on {device}", source.n_rows(), query.n_rows());
                let expected = lattice_core::knn(&source, &query, k).unwrap();
                assert_found(&what, &gpu, knn(&gpu, there.search(), queries.search(), k).as_ref(), &expected);
            }
        }
    }
}

#[test]
fn those_within_a_radius_are_those_of_the_host() {
    for (device, gpu) in devices() {
        for [source, query] in supports() {
            let (there, queries) = (Rows::new(&gpu, &source), Rows::new(&gpu, &query));
            for (r, max) in [
                (0.0, None),
                (1.0, None),
                (2.0, Some(4)),
                (2.5, None),
                (6.0, Some(40)),
                (8000.0, Some(3)),
                (5000.0, None),
                (1e30, Some(MOST_NEIGHBOURS)),
            ] {
                // All pairs of many rows are too many for a test.
                if max.is_none() && r > 100.0 && source.n_rows() > 1000 && query.n_rows() > 1000 {
                    continue;
                }
                let what =
                    format!("{r}, {max:?} of {} rows for {} on {device}", source.n_rows(), query.n_rows());
                let expected = lattice_core::radius(&source, &query, r, max).unwrap();
                let found = radius(&gpu, there.search(), queries.search(), r, max);
                assert_found(&what, &gpu, found.as_ref(), &expected);
            }
        }
    }
}

#[test]
fn far_rows_and_long_lists_are_left_to_the_host() {
    for (device, gpu) in devices() {
        let far = Support::try_new(vec![[0, 0, 0, 0], [0, 70_000, 0, 0]]).unwrap();
        let rows = Rows::new(&gpu, &far);
        assert!(knn(&gpu, rows.search(), rows.search(), 1).is_none(), "{device}");
        assert!(radius(&gpu, rows.search(), rows.search(), 1.0, None).is_none(), "{device}");
        let many = Rows::new(&gpu, &Numbers(3).support(200, 9));
        assert!(knn(&gpu, many.search(), many.search(), MOST_NEIGHBOURS + 1).is_none(), "{device}");
        // Squares just inside 32 bits.
        let near = Support::try_new(vec![[0, 0, 0, 0], [0, 65_535, 0, 0], [0, 1, 1, 300]]).unwrap();
        let rows = Rows::new(&gpu, &near);
        let expected = lattice_core::knn(&near, &near, 3).unwrap();
        assert_found(&device, &gpu, knn(&gpu, rows.search(), rows.search(), 3).as_ref(), &expected);
        let expected = lattice_core::radius(&near, &near, 65_535.0, None).unwrap();
        let found = radius(&gpu, rows.search(), rows.search(), 65_535.0, None);
        assert_found(&device, &gpu, found.as_ref(), &expected);
    }
}
