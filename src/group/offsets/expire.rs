//! Expiry of offsets, and of groups that are empty and have none (KIP-211).
//!
//! Every `offsets.retention.check.interval.ms` a sweep goes over all groups, in steps of bounded size.

use std::time::Duration;

use crate::group::bounds;
use crate::group::call::{Call, GroupId};
use crate::group::coordinator::{Coordinator, Group};
use crate::group::offsets::Committed;

/// From when on the retention of a group's offsets counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::group) enum Expiry {
    /// Not at all: members may still need them.
    Never,
    /// From each commit on.
    SinceCommit,
    /// From this moment on (wall clock, milliseconds): when the group became empty.
    Since(i64),
}

impl Expiry {
    fn is_over(self, committed: &Committed, now_ms: i64, retention_ms: i64) -> bool {
        let base = match self {
            Expiry::Never => return false,
            Expiry::SinceCommit => committed.commit_ms,
            Expiry::Since(moment_ms) => moment_ms,
        };
        // An offset with a retention of its own, from before OffsetCommit v5, has its own end.
        match committed.expire_ms {
            -1 => now_ms.saturating_sub(base) >= retention_ms,
            expire_ms => now_ms >= expire_ms,
        }
    }
}

/// When the next sweep, or the next step of the one under way, is due.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::group) struct Sweep {
    pub at: Option<Duration>,
    /// The group to go on with; None: a new sweep begins.
    next: Option<GroupId>,
}

impl Coordinator {
    fn retention_check_interval(&self) -> Duration {
        Duration::from_millis(self.options.offsets_retention_check_interval_ms.max(1).unsigned_abs())
    }

    pub(in crate::group) fn schedule_sweep(&mut self, now: Duration) {
        self.sweep = Sweep { at: Some(now.saturating_add(self.retention_check_interval())), next: None };
    }

    /// One step. What is left is due at once.
    pub(in crate::group) fn sweep_step(&mut self, call: &mut Call<'_>) {
        let mut looked_at = 0;
        let mut cursor = match self.sweep.next.take() {
            Some(group) => Some(group),
            None => self.groups.keys().next().cloned(),
        };
        while let Some(id) = cursor {
            let bounded =
                looked_at >= bounds::STEP_OFFSETS_MAX || call.effects.records.len() >= bounds::STEP_RECORDS_MAX;
            if bounded {
                self.sweep = Sweep { at: Some(call.now.monotonic), next: Some(id) };
                call.effects.atomic = false;
                return;
            }
            let whole = self.sweep_group(call, &id, &mut looked_at);
            cursor = if whole { self.after(&id) } else { Some(id) };
        }
        call.effects.atomic = false;
        self.schedule_sweep(call.now.monotonic);
    }

    fn after(&self, id: &GroupId) -> Option<GroupId> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.groups.range((Excluded(id.clone()), Unbounded)).next().map(|(id, _)| id.clone())
    }

    /// False where the group holds more that is over than one step may write.
    fn sweep_group(&mut self, call: &mut Call<'_>, id: &GroupId, looked_at: &mut usize) -> bool {
        let Some(group) = self.groups.get(id) else { return true };
        *looked_at += 1;
        let expiry = group.expiry();
        let room = bounds::STEP_RECORDS_MAX.saturating_sub(call.effects.records.len());
        let mut over = vec![];
        let mut whole = true;
        if let Some(offsets) = self.offsets.groups.get(id).filter(|_| expiry != Expiry::Never) {
            for (topic, partitions) in &offsets.topics {
                *looked_at += partitions.len();
                if group.is_subscribed(topic) {
                    continue;
                }
                let open = offsets.open.get(topic);
                for (partition, committed) in partitions {
                    let is_open = open.is_some_and(|open| open.contains_key(partition));
                    if is_open || !expiry.is_over(committed, call.now.wall_ms, self.options.offsets_retention_ms) {
                        continue;
                    }
                    if over.len() == room {
                        whole = false;
                        break;
                    }
                    over.push((topic.clone(), *partition));
                }
            }
        }
        let may_go = match group {
            Group::Classic(group) => group.is_empty() && !group.has_pending(),
            Group::Consumer(group) => group.is_empty(),
        };
        for (topic, partition) in over {
            self.remove_offset(call, id, &topic, partition);
        }
        if may_go && !self.offsets.has_any(id) {
            self.remove_group(call, id);
        }
        whole
    }
}
