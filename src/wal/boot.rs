//! How often this folder was started, so that an older copy of it cannot pose as the newest.
//!
//! A start proposes one boot more than the last that was accepted, and records both: what it proposes before it asks,
//! what was accepted before this process says anything about a ledger. A process that died in between finds its own
//! proposal recorded by the metadata, and knows it.

use std::io;

use crate::base::BrokerEpoch;

use super::Wal;
use super::error::RecordError;
use super::files::is_full;
use super::state::lock;

/// What the manifest keeps of the starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Boots {
    /// The last that the metadata accepted, 0 before the first; `None` in a folder of a release that did not record it.
    pub accepted: Option<u64>,
    /// The last that was proposed.
    pub proposed: u64,
    /// What the metadata gave for the accepted one.
    pub epoch: BrokerEpoch,
}

/// The folder was started less often than the metadata have seen it start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the folder wal is an old copy: it was started {stored} times, and the metadata have recorded start {recorded}; put \
     the folder of the last start back"
)]
pub struct OldCopy {
    pub stored: u64,
    pub recorded: u64,
}

impl Boots {
    pub fn new() -> Boots {
        Boots { accepted: Some(0), ..Boots::unknown() }
    }

    pub fn unknown() -> Boots {
        Boots { accepted: None, proposed: 0, epoch: BrokerEpoch(0) }
    }

    fn next(&self, recorded: Option<u64>) -> Result<u64, OldCopy> {
        let known = recorded.unwrap_or(0);
        match self.accepted {
            Some(stored) if known > stored && known != self.proposed => Err(OldCopy { stored, recorded: known }),
            Some(stored) => Ok(stored.max(known).saturating_add(1)),
            None => Ok(known.saturating_add(1)),
        }
    }
}

impl Wal {
    /// The boot count of the last start that the metadata accepted; 0 before the first.
    pub fn boot(&self) -> u64 {
        lock(&self.shared.manifest).boots.accepted.unwrap_or(0)
    }

    /// The broker epoch of that start.
    pub fn broker_epoch(&self) -> BrokerEpoch {
        lock(&self.shared.manifest).boots.epoch
    }

    /// The boot count to register with, recorded as proposed. `recorded` is what the metadata have for this incarnation.
    /// Blocks until it is safe.
    pub fn next_boot(&self, recorded: Option<u64>) -> Result<u64, RecordError> {
        let boot = lock(&self.shared.manifest).boots.next(recorded)?;
        let accepted = recorded.unwrap_or(0);
        self.record(|boots| {
            // The metadata have accepted it, whether the process that proposed it lived to hear that or not.
            boots.accepted = Some(boots.accepted.unwrap_or(0).max(accepted));
            boots.proposed = boot;
        })?;
        Ok(boot)
    }

    /// The metadata have accepted this boot, and given the process this epoch. Blocks until that is safe; only then may
    /// the process answer for any ledger.
    pub fn registered(&self, epoch: BrokerEpoch, boot: u64) -> Result<(), RecordError> {
        self.record(|boots| *boots = Boots { accepted: Some(boot), proposed: boot, epoch })
    }

    fn record(&self, change: impl FnOnce(&mut Boots)) -> Result<(), RecordError> {
        let saved = self.shared.save_manifest(None, |manifest| change(&mut manifest.boots));
        saved.map_err(|error: io::Error| {
            if !is_full(&error) {
                self.shared.latch(&format!("cannot record the start: {error}"));
            }
            RecordError::Io(error)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_copy_is_told_from_a_start_that_died_half_way() {
        let boots = Boots { accepted: Some(4), proposed: 5, epoch: BrokerEpoch(9) };
        assert_eq!(boots.next(Some(4)), Ok(5), "the usual start");
        assert_eq!(boots.next(Some(5)), Ok(6), "its registration was accepted, and it died before it heard");
        assert_eq!(boots.next(Some(6)), Err(OldCopy { stored: 4, recorded: 6 }));
        assert_eq!(boots.next(Some(3)), Ok(5), "the metadata are older");
        assert_eq!(boots.next(None), Ok(5), "the metadata do not know the folder");
        assert_eq!(Boots::new().next(None), Ok(1));
        assert_eq!(Boots::new().next(Some(1)), Err(OldCopy { stored: 0, recorded: 1 }), "a copy of the first moment");
        assert_eq!(Boots::unknown().next(Some(7)), Ok(8), "a folder of an earlier release");
    }
}
