//! Bugs planted on purpose, one way of losing records each, which the model must find. In anything but the unit tests
//! there is none, and the branches on them disappear.

/// One rule of the protocol, broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bug {
    /// The writer calls an entry durable with one copy less than the write quorum.
    AckBeforeQuorum,
    /// A replica answers for entries that it has not synced.
    SkipSync,
    /// A sealed replica goes on taking the writer's entries.
    SealNotOneWay,
    /// A seal is answered before it is on disk, and a restart forgets it.
    SealForgotten,
    /// A start cuts an entry that was synced, and is not uncertain about it.
    CutBelowWatermark,
    /// A recoverer is content with one sealed replica less.
    SealQuorumTooSmall,
    /// A replica trims what its writer calls durable, before an upload of it is committed.
    TrimBeforeCommit,
    /// After a replacement the numbers of the new ledger begin with the next append, not with what was not durable.
    EntryReused,
    /// A replica counts although the disk that had its entries is gone: incarnations are not compared.
    IncarnationIgnored,
    /// An older copy of a WAL counts: boot counts are not compared.
    BootIgnored,
    /// A recoverer sets the end without copying what only one replica may hold.
    RecoveryDoesNotCopy,
    /// A recoverer counts an uncertain replica like any other.
    UncertainCounts,
    /// A replica announces a recoverer's copies to the writer, which counts them.
    CopyCounts,
    /// The metadata take another end for a ledger that has one.
    EndSetTwice,
    /// The writer goes on making entries of the old ledger durable while its end is being decided.
    AckWhileClosing,
}

/// At most one planted bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Plant {
    #[cfg(test)]
    pub bug: Option<Bug>,
}

impl Plant {
    #[cfg(test)]
    pub fn of(bug: Bug) -> Plant {
        Plant { bug: Some(bug) }
    }

    #[cfg(test)]
    pub fn has(self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    #[cfg(not(test))]
    pub fn has(self, _: Bug) -> bool {
        false
    }
}
