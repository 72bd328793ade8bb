//! Records from bytes, in every version that Kafka has written.
//!
//! A key version that this release does not know is read as [`Record::Foreign`]; a value that it does not know, or
//! that does not decode, is an error.

use crate::base::TopicId;
use crate::base::codec::DecodeError;
use crate::group::records::codec::In;
use crate::group::records::{
    ClassicGroupValue, ClassicMemberMetadata, ClassicMemberValue, ConsumerGroupValue, ConsumerMemberAssignmentValue,
    ConsumerMemberValue, ConsumerPartitionsValue, ConsumerRegexValue, ConsumerTargetValue, EpochPartitions,
    OffsetValue, Record, key_version,
};
use crate::group::request::{Protocol, TopicPartitions};

/// Why a record of `__consumer_offsets` cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("the key of a record: {0}")]
    Key(#[source] DecodeError),
    #[error("the value of a record with key version {key_version}: {source}")]
    Value { key_version: i16, source: DecodeError },
    #[error("the value of a record with key version {key_version} is of version {version}, which is not known")]
    ValueVersion { key_version: i16, version: i16 },
}

/// Reads a value behind its version; the versions up to `newest` are known.
fn value<T>(
    key_version: i16,
    bytes: Option<&[u8]>,
    newest: i16,
    read: impl FnOnce(i16, &mut In<'_>) -> Result<T, DecodeError>,
) -> Result<Option<T>, RecordError> {
    let Some(bytes) = bytes else { return Ok(None) };
    let mut input = In::new(bytes);
    let version = input.i16().map_err(|source| RecordError::Value { key_version, source })?;
    if !(0..=newest).contains(&version) {
        return Err(RecordError::ValueVersion { key_version, version });
    }
    read(version, &mut input).map(Some).map_err(|source| RecordError::Value { key_version, source })
}

impl Record {
    pub fn decode(key: &[u8], bytes: Option<&[u8]>) -> Result<Record, RecordError> {
        let mut input = In::new(key);
        let v = input.i16().map_err(RecordError::Key)?;
        if !key_version::KNOWN.contains(&v) {
            return Ok(Record::Foreign { key_version: v });
        }
        let group = input.string("group").map_err(RecordError::Key)?;
        let mut second = || input.string("second part").map_err(RecordError::Key);
        Ok(match v {
            key_version::LEGACY_OFFSET | key_version::OFFSET => {
                let topic = second()?;
                let partition = input.i32().map_err(RecordError::Key)?;
                let value =
                    if v == key_version::OFFSET { value(v, bytes, 4, offset)? } else { value(v, bytes, 0, offset)? };
                Record::Offset { group, topic, partition, value }
            }
            key_version::CLASSIC_GROUP => Record::ClassicGroup { group, value: value(v, bytes, 4, classic_group)? },
            key_version::CONSUMER_GROUP => Record::ConsumerGroup { group, value: value(v, bytes, 0, consumer_group)? },
            key_version::CONSUMER_PARTITIONS => {
                Record::ConsumerPartitions { group, value: value(v, bytes, 0, partitions)? }
            }
            key_version::CONSUMER_MEMBER => {
                let member = second()?;
                Record::ConsumerMember { group, member, value: value(v, bytes, 0, consumer_member)? }
            }
            key_version::CONSUMER_TARGET => {
                Record::ConsumerTarget { group, value: value(v, bytes, 0, consumer_target)? }
            }
            key_version::CONSUMER_MEMBER_TARGET => {
                let member = second()?;
                Record::ConsumerMemberTarget { group, member, value: value(v, bytes, 0, target)? }
            }
            key_version::CONSUMER_MEMBER_ASSIGNMENT => {
                let member = second()?;
                Record::ConsumerMemberAssignment { group, member, value: value(v, bytes, 0, assignment)? }
            }
            _ => {
                let regex = second()?;
                Record::ConsumerRegex { group, regex, value: value(v, bytes, 0, regular_expression)? }
            }
        })
    }
}

fn offset(version: i16, input: &mut In<'_>) -> Result<OffsetValue, DecodeError> {
    let offset = input.i64()?;
    let leader_epoch = if version >= 3 { input.i32()? } else { -1 };
    let metadata = if version >= 4 { input.compact_string("metadata")? } else { input.string("metadata")? };
    let commit_timestamp = input.i64()?;
    let expire_timestamp = if version == 1 { input.i64()? } else { -1 };
    let mut topic_id = TopicId::default();
    if version >= 4 {
        input.tags(|tag, field| {
            if tag == 0 {
                topic_id = field.uuid()?;
            }
            Ok(())
        })?;
    }
    Ok(OffsetValue { offset, leader_epoch, metadata, commit_timestamp, expire_timestamp, topic_id })
}

fn classic_group(version: i16, input: &mut In<'_>) -> Result<ClassicGroupValue, DecodeError> {
    if version >= 4 {
        return flexible_classic_group(input);
    }
    Ok(ClassicGroupValue {
        protocol_type: input.string("protocol type")?,
        generation: input.i32()?,
        protocol: input.nullable_string("protocol")?,
        leader: input.nullable_string("leader")?,
        current_state_timestamp: if version >= 2 { input.i64()? } else { -1 },
        members: input.array("members", |input| {
            Ok(ClassicMemberValue {
                member: input.string("member id")?,
                instance: if version >= 3 { input.nullable_string("instance id")? } else { None },
                client_id: input.string("client id")?,
                client_host: input.string("client host")?,
                rebalance_timeout_ms: if version >= 1 { input.i32()? } else { -1 },
                session_timeout_ms: input.i32()?,
                subscription: input.byte_array("subscription")?,
                assignment: input.byte_array("assignment")?,
            })
        })?,
    })
}

/// Version 4, which Kafka reads and does not write yet.
fn flexible_classic_group(input: &mut In<'_>) -> Result<ClassicGroupValue, DecodeError> {
    let group = ClassicGroupValue {
        protocol_type: input.compact_string("protocol type")?,
        generation: input.i32()?,
        protocol: input.compact_nullable_string("protocol")?,
        leader: input.compact_nullable_string("leader")?,
        current_state_timestamp: input.i64()?,
        members: input.compact_array("members", |input| {
            let member = ClassicMemberValue {
                member: input.compact_string("member id")?,
                instance: input.compact_nullable_string("instance id")?,
                client_id: input.compact_string("client id")?,
                client_host: input.compact_string("client host")?,
                rebalance_timeout_ms: input.i32()?,
                session_timeout_ms: input.i32()?,
                subscription: input.compact_bytes("subscription")?,
                assignment: input.compact_bytes("assignment")?,
            };
            input.skip_tags()?;
            Ok(member)
        })?,
    };
    input.skip_tags()?;
    Ok(group)
}

fn consumer_group(_: i16, input: &mut In<'_>) -> Result<ConsumerGroupValue, DecodeError> {
    let mut group = ConsumerGroupValue { epoch: input.i32()?, metadata_hash: 0 };
    input.tags(|tag, field| {
        if tag == 0 {
            group.metadata_hash = field.i64()?;
        }
        Ok(())
    })?;
    Ok(group)
}

fn partitions(_: i16, input: &mut In<'_>) -> Result<ConsumerPartitionsValue, DecodeError> {
    let topics = input.compact_array("topics", |input| {
        let topic = (input.uuid()?, input.compact_string("topic name")?, input.i32()?);
        input.compact_array("partitions", |input| {
            input.i32()?;
            input.compact_array("racks", |input| input.compact_string("rack"))?;
            input.skip_tags()
        })?;
        input.skip_tags()?;
        Ok(topic)
    })?;
    input.skip_tags()?;
    Ok(ConsumerPartitionsValue { topics })
}

fn consumer_member(_: i16, input: &mut In<'_>) -> Result<ConsumerMemberValue, DecodeError> {
    let mut member = ConsumerMemberValue {
        instance: input.compact_nullable_string("instance id")?,
        rack: input.compact_nullable_string("rack id")?,
        client_id: input.compact_string("client id")?,
        client_host: input.compact_string("client host")?,
        subscribed_topics: input.compact_array("subscribed topics", |input| input.compact_string("topic name"))?,
        subscribed_regex: input.compact_nullable_string("regular expression")?,
        rebalance_timeout_ms: input.i32()?,
        server_assignor: input.compact_nullable_string("assignor")?,
        classic: None,
    };
    input.tags(|tag, field| {
        if tag == 0 {
            member.classic = classic_member_metadata(field)?;
        }
        Ok(())
    })?;
    Ok(member)
}

fn classic_member_metadata(input: &mut In<'_>) -> Result<Option<ClassicMemberMetadata>, DecodeError> {
    if input.varint()? == 0 {
        return Ok(None);
    }
    let metadata = ClassicMemberMetadata {
        session_timeout_ms: input.i32()?,
        supported_protocols: input.compact_array("protocols", |input| {
            let protocol = Protocol {
                name: input.compact_string("protocol name")?,
                metadata: input.compact_bytes("protocol metadata")?,
            };
            input.skip_tags()?;
            Ok(protocol)
        })?,
    };
    input.skip_tags()?;
    Ok(Some(metadata))
}

fn consumer_target(_: i16, input: &mut In<'_>) -> Result<ConsumerTargetValue, DecodeError> {
    let mut target = ConsumerTargetValue { assignment_epoch: input.i32()?, assignment_timestamp: 0 };
    input.tags(|tag, field| {
        if tag == 0 {
            target.assignment_timestamp = field.i64()?;
        }
        Ok(())
    })?;
    Ok(target)
}

fn target(_: i16, input: &mut In<'_>) -> Result<Vec<TopicPartitions>, DecodeError> {
    let topics = input.compact_array("topics", |input| {
        let topic = TopicPartitions {
            topic: input.uuid()?,
            partitions: input.compact_array("partitions", |input| input.i32())?,
        };
        input.skip_tags()?;
        Ok(topic)
    })?;
    input.skip_tags()?;
    Ok(topics)
}

fn epoch_partitions(input: &mut In<'_>) -> Result<EpochPartitions, DecodeError> {
    let mut topic = EpochPartitions {
        topic: input.uuid()?,
        partitions: input.compact_array("partitions", |input| input.i32())?,
        epochs: None,
    };
    input.tags(|tag, field| {
        if tag == 0 {
            topic.epochs = field.compact_nullable_array(|input| input.i32())?;
        }
        Ok(())
    })?;
    Ok(topic)
}

fn assignment(_: i16, input: &mut In<'_>) -> Result<ConsumerMemberAssignmentValue, DecodeError> {
    let assignment = ConsumerMemberAssignmentValue {
        member_epoch: input.i32()?,
        previous_member_epoch: input.i32()?,
        state: input.i8()?,
        assigned: input.compact_array("assigned", epoch_partitions)?,
        pending_revocation: input.compact_array("pending revocation", epoch_partitions)?,
    };
    input.skip_tags()?;
    Ok(assignment)
}

fn regular_expression(_: i16, input: &mut In<'_>) -> Result<ConsumerRegexValue, DecodeError> {
    let regex = ConsumerRegexValue {
        topics: input.compact_array("topics", |input| input.compact_string("topic name"))?,
        version: input.i64()?,
        timestamp: input.i64()?,
    };
    input.skip_tags()?;
    Ok(regex)
}
