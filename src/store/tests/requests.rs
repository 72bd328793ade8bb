//! What a node answers to another one that asks nonsense, stops in the middle, or asks too much.

use super::*;
use crate::base::limits::STORE_UPLOADS_MAX;

async fn ask(site: &Site, from: i32, ask: Ask) -> Tell {
    site.nodes[0].store.service.answer(NodeId(from), ask.encode().concat().into()).await.unwrap()
}

fn piece(upload: u64, position: u64, bytes: &'static [u8]) -> Ask {
    Ask::Piece { upload, position, bytes: vec![Bytes::from_static(bytes)] }
}

fn commit(upload: u64, bytes: &'static [u8]) -> Ask {
    let sums = crate::object::Sums::of(&[Bytes::from_static(bytes)]);
    Ask::Commit { upload, key: StoredKey::Probe(1), bytes: sums.bytes, digest: sums.digest() }
}

fn staged(site: &Site) -> usize {
    std::fs::read_dir(site.root(NodeId(1)).join(".incoming")).unwrap().count()
}

#[tokio::test]
async fn an_upload_is_published_only_whole_and_only_by_its_sender() {
    let site = Site::new(3).await;
    assert_eq!(ask(&site, 2, piece(7, 0, b"ab")).await, Tell::Done);
    assert!(matches!(ask(&site, 3, commit(7, b"ab")).await, Tell::Failed { .. }), "another node's");
    assert_eq!(ask(&site, 2, piece(7, 2, b"cd")).await, Tell::Done);
    assert_eq!(ask(&site, 2, commit(7, b"abcd")).await, Tell::Done);
    let read = Ask::Read { key: StoredKey::Probe(1), from: 1, bytes: 2 };
    assert_eq!(ask(&site, 2, read).await, Tell::Bytes { total: 4, bytes: Bytes::from_static(b"bc") });
    assert_eq!(ask(&site, 2, Ask::Delete { key: StoredKey::Probe(1) }).await, Tell::Done);
    assert_eq!(ask(&site, 2, Ask::Delete { key: StoredKey::Probe(1) }).await, Tell::Done);
    // A piece that does not follow, and bytes that are not those announced.
    assert_eq!(ask(&site, 2, piece(8, 0, b"ab")).await, Tell::Done);
    assert!(matches!(ask(&site, 2, piece(8, 3, b"d")).await, Tell::Failed { .. }));
    assert_eq!(ask(&site, 2, piece(9, 0, b"abcx")).await, Tell::Done);
    assert!(matches!(ask(&site, 2, commit(9, b"abcd")).await, Tell::Failed { .. }));
    assert_eq!(
        ask(&site, 2, Ask::Stat { key: StoredKey::Probe(1), digest: true }).await,
        Tell::Missing { complete: true }
    );
    assert_eq!(staged(&site), 0);
}

#[tokio::test(start_paused = true)]
async fn uploads_are_bounded_and_abandoned_ones_removed() {
    let site = Site::new(3).await;
    for upload in 0..STORE_UPLOADS_MAX as u64 {
        assert_eq!(ask(&site, 2, piece(upload, 0, b"ab")).await, Tell::Done);
    }
    assert!(matches!(ask(&site, 2, piece(1000, 0, b"ab")).await, Tell::Failed { .. }));
    assert_eq!(staged(&site), STORE_UPLOADS_MAX);
    tokio::time::advance(Duration::from_secs(61)).await;
    site.nodes[0].store.service.clean();
    assert_eq!(staged(&site), 0);
    assert!(matches!(ask(&site, 2, piece(0, 2, b"ab")).await, Tell::Failed { .. }));
}

#[tokio::test]
async fn what_cannot_be_read_is_refused() {
    let site = Site::new(1).await;
    for request in [&b""[..], b"\x01", b"\x02\x01", b"\x01\xff", b"\x01\x04\x01"] {
        let answer = site.nodes[0].store.service.answer(NodeId(2), Bytes::copy_from_slice(request)).await;
        assert!(answer.is_err(), "{request:?}");
    }
}
