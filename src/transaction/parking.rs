//! Requests that wait for a prepared transaction to complete, each with the moment when it waits no longer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Producer, Token, TopicPartition, TransactionVersion};

/// An AddPartitions that found the transaction before not yet complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parked {
    pub token: Token,
    pub producer: Producer,
    pub partitions: Vec<TopicPartition>,
    pub version: TransactionVersion,
    until_ms: i64,
}

#[derive(Debug, Default)]
pub(super) struct Parking {
    by_id: BTreeMap<Arc<str>, Vec<Parked>>,
    /// Each waiting request by its last moment, in monotonic milliseconds.
    ends: BTreeSet<(i64, Token, Arc<str>)>,
}

impl Parking {
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn park(
        &mut self,
        id: &Arc<str>,
        token: Token,
        producer: Producer,
        partitions: Vec<TopicPartition>,
        version: TransactionVersion,
        until_ms: i64,
    ) {
        if self.ends.insert((until_ms, token, Arc::clone(id))) {
            let parked = Parked { token, producer, partitions, version, until_ms };
            self.by_id.entry(Arc::clone(id)).or_default().push(parked);
        }
    }

    /// Everyone who waits for this transactional id, in the order of arrival.
    pub fn take(&mut self, id: &Arc<str>) -> Vec<Parked> {
        let parked = self.by_id.remove(id).unwrap_or_default();
        for p in &parked {
            self.ends.remove(&(p.until_ms, p.token, Arc::clone(id)));
        }
        parked
    }

    /// Takes out one request whose time is over.
    pub fn pop_expired(&mut self, now_ms: i64) -> Option<Token> {
        self.ends.first().filter(|(until, _, _)| *until <= now_ms)?;
        let (_, token, id) = self.ends.pop_first()?;
        self.forget(&id, token);
        Some(token)
    }

    pub fn cancel(&mut self, token: Token) {
        let found: Vec<_> = self.ends.iter().filter(|(_, t, _)| *t == token).cloned().collect();
        for end in found {
            self.forget(&end.2, token);
            self.ends.remove(&end);
        }
    }

    pub fn next_end_ms(&self) -> Option<i64> {
        self.ends.first().map(|(until, _, _)| *until)
    }

    fn forget(&mut self, id: &Arc<str>, token: Token) {
        if let Some(parked) = self.by_id.get_mut(id) {
            parked.retain(|p| p.token != token);
            if parked.is_empty() {
                self.by_id.remove(id);
            }
        }
    }
}
