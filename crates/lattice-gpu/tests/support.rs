//! Supports made on a device against those of `lattice-core`, row for row.
#![cfg(feature = "cubecl")]
#![allow(clippy::unwrap_used, reason = "tests")]

mod harness;

use harness::{Numbers, devices, upload_support};
use lattice_core::{Coord, KernelSpec, Relation, Support, SupportPolicy, canonical_cmp, downsample};
use lattice_gpu::index::BlockIndex;
use lattice_gpu::support::{canonical_order, children, coarser, describe, expanded, kept, lookup, reached};
use lattice_gpu::{Buffer, Gpu};

fn rows(gpu: &Gpu, coords: &Buffer) -> Vec<Coord> {
    gpu.download::<i32>(coords).as_chunks::<4>().0.to_vec()
}

/// Supports of both orders, few and many rows, near and far from the origin.
fn supports() -> Vec<Support> {
    let mut numbers = Numbers(5);
    let mut found = vec![Support::try_new(vec![[3, -1, 0, 5]]).unwrap()];
    for (n, reach) in [(40, 5), (3000, 20), (20_000, 400), (5000, 1_000_000)] {
        let given = numbers.support(n, reach);
        found.push(Support::canonical(given.coords().to_vec()).unwrap());
        found.push(given);
    }
    found
}

#[test]
fn rows_are_described_as_they_are() {
    for (device, gpu) in devices() {
        for support in supports() {
            let coords = upload_support(&gpu, &support);
            let (index, found) = describe(&gpu, &coords, support.n_rows());
            assert_eq!(found.bounds, support.bounds(), "{device}");
            assert_eq!((found.canonical, found.duplicates), (support.is_canonical(), 0), "{device}");
            // Listed on the way or left out, rows are found.
            let rows = gpu.download::<i32>(&lookup(&gpu, &index, &coords));
            assert!((0..support.n_rows() as i32).eq(rows), "{device}");
        }
        let twice: Vec<Coord> = vec![[0, 1, 2, 3], [0, 4, 4, 4], [0, 1, 2, 3], [0, 1, 2, 3]];
        let coords = gpu.upload(twice.as_flattened());
        let (_, found) = describe(&gpu, &coords, twice.len());
        assert_eq!((found.canonical, found.duplicates), (false, 2), "{device}");
    }
}

#[test]
fn orders_are_canonical() {
    for (device, gpu) in devices() {
        for support in supports() {
            let coords = upload_support(&gpu, &support);
            let order = canonical_order(&gpu, &coords, &support.bounds().unwrap()).unwrap();
            let mut expected: Vec<u32> = (0..support.n_rows() as u32).collect();
            expected.sort_by(|&a, &b| {
                canonical_cmp(&support.coords()[a as usize], &support.coords()[b as usize])
            });
            assert_eq!(gpu.download::<u32>(&order), expected, "{device}");
        }
        // Rows that differ in 32 bits along each axis do not fit two words.
        let far = gpu.upload(&[0, i32::MIN, i32::MIN, i32::MIN, 0, i32::MAX, i32::MAX, i32::MAX]);
        let bounds = ([0, i32::MIN, i32::MIN, i32::MIN], [0, i32::MAX, i32::MAX, i32::MAX]);
        assert!(canonical_order(&gpu, &far, &bounds).is_none(), "{device}");
        // Those that differ in few bits do, wherever they lie: of both signs, of one, and with an axis of all bits.
        let mut numbers = Numbers(77);
        for (low, reach) in [
            ([3, -5, 0, 1 << 30], [4, 9, 1, 700]),
            ([0, i32::MIN, -1, i32::MIN], [1, 60, 2, 9]),
            ([9, i32::MIN, -700, 40], [200, i32::MAX, 1400, 3]),
            ([0, 7, 7, 7], [1, 1, 1, 1]),
        ] {
            let place = |numbers: &mut Numbers, c: usize| {
                let span = if reach[c] == i32::MAX { 1u64 << 32 } else { reach[c] as u64 };
                (i64::from(low[c]) + (numbers.next() % span) as i64) as i32
            };
            let rows: Vec<Coord> =
                (0..3000).map(|_| std::array::from_fn(|c| place(&mut numbers, c))).collect();
            let end = |pick: fn(i32, i32) -> i32| -> Coord {
                std::array::from_fn(|c| rows.iter().map(|row| row[c]).reduce(pick).unwrap())
            };
            let bounds = (end(i32::min), end(i32::max));
            let order = canonical_order(&gpu, &gpu.upload(rows.as_flattened()), &bounds).unwrap();
            let mut expected: Vec<u32> = (0..rows.len() as u32).collect();
            expected.sort_by(|&a, &b| canonical_cmp(&rows[a as usize], &rows[b as usize]));
            assert!(gpu.download::<u32>(&order) == expected, "{bounds:?} on {device}");
        }
    }
}

/// The order that an index lists its rows in.
#[track_caller]
fn assert_listed_in_order(device: &str, gpu: &Gpu, rows: &[Coord]) {
    let mut expected: Vec<u32> = (0..rows.len() as u32).collect();
    expected.sort_by(|&a, &b| canonical_cmp(&rows[a as usize], &rows[b as usize]));
    let coords = gpu.upload(rows.as_flattened());
    let index = BlockIndex::build(gpu, &coords, rows.len());
    let order = index.order(gpu).expect("few rows are listed in order");
    assert!(gpu.download::<u32>(order) == expected, "{} rows on {device}", rows.len());
    // Every row is found at its own coordinate, and no other coordinate is.
    let found = gpu.download::<i32>(&lookup(gpu, &index, &coords));
    assert!((0..rows.len() as i32).eq(found), "{} rows on {device}", rows.len());
    let beside: Vec<Coord> = rows.iter().map(|c| [c[0] ^ 1 << 18, c[1], c[2], c[3]]).collect();
    let found = gpu.download::<i32>(&lookup(gpu, &index, &gpu.upload(beside.as_flattened())));
    assert!(found.iter().all(|&row| row == -1), "{} rows on {device}", rows.len());
}

#[test]
fn indices_list_rows_in_canonical_order() {
    for (device, gpu) in devices() {
        for support in supports() {
            assert_listed_in_order(&device, &gpu, support.coords());
        }
        let mut numbers = Numbers(91);
        // A row alone in its block, fewer and more blocks than buckets, and the sizes next to those; full blocks.
        for n in [1, 2, 511, 512, 513, 1023, 1024, 4097] {
            let alone: Vec<Coord> = (0..n).map(|i| [0, (i * 7919 % n) * 4, -8 * (i % 3), 1]).collect();
            assert_listed_in_order(&device, &gpu, &alone);
        }
        let full: Vec<Coord> =
            (0..64 * 700).map(|i| [i / (64 * 350), i % 8, i / 8 % 8, i / 64 % 350]).collect();
        assert_listed_in_order(&device, &gpu, &full);
        // Many batch items of few blocks each, with the largest id that there is.
        let last = lattice_core::MAX_BATCH_ID;
        let items: Vec<Coord> =
            (0..6000).map(|i| [last - i % 37, i / 37 * 3 - 200, i % 5, -(i % 11)]).collect();
        assert_listed_in_order(&device, &gpu, &items);
        // The ends of the range, both signs and many batch ids: no bits are shared, and one row stands far from all others.
        let ends = [i32::MIN, -1, 0, i32::MAX];
        let mut far: Vec<Coord> = Vec::new();
        for batch in [0, 5, 700] {
            for (x, y, z) in (0..64).map(|i| (ends[i % 4], ends[i / 4 % 4], ends[i / 16])) {
                far.push([batch, x, y, z]);
            }
        }
        far.extend(numbers.support(9000, 30).coords());
        far.sort_unstable_by(|a, b| b.cmp(a));
        far.dedup();
        assert_listed_in_order(&device, &gpu, &far);
    }
}

#[test]
fn coarser_rows_are_those_of_the_host() {
    for (device, gpu) in devices() {
        for support in supports() {
            let coords = upload_support(&gpu, &support);
            let bounds = support.bounds().unwrap();
            let order = (!support.is_canonical()).then(|| canonical_order(&gpu, &coords, &bounds).unwrap());
            for stride in [[2; 3], [8; 3], [1, 2, 4], [3; 3], [1 << 20; 3], [5, 1, 7]] {
                let what = format!("stride {stride:?} of {} rows on {device}", support.n_rows());
                let expected = downsample(&support, stride).unwrap();
                let found = coarser(&gpu, &coords, order.as_ref(), &bounds, stride).unwrap();
                assert_eq!(found.n_rows, expected.n_rows(), "{what}");
                assert!(rows(&gpu, &found.coords) == expected.coords(), "rows, {what}");
                let parent = |c: &Coord| {
                    let axis = |a: usize| i64::from(c[a + 1]).div_euclid(i64::from(stride[a])) as i32;
                    expected.lookup(&[c[0], axis(0), axis(1), axis(2)]).unwrap()
                };
                let parents: Vec<u32> = support.coords().iter().map(parent).collect();
                assert!(gpu.download::<u32>(&found.rows) == parents, "groups, {what}");
            }
        }
    }
}

#[test]
fn finer_rows_are_those_of_the_host() {
    for (device, gpu) in devices() {
        // Finer rows of far ones would need keys past 64 bits.
        let near = |s: &Support| s.n_rows() < 10_000 && s.bounds().unwrap().1[1] < 100_000;
        for support in supports().into_iter().filter(near) {
            let coords = upload_support(&gpu, &support);
            let bounds = support.bounds().unwrap();
            let order = (!support.is_canonical()).then(|| canonical_order(&gpu, &coords, &bounds).unwrap());
            for size in [2, 4] {
                let spec = KernelSpec::cube(size, size).unwrap();
                let expected = Relation::transposed(&support, &spec).unwrap();
                let found = children(&gpu, &coords, order.as_ref(), &spec);
                assert!(rows(&gpu, &found) == expected.target().coords(), "children of {size} on {device}");
            }
            for (size, stride, padding, dilation) in
                [([3; 3], [2; 3], [0; 3], [1; 3]), ([2, 3, 1], [2, 1, 3], [1, 0, 2], [1, 2, 1])]
            {
                let spec = KernelSpec::try_new(size, stride, padding, dilation).unwrap();
                let expected = Relation::transposed(&support, &spec).unwrap();
                let created = expected.target().bounds().unwrap();
                let (found, n) = expanded(&gpu, &coords, &spec, &created).unwrap();
                assert_eq!(n, expected.n_out(), "{spec:?} of {} rows on {device}", support.n_rows());
                assert!(rows(&gpu, &found) == expected.target().coords(), "{spec:?} on {device}");
            }
            assert_reached(&device, &gpu, &support, &coords);
        }
    }
}

/// The rows that kernels reach, with and without a range.
fn assert_reached(device: &str, gpu: &Gpu, support: &Support, coords: &Buffer) {
    let bounds = support.bounds().unwrap();
    let spec = KernelSpec::try_new([3; 3], [2; 3], [1; 3], [1; 3]).unwrap();
    for range in [None, Some([16, 40, 9])] {
        let policy = SupportPolicy::KernelReach { range };
        let expected = Relation::forward(support, &spec, policy).unwrap();
        let last = SupportPolicy::last_reached(&spec, range, &bounds.1).map(|last| last.max(-1) as i32);
        let end = |a: usize| ((bounds.1[a + 1] + 1) / 2).clamp(0, last[a].max(0));
        let created = ([bounds.0[0], 0, 0, 0], [bounds.1[0], end(0), end(1), end(2)]);
        let (found, n) = reached(gpu, coords, &spec, &created, last).unwrap();
        assert_eq!(n, expected.n_out(), "{range:?} of {} rows on {device}", support.n_rows());
        assert!(rows(gpu, &found) == expected.target().coords(), "{range:?} on {device}");
    }
}

#[test]
fn kept_rows_are_in_their_order_and_queries_find_theirs() {
    for (device, gpu) in devices() {
        let mut numbers = Numbers(9);
        for support in supports() {
            let coords = upload_support(&gpu, &support);
            for one_of in [1, 3, usize::MAX] {
                let flags: Vec<u32> =
                    (0..support.n_rows()).map(|_| u32::from(numbers.below(one_of) == 0)).collect();
                let expected: Vec<u32> =
                    (0..support.n_rows() as u32).filter(|&row| flags[row as usize] == 1).collect();
                let found = kept(&gpu, &coords, &gpu.upload(&flags));
                assert_eq!(found.n_rows, expected.len(), "{device}");
                assert!(gpu.download::<u32>(&found.rows) == expected, "{device}");
                let expected: Vec<Coord> =
                    expected.iter().map(|&row| support.coords()[row as usize]).collect();
                assert!(rows(&gpu, &found.coords) == expected, "{device}");
            }
            let queries: Vec<Coord> = (support.coords().iter().rev())
                .map(|c| [c[0], c[1] + numbers.below(2) as i32, c[2], c[3]])
                .collect();
            let index = BlockIndex::build(&gpu, &coords, support.n_rows());
            let found = lookup(&gpu, &index, &gpu.upload(queries.as_flattened()));
            assert!(gpu.download::<i32>(&found) == support.lookup_all(&queries), "{device}");
        }
    }
}
