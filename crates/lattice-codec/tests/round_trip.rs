//! What goes in comes out: voxels in canonical order, counts, attributes within what is stated, positions within half a voxel.
#![allow(clippy::unwrap_used, reason = "tests")]

use lattice_codec::{
    Attribute, CodecError, CompressOptions, Grid, Header, Limits, Occupied, Reader, Values, VoxelCloud,
    compress, decompress,
};
use lattice_testkit::strategies;
use proptest::prelude::*;
use rstest::rstest;

const GRID: Grid = Grid { voxel_size: 0.5, origin: [10.0, -3.0, 0.25] };

fn pack(cloud: &VoxelCloud, options: &CompressOptions) -> Vec<u8> {
    let mut stream = Vec::new();
    let (header, bytes) = compress(cloud, GRID, options, &mut stream, |_| {}).unwrap();
    assert_eq!(bytes, stream.len() as u64);
    assert_eq!(header.n_voxels, cloud.voxels.len() as u64);
    stream
}

fn unpack(stream: &[u8]) -> (Header, VoxelCloud) {
    decompress(stream, Limits::default(), |_| {}).unwrap()
}

fn options(block_voxels: usize) -> CompressOptions {
    let mut options = CompressOptions::default();
    options.block_voxels = block_voxels;
    options
}

/// The canonical order by its definition: interleaved bits of biased coordinates, z above y above x.
fn definition(cells: &[[i32; 4]]) -> Vec<[i32; 3]> {
    let code = |v: &[i32; 3]| {
        let mut code = 0u128;
        for bit in (0..32).rev() {
            for axis in [2, 1, 0] {
                code = code << 1 | u128::from((v[axis] as u32 ^ 0x8000_0000) >> bit & 1);
            }
        }
        code
    };
    let mut voxels: Vec<[i32; 3]> = cells.iter().map(|c| [c[1], c[2], c[3]]).collect();
    voxels.sort_by_key(code);
    voxels.dedup();
    voxels
}

fn noise(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    }
}

/// A rough surface with stray voxels above it.
fn surface(side: i32) -> Vec<[i32; 4]> {
    let mut next = noise(5);
    let mut cells = Vec::new();
    for x in -side / 2..side / 2 {
        for y in -side / 2..side / 2 {
            let height = (f64::from(x) * 0.1).sin() * 5.0 + f64::from(y) * 0.2;
            cells.push([0, x, y, height as i32 + (next() % 2) as i32]);
            if next().is_multiple_of(20) {
                cells.push([0, x, y, 10 + (next() % 1000) as i32]);
            }
        }
    }
    cells
}

fn geometry(cells: &[[i32; 4]]) -> VoxelCloud {
    VoxelCloud { voxels: Occupied::of(cells).unwrap().voxels, ..VoxelCloud::default() }
}

proptest! {
    #[test]
    fn any_voxels_come_back_in_canonical_order(rows in strategies::any_support(), block in prop_oneof![1usize..9, Just(4096)]) {
        let cells: Vec<[i32; 4]> = rows.iter().map(|&[_, x, y, z]| [0, x, y, z]).collect();
        let cloud = geometry(&cells);
        prop_assert_eq!(&cloud.voxels, &definition(&cells));
        let (header, back) = unpack(&pack(&cloud, &options(block)));
        prop_assert_eq!(back, cloud);
        prop_assert_eq!(header.grid, GRID);
    }

    #[test]
    fn any_attributes_come_back(
        rows in strategies::lidar_like(),
        seed in any::<u64>(),
        block in prop_oneof![1usize..9, Just(4096)],
    ) {
        let cells: Vec<[i32; 4]> = rows.iter().map(|&[_, x, y, z]| [0, x, y, z]).collect();
        let mut cloud = geometry(&cells);
        let n = cloud.voxels.len();
        let mut next = noise(seed);
        let mut word = || (next() << 33 ^ next()) as u32;
        let mut list = |name: &str, values: Values| cloud.attributes.push(Attribute { name: name.into(), values });
        list("a", Values::U8((0..n).map(|_| word() as u8).collect()));
        list("b", Values::U16((0..n).map(|_| word() as u16).collect()));
        list("c", Values::U32((0..n).map(|_| word()).collect()));
        list("d", Values::I32((0..n).map(|_| word() as i32).collect()));
        list("e", Values::F32((0..n).map(|_| f32::from_bits(word() & 0xff7f_ffff)).collect()));
        list("f", Values::F64((0..n).map(|_| f64::from(word()) * -1e-300).collect()));
        list("g", Values::Rgb((0..n).map(|_| word().to_le_bytes()).map(|[r, g, b, _]| [r, g, b]).collect()));
        list("h", Values::F32((0..n).map(|_| (word() % 3) as f32 * 0.1).collect()));
        cloud.counts = Some((0..n).map(|_| 1 + word() % 5 * (word() % 900_000_000)).collect());
        let (header, back) = unpack(&pack(&cloud, &options(block)));
        prop_assert_eq!(back, cloud);
        prop_assert!(header.attributes().iter().all(|a| a.greatest_error == 0.0));
    }
}

#[rstest]
#[case::none(&[])]
#[case::one(&[[0, 5, -7, 9]])]
#[case::ends(&[[0, i32::MIN, i32::MIN, i32::MIN], [0, i32::MAX, i32::MAX, i32::MAX], [0, i32::MIN, 0, i32::MAX], [0, -1, 0, -1]])]
#[case::twice(&[[0, 1, 2, 3], [0, 1, 2, 3], [0, 0, 0, 0]])]
fn corners(#[case] cells: &[[i32; 4]]) {
    let cloud = geometry(cells);
    for block in [1, 2, 100] {
        assert_eq!(unpack(&pack(&cloud, &options(block))).1, cloud);
    }
}

#[test]
fn surfaces_take_few_bits_and_small_blocks_cost_size_only() {
    let cloud = geometry(&surface(200));
    let whole = pack(&cloud, &CompressOptions::default());
    let bits = 8.0 * whole.len() as f64 / cloud.voxels.len() as f64;
    // The surface itself is 40,000 random bits, the strays 2,000 random heights of 10 bits and more.
    assert!(bits < 4.0, "{bits}");
    let cut = pack(&cloud, &options(1000));
    assert!(cut.len() > whole.len());
    assert_eq!(unpack(&cut).1, unpack(&whole).1);
    let mut elsewhere = CompressOptions::default();
    elsewhere.sensor = [i32::MIN, i32::MAX, 77];
    assert_eq!(unpack(&pack(&cloud, &elsewhere)).1, cloud);
}

#[test]
fn bytes_do_not_depend_on_threads() {
    let cloud = geometry(&surface(100));
    let pool = |n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap();
    let [one, three] = [1, 3].map(|n| pool(n).install(|| pack(&cloud, &options(700))));
    assert_eq!(one, three);
    assert_eq!(pool(1).install(|| unpack(&one)), pool(3).install(|| unpack(&one)));
}

#[test]
fn a_full_cube_takes_next_to_nothing() {
    let cells: Vec<[i32; 4]> = (0..32 * 32 * 32).map(|i| [0, i % 32, i / 32 % 32, i / 1024]).collect();
    let stream = pack(&geometry(&cells), &CompressOptions::default());
    assert!(stream.len() < 400, "{}", stream.len());
}

#[test]
fn points_are_within_half_a_voxel_of_what_comes_back() {
    let mut next = noise(11);
    let grid = Grid { voxel_size: 0.037, origin: [0.0; 3] };
    let points: Vec<[f64; 3]> = (0..5000).map(|_| [(); 3].map(|()| next() as f64 / 1e7 - 100.0)).collect();
    let cells: Vec<[i32; 4]> = points
        .iter()
        .map(|p| {
            let [x, y, z] = p.map(|v| (v / grid.voxel_size).floor() as i32);
            [0, x, y, z]
        })
        .collect();
    let occupied = Occupied::of(&cells).unwrap();
    let cloud = VoxelCloud { voxels: occupied.voxels.clone(), ..VoxelCloud::default() };
    let mut stream = Vec::new();
    compress(&cloud, grid, &CompressOptions::default(), &mut stream, |_| {}).unwrap();
    let (header, back) = unpack(&stream);
    for (voxel, &point) in back.voxels.iter().zip(&occupied.first_point) {
        let centre = header.grid.centre(*voxel);
        for (c, p) in centre.iter().zip(points[point as usize]) {
            assert!((c - p).abs() <= grid.voxel_size / 2.0 * (1.0 + 1e-12), "{centre:?} {p}");
        }
    }
}

#[test]
fn the_first_point_and_the_number_of_points_are_those_of_the_file() {
    let cells = [[0, 3, 0, 0], [0, 1, 0, 0], [0, 3, 0, 0], [0, 3, 0, 0]];
    let occupied = Occupied::of(&cells).unwrap();
    assert_eq!(occupied.voxels, [[1, 0, 0], [3, 0, 0]]);
    assert_eq!((occupied.first_point, occupied.counts), (vec![1, 0], vec![1, 3]));
}

#[test]
fn a_step_loses_half_of_it_at_most() {
    let mut cloud = geometry(&surface(60));
    let n = cloud.voxels.len();
    let mut next = noise(3);
    let floats: Vec<f64> = (0..n).map(|_| next() as f64 / 1e6 - 1000.0).collect();
    let small: Vec<u16> = (0..n).map(|_| next() as u16).collect();
    let colours: Vec<[u8; 3]> = (0..n).map(|_| [next() as u8, 255, 0]).collect();
    let list = |name: &str, values: Values| Attribute { name: name.into(), values };
    cloud.attributes = vec![
        list("f64", Values::F64(floats.clone())),
        list("f32", Values::F32(floats.iter().map(|&v| v as f32).collect())),
        list("u16", Values::U16(small.clone())),
        list("rgb", Values::Rgb(colours.clone())),
    ];
    for step in [0.25, 7.0] {
        let mut options = CompressOptions::default();
        options.attribute_step = step;
        let (header, back) = unpack(&pack(&cloud, &options));
        let errors: Vec<f64> = header.attributes().iter().map(|a| a.greatest_error).collect();
        let exact = if step > 1.0 { step / 2.0 + 0.5 } else { 0.0 };
        assert_eq!(errors, [step / 2.0, step / 2.0, exact, exact]);
        let Values::F64(v) = &back.attributes[0].values else { panic!() };
        assert!(v.iter().zip(&floats).all(|(a, b)| (a - b).abs() <= step / 2.0));
        let Values::F32(v) = &back.attributes[1].values else { panic!() };
        assert!(v.iter().zip(&floats).all(|(a, b)| (f64::from(*a) - b).abs() <= step / 2.0 + 1e-3));
        let Values::U16(v) = &back.attributes[2].values else { panic!() };
        assert!(v.iter().zip(&small).all(|(a, b)| f64::from(a.abs_diff(*b)) <= exact));
        let Values::Rgb(v) = &back.attributes[3].values else { panic!() };
        assert!(
            v.iter().flatten().zip(colours.iter().flatten()).all(|(a, b)| f64::from(a.abs_diff(*b)) <= exact)
        );
    }
}

#[test]
fn streams_are_read_in_batches_and_progress_is_told() {
    let cloud = geometry(&surface(100));
    let mut told = Vec::new();
    let mut stream = Vec::new();
    compress(&cloud, GRID, &options(1000), &mut stream, |n| told.push(n)).unwrap();
    assert!(told.len() > 2 && told.is_sorted() && told.last() == Some(&(cloud.voxels.len() as u64)));
    let mut reader = Reader::open(stream.as_slice(), Limits::default()).unwrap();
    let mut voxels = Vec::new();
    while let Some(batch) = reader.next_batch().unwrap() {
        assert!(batch.voxels.len() <= 1000 * rayon::current_num_threads());
        voxels.extend(batch.voxels);
    }
    assert_eq!(voxels, cloud.voxels);
    assert!(reader.next_batch().unwrap().is_none());
}

fn refused(cloud: &VoxelCloud, grid: Grid, options: &CompressOptions) -> String {
    let error = compress(cloud, grid, options, &mut Vec::new(), |_| {}).unwrap_err();
    assert!(matches!(error, CodecError::Value { .. }));
    error.to_string()
}

#[test]
fn bad_arguments_are_named() {
    let cloud = geometry(&[[0, 1, 2, 3], [0, 4, 5, 6]]);
    let plain = CompressOptions::default();
    for voxel_size in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(refused(&cloud, Grid { voxel_size, ..GRID }, &plain).contains("a finite voxel size above 0"));
    }
    for block in [0, lattice_codec::MAX_BLOCK_VOXELS + 1] {
        assert!(refused(&cloud, GRID, &options(block)).contains("blocks of 1 to 262144 voxels"));
    }
    let mut step = CompressOptions::default();
    step.attribute_step = -1.0;
    assert!(refused(&cloud, GRID, &step).contains("attribute step of 0 or more, found -1"));
    let mut bad = cloud.clone();
    bad.voxels.reverse();
    assert!(
        refused(&bad, GRID, &plain).contains("canonical order, found [4, 5, 6] before [1, 2, 3] at row 0")
    );
    bad.voxels = vec![[1, 1, 1]; 2];
    assert!(refused(&bad, GRID, &plain).contains("distinct voxels"));
    bad = VoxelCloud { counts: Some(vec![1]), ..cloud.clone() };
    assert!(refused(&bad, GRID, &plain).contains("2 values of the counts, one a voxel, found 1"));
    bad.counts = Some(vec![1, 0]);
    assert!(refused(&bad, GRID, &plain).contains("1 point or more in every voxel, found 0 at row 1"));
    let a = |name: &str, n| Attribute { name: name.into(), values: Values::F32(vec![f32::NAN; n]) };
    for (attributes, part) in [
        (vec![a("i", 3)], "2 values of i, one a voxel, found 3"),
        (vec![a("i", 2), a("i", 2)], "found `i` twice"),
        (vec![a("", 2)], "found 0 bytes"),
        (vec![a(&"n".repeat(256), 2)], "found 256 bytes"),
    ] {
        bad = VoxelCloud { attributes, ..cloud.clone() };
        assert!(refused(&bad, GRID, &plain).contains(part));
    }
    step.attribute_step = 0.1;
    bad = VoxelCloud { attributes: vec![a("i", 2)], ..cloud };
    assert!(refused(&bad, GRID, &step).contains("values of `i` that are finite"));
    assert!(Occupied::of(&[[1, 0, 0, 0]]).unwrap_err().to_string().contains("batch id 0, found 1"));
}
