//! One other node's copies, as this node asks for them.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::base::NodeId;
use crate::base::limits::{STORE_LIST_MAX, STORE_PIECE_BYTES};
use crate::object::{Listed, Shelf, StoredKey, Sums};

use super::transport::Transport;
use super::wire::{Ask, Tell};

/// For an answer that costs the other node a little reading.
const ANSWER_WITHIN: Duration = Duration::from_secs(4);
/// For one that costs a sync, or reading a whole object.
const WORK_WITHIN: Duration = Duration::from_secs(15);
/// Pages of one listing.
const PAGES_MAX: usize = 1000;

/// Why the other node's copy does not do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RemoteError {
    #[error("it has no copy")]
    Missing { complete: bool },
    #[error("it has other content under the key")]
    Exists,
    #[error("its copy is damaged")]
    Damaged,
    #[error("its copy has {0} bytes")]
    Short(u64),
    #[error("its disk is full: {0}")]
    Full(String),
    #[error("{0}")]
    Away(String),
}

/// Another node.
#[derive(Clone)]
pub struct Remote {
    pub node: NodeId,
    pub transport: Arc<dyn Transport>,
}

impl Remote {
    async fn ask(&self, ask: Ask, within: Duration) -> Result<Tell, RemoteError> {
        let answer = self.transport.call(self.node, ask.encode(), within).await.map_err(RemoteError::Away)?;
        match Tell::decode(answer) {
            Ok(Tell::Missing { complete }) => Err(RemoteError::Missing { complete }),
            Ok(Tell::Exists) => Err(RemoteError::Exists),
            Ok(Tell::Damaged) => Err(RemoteError::Damaged),
            Ok(Tell::Short { bytes }) => Err(RemoteError::Short(bytes)),
            Ok(Tell::Full { reason }) => Err(RemoteError::Full(reason)),
            Ok(Tell::Failed { reason }) => Err(RemoteError::Away(format!("node {}: {reason}", self.node))),
            Ok(tell) => Ok(tell),
            Err(error) => Err(RemoteError::Away(format!("node {} answers what cannot be read: {error}", self.node))),
        }
    }

    fn other<T>(&self) -> Result<T, RemoteError> {
        Err(RemoteError::Away(format!("node {} answers something else than was asked", self.node)))
    }

    /// Stores a copy there; `upload` is a number that this node uses once.
    pub async fn put(&self, upload: u64, key: StoredKey, pieces: &[Bytes], sums: &Sums) -> Result<(), RemoteError> {
        let mut position = 0;
        for bytes in messages(pieces) {
            let next = position + bytes.iter().map(|piece| piece.len() as u64).sum::<u64>();
            match self.ask(Ask::Piece { upload, position, bytes }, WORK_WITHIN).await? {
                Tell::Done => position = next,
                _ => return self.other(),
            }
        }
        let commit = Ask::Commit { upload, key, bytes: sums.bytes, digest: sums.digest() };
        match self.ask(commit, WORK_WITHIN).await? {
            Tell::Done => Ok(()),
            _ => self.other(),
        }
    }

    /// The bytes of a range and the length of the whole. Memory grows with what has arrived.
    pub async fn read(&self, key: StoredKey, range: Range<u64>) -> Result<(Bytes, u64), RemoteError> {
        let mut whole = BytesMut::new();
        loop {
            let from = range.start + whole.len() as u64;
            let (part, total) = self.read_piece(key, from..range.end).await?;
            if whole.is_empty() && from + part.len() as u64 == range.end {
                return Ok((part, total));
            }
            whole.extend_from_slice(&part);
            if range.start + whole.len() as u64 == range.end {
                return Ok((whole.freeze(), total));
            }
        }
    }

    /// As much of the front of a range as one message carries; at least one byte.
    pub async fn read_piece(&self, key: StoredKey, range: Range<u64>) -> Result<(Bytes, u64), RemoteError> {
        let wanted = range.end.saturating_sub(range.start).min(STORE_PIECE_BYTES as u64);
        match self.ask(Ask::Read { key, from: range.start, bytes: wanted as u32 }, ANSWER_WITHIN).await? {
            Tell::Bytes { total, bytes } if bytes.len() as u64 == wanted && wanted > 0 => Ok((bytes, total)),
            _ => self.other(),
        }
    }

    pub async fn bytes(&self, key: StoredKey) -> Result<u64, RemoteError> {
        match self.ask(Ask::Stat { key, digest: false }, ANSWER_WITHIN).await? {
            Tell::Stat { bytes, .. } => Ok(bytes),
            _ => self.other(),
        }
    }

    /// Length and digest of a copy that was checked once.
    pub async fn digest(&self, key: StoredKey) -> Result<(u64, u32), RemoteError> {
        match self.ask(Ask::Stat { key, digest: true }, WORK_WITHIN).await? {
            Tell::Stat { bytes, digest: Some(digest) } => Ok((bytes, digest)),
            _ => self.other(),
        }
    }

    /// All copies of a shelf, and whether the node once had everything that belongs on it.
    pub async fn list(&self, shelf: Shelf) -> Result<(Vec<Listed>, bool), RemoteError> {
        let mut found: Vec<Listed> = Vec::new();
        for _ in 0..PAGES_MAX {
            let ask = Ask::List { shelf, after: found.last().map(|copy| copy.key), limit: STORE_LIST_MAX as u32 };
            let Tell::Listed { complete, copies, more } = self.ask(ask, ANSWER_WITHIN).await? else {
                return self.other();
            };
            let last = found.last().map(|copy| copy.key);
            let keys = last.into_iter().chain(copies.iter().map(|copy| copy.key));
            if !keys.is_sorted_by(|a, b| a < b) || (more && copies.is_empty()) {
                return self.other();
            }
            found.extend(copies);
            if !more {
                return Ok((found, complete));
            }
        }
        self.other()
    }

    pub async fn delete(&self, key: StoredKey) -> Result<(), RemoteError> {
        match self.ask(Ask::Delete { key }, ANSWER_WITHIN).await? {
            Tell::Done => Ok(()),
            _ => self.other(),
        }
    }
}

/// The pieces regrouped into messages; one empty message for nothing.
fn messages(pieces: &[Bytes]) -> Vec<Vec<Bytes>> {
    let mut messages = vec![Vec::new()];
    let mut room = STORE_PIECE_BYTES;
    for piece in pieces {
        let mut rest = piece.clone();
        while !rest.is_empty() {
            if room == 0 {
                messages.push(Vec::new());
                room = STORE_PIECE_BYTES;
            }
            let part = rest.split_to(rest.len().min(room));
            room -= part.len();
            if let Some(message) = messages.last_mut() {
                message.push(part);
            }
        }
    }
    messages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_hold_all_bytes_in_order_within_their_bound() {
        let pieces: Vec<Bytes> =
            [0, 5, STORE_PIECE_BYTES, 1, 2 * STORE_PIECE_BYTES + 3].map(|n| Bytes::from(vec![n as u8; n])).into();
        let messages = messages(&pieces);
        assert_eq!(messages.iter().flatten().flat_map(|piece| piece.to_vec()).collect::<Vec<_>>(), pieces.concat());
        let sizes: Vec<usize> = messages.iter().map(|m| m.iter().map(Bytes::len).sum()).collect();
        assert_eq!(sizes, [STORE_PIECE_BYTES, STORE_PIECE_BYTES, STORE_PIECE_BYTES, 9]);
        assert_eq!(super::messages(&[]).len(), 1);
    }
}
