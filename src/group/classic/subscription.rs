//! What can be read of the opaque bytes of the consumers' embedded protocol: the topics that members subscribe to.

use std::collections::BTreeSet;

use crate::base::codec::{DecodeError, Reader};
use crate::group::classic::ClassicGroup;

/// The protocol type of consumers.
pub(in crate::group) const PROTOCOL_TYPE: &str = "consumer";

/// The topics at the front of a ConsumerProtocolSubscription, which all versions share.
fn topics_of(metadata: &[u8]) -> Result<Vec<Box<str>>, DecodeError> {
    let mut reader = Reader::new(metadata);
    let version = reader.i16()?;
    if version < 0 {
        return Err(DecodeError::Invalid { field: "version of a subscription", value: 0 });
    }
    // Each topic has a length of two bytes at least.
    let count = reader.count(2)?;
    let mut topics = Vec::new();
    for _ in 0..count {
        let length = usize::try_from(reader.i16()?);
        let length = length.map_err(|_| DecodeError::Invalid { field: "length of a topic", value: 0 })?;
        let name = std::str::from_utf8(reader.raw(length)?).map_err(|_| DecodeError::Utf8("topic"))?;
        topics.push(name.into());
    }
    Ok(topics)
}

impl ClassicGroup {
    /// None where the group is not of consumers, or the subscription of a member cannot be read.
    pub(super) fn subscriptions(&self) -> Option<BTreeSet<Box<str>>> {
        if !self.is_consumers() {
            return None;
        }
        if self.members.is_empty() {
            return Some(BTreeSet::new());
        }
        let protocol = self.protocol.as_deref()?;
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            topics.extend(topics_of(&member.metadata(Some(protocol))).ok()?);
        }
        Some(topics)
    }
}
