//! Appending what clients send: checks, compression, offsets, back-pressure.

use std::time::Duration;

use bytes::Bytes;

use crate::batch::{self, Compression, Header, StoredBatch, TimestampType};
use crate::ledger::LedgerError;
use crate::partition::{AppendError, Appended, Guard, Origin, Partition, ProducerError};
use crate::security::Permit;

use super::settings::Recompression;
use super::{Broker, InTransaction, ProduceError, TopicSettings};

/// Share of the WAL's budget from which on producers are slowed, in percent, and the longest pause.
const SLOW_FROM_PERCENT: u64 = 80;
const SLOWEST: Duration = Duration::from_millis(200);
/// How often a batch asks for its transaction anew because a marker came between the answer and its append.
const VERIFICATIONS: usize = 3;

/// Records of one batch that a refusal names: an answer must not grow with what was sent.
const RECORD_ERRORS_MAX: usize = 1_000;

/// What holds for all batches of one Produce request to one topic.
pub struct ProduceContext<'a> {
    pub settings: &'a TopicSettings,
    /// Codecs that the request's version may carry.
    pub zstd_allowed: bool,
    /// Replicas that must be in sync; 0 where the request does not ask for all (acks=0 and acks=1).
    pub replicas_needed: usize,
    /// By CLOCK_BOOTTIME: until when the request may wait for room in the WAL, all its batches together.
    pub room_deadline: Duration,
    /// Of transactional batches.
    pub transaction: Option<InTransaction<'a>>,
}

impl Broker {
    /// Gives a batch its offsets; what is returned waits for its durability. `permit` is for writing the topic. `guard`
    /// is what [`Broker::admit`] answered for a transactional batch.
    ///
    /// Batches of one connection are appended in the order in which this is called and awaited.
    pub async fn append(
        &self,
        permit: &Permit,
        partition: &Partition,
        records: Bytes,
        context: &ProduceContext<'_>,
        guard: Option<Guard>,
    ) -> Result<Appended, ProduceError> {
        debug_assert!(
            permit.covers(crate::security::Operation::Write, crate::security::Resource::topic(&partition.topic))
        );
        self.require_in_sync(context.replicas_needed)?;
        let now_ms = self.clock.wall_ms();
        let bytes = records.len();
        let (header, batch) = prepare(records, context, now_ms)?;
        let mut origin = Origin::Client(guard);
        let mut verifications = 0;
        loop {
            match self.append_with_room(partition, &header, &batch, origin, context.room_deadline, now_ms).await {
                Err(ProduceError::Append(AppendError::StateNotLoaded)) => {
                    self.load_producer_state(partition).await.map_err(ProduceError::State)?;
                }
                Err(ProduceError::Append(AppendError::Producer(ProducerError::NotVerified)))
                    if verifications < VERIFICATIONS
                        && let Some(transaction) = context.transaction =>
                {
                    verifications += 1;
                    let answer = self.admit(transaction, &[(partition, header)]).await.pop();
                    origin = Origin::Client(answer.transpose()?.flatten());
                }
                appended => {
                    if appended.is_ok() {
                        partition.traffic.appended(bytes);
                    }
                    return appended;
                }
            }
        }
    }

    /// Appends, waiting for room in the WAL until `room_deadline`.
    pub(super) async fn append_with_room(
        &self,
        partition: &Partition,
        header: &Header,
        batch: &StoredBatch,
        origin: Origin,
        room_deadline: Duration,
        now_ms: i64,
    ) -> Result<Appended, ProduceError> {
        loop {
            // Registered before the attempt, so that room made in between is not missed.
            let (room, relieved) = (self.room.notified(), self.ledger.relieved().notified());
            match partition.append(&self.ledger, header, batch.clone(), origin, now_ms) {
                Err(AppendError::Ledger(LedgerError::Full)) => {
                    let left = room_deadline.saturating_sub(self.clock.boottime());
                    if left.is_zero() {
                        return Err(AppendError::Ledger(LedgerError::Full).into());
                    }
                    self.registry.upload_due.notify_one();
                    // Woken by new room, or by the clock to look again.
                    let either = async {
                        tokio::select! {
                            () = room => {}
                            () = relieved => {}
                        }
                    };
                    let _ = tokio::time::timeout(left.min(SLOWEST), either).await;
                }
                appended => return Ok(appended?),
            }
        }
    }

    /// Until when a request with this timeout may wait for room.
    pub fn room_deadline(&self, timeout: Duration) -> Duration {
        self.clock.boottime() + timeout.min(self.options.room_wait)
    }

    /// Back-pressure that begins before the WAL is full: a pause that grows with what is used. Once per request.
    pub async fn slow_down(&self) {
        let usage = self.wal.usage();
        let percent = usage.needed_bytes.saturating_mul(100) / usage.budget_bytes.max(1);
        if percent > SLOW_FROM_PERCENT {
            let share = (percent - SLOW_FROM_PERCENT) as u32;
            tokio::time::sleep(SLOWEST * share.min(20) / 20).await;
        }
    }
}

/// Checks a record set and brings it into the form that the topic's settings ask for.
fn prepare(records: Bytes, context: &ProduceContext<'_>, now_ms: i64) -> Result<(Header, StoredBatch), ProduceError> {
    let frame_bytes = records.len();
    let (header, mut batch) = batch::check_produced(records)?;
    // A small batch before a large ignored tail would keep all of it in memory.
    if batch.len() * 2 < frame_bytes {
        batch.body = Bytes::copy_from_slice(&batch.body);
    }
    if header.is_transactional() && context.transaction.is_none() {
        return Err(ProduceError::Transactional);
    }
    if header.compression() == Some(Compression::Zstd) && !context.zstd_allowed {
        return Err(ProduceError::CompressionVersion);
    }
    let settings = context.settings;
    // Before it is opened: what is too large packed is not unpacked.
    check_size(&batch, settings)?;
    if settings.cleanup_policy.compact {
        check_keys(&batch)?;
    }
    if let Some(Recompression { codec, level }) = settings.compression
        && header.compression() != Some(codec)
    {
        batch = batch::compression::recompress(&batch, codec, level)?;
    }
    match settings.timestamp_type {
        // A client cannot know the time of the append.
        TimestampType::LogAppendTime if header.timestamp_type() == TimestampType::LogAppendTime => {
            return Err(ProduceError::Timestamp { timestamp: header.max_timestamp, now: now_ms });
        }
        TimestampType::LogAppendTime => batch.set_log_append_time(now_ms),
        TimestampType::CreateTime => check_time(&mut batch, settings, now_ms)?,
    }
    check_size(&batch, settings)?;
    Ok((batch.header(), batch))
}

fn check_size(batch: &StoredBatch, settings: &TopicSettings) -> Result<(), ProduceError> {
    match (batch.len(), settings.max_message_bytes) {
        (bytes, max) if bytes > max => Err(ProduceError::TooLarge { bytes, max }),
        _ => Ok(()),
    }
}

/// Compaction knows records by their keys.
fn check_keys(batch: &StoredBatch) -> Result<(), ProduceError> {
    let keyless = batch::compact::keyless_records(batch, RECORD_ERRORS_MAX)?;
    if keyless.is_empty() { Ok(()) } else { Err(ProduceError::NoKey(keyless)) }
}

/// Times must lie within `message.timestamp.{before,after}.max.ms` of now.
fn check_time(batch: &mut StoredBatch, settings: &TopicSettings, now_ms: i64) -> Result<(), ProduceError> {
    let header = batch.header();
    let earliest = now_ms.saturating_sub(settings.timestamp_before_max_ms);
    let latest = now_ms.saturating_add(settings.timestamp_after_max_ms);
    for timestamp in [header.base_timestamp, header.max_timestamp] {
        // −1 is "no time", as Kafka has it.
        if timestamp >= 0 && !(earliest..=latest).contains(&timestamp) {
            return Err(ProduceError::Timestamp { timestamp, now: now_ms });
        }
    }
    Ok(())
}
