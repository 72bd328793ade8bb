//! Fetch sessions (KIP-227): the partitions that a client reads, remembered so that it names only what changes.
//!
//! Bounded: by the number of sessions (`max.incremental.fetch.session.cache.slots`) and of their partitions. A
//! session that is not found is no fault; the client sends a full request again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use indexmap::IndexMap;
use kafka_protocol::error::ResponseError;
use kafka_protocol::protocol::StrBytes;

use crate::base::{Offset, TopicId};

/// Partitions of all sessions together; beyond it no new session begins.
const PARTITIONS_MAX: usize = 1_000_000;

/// A partition as the client names it: by name up to version 12, by id from 13 on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub name: StrBytes,
    pub id: TopicId,
    pub index: i32,
}

/// What the client asked for last, and what it was told last.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub offset: Offset,
    pub max_bytes: i32,
    pub current_leader_epoch: i32,
    pub last_fetched_epoch: i32,
    /// High watermark and log start of the last answer; `None` before the first.
    pub told: Option<(Offset, Offset)>,
}

/// Partitions in the order in which they are served.
pub(super) type Partitions = IndexMap<Key, Wanted>;

struct Session {
    /// Epoch that the next request must carry.
    next_epoch: i32,
    uses_ids: bool,
    partitions: Partitions,
    /// For eviction: the request count of the whole cache at its last use.
    used_at: u64,
}

/// All sessions of the broker.
#[derive(Default)]
pub(super) struct Sessions(Mutex<Cache>);

#[derive(Default)]
struct Cache {
    by_id: HashMap<i32, Session>,
    requests: u64,
    partitions: usize,
}

/// What one Fetch is about.
pub(super) struct Scope {
    /// 0 for a request outside any session.
    pub session: i32,
    pub partitions: Partitions,
    /// Only what changed is answered.
    pub incremental: bool,
}

/// Session fields of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub id: i32,
    pub epoch: i32,
    pub uses_ids: bool,
    pub slots: usize,
}

impl Sessions {
    /// Resolves a request to its partitions. `random` makes the id of a new session.
    pub fn resolve(
        &self,
        asked: Asked,
        named: Partitions,
        forgotten: &[Key],
        random: impl Fn() -> i32,
    ) -> Result<Scope, ResponseError> {
        let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cache.requests += 1;
        match asked.epoch {
            // A full request outside any session; it ends the one that it names.
            -1 => {
                cache.remove(asked.id);
                Ok(Scope { session: 0, partitions: named, incremental: false })
            }
            0 => {
                cache.remove(asked.id);
                let session = cache.begin(asked, &named, random);
                Ok(Scope { session, partitions: named, incremental: false })
            }
            epoch => cache.go_on(asked, epoch, named, forgotten),
        }
    }

    /// Notes what was answered; partitions that gave data go to the end, so that each gets its turn.
    pub fn answered(&self, session: i32, told: impl IntoIterator<Item = (Key, (Offset, Offset), bool)>) {
        let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(session) = cache.by_id.get_mut(&session) else { return };
        for (key, positions, gave_data) in told {
            if gave_data && let Some((key, wanted)) = session.partitions.shift_remove_entry(&key) {
                session.partitions.insert(key, Wanted { told: Some(positions), ..wanted });
            } else if let Some(wanted) = session.partitions.get_mut(&key) {
                wanted.told = Some(positions);
            }
        }
    }
}

impl Cache {
    fn remove(&mut self, id: i32) {
        if let Some(session) = self.by_id.remove(&id) {
            self.partitions -= session.partitions.len();
        }
    }

    /// The id of a new session, or 0 when there is no place for one.
    fn begin(&mut self, asked: Asked, named: &Partitions, random: impl Fn() -> i32) -> i32 {
        if named.is_empty() || asked.slots == 0 || self.partitions + named.len() > PARTITIONS_MAX {
            return 0;
        }
        if self.by_id.len() >= asked.slots
            && let Some(oldest) = self.by_id.iter().min_by_key(|(_, s)| s.used_at).map(|(id, _)| *id)
        {
            self.remove(oldest);
        }
        let mut id = random().max(1);
        while self.by_id.contains_key(&id) {
            id = id.checked_add(1).unwrap_or(1);
        }
        self.partitions += named.len();
        let session =
            Session { next_epoch: 1, uses_ids: asked.uses_ids, partitions: named.clone(), used_at: self.requests };
        self.by_id.insert(id, session);
        id
    }

    fn go_on(
        &mut self,
        asked: Asked,
        epoch: i32,
        named: Partitions,
        forgotten: &[Key],
    ) -> Result<Scope, ResponseError> {
        let requests = self.requests;
        let session = self.by_id.get_mut(&asked.id).ok_or(ResponseError::FetchSessionIdNotFound)?;
        if session.next_epoch != epoch {
            return Err(ResponseError::InvalidFetchSessionEpoch);
        }
        if session.uses_ids != asked.uses_ids {
            return Err(ResponseError::FetchSessionTopicIdError);
        }
        let before = session.partitions.len();
        // A session that would grow beyond all bounds begins anew, without what it asks to remember.
        if self.partitions + named.len() > PARTITIONS_MAX {
            self.remove(asked.id);
            return Err(ResponseError::FetchSessionIdNotFound);
        }
        for (key, wanted) in named {
            match session.partitions.get_mut(&key) {
                Some(known) => *known = Wanted { told: known.told, ..wanted },
                None => drop(session.partitions.insert(key, wanted)),
            }
        }
        for key in forgotten {
            session.partitions.shift_remove(key);
        }
        // 1 follows the largest epoch: 0 and −1 have meanings of their own.
        session.next_epoch = epoch.checked_add(1).unwrap_or(1);
        session.used_at = requests;
        let partitions = session.partitions.clone();
        self.partitions = self.partitions - before + partitions.len();
        if partitions.is_empty() {
            self.remove(asked.id);
            return Ok(Scope { session: 0, partitions, incremental: true });
        }
        Ok(Scope { session: asked.id, partitions, incremental: true })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(index: i32) -> Key {
        Key { name: StrBytes::from_static_str("t"), id: TopicId::default(), index }
    }

    fn wanted(offset: i64) -> Wanted {
        Wanted { offset: Offset(offset), max_bytes: 1, current_leader_epoch: -1, last_fetched_epoch: -1, told: None }
    }

    fn named(indexes: &[i32]) -> Partitions {
        indexes.iter().map(|i| (key(*i), wanted(0))).collect()
    }

    fn asked(id: i32, epoch: i32) -> Asked {
        Asked { id, epoch, uses_ids: false, slots: 2 }
    }

    #[test]
    fn a_session_remembers_what_it_was_told() {
        let sessions = Sessions::default();
        let scope = sessions.resolve(asked(0, 0), named(&[0, 1, 2]), &[], || 7).expect("new");
        assert_eq!((scope.session, scope.partitions.len(), scope.incremental), (7, 3, false));
        let scope = sessions.resolve(asked(7, 1), named(&[3]), &[key(1)], || 0).expect("goes on");
        assert!(scope.incremental);
        assert_eq!(scope.partitions.keys().map(|k| k.index).collect::<Vec<_>>(), [0, 2, 3]);
        sessions.answered(7, [(key(0), (Offset(5), Offset(0)), true)]);
        let scope = sessions.resolve(asked(7, 2), named(&[]), &[], || 0).expect("goes on");
        assert_eq!(scope.partitions.keys().map(|k| k.index).collect::<Vec<_>>(), [2, 3, 0], "who gave data waits");
        assert_eq!(scope.partitions[&key(0)].told, Some((Offset(5), Offset(0))));
    }

    #[test]
    fn wrong_ids_epochs_and_kinds_have_their_errors() {
        let sessions = Sessions::default();
        sessions.resolve(asked(0, 0), named(&[0]), &[], || 7).expect("new");
        let error = |asked| sessions.resolve(asked, named(&[]), &[], || 0).err();
        assert_eq!(error(asked(8, 1)), Some(ResponseError::FetchSessionIdNotFound));
        assert_eq!(error(asked(7, 2)), Some(ResponseError::InvalidFetchSessionEpoch));
        assert_eq!(error(Asked { uses_ids: true, ..asked(7, 1) }), Some(ResponseError::FetchSessionTopicIdError));
        assert_eq!(error(asked(7, -1)), None, "a sessionless request ends it");
        assert_eq!(error(asked(7, 1)), Some(ResponseError::FetchSessionIdNotFound));
    }

    #[test]
    fn the_longest_unused_session_makes_room() {
        let sessions = Sessions::default();
        for id in [1, 2] {
            sessions.resolve(asked(0, 0), named(&[0]), &[], || id).expect("new");
        }
        sessions.resolve(asked(1, 1), named(&[]), &[], || 0).expect("used");
        sessions.resolve(asked(0, 0), named(&[0]), &[], || 3).expect("new");
        assert!(sessions.resolve(asked(2, 1), named(&[]), &[], || 0).is_err());
        assert!(sessions.resolve(asked(1, 2), named(&[]), &[], || 0).is_ok());
    }
}
