//! Kernels of the neighbour search.

use cubecl::prelude::*;

use super::tree::{FAN, LEAF};
use crate::points::from_integer;

/// Boxes that a query has still to visit, at most: three a level, and a tree of 2^30 rows has 15.
const STACK: usize = 48;
/// Stands for no box.
const NO_BOX: u32 = u32::MAX;

/// Square of the distance of two values.
#[cube]
fn squared_gap(a: i32, b: i32) -> u32 {
    let (a_bits, b_bits) = (u32::cast_from(a), u32::cast_from(b));
    let gap = select(a < b, b_bits - a_bits, a_bits - b_bits);
    gap * gap
}

/// Squared distance of two coordinates.
#[cube]
fn squared(a: Vector<i32, Const<4>>, b: Vector<i32, Const<4>>) -> u32 {
    squared_gap(a.extract(1usize), b.extract(1usize))
        + squared_gap(a.extract(2usize), b.extract(2usize))
        + squared_gap(a.extract(3usize), b.extract(3usize))
}

/// Squared distance of a coordinate to the nearest point of a box, and whether the box has its batch item.
#[cube]
fn squared_to_box(boxes: &[Vector<i32, Const<4>>], node: u32, query: Vector<i32, Const<4>>) -> (u32, bool) {
    let low = boxes[(2u32 * node) as usize];
    let high = boxes[(2u32 * node + 1u32) as usize];
    let mut nearest = query;
    #[unroll]
    for column in 1usize..4usize {
        nearest.insert(column, min(max(query.extract(column), low.extract(column)), high.extract(column)));
    }
    let item = query.extract(0usize);
    (squared(nearest, query), item >= low.extract(0usize) && item <= high.extract(0usize))
}

/// What [`search_nearest_kernel`] is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct NearestShape {
    /// Room for neighbours of a query.
    pub(crate) capacity: u32,
    /// Whether rows of the tree are numbered by an order.
    pub(crate) ordered: bool,
}

/// The `most` nearest rows of every query with squares up to `bound`, ascending by (square, row). One unit a query.
///
/// `found_rows` and `found_squares`: `[n_queries, most]`, of which `counts` are written; `counts` has one more place, for a 0.
#[cube(launch_unchecked)]
pub(crate) fn search_nearest_kernel(
    queries: &[Vector<i32, Const<4>>],
    coords: &[Vector<i32, Const<4>>],
    order: &[u32],
    boxes: &[Vector<i32, Const<4>>],
    found_rows: &mut [u32],
    found_squares: &mut [u32],
    counts: &mut [u32],
    n_queries: u32,
    n_rows: u32,
    first_leaf: u32,
    bound: u32,
    most: u32,
    #[comptime] shape: NearestShape,
) {
    let at = ABSOLUTE_POS as u32;
    if at == n_queries {
        counts[at as usize] = 0u32;
    }
    if at < n_queries {
        let query = queries[at as usize];
        let mut squares = Array::<u32>::new(comptime!(shape.capacity as usize));
        let mut rows = Array::<u32>::new(comptime!(shape.capacity as usize));
        let mut stack = Array::<u32>::new(STACK);
        let mut stack_squares = Array::<u32>::new(STACK);
        let mut count = 0u32;
        // Rows and boxes beyond this square hold no neighbour.
        let mut limit = bound;
        let mut height = 0u32;
        let (square, inside) = squared_to_box(boxes, 0u32, query);
        if inside {
            stack[0] = 0u32;
            stack_squares[0] = square;
            height = 1u32;
        }
        while height > 0u32 {
            height -= 1u32;
            let node = stack[height as usize];
            if stack_squares[height as usize] <= limit {
                if node >= first_leaf {
                    let first = (node - first_leaf) * LEAF;
                    let end = min(first + LEAF, n_rows);
                    for position in first..end {
                        let c = coords[position as usize];
                        let square = squared(c, query);
                        if c.extract(0usize) == query.extract(0usize) && square <= limit {
                            let mut row = position;
                            if comptime!(shape.ordered) {
                                row = order[position as usize];
                            }
                            let mut place = count;
                            let mut better = true;
                            if count == most {
                                place = most - 1u32;
                                let (worst, last) = (squares[place as usize], rows[place as usize]);
                                better = square < worst || (square == worst && row < last);
                            }
                            if better {
                                let mut moving = place > 0u32;
                                while moving {
                                    let before = (place - 1u32) as usize;
                                    let (s, r) = (squares[before], rows[before]);
                                    if s > square || (s == square && r > row) {
                                        squares[place as usize] = s;
                                        rows[place as usize] = r;
                                        place -= 1u32;
                                        moving = place > 0u32;
                                    } else {
                                        moving = false;
                                    }
                                }
                                squares[place as usize] = square;
                                rows[place as usize] = row;
                                count = min(count + 1u32, most);
                                if count == most {
                                    limit = min(limit, squares[(most - 1u32) as usize]);
                                }
                            }
                        }
                    }
                } else {
                    let mut near = Array::<u32>::new(comptime!(FAN as usize));
                    let mut child = Array::<u32>::new(comptime!(FAN as usize));
                    #[unroll]
                    for i in 0usize..comptime!(FAN as usize) {
                        let below = FAN * node + comptime!(1 + i as u32);
                        let (square, inside) = squared_to_box(boxes, below, query);
                        near[i] = select(inside, square, u32::MAX);
                        child[i] = select(inside, below, NO_BOX);
                    }
                    // Farthest first, so that the nearest is visited next.
                    order_pair(&mut near, &mut child, 0usize, 1usize);
                    order_pair(&mut near, &mut child, 2usize, 3usize);
                    order_pair(&mut near, &mut child, 0usize, 2usize);
                    order_pair(&mut near, &mut child, 1usize, 3usize);
                    order_pair(&mut near, &mut child, 1usize, 2usize);
                    #[unroll]
                    for i in 0usize..comptime!(FAN as usize) {
                        if child[i] != NO_BOX && near[i] <= limit {
                            stack[height as usize] = child[i];
                            stack_squares[height as usize] = near[i];
                            height += 1u32;
                        }
                    }
                }
            }
        }
        for slot in 0u32..count {
            found_rows[(at * most + slot) as usize] = rows[slot as usize];
            found_squares[(at * most + slot) as usize] = squares[slot as usize];
        }
        counts[at as usize] = count;
    }
}

/// Puts the farther of two boxes first.
#[cube]
fn order_pair(near: &mut Array<u32>, child: &mut Array<u32>, #[comptime] a: usize, #[comptime] b: usize) {
    let swapped = near[a] < near[b];
    let (near_a, near_b, child_a, child_b) = (near[a], near[b], child[a], child[b]);
    near[a] = select(swapped, near_b, near_a);
    near[b] = select(swapped, near_a, near_b);
    child[a] = select(swapped, child_b, child_a);
    child[b] = select(swapped, child_a, child_b);
}

/// Moves what queries found next to each other. One unit a query and slot.
#[cube(launch_unchecked)]
pub(crate) fn finish_nearest_kernel(
    found_rows: &[u32],
    found_squares: &[u32],
    splits: &[u32],
    rows: &mut [u32],
    query_rows: &mut [u32],
    distances: &mut [u32],
    ranks: &mut [u32],
    n_queries: u32,
    most: u32,
) {
    let at = ABSOLUTE_POS as u32;
    if at < n_queries * most {
        let query = at / most;
        let slot = at % most;
        let begin = splits[query as usize];
        if slot < splits[(query + 1u32) as usize] - begin {
            let to = (begin + slot) as usize;
            rows[to] = found_rows[at as usize];
            query_rows[to] = query;
            distances[to] = from_integer(found_squares[at as usize]);
            ranks[to] = slot;
        }
    }
}

/// What [`search_within_kernel`] is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct WithinShape {
    /// Whether neighbours are written; else counted.
    pub(crate) writes: bool,
    /// Whether rows of the tree are numbered by an order.
    pub(crate) ordered: bool,
    /// Bits of the largest square.
    pub(crate) square_bits: u32,
}

/// All rows with squares up to `bound` of every query, in the order of the tree. One unit a query.
///
/// Counts them: `splits` has a place for each query, and one for a 0; `longest[0]` is the largest count. Or writes them past
/// `splits[query]`: rows, and keys of (query, square).
#[cube(launch_unchecked)]
pub(crate) fn search_within_kernel(
    queries: &[Vector<i32, Const<4>>],
    coords: &[Vector<i32, Const<4>>],
    order: &[u32],
    boxes: &[Vector<i32, Const<4>>],
    splits: &mut [u32],
    longest: &mut [Atomic<u32>],
    rows: &mut [u32],
    low: &mut [u32],
    high: &mut [u32],
    n_queries: u32,
    n_rows: u32,
    first_leaf: u32,
    bound: u32,
    #[comptime] shape: WithinShape,
) {
    let most = Shared::<[Atomic<u32>]>::new_slice(1usize);
    if UNIT_POS == 0u32 {
        most[0].store(0u32);
    }
    sync_cube();
    let at = ABSOLUTE_POS as u32;
    let counts = comptime!(!shape.writes);
    if counts && at == n_queries {
        splits[at as usize] = 0u32;
    }
    if at < n_queries {
        let query = queries[at as usize];
        let mut stack = Array::<u32>::new(STACK);
        let mut to = 0u32;
        if comptime!(shape.writes) {
            to = splits[at as usize];
        }
        let mut height = 1u32;
        stack[0] = 0u32;
        while height > 0u32 {
            height -= 1u32;
            let node = stack[height as usize];
            let (square, inside) = squared_to_box(boxes, node, query);
            if inside && square <= bound {
                if node >= first_leaf {
                    let first = (node - first_leaf) * LEAF;
                    let end = min(first + LEAF, n_rows);
                    for position in first..end {
                        let c = coords[position as usize];
                        let square = squared(c, query);
                        if c.extract(0usize) == query.extract(0usize) && square <= bound {
                            if comptime!(shape.writes) {
                                let mut row = position;
                                if comptime!(shape.ordered) {
                                    row = order[position as usize];
                                }
                                rows[to as usize] = row;
                                let bits = comptime!(shape.square_bits);
                                if comptime!(bits == 0) {
                                    low[to as usize] = at;
                                    high[to as usize] = 0u32;
                                } else if comptime!(bits == 32) {
                                    low[to as usize] = square;
                                    high[to as usize] = at;
                                } else {
                                    low[to as usize] = square | (at << bits);
                                    high[to as usize] = at >> comptime!(32 - bits);
                                }
                            }
                            to += 1u32;
                        }
                    }
                } else {
                    // The first one is visited next: rows come in ascending order.
                    #[unroll]
                    for i in 0u32..FAN {
                        stack[height as usize] = FAN * node + comptime!(FAN - i);
                        height += 1u32;
                    }
                }
            }
        }
        if comptime!(counts) {
            splits[at as usize] = to;
            most[0].fetch_max(to);
        }
    }
    sync_cube();
    if UNIT_POS == 0u32 {
        longest[0].fetch_max(most[0].load());
    }
}

/// `moved_low[at] = low[order[at]]`, and so for `high`. One unit an entry.
#[cube(launch_unchecked)]
pub(crate) fn move_keys_kernel(
    low: &[u32],
    high: &[u32],
    order: &[u32],
    moved_low: &mut [u32],
    moved_high: &mut [u32],
    n: u32,
) {
    let at = ABSOLUTE_POS as u32;
    if at < n {
        let from = order[at as usize] as usize;
        moved_low[at as usize] = low[from];
        moved_high[at as usize] = high[from];
    }
}

/// Rows, queries, distances and ranks of entries sorted by their keys. One unit an entry; `by_row` is an order taken before that of the keys.
#[cube(launch_unchecked)]
pub(crate) fn finish_within_kernel(
    found: &[u32],
    order: &[u32],
    by_row: &[u32],
    low: &[u32],
    high: &[u32],
    splits: &[u32],
    rows: &mut [u32],
    query_rows: &mut [u32],
    distances: &mut [u32],
    ranks: &mut [u32],
    n: u32,
    #[comptime] square_bits: u32,
    #[comptime] ordered: bool,
) {
    let at = ABSOLUTE_POS as u32;
    if at < n {
        let mut from = order[at as usize];
        if comptime!(ordered) {
            from = by_row[from as usize];
        }
        rows[at as usize] = found[from as usize];
        // Keys are sorted already.
        let (key_low, key_high) = (low[at as usize], high[at as usize]);
        let mut square = 0u32;
        let mut query = key_low;
        if comptime!(square_bits == 32) {
            square = key_low;
            query = key_high;
        } else if comptime!(square_bits > 0) {
            square = key_low & comptime!((1u32 << (square_bits % 32)) - 1);
            query = (key_low >> square_bits) | (key_high << comptime!((32 - square_bits) % 32));
        }
        query_rows[at as usize] = query;
        distances[at as usize] = from_integer(square);
        ranks[at as usize] = at - splits[query as usize];
    }
}
