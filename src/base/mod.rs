//! Vocabulary shared by every layer: identifiers, offsets, limits, checksums and the byte codec of
//! everything that is stored.
//!
//! Nothing here performs I/O, reads a clock or knows about a protocol.

pub mod checksum;
pub mod codec;
pub mod ids;
pub mod limits;

pub use ids::{
    BrokerEpoch, ClusterId, DirectoryId, EntryId, LeaderEpoch, LedgerId, NodeId, ObjectId, Offset, PartitionId,
    ProducerId, TopicId, WalIncarnation,
};
