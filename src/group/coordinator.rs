//! The coordinator: its state, and where calls come in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::base::TopicId;
use crate::env::Entropy;
use crate::group::bounds;
use crate::group::call::{Call, GroupId};
use crate::group::classic::{ClassicGroup, Work};
use crate::group::consumer::ConsumerGroup;
use crate::group::offsets::{Expiry, Offsets, Sweep};
use crate::group::records::{ClassicGroupValue, Record};
use crate::group::request::{Heartbeat, JoinGroup, LeaveGroup, SyncGroup};
use crate::group::timers::Timers;
use crate::group::{
    ConsumerGroupHeartbeatReply, Effects, GroupError, JoinGroupReply, LeaveGroupReply, LeftMember, Now, Options,
    Producer, RecordError, Refusal, Reply, Request, SyncGroupReply, Token, Topics,
};

/// A group of either protocol. Its committed offsets lie beside, in [`Offsets`], so that a conversion leaves them.
pub(in crate::group) enum Group {
    Classic(Box<ClassicGroup>),
    Consumer(Box<ConsumerGroup>),
}

impl Group {
    /// Without members.
    pub fn is_empty(&self) -> bool {
        match self {
            Group::Classic(group) => group.is_empty(),
            Group::Consumer(group) => group.is_empty(),
        }
    }

    pub fn is_subscribed(&self, topic: &str) -> bool {
        match self {
            Group::Classic(group) => group.is_subscribed(topic),
            Group::Consumer(group) => group.is_subscribed(topic),
        }
    }

    pub fn expiry(&self) -> Expiry {
        match self {
            Group::Classic(group) => group.expiry(),
            Group::Consumer(_) => Expiry::SinceCommit,
        }
    }

    pub fn next_deadline(&self) -> Option<Duration> {
        match self {
            Group::Classic(group) => group.next_deadline(),
            Group::Consumer(group) => group.next_deadline(),
        }
    }
}

/// All groups of one partition of `__consumer_offsets`.
///
/// A host replays the partition, calls [`Coordinator::loaded`], and from then on hands in requests, and the time
/// whenever [`Coordinator::next_deadline`] has come.
pub struct Coordinator {
    pub(in crate::group) options: Options,
    pub(in crate::group) groups: BTreeMap<GroupId, Group>,
    pub(in crate::group) offsets: Offsets,
    pub(in crate::group) timers: Timers,
    pub(in crate::group) sweep: Sweep,
    /// For member ids.
    pub(in crate::group) entropy: Arc<dyn Entropy>,
}

impl Coordinator {
    pub fn new(options: Options, entropy: Arc<dyn Entropy>) -> Self {
        Coordinator {
            options,
            groups: BTreeMap::new(),
            offsets: Offsets::default(),
            timers: Timers::default(),
            sweep: Sweep::default(),
            entropy,
        }
    }

    /// New settings hold for what happens from now on; sessions and rebalances under way keep their deadlines.
    pub fn set_options(&mut self, options: Options) {
        self.options = options;
    }

    /// Takes in a record of the log, in the order of offsets; `from` is the producer of a transactional batch. A
    /// record that cannot be read changes nothing.
    pub fn replay(&mut self, key: &[u8], value: Option<&[u8]>, from: Option<Producer>) -> Result<(), RecordError> {
        match Record::decode(key, value)? {
            Record::Offset { group, topic, partition, value: Some(value) } => {
                let id = self.replayed_group(&group);
                self.offsets.put(&id, &topic, partition, value, from);
            }
            Record::Offset { group, topic, partition, value: None } => self.offsets.remove(&group, &topic, partition),
            Record::ClassicGroup { group, value: Some(value) } => {
                self.groups.insert(group.into(), Group::Classic(Box::new(ClassicGroup::from_record(value))));
            }
            Record::ClassicGroup { group, value: None } => _ = self.groups.remove(group.as_str()),
            Record::Foreign { .. } => {}
            record => self.consumer_replay(record),
        }
        Ok(())
    }

    /// Offsets of a group that has no record of its own are those of simple consumers.
    fn replayed_group(&mut self, group: &str) -> GroupId {
        if let Some((id, _)) = self.groups.get_key_value(group) {
            return id.clone();
        }
        let id: GroupId = group.into();
        let unknown = Now { wall_ms: -1, monotonic: Duration::ZERO };
        self.groups.insert(id.clone(), Group::Classic(Box::new(ClassicGroup::new(unknown))));
        id
    }

    /// Takes in the end of a producer's transaction: while loading, and live as soon as the marker is appended.
    pub fn replay_marker(&mut self, producer: i64, commit: bool) {
        self.offsets.end_transaction(producer, commit);
    }

    /// All records are replayed: sessions begin anew.
    pub fn loaded(&mut self, now: Now, topics: &dyn Topics) -> Effects<Reply> {
        let mut call = Call::new(now, topics);
        let ids: Vec<GroupId> = self.groups.keys().cloned().collect();
        for id in &ids {
            match self.classic(id.clone(), &mut call) {
                Some((group, mut work)) => group.loaded(&mut work),
                None => self.consumer_loaded(&mut call, id),
            }
        }
        self.schedule_sweep(now.monotonic);
        call.effects
    }

    /// When [`Coordinator::on_timer`] is to be called; a moment that has passed already: at once.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.timers.next().into_iter().chain(self.sweep.at).min()
    }

    /// Does what is due, in steps of bounded size.
    pub fn on_timer(&mut self, now: Now, topics: &dyn Topics) -> Effects<Reply> {
        let mut call = Call::new(now, topics);
        let mut done = vec![];
        while call.effects.records.len() < bounds::STEP_RECORDS_MAX {
            let Some(id) = self.timers.due(now.monotonic) else { break };
            match self.classic(id.clone(), &mut call) {
                Some((group, mut work)) => group.on_timer(&mut work),
                None => self.consumer_timer(&mut call, &id),
            }
            // Armed again after the loop, so that a group which is due at once again cannot hold the others up.
            self.timers.forget(&id);
            done.push(id);
        }
        for id in done {
            let Some(group) = self.groups.get(&id) else { continue };
            // Looking at a group takes time in proportion to its members: a large one is not looked at too often.
            let pause = match group {
                Group::Classic(group) => Duration::from_millis(group.size() as u64 / 128),
                Group::Consumer(_) => Duration::ZERO,
            };
            if let Some(at) = group.next_deadline() {
                self.timers.no_later(&id, at.max(now.monotonic.saturating_add(pause)));
            }
        }
        if call.effects.records.is_empty() && self.sweep.at.is_some_and(|at| at <= now.monotonic) {
            self.sweep_step(&mut call);
        }
        call.effects
    }

    /// Topics that were deleted, by name and id: their offsets go (KAFKA-6505).
    pub fn topics_deleted(&mut self, deleted: &[(String, TopicId)], now: Now, topics: &dyn Topics) -> Effects<Reply> {
        let mut call = Call::new(now, topics);
        self.delete_offsets_of(&mut call, deleted);
        call.effects
    }

    pub fn on_request(&mut self, token: Token, request: Request, now: Now, topics: &dyn Topics) -> Effects<Reply> {
        let mut call = Call::new(now, topics);
        if !request.strings_fit() {
            call.reply(token, request.refused(GroupError::InvalidRequest));
            return call.effects;
        }
        let reply = match request {
            Request::JoinGroup(request) => self.join_group(token, &mut call, request),
            Request::SyncGroup(request) => self.sync_group(token, &mut call, request),
            Request::Heartbeat(request) => Some(Reply::Heartbeat(self.heartbeat(&mut call, &request))),
            Request::LeaveGroup(request) => Some(Reply::LeaveGroup(self.leave_group(&mut call, request))),
            Request::OffsetCommit(request) => Some(Reply::OffsetCommit(self.commit_offsets(&mut call, request))),
            Request::OffsetFetch(request) => Some(Reply::OffsetFetch(self.fetch_offsets(request))),
            Request::OffsetDelete(request) => Some(Reply::OffsetDelete(self.delete_offsets(&mut call, request))),
            Request::DescribeGroup(request) => Some(Reply::DescribeGroup(self.describe_group(request))),
            Request::ListGroups(request) => Some(Reply::ListGroups(self.list_groups(&request))),
            Request::DeleteGroup(request) => Some(Reply::DeleteGroup(self.delete_group(&mut call, &request.group))),
            Request::ConsumerGroupHeartbeat(request) => {
                let reply = match self.consumer_heartbeat(&mut call, request) {
                    Ok(reply) => reply,
                    Err(Refusal { error, message }) => ConsumerGroupHeartbeatReply {
                        error: Some(error),
                        error_message: message,
                        ..ConsumerGroupHeartbeatReply::default()
                    },
                };
                Some(Reply::ConsumerGroupHeartbeat(reply))
            }
            Request::ConsumerGroupDescribe(request) => {
                Some(Reply::ConsumerGroupDescribe(self.describe_consumer_group(&call, request)))
            }
        };
        if let Some(reply) = reply {
            call.reply(token, reply);
        }
        call.effects
    }

    /// A classic group with what it needs to work. It can live only while nothing else of the coordinator is used.
    pub(in crate::group) fn classic<'a, 'b>(
        &'a mut self,
        id: GroupId,
        call: &'a mut Call<'b>,
    ) -> Option<(&'a mut ClassicGroup, Work<'a, 'b>)> {
        match self.groups.get_mut(&id)? {
            Group::Classic(group) => {
                Some((&mut **group, Work { id, call, timers: &mut self.timers, options: &self.options }))
            }
            Group::Consumer(_) => None,
        }
    }

    /// The id of a group that exists, as the maps share it.
    pub(in crate::group) fn shared_id(&self, group: &str) -> Option<GroupId> {
        self.groups.get_key_value(group).map(|(id, _)| id.clone())
    }

    /// An empty classic group, which is not written.
    pub(in crate::group) fn create_classic(&mut self, id: &GroupId, now: Now) -> Result<(), GroupError> {
        if self.groups.len() >= bounds::GROUPS_MAX {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        self.groups.insert(id.clone(), Group::Classic(Box::new(ClassicGroup::new(now))));
        Ok(())
    }

    /// Takes a group out, with its tombstones; its offsets stay.
    pub(in crate::group) fn remove_group(&mut self, call: &mut Call<'_>, id: &str) {
        self.timers.forget(id);
        match self.groups.remove(id) {
            Some(Group::Classic(_)) => call.write(&Record::ClassicGroup { group: id.to_owned(), value: None }),
            Some(Group::Consumer(group)) => group.write_tombstones(id, call),
            None => {}
        }
    }

    fn join_group(&mut self, token: Token, call: &mut Call<'_>, request: JoinGroup) -> Option<Reply> {
        let refuse = |member: &str, error| Some(Reply::JoinGroup(JoinGroupReply::refused(member, error)));
        if request.group.is_empty() {
            return refuse(&request.member, GroupError::InvalidGroupId);
        }
        let allowed = self.options.min_session_timeout_ms..=self.options.max_session_timeout_ms;
        if !allowed.contains(&request.session_timeout_ms) {
            return refuse(&request.member, GroupError::InvalidSessionTimeout);
        }
        match self.groups.get(request.group.as_str()) {
            Some(Group::Consumer(group)) if !group.is_empty() => {
                return Some(Reply::JoinGroup(self.consumer_join_classic(call, &request)));
            }
            // A name that the group does not know any more is not taken in again under it.
            Some(Group::Consumer(_)) | None if !request.member.is_empty() => {
                return refuse(&request.member, GroupError::UnknownMemberId);
            }
            // A refusal leaves no group behind.
            Some(Group::Consumer(_)) | None if request.protocol_type.is_empty() || request.protocols.is_empty() => {
                return refuse("", GroupError::InconsistentGroupProtocol);
            }
            _ => {}
        }
        let id = self.shared_id(&request.group).unwrap_or_else(|| request.group.as_str().into());
        let created = !matches!(self.groups.get(&id), Some(Group::Classic(_)));
        if created {
            self.remove_group(call, &id);
            if let Err(error) = self.create_classic(&id, call.now) {
                return refuse("", error);
            }
        }
        let entropy = self.entropy.clone();
        if let Some((group, mut work)) = self.classic(id.clone(), call) {
            group.join(token, request, &*entropy, &mut work);
        }
        if created {
            let value = ClassicGroupValue { current_state_timestamp: call.now.wall_ms, ..Default::default() };
            call.write(&Record::ClassicGroup { group: id.to_string(), value: Some(value) });
        }
        None
    }

    fn sync_group(&mut self, token: Token, call: &mut Call<'_>, request: SyncGroup) -> Option<Reply> {
        if request.group.is_empty() {
            return Some(Reply::SyncGroup(SyncGroupReply::refused(GroupError::InvalidGroupId)));
        }
        match self.shared_id(&request.group) {
            Some(id) if self.groups.get(&id).is_some_and(|group| !group.is_empty()) => {
                match self.classic(id, call) {
                    Some((group, mut work)) => group.sync(token, request, &mut work),
                    None => return Some(Reply::SyncGroup(self.consumer_sync_classic(call, &request))),
                }
                None
            }
            _ => Some(Reply::SyncGroup(SyncGroupReply::refused(GroupError::UnknownMemberId))),
        }
    }

    fn heartbeat(&mut self, call: &mut Call<'_>, request: &Heartbeat) -> Result<(), GroupError> {
        if request.group.is_empty() {
            return Err(GroupError::InvalidGroupId);
        }
        let id = self.shared_id(&request.group).ok_or(GroupError::UnknownMemberId)?;
        match self.classic(id, call) {
            Some((group, mut work)) => group.heartbeat(request, &mut work),
            None => self.consumer_heartbeat_classic(call, request),
        }
    }

    fn leave_group(&mut self, call: &mut Call<'_>, request: LeaveGroup) -> LeaveGroupReply {
        if request.group.is_empty() {
            return LeaveGroupReply { error: Some(GroupError::InvalidGroupId), members: vec![] };
        }
        let members = match self.shared_id(&request.group) {
            Some(id) => match self.classic(id, call) {
                Some((group, mut work)) => group.leave(request.members, &mut work),
                None => self.consumer_leave_classic(call, &request.group, &request.members),
            },
            None => {
                let unknown = request.members.into_iter().map(|leaving| LeftMember {
                    member: leaving.member,
                    instance: leaving.instance,
                    error: Some(GroupError::UnknownMemberId),
                });
                unknown.collect()
            }
        };
        LeaveGroupReply { error: None, members }
    }
}
