//! Reads of held entries, for other nodes and for this one: on blocking threads, checked, under a budget of their own.

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::spawn_blocking;

use crate::base::limits::{LEDGER_MESSAGE_ENTRIES_MAX, LEDGER_READ_BYTES_MAX};
use crate::base::{EntryId, LedgerId};
use crate::peer::{Answering, Refused};
use crate::wal::{Location, ReadError, Wal};

use super::super::wire::{Payload, Read, ReadAnswer};
use super::{Host, READ_UNIT_BYTES, State};

/// Why held entries cannot be read: the disk, or rot. Others may have them.
#[derive(Debug, thiserror::Error)]
#[error("entry {entry} of ledger {ledger} cannot be read here: {source}")]
pub struct ReadFailed {
    pub ledger: LedgerId,
    pub entry: EntryId,
    pub source: ReadError,
}

/// Places of entries that follow one another.
struct Places {
    ledger: LedgerId,
    first: EntryId,
    places: Vec<Location>,
    /// Of all payloads.
    bytes: usize,
}

impl Host {
    pub(super) fn serve_read(self: &Arc<Self>, message: &[u8]) -> Answering {
        let read = Read::decode(message).map_err(|error| Refused(format!("the read cannot be read: {error}")));
        let host = Arc::clone(self);
        Box::pin(async move {
            let answer = host.read(read?).await.map_err(|error| {
                tracing::error!(%error, "a held entry could not be read for another node");
                Refused(error.to_string())
            })?;
            Ok(answer.encode())
        })
    }

    /// Reads entries `from..below`, as many as fit in `max_bytes`, but at least one.
    pub async fn read_local(
        &self,
        ledger: LedgerId,
        from: EntryId,
        below: EntryId,
        max_bytes: usize,
    ) -> Result<ReadAnswer, ReadFailed> {
        let max_bytes = max_bytes.min(LEDGER_READ_BYTES_MAX) as u32;
        self.read(Read { to: self.identity.incarnation, ledger, from, below, max_bytes }).await
    }

    pub(super) async fn read(&self, read: Read) -> Result<ReadAnswer, ReadFailed> {
        if read.to != self.identity.incarnation {
            return Ok(ReadAnswer::Unknown);
        }
        let places = self.lock().places(&read);
        let places = match places {
            Ok(places) => places,
            Err(not_held) => return Ok(not_held),
        };
        let units = places.bytes.div_ceil(READ_UNIT_BYTES) as u32;
        let permit = Arc::clone(&self.reads).acquire_many_owned(units).await;
        let (wal, first) = (Arc::clone(&self.wal), places.first);
        let payloads = spawn_blocking(move || {
            // Held until the read ends, whether anybody waits for it or not.
            let _permit = permit;
            read_all(&wal, &places)
        })
        .await;
        match payloads {
            Ok(Ok(payloads)) => Ok(ReadAnswer::Entries { first, payloads }),
            // Uploaded and trimmed since it was looked up.
            Ok(Err(ReadFailed { source: ReadError::Recycled, .. })) | Err(_) => Ok(self.lock().not_held(read.ledger)),
            Ok(Err(failed)) => Err(failed),
        }
    }
}

impl State {
    fn not_held(&self, ledger: LedgerId) -> ReadAnswer {
        let (first, next) = self.index.span(ledger).unwrap_or_default();
        ReadAnswer::NotHeld { first, next }
    }

    fn places(&self, read: &Read) -> Result<Places, ReadAnswer> {
        let mut places = Places { ledger: read.ledger, first: read.from, places: Vec::new(), bytes: 0 };
        for entry in (read.from.0..read.below.0).map(EntryId).take(LEDGER_MESSAGE_ENTRIES_MAX) {
            let Some(location) = self.index.location(read.ledger, entry) else { break };
            let bytes = places.bytes + location.len as usize;
            if !places.places.is_empty() && bytes > read.max_bytes as usize {
                break;
            }
            places.bytes = bytes;
            places.places.push(location);
        }
        if places.places.is_empty() { Err(self.not_held(read.ledger)) } else { Ok(places) }
    }
}

fn read_all(wal: &Wal, places: &Places) -> Result<Vec<Payload>, ReadFailed> {
    let Places { ledger, first, places, .. } = places;
    let mut payloads = Vec::with_capacity(places.len());
    for (entry, location) in (first.0..).map(EntryId).zip(places) {
        let failed = |source| ReadFailed { ledger: *ledger, entry, source };
        let bytes: Bytes = wal.read(*location).map_err(failed)?;
        let (segment, offset) = (location.segment, location.offset);
        let short = ReadError::Corrupt { segment, offset, detail: "too short for an entry" };
        payloads.push(Payload::from_contiguous(bytes).ok_or(short).map_err(failed)?);
    }
    Ok(payloads)
}
