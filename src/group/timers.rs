//! When each group next wants to be looked at: one entry a group, however many members and deadlines it has.
//!
//! A heartbeat only ever moves a deadline further away, so it does not come here at all: the group is looked at when
//! its old deadline passes, finds nothing due, and says anew when its next deadline is. An entry may therefore be too
//! early, never too late.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::group::call::GroupId;

#[derive(Default)]
pub(in crate::group) struct Timers {
    by_time: BTreeSet<(Duration, GroupId)>,
    by_group: BTreeMap<GroupId, Duration>,
}

impl Timers {
    /// The group wants to be looked at no later than `at`.
    pub fn no_later(&mut self, group: &GroupId, at: Duration) {
        match self.by_group.get_mut(group) {
            Some(set) if *set <= at => return,
            Some(set) => {
                self.by_time.remove(&(*set, group.clone()));
                *set = at;
            }
            None => {
                self.by_group.insert(group.clone(), at);
            }
        }
        self.by_time.insert((at, group.clone()));
    }

    pub fn forget(&mut self, group: &str) {
        if let Some((group, at)) = self.by_group.remove_entry(group) {
            self.by_time.remove(&(at, group));
        }
    }

    pub fn next(&self) -> Option<Duration> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// When this group is looked at next.
    #[cfg(test)]
    pub fn of(&self, group: &str) -> Option<Duration> {
        self.by_group.get(group).copied()
    }

    /// Takes out a group whose time has come; it is asked for its next deadline afterwards.
    pub fn due(&mut self, now: Duration) -> Option<GroupId> {
        if self.next()? > now {
            return None;
        }
        let (_, group) = self.by_time.pop_first()?;
        self.by_group.remove(&group);
        Some(group)
    }
}
