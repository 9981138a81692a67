//! A shared store of relations, so that each is built once for all layers and steps that use it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Relation, RelationKind, SupportPolicy};
use crate::{KernelSpec, Result, Support, SupportId};

/// What makes two requests the same relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RelationKey {
    /// Identity of the input support.
    pub source: SupportId,
    /// Identity of the given output support; `None` when the relation creates it.
    pub target: Option<SupportId>,
    /// The kernel.
    pub spec: KernelSpec,
    /// The formula.
    pub kind: RelationKind,
    /// How a created output support is found.
    pub policy: SupportPolicy,
}

/// One line of [`RelationCache::report`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CacheEntry {
    /// What the relation is kept under.
    pub key: RelationKey,
    /// Its edges, where somebody listed or counted them.
    pub n_pairs: Option<usize>,
    /// Bytes of its edges and of the views built so far.
    pub bytes: usize,
    /// Bytes of its forms on devices.
    pub device_bytes: usize,
    /// Requests that found it.
    pub hits: u64,
}

/// A store of relations, kept whole with their views. Clones share one store; all methods may be called from many threads.
///
/// Supports are immutable, so nothing in it ever becomes wrong: entries leave only by [`RelationCache::clear`] or, with a
/// budget, when others were used more recently. Relations that are still in use elsewhere live on. What the cache does never
/// changes a result.
#[derive(Clone, Debug, Default)]
pub struct RelationCache(Arc<Mutex<Store>>);

#[derive(Debug, Default)]
struct Store {
    entries: HashMap<RelationKey, Entry>,
    budget_bytes: Option<usize>,
    /// Counts requests: the time of the last use of each entry.
    clock: u64,
    hits: u64,
    misses: u64,
}

#[derive(Debug)]
struct Entry {
    relation: Relation,
    /// Keeps the supports of the key alive, so that their identities stay taken.
    _supports: [Support; 2],
    last_used: u64,
    hits: u64,
}

impl RelationCache {
    /// An empty store without bound.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty store that drops the relations used longest ago when all of them pass `budget_bytes`, on the host and on devices together. The one asked for last
    /// always stays. Pairs that are listed and views that grow after a request count from the next request on.
    pub fn with_budget(budget_bytes: usize) -> Self {
        Self(Arc::new(Mutex::new(Store { budget_bytes: Some(budget_bytes), ..Store::default() })))
    }

    /// The relation under `key`; `build` makes it when there is none. All callers of one key get the same identity until the
    /// entry is dropped. `build` runs outside the lock: two callers that come at once may both build, and one result is kept.
    ///
    /// # Errors
    /// Those of `build`; nothing is kept then.
    pub fn get_or_build(
        &self,
        key: RelationKey,
        build: impl FnOnce() -> Result<Relation>,
    ) -> Result<Relation> {
        if let Some(relation) = self.lock().find(&key) {
            return Ok(relation);
        }
        let built = build()?;
        let mut store = self.lock();
        store.misses += 1;
        let now = store.tick();
        let supports = [built.source().clone(), built.target().clone()];
        let entry = store.entries.entry(key).or_insert(Entry {
            relation: built,
            _supports: supports,
            last_used: now,
            hits: 0,
        });
        entry.last_used = now;
        let relation = entry.relation.clone();
        store.shrink();
        Ok(relation)
    }

    /// The relation under `key`, if it is here.
    pub fn get(&self, key: &RelationKey) -> Option<Relation> {
        self.lock().find(key)
    }

    /// The relation used last among those that `fits` accepts; not counted as a request.
    pub fn newest(&self, fits: impl Fn(&Relation) -> bool) -> Option<Relation> {
        let store = self.lock();
        // A tick belongs to one request, so the largest is unique and the order of the map's values does not show.
        let newest = store.entries.values().filter(|e| fits(&e.relation)).max_by_key(|e| e.last_used)?;
        Some(newest.relation.clone())
    }

    /// Drops all relations. The counts of hits and misses stay.
    pub fn clear(&self) {
        let dropped = std::mem::take(&mut self.lock().entries);
        drop(dropped); // outside the lock: freeing large relations takes a while
    }

    /// Number of relations.
    pub fn len(&self) -> usize {
        self.lock().entries.len()
    }

    /// True when no relation is here.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of all relations with the views built so far.
    pub fn bytes(&self) -> usize {
        self.lock().bytes()
    }

    /// Bytes of all forms of relations on devices.
    pub fn device_bytes(&self) -> usize {
        let store = self.lock();
        store.entries.values().map(|entry| entry.relation.attachments().bytes()).sum()
    }

    /// Requests that found their relation.
    pub fn hits(&self) -> u64 {
        self.lock().hits
    }

    /// Requests that had to build.
    pub fn misses(&self) -> u64 {
        self.lock().misses
    }

    /// One entry a relation, the largest first.
    pub fn report(&self) -> Vec<CacheEntry> {
        let mut entries: Vec<(u64, CacheEntry)> = self.lock().lines();
        entries.sort_by_key(|(last_used, entry)| (std::cmp::Reverse(entry.bytes), *last_used));
        entries.into_iter().map(|(_, entry)| entry).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Store> {
        // No code that can panic leaves the store half changed, so a poisoned lock is still good.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// Bytes on the host and on devices.
    fn held(&self) -> usize {
        self.relation.bytes() + self.relation.attachments().bytes()
    }
}

impl Store {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn find(&mut self, key: &RelationKey) -> Option<Relation> {
        let now = self.tick();
        let entry = self.entries.get_mut(key)?;
        entry.last_used = now;
        entry.hits += 1;
        let relation = entry.relation.clone();
        self.hits += 1;
        self.shrink();
        Some(relation)
    }

    fn bytes(&self) -> usize {
        self.entries.values().map(|entry| entry.relation.bytes()).sum()
    }

    /// What counts against the budget.
    fn held(&self) -> usize {
        self.entries.values().map(Entry::held).sum()
    }

    fn lines(&self) -> Vec<(u64, CacheEntry)> {
        let line = |(key, entry): (&RelationKey, &Entry)| {
            let relation = &entry.relation;
            (
                entry.last_used,
                CacheEntry {
                    key: *key,
                    n_pairs: relation.known_pairs(),
                    bytes: relation.bytes(),
                    device_bytes: relation.attachments().bytes(),
                    hits: entry.hits,
                },
            )
        };
        self.entries.iter().map(line).collect()
    }

    /// Drops entries, the one used longest ago first, until the rest fits the budget or one is left.
    fn shrink(&mut self) {
        let Some(budget) = self.budget_bytes else { return };
        let mut bytes = self.held();
        while bytes > budget && self.entries.len() > 1 {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.last_used).map(|(key, _)| *key);
            let Some(entry) = oldest.and_then(|key| self.entries.remove(&key)) else { return };
            bytes = bytes.saturating_sub(entry.held());
        }
    }
}
