//! Compares this node's copies with the other nodes', fetches what it lacks, removes what nothing knows, and counts what
//! has too few copies.
//!
//! Every node fetches for itself, from whoever has a whole copy; nothing is pushed. A copy of which the metadata say that
//! it is dead is never fetched, so a node that was away during a deletion brings nothing back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::Instant;

use crate::base::limits::STORED_BYTES_MAX;
use crate::base::{NodeId, ObjectId};
use crate::object::{Listed, LocalError, SNAPSHOTS_KEPT, SharedStore, Shelf, StoredKey};

use super::bundled::{Bundled, Compared, blocking};
use super::placement::{copies, order};
use super::remote::{Remote, RemoteError};

/// What the metadata say about an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It must have its copies.
    Kept,
    /// It was there and is not any more, for good: ids are never used again.
    Dead,
    /// On its way out, or newer than this node's metadata: neither fetched nor removed.
    Unsure,
}

/// Says which objects live.
pub trait Living: Send + Sync + 'static {
    /// One answer for each, or why there is none. May read from the disk.
    fn judge(&self, objects: &[ObjectId]) -> Result<Vec<Life>, String>;
}

/// Holds work in the background to a pace.
pub(super) struct Pace {
    per_second: u64,
    begun: Instant,
    bytes: u64,
}

impl Pace {
    pub fn new(per_second: u64) -> Pace {
        Pace { per_second: per_second.max(1), begun: Instant::now(), bytes: 0 }
    }

    pub async fn spent(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        let due = Duration::from_millis(self.bytes.saturating_mul(1000) / self.per_second);
        tokio::time::sleep_until(self.begun + due).await;
        // An idle time is no credit.
        if self.begun.elapsed() > due + Duration::from_secs(1) {
            (self.begun, self.bytes) = (Instant::now(), 0);
        }
    }
}

/// Who has a key.
#[derive(Default)]
struct Holding {
    own: Option<Listed>,
    others: Vec<NodeId>,
}

/// One comparison under way.
struct Pass<'a> {
    store: &'a Bundled,
    living: Arc<dyn Living>,
    nodes: Vec<NodeId>,
    away: BTreeSet<NodeId>,
    pace: Pace,
    debt: u64,
    fetched: u64,
    /// Whether this node lacks something, or could not look.
    lacking: bool,
}

impl Bundled {
    /// One comparison with all other nodes.
    pub(super) async fn compare(&self, living: &Arc<dyn Living>) {
        let (nodes, owed) = (self.nodes(), self.owed.load(Relaxed));
        if nodes.is_empty() {
            return;
        }
        if self.is_alone() {
            // All there is was written here.
            let local = self.local.clone();
            if let Err(error) = blocking(move || local.mark_complete()).await {
                tracing::warn!(%error, "the folder of objects cannot be marked as complete");
            }
            self.compared_with(Compared { nodes, all_answered: true, debt: 0 }, owed);
            return;
        }
        self.restore_suspects(&nodes).await;
        let mut pass = Pass {
            store: self,
            living: living.clone(),
            nodes,
            away: BTreeSet::new(),
            pace: Pace::new(self.options.repair_bytes_per_second),
            debt: 0,
            fetched: 0,
            lacking: false,
        };
        for shelf in Shelf::all() {
            pass.shelf(shelf).await;
        }
        let Pass { nodes, away, debt, fetched, lacking, .. } = pass;
        if fetched > 0 || debt > 0 {
            let away: Vec<_> = away.iter().map(ToString::to_string).collect();
            tracing::info!(
                fetched,
                debt,
                away = away.join(","),
                "copies of stored objects were compared between nodes"
            );
        }
        if away.is_empty() && !lacking {
            let local = self.local.clone();
            if let Err(error) = blocking(move || local.mark_complete()).await {
                tracing::warn!(%error, "the folder of objects cannot be marked as complete");
            }
        }
        self.compared_with(Compared { nodes, all_answered: away.is_empty() && !lacking, debt }, owed);
    }

    fn compared_with(&self, compared: Compared, owed_before: u64) {
        self.counters.passes.fetch_add(1, Relaxed);
        *self.compared.lock().unwrap_or_else(PoisonError::into_inner) = compared;
        // What was owed before is in the debt if it is owed still.
        self.owed.fetch_sub(owed_before, Relaxed);
    }

    /// Puts a whole copy of another node in the place of each damaged one.
    async fn restore_suspects(&self, nodes: &[NodeId]) {
        let suspects = || self.suspects.lock().unwrap_or_else(PoisonError::into_inner);
        let keys: Vec<_> = suspects().iter().copied().collect();
        for key in keys {
            let local = self.local.clone();
            match blocking(move || local.check(key)).await {
                Ok(_) | Err(LocalError::Missing) => {
                    suspects().remove(&key);
                }
                Err(LocalError::Damaged) => {
                    let mut from = order(key, nodes);
                    from.retain(|node| *node != self.node);
                    if let Some(bytes) = self.fetch(key, &from, true).await {
                        suspects().remove(&key);
                        self.counters.restored.fetch_add(1, Relaxed);
                        tracing::info!(%key, bytes, "a damaged copy was put right");
                    }
                }
                Err(error) => tracing::warn!(%key, %error, "a damaged copy cannot be looked at"),
            }
        }
    }

    /// Fetches a copy from the first of these nodes that has it whole. Returns its length.
    async fn fetch(&self, key: StoredKey, from: &[NodeId], replace: bool) -> Option<u64> {
        for node in from {
            match self.fetch_from(&self.remote(*node), key, replace).await {
                Ok(bytes) => {
                    self.counters.fetched.fetch_add(1, Relaxed);
                    self.counters.fetched_bytes.fetch_add(bytes, Relaxed);
                    return Some(bytes);
                }
                Err(error) => tracing::debug!(%key, %node, %error, "a copy could not be fetched"),
            }
        }
        None
    }

    async fn fetch_from(&self, remote: &Remote, key: StoredKey, replace: bool) -> Result<u64, RemoteError> {
        let failed = |error: LocalError| RemoteError::Away(format!("this node: {error}"));
        let (bytes, digest) = remote.digest(key).await?;
        let local = self.local.clone();
        let expected = blocking(move || Ok(local.expected(key))).await.map_err(failed)?;
        if bytes > STORED_BYTES_MAX as u64 || (replace && expected.is_some_and(|e| e != (bytes, digest))) {
            return Err(RemoteError::Away("its copy has other content".to_owned()));
        }
        let local = self.local.clone();
        let mut incoming = blocking(move || local.incoming()).await.map_err(failed)?;
        while incoming.bytes() < bytes {
            let (piece, _) = remote.read_piece(key, incoming.bytes()..bytes).await?;
            let appended = move || {
                incoming.append(&piece)?;
                Ok(incoming)
            };
            incoming = blocking(appended).await.map_err(failed)?;
        }
        match blocking(move || incoming.commit(key, bytes, digest, replace)).await {
            Ok(()) => Ok(bytes),
            Err(error) => Err(failed(error)),
        }
    }
}

impl Pass<'_> {
    async fn shelf(&mut self, shelf: Shelf) {
        let Some(holding) = self.holding(shelf).await else {
            self.lacking = true;
            return;
        };
        let keys: Vec<StoredKey> = holding.keys().copied().collect();
        let lives = match shelf {
            Shelf::Snapshots => {
                let superseded = keys.len().saturating_sub(SNAPSHOTS_KEPT);
                (0..keys.len()).map(|at| if at < superseded { Life::Dead } else { Life::Kept }).collect()
            }
            Shelf::Objects(_) => match self.judged(&keys).await {
                Ok(lives) => lives,
                Err(reason) => {
                    tracing::warn!(reason, "the metadata cannot be asked which objects live");
                    self.lacking = true;
                    return;
                }
            },
        };
        for ((key, holding), life) in holding.into_iter().zip(lives) {
            match life {
                Life::Kept => self.keep(key, holding).await,
                Life::Dead => self.remove(key, holding).await,
                Life::Unsure => {}
            }
        }
    }

    /// All keys of a shelf on any node, and who has them; none if this node cannot read its own.
    async fn holding(&mut self, shelf: Shelf) -> Option<BTreeMap<StoredKey, Holding>> {
        let local = self.store.local.clone();
        let own = match blocking(move || local.list(shelf, None, usize::MAX)).await {
            Ok((own, _)) => own,
            Err(error) => {
                tracing::warn!(%error, "stored copies cannot be listed");
                return None;
            }
        };
        let mut holding: BTreeMap<StoredKey, Holding> = BTreeMap::new();
        for copy in own {
            holding.entry(copy.key).or_default().own = Some(copy);
        }
        for node in self.nodes.clone() {
            if node == self.store.node || self.away.contains(&node) {
                continue;
            }
            match self.store.remote(node).list(shelf).await {
                Ok((copies, _)) => {
                    copies.into_iter().for_each(|copy| holding.entry(copy.key).or_default().others.push(node));
                }
                Err(error) => {
                    tracing::debug!(%node, %error, "a node does not list its copies");
                    self.away.insert(node);
                }
            }
        }
        Some(holding)
    }

    async fn judged(&self, keys: &[StoredKey]) -> Result<Vec<Life>, String> {
        let ids: Vec<ObjectId> = keys
            .iter()
            .filter_map(|key| match key {
                StoredKey::Object(object) => Some(*object),
                _ => None,
            })
            .collect();
        let (living, count) = (self.living.clone(), keys.len());
        let judged = tokio::task::spawn_blocking(move || living.judge(&ids)).await;
        let lives = judged.map_err(|_| "this node stops".to_owned())??;
        if lives.len() == count { Ok(lives) } else { Err("the answers are not one for each".to_owned()) }
    }

    /// Fetches what belongs here, and counts what has too few copies.
    async fn keep(&mut self, key: StoredKey, holding: Holding) {
        let (aim, order) = (copies(self.nodes.len()), order(key, &self.nodes));
        let belongs = order.iter().take(aim).any(|node| *node == self.store.node);
        let mut held = holding.others.len() + usize::from(holding.own.is_some());
        if belongs && holding.own.is_none() {
            match self.store.fetch(key, &holding.others, false).await {
                Some(bytes) => {
                    held += 1;
                    self.fetched += 1;
                    self.pace.spent(bytes).await;
                }
                None => self.lacking = true,
            }
        }
        self.debt += u64::from(held < aim);
    }

    async fn remove(&mut self, key: StoredKey, holding: Holding) {
        let Some(own) = holding.own else { return };
        // Only the metadata decide; the age spares what is just being deleted everywhere.
        let age = self.store.clock.wall_ms().saturating_sub(own.modified_ms);
        if age < i64::try_from(self.store.options.removal_grace.as_millis()).unwrap_or(i64::MAX) {
            return;
        }
        let local = self.store.local.clone();
        match blocking(move || local.delete(key)).await {
            Ok(_) => {
                self.store.counters.removed.fetch_add(1, Relaxed);
                tracing::info!(%key, "a copy of what is deleted was removed");
            }
            Err(error) => tracing::warn!(%key, %error, "a copy of what is deleted cannot be removed"),
        }
    }
}
