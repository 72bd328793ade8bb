//! The quorum as its users see it, over real folders: restarts, crashes at every cut of the log, damage, snapshots.

mod cluster;
mod crash;
mod messages;
mod suite;

use std::path::Path;

use super::*;
use crate::base::{BrokerEpoch, ClusterId, EntryId, LedgerId, ObjectId, Offset, PartitionId, TopicId, WalIncarnation};
use crate::env::SystemEntropy;
use crate::kv::raft_log::Payload;
use crate::metadata::{MemoryIndex, ObjectState, Range, Replica, apply};

const NODE: NodeId = NodeId(1);
const EPOCH: BrokerEpoch = BrokerEpoch(1);
const TOPIC: TopicId = TopicId([5; 16]);
const WAL: WalIncarnation = WalIncarnation([8; 16]);

fn options(dir: &Path, create: bool) -> QuorumOptions {
    QuorumOptions { dir: dir.to_owned(), node: NODE, create: if create { Create::Quorum } else { Create::No } }
}

async fn try_start(options: QuorumOptions) -> Result<Arc<Quorum>, StartError> {
    Quorum::start(options, Arc::new(SystemEntropy)).await
}

async fn start(dir: &Path) -> Arc<Quorum> {
    try_start(options(dir, true)).await.unwrap()
}

/// A folder as the first release made them: it does not say whose it is.
fn folder_without_owner() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let kv = Kv::open(folder.path(), true).unwrap();
    let mut batch = Batch::default();
    batch.put_owner(&Owner { node: NODE, directory: DirectoryId(0) });
    kv.write(batch, Durability::Synced).unwrap();
    folder
}

/// A runtime of its own, so that a test can drop a quorum as a killed process does.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn partition(index: i32) -> PartitionId {
    PartitionId { topic: TOPIC, index }
}

/// A cluster with one broker, one topic of 100 partitions and one open ledger.
fn set_up() -> Vec<Command> {
    let replicas = vec![Replica { node: NODE, incarnation: WAL }];
    vec![
        Command::InitCluster { cluster: ClusterId([3; 16]), generation: 1 },
        Command::RegisterBroker {
            node: NODE,
            incarnation: WAL,
            boot: 1,
            endpoints: Vec::new(),
            version: "1".to_string(),
            now_ms: 1,
        },
        Command::CreateTopic {
            id: TOPIC,
            name: "topic".to_string(),
            partitions: vec![NODE; 100],
            replication_factor: 1,
            configs: vec![("retention.ms".to_string(), "5".to_string())],
            now_ms: 2,
        },
        Command::OpenLedger { node: NODE, epoch: EPOCH, replicas, write_quorum: 1, close: None },
    ]
}

/// The `n`-th upload: ten more offsets of two partitions.
fn upload(n: u64) -> [Command; 2] {
    let range = |index| Range {
        partition: partition(index),
        base: Offset(n as i64 * 10),
        end: Offset(n as i64 * 10 + 10),
        bytes: 100,
        records: 10,
        max_timestamp: 7,
        first_timestamp: 6,
        position: 0,
        length: 100,
        epochs: Vec::new(),
    };
    [
        Command::PrepareObjects { node: NODE, epoch: EPOCH, count: 1, now_ms: 3 },
        Command::CommitUpload {
            node: NODE,
            epoch: EPOCH,
            object: ObjectId(n + 1),
            object_bytes: 1000,
            ledger: LedgerId(1),
            from: EntryId(n),
            through: EntryId(n + 1),
            ranges: vec![range(0), range(99)],
            now_ms: 4,
        },
    ]
}

async fn run(quorum: &Quorum, commands: impl IntoIterator<Item = Command>) {
    for command in commands {
        let response = quorum.propose(&command).await.unwrap();
        assert!(!matches!(response, Response::Rejected(_)), "{command:?}: {response:?}");
    }
}

#[test]
fn an_answer_is_visible_at_once_and_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let before = runtime().block_on(async {
        let quorum = start(folder.path()).await;
        run(&quorum, set_up()).await;
        assert!(quorum.image().borrow().topic("topic").is_some());
        run(&quorum, (0..20).flat_map(upload)).await;
        let index = quorum.index();
        assert_eq!(index.locate(partition(99), Offset(55)).unwrap().unwrap().0, Offset(50));
        assert_eq!(index.locate(partition(99), Offset(200)).unwrap(), None);
        assert_eq!(index.totals().unwrap(), Totals { ranges: 40, live: 20, live_bytes: 20_000, ..Totals::default() });
        let status = quorum.status();
        assert_eq!((status.leader, status.voters), (Some(NODE), vec![NODE]));
        assert_eq!(Some(status.committed), status.applied.map(|index| index + 1));
        quorum.shutdown().await;
        let refused = quorum.propose(&Command::PurgeRanges { now_ms: 1 }).await;
        assert!(matches!(refused, Err(ProposeError::Stopped(_))));
        quorum.image().borrow().clone()
    });
    runtime().block_on(async {
        let quorum = try_start(options(folder.path(), false)).await.unwrap();
        assert_eq!(*quorum.image().borrow(), before);
        let status = quorum.status();
        assert_eq!(Some(status.committed), status.applied.map(|index| index + 1));
        run(&quorum, upload(20)).await;
        assert_eq!(quorum.index().totals().unwrap().ranges, 42);
    });
}

#[test]
fn commands_proposed_together_share_entries_and_each_has_its_own_answer() {
    let folder = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let quorum = start(folder.path()).await;
        run(&quorum, set_up()).await;
        let before = quorum.status().last_index.unwrap();
        let prepare = Command::PrepareObjects { node: NODE, epoch: EPOCH, count: 1, now_ms: 3 };
        let answers = futures_util::future::join_all((0..200).map(|_| quorum.propose(&prepare))).await;
        let mut ids: Vec<_> = answers
            .into_iter()
            .map(|answer| match answer.unwrap() {
                Response::Objects { first, .. } => first.0,
                other => panic!("{other:?}"),
            })
            .collect();
        ids.sort_unstable();
        assert_eq!(ids, (1..=200).collect::<Vec<_>>());
        assert!(quorum.status().last_index.unwrap() - before < 100, "every command had its own entry");
        assert_eq!(quorum.index().objects_in_state(Unsettled::Prepared, ObjectId(150), 10).unwrap().len(), 10);
    });
}

#[test]
fn too_large_a_command_is_refused_before_it_is_logged() {
    let folder = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let quorum = start(folder.path()).await;
        let before = quorum.status().last_index;
        let objects = (0..COMMAND_BYTES_MAX as u64 / 8).map(ObjectId).collect();
        let refused = quorum.propose(&Command::SweepObjects { objects }).await;
        assert!(matches!(refused, Err(ProposeError::TooLarge { max: COMMAND_BYTES_MAX, .. })));
        assert_eq!(quorum.status().last_index, before);
    });
}

#[test]
fn the_wrong_folder_is_refused_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = runtime();
    let error = |options| runtime.block_on(try_start(options)).err().unwrap();
    assert!(matches!(error(options(folder.path(), false)), StartError::Open(OpenError::Missing { .. })));
    runtime.block_on(async { start(folder.path()).await.shutdown().await });
    let other = QuorumOptions { node: NodeId(2), ..options(folder.path(), true) };
    // The first quorum may still be closing its files.
    let refused = std::iter::repeat_with(|| error(other.clone())).find(|e| !matches!(e, StartError::Open(_)));
    assert!(matches!(refused, Some(StartError::OtherNode { node: NodeId(2), .. })));
    assert!(matches!(error(QuorumOptions { node: NodeId(-1), ..other }), StartError::NodeId(_)));
    let file = folder.path().join("file");
    std::fs::write(&file, b"").unwrap();
    assert!(matches!(error(options(&file, true)), StartError::Open(OpenError::Io { .. })));
}

#[test]
fn a_failed_write_stops_the_quorum_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let quorum = start(folder.path()).await;
        let mut failure = quorum.failure();
        quorum.kv.fence("no such disk");
        failure.changed().await.unwrap();
        assert_eq!(failure.borrow().as_deref(), Some("no such disk"));
        match quorum.propose(&Command::PurgeRanges { now_ms: 1 }).await {
            Err(ProposeError::Stopped(reason)) => assert_eq!(reason, "no such disk"),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn the_log_is_purged_behind_a_snapshot_and_the_next_start_needs_none_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let before = runtime().block_on(async {
        let quorum = start(folder.path()).await;
        run(&quorum, set_up()).await;
        run(&quorum, (0..100).flat_map(upload)).await;
        quorum.raft.trigger().snapshot().await.unwrap();
        let purged = |m: &openraft::RaftMetrics<u64, EmptyNode>| m.purged.is_some_and(|id| id.index > 100);
        quorum.raft.wait(Some(LEADER_WAIT)).metrics(purged, "purge").await.unwrap();
        assert!(quorum.kv.log_entries(0, 100).unwrap().is_empty());
        quorum.shutdown().await;
        quorum.image().borrow().clone()
    });
    runtime().block_on(async {
        let quorum = start(folder.path()).await;
        assert_eq!(*quorum.image().borrow(), before);
        run(&quorum, upload(100)).await;
    });
}

#[test]
fn a_fresh_folder_is_rebuilt_from_a_snapshot() {
    let (folder, fresh) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (bytes, before) = runtime().block_on(async {
        let quorum = start(folder.path()).await;
        run(&quorum, set_up()).await;
        run(&quorum, (0..30).flat_map(upload)).await;
        run(&quorum, [Command::PrepareObjects { node: NODE, epoch: EPOCH, count: 5, now_ms: 3 }]).await;
        run(&quorum, [Command::AbortObjects { objects: vec![ObjectId(31)], now_ms: 5 }]).await;
        let bytes = quorum.snapshot_bytes().await.unwrap();
        (bytes, (quorum.image().borrow().clone(), quorum.index().totals().unwrap()))
    });
    Quorum::restore(fresh.path(), NodeId(7), &bytes, &SystemEntropy).unwrap();
    assert!(matches!(Quorum::restore(fresh.path(), NodeId(7), &bytes, &SystemEntropy), Err(RestoreError::NotEmpty(_))));
    runtime().block_on(async {
        let restored = QuorumOptions { node: NodeId(7), ..options(fresh.path(), false) };
        let quorum = try_start(restored).await.unwrap();
        let index = quorum.index();
        assert_eq!((quorum.image().borrow().clone(), index.totals().unwrap()), before);
        let range = index.locate(partition(0), Offset(295)).unwrap().unwrap();
        assert_eq!((range.0, range.1.object), (Offset(290), ObjectId(30)));
        assert_eq!(index.object(ObjectId(30)).unwrap().unwrap().state, ObjectState::Live);
        assert_eq!(index.objects_in_state(Unsettled::Aborted, ObjectId(0), 9).unwrap().len(), 1);
        assert_eq!(index.objects_in_state(Unsettled::Prepared, ObjectId(0), 9).unwrap().len(), 4);
        run(&quorum, [Command::PurgeRanges { now_ms: 9 }]).await;
        let again = quorum.snapshot_bytes().await.unwrap();
        assert_eq!(snapshot::decode(&again).unwrap().totals, before.1);
    });
}

#[test]
fn snapshots_of_every_release_are_readable() {
    let folder = folder_without_owner();
    let bytes = runtime().block_on(async {
        let quorum = start(folder.path()).await;
        run(&quorum, set_up()).await;
        run(&quorum, (0..3).flat_map(upload)).await;
        quorum.snapshot_bytes().await.unwrap()
    });
    let fixture = crate::kv::fixture("snapshot_v1", &bytes);
    let restored = snapshot::decode(&fixture).unwrap();
    assert_eq!((restored.image.applied, restored.totals.ranges, restored.totals.live), (10, 6, 3));
}

#[test]
fn every_flipped_bit_and_every_cut_of_a_snapshot_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = runtime().block_on(async {
        let quorum = start(folder.path()).await;
        run(&quorum, set_up()).await;
        run(&quorum, (0..3).flat_map(upload)).await;
        quorum.snapshot_bytes().await.unwrap()
    });
    assert!(snapshot::decode(&bytes).is_ok());
    for at in 0..bytes.len() {
        let mut flipped = bytes.to_vec();
        flipped[at] ^= 1 << (at % 8);
        assert!(snapshot::decode(&flipped).is_err(), "byte {at}");
        assert!(snapshot::decode(&bytes[..at]).is_err(), "cut at {at}");
    }
}
