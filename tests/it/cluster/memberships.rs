//! How a member joins, stays in and leaves its group: by JoinGroup, SyncGroup and Heartbeat, or by the heartbeat of
//! KIP-848.

use super::super::client::{text, topic};
use super::super::load;
use super::campaign::PARTITIONS;
use super::members::{Group, Member, Protocol, Trouble, good};
use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable};
use std::time::Duration;

/// What comes within the shortest session that a broker allows is a rebalance, not an end.
const SESSION_MS: i32 = 6_000;
const REBALANCE_MS: i32 = 8_000;
/// A join waits for the other members.
const JOINING: Duration = Duration::from_secs(20);
const MEMBER_ID_REQUIRED: i16 = 79;
const REBALANCE_IN_PROGRESS: i16 = 27;
const LEAVING: i32 = -1;

fn id_of(group: &Group) -> GroupId {
    GroupId(text(&group.name))
}

/// As members of the type `consumer` put it: the version, then the message.
fn embedded(message: &impl Encodable) -> Bytes {
    let mut bytes = BytesMut::from(&0i16.to_be_bytes()[..]);
    message.encode(&mut bytes, 0).expect("version 0 has every field that is set");
    bytes.freeze()
}

fn assigned(mut bytes: Bytes) -> Option<Vec<i32>> {
    if bytes.is_empty() {
        return Some(vec![]);
    }
    let version = (bytes.len() >= 2).then(|| bytes.get_i16())?;
    let assignment = ConsumerProtocolAssignment::decode(&mut bytes, version).ok()?;
    Some(assignment.assigned_partitions.into_iter().flat_map(|topic| topic.partitions).collect())
}

impl Member<'_> {
    /// Joins the next generation and takes what the leader, perhaps itself, assigns.
    pub fn join(&mut self) -> Result<(), Trouble> {
        self.asked()?.set_timeout(JOINING)?;
        let subscription = ConsumerProtocolSubscription::default().with_topics(vec![text(load::TOPIC)]);
        let protocol = join_group_request::JoinGroupRequestProtocol::default()
            .with_name(text("range"))
            .with_metadata(embedded(&subscription));
        let request = JoinGroupRequest::default()
            .with_group_id(id_of(self.group))
            .with_session_timeout_ms(SESSION_MS)
            .with_rebalance_timeout_ms(REBALANCE_MS)
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![protocol]);
        let (group, id) = (self.group, self.id.clone());
        let mut answer = self.asked()?.call(9, &request.clone().with_member_id(id))?;
        if answer.error_code == MEMBER_ID_REQUIRED {
            self.id = answer.member_id;
            let id = self.id.clone();
            answer = self.asked()?.call(9, &request.with_member_id(id))?;
        }
        good("JoinGroup", answer.error_code)?;
        self.id = answer.member_id.clone();
        let assignments = if answer.leader == answer.member_id { self.divide(&answer) } else { vec![] };
        let request = SyncGroupRequest::default()
            .with_group_id(id_of(group))
            .with_generation_id(answer.generation_id)
            .with_member_id(answer.member_id)
            .with_protocol_type(Some(text("consumer")))
            .with_protocol_name(Some(text("range")))
            .with_assignments(assignments);
        let synced = self.asked()?.call(5, &request)?;
        good("SyncGroup", synced.error_code)?;
        let Some(partitions) = assigned(synced.assignment) else {
            group.contradict("an assignment is not what its leader sent".to_owned());
            return Err(Trouble::Lost);
        };
        self.generation = Some(answer.generation_id);
        self.owned = partitions.iter().map(|partition| (*partition, None)).collect();
        if let Some(owner) = self.owner() {
            self.account().owns(&owner, &partitions);
        }
        self.beats_next();
        Ok(())
    }

    /// Every partition to one of the members, otherwise each time.
    fn divide(&mut self, joined: &JoinGroupResponse) -> Vec<sync_group_request::SyncGroupRequestAssignment> {
        let (members, shift) = (&joined.members, self.rng.next() as usize % 64);
        let of =
            |n: usize| (0..PARTITIONS).filter(|p| (*p as usize + shift) % members.len() == n).collect::<Vec<i32>>();
        let assignments = members.iter().enumerate().map(|(n, member)| {
            let of_topic = consumer_protocol_assignment::TopicPartition::default()
                .with_topic(topic(load::TOPIC))
                .with_partitions(of(n));
            let assignment = ConsumerProtocolAssignment::default().with_assigned_partitions(vec![of_topic]);
            sync_group_request::SyncGroupRequestAssignment::default()
                .with_member_id(member.member_id.clone())
                .with_assignment(embedded(&assignment))
        });
        assignments.collect()
    }

    /// A heartbeat of the classic protocol. Before it joins again, it commits.
    pub fn beat(&mut self) -> Result<(), Trouble> {
        let Some(generation) = self.generation else { return Ok(()) };
        let request = HeartbeatRequest::default()
            .with_group_id(id_of(self.group))
            .with_generation_id(generation)
            .with_member_id(self.id.clone());
        let answer = self.asked()?.call(4, &request)?;
        if answer.error_code == REBALANCE_IN_PROGRESS {
            self.commit()?;
        }
        good("Heartbeat", answer.error_code)?;
        self.beats_next();
        Ok(())
    }

    /// A heartbeat of KIP-848, which joins, gives up and takes partitions.
    pub fn reconcile(&mut self) -> Result<(), Trouble> {
        if self.id.is_empty() {
            self.id = text(&format!("{}-{:x}", self.group.name, self.rng.next()));
        }
        let topic_id = self.route.leaders(load::TOPIC).ok_or(Trouble::Lost)?.topic_id;
        let owned: Vec<i32> = self.owned.keys().copied().collect();
        let of_topic = consumer_group_heartbeat_request::TopicPartitions::default()
            .with_topic_id(topic_id)
            .with_partitions(owned.clone());
        let owned_topics = if owned.is_empty() { vec![] } else { vec![of_topic] };
        let request = self
            .heartbeat(self.generation.unwrap_or(0))
            .with_rebalance_timeout_ms(REBALANCE_MS)
            .with_subscribed_topic_names(Some(vec![topic(load::TOPIC)]))
            .with_topic_partitions(Some(owned_topics));
        let answer = self.asked()?.call(1, &request)?;
        good("ConsumerGroupHeartbeat", answer.error_code)?;
        self.generation = Some(answer.member_epoch);
        self.beats_next();
        let given = answer.assignment.map(|assignment| {
            assignment.topic_partitions.into_iter().flat_map(|topic| topic.partitions).collect::<Vec<i32>>()
        });
        if let Some(owner) = self.owner() {
            self.account().owns(&owner, given.as_ref().unwrap_or(&owned));
        }
        let Some(given) = given else { return Ok(()) };
        let lost = owned.iter().any(|partition| !given.contains(partition));
        let outcome = if lost { self.commit() } else { Ok(()) };
        self.owned.retain(|partition, _| given.contains(partition));
        for partition in given {
            self.owned.entry(partition).or_insert(None);
        }
        if lost {
            self.next_heartbeat = std::time::Instant::now();
        }
        outcome
    }

    fn heartbeat(&self, epoch: i32) -> ConsumerGroupHeartbeatRequest {
        ConsumerGroupHeartbeatRequest::default()
            .with_group_id(id_of(self.group))
            .with_member_id(self.id.clone())
            .with_member_epoch(epoch)
    }

    /// Says that it leaves.
    pub fn leave(&mut self) -> Result<(), Trouble> {
        if self.generation.is_none() {
            return Ok(());
        }
        match self.group.protocol {
            Protocol::Consumer => {
                let request = self.heartbeat(LEAVING);
                good("ConsumerGroupHeartbeat", self.asked()?.call(1, &request)?.error_code)
            }
            Protocol::Classic => {
                let leaving = leave_group_request::MemberIdentity::default().with_member_id(self.id.clone());
                let request = LeaveGroupRequest::default().with_group_id(id_of(self.group));
                good("LeaveGroup", self.asked()?.call(5, &request.with_members(vec![leaving]))?.error_code)
            }
        }
    }
}
