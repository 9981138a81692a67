//! The octree over sorted voxels, as the encoder needs it: which children each cell has, level by level.

/// Cells of one level in Morton order.
pub(crate) struct TreeLevel {
    /// Occupied children of each cell: bit `x + 2 y + 4 z`.
    pub(crate) children: Vec<u8>,
    /// Number of the first voxel below each cell, then the number of voxels.
    pub(crate) first_voxel: Vec<u32>,
}

/// Levels of cells with children, the root's first; there are `depth` of them.
pub(crate) fn build(voxels: &[[u32; 3]], depth: u32) -> Vec<TreeLevel> {
    let mut levels: Vec<TreeLevel> = Vec::with_capacity(depth as usize);
    // Cells of the level below, each with its first voxel.
    let mut below: Vec<([u32; 3], u32)> = voxels.iter().zip(0..).map(|(v, row)| (*v, row)).collect();
    for _ in 0..depth {
        let mut cells: Vec<([u32; 3], u32)> = Vec::with_capacity(below.len());
        let mut children = Vec::with_capacity(below.len());
        for &(at, first) in &below {
            let parent = at.map(|v| v >> 1);
            if cells.last().is_none_or(|(cell, _)| *cell != parent) {
                cells.push((parent, first));
                children.push(0);
            }
            if let Some(children) = children.last_mut() {
                *children |= 1u8 << child_number(at);
            }
        }
        let mut first_voxel: Vec<u32> = cells.iter().map(|(_, first)| *first).collect();
        first_voxel.push(voxels.len() as u32);
        levels.push(TreeLevel { children, first_voxel });
        below = cells;
    }
    levels.reverse();
    levels
}

/// Which child of its parent a cell is.
#[inline]
pub(crate) fn child_number([x, y, z]: [u32; 3]) -> u32 {
    x & 1 | (y & 1) << 1 | (z & 1) << 2
}

/// Child `number` of a cell.
#[inline]
pub(crate) fn child_of([x, y, z]: [u32; 3], number: u32) -> [u32; 3] {
    [x << 1 | number & 1, y << 1 | number >> 1 & 1, z << 1 | number >> 2]
}
