//! One pass over one partition: fill the map of keys from what is dirty, then write again every segment that has
//! something to lose.
//!
//! Every range that is written ends with a batch that ends there, emptied if need be: a reader who asks for an offset
//! below the end of a range always finds a batch in it. A range that cannot be read stays as it is; from it on
//! tombstones, markers and lists of aborted transactions stay as well.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use crate::base::{Offset, ProducerId};
use crate::batch::StoredBatch;
use crate::batch::compact::{
    AbortedSpan, Cleaned, Cleaner, Indexed, KeyMap, LastBatch, Policy, Transactions, index_keys,
};
use crate::metadata::{Command, MergeInput, MergeOutput};
use crate::object::{
    AbortedTransaction, BuildError, Built, ObjectBuilder, ObjectRead, PartitionState, ReadError as ObjectError,
};
use crate::partition::Partition;

use super::metrics::CompactionMetrics;
use super::pace::Pacer;
use super::plan::{self, Dirt, Stored};
use crate::broker::upload::{Part, UploadError, blocking, build};
use crate::broker::{Broker, FetchError, TopicSettings};

/// Bytes of batches in one step, between two rests.
const STEP_BYTES: usize = 1024 * 1024;

/// A pass under way.
struct Pass<'a> {
    broker: &'a Broker,
    partition: &'a Partition,
    ranges: Vec<Stored>,
    from: Offset,
    /// Exclusive; comes down when the map of keys is full.
    to: Offset,
    pacer: Pacer,
    /// First offsets of ranges that could not be read.
    damaged: HashSet<Offset>,
}

/// What became of a batch. The batch before is not held any longer: a segment is in memory once.
enum Judged {
    Same(StoredBatch),
    Changed(StoredBatch),
    /// Stays only where the segment ends; true when it had records until now.
    Filler(StoredBatch, bool),
    Gone,
}

/// A segment while it is put together.
#[derive(Default)]
struct Output {
    batches: Vec<StoredBatch>,
    /// The last batch is only there because a range ended with it.
    ends_in_filler: bool,
    changed: bool,
    /// State of the last range.
    state: PartitionState,
    /// Of all its ranges.
    aborted: Vec<AbortedTransaction>,
}

impl Broker {
    /// Compacts a partition. False when there is nothing to do after all, or somebody else works on it.
    pub(super) async fn compact(&self, partition: &Partition) -> Result<bool, UploadError> {
        let Some(_claim) = self.compaction.claim(partition.id) else { return Ok(false) };
        let image = self.image();
        let (Some(topic), Some(known)) = (image.topics.get(&partition.id.topic), image.partition(partition.id)) else {
            return Ok(false);
        };
        let settings = self.topic_settings(topic);
        let ranges = self.stored_ranges(partition, known).await?;
        let Some((_, newest)) = ranges.last() else { return Ok(false) };
        // What is open as of the uploaded end is at least what is open now: nothing below is undecided.
        let state = self.objects.state(partition.id, newest).await?;
        let open = state.open_transactions.iter().map(|open| open.first_offset).min();
        let stable_end = open.map_or(newest.end, |first| first.min(newest.end));
        let window = (known.cleaned_end.max(known.log_start), stable_end);
        let dirt = plan::dirt(&ranges, window, &settings.compaction, self.clock.wall_ms());
        let Some(dirt) = dirt.filter(|d| settings.cleanup_policy.compact && d.is_due(&settings.compaction)) else {
            return Ok(false);
        };
        let pacer = Pacer::new(self.broker_settings().cleaner.bytes_per_second, dirt.is_behind(&settings.compaction));
        let Dirt { from, to, .. } = dirt;
        let mut pass = Pass { broker: self, partition, ranges, from, to, pacer, damaged: HashSet::new() };
        pass.run(&settings, last_batches(&state)).await
    }
}

impl Pass<'_> {
    async fn run(
        &mut self,
        settings: &TopicSettings,
        last_batches: HashMap<ProducerId, LastBatch>,
    ) -> Result<bool, UploadError> {
        let transactions = self.aborted_transactions().await?;
        let (keys, transactions) = self.index(transactions).await?;
        if self.to <= self.from {
            return Ok(false);
        }
        let policy = Policy {
            end: self.to,
            now_ms: self.broker.clock.wall_ms(),
            delete_retention_ms: settings.compaction.delete_retention_ms,
        };
        let mut cleaner = Cleaner::new(keys, policy, transactions, last_batches);
        let limit = settings.segment_bytes.min(self.broker.options.object_bytes_max);
        let ranges = std::mem::take(&mut self.ranges);
        for group in plan::groups(&ranges, self.to, limit) {
            cleaner = self.rewrite(group, cleaner).await?;
        }
        let (metrics, counts) = (self.metrics(), cleaner.counts);
        CompactionMetrics::add(&metrics.passes, 1);
        CompactionMetrics::add(&metrics.records_removed, counts.records_removed);
        CompactionMetrics::add(&metrics.records_keyless, counts.records_keyless);
        CompactionMetrics::add(&metrics.damaged, counts.batches_broken);
        tracing::info!(
            partition = %self.partition.id, from = %self.from, to = %self.to, kept = counts.records_kept,
            removed = counts.records_removed, "compacted"
        );
        self.commit(Vec::new(), None, true).await?;
        Ok(true)
    }

    fn metrics(&self) -> &CompactionMetrics {
        &self.broker.compaction.metrics
    }

    /// The aborted transactions with records in the dirty part: their markers may lie beyond it. Where that cannot be
    /// told any more, the pass ends.
    async fn aborted_transactions(&mut self) -> Result<Transactions, UploadError> {
        let mut transactions = Transactions::default();
        let mut undecided = None;
        for (base, range) in self.ranges.iter().filter(|(_, range)| range.end > self.from) {
            match self.broker.objects.state(self.partition.id, range).await {
                Ok(state) => {
                    transactions.tell_aborted(state.aborted_transactions.iter().map(span));
                    undecided = state.open_transactions.iter().map(|open| open.first_offset).min();
                }
                Err(error @ ObjectError::Corrupt { .. }) => {
                    tracing::error!(partition = %self.partition.id, %error, "compaction ends before this range");
                    self.to = self.to.min(*base).min(undecided.unwrap_or(*base));
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(transactions)
    }

    /// Fills the map of keys; `to` comes down to what found room in it.
    async fn index(&mut self, mut transactions: Transactions) -> Result<(KeyMap, Transactions), UploadError> {
        let dirty: Vec<_> =
            self.ranges.iter().filter(|(base, range)| range.end > self.from && *base < self.to).copied().collect();
        let expected = dirty.iter().map(|(_, range)| range.records).fold(0, u64::saturating_add);
        let settings = self.broker.broker_settings().cleaner;
        let mut salt = [0; 16];
        self.broker.entropy.fill(&mut salt);
        let map = move || Ok(KeyMap::new(settings.buffer_bytes, settings.load_percent, expected, salt)?);
        let mut keys = blocking(map).await?;
        for (base, range) in dirty {
            let mut at = base.max(self.from);
            while at < range.end.min(self.to) {
                let began = self.broker.clock.boottime();
                let Some(read) = self.read(&(base, range), at).await? else { break };
                at = read.next;
                let window = (self.from, self.to);
                let work = move || Ok(index_step(keys, transactions, &read.batches, window));
                let full;
                (keys, transactions, full) = blocking(work).await?;
                self.rest(began, read.bytes as u64).await;
                if let Some(full) = full {
                    CompactionMetrics::add(&self.metrics().maps_full, 1);
                    self.to = full;
                    return Ok((keys, transactions));
                }
            }
        }
        Ok((keys, transactions))
    }

    /// The next step of a range; `None` when it is damaged.
    async fn read(&mut self, (base, range): &Stored, at: Offset) -> Result<Option<ObjectRead>, UploadError> {
        match self.broker.objects.read_to_merge(self.partition.id, range, at, STEP_BYTES).await {
            Ok(read) if read.batches.is_empty() => Err(FetchError::Missing(at).into()),
            Ok(read) => {
                CompactionMetrics::add(&self.metrics().bytes_read, read.bytes as u64);
                Ok(Some(read))
            }
            Err(error @ ObjectError::Corrupt { .. }) => {
                self.leave(*base, &error);
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Notes that a range stays as it is.
    fn leave(&mut self, base: Offset, error: &dyn std::fmt::Display) {
        if self.damaged.insert(base) {
            CompactionMetrics::add(&self.metrics().damaged, 1);
            tracing::error!(partition = %self.partition.id, %base, %error, "compaction leaves a range as it is");
        }
    }

    /// Rests after a step that began at `began`.
    async fn rest(&mut self, began: Duration, bytes: u64) {
        let rest = self.pacer.rest(began, self.broker.clock.boottime(), bytes);
        tokio::time::sleep(rest).await;
    }

    /// Writes neighbouring ranges as one segment; what lies on either side of a damaged one, as two.
    async fn rewrite(&mut self, group: &[Stored], mut cleaner: Cleaner) -> Result<Cleaner, UploadError> {
        let (mut output, mut first) = (Output::default(), 0);
        for (place, stored) in group.iter().enumerate() {
            if self.damaged.contains(&stored.0) {
                cleaner.met_damage();
            }
            let whole;
            (cleaner, whole) = self.clean(stored, cleaner, &mut output).await?;
            if !whole {
                cleaner.met_damage();
                self.replace(&group[first..place], std::mem::take(&mut output), &mut cleaner).await?;
                first = place + 1;
            }
        }
        self.replace(&group[first..], output, &mut cleaner).await?;
        Ok(cleaner)
    }

    /// Adds what stays of a range to the output. False, and nothing is added, when it cannot be read.
    async fn clean(
        &mut self,
        stored: &Stored,
        mut cleaner: Cleaner,
        output: &mut Output,
    ) -> Result<(Cleaner, bool), UploadError> {
        let (base, range) = *stored;
        let state = match self.broker.objects.state(self.partition.id, &range).await {
            Ok(state) => state,
            Err(error @ ObjectError::Corrupt { .. }) => {
                self.leave(base, &error);
                return Ok((cleaner, false));
            }
            Err(error) => return Err(error.into()),
        };
        cleaner.tell_aborted(state.aborted_transactions.iter().map(span));
        let (mut judged, mut at) = (Vec::new(), base);
        while at < range.end {
            let began = self.broker.clock.boottime();
            let Some(read) = self.read(stored, at).await? else { return Ok((cleaner, false)) };
            at = read.next;
            let bytes = read.bytes as u64;
            let step;
            (cleaner, step) = blocking(move || Ok(clean_step(cleaner, read.batches, range.end))).await?;
            judged.extend(step);
            self.rest(began, bytes).await;
        }
        output.add(judged);
        output.aborted.extend_from_slice(&state.aborted_transactions);
        output.state = state;
        Ok((cleaner, true))
    }

    /// Puts the output in the place of its ranges, unless it is the same as they are.
    async fn replace(&mut self, group: &[Stored], output: Output, cleaner: &mut Cleaner) -> Result<(), UploadError> {
        let (Some((base, _)), Some((_, last))) = (group.first(), group.last()) else { return Ok(()) };
        let before: u64 = group.iter().map(|(_, range)| range.bytes).fold(0, u64::saturating_add);
        let Output { batches, changed, mut state, mut aborted, .. } = output;
        let told = aborted.len();
        if !cleaner.has_met_damage() {
            // Nothing is left of these. A list that outlived its marker would hide what the producer wrote since.
            aborted.retain(|aborted| aborted.last_offset >= self.to);
        }
        if !changed && aborted.len() == told {
            return Ok(());
        }
        aborted.sort_unstable_by_key(|aborted| (aborted.last_offset, aborted.producer));
        aborted.dedup();
        state.aborted_transactions = aborted;
        state.log_start = self.partition.positions().log_start;
        let part = Part { partition: self.partition.id, base: *base, end: last.end, state, batches };
        let began = self.broker.clock.boottime();
        let Some(written) = self.store(group, part).await? else {
            cleaner.met_damage();
            return Ok(());
        };
        let after: u64 = written.ranges.iter().map(|range| range.bytes).sum();
        CompactionMetrics::add(&self.metrics().bytes_written, written.bytes);
        CompactionMetrics::add(&self.metrics().bytes_reclaimed, before.saturating_sub(after));
        self.rest(began, written.bytes).await;
        Ok(())
    }

    /// Prepares, puts and commits a segment. `None` when it would be too large for an object, which leaves its ranges
    /// as they are.
    async fn store(&self, group: &[Stored], part: Part) -> Result<Option<Built>, UploadError> {
        let object = self.broker.prepare_objects(1).await?;
        let cluster = self.broker.image().cluster;
        let stored = async {
            let built = blocking(move || Ok(build(ObjectBuilder::new(cluster, object), vec![part])?)).await?;
            self.broker.objects.put(object, &built.pieces).await?;
            let inputs = group.iter().map(|(base, range)| MergeInput {
                partition: self.partition.id,
                base: *base,
                object: range.object,
            });
            let output = MergeOutput { object, bytes: built.bytes, ranges: built.ranges.clone() };
            self.commit(inputs.collect(), Some(output), false).await?;
            Ok(built)
        };
        match stored.await {
            Ok(built) => Ok(Some(built)),
            Err(error) => {
                self.broker.abort(object).await;
                match error {
                    UploadError::Build(error @ BuildError::TooLarge) => {
                        tracing::warn!(partition = %self.partition.id, %error, "compaction leaves a segment as it is");
                        Ok(None)
                    }
                    other => Err(other),
                }
            }
        }
    }

    async fn commit(
        &self,
        inputs: Vec<MergeInput>,
        output: Option<MergeOutput>,
        finished: bool,
    ) -> Result<(), UploadError> {
        let command = Command::CommitMerge {
            node: self.broker.node,
            epoch: self.broker.epoch,
            inputs,
            outputs: output.into_iter().collect(),
            cleaned: if finished { vec![(self.partition.id, self.to)] } else { Vec::new() },
            now_ms: self.broker.clock.wall_ms(),
        };
        self.broker.propose(command).await?;
        Ok(())
    }
}

impl Output {
    /// Appends the batches of the next range. A filler stays only where the output ends.
    fn add(&mut self, judged: Vec<Judged>) {
        if self.ends_in_filler {
            self.batches.pop();
            (self.ends_in_filler, self.changed) = (false, true);
        }
        for judged in judged {
            match judged {
                Judged::Same(batch) => self.batches.push(batch),
                Judged::Changed(batch) => {
                    self.changed = true;
                    self.batches.push(batch);
                }
                Judged::Filler(filler, is_new) => {
                    self.changed |= is_new;
                    self.ends_in_filler = true;
                    self.batches.push(filler);
                }
                Judged::Gone => self.changed = true,
            }
        }
    }
}

/// Puts the keys of some batches into the map; also answers the first offset that found no room.
fn index_step(
    mut keys: KeyMap,
    transactions: Transactions,
    batches: &[StoredBatch],
    window: (Offset, Offset),
) -> (KeyMap, Transactions, Option<Offset>) {
    for batch in batches {
        // What cannot be read is reported when it is judged, and stays.
        if let Ok(Indexed::Full(at)) = index_keys(&mut keys, batch, window, &transactions) {
            return (keys, transactions, Some(at));
        }
    }
    (keys, transactions, None)
}

fn clean_step(mut cleaner: Cleaner, batches: Vec<StoredBatch>, range_end: Offset) -> (Cleaner, Vec<Judged>) {
    let judge = |batch: StoredBatch| match cleaner.clean(&batch, range_end) {
        Cleaned::Same => Judged::Same(batch),
        Cleaned::Changed(new) => Judged::Changed(new),
        Cleaned::Filler(filler) => {
            let is_new = filler != batch;
            Judged::Filler(filler, is_new)
        }
        Cleaned::Gone => Judged::Gone,
        Cleaned::Broken(error) => {
            let offset = batch.header().base_offset;
            tracing::error!(%offset, %error, "compaction leaves a damaged batch as it is");
            Judged::Same(batch)
        }
    };
    let judged = batches.into_iter().map(judge).collect();
    (cleaner, judged)
}

fn span(aborted: &AbortedTransaction) -> AbortedSpan {
    AbortedSpan { producer: aborted.producer, first_offset: aborted.first_offset, last_offset: aborted.last_offset }
}

/// The batch of each active producer that has to stay.
fn last_batches(state: &PartitionState) -> HashMap<ProducerId, LastBatch> {
    let of = |producer: &crate::object::ProducerEntry| match producer.batches.last() {
        Some(last) => LastBatch::At(last.base_offset),
        None => LastBatch::Marker { epoch: producer.epoch },
    };
    state.producers.iter().map(|producer| (producer.id, of(producer))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::sample;

    #[test]
    fn a_filler_stays_only_at_the_end_of_a_segment() {
        let mut batches = (0..4).map(|i| {
            let mut batch = sample::batch(1, 0);
            batch.place(Offset(i), crate::base::LeaderEpoch(0));
            batch
        });
        let mut next = || batches.next().expect("enough");
        let (a, b, c) = (next(), next(), next());
        let mut output = Output::default();
        output.add(vec![Judged::Same(a.clone()), Judged::Filler(b, false)]);
        assert_eq!((output.batches.len(), output.changed), (2, false), "it was a filler before");
        output.add(vec![Judged::Same(c.clone())]);
        assert_eq!((output.batches, output.changed), (vec![a, c], true));
    }
}
