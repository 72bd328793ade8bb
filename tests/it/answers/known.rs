//! Groups in each of their states, and whom a request may claim to be: the tables that the areas of groups multiply.

use super::super::batch::Producer;
use super::super::client::{text, topic};
use super::super::harness::{eventually, wait_for_leaders};
use super::state::Watched;
use super::world::World;
use bytes::Bytes;
use kafka_protocol::messages::*;
use std::time::Duration;

const READY: Duration = Duration::from_secs(10);

/// A group, and what its member would send.
#[derive(Debug, Clone, Default)]
pub struct Known {
    pub name: String,
    pub member: String,
    pub generation: i32,
    pub instance: Option<String>,
}

pub const NO_GROUP: &str = "no group";
pub const EMPTY: &str = "an empty group";
pub const WAITING: &str = "a group without its assignment";
pub const STABLE: &str = "a stable group";
pub const STATIC: &str = "a group of a static member";
pub const CONSUMER: &str = "a consumer group";
pub const STATIC_CONSUMER: &str = "a consumer group of a static member";

/// Whom a request claims to be, in words and on the wire.
#[derive(Debug, Clone)]
pub struct Claim {
    pub words: String,
    pub member: String,
    pub generation: i32,
    pub instance: Option<String>,
}

pub fn group_id(name: &str) -> GroupId {
    GroupId(text(name))
}

/// Every combination of a member, a generation and an instance that is right or wrong for this group.
pub fn claims(known: &Known) -> Vec<Claim> {
    let members = [("its member", known.member.clone()), ("no member", String::new()), ("another", "absent".into())];
    let generations = [("-1", -1), ("0", 0), ("its", known.generation), ("the next", known.generation + 1)];
    let instances =
        [("", None), (", its instance", known.instance.clone()), (", another instance", Some("absent".into()))];
    let mut all: Vec<Claim> = vec![];
    for (who, member) in &members {
        for (which, generation) in generations {
            for (instance_words, instance) in &instances {
                let doubled = instance_words.contains("its") && instance.is_none();
                if doubled || (who == &"its member" && member.is_empty()) {
                    continue;
                }
                let words = format!("{who}, generation {which}{instance_words}");
                all.push(Claim { words, member: member.clone(), generation, instance: instance.clone() });
            }
        }
    }
    all
}

pub fn join(known: &Known) -> JoinGroupRequest {
    let protocol = join_group_request::JoinGroupRequestProtocol::default().with_name(text("range"));
    JoinGroupRequest::default()
        .with_group_id(group_id(&known.name))
        .with_session_timeout_ms(60_000)
        .with_rebalance_timeout_ms(60_000)
        .with_member_id(text(&known.member))
        .with_group_instance_id(known.instance.as_deref().map(text))
        .with_protocol_type(text("test"))
        .with_protocols(vec![protocol.with_metadata(Bytes::from_static(b"\x01"))])
}

pub fn sync(known: &Known) -> SyncGroupRequest {
    SyncGroupRequest::default()
        .with_group_id(group_id(&known.name))
        .with_member_id(text(&known.member))
        .with_generation_id(known.generation)
        .with_group_instance_id(known.instance.as_deref().map(text))
}

pub fn leave(known: &Known) -> LeaveGroupRequest {
    let member = leave_group_request::MemberIdentity::default().with_member_id(text(&known.member));
    LeaveGroupRequest::default().with_group_id(group_id(&known.name)).with_members(vec![member])
}

/// A member of the new protocol that joins.
pub fn heartbeat(known: &Known, topic_name: &str) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest::default()
        .with_group_id(group_id(&known.name))
        .with_member_id(text(&known.member))
        .with_instance_id(known.instance.as_deref().map(text))
        .with_member_epoch(0)
        .with_rebalance_timeout_ms(60_000)
        .with_subscribed_topic_names(Some(vec![topic(topic_name)]))
        .with_topic_partitions(Some(vec![]))
}

pub fn commit(known: &Known, topic_name: &str, partition: i32, offset: i64, metadata: &str) -> OffsetCommitRequest {
    let committed = offset_commit_request::OffsetCommitRequestPartition::default()
        .with_partition_index(partition)
        .with_committed_offset(offset)
        .with_committed_metadata(Some(text(metadata)));
    let asked = offset_commit_request::OffsetCommitRequestTopic::default().with_name(topic(topic_name));
    OffsetCommitRequest::default()
        .with_group_id(group_id(&known.name))
        .with_generation_id_or_member_epoch(known.generation)
        .with_member_id(text(&known.member))
        .with_group_instance_id(known.instance.as_deref().map(text))
        .with_topics(vec![asked.with_partitions(vec![committed])])
}

impl World {
    /// A topic whose partitions have their leaders.
    pub fn topic(&mut self, name: &str, partitions: i32, configs: &[(&str, &str)]) -> String {
        let name = self.fresh(name);
        assert_eq!(self.client.create_topic(&name, partitions, configs).expect("an answer to CreateTopics"), 0);
        wait_for_leaders(&mut self.client, &name, partitions);
        name
    }

    /// A new group in one of the states above, watched from here on.
    pub fn group(&mut self, state: &str, topic_name: &str) -> Known {
        let mut known = Known { name: self.fresh("group"), generation: -1, ..Known::default() };
        self.watched = vec![Watched::Group(known.name.clone()), Watched::Offsets(known.name.clone())];
        match state {
            NO_GROUP => return known,
            CONSUMER | STATIC_CONSUMER => {
                known.member = "AAAAAAAAAAAAAAAAAAAAAQ".into();
                known.instance = (state == STATIC_CONSUMER).then(|| "its-instance".into());
                let request = heartbeat(&known, topic_name);
                known.generation = eventually("the member joins", READY, || {
                    let answer = self.client.call(1, &request).ok()?;
                    (answer.error_code == 0).then_some(answer.member_epoch)
                });
                self.watched[0] = Watched::ConsumerGroup(known.name.clone());
                return known;
            }
            _ => {}
        }
        if state == STATIC {
            known.instance = Some("its-instance".into());
        }
        let request = join(&known);
        let version = if state == STATIC { 5 } else { 3 };
        let joined = eventually("the member joins", READY, || {
            let answer = self.client.call(version, &request).expect("an answer to JoinGroup");
            (answer.error_code == 0).then_some(answer)
        });
        (known.member, known.generation) = (joined.member_id.to_string(), joined.generation_id);
        if state != WAITING {
            let version = if state == STATIC { 3 } else { 2 };
            assert_eq!(self.client.call(version, &sync(&known)).expect("an answer to SyncGroup").error_code, 0);
            let committed = self.client.call(7, &commit(&known, topic_name, 0, 5, "before")).expect("an answer");
            assert_eq!(committed.topics[0].partitions[0].error_code, 0, "committing in {state}");
        }
        if state == EMPTY {
            assert_eq!(self.client.call(3, &leave(&known)).expect("an answer to LeaveGroup").error_code, 0);
        }
        known
    }

    /// A transactional producer that has just begun; what it will write is watched.
    pub fn transactional(&mut self, timeout_ms: i32) -> (String, Producer) {
        let id = self.fresh("tx");
        let request = init(&id, timeout_ms);
        let producer = eventually("the producer has its id", READY, || {
            let answer = self.client.call(4, &request).expect("an answer to InitProducerId");
            let producer = Producer { id: answer.producer_id.0, epoch: answer.producer_epoch };
            (answer.error_code == 0).then_some(producer)
        });
        self.watched = vec![Watched::Transaction(id.clone())];
        (id, producer)
    }
}

pub fn init(id: &str, timeout_ms: i32) -> InitProducerIdRequest {
    InitProducerIdRequest::default()
        .with_transactional_id(Some(TransactionalId(text(id))))
        .with_transaction_timeout_ms(timeout_ms)
        .with_producer_id(ProducerId(-1))
        .with_producer_epoch(-1)
}
