//! Answers other nodes about this node's copies.
//!
//! Only nodes reach it: the plane has checked who asks. Uploads are bounded in number, a sender's uploads are its own, and
//! one that nothing is heard of is removed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::base::NodeId;
use crate::base::limits::{STORE_UPLOADS_MAX, STORED_BYTES_MAX};
use crate::object::{Incoming, LocalError, LocalStore};
use crate::peer::{Answering, Caller, Refused, Service};

use super::wire::{Ask, Tell};

/// An upload without a further piece for so long is abandoned.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// See the module.
pub struct StoreService {
    local: Arc<LocalStore>,
    uploads: Arc<Uploads>,
}

/// Uploads of other nodes, by sender and its number for them. One is taken out while it is worked on.
#[derive(Default)]
struct Uploads(Mutex<HashMap<(NodeId, u64), (Instant, Incoming)>>);

impl Uploads {
    fn take(&self, whose: (NodeId, u64)) -> Option<Incoming> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&whose).map(|(_, incoming)| incoming)
    }

    /// False if there are too many; then it is dropped.
    fn keep(&self, whose: (NodeId, u64), incoming: Incoming) -> bool {
        let (mut uploads, now) = (self.0.lock().unwrap_or_else(PoisonError::into_inner), Instant::now());
        uploads.retain(|_, (last, _)| now.duration_since(*last) < IDLE_MAX);
        let room = uploads.len() < STORE_UPLOADS_MAX;
        if room {
            uploads.insert(whose, (now, incoming));
        }
        room
    }

    fn forget_idle(&self) {
        let (mut uploads, now) = (self.0.lock().unwrap_or_else(PoisonError::into_inner), Instant::now());
        uploads.retain(|_, (last, _)| now.duration_since(*last) < IDLE_MAX);
    }
}

impl StoreService {
    pub(super) fn new(local: Arc<LocalStore>) -> StoreService {
        StoreService { local, uploads: Arc::default() }
    }

    /// Answers one request. The work is on a blocking thread and goes on if the future is dropped.
    pub(super) async fn answer(&self, from: NodeId, request: Bytes) -> Result<Tell, Refused> {
        let ask = Ask::decode(request).map_err(|error| Refused(format!("a request that cannot be read: {error}")))?;
        let (local, uploads) = (self.local.clone(), self.uploads.clone());
        let done = tokio::task::spawn_blocking(move || perform(&local, &uploads, from, ask)).await;
        done.map_err(|_| Refused("this node stops".to_owned()))
    }

    /// Removes uploads that were abandoned.
    pub(super) fn clean(&self) {
        self.uploads.forget_idle();
    }
}

impl Service for StoreService {
    fn call(&self, from: &Caller, request: Bytes) -> Answering {
        let (node, service) = (from.node, StoreService { local: self.local.clone(), uploads: self.uploads.clone() });
        Box::pin(async move { service.answer(node, request).await.map(|tell| tell.encode().into()) })
    }
}

fn perform(local: &Arc<LocalStore>, uploads: &Uploads, from: NodeId, ask: Ask) -> Tell {
    let told = match ask {
        Ask::Piece { upload, position, bytes } => piece(local, uploads, (from, upload), position, &bytes),
        Ask::Commit { upload, key, bytes, digest } => match uploads.take((from, upload)) {
            Some(incoming) => incoming.commit(key, bytes, digest, false).map(|()| Tell::Done),
            None => Ok(lost()),
        },
        Ask::Read { key, from, bytes } => {
            local.read(key, from..from.saturating_add(bytes.into())).map(|(bytes, total)| Tell::Bytes { total, bytes })
        }
        Ask::Stat { key, digest: false } => local.bytes(key).map(|bytes| Tell::Stat { bytes, digest: None }),
        Ask::Stat { key, digest: true } => {
            local.sums(key).map(|sums| Tell::Stat { bytes: sums.bytes, digest: Some(sums.digest()) })
        }
        Ask::List { shelf, after, limit } => local
            .list(shelf, after, limit as usize)
            .map(|(copies, more)| Tell::Listed { complete: local.is_complete(), copies, more }),
        Ask::Delete { key } => local.delete(key).map(|_| Tell::Done),
    };
    told.unwrap_or_else(|error| tell_error(local, error))
}

fn lost() -> Tell {
    Tell::Failed { reason: "the upload is not known: it was abandoned, or this node has started anew".to_owned() }
}

fn piece(
    local: &Arc<LocalStore>,
    uploads: &Uploads,
    whose: (NodeId, u64),
    position: u64,
    bytes: &[Bytes],
) -> Result<Tell, LocalError> {
    let mut incoming = match uploads.take(whose) {
        // A sender that begins anew under a number means another upload.
        Some(incoming) if position != 0 => incoming,
        None if position != 0 => return Ok(lost()),
        _ => local.incoming()?,
    };
    let more: usize = bytes.iter().map(Bytes::len).sum();
    if incoming.bytes() != position || position.saturating_add(more as u64) > STORED_BYTES_MAX as u64 {
        return Ok(Tell::Failed { reason: "a piece of an upload does not follow the one before".to_owned() });
    }
    bytes.iter().try_for_each(|piece| incoming.append(piece))?;
    match uploads.keep(whose, incoming) {
        true => Ok(Tell::Done),
        false => Ok(Tell::Failed { reason: "too many uploads are under way".to_owned() }),
    }
}

fn tell_error(local: &LocalStore, error: LocalError) -> Tell {
    match error {
        LocalError::Missing => Tell::Missing { complete: local.is_complete() },
        LocalError::Damaged => Tell::Damaged,
        LocalError::Exists => Tell::Exists,
        LocalError::Short(bytes) => Tell::Short { bytes },
        error if error.is_full() => Tell::Full { reason: error.to_string() },
        LocalError::Garbled | LocalError::Fenced(_) | LocalError::Io { .. } => {
            Tell::Failed { reason: error.to_string() }
        }
    }
}
