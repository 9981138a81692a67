//! The models of geometry: what each writes comes back, on every machine the same bytes, and the learned one takes fewer.
#![allow(clippy::unwrap_used, reason = "tests")]

use lattice_codec::{
    CodecError, CompressOptions, Event, Grid, Limits, MAX_BLOCK_VOXELS, Model, N_FEATURES, N_HEADS, Occupied,
    VoxelCloud, compress, decompress, observe,
};
use lattice_scenes::{SceneKind, SceneOptions, generate};
use lattice_testkit::strategies;
use proptest::prelude::*;
use rstest::rstest;

const GRID: Grid = Grid { voxel_size: 0.25, origin: [1.0, 2.0, 3.0] };

fn options(model: Model) -> CompressOptions {
    let mut options = CompressOptions::default();
    options.model = model;
    options
}

fn pack(cloud: &VoxelCloud, options: &CompressOptions) -> Vec<u8> {
    let mut stream = Vec::new();
    compress(cloud, GRID, options, &mut stream, |_| {}).unwrap();
    stream
}

fn geometry(cells: &[[i32; 4]]) -> VoxelCloud {
    VoxelCloud { voxels: Occupied::of(cells).unwrap().voxels, ..VoxelCloud::default() }
}

/// A wavy floor with a wall and stray voxels, in whole numbers alone.
fn room() -> VoxelCloud {
    let mut state = 9u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as i32
    };
    let mut cells = Vec::new();
    for x in -40..60 {
        for y in -30..30 {
            cells.push([0, x, y, (x * x + 3 * y * x) / 900 + next() % 2]);
            if y > -4 {
                cells.push([0, x, 20 + x / 7, y]);
            }
            if next() % 50 == 0 {
                cells.push([0, x, y, next() % 300]);
            }
        }
    }
    geometry(&cells)
}

proptest! {
    #[test]
    fn any_voxels_come_back(rows in strategies::any_support(), block in prop_oneof![1usize..9, Just(4096)]) {
        let cells: Vec<[i32; 4]> = rows.iter().map(|&[_, x, y, z]| [0, x, y, z]).collect();
        let cloud = geometry(&cells);
        let mut options = options(Model::Learned);
        options.block_voxels = block;
        let (header, back) = decompress(pack(&cloud, &options).as_slice(), Limits::default(), |_| {}).unwrap();
        prop_assert_eq!(header.model, Model::Learned);
        prop_assert_eq!(back, cloud);
    }
}

#[rstest]
#[case(&[])]
#[case(&[[0, 0, 0, 0]])]
#[case(&[[0, i32::MIN, i32::MIN, i32::MIN], [0, i32::MAX, i32::MAX, i32::MAX], [0, i32::MAX, i32::MAX, i32::MAX - 1]])]
fn corners(#[case] cells: &[[i32; 4]], #[values([0; 3], [i32::MIN; 3], [i32::MAX, 5, -5])] sensor: [i32; 3]) {
    let cloud = geometry(cells);
    let mut options = options(Model::Learned);
    options.sensor = sensor;
    assert_eq!(decompress(pack(&cloud, &options).as_slice(), Limits::default(), |_| {}).unwrap().1, cloud);
}

/// Streams that lie in the repository: `contexts.lat` was written before there was another model. A change of a model changes these bytes, and then
/// streams that people have no longer read: the version rises, or for the network its checksum.
#[rstest]
#[case(Model::Contexts, include_bytes!("streams/contexts.lat"))]
#[case(Model::Learned, include_bytes!("streams/learned.lat"))]
fn streams_have_the_bytes_that_they_had(#[case] model: Model, #[case] stream: &[u8]) {
    let cloud = room();
    let (header, back) = decompress(stream, Limits::default(), |_| {}).unwrap();
    assert_eq!(header.model, model);
    assert_eq!(back, cloud);
    assert!(pack(&cloud, &options(model)) == stream, "the encoder writes other bytes");
}

/// Scenes of seeds that the training did not see.
#[rstest]
#[case(SceneKind::Lidar, 0.5, 0.1)]
#[case(SceneKind::Indoor, 1.0, 0.02)]
#[case(SceneKind::Object, 0.02, 0.01)]
fn the_learned_model_takes_fewer_bytes(#[case] kind: SceneKind, #[case] density: f64, #[case] size: f64) {
    let scene = generate(kind, 4711, &SceneOptions::default().with_density(density));
    let cell = |p: &[f64; 3]| {
        let [x, y, z] = p.map(|v| (v / size).floor() as i32);
        [0, x, y, z]
    };
    let cloud = geometry(&scene.positions.iter().map(cell).collect::<Vec<_>>());
    let [plain, learned] = Model::ALL.map(|model| pack(&cloud, &options(model)));
    let n = cloud.voxels.len();
    assert!(n > 5000 && learned.len() * 100 < plain.len() * 98, "{n}: {} and {}", learned.len(), plain.len());
    assert_eq!(decompress(learned.as_slice(), Limits::default(), |_| {}).unwrap().1, cloud);
}

#[test]
fn bytes_do_not_depend_on_threads() {
    let cloud = room();
    let mut options = options(Model::Learned);
    options.block_voxels = 2000;
    let with = |n| {
        rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap().install(|| pack(&cloud, &options))
    };
    assert_eq!(with(1), with(3));
}

#[test]
fn models_go_by_name() {
    for model in Model::ALL {
        assert_eq!(model.to_string().parse(), Ok(model));
    }
    let text = "magic".parse::<Model>().unwrap_err().to_string();
    assert_eq!(text, "model: expected contexts or learned, found `magic`");
}

#[test]
fn what_is_observed_is_what_is_coded() {
    let cloud = room();
    let (mut cells, mut bits, mut heads) = (0, 0.0, vec![0; N_HEADS]);
    observe(&cloud.voxels, [0; 3], |event| match event {
        Event::Cell(features) => {
            cells += 1;
            assert!(features.iter().all(|f| usize::from(*f) < N_FEATURES));
            assert!((1..features.len()).all(|k| !features[..k].contains(&features[k])));
        }
        Event::Feature(feature) => assert!(usize::from(feature) < N_FEATURES),
        Event::Question(head, bit, p) => {
            heads[head] += 1;
            let p = f64::from(p) / 65_536.0;
            bits -= if bit { p } else { 1.0 - p }.log2();
        }
    })
    .unwrap();
    assert!(cells > cloud.voxels.len() / 8 && heads.iter().all(|n| *n > 0), "{cells} cells, {heads:?}");
    // All but the levels below lone voxels, and the container.
    let coded = 8.0 * pack(&cloud, &options(Model::Contexts)).len() as f64;
    assert!(bits < coded && bits > 0.8 * coded, "{bits} of {coded} bits");
    let refused = |voxels: &[[i32; 3]]| match observe(voxels, [0; 3], |_| {}) {
        Err(error @ CodecError::Value { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    };
    assert!(refused(&[]).contains("1 to 262144 voxels"));
    assert!(refused(&vec![[0; 3]; MAX_BLOCK_VOXELS + 1]).contains("found 262145"));
    assert!(refused(&[[1; 3], [0; 3]]).contains("canonical order"));
}
