//! Identifiers and positions as unrelated types, so that one is never passed for another.
//!
//! A Kafka offset, a ledger entry and a Raft index are all counters; mixing them loses data.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

macro_rules! newtype {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

newtype!(
    /// A server of the cluster; Kafka's `node.id` and `broker.id`.
    NodeId(i32)
);
newtype!(
    /// One metadata folder of one node, drawn at random when it is made (KIP-853's directory id, in 32 bits). A node that
    /// lost its folder gets another one, and with it another name as a voter: it cannot vote twice. Zero is the folder
    /// of a node made before folders had an id.
    DirectoryId(u32)
);
newtype!(
    /// One incarnation of one broker process, issued by the metadata quorum; strictly increasing.
    BrokerEpoch(i64)
);
newtype!(
    /// One ledger: the WAL of one broker incarnation in its replicated form. Never reused.
    LedgerId(u64)
);
newtype!(
    /// Position of an entry in its ledger: 0, 1, 2 … without gaps.
    EntryId(u64)
);
newtype!(
    /// An object in object storage. Never reused, so no key is ever written twice.
    ObjectId(u64)
);
newtype!(
    /// Offset of a record in its partition, as Kafka counts it.
    Offset(i64)
);
newtype!(
    /// Leader epoch of a partition (KIP-101).
    LeaderEpoch(i32)
);
newtype!(
    /// Producer id (KIP-98); −1 is "none".
    ProducerId(i64)
);

impl Offset {
    pub const ZERO: Offset = Offset(0);

    /// The offset `count` records further on.
    pub fn plus(self, count: i64) -> Offset {
        Offset(self.0.saturating_add(count))
    }
}

impl EntryId {
    pub fn next(self) -> EntryId {
        EntryId(self.0 + 1)
    }
}

impl ProducerId {
    pub const NONE: ProducerId = ProducerId(-1);
}

fn write_base64(bytes: &[u8; 16], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
}

fn parse_base64(text: &str) -> Option<[u8; 16]> {
    URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
}

macro_rules! uuid_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            /// Reads the 22 characters of unpadded base64url that Kafka prints for a UUID.
            pub fn parse(text: &str) -> Option<Self> {
                parse_base64(text).map($name)
            }

            pub fn is_zero(&self) -> bool {
                self.0 == [0; 16]
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_base64(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_base64(&self.0, f)
            }
        }
    };
}

uuid_type!(
    /// Identity of a topic for its whole life (KIP-516): a topic made again under its old name is another one.
    TopicId
);
uuid_type!(
    /// Identity of the cluster, made by `casemate init`.
    ClusterId
);
uuid_type!(
    /// Random identity of one WAL folder, made with it. Another incarnation under the same node id holds nothing
    /// of what the first one acknowledged.
    WalIncarnation
);

/// A partition by topic identity, never by name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct PartitionId {
    pub topic: TopicId,
    pub index: i32,
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_id_prints_as_kafka_prints_it() {
        let id = TopicId([0; 16]);
        assert_eq!(id.to_string(), "AAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(TopicId::parse("AAAAAAAAAAAAAAAAAAAAAA"), Some(id));
        assert_eq!(TopicId::parse("short"), None);
    }
}
