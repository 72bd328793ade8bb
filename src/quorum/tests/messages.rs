//! What quorums say to each other survives the way, and what is damaged does not get through.

use std::collections::BTreeSet;

use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, VoteRequest,
    VoteResponse,
};
use openraft::{
    CommittedLeaderId, EntryPayload, LogId, Membership as Members, SnapshotSegmentId, StoredMembership, Vote,
};

use super::super::message::{Ask, Tell};
use super::super::types::{CommandGroup, Entry, SnapshotMeta};
use super::*;
use crate::kv::raft_log::LogPosition;

fn id(index: u64) -> LogId<u64> {
    LogId::new(CommittedLeaderId::new(3, 1 << 40), index)
}

fn members() -> Members<u64, EmptyNode> {
    Members::new(vec![BTreeSet::from([1, 2]), BTreeSet::from([2, 3 << 32])], BTreeSet::from([1, 2, 3 << 32, 9]))
}

fn asks() -> Vec<Ask> {
    let payloads =
        [EntryPayload::Blank, EntryPayload::Normal(CommandGroup(vec![7; 40])), EntryPayload::Membership(members())];
    let entries = payloads.into_iter().zip(11..).map(|(payload, index)| Entry { log_id: id(index), payload }).collect();
    let meta = SnapshotMeta {
        last_log_id: Some(id(5)),
        last_membership: StoredMembership::new(Some(id(4)), members()),
        snapshot_id: "T3-N1-5".to_owned(),
    };
    let vote = Vote::new_committed(3, 1 << 40);
    vec![
        Ask::Append(AppendEntriesRequest { vote, prev_log_id: Some(id(10)), entries, leader_commit: None }),
        Ask::Vote(VoteRequest { vote: Vote::new(4, 2), last_log_id: Some(id(13)) }),
        Ask::Snapshot(InstallSnapshotRequest { vote, meta, offset: 1 << 33, data: vec![5; 9], done: true }),
        Ask::Canvass { last: Some(LogPosition { term: 3, node: 1, index: 13 }) },
        Ask::Propose { group: vec![1, 2, 3] },
        Ask::Barrier,
        Ask::Succeed,
        Ask::Describe,
    ]
}

fn described() -> QuorumView {
    let member = |node, is_voter, end: Option<u64>| QuorumMember {
        node: NodeId(node),
        is_voter,
        end,
        heard_ago: end.map(|_| Duration::from_millis(40)),
        caught_up_ago: end.map(|_| Duration::from_secs(1 << 33)),
    };
    let members = vec![member(1, true, Some(9)), member(2, true, None), member(7, false, Some(1 << 40))];
    QuorumView { leader: NodeId(1), term: 3, committed: 8, members }
}

fn tells() -> Vec<Tell> {
    let vote = Vote::new(4, 2);
    let segment = |offset| SnapshotSegmentId { id: "s".to_owned(), offset };
    vec![
        Tell::Append(AppendEntriesResponse::Success),
        Tell::Append(AppendEntriesResponse::PartialSuccess(Some(id(12)))),
        Tell::Append(AppendEntriesResponse::Conflict),
        Tell::Append(AppendEntriesResponse::HigherVote(vote)),
        Tell::Vote(VoteResponse { vote, last_log_id: None, vote_granted: true }),
        Tell::Snapshot(InstallSnapshotResponse { vote }),
        Tell::SnapshotMismatch { expect: segment(0), got: segment(7) },
        Tell::Canvass { granted: true },
        Tell::Proposed { index: 99 },
        Tell::NotLeader { leader: Some(NodeId(4)) },
        Tell::NotLeader { leader: None },
        Tell::Barrier { index: Some(7) },
        Tell::Barrier { index: None },
        Tell::Succeed,
        Tell::Refused { reason: "why".to_owned() },
        Tell::Described(described()),
        Tell::Unknown { reason: "why".to_owned() },
    ]
}

#[test]
fn messages_of_every_release_are_readable() {
    let all = asks()
        .iter()
        .zip([Some(9 << 32 | 1), None].into_iter().cycle())
        .map(|(ask, to)| ask.encode(to))
        .chain(tells().iter().map(Tell::encode))
        .collect::<Vec<_>>();
    let joined: Vec<u8> = all.iter().flat_map(|one| [&(one.len() as u32).to_be_bytes()[..], one].concat()).collect();
    crate::kv::fixture("messages_v1", &joined);
    for ask in asks() {
        let (to, again) = Ask::decode(&ask.encode(Some(7))).unwrap();
        assert_eq!(again.encode(to), ask.encode(Some(7)));
    }
    for tell in tells() {
        assert_eq!(Tell::decode(&tell.encode()).unwrap().encode(), tell.encode());
    }
}

#[test]
fn damaged_messages_are_refused() {
    for bytes in asks().iter().zip([Some(9 << 32 | 1), None].into_iter().cycle()).map(|(ask, to)| ask.encode(to)) {
        for len in 0..bytes.len() {
            assert!(Ask::decode(&bytes[..len]).is_err());
        }
        assert!(Ask::decode(&[&bytes[..], &[0]].concat()).is_err());
        assert!(Tell::decode(&[&[0, 1], &[200][..]].concat()).is_err());
    }
    for bytes in tells().iter().map(Tell::encode) {
        for len in 0..bytes.len() {
            assert!(Tell::decode(&bytes[..len]).is_err());
        }
    }
    assert!(matches!(Ask::decode(&[0, 2, 5]), Err(crate::base::codec::DecodeError::Version { .. })));
    // A count that the bytes do not bear out: the kind is that of log entries, and four billion of them are claimed.
    let mut claimed = vec![0, 1, 0, 0];
    claimed.extend([0; 17]);
    claimed.extend([0, 0]);
    claimed.extend([0xff; 4]);
    assert!(Ask::decode(&claimed).is_err());
}

#[test]
fn entries_that_do_not_follow_one_another_are_refused() {
    let entry = |index| Entry { log_id: id(index), payload: EntryPayload::Blank };
    let ask = |indexes: &[u64]| {
        let entries = indexes.iter().map(|index| entry(*index)).collect();
        Ask::Append(AppendEntriesRequest { vote: Vote::new(1, 1), prev_log_id: None, entries, leader_commit: None })
    };
    assert!(Ask::decode(&ask(&[4, 5, 6]).encode(None)).is_ok());
    for wrong in [&[4, 6][..], &[4, 4], &[5, 4], &[u64::MAX, 0]] {
        assert!(Ask::decode(&ask(wrong).encode(None)).is_err(), "{wrong:?}");
    }
}
