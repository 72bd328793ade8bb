//! Responses as ropes of shared bytes, ready for vectored writes.
//!
//! Ordinary responses are one piece that kafka-protocol encodes; a Fetch response is many, of which the record
//! batches are the bytes that came from memory, disk or bucket, never copied ([`fetch`]).

pub mod fetch;
#[cfg(test)]
mod fetch_tests;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::ApiKey;
use kafka_protocol::protocol::Encodable;

use super::request::ReplyTo;

/// Bytes before every response.
pub(super) const LENGTH_PREFIX_BYTES: usize = 4;

/// Why a response cannot be encoded. Always a fault of ours: a field set that the version does not have, or a
/// response over 2 GiB.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    #[error("{api:?} version {version} response cannot be encoded: {reason}")]
    Refused { api: ApiKey, version: i16, reason: String },
    #[error("{api:?} version {version} response of {bytes} bytes is over the 2 GiB that a frame can have")]
    TooLong { api: ApiKey, version: i16, bytes: usize },
}

/// Bytes in pieces. Cloning shares the pieces.
#[derive(Debug, Clone, Default)]
pub struct Rope {
    pieces: Vec<Bytes>,
    len: usize,
}

impl Rope {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn with_capacity(pieces: usize) -> Self {
        Rope { pieces: Vec::with_capacity(pieces), len: 0 }
    }

    /// Appends a piece; an empty one is left out.
    pub fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.len += piece.len();
            self.pieces.push(piece);
        }
    }

    /// Bytes of all pieces.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn pieces(&self) -> &[Bytes] {
        &self.pieces
    }

    pub fn into_pieces(self) -> Vec<Bytes> {
        self.pieces
    }

    /// All in one piece: a copy, for tests and tools.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.len);
        self.pieces.iter().for_each(|piece| out.put_slice(piece));
        out.freeze()
    }
}

impl From<Bytes> for Rope {
    fn from(piece: Bytes) -> Self {
        let mut rope = Rope::with_capacity(1);
        rope.push(piece);
        rope
    }
}

/// Encodes a response with its length and header.
pub fn response(to: ReplyTo, body: &impl Encodable) -> Result<Rope, EncodeError> {
    let refused = |e: &dyn std::fmt::Display| EncodeError::Refused {
        api: to.api.key,
        version: to.version,
        reason: e.to_string(),
    };
    let size = body.compute_size(to.version).map_err(|e| refused(&e))?;
    // Before the memory for it is taken.
    frame_length(to, LENGTH_PREFIX_BYTES + response_header_bytes(to) + size)?;
    let mut out = BytesMut::with_capacity(LENGTH_PREFIX_BYTES + response_header_bytes(to) + size);
    out.put_i32(0);
    put_response_header(&mut out, to);
    body.encode(&mut out, to.version).map_err(|e| refused(&e))?;
    let length = frame_length(to, out.len())?;
    out[..LENGTH_PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
    Ok(Rope::from(out.freeze()))
}

/// The value of the length prefix of a response that is `total` bytes long with it.
fn frame_length(to: ReplyTo, total: usize) -> Result<i32, EncodeError> {
    i32::try_from(total - LENGTH_PREFIX_BYTES).map_err(|_| EncodeError::TooLong {
        api: to.api.key,
        version: to.version,
        bytes: total,
    })
}

fn has_tagged_header(to: ReplyTo) -> bool {
    to.api.key.response_header_version(to.version) >= 1
}

pub(super) fn response_header_bytes(to: ReplyTo) -> usize {
    4 + usize::from(has_tagged_header(to))
}

/// Correlation id, and in flexible versions no tagged fields. ApiVersions always has the short form (KIP-511).
fn put_response_header(out: &mut BytesMut, to: ReplyTo) {
    out.put_i32(to.correlation_id);
    if has_tagged_header(to) {
        out.put_u8(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::versions::Api;
    use kafka_protocol::messages::DescribeGroupsResponse;
    use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};

    #[test]
    fn an_answer_that_no_frame_can_have_takes_no_memory() {
        let member = DescribedGroupMember::default().with_member_metadata(Bytes::from(vec![0; 64 << 20]));
        let group = DescribedGroup::default().with_members(vec![member; 40]);
        let api = Api::find(ApiKey::DescribeGroups as i16).expect("it is answered");
        let to = ReplyTo { api, version: 5, correlation_id: 1 };
        let refused = response(to, &DescribeGroupsResponse::default().with_groups(vec![group]));
        assert!(matches!(refused, Err(EncodeError::TooLong { bytes, .. }) if bytes > 40 * (64 << 20)));
    }
}
