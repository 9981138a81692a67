//! Tiles of relations whose pairs were given, built on the host: no formula finds them again.

use std::collections::HashMap;
use std::sync::Arc;

use lattice_core::{Error, Relation, Result};

use super::halo::{Halos, TileCounts};
use super::kernel::{MAX_GROUP_TAPS, NO_LOCAL, NO_ROW, SPAN_WORDS};
use super::launch::{Tiles, check_table};
use super::{CHUNK_ROWS, HALO_ROWS, TILE_ROWS};
use crate::gpu::Gpu;

/// The host's copy of the tables of [`Tiles`].
#[derive(Default)]
struct Tables {
    rows: Vec<u32>,
    table: Vec<u32>,
    chunks: Vec<u32>,
    halo: Vec<u32>,
    spans: Vec<u32>,
    phases: usize,
}

/// One pair of a tile.
#[derive(Clone, Copy)]
struct Pair {
    tap: u32,
    place: usize,
    in_row: u32,
}

impl Tiles {
    /// The tiles of any relation, from its pairs; for the gradient of its input, those of its transpose.
    ///
    /// # Errors
    /// [`Error::Limit`] for a relation whose tables pass what a device buffer can be indexed with.
    pub fn from_pairs(gpu: &Gpu, relation: &Relation) -> Result<Self> {
        let (n_out, taps) = (relation.n_out(), relation.taps() as u32);
        let n_tiles = n_out.div_ceil(TILE_ROWS);
        check_table(n_out, taps)?;
        let phases = taps.div_ceil(2) as usize;
        let span_words = (phases + 1) * SPAN_WORDS as usize;
        if u32::try_from(n_tiles * span_words).is_err() || u32::try_from(relation.n_pairs()).is_err() {
            let what = format!(
                "expected fewer than 2^32 pairs and table words, found {} pairs of {n_out} rows; split the batch",
                relation.n_pairs()
            );
            return Err(Error::Limit { op: "relation tiles", what });
        }
        let mut tables = Tables::default();
        for tile in 0..n_tiles {
            tables.add_tile(relation, tile, span_words);
        }
        let counts =
            TileCounts { halo_rows: tables.halo.len(), phases: tables.phases, n_pairs: relation.n_pairs() };
        Ok(Self {
            rows: gpu.upload(&tables.rows),
            table: gpu.upload(&tables.table),
            chunks: gpu.upload(&tables.chunks),
            halos: (Halos::counted(gpu.upload(&tables.halo), counts), 0),
            spans: gpu.upload(&tables.spans),
            n_tiles,
            taps,
            span_words: span_words as u32,
            n_in: relation.n_in(),
            n_out,
            most_pairs: relation.n_pairs(),
            order: Arc::default(),
            gpu: gpu.clone(),
        })
    }
}

impl Tables {
    fn add_tile(&mut self, relation: &Relation, tile: usize, span_words: usize) {
        let (splits, taps) = (relation.out_splits(), relation.taps());
        let first = tile * TILE_ROWS;
        let mut rows: Vec<usize> = (first..relation.n_out().min(first + TILE_ROWS)).collect();
        // Rows of equal taps next to each other, so that chunks share them.
        let taps_of = |row: usize| &relation.tap_ids()[splits[row]..splits[row + 1]];
        rows.sort_by(|&a, &b| taps_of(a).cmp(taps_of(b)).then(a.cmp(&b)));
        let mut pairs: Vec<Pair> = Vec::new();
        for (place, &row) in rows.iter().enumerate() {
            pairs.extend((splits[row]..splits[row + 1]).map(|at| Pair {
                tap: u32::from(relation.tap_ids()[at]),
                place,
                in_row: relation.in_rows()[at],
            }));
        }
        pairs.sort_by_key(|pair| (pair.tap, pair.place));
        self.rows.extend(rows.iter().map(|&row| row as u32));
        self.rows.resize((tile + 1) * TILE_ROWS, NO_ROW);
        let none = NO_LOCAL | NO_LOCAL << 16;
        let (words, bits) = (self.table.len(), self.chunks.len());
        self.table.resize(words + taps.div_ceil(2) * TILE_ROWS, none);
        self.chunks.resize(bits + taps, 0);
        let at_spans = self.spans.len();
        self.spans.resize(at_spans + span_words, 0);

        let mut n_phases = 0;
        let mut left = pairs.as_slice();
        while let Some(start) = left.first() {
            // Phases begin at even taps: a word of the table holds two.
            let begin = start.tap / 2 * 2;
            let at_halo = self.halo.len();
            let mut locals: HashMap<u32, u32> = HashMap::new();
            let mut end = begin;
            while let Some(next) = left.first() {
                let double = next.tap / 2 * 2;
                let both = left.partition_point(|pair| pair.tap < double + 2);
                let mut fresh: Vec<u32> = left[..both].iter().map(|pair| pair.in_row).collect();
                fresh.retain(|row| !locals.contains_key(row));
                fresh.sort_unstable();
                fresh.dedup();
                // Two taps of a tile never meet more rows than a halo holds.
                if end > begin
                    && (locals.len() + fresh.len() > HALO_ROWS || double + 2 - begin > MAX_GROUP_TAPS)
                {
                    break;
                }
                for row in fresh {
                    locals.insert(row, locals.len() as u32);
                    self.halo.push(row);
                }
                for pair in &left[..both] {
                    let shift = 16 * (pair.tap % 2);
                    let word = &mut self.table[words + pair.tap as usize / 2 * TILE_ROWS + pair.place];
                    *word = *word & !(0xFFFF << shift) | locals[&pair.in_row] << shift;
                    self.chunks[bits + pair.tap as usize] |= 1 << (pair.place / CHUNK_ROWS);
                }
                end = (double + 2).min(taps as u32);
                left = &left[both..];
            }
            n_phases += 1;
            let span = at_spans + n_phases * SPAN_WORDS as usize;
            let length = self.halo.len() - at_halo;
            self.spans[span..][..4].copy_from_slice(&[at_halo as u32, length as u32, begin, end]);
        }
        self.spans[at_spans] = n_phases as u32;
        self.phases += n_phases;
    }
}
