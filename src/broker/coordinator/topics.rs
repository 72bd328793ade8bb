//! What coordinators know of the cluster's topics.

use std::sync::{Arc, Mutex, PoisonError};

use crate::base::TopicId;
use crate::group::Topics;
use crate::metadata::Image;

/// Counts changes of the set of topics and of their partitions.
#[derive(Default)]
pub(super) struct Versions {
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    image: Option<Arc<Image>>,
    version: u64,
}

impl Versions {
    /// Takes in the newest image. Answers the topics that are gone since the last one.
    pub fn follow(&self, image: &Arc<Image>) -> Vec<(String, TopicId)> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(before) = seen.image.replace(image.clone()) else {
            seen.version = 1;
            return Vec::new();
        };
        if Arc::ptr_eq(&before.topics, &image.topics) {
            return Vec::new();
        }
        let gone = before.topics.values().filter(|t| !image.topics.contains_key(&t.id));
        let gone: Vec<_> = gone.map(|t| (t.name.to_string(), t.id)).collect();
        let grown = image.topics.values().any(|topic| {
            let known = before.topics.get(&topic.id);
            known.is_none_or(|k| !Arc::ptr_eq(k, topic) && k.partitions.len() != topic.partitions.len())
        });
        if grown || !gone.is_empty() {
            seen.version += 1;
        }
        gone
    }

    /// The newest image that was taken in.
    pub fn now(&self, newest: Arc<Image>) -> ImageTopics {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match &seen.image {
            Some(image) => ImageTopics { image: image.clone(), version: seen.version },
            None => ImageTopics { image: newest, version: 0 },
        }
    }
}

/// The topics of one image.
pub(super) struct ImageTopics {
    image: Arc<Image>,
    version: u64,
}

impl Topics for ImageTopics {
    fn version(&self) -> u64 {
        self.version
    }

    fn id(&self, name: &str) -> Option<TopicId> {
        self.image.names.get(name).copied()
    }

    fn name(&self, id: TopicId) -> Option<&str> {
        self.image.topics.get(&id).map(|topic| &*topic.name)
    }

    fn partitions(&self, id: TopicId) -> Option<i32> {
        self.image.topics.get(&id).map(|topic| i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX))
    }

    /// Nodes have no racks.
    fn racks(&self, _: TopicId, _: i32) -> Vec<String> {
        Vec::new()
    }

    fn each_name(&self, visit: &mut dyn FnMut(&str)) {
        self.image.names.keys().for_each(|name| visit(name));
    }
}
