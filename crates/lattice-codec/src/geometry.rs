//! Voxels of one block, level by level: one walk that the encoder and the decoder share.

use crate::coder::{BitCoder, Decoder, Encoder};
use crate::judge::{Contexts, Judge, Sight};
use crate::lone::LoneModel;
use crate::model::Model;
use crate::network::Learned;
use crate::occupancy::{OccupancyModel, Surroundings};
use crate::octree::{self, TreeLevel, child_number, child_of};
use crate::residual::Surrounds;
use crate::window::{AROUND, HOLDER, corner, placed};

const NONE: u32 = u32::MAX;

/// What a walk needs to know before it begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockShape {
    /// Edge of the block: `2^depth` voxels.
    pub(crate) depth: u32,
    /// Voxels in it.
    pub(crate) n_voxels: usize,
    /// Where the sensor stands, in voxels from the block's low corner.
    pub(crate) sensor: [i64; 3],
}

/// Cells of one level that have been coded.
#[derive(Default)]
struct Level {
    at: Vec<[u32; 3]>,
    children: Vec<u8>,
    /// Number of the first child on the next level.
    first_child: Vec<u32>,
    /// Occupied cells among the 26 around and the cell itself; 0 for a cell whose tail is known.
    around: Vec<u32>,
    /// Where the numbers of these cells begin in `neighbours`.
    first_neighbour: Vec<u32>,
    neighbours: Vec<u32>,
    /// Number of the tail that runs through the cell, or `NONE`.
    tail: Vec<u32>,
}

/// The cells around a cell and their children.
struct Holders {
    /// Numbers of the cells, by direction; those that are not occupied are not set.
    cells: [u32; 27],
    /// Their children as a window.
    window: u64,
}

impl Holders {
    /// Number, on the level below, of the occupied cell at `bit` of the window.
    #[inline]
    fn child(&self, level: &Level, bit: u32) -> u32 {
        let (holder, child) = HOLDER[bit as usize];
        let n = self.cells[usize::from(holder)] as usize;
        let before = level.children[n] & ((1u16 << child) - 1) as u8;
        level.first_child[n] + before.count_ones()
    }
}

impl Level {
    /// A level with one cell, whose only child is the root.
    fn above_root() -> Self {
        Self {
            at: vec![[0; 3]],
            children: vec![1],
            first_child: vec![0],
            around: vec![1 << 13],
            first_neighbour: vec![0],
            neighbours: vec![0],
            tail: vec![NONE],
        }
    }

    /// What is around cell `number`; nothing on a tail.
    #[inline]
    fn holders(&self, number: usize) -> Holders {
        let mut holders = Holders { cells: [0; 27], window: 0 };
        let mut from = self.first_neighbour[number] as usize;
        let mut bits = self.around[number];
        while bits != 0 {
            let d = bits.trailing_zeros() as usize;
            bits &= bits - 1;
            let n = self.neighbours[from];
            from += 1;
            holders.cells[d] = n;
            holders.window |= placed(self.children[n as usize], d);
        }
        holders
    }

    fn clear(&mut self) {
        self.at.clear();
        self.children.clear();
        self.first_child.clear();
        self.around.clear();
        self.first_neighbour.clear();
        self.neighbours.clear();
        self.tail.clear();
    }
}

/// Levels below a cell from which on a lone voxel is told.
const TAIL_LEVELS: u32 = 2;
/// Cells around, the cell included, up to which it is asked whether it holds one voxel.
const TAIL_CELLS: u32 = 2;

/// Cells around, the cell included, up to which it is asked whether it has one child.
const LONE_CELLS: u32 = 6;

struct Walk<'a, C, J> {
    coder: C,
    judge: J,
    shape: BlockShape,
    occupancy: OccupancyModel,
    lone: LoneModel,
    /// The voxel at the end of each tail.
    ends: Vec<[u32; 3]>,
    voxels: Vec<[u32; 3]>,
    /// The encoder's tree and voxels; the decoder has none.
    truth: Option<(&'a [TreeLevel], &'a [[u32; 3]])>,
}

/// A parent whose children are coded: its number, and what its neighbours hold.
struct Parent {
    number: usize,
    holders: Holders,
}

impl<'a, C: BitCoder, J: Judge> Walk<'a, C, J> {
    fn new(coder: C, judge: J, shape: BlockShape, truth: Option<(&'a [TreeLevel], &'a [[u32; 3]])>) -> Self {
        let (occupancy, lone) = (OccupancyModel::new(), LoneModel::new());
        Self {
            coder,
            judge,
            shape,
            occupancy,
            lone,
            ends: Vec::new(),
            voxels: Vec::with_capacity(shape.n_voxels),
            truth,
        }
    }

    /// Codes all levels; the last one with cells. `None` as soon as a level has more cells than the block has voxels.
    fn run(&mut self) -> Option<Level> {
        if self.shape.depth == 0 {
            self.voxels.push([0; 3]);
            return Some(Level::default());
        }
        let (mut above, mut level) = (Level::above_root(), Level::default());
        for l in 0..self.shape.depth {
            level.clear();
            let mut n_below = 0;
            for number in 0..above.at.len() {
                let parent = Parent { number, holders: above.holders(number) };
                let mut todo = above.children[number];
                while todo != 0 {
                    let c = todo.trailing_zeros();
                    todo &= todo - 1;
                    self.cell(l, &parent, c, &above, &mut level, n_below);
                    n_below += level.children.last().map_or(0, |c| c.count_ones());
                }
                // At most eight cells above the limit at any time.
                if n_below as usize > self.shape.n_voxels {
                    return None;
                }
            }
            std::mem::swap(&mut above, &mut level);
        }
        Some(above)
    }

    /// Codes child `c` of a parent: which children it has in turn.
    #[inline]
    fn cell(&mut self, l: u32, parent: &Parent, c: u32, above: &Level, level: &mut Level, first_child: u32) {
        let left = self.shape.depth - l;
        let mut tail = above.tail[parent.number];
        let node = level.at.len() as u32;
        let at = if l == 0 { [0; 3] } else { child_of(above.at[parent.number], c) };
        level.at.push(at);
        level.first_child.push(first_child);
        level.first_neighbour.push(level.neighbours.len() as u32);
        let mut children = 0;
        if tail != NONE {
            level.around.push(0);
        } else {
            let around = self.look_around(l, parent, c, above, level);
            level.around.push(around.cells);
            let n_cells = around.cells.count_ones();
            if J::LOOKS {
                self.judge.look(&self.sight(parent, c, above, &around, at));
            }
            let number = node as usize;
            if left >= TAIL_LEVELS && n_cells <= TAIL_CELLS {
                let lone = self.truth.is_some_and(|(levels, _)| {
                    let first = &levels[l as usize].first_voxel[number..];
                    first[1] - first[0] == 1
                });
                if self.lone.flag(&mut self.coder, &mut self.judge, &around, true, lone) {
                    let voxel = |(levels, voxels): (&[TreeLevel], &[[u32; 3]])| {
                        voxels[levels[l as usize].first_voxel[number] as usize]
                    };
                    let end = self.tail(at, around, self.truth.map_or([0; 3], voxel));
                    tail = self.ends.len() as u32;
                    self.ends.push(end);
                }
            }
            if tail == NONE {
                let truth = self.truth.map_or(0, |(levels, _)| levels[l as usize].children[number]);
                let sparse = n_cells <= LONE_CELLS;
                children = if sparse
                    && self.lone.flag(
                        &mut self.coder,
                        &mut self.judge,
                        &around,
                        false,
                        truth.is_power_of_two(),
                    ) {
                    1 << self.lone.child(
                        &mut self.coder,
                        &mut self.judge,
                        &around,
                        truth.trailing_zeros(),
                        false,
                    )
                } else {
                    self.occupancy.code(
                        &mut self.coder,
                        &mut self.judge,
                        &around,
                        truth,
                        1 + u32::from(sparse),
                    )
                };
            }
        }
        if tail != NONE {
            children = 1u8 << child_number(self.ends[tail as usize].map(|v| v >> (left - 1)));
        }
        level.children.push(children);
        level.tail.push(tail);
        if left == 1 {
            let mut bits = children;
            while bits != 0 {
                self.voxels.push(child_of(at, bits.trailing_zeros()));
                bits &= bits - 1;
            }
        }
    }

    /// Lists the cells around child `c` of a parent, and what is known of their children.
    #[inline]
    fn look_around(&self, l: u32, parent: &Parent, c: u32, above: &Level, level: &mut Level) -> Surroundings {
        let left = self.shape.depth - l;
        let at = level.at[level.at.len() - 1];
        let node = level.children.len() as u32;
        let mut around = Surroundings {
            cells: 0,
            known: 0,
            open: 0,
            later: 0,
            siblings: above.children[parent.number],
            levels_left: left,
            elevation: self.elevation(at, left - 1),
        };
        let mut near = parent.holders.window >> corner(c) & AROUND;
        while near != 0 {
            let bit = near.trailing_zeros();
            near &= near - 1;
            let number = parent.holders.child(above, bit + corner(c));
            let d = ((bit & 3) + 3 * (bit >> 2 & 3) + 9 * (bit >> 4)) as usize;
            around.cells |= 1 << d;
            level.neighbours.push(number);
            if number < node {
                around.known |= placed(level.children[number as usize], d);
            } else if number > node {
                around.later |= 1 << d;
                around.open |= placed(0xff, d);
            }
        }
        around
    }

    /// The voxel below a cell with one alone, `left` levels down.
    fn tail(&mut self, at: [u32; 3], around: Surroundings, end: [u32; 3]) -> [u32; 3] {
        let (mut at, mut around) = (at, around);
        let top = around.levels_left;
        for k in (0..top).rev() {
            let truth = child_number(end.map(|v| v >> k));
            // Below the first cell nothing is around: the network has nothing to say.
            let number = if k + 1 == top {
                self.lone.child(&mut self.coder, &mut self.judge, &around, truth, false)
            } else {
                self.lone.child(&mut self.coder, &mut Contexts, &around, truth, true)
            };
            at = child_of(at, number);
            if k > 0 {
                let elevation = self.elevation(at, k - 1);
                around = Surroundings {
                    cells: 1 << 13,
                    known: 0,
                    open: 0,
                    later: 0,
                    siblings: 1 << number,
                    levels_left: k,
                    elevation,
                };
            }
        }
        at
    }

    /// What a network sees of child `c` of a parent.
    #[inline]
    fn sight<'s>(
        &self,
        parent: &Parent,
        c: u32,
        above: &Level,
        around: &'s Surroundings,
        at: [u32; 3],
    ) -> Sight<'s> {
        let (centre, range) = self.seen_from_sensor(at, around.levels_left - 1);
        let parents = above.around[parent.number];
        Sight { around, octant: c, window: parent.holders.window, parents, centre, range }
    }

    /// From the sensor to a cell's centre, in halves of a child of `2^shift` voxels, and its length along the ground.
    #[inline]
    fn seen_from_sensor(&self, at: [u32; 3], shift: u32) -> ([i64; 3], i64) {
        // In halves of a child, so that centres are whole numbers.
        let sensor = self.shape.sensor.map(|s| (2 * s) >> shift);
        // What is farther than 2^29 children is clamped, so that squares fit.
        let centre = [0, 1, 2].map(|a| (4 * i64::from(at[a]) + 2 - sensor[a]).clamp(-(1 << 30), 1 << 30));
        let r = (centre[0] * centre[0] + centre[1] * centre[1]) as u64;
        (centre, r.isqrt().max(1) as i64)
    }

    /// Elevation of a cell's lower and upper children of `2^shift` voxels, seen from the sensor: a bin and how fine bins are.
    fn elevation(&self, at: [u32; 3], shift: u32) -> [u32; 2] {
        let (centre, r) = self.seen_from_sensor(at, shift);
        let fine = (63 - r.leading_zeros()).min(11);
        [-1, 1].map(|dz| {
            let bin = ((centre[2] + dz) << fine).div_euclid(r);
            (bin as u32) << 4 | fine
        })
    }
}

/// Coded voxels and the cells above them.
pub(crate) struct Coded {
    pub(crate) voxels: Vec<[u32; 3]>,
    /// Cells whose children the voxels are; empty for a block of one voxel.
    parents: Level,
}

/// For each voxel those before it that touch it.
pub(crate) struct Neighbours {
    first: Vec<u32>,
    neighbours: Vec<(u32, u8)>,
}

impl Neighbours {
    /// With the voxels that they are numbers of.
    pub(crate) fn around<'a>(&'a self, voxels: &'a [[u32; 3]]) -> Surrounds<'a> {
        Surrounds { voxels, first: &self.first, neighbours: &self.neighbours }
    }
}

impl Coded {
    /// Finds the voxels before each that touch it, through their parents' neighbours. A voxel at the end of a tail has none: what is next to it
    /// is known from the other side alone.
    pub(crate) fn neighbours(&self) -> Neighbours {
        let parents = &self.parents;
        let mut found = Neighbours { first: vec![0], neighbours: Vec::new() };
        for p in 0..parents.at.len() {
            let holders = parents.holders(p);
            let mut todo = parents.children[p];
            let mut row = parents.first_child[p];
            while todo != 0 {
                let c = todo.trailing_zeros();
                todo &= todo - 1;
                let mut near = holders.window >> corner(c) & AROUND;
                while near != 0 {
                    let bit = near.trailing_zeros();
                    near &= near - 1;
                    let other = holders.child(parents, bit + corner(c));
                    if other < row {
                        let off_axis = [bit & 3, bit >> 2 & 3, bit >> 4].iter().filter(|v| **v != 1).count();
                        found.neighbours.push((other, 8 >> off_axis));
                    }
                }
                found.first.push(found.neighbours.len() as u32);
                row += 1;
            }
        }
        // A block of one voxel has no parents.
        found.first.resize(self.voxels.len() + 1, 0);
        found
    }
}

/// Walks over voxels, which are distinct, in Morton order, inside the block's cube.
pub(crate) fn watch<C: BitCoder, J: Judge>(
    shape: BlockShape,
    voxels: &[[u32; 3]],
    coder: C,
    judge: J,
) -> (C, Coded) {
    let levels = octree::build(voxels, shape.depth);
    let mut walk = Walk::new(coder, judge, shape, Some((&levels, voxels)));
    // The tree has as many voxels as the shape says.
    let parents = walk.run().unwrap_or_default();
    debug_assert!(walk.voxels == voxels);
    (walk.coder, Coded { voxels: walk.voxels, parents })
}

/// The stream of a block's voxels, which are distinct, in Morton order, inside its cube.
pub(crate) fn encode(model: Model, shape: BlockShape, voxels: &[[u32; 3]]) -> (Vec<u8>, Coded) {
    let coder = Encoder::new();
    let (coder, coded) = match model {
        Model::Contexts => watch(shape, voxels, coder, Contexts),
        Model::Learned => watch(shape, voxels, coder, Learned::new()),
    };
    (coder.finish(), coded)
}

/// The voxels of a stream, and whether all of it was read; `None` when there are more voxels than the shape says.
pub(crate) fn decode(model: Model, shape: BlockShape, stream: &[u8]) -> Option<(Coded, bool)> {
    fn read(shape: BlockShape, stream: &[u8], judge: impl Judge) -> Option<(Coded, bool)> {
        let mut walk = Walk::new(Decoder::new(stream), judge, shape, None);
        let parents = walk.run()?;
        let spent = walk.coder.is_spent();
        Some((Coded { voxels: walk.voxels, parents }, spent))
    }
    match model {
        Model::Contexts => read(shape, stream, Contexts),
        Model::Learned => read(shape, stream, Learned::new()),
    }
}
