//! Features of points that any scan has: they are made of positions alone.

/// Channels of [`input_features`].
pub const INPUT_CHANNELS: usize = 5;

/// What the channels of [`input_features`] hold, as weight files record it.
pub const INPUT_NAMES: [&str; INPUT_CHANNELS] = ["one", "place_x", "place_y", "place_z", "height"];

/// The height that 1 % of the points lie below; 0 without points.
pub fn ground_height(positions: &[[f32; 3]]) -> f32 {
    let mut heights: Vec<f32> = positions.iter().map(|p| p[2]).collect();
    if heights.is_empty() {
        return 0.0;
    }
    let rank = heights.len() / 100;
    *heights.select_nth_unstable_by(rank, f32::total_cmp).1
}

/// Where a point stands inside its voxel along x, y, z: -0.5 to 0.5.
pub fn place_in_voxel(position: [f32; 3], voxel_size: f32) -> [f32; 3] {
    // As voxels are found: a point on a cell's border stands on the same side for both.
    position.map(|v| (v / voxel_size - (v / voxel_size).floor()) - 0.5)
}

/// Five values a point, row by row: 1, the [`place_in_voxel`], the height above [`ground_height`] in the unit of the positions.
pub fn input_features(positions: &[[f32; 3]], voxel_size: f32) -> Vec<f32> {
    let ground = ground_height(positions);
    let row = |p: &[f32; 3]| {
        let [x, y, z] = place_in_voxel(*p, voxel_size);
        [1.0, x, y, z, p[2] - ground]
    };
    positions.iter().flat_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_do_not_know_where_the_scan_stands() {
        let scan: Vec<[f32; 3]> = (0..200).map(|i| [i as f32 * 0.25, -3.0, i as f32 * 0.5]).collect();
        let moved: Vec<[f32; 3]> = scan.iter().map(|p| [p[0] + 8.0, p[1] - 16.0, p[2] + 4.0]).collect();
        assert_eq!(input_features(&scan, 0.5), input_features(&moved, 0.5));
        assert_eq!(ground_height(&scan), 1.0);
        assert_eq!(&input_features(&[[0.75, -0.25, 2.0]], 0.5), &[1.0, 0.0, 0.0, -0.5, 0.0]);
    }
}
