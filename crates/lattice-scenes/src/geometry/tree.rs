//! A tree of boxes over solids, for the first hit of a ray.

use super::{Hit, Ray, Solid, V3};

/// Solids with a bounding volume hierarchy: median splits of the longest axis, leaves of at most four.
pub struct Tree {
    solids: Vec<Solid>,
    nodes: Vec<Node>,
}

struct Node {
    low: V3,
    high: V3,
    /// First solid of a leaf, or the right child (the left one follows its parent).
    start: u32,
    /// Solids of a leaf; 0 marks an inner node.
    count: u32,
}

const LEAF: usize = 4;

impl Tree {
    /// Builds the tree; `O(n log² n)`.
    pub fn new(solids: Vec<Solid>) -> Self {
        let mut items: Vec<(Solid, V3, V3)> = solids
            .into_iter()
            .map(|s| {
                let (low, high) = s.bounds();
                (s, low, high)
            })
            .collect();
        let mut nodes = Vec::new();
        if !items.is_empty() {
            let n = items.len();
            split(&mut items, 0, n, &mut nodes);
        }
        Self { solids: items.into_iter().map(|(s, ..)| s).collect(), nodes }
    }

    /// All solids, in tree order.
    pub fn solids(&self) -> &[Solid] {
        &self.solids
    }

    /// The nearest hit before `limit`, with its solid. `ray_word` decides the leaf that a ray meets in a plant.
    pub fn first_hit(&self, ray: &Ray, limit: f64, ray_word: u64) -> Option<(Hit, &Solid)> {
        let mut best: Option<(Hit, usize)> = None;
        let mut limit = limit;
        // Entries with the distance at which the ray enters them; the nearer child is opened first.
        let mut stack = [(0u32, 0.0f64); 64];
        let mut depth = 0;
        if let Some(near) = self.nodes.first().and_then(|root| entry(root, ray, limit)) {
            stack[0] = (0, near);
            depth = 1;
        }
        while depth > 0 {
            depth -= 1;
            let (at, near) = stack[depth];
            if near > limit {
                continue;
            }
            let node = &self.nodes[at as usize];
            if node.count > 0 {
                let start = node.start as usize;
                for (i, solid) in self.solids[start..start + node.count as usize].iter().enumerate() {
                    if let Some(hit) = solid.hit(ray, limit, ray_word) {
                        limit = hit.distance;
                        best = Some((hit, start + i));
                    }
                }
                continue;
            }
            let children = [at + 1, node.start].map(|c| (c, entry(&self.nodes[c as usize], ray, limit)));
            let far_first = match (children[0].1, children[1].1) {
                (Some(left), Some(right)) if left <= right => [children[1], children[0]],
                _ => children,
            };
            for (child, near) in far_first {
                if let Some(near) = near {
                    stack[depth] = (child, near);
                    depth += 1;
                }
            }
        }
        best.map(|(hit, i)| (hit, &self.solids[i]))
    }
}

fn split(items: &mut [(Solid, V3, V3)], from: usize, to: usize, nodes: &mut Vec<Node>) {
    let mut low = [f64::INFINITY; 3];
    let mut high = [f64::NEG_INFINITY; 3];
    for (_, l, h) in &items[from..to] {
        for a in 0..3 {
            low[a] = low[a].min(l[a]);
            high[a] = high[a].max(h[a]);
        }
    }
    let at = nodes.len();
    nodes.push(Node { low, high, start: from as u32, count: (to - from) as u32 });
    if to - from <= LEAF {
        return;
    }
    let axis = (0..3).max_by(|&a, &b| (high[a] - low[a]).total_cmp(&(high[b] - low[b]))).unwrap_or(0);
    items[from..to].sort_by(|p, q| (p.1[axis] + p.2[axis]).total_cmp(&(q.1[axis] + q.2[axis])));
    let middle = (from + to) / 2;
    nodes[at].count = 0;
    split(items, from, middle, nodes);
    nodes[at].start = nodes.len() as u32;
    split(items, middle, to, nodes);
}

/// Where the ray enters the node's box, or `None` when it misses it before `limit`.
fn entry(node: &Node, ray: &Ray, limit: f64) -> Option<f64> {
    let mut near = 0.0f64;
    let mut far = limit;
    for a in 0..3 {
        let p = (node.low[a] - ray.origin[a]) * ray.inverse[a];
        let q = (node.high[a] - ray.origin[a]) * ray.inverse[a];
        near = near.max(p.min(q));
        far = far.min(p.max(q));
    }
    (near <= far).then_some(near)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::{Frame, Material, Shape, unit};
    use crate::random::Random;

    #[test]
    fn the_tree_finds_the_hit_that_a_loop_finds() {
        let mut random = Random::new(&[8]);
        let solids: Vec<Solid> = (0..300)
            .map(|i| {
                let at = [0, 1, 2].map(|_| random.range(-9.0, 9.0));
                let half = [0, 1, 2].map(|_| random.range(0.1, 0.8));
                let shape =
                    if i % 2 == 0 { Shape::Ellipsoid { half } } else { Shape::Box { half, windows: None } };
                let frame = Frame::yaw(at, random.range(0.0, 3.0));
                Solid { shape, frame, material: Material::grey(0.5, 0.0), label: 0 }
            })
            .collect();
        let tree = Tree::new(solids.clone());
        let mut hits = 0;
        for word in 0..500 {
            let ray = Ray::new([0.0, 0.0, 12.0], unit([random.normal(), random.normal(), -1.5]));
            let by_loop = solids.iter().filter_map(|s| s.hit(&ray, 60.0, word)).map(|h| h.distance);
            let nearest = by_loop.fold(f64::INFINITY, f64::min);
            let found = tree.first_hit(&ray, 60.0, word).map_or(f64::INFINITY, |(h, _)| h.distance);
            assert_eq!(found, nearest);
            hits += usize::from(nearest.is_finite());
        }
        assert!(hits > 50);
        assert!(Tree::new(Vec::new()).first_hit(&Ray::new([0.0; 3], [1.0, 0.0, 0.0]), 9.0, 0).is_none());
    }
}
