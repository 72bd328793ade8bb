//! The state of one partition and its transitions. Pure: no lock, no I/O, no clock.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::{Notify, oneshot};

use crate::base::{EntryId, LeaderEpoch, LedgerId, Offset, PartitionId};
use crate::batch::{EndMarker, Header, StoredBatch};
use crate::metadata;
use crate::object::{AbortedTransaction, PartitionState};
use crate::wal::Location;

use super::epochs::EpochHistory;
use super::producer_state::ProducerState;
use super::tail::{Tail, TailBatch};
use super::{AppendError, Isolation, Positions, ReadError, ReadPlan};

/// A batch that recovery found in the WAL.
#[derive(Clone, Debug)]
pub struct Recovered {
    pub header: Header,
    pub bytes: usize,
    pub ledger: LedgerId,
    pub entry: EntryId,
    pub location: Location,
    /// Of a control batch: how it ended its transaction.
    pub marker: Option<EndMarker>,
}

/// The WAL lacks records that were acknowledged and are nowhere else.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("partition {partition}: offsets {from} to {to} are neither in the WAL nor in object storage")]
pub struct RecoveredGap {
    pub partition: PartitionId,
    pub from: Offset,
    /// Exclusive.
    pub to: Offset,
}

/// What one upload takes from one partition.
#[derive(Clone, Debug)]
pub struct UploadRun {
    pub partition: PartitionId,
    pub base: Offset,
    /// Exclusive.
    pub end: Offset,
    pub batches: Vec<TailBatch>,
    /// As of `end`.
    pub state: PartitionState,
    /// Leader epochs that begin in the run.
    pub epochs: Vec<(LeaderEpoch, Offset)>,
}

/// What a partition gives to an upload of a ledger.
#[derive(Debug, Default)]
pub struct Collected {
    pub run: Option<UploadRun>,
    /// The first entry of the ledger below the cut that cannot be taken yet: records of the partition before it are in
    /// another ledger, which has to be uploaded first.
    pub blocked: Option<EntryId>,
}

/// A batch has become durable.
pub(super) struct Durable {
    pub base: Offset,
    /// Who may be answered now.
    pub answers: Vec<oneshot::Sender<()>>,
    /// Whom to wake because the high watermark has moved.
    pub wake: Vec<Arc<Notify>>,
}

pub(super) struct State {
    pub leader_epoch: LeaderEpoch,
    pub history: EpochHistory,
    pub log_start: Offset,
    pub uploaded_end: Offset,
    pub durable: Offset,
    pub next: Offset,
    pub tail: Tail,
    /// `None` while nothing is known of any producer.
    pub producers: Option<Box<ProducerState>>,
    /// What object storage knows of producers and transactions as of the uploaded end is in `producers`, too.
    pub producers_loaded: bool,
    pub waiters: VecDeque<(Offset, oneshot::Sender<()>)>,
    pub fetchers: Vec<Arc<Notify>>,
    /// No appends: the partition is about to be handed over.
    pub stopped: bool,
    /// Neither appends nor reads: another node leads.
    pub closed: bool,
}

impl State {
    pub fn open(
        id: PartitionId,
        image: &metadata::Partition,
        recovered: Vec<Recovered>,
        now_ms: i64,
    ) -> Result<State, RecoveredGap> {
        let mut state = State::at_uploaded_end(image);
        for batch in recovered {
            state.recover(id, batch, now_ms)?;
        }
        state.lead(id, image)?;
        Ok(state)
    }

    /// The state of a partition that another node leads, for uploading what it has in a ledger: it begins no epoch of
    /// its own, and a log start beyond its end is nothing unusual.
    pub fn open_shadow(
        id: PartitionId,
        image: &metadata::Partition,
        recovered: Vec<Recovered>,
        now_ms: i64,
    ) -> Result<State, RecoveredGap> {
        let mut state = State::at_uploaded_end(image);
        for batch in recovered {
            state.recover(id, batch, now_ms)?;
        }
        state.closed = true;
        Ok(state)
    }

    /// The state with which this node leads again, after others have appended `recovered`. It stays as it is.
    pub fn reopen(
        &self,
        id: PartitionId,
        image: &metadata::Partition,
        recovered: Vec<Recovered>,
        now_ms: i64,
    ) -> Result<State, RecoveredGap> {
        let mut state = State {
            leader_epoch: image.leader_epoch,
            history: self.history.clone(),
            tail: self.tail.durable_only(),
            next: self.durable,
            producers: self.producers.clone(),
            waiters: VecDeque::new(),
            fetchers: Vec::new(),
            stopped: false,
            closed: false,
            ..*self
        };
        // Those that became durable after it departed still have copies, which the registry does not count for this one.
        state.tail.forget_all_memory();
        for batch in recovered {
            state.recover(id, batch, now_ms)?;
        }
        state.follow(image);
        state.lead(id, image)?;
        Ok(state)
    }

    /// Everything recovered is there: from here on this node appends, in an epoch of its own.
    fn lead(&mut self, id: PartitionId, image: &metadata::Partition) -> Result<(), RecoveredGap> {
        if image.log_start > self.next {
            return Err(RecoveredGap { partition: id, from: self.next, to: image.log_start });
        }
        self.history.begin(self.leader_epoch, self.next);
        Ok(())
    }

    fn at_uploaded_end(image: &metadata::Partition) -> State {
        State {
            leader_epoch: image.leader_epoch,
            history: EpochHistory::new(image.epochs.clone()),
            log_start: image.log_start,
            uploaded_end: image.uploaded_end,
            durable: image.uploaded_end,
            next: image.uploaded_end,
            tail: Tail::default(),
            producers: None,
            // Without anything in object storage there is nothing to load.
            producers_loaded: image.uploaded_end == Offset::ZERO,
            waiters: VecDeque::new(),
            fetchers: Vec::new(),
            stopped: false,
            closed: false,
        }
    }

    fn recover(&mut self, id: PartitionId, found: Recovered, now_ms: i64) -> Result<(), RecoveredGap> {
        let header = found.header;
        if header.next_offset() <= self.uploaded_end {
            return Ok(());
        }
        if header.base_offset != self.next {
            return Err(RecoveredGap { partition: id, from: self.next, to: header.base_offset });
        }
        self.history.begin(header.leader_epoch, header.base_offset);
        self.record_producer(&header, found.marker, now_ms);
        let mut batch = TailBatch::new(&header, found.bytes);
        batch.settle(found.ledger, found.entry, found.location);
        self.next = batch.end();
        self.durable = self.next;
        self.tail.push_durable(batch);
        Ok(())
    }

    fn record_producer(&mut self, header: &Header, marker: Option<EndMarker>, now_ms: i64) {
        if header.has_producer() {
            let loaded = self.producers_loaded;
            self.producers.get_or_insert_default().record(header, marker, loaded, now_ms);
        }
    }

    pub fn takes_appends(&self) -> Result<(), AppendError> {
        match (self.closed, self.stopped) {
            (true, _) => Err(AppendError::Closed),
            (false, true) => Err(AppendError::Moving),
            (false, false) => Ok(()),
        }
    }

    /// Records a batch that has entered the ledger; answers what to wait on for its durability.
    pub fn appended(
        &mut self,
        header: &Header,
        stored: StoredBatch,
        marker: Option<EndMarker>,
        now_ms: i64,
    ) -> Option<oneshot::Receiver<()>> {
        let mut batch = TailBatch::new(header, stored.len());
        batch.memory = Some(stored);
        self.record_producer(header, marker, now_ms);
        self.next = batch.end();
        self.tail.push(batch);
        self.wait_for(self.next)
    }

    /// What to wait on until everything below `end` is durable; `None` when it is.
    pub fn wait_for(&mut self, end: Offset) -> Option<oneshot::Receiver<()>> {
        if end <= self.durable {
            return None;
        }
        let (answer, waiting) = oneshot::channel();
        // Nearly always at the back; a duplicate of a batch that still waits goes in between.
        let at = self.waiters.partition_point(|(other, _)| *other <= end);
        self.waiters.insert(at, (end, answer));
        Some(waiting)
    }

    /// The oldest waiting batch is durable.
    pub fn synced(&mut self, ledger: LedgerId, entry: EntryId, location: Location) -> Option<Durable> {
        let base = self.durable;
        let end = self.tail.synced(ledger, entry, location)?;
        self.durable = end;
        let due = self.waiters.partition_point(|(waits_for, _)| *waits_for <= end);
        let answers = self.waiters.drain(..due).map(|(_, answer)| answer).collect();
        Some(Durable { base, answers, wake: std::mem::take(&mut self.fetchers) })
    }

    pub fn positions(&self) -> Positions {
        Positions {
            leader_epoch: self.leader_epoch,
            log_start: self.log_start,
            uploaded_end: self.uploaded_end,
            high_watermark: self.durable,
            last_stable: self.last_stable(),
            next: self.next,
        }
    }

    /// First offset above what every transaction has settled: the first one that is open, or the high watermark.
    /// Never below the log start, which may pass an open transaction. `None` when object storage knows more than is
    /// loaded.
    pub fn last_stable(&self) -> Option<Offset> {
        if !self.producers_loaded {
            return None;
        }
        let unstable = self.producers.as_ref().and_then(|p| p.first_unstable(self.durable));
        Some(unstable.map_or(self.durable, |first| first.min(self.durable).max(self.log_start)))
    }

    /// First offset from which on this node itself holds the batches, and knows every transaction that ends there.
    pub fn held_from(&self) -> Offset {
        self.tail.start().unwrap_or(self.uploaded_end)
    }

    /// Aborted transactions that may have records in `from..to`. Whole only where `from` is not below
    /// [`State::held_from`].
    pub fn aborted_between(&self, from: Offset, to: Offset) -> Vec<AbortedTransaction> {
        self.producers.as_ref().map_or_else(Vec::new, |p| p.aborted_between(from, to))
    }

    pub fn read(
        &self,
        from: Offset,
        max_bytes: usize,
        at_least_one: bool,
        isolation: Isolation,
    ) -> Result<ReadPlan, ReadError> {
        if self.closed {
            return Err(ReadError::Closed);
        }
        if from < self.log_start || from > self.next {
            return Err(ReadError::OutOfRange { log_start: self.log_start, high_watermark: self.durable });
        }
        let positions = self.positions();
        let limit = match isolation {
            Isolation::ReadUncommitted => self.durable,
            Isolation::ReadCommitted => positions.last_stable.ok_or(ReadError::StateNotLoaded)?,
        };
        let mut plan = ReadPlan { positions, limit, tail: Vec::new(), aborted: Vec::new(), in_objects: false };
        if from >= limit {
            return Ok(plan);
        }
        if self.tail.start().is_none_or(|start| from < start) {
            plan.in_objects = true;
            return Ok(plan);
        }
        let mut bytes = 0;
        for batch in self.tail.durable_from(from).take_while(|b| b.base < limit) {
            let first = plan.tail.is_empty() && at_least_one;
            if !first && bytes + batch.bytes as usize > max_bytes {
                break;
            }
            bytes += batch.bytes as usize;
            plan.tail.push(batch.clone());
        }
        if isolation == Isolation::ReadCommitted
            && let Some(last) = plan.tail.last()
        {
            plan.aborted = self.aborted_between(from, last.end());
        }
        Ok(plan)
    }

    pub fn epoch_end(&self, asked: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        if asked > self.leader_epoch {
            return None;
        }
        self.history.end_of(asked, self.durable).map(|(epoch, end)| (epoch, end.min(self.durable)))
    }

    /// What an upload of `ledger` below `through` takes: objects of one partition follow one another, so only what
    /// begins at the uploaded end.
    pub fn collect_upload(&self, id: PartitionId, ledger: LedgerId, through: EntryId) -> Collected {
        let taken = |b: &TailBatch| b.ledger == ledger && b.entry < through;
        let mut waiting = self.tail.durable_from(self.uploaded_end).peekable();
        let mut batches = Vec::new();
        while let Some(batch) = waiting.next_if(|b| taken(b)) {
            batches.push(batch.clone());
        }
        let blocked = waiting.find(|b| taken(b)).map(|b| b.entry);
        Collected { run: self.run_of(id, batches), blocked }
    }

    fn run_of(&self, id: PartitionId, batches: Vec<TailBatch>) -> Option<UploadRun> {
        let (base, end) = (batches.first()?.base, batches.last()?.end());
        let mut state =
            PartitionState { epochs: self.history.below(end), log_start: self.log_start, ..Default::default() };
        if let Some(producers) = &self.producers {
            producers.describe_run(base, end, &mut state);
        }
        Some(UploadRun { partition: id, base, end, batches, state, epochs: self.history.within(base, end) })
    }

    pub fn follow(&mut self, image: &metadata::Partition) {
        self.log_start = self.log_start.max(image.log_start.min(self.durable));
        if image.uploaded_end > self.uploaded_end {
            self.uploaded_end = image.uploaded_end.min(self.durable);
            let (uploaded, held) = (self.uploaded_end, self.held_from());
            if let Some(producers) = &mut self.producers {
                producers.trim(uploaded, held);
            }
        }
        let cleaned_end = image.cleaned_end.min(self.uploaded_end);
        self.let_go(|tail, _| tail.drop_below(cleaned_end));
    }

    /// Drops batches in object storage whose WAL segment has been used again, and what was kept for reading them.
    pub fn prune(&mut self, oldest_segment: u64) {
        self.let_go(|tail, uploaded_end| tail.prune(uploaded_end, oldest_segment));
    }

    /// Lets the tail drop what is in object storage, and with it what was kept for reading that.
    fn let_go(&mut self, drop: impl FnOnce(&mut Tail, Offset)) {
        let before = self.held_from();
        drop(&mut self.tail, self.uploaded_end);
        let (uploaded, held) = (self.uploaded_end, self.held_from());
        if held != before
            && let Some(producers) = &mut self.producers
        {
            producers.forget_aborted(uploaded, held);
        }
    }

    /// Takes what object storage knew when `as_of` was the uploaded end. Only the first one that fits counts: what is known of
    /// another moment would give the end of one transaction the beginning of another. Whether the state is loaded now.
    pub fn load(&mut self, stored: &PartitionState, as_of: Offset) -> bool {
        if self.producers_loaded {
            return true;
        }
        if as_of != self.uploaded_end {
            return false;
        }
        // Where others have uploaded from the tail meanwhile: of transactions that ended there nobody here knows where they
        // began. They are read from object storage, which does.
        self.let_go(|tail, uploaded_end| tail.drop_below(uploaded_end));
        let (uploaded, held) = (self.uploaded_end, self.held_from());
        if !stored.producers.is_empty() || !stored.open_transactions.is_empty() || self.producers.is_some() {
            let producers = self.producers.get_or_insert_default();
            producers.trim(uploaded, held);
            producers.load_under(stored, as_of);
        }
        self.producers_loaded = true;
        true
    }

    /// Forgets producers without an append since `before_ms`, and the box when nothing is left in it.
    pub fn expire_producers(&mut self, before_ms: i64) {
        if let Some(producers) = &mut self.producers {
            producers.expire(before_ms);
            if producers.is_empty() {
                self.producers = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{NodeId, TopicId};
    use crate::batch::sample;

    const LEDGER: LedgerId = LedgerId(1);
    const ID: PartitionId = PartitionId { topic: TopicId([1; 16]), index: 0 };

    fn location(segment: u64) -> Location {
        Location { segment, offset: 0, len: 0 }
    }

    fn image(uploaded: i64, log_start: i64) -> metadata::Partition {
        let mut image = metadata::Partition::new(NodeId(1));
        (image.uploaded_end, image.log_start) = (Offset(uploaded), Offset(log_start));
        image.leader_epoch = LeaderEpoch(2);
        image
    }

    fn recovered(base: i64, count: i32, entry: u64) -> Recovered {
        let mut batch = sample::batch(count, 100);
        batch.place(Offset(base), LeaderEpoch(1));
        Recovered {
            header: batch.header(),
            bytes: batch.len(),
            ledger: LEDGER,
            entry: EntryId(entry),
            location: location(1),
            marker: None,
        }
    }

    fn read(state: &State, from: i64, max_bytes: usize, at_least_one: bool) -> Result<ReadPlan, ReadError> {
        state.read(Offset(from), max_bytes, at_least_one, Isolation::ReadUncommitted)
    }

    fn append(state: &mut State, count: i32) -> Option<oneshot::Receiver<()>> {
        let mut batch = sample::batch(count, 100);
        batch.place(state.next, state.leader_epoch);
        state.appended(&batch.header(), batch, None, 0)
    }

    #[test]
    fn records_are_invisible_until_they_are_durable() {
        let mut state = State::open(ID, &image(0, 0), vec![], 0).expect("open");
        let mut waiting = append(&mut state, 3).expect("not durable yet");
        let plan = read(&state, 0, 1 << 20, true).expect("in range");
        assert!(plan.tail.is_empty() && !plan.in_objects);
        assert!(waiting.try_recv().is_err());
        let news = state.synced(LEDGER, EntryId(0), location(1)).expect("in turn");
        assert_eq!((news.base, news.answers.len()), (Offset(0), 1));
        assert_eq!(read(&state, 2, 1, true).expect("in range").tail.len(), 1);
        assert!(matches!(read(&state, 4, 1, true), Err(ReadError::OutOfRange { .. })));
    }

    #[test]
    fn limits_hold_after_the_first_batch() {
        let mut state = State::open(ID, &image(0, 0), vec![], 0).expect("open");
        for entry in 0..3 {
            let _ = append(&mut state, 3);
            state.synced(LEDGER, EntryId(entry), location(1));
        }
        assert_eq!(read(&state, 0, 1, true).expect("in range").tail.len(), 1);
        assert_eq!(read(&state, 0, 1, false).expect("in range").tail.len(), 0);
        assert_eq!(read(&state, 0, 1 << 20, false).expect("in range").tail.len(), 3);
    }

    #[test]
    fn recovery_goes_on_where_the_wal_ends_and_refuses_a_gap() {
        let state = State::open(ID, &image(10, 0), vec![recovered(5, 5, 0), recovered(10, 2, 1)], 0).expect("open");
        assert_eq!((state.next, state.durable, state.tail.start()), (Offset(12), Offset(12), Some(Offset(10))));
        assert!(read(&state, 3, 1, true).expect("in range").in_objects);
        assert_eq!(state.epoch_end(LeaderEpoch(1)), Some((LeaderEpoch(1), Offset(12))));
        let gap = State::open(ID, &image(10, 0), vec![recovered(11, 2, 1)], 0).err();
        assert_eq!(gap, Some(RecoveredGap { partition: ID, from: Offset(10), to: Offset(11) }));
        assert!(State::open(ID, &image(10, 11), vec![], 0).is_err(), "records below the log start were durable");
    }

    #[test]
    fn an_upload_takes_what_is_durable_below_the_cut() {
        let mut state = State::open(ID, &image(0, 0), vec![], 0).expect("open");
        for _ in 0..3 {
            let _ = append(&mut state, 2);
        }
        state.synced(LEDGER, EntryId(0), location(1));
        state.synced(LEDGER, EntryId(3), location(1));
        let run = state.collect_upload(ID, LEDGER, EntryId(100)).run.expect("something");
        assert_eq!((run.base, run.end, run.batches.len()), (Offset(0), Offset(4), 2));
        assert_eq!(run.epochs, [(LeaderEpoch(2), Offset(0))]);
        let run = state.collect_upload(ID, LEDGER, EntryId(3)).run.expect("something");
        assert_eq!(run.end, Offset(2));
        state.follow(&image(4, 0));
        assert!(state.collect_upload(ID, LEDGER, EntryId(100)).run.is_none());
    }

    #[test]
    fn what_compaction_has_rewritten_is_read_from_objects() {
        let mut state = State::open(ID, &image(0, 0), vec![recovered(0, 10, 0), recovered(10, 5, 1)], 0).expect("open");
        let mut cleaned = image(15, 0);
        state.follow(&cleaned);
        assert!(!state.read(Offset(3), 1, true, Isolation::ReadUncommitted).expect("in range").in_objects);
        cleaned.cleaned_end = Offset(10);
        state.follow(&cleaned);
        assert!(state.read(Offset(3), 1, true, Isolation::ReadUncommitted).expect("in range").in_objects);
        assert!(!state.read(Offset(10), 1, true, Isolation::ReadUncommitted).expect("in range").in_objects);
    }

    #[test]
    fn positions_never_move_back() {
        let mut state = State::open(ID, &image(0, 0), vec![recovered(0, 10, 0)], 0).expect("open");
        state.follow(&image(5, 4));
        state.follow(&image(2, 1));
        assert_eq!((state.uploaded_end, state.log_start), (Offset(5), Offset(4)));
    }
    fn transactional(state: &mut State, entry: u64) {
        let mut batch = sample::produced(2, 100, 9, 0, entry as i32 * 2);
        batch.place(state.next, state.leader_epoch);
        let header = batch.header();
        let header = Header { attributes: header.attributes | 0x10, ..header };
        let _ = state.appended(&header, batch, None, 0);
    }

    fn abort(state: &mut State) {
        let marker = EndMarker { commit: false, coordinator_epoch: 0 };
        let mut batch = crate::batch::end_marker(crate::base::ProducerId(9), 0, marker, 100).expect("small");
        batch.place(state.next, state.leader_epoch);
        let _ = state.appended(&batch.header(), batch, Some(marker), 0);
    }

    fn committed(state: &State, from: i64) -> (Vec<i64>, usize) {
        let plan = state.read(Offset(from), 1 << 20, true, Isolation::ReadCommitted).expect("in range");
        (plan.tail.iter().map(|b| b.base.0).collect(), plan.aborted.len())
    }

    #[test]
    fn a_reader_of_what_is_committed_stops_at_the_open_transaction_until_its_end_is_durable() {
        let mut state = State::open(ID, &image(0, 0), vec![], 0).expect("open");
        let _ = append(&mut state, 2);
        transactional(&mut state, 1);
        let _ = append(&mut state, 2);
        for entry in 0..3 {
            state.synced(LEDGER, EntryId(entry), location(1));
        }
        assert_eq!(state.last_stable(), Some(Offset(2)));
        assert_eq!(committed(&state, 0), (vec![0], 0));
        assert_eq!(committed(&state, 3), (vec![], 0), "beyond the last stable offset there is nothing yet");
        assert_eq!(read(&state, 0, 1 << 20, true).expect("in range").tail.len(), 3);
        abort(&mut state);
        assert_eq!(state.last_stable(), Some(Offset(2)), "the marker may still be lost");
        let waiter = Arc::new(Notify::new());
        state.fetchers.push(waiter);
        assert_eq!(state.synced(LEDGER, EntryId(3), location(1)).expect("in turn").wake.len(), 1);
        assert_eq!(state.last_stable(), Some(Offset(7)));
        assert_eq!(committed(&state, 0), (vec![0, 2, 4, 6], 1));
        assert_eq!(committed(&state, 4), (vec![4, 6], 1), "its marker lies in the read");
        assert_eq!(committed(&state, 0).1, 1);
    }

    #[test]
    fn the_log_start_may_pass_an_open_transaction() {
        let mut state = State::open(ID, &image(0, 0), vec![], 0).expect("open");
        transactional(&mut state, 0);
        let _ = append(&mut state, 2);
        for entry in 0..2 {
            state.synced(LEDGER, EntryId(entry), location(1));
        }
        state.follow(&image(0, 3));
        assert_eq!((state.last_stable(), committed(&state, 3)), (Some(Offset(3)), (vec![], 0)));
    }

    #[test]
    fn a_partition_of_plain_producers_keeps_nothing_of_them() {
        let mut state = State::open(ID, &image(0, 0), vec![], 0).expect("open");
        let _ = append(&mut state, 2);
        assert!(state.producers.is_none());
        assert!(size_of::<State>() <= 320, "{} bytes in every partition", size_of::<State>());
        transactional(&mut state, 1);
        state.expire_producers(i64::MAX);
        assert!(state.producers.is_some(), "its transaction is open");
        abort(&mut state);
        state.synced(LEDGER, EntryId(0), location(1));
    }
}
