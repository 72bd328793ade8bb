//! A leader that finds itself one again after a restart, in the term that it had.
//!
//! openraft has it go on at once. But how much of its log was committed, and answered, it has forgotten: the state machine's
//! writes are not synced, and after a power loss it begins with less than was answered. So what it says of how far everything
//! stands is not less than the end that its log had. And where it was elected and had no entry of its own yet, one comes
//! first: older entries are committed with it only.

use openraft::Vote;

use super::plant::{self, Bug};
use super::types::raft_vote;
use crate::kv::raft_log::LogPosition;
use crate::kv::{Kv, ReadError};

#[derive(Clone, Copy, Debug)]
pub(super) struct Resumed {
    /// Its own, which a majority had given.
    vote: Vote<u64>,
    /// Where its log ended.
    last: LogPosition,
}

impl Resumed {
    /// What the store says of a leader `raft_id`; none if it was no leader.
    pub fn read(kv: &Kv, raft_id: u64) -> Result<Option<Resumed>, ReadError> {
        let vote = kv.vote()?.filter(|vote| vote.committed && vote.node == raft_id);
        let last = kv.last_log_position()?.max(kv.purged()?);
        Ok(vote.zip(last).map(|(vote, last)| Resumed { vote: raft_vote(&vote), last }))
    }

    /// As long as it leads with this vote, everything up to there may have been answered before.
    pub fn answered(&self, vote: &Vote<u64>) -> Option<u64> {
        (self.vote == *vote && !plant::has(Bug::ResumedUnaware)).then_some(self.last.index)
    }

    pub fn lacks_own_entry(&self) -> bool {
        (self.last.term, self.last.node) != (self.vote.leader_id.term, self.vote.leader_id.node_id)
    }
}
