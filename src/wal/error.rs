//! What can go wrong, one type per operation.

use std::io;
use std::sync::Arc;

use crate::base::{EntryId, LedgerId};

use super::boot::OldCopy;

/// What can be done about a WAL that is not whole. Nothing in this release gives up records that only it holds.
pub const PUT_BACK: &str = "put the former folder wal back, or its disk, or a copy of its last state; if there is \
                            none, keep all that is left for recovery: no command of this release gives up what only \
                            the WAL has, and what was uploaded stays in object storage";

/// Why the WAL cannot be opened. Nothing was cut or overwritten when one of these is returned.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the WAL option {option} is {value}, {must}")]
    Options { option: &'static str, value: u64, must: &'static str },
    #[error("the WAL misses {what}: {remedy}")]
    Missing { what: String, remedy: &'static str },
    #[error(
        "{file} is damaged at byte {offset}: {detail}. It was synced once, so this is rot and no torn tail, and nothing \
         is cut: {back}",
        back = PUT_BACK
    )]
    Corrupt { file: String, offset: u64, detail: String },
    #[error("{file} was written by a later release (format {found}): start that release")]
    Version { file: String, found: u16 },
    #[error("{file} needs {feature}, which this release does not have: start the release that wrote it")]
    Unsupported { file: String, feature: &'static str },
    #[error("cannot use {file}: {source}")]
    Io { file: String, source: io::Error },
    #[cfg(feature = "failpoints")]
    #[error("CASEMATE_PLANT = {0:?} is no planted bug: set skip-sync, reply-before-sync or cut-below-watermark")]
    Plant(String),
}

/// What an append waits for when there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FullReason {
    /// Too many bytes wait for the disk: there is room again as soon as it has written some.
    Queue,
    /// The whole budget holds entries that are still needed: there is room after the next trim.
    Budget,
}

/// Why an entry was not taken. It is not in the WAL and never will be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    #[error("the WAL is full ({reason:?})")]
    Full { reason: FullReason },
    #[error("the WAL failed: {reason}")]
    Failed { reason: Arc<str> },
    #[error("the WAL is closed")]
    Closed,
    #[error("the ledger is sealed")]
    Sealed,
    #[error("only a sealed ledger takes a recoverer's copies")]
    NotSealed,
    #[error("the entry does not follow its ledger's last one: {expected} is next")]
    OutOfSequence { expected: EntryId },
    #[error("an entry of {bytes} bytes; at most {max} fit in a segment")]
    TooLarge { bytes: u64, max: u64 },
}

/// Why an entry cannot be read. What could not be verified is never returned.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("the segment was reused: the entry is in object storage")]
    Recycled,
    #[error("segment {segment} of the WAL is damaged at byte {offset}: {detail}")]
    Corrupt { segment: u64, offset: u64, detail: &'static str },
    #[error("cannot read the WAL: {0}")]
    Io(#[from] io::Error),
}

/// Why a seal has no answer. The ledger takes no entries from this process any more all the same.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SealError {
    #[error("the WAL failed before ledger {ledger} was sealed: {reason}")]
    Failed { ledger: LedgerId, reason: Arc<str> },
    #[error("the WAL was closed before ledger {0} was sealed")]
    Closed(LedgerId),
    #[error("ledger {ledger} is not sealed: {max} ledgers are, and the metadata have finished too few of them")]
    TooMany { ledger: LedgerId, max: usize },
}

/// Why a start is not recorded.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error(transparent)]
    OldCopy(#[from] OldCopy),
    #[error("the start cannot be recorded in the WAL's manifest: {0}")]
    Io(#[source] io::Error),
}
