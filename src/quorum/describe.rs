//! What the leader knows of the members of the quorum: how far each has the log, and when it was last heard.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openraft::{EmptyNode, Raft, RaftMetrics, ServerState};
use tokio::time::Instant;

use super::member::node_of;
use super::types::TypeConfig;
use crate::base::NodeId;
use crate::base::codec::{DecodeError, Reader, Writer};

/// The quorum as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuorumView {
    pub leader: NodeId,
    pub term: u64,
    /// Index after the last committed entry.
    pub committed: u64,
    /// Voters and learners, the leader among them, by node.
    pub members: Vec<QuorumMember>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuorumMember {
    pub node: NodeId,
    pub is_voter: bool,
    /// Index after the last entry that it is known to have; none while nothing is known.
    pub end: Option<u64>,
    /// How long ago it last took entries or a sign of life; none if this leader never heard of it.
    pub heard_ago: Option<Duration>,
    /// How long ago it last had everything that was committed then.
    pub caught_up_ago: Option<Duration>,
}

/// When this node, as a leader, heard of the others. What an earlier term left is older, not wrong.
#[derive(Default)]
pub(super) struct Followers(Mutex<BTreeMap<u64, Heard>>);

#[derive(Clone, Copy)]
struct Heard {
    at: Instant,
    caught_up: Option<Instant>,
}

impl Followers {
    /// A member took what was asked of it at `sent`; `is_all` says that it has everything that was committed then.
    pub fn took(&self, raft_id: u64, sent: Instant, is_all: bool) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = heard.entry(raft_id).or_insert(Heard { at: sent, caught_up: None });
        entry.at = entry.at.max(sent);
        if is_all {
            entry.caught_up = entry.caught_up.max(Some(sent));
        }
    }

    /// The time since when a majority of every one of these sets of voters, `own` among them, has answered what it was asked.
    pub fn heard_by_majority(&self, configs: &[BTreeSet<u64>], own: u64) -> Option<Instant> {
        let heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_config = |config: &BTreeSet<u64>| {
            let needed = (config.len() / 2 + 1).saturating_sub(config.contains(&own).into());
            let others = config.iter().filter(|voter| **voter != own).filter_map(|voter| heard.get(voter));
            let mut times: Vec<Instant> = others.map(|heard| heard.at).collect();
            times.sort_unstable_by(|a, b| b.cmp(a));
            if needed == 0 { Some(Instant::now()) } else { times.get(needed - 1).copied() }
        };
        let times: Option<Vec<Instant>> = configs.iter().map(of_config).collect();
        times?.into_iter().min()
    }

    /// Forgets who is no member.
    fn of_members(&self, members: &[u64]) -> BTreeMap<u64, Heard> {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.retain(|id, _| members.contains(id));
        heard.clone()
    }
}

/// The parts that a view is made of.
#[derive(Clone)]
pub(super) struct Viewer {
    pub raft: Raft<TypeConfig>,
    pub committed: Arc<AtomicU64>,
    pub followers: Arc<Followers>,
}

impl Viewer {
    /// None where this node does not lead.
    pub fn view(&self) -> Option<QuorumView> {
        let metrics = self.raft.metrics().borrow().clone();
        let applied = metrics.last_applied.map_or(0, |id| id.index.saturating_add(1));
        view(&metrics, self.committed.load(Ordering::Relaxed).max(applied), &self.followers, Instant::now())
    }
}

fn view(
    metrics: &RaftMetrics<u64, EmptyNode>,
    committed: u64,
    followers: &Followers,
    now: Instant,
) -> Option<QuorumView> {
    let replication = metrics.replication.as_ref().filter(|_| metrics.state == ServerState::Leader)?;
    let membership = metrics.membership_config.membership();
    let voters: Vec<u64> = membership.voter_ids().collect();
    let ids: Vec<u64> = membership.nodes().map(|(id, _)| *id).collect();
    let heard = followers.of_members(&ids);
    let ago = |at: Instant| now.saturating_duration_since(at);
    let mut members: Vec<_> = ids
        .iter()
        .map(|id| {
            let (node, is_voter) = (node_of(*id), voters.contains(id));
            if *id == metrics.id {
                // It has always just heard of itself.
                let (end, now) = (Some(metrics.last_log_index.map_or(0, |last| last + 1)), Some(Duration::ZERO));
                return QuorumMember { node, is_voter, end, heard_ago: now, caught_up_ago: now };
            }
            let end = replication.get(id).copied().flatten().map(|at| at.index.saturating_add(1));
            let heard = heard.get(id);
            let caught_up_ago = heard.and_then(|heard| heard.caught_up).map(ago);
            QuorumMember { node, is_voter, end, heard_ago: heard.map(|heard| ago(heard.at)), caught_up_ago }
        })
        .collect();
    members.sort_unstable_by_key(|member| (member.node, !member.is_voter));
    Some(QuorumView { leader: node_of(metrics.id), term: metrics.current_term, committed, members })
}

impl QuorumView {
    pub(super) fn write(&self, w: &mut Writer) {
        w.i32(self.leader.0).u64(self.term).u64(self.committed).count(self.members.len());
        for member in &self.members {
            w.i32(member.node.0).bool(member.is_voter);
            put_option(member.end, w);
            put_option(member.heard_ago.map(millis), w);
            put_option(member.caught_up_ago.map(millis), w);
        }
    }

    pub(super) fn read(r: &mut Reader<'_>) -> Result<QuorumView, DecodeError> {
        let (leader, term, committed) = (NodeId(r.i32()?), r.u64()?, r.u64()?);
        let mut members = Vec::new();
        for _ in 0..r.count(4 + 1 + 3)? {
            members.push(QuorumMember {
                node: NodeId(r.i32()?),
                is_voter: r.bool("member votes")?,
                end: option(r)?,
                heard_ago: option(r)?.map(Duration::from_millis),
                caught_up_ago: option(r)?.map(Duration::from_millis),
            });
        }
        Ok(QuorumView { leader, term, committed, members })
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn put_option(value: Option<u64>, w: &mut Writer) {
    w.bool(value.is_some());
    if let Some(value) = value {
        w.u64(value);
    }
}

fn option(r: &mut Reader<'_>) -> Result<Option<u64>, DecodeError> {
    if r.bool("value present")? { r.u64().map(Some) } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_majority_of_every_set_of_voters_counts() {
        let followers = Followers::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let heard = |configs: &[&[u64]]| {
            let configs: Vec<BTreeSet<u64>> = configs.iter().map(|ids| ids.iter().copied().collect()).collect();
            followers.heard_by_majority(&configs, 1)
        };
        assert_eq!(heard(&[&[1, 2, 3]]), None, "nobody was ever heard");
        assert!(heard(&[&[1]]) >= Some(start), "it hears itself");
        followers.took(2, at(50), true);
        followers.took(3, at(90), true);
        assert_eq!(heard(&[&[1, 2, 3]]), Some(at(90)));
        assert_eq!(heard(&[&[1, 2, 3, 4, 5]]), Some(at(50)));
        assert_eq!(heard(&[&[1, 2, 3], &[1, 2, 4, 5]]), None, "of the second set only two were heard");
        assert_eq!(heard(&[&[1, 2, 3], &[1, 2]]), Some(at(50)));
        assert_eq!(heard(&[&[2, 3, 4]]), Some(at(50)), "who does not vote does not count");
    }

    #[test]
    fn who_catches_up_is_dated_by_what_was_sent() {
        let followers = Followers::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        followers.took(2, at(50), true);
        followers.took(2, at(70), false);
        followers.took(2, at(60), false);
        followers.took(3, at(10), false);
        let seen = followers.of_members(&[1, 2, 3]);
        assert_eq!((seen[&2].at, seen[&2].caught_up), (at(70), Some(at(50))));
        assert_eq!((seen[&3].at, seen[&3].caught_up), (at(10), None));
        followers.of_members(&[1, 2]);
        assert!(!followers.of_members(&[1, 2, 3]).contains_key(&3), "who left and came back is heard anew");
    }
}
