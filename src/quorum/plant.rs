//! Bugs planted on purpose, which the simulation must find. In anything but the unit tests there is none, and the branches
//! on them disappear.

/// One rule of the quorum, broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bug {
    /// A vote is answered before it is on the disk.
    VoteNotSynced,
    /// Log entries are acknowledged before they are on the disk.
    AppendNotSynced,
    /// A node that lost its folder answers in the name that it had before.
    AnyFolderAnswers,
    /// The leader names the index of another node's commands before they are committed there.
    AnswerBeforeCommit,
    /// A leader says how far everything stands without asking a majority whether it still leads.
    BarrierUnconfirmed,
    /// A leader that is one again after a restart takes what it has applied for all that was answered.
    ResumedUnaware,
    /// Commands of which it is not known whether they were carried out are proposed again.
    UnknownRepeated,
    /// A start applies the commands of a group again that it had applied before.
    ReplayedTwice,
    /// A leader takes what it knew a moment ago for what it knows now, when it is asked whether it leads.
    LeadsByOldMetrics,
    /// The outcome of another node's commands is unknown to the leader, which calls them refused.
    RefusedThoughUnknown,
}

#[cfg(test)]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Plants at most one bug in everything that runs on this thread.
#[cfg(test)]
pub(super) fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

#[cfg(test)]
pub(super) fn has(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

#[cfg(not(test))]
pub(super) fn has(_: Bug) -> bool {
    false
}
