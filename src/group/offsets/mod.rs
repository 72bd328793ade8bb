//! The committed offsets of all groups of a coordinator, and those that wait for the end of a transaction.
//!
//! Invariants: what is pending is not committed until its transaction commits, and then it counts as written where it
//! stands in the log: an offset that was committed later stays. `open` says, per partition, which transactions are
//! pending; it and `pending` always name the same. Entries without content are removed.

mod commit;
mod delete;
mod expire;
mod fetch;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::base::TopicId;
use crate::group::Producer;
use crate::group::call::GroupId;
use crate::group::records::OffsetValue;

pub(in crate::group) use expire::{Expiry, Sweep};

/// One committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::group) struct Committed {
    pub offset: i64,
    pub leader_epoch: i32,
    /// None where it is empty, which is nearly always.
    metadata: Option<Box<str>>,
    pub commit_ms: i64,
    /// −1: as the retention says.
    pub expire_ms: i64,
    pub topic_id: TopicId,
    /// Place in the log among the offsets of this coordinator.
    sequence: u64,
}

impl Committed {
    fn new(value: OffsetValue, sequence: u64) -> Self {
        Committed {
            offset: value.offset,
            leader_epoch: value.leader_epoch,
            metadata: (!value.metadata.is_empty()).then(|| value.metadata.into_boxed_str()),
            commit_ms: value.commit_timestamp,
            expire_ms: value.expire_timestamp,
            topic_id: value.topic_id,
            sequence,
        }
    }

    pub fn metadata(&self) -> &str {
        self.metadata.as_deref().unwrap_or_default()
    }
}

type Topic = Arc<str>;
/// Offsets of one transaction, by group, topic and partition.
type Pending = BTreeMap<(GroupId, Topic, i32), Box<Committed>>;

#[derive(Default)]
struct GroupOffsets {
    topics: BTreeMap<Topic, BTreeMap<i32, Box<Committed>>>,
    /// Producer ids of the transactions that have an offset of the partition pending.
    open: BTreeMap<Topic, BTreeMap<i32, BTreeSet<i64>>>,
}

#[derive(Default)]
pub(in crate::group) struct Offsets {
    groups: BTreeMap<GroupId, GroupOffsets>,
    /// By producer id: what its transaction commits.
    pending: BTreeMap<i64, Pending>,
    sequence: u64,
    /// Committed and pending offsets together.
    count: usize,
}

impl Offsets {
    /// Committed and pending offsets of all groups.
    pub fn count(&self) -> usize {
        self.count
    }

    pub fn get(&self, group: &str, topic: &str, partition: i32) -> Option<&Committed> {
        self.groups.get(group)?.topics.get(topic)?.get(&partition).map(|committed| &**committed)
    }

    /// A transaction that commits an offset of this partition is open.
    pub fn is_open(&self, group: &str, topic: &str, partition: i32) -> bool {
        let open = self.groups.get(group).and_then(|offsets| offsets.open.get(topic));
        open.is_some_and(|partitions| partitions.contains_key(&partition))
    }

    /// The group has committed offsets or an open transaction.
    pub fn has_any(&self, group: &str) -> bool {
        self.groups.contains_key(group)
    }

    /// Takes in an offset as it is, or will be, in the log: pending where it lies in a transaction.
    pub fn put(&mut self, group: &GroupId, topic: &str, partition: i32, value: OffsetValue, from: Option<Producer>) {
        let committed = Box::new(Committed::new(value, self.sequence));
        self.sequence += 1;
        let offsets = self.groups.entry(group.clone()).or_default();
        let Some(producer) = from else {
            let added = match offsets.topics.get_mut(topic) {
                Some(partitions) => partitions.insert(partition, committed).is_none(),
                None => offsets.topics.entry(topic.into()).or_default().insert(partition, committed).is_none(),
            };
            self.count += usize::from(added);
            return;
        };
        let topic = match offsets.open.get_key_value(topic) {
            Some((topic, _)) => topic.clone(),
            None => Topic::from(topic),
        };
        let open = offsets.open.entry(topic.clone()).or_default();
        open.entry(partition).or_default().insert(producer.id);
        let pending = self.pending.entry(producer.id).or_default();
        let added = pending.insert((group.clone(), topic, partition), committed).is_none();
        self.count += usize::from(added);
    }

    /// Takes out an offset, committed and pending, as its tombstone does.
    pub fn remove(&mut self, group: &str, topic: &str, partition: i32) {
        let Some(id) = self.groups.get_key_value(group).map(|(id, _)| id.clone()) else { return };
        let Some(offsets) = self.groups.get_mut(group) else { return };
        if let Some(partitions) = offsets.topics.get_mut(topic) {
            self.count -= usize::from(partitions.remove(&partition).is_some());
            if partitions.is_empty() {
                offsets.topics.remove(topic);
            }
        }
        let mut producers = BTreeSet::new();
        if let Some(partitions) = offsets.open.get_mut(topic) {
            producers = partitions.remove(&partition).unwrap_or_default();
            if partitions.is_empty() {
                offsets.open.remove(topic);
            }
        }
        if offsets.topics.is_empty() && offsets.open.is_empty() {
            self.groups.remove(group);
        }
        let key = (id, Topic::from(topic), partition);
        for producer in producers {
            let Some(pending) = self.pending.get_mut(&producer) else { continue };
            self.count -= usize::from(pending.remove(&key).is_some());
            if pending.is_empty() {
                self.pending.remove(&producer);
            }
        }
    }

    /// The transaction of this producer has ended: what it has pending is committed or dropped.
    pub fn end_transaction(&mut self, producer: i64, commit: bool) {
        for ((group, topic, partition), committed) in self.pending.remove(&producer).unwrap_or_default() {
            self.count -= 1;
            let Some(offsets) = self.groups.get_mut(&group) else { continue };
            if let Some(partitions) = offsets.open.get_mut(&topic) {
                if let Some(producers) = partitions.get_mut(&partition) {
                    producers.remove(&producer);
                    if producers.is_empty() {
                        partitions.remove(&partition);
                    }
                }
                if partitions.is_empty() {
                    offsets.open.remove(&topic);
                }
            }
            if commit {
                let partitions = offsets.topics.entry(topic).or_default();
                let newer = partitions.get(&partition).is_none_or(|present| present.sequence < committed.sequence);
                if newer {
                    self.count += usize::from(partitions.insert(partition, committed).is_none());
                }
            }
            if offsets.topics.is_empty() && offsets.open.is_empty() {
                self.groups.remove(&group);
            }
        }
    }

    /// Every partition of the group with an offset, committed or pending, once.
    pub fn partitions(&self, group: &str) -> Vec<(Topic, i32)> {
        let Some(offsets) = self.groups.get(group) else { return vec![] };
        let committed = offsets.topics.iter().flat_map(|(topic, ps)| ps.keys().map(|p| (topic.clone(), *p)));
        let open = offsets.open.iter().flat_map(|(topic, ps)| ps.keys().map(|p| (topic.clone(), *p)));
        let all: BTreeSet<(Topic, i32)> = committed.chain(open).collect();
        all.into_iter().collect()
    }
}

#[cfg(test)]
impl Offsets {
    /// All that must come back from the records, as text.
    pub fn dump(&self) -> Vec<String> {
        let mut lines = vec![];
        for (group, offsets) in &self.groups {
            for (topic, partitions) in &offsets.topics {
                for (partition, c) in partitions {
                    lines.push(format!("{group} {topic}-{partition}: {}", Self::text(c)));
                }
            }
            for (topic, partitions) in &offsets.open {
                for (partition, producers) in partitions {
                    lines.push(format!("{group} {topic}-{partition}: open in {producers:?}"));
                }
            }
        }
        for (producer, pending) in &self.pending {
            for ((group, topic, partition), c) in pending {
                lines.push(format!("{group} {topic}-{partition}: pending of {producer}: {}", Self::text(c)));
            }
        }
        lines
    }

    fn text(c: &Committed) -> String {
        let mut text = format!("{} epoch {} at {}", c.offset, c.leader_epoch, c.commit_ms);
        if !c.metadata().is_empty() {
            text += &format!(" {:?}", c.metadata());
        }
        if c.expire_ms != -1 {
            text += &format!(" until {}", c.expire_ms);
        }
        if !c.topic_id.is_zero() {
            text += &format!(" of {}", c.topic_id);
        }
        text
    }

    /// The two views of open transactions agree, nothing empty is kept, and the count is right.
    pub fn check(&self) {
        let mut open = BTreeSet::new();
        let mut count = 0;
        for (group, offsets) in &self.groups {
            assert!(!offsets.topics.is_empty() || !offsets.open.is_empty(), "{group} is kept without content");
            count += offsets.topics.values().map(|partitions| partitions.len()).sum::<usize>();
            for (topic, partitions) in &offsets.open {
                for (partition, producers) in partitions {
                    assert!(!producers.is_empty());
                    open.extend(producers.iter().map(|p| (*p, group.clone(), topic.clone(), *partition)));
                }
            }
        }
        let pending: BTreeSet<_> = self
            .pending
            .iter()
            .flat_map(|(producer, keys)| keys.keys().map(|(g, t, p)| (*producer, g.clone(), t.clone(), *p)))
            .collect();
        assert_eq!(open, pending);
        assert_eq!(self.count, count + pending.len());
    }
}
