//! The cluster's metadata as a pure state machine: a `Command` goes in, the `Image` and the object index change,
//! a `Response` comes out.
//!
//! Invariants: [`apply`] is deterministic and total. It reads no clock (time enters inside commands), draws no
//! random number, performs no I/O and never panics, whatever command was decoded. A rejected command changes
//! nothing but the count of applied commands. What a command may read or change is bounded.
//!
//! The image is held in memory and published; the index of ranges and objects grows with the data, so it lives in
//! the key-value store: `apply` reads it through [`IndexView`] and changes it by the [`IndexOp`]s that it returns.
//!
//! Nothing here may ever depend on how commands are replicated or stored.

mod apply;
mod command;
mod command_codec;
mod image;
mod image_codec;
mod index;
mod node;
mod node_codec;
mod placement_codec;
mod reject;

#[cfg(test)]
mod fixture_tests;
#[cfg(test)]
mod samples;

pub use apply::apply;
pub use command::{
    Assignment, Command, ConfigChange, ConfigResource, Endpoint, Holder, MergeInput, MergeOutput, QuotaChange,
    QuotaEntity, QuotaName, Range, Replica, TargetChange,
};
pub use image::{Broker, ClientQuotas, Image, Ledger, NamedConfigs, Partition, Topic};
pub use index::{IndexOp, IndexView, MemoryIndex, ObjectEntry, ObjectState, RangeEntry};
pub use node::{Node, NodeState, TokenHash};
pub use reject::{Reject, Response};

/// Bounds of what one command may hold, beside those of `base::limits`.
pub mod bounds {
    /// Objects named in one command.
    pub const COMMAND_OBJECTS_MAX: usize = 10_000;
    /// Ranges that one command takes out of the index; what is left stays in `Image::purge`.
    pub const PURGE_RANGES_MAX: usize = 4_096;
    /// Partitions whose ranges one command looks for while purging.
    pub const PURGE_PARTITIONS_MAX: usize = 1_024;
    /// Brokers that the cluster remembers; also nodes with a record.
    pub const BROKERS_MAX: usize = 1_024;
    /// Characters of the name of a node.
    pub const NODE_NAME_MAX: usize = 64;
    /// Bytes of the subject of a node's certificate, as text.
    pub const NODE_IDENTITY_BYTES_MAX: usize = 1_024;
    /// How long an invitation holds at most, in milliseconds.
    pub const INVITATION_MS_MAX: i64 = 30 * 24 * 60 * 60 * 1_000;
    /// Ledgers that are open or not uploaded yet.
    pub const LEDGERS_MAX: usize = 100_000;
    /// Replicas of one ledger.
    pub const LEDGER_REPLICAS_MAX: usize = 7;
    /// Listeners that one broker announces.
    pub const ENDPOINTS_MAX: usize = 16;
    /// Bytes of a host, a listener name, a version, or the name of a configuration key.
    pub const NAME_BYTES_MAX: usize = 255;
    /// Bytes of the value of a configuration key: the longest string of Kafka's older protocol versions.
    pub const CONFIG_VALUE_BYTES_MAX: usize = 32_767;
    /// Configuration keys set on one topic, one broker, or the cluster; also changes in one command per resource.
    pub const CONFIGS_MAX: usize = 512;
    /// Groups that have settings of their own; also subscriptions to clients' metrics.
    pub const CONFIG_RESOURCES_MAX: usize = 10_000;
    /// Entities that have a client quota.
    pub const QUOTA_ENTITIES_MAX: usize = 50_000;
    /// Quotas of one entity.
    pub const QUOTA_KEYS_MAX: usize = 16;
    /// Bytes of a user, a client id or a group in the metadata.
    pub const CLIENT_NAME_BYTES_MAX: usize = 4_096;
    /// Characters of a topic name (Kafka's limit).
    pub const TOPIC_NAME_MAX: usize = 249;
    /// Producer ids handed out in one block.
    pub const PRODUCER_IDS_MAX: u32 = 1_000_000;
}
