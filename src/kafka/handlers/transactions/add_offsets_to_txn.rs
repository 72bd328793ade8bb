//! AddOffsetsToTxn (key 25): the partition of `__consumer_offsets` that a group's offsets go to joins a transaction.

use kafka_protocol::messages::{AddOffsetsToTxnRequest, AddOffsetsToTxnResponse};

use crate::broker::{CoordinatorKind, OFFSETS_TOPIC};
use crate::kafka::handlers::Handlers;
use crate::kafka::{Reply, Request};
use crate::security::Operation;
use crate::transaction::{self, Producer};

use super::UNEXPECTED;

impl Handlers {
    pub(in crate::kafka::handlers) async fn add_offsets_to_txn(
        &self,
        request: Request,
        body: AddOffsetsToTxnRequest,
    ) -> Reply {
        let mut response = AddOffsetsToTxnResponse::default();
        response.error_code = self.add_offsets(&request, &body).await.err().unwrap_or(0);
        self.count_code(&request, response.error_code);
        Reply::encode(request.to, &response)
    }

    async fn add_offsets(&self, request: &Request, body: &AddOffsetsToTxnRequest) -> Result<(), i16> {
        let id = body.transactional_id.to_string();
        let permit = self.transaction_permit(request, Operation::Write, &id)?;
        let group = self.group_permit(request, Operation::Read, &body.group_id)?;
        // The topic may not be there yet: a processor commits offsets before any consumer has joined.
        let found = self.broker.find_coordinator(&group, CoordinatorKind::Group, &body.group_id).await;
        found.map_err(|error| error.code())?;
        let index = self.broker.group_partition(&body.group_id).ok_or(UNEXPECTED)?;
        let ask = transaction::Request::AddOffsets {
            transactional_id: id.clone(),
            producer: Producer { id: body.producer_id.0, epoch: body.producer_epoch },
            partition: (OFFSETS_TOPIC.into(), index),
        };
        match self.ask_transaction(&permit, &id, ask).await? {
            transaction::Reply::AddOffsets(answer) => {
                answer.map_err(|error| error.add_offsets_to_txn(request.to.version))
            }
            _ => Err(UNEXPECTED),
        }
    }
}
