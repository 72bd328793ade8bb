//! What the quorums of different nodes say to each other, in an encoding of our own: openraft's types are never sent as it
//! would write them, so that nodes with different releases of it understand each other.
//!
//! Encoding of a message: version `u16` = 1 | kind `u8` | body. A question has between version and kind whom it is for: `u8`,
//! 1 for the voter whose name follows (`u64`), 0 for whoever is there. Positions, votes and memberships stand as they do in `kv`.
//! A decoder never allocates by a count that the bytes do not bear out; the length of a message is the transport's to bound.

use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, VoteRequest,
    VoteResponse,
};
use openraft::{LogId, SnapshotSegmentId, Vote};

use super::describe::QuorumView;
use super::types::{
    Entry, Members, SnapshotMeta, TypeConfig, log_id, position, raft_entry, raft_membership, raft_vote, stored_entry,
    stored_membership, stored_vote,
};
use crate::base::NodeId;
use crate::base::codec::{DecodeError, Reader, Writer};
use crate::kv::hard_state;
use crate::kv::raft_log::{self, LogPosition, Membership};

const VERSION: u16 = 1;

/// Asked of another node's quorum.
pub(super) enum Ask {
    Append(AppendEntriesRequest<TypeConfig>),
    Vote(VoteRequest<u64>),
    Snapshot(InstallSnapshotRequest<TypeConfig>),
    /// Whether a vote for a log that ends there would be given, without giving it (the pre-vote of Ongaro's thesis, 9.6).
    Canvass {
        last: Option<LogPosition>,
    },
    /// Commit this group of commands, as `group` encodes it.
    Propose {
        group: Vec<u8>,
    },
    /// The index up to which everything that was ever answered stands.
    Barrier,
    /// Stand for election now: the leader makes room.
    Succeed,
    /// How the leader sees the members.
    Describe,
}

/// What is answered.
pub(super) enum Tell {
    Append(AppendEntriesResponse<u64>),
    Vote(VoteResponse<u64>),
    Snapshot(InstallSnapshotResponse<u64>),
    /// The pieces of a snapshot do not follow one another.
    SnapshotMismatch {
        expect: SnapshotSegmentId,
        got: SnapshotSegmentId,
    },
    Canvass {
        granted: bool,
    },
    /// Committed and applied at this index; what the commands answer, whoever applies that entry knows.
    Proposed {
        index: u64,
    },
    /// Whether the commands were or will be carried out is not known, for this reason.
    Unknown {
        reason: String,
    },
    /// Nothing was changed: another node leads, or none that is known.
    NotLeader {
        leader: Option<NodeId>,
    },
    Barrier {
        index: Option<u64>,
    },
    Succeed,
    /// Nothing was changed, for this reason: the quorum has stopped, or what was asked is none of this release.
    Refused {
        reason: String,
    },
    Described(QuorumView),
}

impl Ask {
    /// `to` names the voter that is meant, with its folder: a node that lost it must not answer in its former name.
    pub fn encode(&self, to: Option<u64>) -> Vec<u8> {
        let mut w = Writer::new();
        w.u16(VERSION).bool(to.is_some());
        if let Some(to) = to {
            w.u64(to);
        }
        match self {
            Ask::Append(ask) => {
                w.u8(0);
                put_vote(&ask.vote, &mut w);
                put_position(&ask.prev_log_id, &mut w);
                put_position(&ask.leader_commit, &mut w);
                w.count(ask.entries.len());
                for entry in &ask.entries {
                    let entry = stored_entry(entry.clone());
                    w.u64(entry.position.index).bytes(&raft_log::encode(&entry));
                }
            }
            Ask::Vote(ask) => {
                w.u8(1);
                put_vote(&ask.vote, &mut w);
                put_position(&ask.last_log_id, &mut w);
            }
            Ask::Snapshot(ask) => {
                w.u8(2);
                put_vote(&ask.vote, &mut w);
                put_meta(&ask.meta, &mut w);
                w.u64(ask.offset).bool(ask.done).bytes(&ask.data);
            }
            Ask::Canvass { last } => {
                w.u8(3);
                LogPosition::write_option(last, &mut w);
            }
            Ask::Propose { group } => drop(w.u8(4).bytes(group)),
            Ask::Barrier => drop(w.u8(5)),
            Ask::Succeed => drop(w.u8(6)),
            Ask::Describe => drop(w.u8(7)),
        }
        w.0
    }

    pub fn decode(bytes: &[u8]) -> Result<(Option<u64>, Ask), DecodeError> {
        let mut r = versioned(bytes)?;
        let to = if r.bool("voter named")? { Some(r.u64()?) } else { None };
        let ask = match r.u8()? {
            0 => Ask::Append(AppendEntriesRequest {
                vote: vote(&mut r)?,
                prev_log_id: log_position(&mut r)?,
                leader_commit: log_position(&mut r)?,
                entries: entries(&mut r)?,
            }),
            1 => Ask::Vote(VoteRequest { vote: vote(&mut r)?, last_log_id: log_position(&mut r)? }),
            2 => Ask::Snapshot(InstallSnapshotRequest {
                vote: vote(&mut r)?,
                meta: meta(&mut r)?,
                offset: r.u64()?,
                done: r.bool("last piece")?,
                data: r.bytes()?.to_vec(),
            }),
            3 => Ask::Canvass { last: LogPosition::read_option(&mut r)? },
            4 => Ask::Propose { group: r.bytes()?.to_vec() },
            5 => Ask::Barrier,
            6 => Ask::Succeed,
            7 => Ask::Describe,
            kind => return Err(unknown(kind)),
        };
        r.finish()?;
        Ok((to, ask))
    }
}

impl Tell {
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u16(VERSION);
        match self {
            Tell::Append(answer) => {
                w.u8(0);
                match answer {
                    AppendEntriesResponse::Success => drop(w.u8(0)),
                    AppendEntriesResponse::PartialSuccess(matching) => put_position(matching, w.u8(1)),
                    AppendEntriesResponse::Conflict => drop(w.u8(2)),
                    AppendEntriesResponse::HigherVote(vote) => put_vote(vote, w.u8(3)),
                }
            }
            Tell::Vote(answer) => {
                w.u8(1);
                put_vote(&answer.vote, &mut w);
                put_position(&answer.last_log_id, &mut w);
                w.bool(answer.vote_granted);
            }
            Tell::Snapshot(answer) => put_vote(&answer.vote, w.u8(2)),
            Tell::SnapshotMismatch { expect, got } => {
                w.u8(3).string(&expect.id).u64(expect.offset).string(&got.id).u64(got.offset);
            }
            Tell::Canvass { granted } => drop(w.u8(4).bool(*granted)),
            Tell::Proposed { index } => drop(w.u8(5).u64(*index)),
            Tell::NotLeader { leader } => drop(w.u8(6).i32(leader.map_or(-1, |node| node.0))),
            Tell::Barrier { index } => drop(w.u8(7).bool(index.is_some()).u64(index.unwrap_or(0))),
            Tell::Succeed => drop(w.u8(8)),
            Tell::Refused { reason } => drop(w.u8(9).string(reason)),
            Tell::Described(view) => view.write(w.u8(10)),
            Tell::Unknown { reason } => drop(w.u8(11).string(reason)),
        }
        w.0
    }

    pub fn decode(bytes: &[u8]) -> Result<Tell, DecodeError> {
        let mut r = versioned(bytes)?;
        let tell = match r.u8()? {
            0 => Tell::Append(match r.u8()? {
                0 => AppendEntriesResponse::Success,
                1 => AppendEntriesResponse::PartialSuccess(log_position(&mut r)?),
                2 => AppendEntriesResponse::Conflict,
                3 => AppendEntriesResponse::HigherVote(vote(&mut r)?),
                kind => return Err(unknown(kind)),
            }),
            1 => Tell::Vote(VoteResponse {
                vote: vote(&mut r)?,
                last_log_id: log_position(&mut r)?,
                vote_granted: r.bool("vote granted")?,
            }),
            2 => Tell::Snapshot(InstallSnapshotResponse { vote: vote(&mut r)? }),
            3 => Tell::SnapshotMismatch { expect: segment(&mut r)?, got: segment(&mut r)? },
            4 => Tell::Canvass { granted: r.bool("vote promised")? },
            5 => Tell::Proposed { index: r.u64()? },
            6 => Tell::NotLeader { leader: Some(r.i32()?).filter(|node| *node >= 0).map(NodeId) },
            7 => {
                let known = r.bool("index present")?;
                Tell::Barrier { index: Some(r.u64()?).filter(|_| known) }
            }
            8 => Tell::Succeed,
            9 => Tell::Refused { reason: r.string("reason")? },
            10 => Tell::Described(QuorumView::read(&mut r)?),
            11 => Tell::Unknown { reason: r.string("reason")? },
            kind => return Err(unknown(kind)),
        };
        r.finish()?;
        Ok(tell)
    }
}

fn versioned(bytes: &[u8]) -> Result<Reader<'_>, DecodeError> {
    let mut r = Reader::new(bytes);
    match r.u16()? {
        VERSION => Ok(r),
        found => Err(DecodeError::Version { found, newest: VERSION }),
    }
}

fn unknown(kind: u8) -> DecodeError {
    DecodeError::Invalid { field: "kind of a message of the quorum", value: kind.into() }
}

fn put_vote(vote: &Vote<u64>, w: &mut Writer) {
    let vote = stored_vote(vote);
    w.u64(vote.term).u64(vote.node).bool(vote.committed);
}

fn vote(r: &mut Reader<'_>) -> Result<Vote<u64>, DecodeError> {
    let vote = hard_state::Vote { term: r.u64()?, node: r.u64()?, committed: r.bool("vote committed")? };
    Ok(raft_vote(&vote))
}

fn put_position(id: &Option<LogId<u64>>, w: &mut Writer) {
    LogPosition::write_option(&id.as_ref().map(position), w);
}

fn log_position(r: &mut Reader<'_>) -> Result<Option<LogId<u64>>, DecodeError> {
    Ok(LogPosition::read_option(r)?.as_ref().map(log_id))
}

fn put_meta(meta: &SnapshotMeta, w: &mut Writer) {
    put_position(&meta.last_log_id, w);
    put_position(meta.last_membership.log_id(), w);
    stored_membership(meta.last_membership.membership()).write(w);
    w.string(&meta.snapshot_id);
}

fn meta(r: &mut Reader<'_>) -> Result<SnapshotMeta, DecodeError> {
    let last_log_id = log_position(r)?;
    let membership_at = log_position(r)?;
    let membership = raft_membership(&Membership::read(r)?);
    let last_membership = Members::new(membership_at, membership);
    Ok(SnapshotMeta { last_log_id, last_membership, snapshot_id: r.string("snapshot")? })
}

fn segment(r: &mut Reader<'_>) -> Result<SnapshotSegmentId, DecodeError> {
    Ok(SnapshotSegmentId { id: r.string("snapshot")?, offset: r.u64()? })
}

/// Entries, which must follow one another: openraft takes that for granted.
fn entries(r: &mut Reader<'_>) -> Result<Vec<Entry>, DecodeError> {
    let mut entries: Vec<Entry> = Vec::new();
    for _ in 0..r.count(8 + 4)? {
        let index = r.u64()?;
        let entry = raft_log::decode(&raft_log::key(index), r.bytes()?)?;
        if entries.last().is_some_and(|before| before.log_id.index.checked_add(1) != Some(index)) {
            return Err(DecodeError::Invalid { field: "index of a log entry", value: index });
        }
        entries.push(raft_entry(entry));
    }
    Ok(entries)
}
