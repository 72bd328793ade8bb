//! Consumer groups (KIP-848): members say what they want to read, the coordinator assigns, each member is led to its
//! assignment by its own heartbeats.
//!
//! A request is first worked out on the unchanged group (`plan`), then carried out whole: written as records and
//! applied from them (`state`), by the same code that a restart uses. So a refused request changes nothing, and a
//! replayed group is the group. Invariants: no partition is given to a member while another holds it; epochs only
//! rise; what one request writes fits into one record batch or is refused.
//!
//! | file | |
//! |---|---|
//! | `heartbeat`, `classic_members` | requests, of consumers and of classic members |
//! | `plan`, `target`, `reconcile`, `assignor` | the steps from a request to an assignment |
//! | `regex`, `topics` | subscriptions by expression, changes of topics |
//! | `state`, `member`, `partitions` | what a group is |
//! | `migration`, `embedded` | conversion from and to classic groups, and their consumers' protocol |
//! | `timer`, `describe` | what time does; the group from outside |

mod assignor;
mod classic_members;
mod describe;
mod embedded;
mod heartbeat;
mod member;
mod migration;
mod partitions;
mod plan;
mod reconcile;
pub(in crate::group) mod regex;
mod state;
mod target;
#[cfg(test)]
mod tests;
mod timer;
mod topics;

pub(in crate::group) use plan::Scene;
pub(in crate::group) use state::ConsumerGroup;

/// Who commits offsets, and with what claim.
#[derive(Debug, Clone, Copy)]
pub(in crate::group) struct CommitClaim<'a> {
    pub member: &'a str,
    pub instance: Option<&'a str>,
    /// Generation of a classic member, epoch of a consumer.
    pub epoch: i32,
    pub transactional: bool,
    /// Of OffsetCommit or TxnOffsetCommit.
    pub version: i16,
}

/// What a claim that is not refused allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::group) enum CommitCheck {
    /// Every partition.
    Whole,
    /// Each partition is to be checked with `validate_commit_partition`; one refusal refuses the request.
    EachPartition,
}
