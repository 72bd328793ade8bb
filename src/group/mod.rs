//! The group coordinator of one partition of `__consumer_offsets`, as a pure state machine.
//!
//! Its one job: to decide. A request or the passing of time goes in, records to append and replies to send come out
//! ([`Effects`]). It knows classic groups (`classic`), consumer groups (`consumer`, KIP-848) and the committed
//! offsets of both (`offsets`), and writes Apache Kafka's record formats (`records`).
//!
//! Invariants: no I/O, no clock and no randomness but what the caller hands in; no panic, whatever a peer sent or a
//! record holds; a state that is replayed from the records written so far equals the state that wrote them, but for
//! what Kafka does not record either (who waits, and rebalances under way). State changes at once and is never
//! undone: a host that cannot append throws the machine away and loads it again.
//!
//! It must never know how records are stored, nor a wire type of Kafka's protocol.

mod bounds;
mod call;
mod classic;
mod consumer;
mod coordinator;
mod describe;
mod error;
mod offsets;
mod options;
mod records;
mod refuse;
mod reply;
mod request;
mod timers;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use crate::base::TopicId;

pub use coordinator::Coordinator;
pub use error::{GroupError, Refusal};
pub use options::{GroupOverrides, MigrationPolicy, Options};
pub use records::{Record, RecordError};
pub use reply::{
    CommittedTopic, ConsumerGroupHeartbeatReply, DeletedTopic, DescribedConsumer, DescribedConsumerGroup,
    DescribedGroup, DescribedMember, Effects, FetchedOffset, FetchedTopic, JoinGroupReply, JoinedMember,
    LeaveGroupReply, LeftMember, ListedGroup, NamedPartitions, OffsetFetchReply, Reply, SyncGroupReply, Token, Write,
};
pub use request::{
    Client, CommitPartition, CommitTopic, ConsumerGroupDescribe, ConsumerGroupHeartbeat, DeleteGroup, DescribeGroup,
    FetchTopic, Heartbeat, JoinGroup, LeaveGroup, LeavingMember, ListGroups, OffsetCommit, OffsetDelete, OffsetFetch,
    Protocol, Request, SyncGroup, TopicPartitions,
};

/// Says whether a string matches.
pub type Matcher = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// Says whether a string as a whole matches a regular expression in RE2's syntax; `None` if that is none. For the
/// coordinator beside this one, whose requests can name ids so.
pub fn whole_match(expression: &str) -> Option<Matcher> {
    let compiled = consumer::regex::compile(expression).ok()?;
    Some(Arc::new(move |text| compiled.is_match(text)))
}

/// The moment of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds of the Unix epoch: goes into records and offset expiry, as in Kafka.
    pub wall_ms: i64,
    /// For timers: never goes back, runs through suspension.
    pub monotonic: Duration,
}

/// A transactional producer (KIP-98).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Producer {
    pub id: i64,
    pub epoch: i16,
}

/// What a coordinator may know of the cluster's topics, as of one moment.
pub trait Topics {
    /// A number that changes whenever any answer here may have changed.
    fn version(&self) -> u64;
    fn id(&self, name: &str) -> Option<TopicId>;
    fn name(&self, id: TopicId) -> Option<&str>;
    /// The number of partitions of a topic.
    fn partitions(&self, id: TopicId) -> Option<i32>;
    /// Racks on which a partition has replicas; empty where brokers name none.
    fn racks(&self, id: TopicId, partition: i32) -> Vec<String>;
    /// Calls `visit` with the name of every topic.
    fn each_name(&self, visit: &mut dyn FnMut(&str));
}
