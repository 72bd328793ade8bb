//! What an upload takes from each partition, whoever leads it.
//!
//! A ledger that this process wrote has records of partitions that are open here, and of some that have departed. One that
//! somebody else wrote, and that this node was named for, is read from what is held of it: for a partition that another
//! node leads a *shadow* is made for the moment, from the metadata, the newest footer and the entries of that ledger.
//!
//! Objects of one partition follow one another. So an upload is cut before the first entry whose partition waits for
//! records that are in another ledger; when that one was uploaded, by whomever, the image says so.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use crate::base::{EntryId, LedgerId, Offset, PartitionId};
use crate::metadata::{Image, Ledger};
use crate::partition::{Collected, Partition, Recovered, UploadRun};

use super::Broker;
use super::exposure::Exposed;
use super::opening::is_of;
use super::upload::{RUNS_MAX, UploadError};

impl Broker {
    /// What every partition gives to an upload of `from..through` of a ledger. The cut moves down to `from` when nothing can
    /// be uploaded yet, and lower than `through` where partitions wait, or where they are more than one object takes.
    pub(super) async fn collect(
        &self,
        image: &Image,
        id: LedgerId,
        ledger: &Ledger,
        through: EntryId,
    ) -> Result<(Vec<UploadRun>, EntryId), UploadError> {
        let from = ledger.uploaded;
        let mut through = through;
        loop {
            let (runs, blocked) = match is_of(ledger, self.node, self.epoch) {
                true => self.collect_own(id, through).await?,
                false => self.collect_held(image, id, (from, through)).await?,
            };
            match blocked.filter(|blocked| *blocked < through) {
                Some(blocked) if blocked <= from => return Ok((Vec::new(), from)),
                Some(blocked) => through = blocked,
                None if runs.len() <= RUNS_MAX => return Ok((runs, through)),
                None => through = cut_after(&runs, RUNS_MAX),
            }
        }
    }

    /// From partitions, open or departed.
    async fn collect_own(
        &self,
        ledger: LedgerId,
        through: EntryId,
    ) -> Result<(Vec<UploadRun>, Option<EntryId>), UploadError> {
        let partitions = self.registry.with_records();
        let blocked = partitions.iter().filter_map(|partition| partition.collect_upload(ledger, through).blocked).min();
        let through = blocked.unwrap_or(through).min(through);
        let mut runs = Vec::new();
        for partition in &partitions {
            runs.extend(self.run_of(partition, ledger, through).await?);
        }
        runs.sort_by_key(|run| run.partition);
        Ok((runs, blocked))
    }

    /// What a partition gives, with the state of its producers in it.
    async fn run_of(
        &self,
        partition: &Partition,
        ledger: LedgerId,
        through: EntryId,
    ) -> Result<Option<UploadRun>, UploadError> {
        let Collected { run, .. } = partition.collect_upload(ledger, through);
        if run.is_none() || !partition.needs_producer_state() {
            return Ok(run);
        }
        // The footer has to hold producers that have been quiet since the last upload, too.
        self.load_producer_state(partition).await?;
        Ok(partition.collect_upload(ledger, through).run)
    }

    /// From what is held of a ledger that another process wrote.
    async fn collect_held(
        &self,
        image: &Image,
        ledger: LedgerId,
        (from, through): (EntryId, EntryId),
    ) -> Result<(Vec<UploadRun>, Option<EntryId>), UploadError> {
        let held_to = self.holdings.held_to(ledger, from);
        let mut blocked = (held_to < through).then_some(held_to);
        let through = held_to.min(through);
        let entries = self.holdings.entries(ledger, from, through);
        if from < through && entries.first().is_none_or(|first| first.entry != from) {
            // What is held follows a newer image than this one.
            return Ok((Vec::new(), Some(from)));
        }
        // Of a topic that was deleted nothing is uploaded.
        let there = entries.iter().map(|entry| entry.partition).filter(|id| image.partition(*id).is_some());
        let partitions: HashSet<PartitionId> = there.collect();
        let mut tails = BTreeMap::new();
        for id in partitions {
            let Some(partition) = image.partition(id) else { continue };
            let held = self.holdings.held(id);
            let tail = held.into_iter().filter(|b| b.ledger == ledger && (from..through).contains(&b.entry)).collect();
            let (tail, waits) = following(partition.uploaded_end, tail);
            blocked = blocked.into_iter().chain(waits).min();
            tails.insert(id, tail);
        }
        let through = blocked.unwrap_or(through);
        let mut runs = Vec::new();
        for (id, mut tail) in tails {
            let Some((topic, partition)) = image.topics.get(&id.topic).zip(image.partition(id)) else { continue };
            tail.retain(|batch| batch.entry < through);
            let (Some(first), Some(last)) = (tail.first(), tail.last()) else { continue };
            let (base, end) = (first.header.base_offset, last.header.next_offset());
            // Whoever leads it has the state of its producers at hand. Its view may be newer or older by a step.
            if let Some(open) = self.registry.get(id)
                && let Some(run) = self.run_of(&open, ledger, through).await?
                && (run.base, run.end) == (base, end)
            {
                runs.push(run);
                continue;
            }
            let now_ms = self.clock.wall_ms();
            let shadow = Partition::open_shadow(id, topic.name.clone(), partition, tail, now_ms);
            runs.extend(self.run_of(&shadow?, ledger, through).await?);
        }
        Ok((runs, blocked))
    }

    /// Puts the entries of ledgers that this node is to upload in the queue, and takes out those that others upload.
    /// Answers the ledgers that are not wholly here.
    pub(super) fn adopt_ledgers(&self, image: &Image) -> Vec<LedgerId> {
        let queued = self.registry.exposed_ledgers();
        for id in &queued {
            match image.ledgers.get(id) {
                Some(ledger) if is_of(ledger, self.node, self.epoch) || ledger.uploader() == self.node => {
                    self.registry.uploaded(*id, ledger.uploaded);
                }
                // This image is older than the ledger.
                None if id.0 >= image.next_ledger => {}
                // Somebody else's by now, or finished and forgotten.
                _ => self.registry.uploaded(*id, EntryId(u64::MAX)),
            }
        }
        let mut missing = Vec::new();
        for (id, ledger) in &image.ledgers {
            let Some(end) = ledger.end.filter(|end| ledger.uploaded < *end) else { continue };
            let own = is_of(ledger, self.node, self.epoch);
            if own || ledger.uploader() != self.node || queued.contains(id) {
                continue;
            }
            if self.holdings.held_to(*id, ledger.uploaded) < end {
                missing.push(*id);
                continue;
            }
            let at = self.clock.boottime();
            let entries = self.holdings.entries(*id, ledger.uploaded, end);
            let exposed = entries.iter().map(|e| Exposed { ledger: *id, entry: e.entry, bytes: e.bytes, at });
            self.registry.expose(exposed);
        }
        missing
    }

    /// Copies ledgers here that this node is to upload, beside everything else.
    pub(super) fn pull_ledgers(self: &Arc<Self>, ledgers: Vec<LedgerId>) {
        for ledger in ledgers {
            let broker = self.clone();
            tokio::spawn(async move {
                broker.pull(ledger).await;
            });
        }
    }
}

/// The batches of one ledger that follow one another from `uploaded_end` on, and the entry of the first that does not.
fn following(uploaded_end: Offset, mut tail: Vec<Recovered>) -> (Vec<Recovered>, Option<EntryId>) {
    tail.sort_by_key(|batch| batch.entry);
    let mut end = uploaded_end;
    let whole = tail.iter().take_while(|batch| {
        let follows = batch.header.base_offset == end;
        end = batch.header.next_offset();
        follows
    });
    let whole = whole.count();
    let waits = tail.get(whole).map(|batch| batch.entry);
    tail.truncate(whole);
    (tail, waits)
}

/// The entry after which the `limit`-th different partition has had its first batch.
fn cut_after(runs: &[UploadRun], limit: usize) -> EntryId {
    let mut entries: Vec<(EntryId, PartitionId)> =
        runs.iter().flat_map(|run| run.batches.iter().map(|b| (b.entry, run.partition))).collect();
    entries.sort_unstable();
    let mut seen = HashSet::new();
    for (entry, partition) in &entries {
        if seen.insert(*partition) && seen.len() > limit {
            return *entry;
        }
    }
    entries.last().map_or(EntryId(0), |(entry, _)| entry.next())
}
