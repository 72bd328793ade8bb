//! Objects that the index names and the store does not have: deleted from outside, so nothing here brings them back.
//!
//! Each is counted and logged once, and is a trouble until it is back or the index no longer needs it. Bounded: beyond
//! [`KNOWN_MAX`] further ones wait for a place.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::base::{ObjectId, Offset, PartitionId};
use crate::partition::Partition;

use super::Broker;

/// Missing objects that are remembered at a time.
const KNOWN_MAX: usize = 1_000;
/// Of these, how many are looked for at once, and how often.
const LOOKS: usize = 16;
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// How many a message names.
const NAMED: usize = 3;

/// Where a reader needed a missing object.
#[derive(Clone)]
struct Place {
    partition: PartitionId,
    topic: Arc<str>,
    offset: Offset,
}

/// See the module's documentation.
#[derive(Default)]
pub struct Missing {
    known: Mutex<BTreeMap<ObjectId, Place>>,
    /// Objects found missing since the start.
    pub found: AtomicU64,
}

impl Missing {
    fn known(&self) -> MutexGuard<'_, BTreeMap<ObjectId, Place>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it was logged already.
    pub fn knows(&self, object: ObjectId) -> bool {
        self.known().contains_key(&object)
    }

    /// Takes one in; answers whether it is new.
    fn insert(&self, object: ObjectId, place: Place) -> bool {
        let mut known = self.known();
        let new = known.len() < KNOWN_MAX && !known.contains_key(&object);
        if new {
            known.insert(object, place);
            self.found.fetch_add(1, Ordering::Relaxed);
        }
        new
    }

    /// The next ones to look for, those behind `last` first.
    fn due(&self, last: ObjectId) -> Vec<(ObjectId, Place)> {
        let known = self.known();
        let behind = known.range((Bound::Excluded(last), Bound::Unbounded));
        let around = known.range(..=last);
        behind.chain(around).take(LOOKS).map(|(object, place)| (*object, place.clone())).collect()
    }

    /// What an operator should know, and do.
    pub fn trouble(&self) -> Option<String> {
        let known = self.known();
        let named = known.iter().take(NAMED).map(|(object, place)| {
            format!(
                "{:016x} (topic {}, partition {}, offset {})",
                object.0, place.topic, place.partition.index, place.offset
            )
        });
        let named = named.collect::<Vec<_>>().join(", ");
        let more = known.len().saturating_sub(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        (!known.is_empty()).then(|| {
            format!(
                "objects are missing that the index names: {named}{more}; put them back, or move the log start past them"
            )
        })
    }
}

impl Broker {
    pub fn missing(&self) -> &Missing {
        &self.missing
    }

    /// A reader at `offset` was told that `object` is not there. If the index still names it, it was not merged away.
    pub(super) async fn note_missing(&self, partition: &Partition, offset: Offset, object: ObjectId) {
        let named = matches!(self.locate(partition, offset).await, Ok(Some((_, entry))) if entry.object == object);
        let place = Place { partition: partition.id, topic: partition.topic.clone(), offset };
        if named && self.missing.insert(object, place) {
            let object = format!("{:016x}", object.0);
            tracing::error!(
                object, topic = %partition.topic, partition = partition.id.index, %offset,
                "an object is not in object storage: its records cannot be read until it is put back"
            );
        }
    }

    /// Looks from time to time whether missing objects are back or not needed any more, until the process ends.
    pub async fn watch_missing(self: Arc<Self>) {
        let mut last = ObjectId(0);
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            for (object, place) in self.missing.due(last) {
                last = object;
                if !self.is_missed(object, &place).await {
                    self.missing.known().remove(&object);
                    let object = format!("{:016x}", object.0);
                    tracing::info!(object, "a missing object is there again, or not needed any more");
                }
            }
        }
    }

    /// Whether `object` is needed and not there; also while nobody can say.
    async fn is_missed(&self, object: ObjectId, place: &Place) -> bool {
        let Some(partition) = self.registry.get(place.partition) else { return false };
        if partition.positions().log_start > place.offset {
            return false;
        }
        match self.locate(&partition, place.offset).await {
            Ok(Some((_, entry))) if entry.object == object => !matches!(self.objects.exists(object).await, Ok(true)),
            Ok(_) => false,
            Err(_) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::TopicId;

    fn place() -> Place {
        let partition = PartitionId { topic: TopicId([1; 16]), index: 3 };
        Place { partition, topic: "t".into(), offset: Offset(7) }
    }

    #[test]
    fn each_missing_object_counts_once_and_is_named() {
        let missing = Missing::default();
        assert_eq!(missing.trouble(), None);
        assert!(missing.insert(ObjectId(10), place()) && !missing.insert(ObjectId(10), place()));
        let trouble = missing.trouble().expect("one is missing");
        assert!(trouble.contains("000000000000000a (topic t, partition 3, offset 7);"), "{trouble}");
        for object in 0..2_000 {
            missing.insert(ObjectId(object), place());
        }
        assert_eq!(missing.found.load(Ordering::Relaxed), KNOWN_MAX as u64);
        assert!(missing.trouble().is_some_and(|t| t.contains("and 997 more")));
    }

    #[test]
    fn all_of_them_have_their_turn() {
        let missing = Missing::default();
        for object in 1..=20 {
            missing.insert(ObjectId(object), place());
        }
        let first: Vec<_> = missing.due(ObjectId(0)).iter().map(|(object, _)| object.0).collect();
        assert_eq!(first, (1..=16).collect::<Vec<_>>());
        let second: Vec<_> = missing.due(ObjectId(16)).iter().map(|(object, _)| object.0).collect();
        assert_eq!(second, [17, 18, 19, 20].into_iter().chain(1..=12).collect::<Vec<_>>());
    }
}
