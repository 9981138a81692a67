//! Generated scenes measure like real ones.

use lattice_io::PointCloud;
use lattice_scenes::{Beams, RoomSampling, SceneKind, SceneOptions, generate};
use rstest::rstest;

mod support;
use support::targets::{FRAGMENT, LIDAR_32, LIDAR_64, OBJECT_NEIGHBOURS, OBJECT_VOXELS, ROOM, SIZES, Target};
use support::{Occupancy, column, distance, heights, occupancy, ranges, voxelize};

/// Fewer without optimisation, where a scene takes ten times as long.
const SEEDS: u64 = if cfg!(debug_assertions) { 2 } else { 4 };

fn scenes(seeds: u64, kind: SceneKind, options: &SceneOptions) -> Vec<PointCloud> {
    (0..seeds).map(|seed| generate(kind, seed, options)).collect()
}

/// Occupancy of a scene at each of [`SIZES`].
fn scales(cloud: &PointCloud) -> [Occupancy; 4] {
    SIZES.map(|size| occupancy(&voxelize(cloud, size)))
}

fn assert_inside(cloud: &PointCloud, scales: &[Occupancy; 4], target: &Target, with_alone: bool) {
    let points = cloud.len() as f64;
    assert!(points >= target.points[0] && points <= target.points[1], "{points} points");
    for (i, o) in scales.iter().enumerate() {
        let Some([voxels, neighbours, alone]) = target.bands[i] else { continue };
        let mut checks =
            vec![("voxels", o.voxels as f64, voxels), ("neighbours", o.neighbours(), neighbours)];
        if with_alone {
            checks.push(("% alone", o.histogram[0], alone));
        }
        for (name, value, [low, high]) in checks {
            assert!(value >= low && value <= high, "{} m: {name} {value} outside {low}..{high}", SIZES[i]);
        }
    }
}

/// The mean distance of the scenes to the real mean is at most the distance of two real scans.
fn assert_near(all: &[[Occupancy; 4]], target: &Target) {
    for (i, real) in target.real_distance.into_iter().flatten().enumerate() {
        let mean = column(&target.histogram, i);
        let found = all.iter().map(|s| distance(&s[i].histogram, &mean)).sum::<f64>() / all.len() as f64;
        assert!(found <= real, "{} m: histogram distance {found}, real to real {real}", SIZES[i]);
    }
}

#[rstest]
#[case::sweep(SEEDS, SceneKind::Lidar, &LIDAR_64, true)]
// The real rooms have no lone voxel at all; a generated one may have one in ten thousand.
#[case::room(8, SceneKind::Indoor, &ROOM, false)]
fn default_scenes_lie_inside_the_bands_and_as_near_as_real_ones(
    #[case] seeds: u64,
    #[case] kind: SceneKind,
    #[case] target: &Target,
    #[case] with_alone: bool,
) {
    let clouds = scenes(seeds, kind, &SceneOptions::default());
    let all: Vec<_> = clouds.iter().map(scales).collect();
    for (cloud, scales) in clouds.iter().zip(&all) {
        assert_inside(cloud, scales, target, with_alone);
    }
    assert_near(&all, target);
}

#[test]
fn density_of_a_sweep_falls_with_the_distance_as_in_real_ones() {
    let clouds = scenes(SEEDS, SceneKind::Lidar, &SceneOptions::default());
    let n = clouds.len() as f64;
    for (ring, real) in LIDAR_64.ranges.into_iter().flatten().enumerate() {
        let found: f64 = clouds.iter().map(|c| ranges(c)[ring] / n).sum();
        assert!((found - real).abs() < 9.0, "ring {ring}: {found} %, real {real} %");
    }
    for (i, real) in LIDAR_64.heights.into_iter().flatten().enumerate() {
        let found: f64 = clouds.iter().map(|c| heights(c)[i] / n).sum();
        assert!((found - real).abs() < 0.5, "height {i}: {found}, real {real}");
    }
}

#[test]
fn fragments_are_as_dense_as_real_ones() {
    let options = SceneOptions::default().with_room(RoomSampling::DenseFragment);
    let clouds = scenes(SEEDS, SceneKind::Indoor, &options);
    let n = clouds.len() as f64;
    let all: Vec<_> = clouds.iter().map(scales).collect();
    for (i, size) in SIZES.into_iter().enumerate() {
        let Some([voxels, neighbours, _]) = FRAGMENT.bands[i] else { continue };
        let mean_voxels = all.iter().map(|s| s[i].voxels as f64).sum::<f64>() / n;
        let mean_neighbours = all.iter().map(|s| s[i].neighbours()).sum::<f64>() / n;
        assert!(mean_voxels >= voxels[0] && mean_voxels <= voxels[1], "{size}: {mean_voxels} voxels");
        assert!(
            mean_neighbours >= neighbours[0] && mean_neighbours <= neighbours[1],
            "{size}: {mean_neighbours}"
        );
    }
}

#[test]
fn sweeps_of_32_beams_have_the_voxels_of_the_real_one() {
    for cloud in scenes(SEEDS, SceneKind::Lidar, &SceneOptions::default().with_beams(Beams::B32)) {
        for (size, bands) in SIZES.into_iter().zip(LIDAR_32.bands) {
            let Some([voxels, ..]) = bands else { continue };
            let found = occupancy(&voxelize(&cloud, size)).voxels as f64;
            assert!(found >= voxels[0] && found <= voxels[1], "{size}: {found} voxels");
        }
    }
}

#[rstest]
#[case::side_32(0, 32)]
#[case::side_64(1, 64)]
fn objects_are_closed_surfaces(#[case] i: usize, #[case] n: u32) {
    // A quarter of the points covers these coarse voxels.
    for cloud in scenes(SEEDS, SceneKind::Object, &SceneOptions::default().with_density(0.25)) {
        let o = occupancy(&voxelize(&cloud, 1.0 / f64::from(n)));
        let [low, high] = OBJECT_VOXELS[i];
        let found = o.voxels as f64;
        assert!(found > 0.7 * low && found < 1.4 * high, "side / {n}: {found} voxels, real {low}..{high}");
        let [low, high] = OBJECT_NEIGHBOURS[i];
        let found = o.neighbours();
        assert!(
            found > 0.93 * low && found < 1.07 * high,
            "side / {n}: {found} neighbours, real {low}..{high}"
        );
        assert!(cloud.positions.iter().flatten().all(|v| (0.0..1.0).contains(v)));
    }
}
