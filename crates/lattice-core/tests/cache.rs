//! The store of relations.
#![allow(clippy::unwrap_used, reason = "tests")]

use lattice_core::{
    Error, KernelSpec, Relation, RelationCache, RelationKey, RelationKind, Support, SupportPolicy,
};

fn line(n: i32) -> Support {
    Support::try_new((0..n).map(|x| [0, x, 0, 0]).collect()).unwrap()
}

fn key(s: &Support, spec: KernelSpec) -> RelationKey {
    let (kind, policy) = (RelationKind::Submanifold, SupportPolicy::Floor);
    RelationKey { source: s.id(), target: Some(s.id()), spec, kind, policy }
}

fn get(cache: &RelationCache, s: &Support, size: u32) -> Relation {
    let spec = KernelSpec::cube(size, 1).unwrap();
    cache.get_or_build(key(s, spec), || Relation::submanifold(s, &spec)).unwrap()
}

/// [`get`], and its pairs listed.
fn get_listed(cache: &RelationCache, s: &Support, size: u32) -> Relation {
    let relation = get(cache, s, size);
    relation.out_splits();
    relation
}

#[test]
fn a_second_request_finds_the_same_relation() {
    let (cache, s) = (RelationCache::new(), line(10));
    let (first, second) = (get(&cache, &s, 3), get(&cache.clone(), &s, 3));
    assert!(first.same_identity(&second));
    assert_eq!((cache.len(), cache.hits(), cache.misses()), (1, 1, 1));
    let others = [get(&cache, &s, 5), get(&cache, &line(10), 3)];
    assert!(others.iter().all(|other| !other.same_identity(&first)));
    assert_eq!((cache.len(), cache.hits(), cache.misses()), (3, 1, 3));
}

#[test]
fn two_strided_requests_share_their_output_support() {
    let (cache, s, spec) = (RelationCache::new(), line(10), KernelSpec::cube(2, 2).unwrap());
    let (kind, policy) = (RelationKind::Forward, SupportPolicy::Floor);
    let key = RelationKey { source: s.id(), target: None, spec, kind, policy };
    let request = || cache.get_or_build(key, || Relation::forward(&s, &spec, policy)).unwrap();
    assert!(request().target().same_identity(request().target()));
    let reach = RelationKey { policy: SupportPolicy::KernelReach { range: None }, ..key };
    assert!(cache.get(&reach).is_none());
}

#[test]
fn a_failed_build_leaves_nothing() {
    let (cache, s) = (RelationCache::new(), line(3));
    let even = KernelSpec::cube(2, 1).unwrap();
    let failed = cache.get_or_build(key(&s, even), || Relation::submanifold(&s, &even));
    assert!(matches!(failed, Err(Error::Value { .. })));
    assert!(cache.is_empty());
}

#[test]
fn the_report_counts_views_and_clear_frees_all() {
    let (cache, small, large) = (RelationCache::new(), line(10), line(1000));
    let kept = get_listed(&cache, &small, 3);
    get(&cache, &large, 3).by_tap();
    get(&cache, &large, 3);
    let report = cache.report();
    assert_eq!(report.iter().map(|e| e.key.source).collect::<Vec<_>>(), [large.id(), small.id()]);
    assert_eq!((report[0].hits, report[1].hits), (1, 0));
    assert_eq!(report[1].n_pairs, Some(kept.n_pairs()));
    assert_eq!(report.iter().map(|e| e.bytes).sum::<usize>(), cache.bytes());
    cache.clear();
    assert_eq!((cache.len(), cache.bytes()), (0, 0));
    assert_eq!(kept.n_out(), 10);
    assert!(!get(&cache, &small, 3).same_identity(&kept));
}

#[test]
fn a_budget_drops_what_was_used_longest_ago() {
    let supports: Vec<Support> = (0..4).map(|_| line(1000)).collect();
    let one = get_listed(&RelationCache::new(), &supports[0], 3).bytes();
    assert!(one > 0);
    let cache = RelationCache::with_budget(2 * one + one / 2);
    let first = get_listed(&cache, &supports[0], 3);
    get_listed(&cache, &supports[1], 3);
    assert!(get(&cache, &supports[0], 3).same_identity(&first));
    get_listed(&cache, &supports[2], 3);
    get(&cache, &supports[2], 3); // knows the pairs listed since, and drops supports[1]
    assert_eq!(cache.len(), 2);
    assert!(get(&cache, &supports[0], 3).same_identity(&first));
    let misses = cache.misses();
    get(&cache, &supports[1], 3);
    assert_eq!(cache.misses(), misses + 1);
    assert!(cache.bytes() <= 2 * one + one / 2);
    let tiny = RelationCache::with_budget(1);
    let kept = get_listed(&tiny, &supports[0], 3);
    assert!(get(&tiny, &supports[0], 3).same_identity(&kept), "the newest stays");
}

#[test]
fn what_devices_hold_counts_against_the_budget() {
    struct Tables(usize);
    impl lattice_core::Form for Tables {
        fn bytes(&self) -> usize {
            self.0
        }
    }
    let supports: Vec<Support> = (0..3).map(|_| line(10)).collect();
    let cache = RelationCache::with_budget(1 << 20);
    for support in &supports {
        let relation = get(&cache, support, 3);
        relation.attachments().get_or_build::<Tables, ()>(0, || Ok(Tables(400 << 10))).unwrap();
    }
    assert_eq!(cache.device_bytes(), 1200 << 10);
    assert!(cache.report().iter().all(|entry| entry.device_bytes == 400 << 10));
    get(&cache, &supports[2], 3); // knows the tables made since, and drops supports[0]
    assert_eq!((cache.len(), cache.device_bytes()), (2, 800 << 10));
}

#[test]
fn concurrent_requests_get_one_identity() {
    let (cache, s) = (RelationCache::new(), line(5000));
    let found: Vec<Relation> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| get(&cache, &s, 3))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(found.iter().all(|relation| relation.same_identity(&found[0])));
    assert_eq!(cache.len(), 1);
    assert_eq!(cache.hits() + cache.misses(), 8);
}
