//! Metadata snapshots beside the objects.

use super::*;
use crate::object::{Snapshot, SnapshotError, StoreError};

#[tokio::test]
async fn the_newest_snapshot_counts_and_few_are_kept() {
    let store = FaultyStore::new();
    let objects = objects(&store);
    assert_eq!(objects.latest_snapshot().await, Ok(None));
    for (generation, applied) in [(1, 5), (1, 300), (2, 7), (1, 900), (2, 40)] {
        let content = Bytes::from(format!("{generation}/{applied}"));
        objects.put_snapshot(generation, applied, content).await.unwrap();
    }
    let newest = objects.latest_snapshot().await.unwrap().unwrap();
    assert_eq!(newest, Snapshot { generation: 2, applied: 40, content: "2/40".into() });
    objects.put_snapshot(2, 40, "2/40".into()).await.unwrap();
    let other = objects.put_snapshot(2, 40, "else".into()).await;
    assert!(matches!(other, Err(StoreError::Exists { .. })));
    let prefix = Keys::new("", CLUSTER).snapshots();
    let listed = store.list_with_delimiter(Some(&prefix)).await.unwrap();
    let names: Vec<_> = listed.objects.iter().filter_map(|o| o.location.filename().map(str::to_owned)).collect();
    let name = |generation: u64, applied: u64| format!("{generation:016x}-{applied:016x}");
    assert_eq!(names, [name(1, 900), name(2, 7), name(2, 40)]);
}

#[tokio::test]
async fn a_damaged_snapshot_is_an_error_and_an_older_one_is_not_taken_for_it() {
    let store = FaultyStore::new();
    let objects = objects(&store);
    objects.put_snapshot(1, 1, "old".into()).await.unwrap();
    objects.put_snapshot(1, 2, "new".into()).await.unwrap();
    store.rot(&Keys::new("", CLUSTER).snapshot(1, 2), 30, 1).await;
    assert!(matches!(objects.latest_snapshot().await, Err(SnapshotError::Corrupt { .. })));
}
