//! The owner of cached geometry: relations, row maps and joins, by identity.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::tensor::Device;
use lattice_core as core;
use lattice_core::{
    Alignment, Join, KernelSpec, RelationCache, RelationKey, RelationKind, SupportId, SupportPolicy,
};

use crate::{Error, Relation, Result, RowMap, Support, backend};

/// Names one registered support at one stride within one manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CoordinateKey {
    /// Identity of the support.
    pub support: SupportId,
    /// Tensor stride it was registered with.
    pub stride: [u32; 3],
    /// Manager that issued the key.
    pub manager: u64,
}

/// The rows that a relation creates, made on a device; `None` where the host makes them.
fn created_on(
    device: Option<&Device>,
    kind: RelationKind,
    source: &Support,
    spec: &KernelSpec,
    policy: SupportPolicy,
) -> Option<core::Support> {
    backend::created_support(device?, kind, source.to_host(), spec, policy)
}

/// Which linear map a cached [`RowMap`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum MapKind {
    /// Sum over the pairs of a relation.
    Sum,
    /// Mean over the pairs of a relation.
    Mean,
    /// Renormalised trilinear weights of the given stride.
    Trilinear([u32; 3]),
}

/// A cached join: where each row of the result comes from.
#[derive(Clone, Debug)]
pub(crate) struct JoinMaps {
    pub(crate) support: Support,
    pub(crate) lhs: RowMap,
    pub(crate) rhs: RowMap,
}

/// Identities of a join's operands, and its rule; `None` stands for the larger operand's rows first.
type JoinKey = (SupportId, SupportId, Option<Join>);

#[derive(Default)]
struct Maps {
    supports: HashMap<CoordinateKey, Support>,
    rows: HashMap<(core::RelationId, MapKind), RowMap>,
    joins: HashMap<JoinKey, JoinMaps>,
    decomposed: HashMap<SupportId, Arc<Vec<Vec<u32>>>>,
    /// Floor-divided rows by source and stride: kernels of one stride share them.
    coarse: HashMap<(SupportId, [u32; 3]), Support>,
}

struct Inner {
    id: u64,
    relations: RelationCache,
    maps: Mutex<Maps>,
}

/// Caches relations by (source, target, kernel, kind) and the row maps and joins made from them. Clones share one cache.
///
/// Tensors hold their manager, and outputs inherit their input's, so a network's layers share every relation of a level.
/// Entries live until [`clear`](Self::clear), or until a byte budget pushes the least recently used relation out; neither
/// changes results.
#[derive(Clone)]
pub struct CoordinateManager(Arc<Inner>);

/// Memory held by a manager.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ManagerReport {
    /// Cached relations.
    pub relations: usize,
    /// Bytes of relations and the views built from them on the host.
    pub relation_bytes: usize,
    /// Cached row maps of pooling and upsampling.
    pub row_maps: usize,
    /// Cached joins.
    pub joins: usize,
    /// Bytes of row maps and joins on the host.
    pub map_bytes: usize,
    /// Bytes of the tables that devices hold for relations, row maps and joins.
    pub device_bytes: usize,
}

impl ManagerReport {
    /// All bytes on the host together.
    pub fn bytes(&self) -> usize {
        self.relation_bytes + self.map_bytes
    }
}

impl Default for CoordinateManager {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for CoordinateManager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CoordinateManager").field("id", &self.0.id).field("report", &self.report()).finish()
    }
}

impl CoordinateManager {
    /// An empty manager without a byte budget.
    pub fn new() -> Self {
        Self::with_cache(RelationCache::default())
    }

    /// An empty manager whose relations together stay below `budget_bytes`, where one alone does not pass it. Counted are pairs that were
    /// listed and views of them on the host, and the tables that GPUs keep with a relation.
    pub fn with_budget(budget_bytes: usize) -> Self {
        Self::with_cache(RelationCache::with_budget(budget_bytes))
    }

    fn with_cache(relations: RelationCache) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(Arc::new(Inner {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            relations,
            maps: Mutex::new(Maps::default()),
        }))
    }

    /// Number that keys of this manager carry.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// Whether both are one manager.
    pub fn same_manager(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Registers a support at a stride and returns its key; the same pair gives the same key.
    ///
    /// # Errors
    /// A stride with a zero component.
    pub fn insert(&self, support: &Support, stride: [u32; 3]) -> Result<CoordinateKey> {
        if stride.contains(&0) {
            return Err(Error::Value {
                op: "CoordinateManager::insert",
                what: format!("expected a positive stride on every axis, found {stride:?}"),
            });
        }
        let key = CoordinateKey { support: support.id(), stride, manager: self.0.id };
        self.maps().supports.entry(key).or_insert_with(|| support.clone());
        Ok(key)
    }

    /// Whether the key was issued by this manager and not cleared.
    pub fn owns(&self, key: &CoordinateKey) -> bool {
        key.manager == self.0.id && self.maps().supports.contains_key(key)
    }

    /// The support of a key.
    ///
    /// # Errors
    /// [`Error::Identity`] for a key of another manager.
    pub fn support(&self, key: &CoordinateKey) -> Result<Support> {
        if key.manager == self.0.id
            && let Some(support) = self.maps().supports.get(key)
        {
            return Ok(support.clone());
        }
        Err(Error::Identity {
            op: "CoordinateManager::support",
            what: format!(
                "expected a key of manager {}, found {key:?}; insert the support here first",
                self.0.id
            ),
        })
    }

    /// Row of each coordinate of `target` in `source`, or -1.
    ///
    /// # Errors
    /// [`Error::Identity`] for a key of another manager.
    pub fn inverse_map(&self, source: &CoordinateKey, target: &CoordinateKey) -> Result<Vec<i32>> {
        let (source, target) = (self.support(source)?, self.support(target)?);
        Ok(source.to_host().lookup_all(target.to_host().coords()))
    }

    /// The relation of a forward operation: strided output support by `policy`, or the input itself at stride 1.
    ///
    /// Floor-divided rows do not depend on the kernel, so kernels of one stride share one output identity: a strided shortcut
    /// meets its main branch without a join.
    ///
    /// # Errors
    /// As [`lattice_core::Relation::forward`].
    pub fn forward(&self, source: &Support, spec: &KernelSpec, policy: SupportPolicy) -> Result<Relation> {
        self.forward_on(None, source, spec, policy)
    }

    /// [`forward`](Self::forward), with the rows made on a device where it can.
    pub(crate) fn forward_on(
        &self,
        device: Option<&Device>,
        source: &Support,
        spec: &KernelSpec,
        policy: SupportPolicy,
    ) -> Result<Relation> {
        let coarsens = policy == SupportPolicy::Floor && (spec.stride != [1; 3] || spec.padding != [0; 3]);
        let key = (source.id(), spec.stride);
        let known = if coarsens { self.maps().coarse.get(&key).cloned() } else { None };
        let creates = coarsens || policy != SupportPolicy::Floor;
        let kind = RelationKind::Forward;
        let relation = self.relation(source, None, spec, kind, policy, || {
            let made = || created_on(device.filter(|_| creates), kind, source, spec, policy);
            match known.as_ref().map(|coarse| coarse.to_host().clone()).or_else(made) {
                Some(coarse) => core::Relation::onto_created(kind, source.to_host(), &coarse, spec, policy),
                None => core::Relation::forward(source.to_host(), spec, policy),
            }
        })?;
        if coarsens && known.is_none() {
            self.maps().coarse.entry(key).or_insert_with(|| relation.target());
        }
        Ok(relation)
    }

    /// The relation of a support with itself; odd kernel sizes only.
    ///
    /// # Errors
    /// As [`lattice_core::Relation::submanifold`].
    pub fn submanifold(&self, source: &Support, spec: &KernelSpec) -> Result<Relation> {
        self.relation(source, Some(source), spec, RelationKind::Submanifold, SupportPolicy::Floor, || {
            core::Relation::submanifold(source.to_host(), spec)
        })
    }

    /// The relation onto given output rows.
    ///
    /// # Errors
    /// As [`lattice_core::Relation::onto`].
    pub fn target(&self, source: &Support, target: &Support, spec: &KernelSpec) -> Result<Relation> {
        self.relation(source, Some(target), spec, RelationKind::Target, SupportPolicy::Floor, || {
            core::Relation::onto(source.to_host(), target.to_host(), spec)
        })
    }

    /// The relation of a transposed operation that makes its output support.
    ///
    /// # Errors
    /// As [`lattice_core::Relation::transposed`].
    pub fn transposed(&self, source: &Support, spec: &KernelSpec) -> Result<Relation> {
        self.grown_on(None, RelationKind::Transposed, source, spec)
    }

    /// The relation of a generative operation: every cell that a kernel of `spec.size` reaches.
    ///
    /// # Errors
    /// As [`lattice_core::Relation::generative`].
    pub fn generative(&self, source: &Support, spec: &KernelSpec) -> Result<Relation> {
        self.grown_on(None, RelationKind::Generative, source, spec)
    }

    /// [`transposed`](Self::transposed) or [`generative`](Self::generative), with the rows made on a device where it can.
    pub(crate) fn grown_on(
        &self,
        device: Option<&Device>,
        kind: RelationKind,
        source: &Support,
        spec: &KernelSpec,
    ) -> Result<Relation> {
        let policy = SupportPolicy::Floor;
        // A generative kernel has neither padding nor dilation.
        let spec = match kind {
            RelationKind::Generative => &KernelSpec { padding: [0; 3], dilation: [1; 3], ..*spec },
            _ => spec,
        };
        self.relation(source, None, spec, kind, policy, || {
            match created_on(device, kind, source, spec, policy) {
                Some(grown) => core::Relation::onto_created(kind, source.to_host(), &grown, spec, policy),
                None if kind == RelationKind::Generative => {
                    core::Relation::generative(source.to_host(), spec.size, spec.stride)
                }
                None => core::Relation::transposed(source.to_host(), spec),
            }
        })
    }

    /// The relation of a transposed operation onto given output rows.
    ///
    /// # Errors
    /// As [`lattice_core::Relation::target_transposed`].
    pub fn target_transposed(
        &self,
        source: &Support,
        target: &Support,
        spec: &KernelSpec,
    ) -> Result<Relation> {
        self.relation(
            source,
            Some(target),
            spec,
            RelationKind::TargetTransposed,
            SupportPolicy::Floor,
            || core::Relation::target_transposed(source.to_host(), target.to_host(), spec),
        )
    }

    /// The reverse of a forward relation built earlier whose output is `source`, onto that relation's input rows.
    ///
    /// # Errors
    /// [`Error::Identity`] when this manager holds no such relation.
    pub fn inverse(&self, source: &Support, spec: &KernelSpec) -> Result<Relation> {
        let forward = self.0.relations.newest(|r| {
            let strided = matches!(r.kind(), RelationKind::Forward | RelationKind::Target);
            strided && r.target().id() == source.id() && r.spec() == spec
        });
        let Some(forward) = forward else {
            return Err(Error::Identity {
                op: "CoordinateManager::inverse",
                what: format!(
                    "expected an earlier strided convolution with kernel {spec:?} whose output is this input, found none; \
                     pass the skip tensor as target instead"
                ),
            });
        };
        let target: Support = forward.source().clone().into();
        self.relation(source, Some(&target), spec, RelationKind::Inverse, SupportPolicy::Floor, || {
            Ok(core::Relation::inverse(&forward))
        })
    }

    fn relation(
        &self,
        source: &Support,
        target: Option<&Support>,
        spec: &KernelSpec,
        kind: RelationKind,
        policy: SupportPolicy,
        build: impl FnOnce() -> Result<core::Relation>,
    ) -> Result<Relation> {
        let key =
            RelationKey { source: source.id(), target: target.map(Support::id), spec: *spec, kind, policy };
        self.0.relations.get_or_build(key, build).map(Relation::from)
    }

    /// The row map of a pooling or upsampling over `relation`.
    pub(crate) fn row_map(&self, relation: &Relation, kind: MapKind) -> RowMap {
        let key = (relation.to_host().id(), kind);
        if let Some(map) = self.maps().rows.get(&key) {
            return map.clone();
        }
        let host = relation.to_host();
        let map: RowMap = match kind {
            MapKind::Sum => core::RowMap::from_relation_sum(host),
            MapKind::Mean => core::RowMap::from_relation_avg(host),
            MapKind::Trilinear(stride) => core::RowMap::trilinear(host, stride),
        }
        .into();
        self.maps().rows.entry(key).or_insert(map).clone()
    }

    /// The join of two supports, made on the device where it can; `None` keeps the rows of the larger operand first.
    pub(crate) fn join_on(
        &self,
        device: &Device,
        lhs: &Support,
        rhs: &Support,
        join: Option<Join>,
    ) -> Result<JoinMaps> {
        let key = (lhs.id(), rhs.id(), join);
        if let Some(maps) = self.maps().joins.get(&key) {
            return Ok(maps.clone());
        }
        let (a, b) = (lhs.to_host(), rhs.to_host());
        let maps = match backend::joined(device, a, b, join) {
            Some(made) => {
                JoinMaps { support: made.support.into(), lhs: made.lhs.into(), rhs: made.rhs.into() }
            }
            None => {
                let Alignment { support, lhs_rows, rhs_rows } = match join {
                    Some(join) => core::align(a, b, join)?,
                    None => core::generative_union(a, b)?,
                };
                JoinMaps {
                    support: support.into(),
                    lhs: core::RowMap::gather(a.n_rows(), &lhs_rows)?.into(),
                    rhs: core::RowMap::gather(b.n_rows(), &rhs_rows)?.into(),
                }
            }
        };
        Ok(self.maps().joins.entry(key).or_insert(maps).clone())
    }

    /// Ascending rows of each batch item of a support.
    pub(crate) fn batch_rows(&self, support: &Support) -> Arc<Vec<Vec<u32>>> {
        if let Some(rows) = self.maps().decomposed.get(&support.id()) {
            return rows.clone();
        }
        let rows = Arc::new(support.to_host().batch_rows());
        self.maps().decomposed.entry(support.id()).or_insert(rows).clone()
    }

    /// Number of cached relations.
    pub fn relation_count(&self) -> usize {
        self.0.relations.len()
    }

    /// The relation cache, for its per-entry report and its hit counts.
    pub fn relations(&self) -> &RelationCache {
        &self.0.relations
    }

    /// Memory held by relations, maps and joins.
    pub fn report(&self) -> ManagerReport {
        let maps = self.maps();
        // Sums of integers: the order of a map's values does not show.
        let sum = |of: fn(&core::RowMap) -> usize| {
            let joined = |join: &JoinMaps| of(join.lhs.to_host()) + of(join.rhs.to_host());
            maps.rows.values().map(|map| of(map.to_host())).sum::<usize>()
                + maps.joins.values().map(joined).sum::<usize>()
        };
        let map_bytes = sum(core::RowMap::bytes);
        let on_devices =
            |map: &core::RowMap| map.attachments().bytes() + map.transpose().attachments().bytes();
        ManagerReport {
            relations: self.0.relations.len(),
            relation_bytes: self.0.relations.bytes(),
            row_maps: maps.rows.len(),
            joins: maps.joins.len(),
            map_bytes,
            device_bytes: self.0.relations.device_bytes() + sum(on_devices),
        }
    }

    /// Forgets every relation, map and join; registered supports stay. Later calls build anew, with equal results.
    pub fn clear(&self) {
        self.0.relations.clear();
        let mut maps = self.maps();
        maps.rows.clear();
        maps.joins.clear();
        maps.decomposed.clear();
        maps.coarse.clear();
    }

    fn maps(&self) -> MutexGuard<'_, Maps> {
        // A panic elsewhere cannot leave a half-made entry: entries are inserted whole.
        self.0.maps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
