//! Fetch sessions (KIP-227): the partitions that a client reads, remembered so that it names only what changes.
//!
//! Bounded: by the number of sessions (`max.incremental.fetch.session.cache.slots`) and of their partitions. Where all
//! places are taken, a session in use is not pushed out for a newcomer, which is served without one. A session that
//! is not found is no fault; the client sends a full request again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indexmap::IndexMap;
use kafka_protocol::error::ResponseError;
use kafka_protocol::protocol::StrBytes;

use crate::base::{Offset, TopicId};

/// Partitions of all sessions together; beyond it no new session begins.
const PARTITIONS_MAX: usize = 1_000_000;

/// A session unused for so long may be replaced, and one that has existed for so long by a larger one (KIP-227's
/// `min.incremental.fetch.session.eviction.ms`, which Kafka does not let anybody set).
const EVICTABLE_AFTER: Duration = Duration::from_secs(120);

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
    /// By CLOCK_BOOTTIME, as is the next.
    begun_at: Duration,
    used_at: Duration,
}

/// All sessions of the broker.
#[derive(Default)]
pub(super) struct Sessions(Mutex<Cache>);

#[derive(Default)]
struct Cache {
    by_id: HashMap<i32, Session>,
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
    /// Now, by CLOCK_BOOTTIME.
    pub now: Duration,
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

    /// Ends a session that its client was not told of.
    pub fn forget(&self, session: i32) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(session);
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
        if self.by_id.len() >= asked.slots && !self.make_room(named.len(), asked.now) {
            return 0;
        }
        let mut id = random().max(1);
        while self.by_id.contains_key(&id) {
            id = id.checked_add(1).unwrap_or(1);
        }
        self.partitions += named.len();
        let session = Session {
            next_epoch: 1,
            uses_ids: asked.uses_ids,
            partitions: named.clone(),
            begun_at: asked.now,
            used_at: asked.now,
        };
        self.by_id.insert(id, session);
        id
    }

    /// Ends the session that was unused for longest, if for long enough; else the smallest of those that have existed
    /// for long enough, if it has fewer partitions than the newcomer. Answers whether one was ended.
    fn make_room(&mut self, newcomer: usize, now: Duration) -> bool {
        let since = |moment: Duration| now.saturating_sub(moment);
        let stale = self.by_id.iter().min_by_key(|(_, s)| s.used_at);
        let stale = stale.filter(|(_, s)| since(s.used_at) >= EVICTABLE_AFTER).map(|(id, _)| *id);
        let smaller = || {
            let settled = self.by_id.iter().filter(|(_, s)| since(s.begun_at) >= EVICTABLE_AFTER);
            let smallest = settled.min_by_key(|(_, s)| s.partitions.len());
            smallest.filter(|(_, s)| s.partitions.len() < newcomer).map(|(id, _)| *id)
        };
        let Some(id) = stale.or_else(smaller) else { return false };
        self.remove(id);
        true
    }

    fn go_on(
        &mut self,
        asked: Asked,
        epoch: i32,
        named: Partitions,
        forgotten: &[Key],
    ) -> Result<Scope, ResponseError> {
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
        session.used_at = asked.now;
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
        Asked { id, epoch, uses_ids: false, slots: 2, now: Duration::ZERO }
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

    fn at(seconds: u64, asked: Asked) -> Asked {
        Asked { now: Duration::from_secs(seconds), ..asked }
    }

    /// Sessions 1 and 2, of one and two partitions, which take all places.
    fn full() -> Sessions {
        let sessions = Sessions::default();
        for (id, partitions) in [(1, &[0][..]), (2, &[0, 1])] {
            assert_eq!(sessions.resolve(asked(0, 0), named(partitions), &[], || id).expect("new").session, id);
        }
        sessions
    }

    #[test]
    fn a_session_in_use_is_not_pushed_out_by_a_newcomer() {
        let sessions = full();
        let newcomer = sessions.resolve(at(119, asked(0, 0)), named(&[0, 1, 2]), &[], || 3).expect("is served");
        assert_eq!((newcomer.session, newcomer.partitions.len()), (0, 3), "without a session");
        for id in [1, 2] {
            assert!(sessions.resolve(at(119, asked(id, 1)), named(&[]), &[], || 0).is_ok(), "session {id} goes on");
        }
        // Both are old enough by now, but neither has fewer partitions than one.
        let newcomer = sessions.resolve(at(121, asked(0, 0)), named(&[0]), &[], || 3).expect("is served");
        assert_eq!(newcomer.session, 0);
    }

    #[test]
    fn a_session_long_unused_makes_room() {
        let sessions = full();
        sessions.resolve(at(100, asked(1, 1)), named(&[]), &[], || 0).expect("used");
        assert_eq!(sessions.resolve(at(120, asked(0, 0)), named(&[0]), &[], || 3).expect("new").session, 3);
        assert!(sessions.resolve(at(120, asked(2, 1)), named(&[]), &[], || 0).is_err());
        assert!(sessions.resolve(at(120, asked(1, 2)), named(&[]), &[], || 0).is_ok());
    }

    #[test]
    fn a_larger_session_replaces_the_smallest_that_is_old_enough() {
        let sessions = full();
        for id in [1, 2] {
            sessions.resolve(at(60, asked(id, 1)), named(&[]), &[], || 0).expect("used");
        }
        assert_eq!(sessions.resolve(at(120, asked(0, 0)), named(&[0, 1]), &[], || 3).expect("new").session, 3);
        assert!(sessions.resolve(at(120, asked(1, 2)), named(&[]), &[], || 0).is_err(), "it had fewer partitions");
        assert!(sessions.resolve(at(120, asked(2, 2)), named(&[]), &[], || 0).is_ok());
        // 3 has existed for a moment only, and 2 has as many partitions.
        assert_eq!(sessions.resolve(at(121, asked(0, 0)), named(&[0, 1]), &[], || 4).expect("served").session, 0);
    }
}
