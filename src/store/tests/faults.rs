//! Nodes that are away, late, wiped or damaged.

use super::*;
use crate::object::StoreError;
use crate::object::testing::contract;

#[tokio::test]
async fn three_nodes_keep_the_contract_of_a_store_from_each_of_them() {
    let site = Site::new(3).await;
    for n in 0..3 {
        contract(site.objects(n), 0x100 * (n as u64 + 1)).await;
    }
}

#[tokio::test]
async fn three_nodes_keep_the_contract_while_one_is_away() {
    let site = Site::new(3).await;
    site.down(2, true);
    contract(site.objects(0), 0x100).await;
    contract(site.objects(1), 0x200).await;
}

#[tokio::test]
async fn five_nodes_keep_the_contract_and_a_stand_in_takes_what_a_node_cannot() {
    let site = Site::new(5).await;
    contract(site.objects(4), 0x100).await;
    let (built, put) = site.put(0, 7).await;
    put.unwrap();
    let holders = site.holders(7);
    assert_eq!(holders.len(), 3);
    for n in 0..5 {
        site.assert_whole(n, &built).await;
    }
    site.down(holders[0], true);
    let (from, other) = ((0..5).find(|n| *n != holders[0]).unwrap(), 7 + 0x100);
    for id in other..other + 12 {
        site.put(from, id).await.1.unwrap();
        assert_eq!(site.holders(id).len(), 3, "one stands in for the node that is away");
    }
}

#[tokio::test]
async fn a_put_counts_with_one_node_away_is_owed_and_made_good() {
    let site = Site::new(3).await;
    assert!(site.status(0).survives_one_loss());
    site.down(2, true);
    let (built, put) = site.put(0, 1).await;
    put.unwrap();
    assert_eq!(site.holders(1), [0, 1]);
    assert!(!site.status(0).survives_one_loss());
    site.compare(0).await;
    let status = site.status(0);
    assert_eq!((status.debt, status.compared), (1, false));
    site.down(2, false);
    site.compare_all().await;
    assert_eq!(site.holders(1), [0, 1, 2]);
    site.compare_all().await;
    for n in 0..3 {
        assert!(site.status(n).survives_one_loss(), "{:?}", site.status(n));
        site.assert_whole(n, &built).await;
    }
}

#[tokio::test]
async fn a_put_with_one_copy_is_refused_and_can_be_repeated() {
    let site = Site::new(3).await;
    (1..3).for_each(|n| site.down(n, true));
    let put = site.nodes[0].store.put(StoredKey::Probe(1), vec![Bytes::from_static(b"x")]).await;
    assert!(matches!(put, Err(SharedError::Away(_))), "{put:?}");
    (1..3).for_each(|n| site.down(n, false));
    site.nodes[0].store.put(StoredKey::Probe(1), vec![Bytes::from_static(b"x")]).await.unwrap();
    let other = site.nodes[1].store.put(StoredKey::Probe(1), vec![Bytes::from_static(b"y")]).await;
    assert_eq!(other, Err(SharedError::Exists));
}

/// Puts while the others are away, then loses the node: whether something that counted is gone.
async fn loses_what_counted(quorum: usize) -> bool {
    let mut site = Site::new(3).await;
    site.nodes[0].store.plant_quorum.store(quorum, Relaxed);
    (1..3).for_each(|n| site.down(n, true));
    let key = StoredKey::Probe(5);
    let counted = site.nodes[0].store.put(key, vec![Bytes::from_static(b"x")]).await.is_ok();
    (1..3).for_each(|n| site.down(n, false));
    site.restart(0, true);
    site.compare_all().await;
    counted && site.nodes[1].store.read(key, 0..1).await.is_err()
}

#[tokio::test]
async fn a_put_that_counts_at_one_copy_is_found_out() {
    assert!(!loses_what_counted(0).await, "the rule as it is");
    assert!(loses_what_counted(1).await, "the planted bug must be found");
}

#[tokio::test(start_paused = true)]
async fn a_silent_node_holds_a_put_up_once_and_briefly() {
    let site = Site::new(3).await;
    site.silent(2, true);
    let begun = tokio::time::Instant::now();
    site.put(0, 1).await.1.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(50), "it was waited for: {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    let begun = tokio::time::Instant::now();
    site.put(0, 2).await.1.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(50), "and then no more: {:?}", begun.elapsed());
    assert_eq!(site.status(0).debt, 2);
}

#[tokio::test]
async fn a_damaged_copy_is_never_served_and_put_right() {
    let site = Site::new(3).await;
    let (built, put) = site.put(0, 1).await;
    put.unwrap();
    let good = std::fs::read(site.file(0, 1)).unwrap();
    // In a block, in the middle, at the end: whichever part is read, the bytes come from another node.
    for at in [60, good.len() / 2, good.len() - 1] {
        site.rot(0, 1, at);
        site.rot(1, 1, at);
        site.assert_whole(0, &built).await;
        site.nodes[0].store.scrub().await;
        site.nodes[1].store.scrub().await;
        assert_eq!(site.status(0).suspects, 1);
        assert!(!site.status(0).survives_one_loss());
        site.compare_all().await;
        assert_eq!(site.status(0).suspects, 0);
        for n in 0..2 {
            assert!(std::fs::read(site.file(n, 1)).unwrap() == good, "node {n} has its copy again");
        }
    }
    assert_eq!(site.nodes[0].store.counters().restored.load(Relaxed), 3);
}

#[tokio::test]
async fn a_cut_copy_and_a_lost_file_count_as_damage() {
    let site = Site::new(3).await;
    let (built, put) = site.put(0, 1).await;
    put.unwrap();
    let good = std::fs::read(site.file(0, 1)).unwrap();
    std::fs::write(site.file(0, 1), &good[..good.len() - 1]).unwrap();
    std::fs::remove_file(site.file(1, 1)).unwrap();
    for n in 0..2 {
        site.assert_whole(n, &built).await;
        site.compare(n).await;
        assert!(std::fs::read(site.file(n, 1)).unwrap() == good);
    }
}

#[tokio::test(start_paused = true)]
async fn damage_everywhere_is_an_error_and_the_last_copies_stay() {
    let site = Site::new(3).await;
    let (built, put) = site.put(0, 1).await;
    put.unwrap();
    (0..3).for_each(|n| site.rot(n, 1, 100));
    let read = read_all(&site.fresh(0), &built, 0, 1).await;
    assert!(matches!(read, Err(crate::object::ReadError::Store(StoreError::Unavailable { .. }))), "{read:?}");
    for n in 0..3 {
        site.nodes[n].store.scrub().await;
        site.compare(n).await;
        assert_eq!(site.status(n).suspects, 1);
    }
    assert_eq!(site.holders(1), [0, 1, 2]);
}

#[tokio::test]
async fn lost_sums_are_made_again_from_the_objects_own_and_not_over_damage() {
    let mut site = Site::new(3).await;
    let (built, put) = site.put(0, 1).await;
    put.unwrap();
    std::fs::remove_dir_all(site.root(NodeId(1)).join(".sums")).unwrap();
    site.restart(0, false);
    site.assert_whole(0, &built).await;
    site.nodes[0].store.scrub().await;
    assert_eq!(site.status(0).suspects, 0);
    assert!(site.nodes[0].store.local.expected(StoredKey::Object(built.object)).is_some());
    std::fs::remove_dir_all(site.root(NodeId(1)).join(".sums")).unwrap();
    site.rot(0, 1, 100);
    site.restart(0, false);
    site.nodes[0].store.scrub().await;
    assert_eq!(site.status(0).suspects, 1, "damage is not sealed by new sums");
    // Torn sums are none.
    let sums = site.root(NodeId(2)).join(".sums").join(key(1).as_ref());
    std::fs::write(&sums, &std::fs::read(&sums).unwrap()[..9]).unwrap();
    site.restart(1, false);
    site.assert_whole(1, &built).await;
}

#[tokio::test]
async fn after_a_failed_sync_the_node_says_so_and_others_see_it_as_away() {
    let site = Site::new(3).await;
    site.nodes[0].store.local.break_sync();
    assert!(site.nodes[0].store.fenced().is_some());
    let put = site.put(0, 1).await.1;
    assert!(matches!(put, Err(StoreError::Fenced { .. })), "{put:?}");
    site.put(1, 2).await.1.unwrap();
    assert_eq!(site.holders(2), [1, 2]);
    assert!(site.nodes[1].store.fenced().is_none());
}
