//! TxnOffsetCommit (key 28): offsets that become visible with the transaction they are committed in.

use kafka_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use kafka_protocol::messages::{TxnOffsetCommitRequest, TxnOffsetCommitResponse};

use crate::broker::CoordinatorKind;
use crate::group::{self, CommitPartition, CommitTopic, GroupError, OffsetCommit};
use crate::kafka::handlers::Handlers;
use crate::kafka::{Reply, Request};
use crate::security::Operation;
use crate::transaction::Producer;

use super::{UNEXPECTED, UNKNOWN_TOPIC, code, owned};

/// Version from which the commit itself adds the group's partition to the transaction (KIP-890).
const ADDS_PARTITION_SINCE: i16 = 5;

impl Handlers {
    pub(in crate::kafka::handlers) async fn txn_offset_commit(
        &self,
        request: Request,
        body: TxnOffsetCommitRequest,
    ) -> Reply {
        let mut response = TxnOffsetCommitResponse::default();
        let mut topics = Vec::new();
        for topic in &body.topics {
            let refusal = self.topic_refusal(&request, Operation::Read, &topic.name);
            let mut answered = TxnOffsetCommitResponseTopic::default();
            answered.name = topic.name.clone();
            let mut asked =
                CommitTopic { name: topic.name.to_string(), id: Default::default(), partitions: Vec::new() };
            for partition in &topic.partitions {
                let exists = self.has_partition(&topic.name, partition.partition_index);
                let refused = refusal.or((!exists).then_some(UNKNOWN_TOPIC));
                let mut part = TxnOffsetCommitResponsePartition::default();
                part.partition_index = partition.partition_index;
                part.error_code = refused.unwrap_or(0);
                answered.partitions.push(part);
                if refused.is_none() {
                    asked.partitions.push(CommitPartition {
                        partition: partition.partition_index,
                        offset: partition.committed_offset,
                        leader_epoch: partition.committed_leader_epoch,
                        metadata: owned(partition.committed_metadata.clone()),
                    });
                }
            }
            response.topics.push(answered);
            if !asked.partitions.is_empty() {
                topics.push(asked);
            }
        }
        if !topics.is_empty() {
            let outcome = self.commit_in_transaction(&request, &body, topics).await;
            fill(&mut response, outcome);
        }
        for part in response.topics.iter().flat_map(|t| &t.partitions) {
            self.count_code(&request, part.error_code);
        }
        Reply::encode(request.to, &response)
    }

    async fn commit_in_transaction(
        &self,
        request: &Request,
        body: &TxnOffsetCommitRequest,
        topics: Vec<CommitTopic>,
    ) -> Result<group::Reply, i16> {
        let id = body.transactional_id.to_string();
        let group = body.group_id.to_string();
        let transaction = self.transaction_permit(request, Operation::Write, &id)?;
        let permit = self.group_permit(request, Operation::Read, &group)?;
        if group.is_empty() {
            // Before the transaction would take part in anything.
            return Err(GroupError::InvalidGroupId.code());
        }
        let found = self.broker.find_coordinator(&permit, CoordinatorKind::Group, &group).await;
        found.map_err(|error| error.code())?;
        let producer = Producer { id: body.producer_id.0, epoch: body.producer_epoch };
        let version = request.to.version;
        let adds = version >= ADDS_PARTITION_SINCE;
        // The transaction's coordinator must have the group's partition in the transaction before anything is written.
        let admitted = self.broker.admit_offsets(&transaction, &id, producer, &group, adds).await;
        let admitted = admitted.map_err(|error| error.code())?.map_err(|error| error.txn_offset_commit(version))?;
        let commit = OffsetCommit {
            version,
            group: group.clone(),
            generation_or_epoch: body.generation_id,
            member: body.member_id.to_string(),
            instance: owned(body.group_instance_id.clone()),
            retention_ms: None,
            transactional: None,
            topics,
        };
        let committed = self.broker.commit_in_transaction(&permit, &group, admitted, commit).await;
        committed.map_err(|error| error.code())
    }
}

/// Puts the coordinator's answers in the places that were not refused before, which are in the same order.
fn fill(response: &mut TxnOffsetCommitResponse, outcome: Result<group::Reply, i16>) {
    let asked = response.topics.iter_mut().flat_map(|t| &mut t.partitions).filter(|part| part.error_code == 0);
    match outcome {
        Ok(group::Reply::OffsetCommit(answers)) => {
            let answers = answers.into_iter().flat_map(|topic| topic.partitions).map(|(_, error)| code(error));
            asked.zip(answers).for_each(|(part, answer)| part.error_code = answer);
        }
        Ok(_) => asked.for_each(|part| part.error_code = UNEXPECTED),
        Err(code) => asked.for_each(|part| part.error_code = code),
    }
}
