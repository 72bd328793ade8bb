//! The group coordinator on the partitions of `__consumer_offsets`.

use std::sync::Arc;
use std::time::Duration;

use crate::base::{ProducerId, TopicId};
use crate::broker::Broker;
use crate::group::{Coordinator, Effects, ListGroups, ListedGroup, OffsetCommit, Producer, Reply, Request, Token};
use crate::partition::Partition;
use crate::security::{Permit, Resource};

use super::admission::AdmittedOffsets;
use super::load::Loadable;
use super::shard::{Log, Machine, Shard, Work};
use super::{CoordinatorError, CoordinatorKind, moment, partition_of};

/// One machine, as a shard drives it.
pub(super) struct GroupMachine(Coordinator);

impl Machine for GroupMachine {
    type Reply = Reply;
    type Order = std::convert::Infallible;

    fn replay(&mut self, key: &[u8], value: Option<&[u8]>, from: Option<(i64, i16)>) {
        let from = from.map(|(id, epoch)| Producer { id, epoch });
        if let Err(error) = self.0.replay(key, value, from) {
            tracing::warn!(%error, "a record of the group coordinator is passed over");
        }
    }

    fn replay_marker(&mut self, producer: i64, commit: bool) {
        self.0.replay_marker(producer, commit);
    }

    fn next_deadline(&self) -> Option<Duration> {
        self.0.next_deadline()
    }

    /// A member whose connection is gone counts as waiting all the same: its session decides.
    fn cancel(&mut self, _: u64) {}
}

impl Loadable for GroupMachine {
    fn new(broker: &Broker, _: &Partition) -> Self {
        GroupMachine(Coordinator::new(broker.coordinators.options().group.clone(), broker.entropy.clone()))
    }

    fn activated(broker: &Arc<Broker>, shard: &Arc<Shard<Self>>) {
        let topics = broker.coordinators.topics.now(broker.image());
        let now = moment(broker).into();
        let _ = broker.step_group(shard, |machine| work(machine.0.loaded(now, &topics)));
    }
}

fn work(effects: Effects<Reply>) -> Work<GroupMachine> {
    Work {
        records: effects.records.into_iter().map(|write| (write.key, write.value)).collect(),
        atomic: effects.atomic,
        transactional: effects.transactional.map(|producer| (producer.id, producer.epoch)),
        replies: effects.replies.into_iter().map(|(token, reply)| (token.0, reply)).collect(),
        orders: Vec::new(),
    }
}

impl Broker {
    /// Asks the coordinator of `group`, and answers when all that the reply rests on is durable.
    /// `permit` is for the group.
    pub async fn group_request(
        &self,
        permit: &Permit,
        group: &str,
        request: Request,
    ) -> Result<Reply, CoordinatorError> {
        debug_assert!(permit.covers(permit.operation(), Resource::group(group)));
        let shard = self.group_shard(group)?;
        let reply = self.ask_group_shard(&shard, request, None).await?;
        if self.leads_now(shard.partition.id) { Ok(reply) } else { Err(CoordinatorError::NotCoordinator) }
    }

    /// Commits offsets of `group` in a transaction, with what [`Broker::admit_offsets`] has granted. `permit` is for the
    /// group.
    pub async fn commit_in_transaction(
        &self,
        permit: &Permit,
        group: &str,
        admitted: AdmittedOffsets,
        commit: OffsetCommit,
    ) -> Result<Reply, CoordinatorError> {
        debug_assert!(permit.covers(permit.operation(), Resource::group(group)));
        let transactional = Some(Producer { id: admitted.producer.id, epoch: admitted.producer.epoch });
        let request = Request::OffsetCommit(OffsetCommit { transactional, ..commit });
        self.ask_group_shard(&self.group_shard(group)?, request, Some(admitted)).await
    }

    /// The groups of all coordinators on this node, and whether one could not answer.
    pub async fn list_groups(&self, request: &ListGroups) -> (Vec<ListedGroup>, Option<CoordinatorError>) {
        let (mut groups, mut failed) = (Vec::new(), None);
        let shards: Vec<_> = self.coordinators.groups().values().cloned().collect();
        for shard in shards {
            match self.ask_group_shard(&shard, Request::ListGroups(request.clone()), None).await {
                Ok(Reply::ListGroups(found)) => groups.extend(found),
                Ok(_) => failed = Some(CoordinatorError::NotAvailable),
                Err(error) => failed = Some(error),
            }
        }
        groups.sort();
        (groups, failed)
    }

    /// The index of the partition of `__consumer_offsets` that `group` belongs to, if the topic is there.
    pub fn group_partition(&self, group: &str) -> Option<i32> {
        let partitions = self.topic(CoordinatorKind::Group.topic())?.partitions.len();
        i32::try_from(partition_of(group, partitions)).ok()
    }

    pub(super) fn group_shard(&self, group: &str) -> Result<Arc<Shard<GroupMachine>>, CoordinatorError> {
        let index = self.group_partition(group).ok_or(CoordinatorError::NotCoordinator)?;
        self.coordinators.groups().get(&index).cloned().ok_or(CoordinatorError::NotCoordinator)
    }

    async fn ask_group_shard(
        &self,
        shard: &Arc<Shard<GroupMachine>>,
        request: Request,
        admitted: Option<AdmittedOffsets>,
    ) -> Result<Reply, CoordinatorError> {
        let commits = matches!(request, Request::OffsetCommit(_));
        if commits {
            self.coordinator_in_sync(CoordinatorKind::Group)?;
        }
        self.coordinator_room().await?;
        let expected = shard.expect();
        let token = Token(expected.token);
        let topics = self.coordinators.topics.now(self.image());
        let now = moment(self).into();
        let mut has_ended = false;
        self.step_group(shard, |machine| {
            // Markers come under the shard's lock, too: what stands now still stands when the offsets are appended.
            has_ended = admitted
                .is_some_and(|a| !shard.partition.is_verified(ProducerId(a.producer.id), a.producer.epoch, a.guard));
            if has_ended { Work::default() } else { work(machine.0.on_request(token, request, now, &topics)) }
        })?;
        if has_ended {
            // While the question was under way the transaction ended here: the next question will tell.
            return Err(CoordinatorError::NotAvailable);
        }
        let answer = expected.answer().await?;
        match commits {
            true => self.settled(CoordinatorKind::Group, &shard.partition, answer).await,
            false => answer.durable().await,
        }
    }

    fn step_group(
        &self,
        shard: &Arc<Shard<GroupMachine>>,
        step: impl FnOnce(&mut GroupMachine) -> Work<GroupMachine>,
    ) -> Result<(), CoordinatorError> {
        let log = self.coordinator_log(CoordinatorKind::Group);
        let stepped = shard.step(&log, step);
        self.coordinators.deadline(match &stepped {
            Ok((_, deadline)) => *deadline,
            // To be loaded again.
            Err(CoordinatorError::NotAvailable) => Some(Duration::ZERO),
            Err(_) => None,
        });
        stepped.map(drop)
    }

    pub(super) fn coordinator_log(&self, kind: CoordinatorKind) -> Log<'_> {
        let settings = self.topic(kind.topic()).map(|topic| self.topic_settings(&topic));
        let batch_bytes_max = settings.map_or(crate::base::limits::BATCH_BYTES_DEFAULT, |s| s.max_message_bytes);
        Log { ledger: &self.ledger, wall_ms: self.clock.wall_ms(), batch_bytes_max }
    }

    pub(super) fn group_timer(&self, shard: &Arc<Shard<GroupMachine>>) {
        let topics = self.coordinators.topics.now(self.image());
        let now = moment(self).into();
        let _ = self.step_group(shard, |machine| work(machine.0.on_timer(now, &topics)));
    }

    /// Topics are gone: so are the offsets committed for them.
    pub(super) fn forget_topics(&self, deleted: &[(String, TopicId)]) {
        let topics = self.coordinators.topics.now(self.image());
        let shards: Vec<_> = self.coordinators.groups().values().cloned().collect();
        for shard in shards {
            let now = moment(self).into();
            let _ = self.step_group(&shard, |machine| work(machine.0.topics_deleted(deleted, now, &topics)));
        }
    }

    /// Takes in new settings.
    pub(super) fn follow_options(&self) {
        let image = self.image();
        let resolved = self.with_layers(|layers| super::CoordinatorOptions::resolve(layers, &image.group_configs));
        {
            let mut options = self.coordinators.options.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if **options == resolved {
                return;
            }
            *options = Arc::new(resolved.clone());
        }
        let groups: Vec<_> = self.coordinators.groups().values().cloned().collect();
        for shard in groups {
            shard.adjust(|machine| machine.0.set_options(resolved.group.clone()));
        }
        let transactions: Vec<_> = self.coordinators.transactions().values().cloned().collect();
        for shard in transactions {
            shard.adjust(|machine| machine.set_options(resolved.transaction.clone()));
        }
    }
}
