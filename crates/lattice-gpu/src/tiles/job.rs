//! Relations whose tiles one launch builds.

use cubecl::prelude::*;

/// A relation among those whose tiles are built together: where its parts begin.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(crate) struct Job {
    /// Its first tile among those of all, past them where there is no such relation; and that by which chunks and spans count.
    pub(crate) first_tile: u32,
    pub(crate) first_spans: u32,
    /// Output rows.
    pub(crate) n_out: u32,
    /// Its first output row among `targets`, and its first input row among `source`.
    pub(crate) first_target: u32,
    pub(crate) first_source: u32,
    /// The table of its input rows.
    pub(crate) first_slot: u32,
    pub(crate) mask: u32,
    /// Its part of `halo`.
    pub(crate) first_halo: u32,
    pub(crate) halo_capacity: u32,
    pub(crate) first_counter: u32,
    /// 1 where source and target are one support whose positions are those of tiles: the rows of a tile are then its first input rows,
    /// numbered as they stand, so that the eight rows that a chunk reads under a tap mostly lie in different banks.
    pub(crate) same: u32,
}

impl Job {
    /// The job as a kernel argument.
    pub(super) fn arg(&self) -> JobLaunch {
        JobLaunch::new(
            self.first_tile,
            self.first_spans,
            self.n_out,
            self.first_target,
            self.first_source,
            self.first_slot,
            self.mask,
            self.first_halo,
            self.halo_capacity,
            self.first_counter,
            self.same,
        )
    }
}

/// The relation that a cube builds a tile of.
#[cube]
pub(super) fn job_of(cube: u32, jobs: &Sequence<Job>) -> Job {
    let job = jobs.index(0usize);
    let mut first_tile = job.first_tile;
    let mut first_spans = job.first_spans;
    let mut n_out = job.n_out;
    let mut first_target = job.first_target;
    let mut first_source = job.first_source;
    let mut first_slot = job.first_slot;
    let mut mask = job.mask;
    let mut first_halo = job.first_halo;
    let mut halo_capacity = job.halo_capacity;
    let mut first_counter = job.first_counter;
    let mut same = job.same;
    #[unroll]
    for at in 1usize..jobs.len() {
        let job = jobs.index(at);
        let is_it = cube >= job.first_tile;
        first_tile = select(is_it, job.first_tile, first_tile);
        first_spans = select(is_it, job.first_spans, first_spans);
        n_out = select(is_it, job.n_out, n_out);
        first_target = select(is_it, job.first_target, first_target);
        first_source = select(is_it, job.first_source, first_source);
        first_slot = select(is_it, job.first_slot, first_slot);
        mask = select(is_it, job.mask, mask);
        first_halo = select(is_it, job.first_halo, first_halo);
        halo_capacity = select(is_it, job.halo_capacity, halo_capacity);
        first_counter = select(is_it, job.first_counter, first_counter);
        same = select(is_it, job.same, same);
    }
    Job {
        first_tile,
        first_spans,
        n_out,
        first_target,
        first_source,
        first_slot,
        mask,
        first_halo,
        halo_capacity,
        first_counter,
        same,
    }
}
