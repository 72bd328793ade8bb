//! Sets of partitions by topic, small enough to be kept for every member.
//!
//! A member holds a handful of topics, so a sorted vector takes a tenth of what a tree would. Invariant: topics
//! ascend and occur once; partitions ascend and occur once; no topic has an empty set in a [`Partitions`] or an
//! [`Assigned`] that this module made.

use crate::base::TopicId;

/// A map from topic id to `V`, sorted by topic id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicMap<V>(Vec<(TopicId, V)>);

/// Partition indexes by topic.
pub type Partitions = TopicMap<Vec<i32>>;

/// Partition indexes by topic, each with the epoch at which it was assigned to its member (KIP-1251): `(index, epoch)`.
pub type Assigned = TopicMap<Vec<(i32, i32)>>;

impl<V> Default for TopicMap<V> {
    fn default() -> Self {
        TopicMap(Vec::new())
    }
}

impl<V> TopicMap<V> {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn get(&self, topic: TopicId) -> Option<&V> {
        self.position(topic).ok().map(|at| &self.0[at].1)
    }

    pub fn contains(&self, topic: TopicId) -> bool {
        self.position(topic).is_ok()
    }

    pub fn insert(&mut self, topic: TopicId, value: V) {
        match self.position(topic) {
            Ok(at) => self.0[at].1 = value,
            Err(at) => self.0.insert(at, (topic, value)),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (TopicId, &V)> {
        self.0.iter().map(|(topic, value)| (*topic, value))
    }

    pub fn topics(&self) -> impl Iterator<Item = TopicId> {
        self.0.iter().map(|(topic, _)| *topic)
    }

    fn position(&self, topic: TopicId) -> Result<usize, usize> {
        self.0.binary_search_by_key(&topic, |(id, _)| *id)
    }
}

impl<V: Default> TopicMap<V> {
    /// The value of a topic, made by default when it is missing.
    pub fn entry(&mut self, topic: TopicId) -> &mut V {
        let at = match self.position(topic) {
            Ok(at) => at,
            Err(at) => {
                self.0.insert(at, (topic, V::default()));
                at
            }
        };
        &mut self.0[at].1
    }
}

impl Partitions {
    #[cfg(test)]
    pub fn has(&self, topic: TopicId, partition: i32) -> bool {
        self.get(topic).is_some_and(|set| set.binary_search(&partition).is_ok())
    }

    /// Number of partitions over all topics.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.0.iter().map(|(_, set)| set.len()).sum()
    }

    /// From lists that may repeat topics and partitions and be empty.
    pub fn collect(lists: impl IntoIterator<Item = (TopicId, Vec<i32>)>) -> Self {
        let mut out = Partitions::new();
        for (topic, mut partitions) in lists {
            if partitions.is_empty() {
                continue;
            }
            let set = out.entry(topic);
            set.append(&mut partitions);
            set.sort_unstable();
            set.dedup();
        }
        out
    }
}

impl Assigned {
    pub fn epoch(&self, topic: TopicId, partition: i32) -> Option<i32> {
        let set = self.get(topic)?;
        set.binary_search_by_key(&partition, |(index, _)| *index).ok().map(|at| set[at].1)
    }

    pub fn holds(&self, topic: TopicId, partition: i32) -> bool {
        self.epoch(topic, partition).is_some()
    }

    /// Adds partitions that are not there yet; those that are keep their epoch.
    pub fn merge(&mut self, topic: TopicId, partitions: impl IntoIterator<Item = (i32, i32)>) {
        let mut partitions = partitions.into_iter().peekable();
        if partitions.peek().is_none() {
            return;
        }
        let set = self.entry(topic);
        set.extend(partitions);
        // Stable, so the earlier of two equal partitions is the one that dedup keeps.
        set.sort_by_key(|(index, _)| *index);
        set.dedup_by_key(|(index, _)| *index);
    }

    /// The same partitions, all assigned at `epoch`.
    pub fn at_epoch(partitions: &Partitions, epoch: i32) -> Self {
        TopicMap(partitions.iter().map(|(topic, set)| (topic, set.iter().map(|p| (*p, epoch)).collect())).collect())
    }

    /// The same partitions without their epochs.
    pub fn partitions(&self) -> Partitions {
        TopicMap(self.iter().map(|(topic, set)| (topic, set.iter().map(|(p, _)| *p).collect())).collect())
    }

    /// Every `(topic, partition)`.
    pub fn each(&self) -> impl Iterator<Item = (TopicId, i32)> {
        self.iter().flat_map(|(topic, set)| set.iter().map(move |(p, _)| (topic, *p)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(n: u8) -> TopicId {
        let mut bytes = [0; 16];
        bytes[15] = n;
        TopicId(bytes)
    }

    #[test]
    fn lists_become_sorted_sets() {
        let sets = Partitions::collect([
            (topic(2), vec![3, 1, 3]),
            (topic(1), vec![0]),
            (topic(3), vec![]),
            (topic(2), vec![2, 1]),
        ]);
        assert_eq!(
            sets.iter().map(|(t, p)| (t, p.clone())).collect::<Vec<_>>(),
            [(topic(1), vec![0]), (topic(2), vec![1, 2, 3]),]
        );
        assert_eq!(sets.count(), 4);
        assert!(sets.has(topic(2), 3) && !sets.has(topic(2), 0) && !sets.has(topic(3), 0));
    }

    #[test]
    fn a_partition_keeps_the_epoch_at_which_it_was_assigned() {
        let mut assigned = Assigned::at_epoch(&Partitions::collect([(topic(1), vec![1, 5])]), 3);
        assigned.merge(topic(1), [(5, 9), (2, 9)]);
        assigned.merge(topic(2), []);
        assert_eq!(assigned.get(topic(1)), Some(&vec![(1, 3), (2, 9), (5, 3)]));
        assert_eq!(assigned.len(), 1, "no empty topic is made");
        assert_eq!(assigned.epoch(topic(1), 5), Some(3));
        assert!(!assigned.holds(topic(1), 4));
        assert_eq!(assigned.partitions().count(), 3);
    }
}
