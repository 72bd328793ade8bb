//! EndTxn (key 26): answered when the decision is durable; the markers follow.

use kafka_protocol::messages::{EndTxnRequest, EndTxnResponse, ProducerId};

use crate::kafka::handlers::Handlers;
use crate::kafka::{Reply, Request};
use crate::security::Operation;
use crate::transaction::{self, Producer, TransactionVersion};

use super::UNEXPECTED;

/// Version from which the producer learns its new epoch (KIP-890).
const PRODUCER_SINCE: i16 = 5;

impl Handlers {
    pub(in crate::kafka::handlers) async fn end_txn(&self, request: Request, body: EndTxnRequest) -> Reply {
        let mut response = EndTxnResponse::default();
        if request.to.version >= PRODUCER_SINCE {
            (response.producer_id, response.producer_epoch) = (ProducerId(-1), -1);
        }
        match self.end(&request, &body).await {
            Ok(Some(producer)) if request.to.version >= PRODUCER_SINCE => {
                (response.producer_id, response.producer_epoch) = (ProducerId(producer.id), producer.epoch);
            }
            Ok(_) => {}
            Err(code) => response.error_code = code,
        }
        self.count_code(&request, response.error_code);
        Reply::encode(request.to, &response)
    }

    async fn end(&self, request: &Request, body: &EndTxnRequest) -> Result<Option<Producer>, i16> {
        let id = body.transactional_id.to_string();
        let permit = self.transaction_permit(request, Operation::Write, &id)?;
        let ask = transaction::Request::EndTxn {
            transactional_id: id.clone(),
            producer: Producer { id: body.producer_id.0, epoch: body.producer_epoch },
            commit: body.committed,
            version: TransactionVersion::of_end_txn(request.to.version),
        };
        match self.ask_transaction(&permit, &id, ask).await? {
            transaction::Reply::EndTxn(answer) => answer.map_err(|error| error.end_txn(request.to.version)),
            _ => Err(UNEXPECTED),
        }
    }
}
