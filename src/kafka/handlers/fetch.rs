//! Fetch (key 1): waits until enough is there, then answers whole batches without copying them.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::FetchRequest;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::base::{LeaderEpoch, NodeId, Offset, TopicId, limits};
use crate::broker::{Broker, FetchError};
use crate::kafka::encode::fetch::{
    self, AbortedTransaction, FetchResponse, FetchedPartition, FetchedTopic, NodeEndpoint,
};
use crate::kafka::{Outcome, Reply, Request, WireMetrics};
use crate::object::ReadError;
use crate::partition::{Isolation, Partition};
use crate::security::{Operation, Permit};

use super::fetch_session::{Asked, Key, Partitions, Scope, Wanted};
use super::offset_for_leader_epoch::check_epoch;
use super::picture::{Leaders, Picture};
use super::{Handlers, errors, text};

/// Version from which topics are named by id (KIP-516).
const TOPIC_IDS_SINCE: i16 = 13;

/// Version from which the leader of a partition is named that is not led here (KIP-951).
const LEADERS_SINCE: i16 = 16;

/// How long a fetch that has data waits for more from object storage.
const PATIENCE: Duration = Duration::from_millis(500);

/// A partition that a fetch reads.
struct Target {
    key: Key,
    wanted: Wanted,
    found: Result<(Permit, Arc<Partition>), ResponseError>,
}

/// The bounds of one fetch.
#[derive(Clone, Copy)]
struct Bounds {
    min_bytes: usize,
    max_bytes: usize,
    deadline: Instant,
    isolation: Isolation,
    /// Fewer than no bytes were asked for, which a real broker fails at.
    negative: bool,
}

impl Handlers {
    pub(super) fn fetch(&self, request: Request, body: FetchRequest) -> Reply {
        let version = request.to.version;
        let settings = self.broker.broker_settings();
        let (named, forgotten) = named(&body, version);
        let asked = Asked {
            id: body.session_id,
            epoch: if version >= 7 { body.session_epoch } else { -1 },
            uses_ids: version >= TOPIC_IDS_SINCE,
            slots: settings.fetch_sessions_max,
            now: self.broker.clock().boottime(),
        };
        let random = || {
            let mut bytes = [0; 4];
            self.broker.entropy().fill(&mut bytes);
            i32::from_be_bytes(bytes) & i32::MAX
        };
        let scope = match self.sessions.resolve(asked, named, &forgotten, random) {
            Ok(scope) => scope,
            Err(error) => {
                self.metrics.count_error(request.to.api, error.code());
                let refused = FetchResponse { error_code: error.code(), ..FetchResponse::default() };
                return Reply::Now(fetch::response(request.to, &refused).into());
            }
        };
        // What is more than a quota admits in a whole window would never be answered.
        let quota = request.meter.as_ref().and_then(|meter| meter.fetch_bytes_max()).unwrap_or(usize::MAX);
        let max_bytes = usize::try_from(body.max_bytes).unwrap_or(0).min(settings.fetch_bytes_max).min(quota);
        let bounds = Bounds {
            min_bytes: usize::try_from(body.min_bytes).unwrap_or(0).min(max_bytes),
            max_bytes: max_bytes.min(limits::FETCH_BYTES_MAX),
            deadline: Instant::now() + Duration::from_millis(u64::try_from(body.max_wait_ms).unwrap_or(0)),
            isolation: super::list_offsets::isolation(body.isolation_level),
            negative: body.max_bytes < 0,
        };
        let targets = self.targets(&request, scope.partitions.clone());
        let work = Work {
            broker: self.broker.clone(),
            metrics: self.metrics.clone(),
            sessions: self.sessions.clone(),
            request,
            scope,
            bounds,
        };
        Reply::later(work.run(targets))
    }

    fn targets(&self, request: &Request, partitions: Partitions) -> Vec<Target> {
        partitions
            .into_iter()
            .map(|(key, wanted)| {
                let found = self.target(request, &key);
                Target { key, wanted, found }
            })
            .collect()
    }

    fn target(&self, request: &Request, key: &Key) -> Result<(Permit, Arc<Partition>), ResponseError> {
        if request.to.version >= TOPIC_IDS_SINCE && key.id.is_zero() {
            return Err(ResponseError::UnknownTopicId);
        }
        let (permit, topic) = self.permitted_topic(&request.context, Operation::Read, &key.name, key.id)?;
        Ok((permit, self.find_partition(&topic, key.index)?))
    }
}

/// The partitions that a request names, and those that it takes out of its session.
fn named(body: &FetchRequest, version: i16) -> (Partitions, Vec<Key>) {
    let by_id = version >= TOPIC_IDS_SINCE;
    let key = |name: &kafka_protocol::messages::TopicName, id: &uuid::Uuid, index| Key {
        // A copy: the key outlives the request, whose whole frame a slice would keep.
        name: if by_id { Default::default() } else { text(name.0.to_string()) },
        id: if by_id { TopicId(*id.as_bytes()) } else { TopicId::default() },
        index,
    };
    let mut named = Partitions::new();
    for topic in &body.topics {
        for p in &topic.partitions {
            let wanted = Wanted {
                offset: Offset(p.fetch_offset),
                max_bytes: p.partition_max_bytes,
                current_leader_epoch: p.current_leader_epoch,
                last_fetched_epoch: p.last_fetched_epoch,
                told: None,
            };
            named.insert(key(&topic.topic, &topic.topic_id, p.partition), wanted);
        }
    }
    let forgotten = body
        .forgotten_topics_data
        .iter()
        .flat_map(|t| t.partitions.iter().map(|index| key(&t.topic, &t.topic_id, *index)))
        .collect();
    (named, forgotten)
}

/// One fetch in its second phase.
struct Work {
    broker: Arc<Broker>,
    metrics: Arc<WireMetrics>,
    sessions: Arc<super::Sessions>,
    request: Request,
    scope: Scope,
    bounds: Bounds,
}

/// Takes a waiter back from its partitions however the fetch ends.
struct Waiting<'a> {
    notify: Arc<Notify>,
    targets: &'a [Target],
}

impl Waiting<'_> {
    fn register(&self) {
        for target in self.targets {
            if let Ok((_, partition)) = &target.found {
                partition.wait(&self.notify);
            }
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        for target in self.targets {
            if let Ok((_, partition)) = &target.found {
                partition.stop_waiting(&self.notify);
            }
        }
    }
}

impl Work {
    async fn run(self, targets: Vec<Target>) -> Outcome {
        let read = self.read_until_enough(&targets).await;
        let mut response = FetchResponse { session_id: self.scope.session, ..FetchResponse::default() };
        let mut told = Vec::new();
        // Those that cannot be looked up come first, so that the others of a topic stand together.
        let (found, absent): (Vec<_>, Vec<_>) = targets.iter().zip(read).partition(|(target, _)| target.found.is_ok());
        for (target, partition) in absent.into_iter().chain(found) {
            let positions = (partition.high_watermark, partition.log_start_offset);
            let news = !partition.batches.is_empty()
                || partition.error_code != 0
                || partition.diverging_epoch.is_some()
                || target.wanted.told != Some(positions);
            if partition.error_code != 0 {
                self.metrics.count_error(self.request.to.api, partition.error_code);
            }
            told.push((target.key.clone(), positions, !partition.batches.is_empty()));
            if news || !self.scope.incremental {
                add(&mut response, &target.key, partition);
            }
        }
        let (version, listener) = (self.request.to.version, &self.request.context.listener);
        name_leaders(&mut response, version, &Picture::new(&self.broker.image(), listener));
        let encoded = fetch::response(self.request.to, &response);
        if let (Some(meter), Ok(rope)) = (&self.request.meter, &encoded)
            && let throttle_time_ms @ 1.. = meter.fetched(rope.len())
        {
            return self.throttled(throttle_time_ms);
        }
        if self.scope.session != 0 {
            self.sessions.answered(self.scope.session, told);
        }
        encoded.into()
    }

    /// An empty answer to a client that is over a quota (KIP-219). Its session goes on where it has one already.
    fn throttled(&self, throttle_time_ms: i32) -> Outcome {
        let session_id = if self.scope.incremental { self.scope.session } else { 0 };
        if session_id == 0 {
            self.sessions.forget(self.scope.session);
        }
        let empty = FetchResponse { throttle_time_ms, session_id, ..FetchResponse::default() };
        fetch::response(self.request.to, &empty).into()
    }

    async fn read_until_enough(&self, targets: &[Target]) -> Vec<FetchedPartition> {
        let first = self.read_all(targets).await;
        if self.is_enough(&first) || Instant::now() >= self.bounds.deadline {
            return first;
        }
        drop(first);
        let waiting = Waiting { notify: Arc::new(Notify::new()), targets };
        let mut stopping = self.broker.stopping();
        loop {
            // Registered before the look, so that a move in between is not missed.
            waiting.register();
            let read = self.read_all(targets).await;
            if self.is_enough(&read) {
                return read;
            }
            drop(read);
            tokio::select! {
                () = waiting.notify.notified() => {}
                () = tokio::time::sleep_until(self.bounds.deadline) => return self.read_all(targets).await,
                // What there is, perhaps nothing: the client finds the next broker sooner.
                () = stopping.begun() => return self.read_all(targets).await,
            }
        }
    }

    /// Enough bytes, or an error that a client has to know of at once. A partition that cannot be looked up is no such
    /// error as long as there is another to wait for: a real broker waits on. Where there is none it answers.
    fn is_enough(&self, read: &[FetchedPartition]) -> bool {
        let bytes: usize = read.iter().map(FetchedPartition::records_bytes).sum();
        bytes >= self.bounds.min_bytes
            || read.iter().all(|p| is_out_of_sight(p.error_code))
            || read.iter().any(|p| (p.error_code != 0 && !is_out_of_sight(p.error_code)) || p.diverging_epoch.is_some())
    }

    /// What this node holds first, in order; then, side by side, what only object storage has. A store that is slow
    /// or away holds up only those who need it.
    async fn read_all(&self, targets: &[Target]) -> Vec<FetchedPartition> {
        let mut left = self.bounds.max_bytes;
        let mut nothing_yet = true;
        let mut all: Vec<FetchedPartition> = vec![FetchedPartition::default(); targets.len()];
        let mut stored = Vec::new();
        for (at, target) in targets.iter().enumerate() {
            all[at] = match &target.found {
                // Without a partition there are no transactions: an empty list, not none.
                Err(error) => FetchedPartition {
                    error_code: error.code(),
                    aborted_transactions: Some(Vec::new()),
                    ..FetchedPartition::default()
                },
                Ok((_, partition)) if partition.is_only_stored(target.wanted.offset, self.bounds.isolation) => {
                    stored.push(at);
                    continue;
                }
                Ok((permit, partition)) => {
                    let max = usize::try_from(target.wanted.max_bytes).unwrap_or(0).min(left);
                    self.read_one(permit, partition, &target.wanted, max, nothing_yet).await
                }
            };
            let bytes = all[at].records_bytes();
            nothing_yet &= bytes == 0;
            left = left.saturating_sub(bytes);
        }
        self.read_by_turns(targets, &stored, left, nothing_yet, &mut all).await;
        for (target, partition) in targets.iter().zip(&mut all) {
            partition.index = target.key.index;
        }
        all
    }

    /// Reads partitions whose next batches only object storage has: side by side as many as may all answer what they are
    /// asked for, then the next ones with what is left. A share for each would be too small for a batch where there are many:
    /// blocks would be fetched and nothing of them answered.
    async fn read_by_turns(
        &self,
        targets: &[Target],
        stored: &[usize],
        mut left: usize,
        mut nothing_yet: bool,
        all: &mut [FetchedPartition],
    ) {
        let began = Instant::now();
        let mut waiting = stored;
        while !waiting.is_empty() {
            let wanted = waiting.iter().map(|at| usize::try_from(targets[*at].wanted.max_bytes).unwrap_or(0));
            let (turn, later) = waiting.split_at(fitting(wanted, left));
            let reads = turn.iter().enumerate().map(|(n, at)| {
                let first = nothing_yet && n == 0;
                self.read_stored(&targets[*at], left, first, !nothing_yet)
            });
            let (mut bytes, mut refused) = (0, false);
            for (at, read) in turn.iter().zip(join_all(reads).await) {
                bytes += read.records_bytes();
                refused |= read.error_code != 0;
                all[*at] = read;
            }
            left = left.saturating_sub(bytes);
            nothing_yet &= bytes == 0;
            waiting = later;
            // Nothing came although it was there: what is left is too little for a batch, or the store is slow.
            let no_use = bytes == 0 && !refused;
            if !nothing_yet && (left == 0 || no_use || began.elapsed() >= PATIENCE) {
                break;
            }
        }
        for at in waiting {
            let Ok((permit, partition)) = &targets[*at].found else { continue };
            all[*at] = match self.bounds.isolation {
                // Its transactions may lie in object storage, too.
                Isolation::ReadCommitted if partition.needs_producer_state() => nothing_yet_of(partition),
                _ => self.read_one(permit, partition, &targets[*at].wanted, 0, false).await,
            };
        }
    }

    /// Reads a partition whose next batch only object storage has. With `hurry` others have data already: what does
    /// not come soon is fetched for the next request.
    async fn read_stored(&self, target: &Target, max: usize, first: bool, hurry: bool) -> FetchedPartition {
        let Ok((permit, partition)) = &target.found else { return FetchedPartition::default() };
        let max = usize::try_from(target.wanted.max_bytes).unwrap_or(0).min(max);
        let read = self.read_one(permit, partition, &target.wanted, max, first);
        if !hurry {
            return read.await;
        }
        match tokio::time::timeout(PATIENCE, read).await {
            Ok(read) => read,
            Err(_) => {
                let isolation = self.bounds.isolation;
                self.broker.clone().fetch_ahead(partition.clone(), target.wanted.offset, isolation);
                if isolation == Isolation::ReadCommitted && partition.needs_producer_state() {
                    return nothing_yet_of(partition);
                }
                self.read_one(permit, partition, &target.wanted, 0, false).await
            }
        }
    }

    async fn read_one(
        &self,
        permit: &Permit,
        partition: &Partition,
        wanted: &Wanted,
        max_bytes: usize,
        at_least_one: bool,
    ) -> FetchedPartition {
        if let Err(error) = check_epoch(partition, wanted.current_leader_epoch, |given| given < 0) {
            return refused_with(error);
        }
        if wanted.max_bytes < 0 || self.bounds.negative {
            return refused_with(ResponseError::UnknownServerError);
        }
        if wanted.last_fetched_epoch > partition.positions().leader_epoch.0 {
            return refused_with(ResponseError::OffsetOutOfRange);
        }
        let diverging = (wanted.last_fetched_epoch >= 0)
            .then(|| diverging(partition, LeaderEpoch(wanted.last_fetched_epoch), wanted.offset))
            .flatten();
        let max_bytes = if diverging.is_some() { 0 } else { max_bytes };
        let at_least_one = at_least_one && diverging.is_none();
        let isolation = self.bounds.isolation;
        match self.broker.read(permit, partition, wanted.offset, max_bytes, at_least_one, isolation).await {
            Ok(read) => FetchedPartition {
                high_watermark: read.positions.high_watermark,
                // −1 while nobody has asked for it: a reader of what is committed has it loaded.
                last_stable_offset: read.positions.last_stable.unwrap_or(Offset(-1)),
                log_start_offset: read.positions.log_start,
                aborted_transactions: (isolation == Isolation::ReadCommitted).then(|| {
                    let listed = read.aborted.iter();
                    listed
                        .map(|t| AbortedTransaction { producer_id: t.producer, first_offset: t.first_offset })
                        .collect()
                }),
                batches: read.batches,
                diverging_epoch: diverging,
                ..FetchedPartition::default()
            },
            Err(error) => self.refused(partition, &error),
        }
    }

    fn refused(&self, partition: &Partition, error: &FetchError) -> FetchedPartition {
        let code = errors::fetch(error);
        // An object that is missing is in the log once, not once for each who asks for it.
        let known =
            matches!(error, FetchError::Object(ReadError::NotFound(object)) if self.broker.missing().knows(*object));
        if code == ResponseError::KafkaStorageError && !known {
            tracing::warn!(partition = %partition.id, %error, "a fetch failed");
        }
        refused_with(code)
    }
}

/// Names the leaders of partitions that are led elsewhere, or of whose leader the client knows too little, and where they
/// are (KIP-951).
fn name_leaders(response: &mut FetchResponse, version: i16, picture: &Picture<'_>) {
    if version < LEADERS_SINCE {
        return;
    }
    let mut named = Leaders::default();
    for topic in &mut response.topics {
        for partition in &mut topic.partitions {
            if is_led_elsewhere(partition.error_code) {
                let (leader, epoch) = named.name(picture, &topic.name, topic.id, partition.index);
                partition.current_leader = Some((NodeId(leader), LeaderEpoch(epoch)));
            }
        }
    }
    let endpoints = named.endpoints(picture).map(|(node, endpoint)| NodeEndpoint {
        node,
        host: text(&*endpoint.host),
        port: i32::from(endpoint.port),
        rack: picture.rack(node).map(text),
    });
    response.node_endpoints = endpoints.collect();
}

/// Whether an error says that the client should know another leader or epoch. Who is ahead of this broker would not believe
/// its word on the leader.
fn is_led_elsewhere(error_code: i16) -> bool {
    [ResponseError::NotLeaderOrFollower, ResponseError::FencedLeaderEpoch].iter().any(|e| e.code() == error_code)
}

/// How many of these, from the first on, may all be answered in full within `left` bytes; at least one.
fn fitting(wanted: impl Iterator<Item = usize>, left: usize) -> usize {
    let mut sum = 0usize;
    let fits = wanted.take_while(|bytes| {
        sum = sum.saturating_add(*bytes);
        sum <= left
    });
    fits.count().max(1)
}

/// The answer for a partition whose transactions are not known yet.
fn nothing_yet_of(partition: &Partition) -> FetchedPartition {
    let at = partition.positions();
    FetchedPartition {
        high_watermark: at.high_watermark,
        log_start_offset: at.log_start,
        aborted_transactions: Some(Vec::new()),
        ..FetchedPartition::default()
    }
}

fn refused_with(error: ResponseError) -> FetchedPartition {
    FetchedPartition { error_code: error.code(), ..FetchedPartition::default() }
}

/// Whether the error says that the partition, for this client, is not there at all.
fn is_out_of_sight(error_code: i16) -> bool {
    [ResponseError::UnknownTopicOrPartition, ResponseError::UnknownTopicId, ResponseError::TopicAuthorizationFailed]
        .iter()
        .any(|error| error.code() == error_code)
}

/// Where the log of a reader that holds `epoch` up to `offset` parts from ours (KIP-595).
fn diverging(partition: &Partition, epoch: LeaderEpoch, offset: Offset) -> Option<(LeaderEpoch, Offset)> {
    let (known, end) = partition.epoch_end(epoch)?;
    (known < epoch || end < offset).then_some((known, end))
}

fn add(response: &mut FetchResponse, key: &Key, partition: FetchedPartition) {
    match response.topics.last_mut() {
        Some(topic) if topic.name == key.name && topic.id == key.id => topic.partitions.push(partition),
        _ => response.topics.push(FetchedTopic { name: key.name.clone(), id: key.id, partitions: vec![partition] }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::handlers::picture_tests::{add_topic, three_brokers};

    #[test]
    fn leaders_are_named_to_those_who_are_behind_only() {
        let mut image = three_brokers(&[3]);
        let topic = add_topic(&mut image, "t", 3, &[1, 2, 3, 1, 2]);
        let partitions = (0..).zip([6, 74, 6, 75, 0]);
        let partitions =
            partitions.map(|(index, error_code)| FetchedPartition { index, error_code, ..FetchedPartition::default() });
        let fetched = FetchedTopic { id: topic.id, partitions: partitions.collect(), ..FetchedTopic::default() };
        let mut response = FetchResponse { topics: vec![fetched], ..FetchResponse::default() };
        let before = response.clone();
        name_leaders(&mut response, 15, &Picture::new(&image, "clients"));
        assert_eq!(response, before, "versions before 16 name nobody");
        name_leaders(&mut response, 16, &Picture::new(&image, "clients"));
        let named: Vec<_> = response.topics[0]
            .partitions
            .iter()
            .map(|p| p.current_leader.map(|(node, epoch)| (node.0, epoch.0)))
            .collect();
        assert_eq!(named, [Some((1, 0)), Some((2, 0)), Some((-1, 0)), None, None]);
        let ends: Vec<_> = response.node_endpoints.iter().map(|n| (n.node.0, n.port, n.rack.as_deref())).collect();
        assert_eq!(ends, [(1, 9001, Some("r1")), (2, 9002, Some("r2"))]);
    }

    #[test]
    fn a_turn_has_those_that_may_all_answer_in_full() {
        let of = |wanted: &[usize], left| fitting(wanted.iter().copied(), left);
        assert_eq!(of(&[1 << 20; 100], 55 << 20), 55);
        assert_eq!(of(&[10, 20, 30], 30), 2);
        assert_eq!(of(&[50, 1], 30), 1, "one at least");
    }
}
