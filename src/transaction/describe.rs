//! What DescribeTransactions and ListTransactions show. Nothing changes here.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::coordinator::{Coordinator, is_usable};
use super::state::{State, Transaction};
use super::{Description, Error, Filter, Listed, Listing, Now};

impl Coordinator {
    pub(super) fn describe(&self, transactional_id: &str) -> Result<Description, Error> {
        if !is_usable(transactional_id) {
            return Err(Error::InvalidRequest);
        }
        let t = self.transaction(transactional_id).ok_or(Error::TransactionalIdNotFound)?;
        Ok(Description {
            producer: t.producer,
            state: t.state,
            timeout_ms: t.timeout_ms,
            start_ms: t.start_ms,
            partitions: t.partitions.clone(),
        })
    }

    pub(super) fn list(&self, filter: &Filter, now: Now) -> Listing {
        let states: BTreeSet<State> = filter.states.iter().filter_map(|name| State::from_name(name)).collect();
        let mut unknown_states: Vec<String> = vec![];
        for name in filter.states.iter().filter(|name| State::from_name(name).is_none()) {
            if !unknown_states.contains(name) {
                unknown_states.push(name.clone());
            }
        }
        let wanted = |id: &str, t: &Transaction| {
            (filter.producer_ids.is_empty() || filter.producer_ids.contains(&t.producer.id))
                && (filter.states.is_empty() || states.contains(&t.state))
                && (filter.duration_ms < 0 || now.wall_ms.saturating_sub(t.start_ms) > filter.duration_ms)
                && filter.pattern.as_ref().is_none_or(|pattern| (pattern.0)(id))
        };
        let listed = self.entries.iter().filter(|(id, entry)| wanted(id, &entry.transaction));
        let transactions = listed.map(|(id, entry)| Listed {
            transactional_id: Arc::clone(id),
            producer_id: entry.transaction.producer.id,
            state: entry.transaction.state,
        });
        Listing { unknown_states, transactions: transactions.collect() }
    }
}
