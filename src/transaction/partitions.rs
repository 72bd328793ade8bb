//! The partitions of one transaction: a set, in order, grouped by topic as the record groups it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A partition by the name of its topic, as records and markers name it.
pub type TopicPartition = (Arc<str>, i32);

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Partitions(BTreeMap<Arc<str>, BTreeSet<i32>>);

impl Partitions {
    pub fn insert(&mut self, (topic, partition): &TopicPartition) {
        match self.0.get_mut(topic) {
            Some(indexes) => {
                indexes.insert(*partition);
            }
            None => {
                self.0.insert(Arc::clone(topic), BTreeSet::from([*partition]));
            }
        }
    }

    /// Takes a partition out; false if it was not in.
    pub fn remove(&mut self, (topic, partition): &TopicPartition) -> bool {
        let Some(indexes) = self.0.get_mut(topic) else { return false };
        let removed = indexes.remove(partition);
        if indexes.is_empty() {
            self.0.remove(topic);
        }
        removed
    }

    pub fn contains(&self, (topic, partition): &TopicPartition) -> bool {
        self.0.get(topic).is_some_and(|indexes| indexes.contains(partition))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    pub fn by_topic(&self) -> impl ExactSizeIterator<Item = (&Arc<str>, &BTreeSet<i32>)> {
        self.0.iter()
    }

    pub fn iter(&self) -> impl Iterator<Item = TopicPartition> {
        self.0.iter().flat_map(|(topic, indexes)| indexes.iter().map(|index| (Arc::clone(topic), *index)))
    }
}

impl FromIterator<TopicPartition> for Partitions {
    fn from_iter<I: IntoIterator<Item = TopicPartition>>(partitions: I) -> Self {
        let mut set = Partitions::default();
        partitions.into_iter().for_each(|p| set.insert(&p));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_leaves_with_its_last_partition() {
        let partition = |index| (Arc::from("a"), index);
        let mut set: Partitions = [partition(1), partition(0), partition(1), ("b".into(), 7)].into_iter().collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), [partition(0), partition(1), ("b".into(), 7)]);
        assert!(set.remove(&partition(0)) && !set.remove(&partition(0)) && set.remove(&partition(1)));
        assert!(!set.contains(&partition(1)) && set.contains(&("b".into(), 7)));
        assert_eq!(set.by_topic().len(), 1);
        assert!(set.remove(&("b".into(), 7)) && set.is_empty());
    }
}
