//! Nodes that come, come back, and come back empty; what was deleted meanwhile.

use super::*;
use crate::object::{ReadError, StoreError};

#[tokio::test]
async fn what_one_node_wrote_alone_gets_its_copies() {
    let mut site = Site::empty();
    site.add(NodeId(1), ids(1));
    site.compare(0).await;
    let (built, put) = site.put(0, 1).await;
    put.unwrap();
    site.objects(0).put_snapshot(1, 5, Bytes::from_static(b"image")).await.unwrap();
    assert!(!site.root(NodeId(1)).join(".sums").exists(), "alone, the folder is written as without this store");
    assert!(!site.status(0).survives_one_loss(), "one node never does");
    for node in [2, 3] {
        site.add(NodeId(node), ids(3));
    }
    site.nodes[0].nodes.send_replace(ids(3));
    assert!(!site.status(0).survives_one_loss(), "not before it was looked at");
    // The new ones do not know what they lack, so they do not say that it is missing.
    let read = site.nodes[1].store.bytes(StoredKey::Object(ObjectId(99))).await;
    assert!(matches!(read, Err(SharedError::Away(_))), "{read:?}");
    site.assert_whole(2, &built).await;
    site.compare(0).await;
    assert_eq!(site.status(0).debt, 2, "the object and the snapshot");
    site.compare_all().await;
    assert_eq!(site.holders(1), [0, 1, 2]);
    site.compare_all().await;
    for n in 0..3 {
        let status = site.status(n);
        assert!(status.survives_one_loss() && status.complete, "{status:?}");
    }
    let read = site.nodes[1].store.bytes(StoredKey::Object(ObjectId(99))).await;
    assert_eq!(read, Err(SharedError::Missing));
    site.down(0, true);
    site.assert_whole(1, &built).await;
    assert_eq!(site.fresh(2).latest_snapshot().await.unwrap().unwrap().content, Bytes::from_static(b"image"));
}

#[tokio::test]
async fn a_damaged_object_of_the_first_node_is_not_copied() {
    let mut site = Site::empty();
    site.add(NodeId(1), ids(1));
    site.compare(0).await;
    site.put(0, 1).await.1.unwrap();
    site.rot(0, 1, 200);
    site.add(NodeId(2), ids(2));
    site.nodes[0].nodes.send_replace(ids(2));
    site.compare_all().await;
    assert_eq!(site.holders(1), [0]);
    assert!(site.status(1).debt == 1 && !site.status(1).complete);
}

#[tokio::test(start_paused = true)]
async fn a_wiped_node_gets_everything_again_and_is_no_witness_before() {
    let mut site = Site::new(3).await;
    site.down(1, true);
    let (built, put) = site.put(0, 1).await;
    put.unwrap();
    assert_eq!(site.holders(1), [0, 2]);
    site.restart(0, true);
    site.down(1, false);
    site.down(2, true);
    // Node 1 was away and node 0 is empty: only the node that is down has the object.
    let read = read_all(&site.fresh(0), &built, 0, 1).await;
    assert!(matches!(read, Err(ReadError::Store(StoreError::Unavailable { .. }))), "{read:?}");
    site.compare(0).await;
    assert!(!site.status(0).complete, "one did not answer");
    site.down(2, false);
    site.compare_all().await;
    assert_eq!(site.holders(1), [0, 1, 2]);
    assert!(site.status(0).complete);
    site.assert_whole(0, &built).await;
}

#[tokio::test]
async fn a_node_that_was_away_at_a_deletion_brings_nothing_back() {
    let site = Site::new(3).await;
    let (built, put) = site.put(0, 1).await;
    put.unwrap();
    site.down(2, true);
    let deleted = site.objects(0).delete(&[built.object]).await;
    assert_eq!((deleted.done.len(), deleted.failed), (1, None));
    site.known.0.lock().unwrap().remove(&1);
    site.down(2, false);
    site.compare_all().await;
    assert_eq!(site.holders(1), [2], "not fetched from it, and spared for a while");
    site.clock.0.store(2 * 3600 * 1000, Relaxed);
    site.compare_all().await;
    assert_eq!(site.holders(1), [0usize; 0]);
    assert_eq!(site.nodes[2].store.counters().removed.load(Relaxed), 1);
    assert!(site.status(0).survives_one_loss(), "nothing is owed for it");
}

#[tokio::test]
async fn what_the_metadata_know_is_never_removed_however_old() {
    let site = Site::new(3).await;
    site.put(0, 1).await.1.unwrap();
    site.clock.0.store(i64::MAX / 4, Relaxed);
    site.compare_all().await;
    assert_eq!(site.holders(1), [0, 1, 2]);
}

#[tokio::test]
async fn old_snapshots_do_not_come_back_and_the_newest_is_found_from_any_node() {
    let site = Site::new(3).await;
    for applied in 1..=3 {
        site.objects(0).put_snapshot(1, applied, Bytes::from(vec![applied as u8; 10])).await.unwrap();
    }
    site.down(2, true);
    for applied in 4..=6 {
        site.objects(0).put_snapshot(1, applied, Bytes::from(vec![applied as u8; 10])).await.unwrap();
    }
    site.down(2, false);
    site.clock.0.store(2 * 3600 * 1000, Relaxed);
    site.compare_all().await;
    let folder = |n: i32| site.root(NodeId(n)).join(key(0).as_ref()).ancestors().nth(3).unwrap().join("metadata");
    for n in 1..=3 {
        assert_eq!(std::fs::read_dir(folder(n)).unwrap().count(), 3, "node {n}");
        let newest = site.fresh(n as usize - 1).latest_snapshot().await.unwrap().unwrap();
        assert_eq!(newest.applied, 6);
    }
}

#[tokio::test(start_paused = true)]
async fn before_the_nodes_are_known_nothing_is_stored_and_nothing_missing() {
    let mut site = Site::empty();
    site.add(NodeId(2), Vec::new());
    assert_eq!(site.objects(0).latest_snapshot().await.unwrap(), None, "its own folder is all it can look at");
    let (built, put) = site.put(0, 1).await;
    assert!(matches!(put, Err(StoreError::Unavailable { .. })), "{put:?}");
    let read = read_all(site.objects(0), &built, 0, 1).await;
    assert!(matches!(read, Err(ReadError::Store(StoreError::Unavailable { .. }))), "{read:?}");
    assert_eq!(site.status(0).nodes, 0);
    assert!(!site.status(0).survives_one_loss());
}

#[tokio::test]
async fn probes_that_were_left_behind_go_at_the_next_start() {
    let mut site = Site::new(3).await;
    site.nodes[0].store.put(StoredKey::Probe(7), vec![Bytes::from_static(b"x")]).await.unwrap();
    site.restart(0, false);
    assert!(matches!(site.nodes[0].store.local.bytes(StoredKey::Probe(7)), Err(crate::object::LocalError::Missing)));
    assert_eq!(site.nodes[1].store.local.bytes(StoredKey::Probe(7)).unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_work_in_the_background_makes_good_what_is_owed() {
    let site = Site::new(3).await;
    let living: Arc<dyn Living> = site.known.clone();
    let running: Vec<_> = site.nodes.iter().map(|n| tokio::spawn(n.store.clone().run(living.clone()))).collect();
    site.down(1, true);
    site.put(0, 1).await.1.unwrap();
    site.down(1, false);
    for _ in 0..600 {
        if site.holders(1).len() == 3 && site.status(0).survives_one_loss() {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(site.holders(1), [0, 1, 2]);
    assert!(site.status(0).survives_one_loss());
    running.iter().for_each(|task| task.abort());
}
