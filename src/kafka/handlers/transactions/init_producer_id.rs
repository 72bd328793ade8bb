//! InitProducerId (key 22): for idempotent producers an id, for transactional ones their id with a new epoch.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};

use crate::broker::BrokerSettings;
use crate::kafka::handlers::{Handlers, errors};
use crate::kafka::{Reply, Request};
use crate::security::{Operation, Resource};
use crate::transaction::{self, Producer};

use super::UNEXPECTED;

impl Handlers {
    pub(in crate::kafka::handlers) async fn init_producer_id(
        &self,
        request: Request,
        body: InitProducerIdRequest,
    ) -> Reply {
        let known = body.producer_id.0 != -1;
        let outcome = match &body.transactional_id {
            // One without the other is nobody's, with a transaction or without.
            _ if known != (body.producer_epoch != -1) => Err(ResponseError::InvalidRequest.code()),
            Some(id) if id.is_empty() => Err(ResponseError::InvalidRequest.code()),
            Some(id) => self.init_transactional(&request, id, &body).await,
            None => self.init_idempotent(&request).await,
        };
        let mut response = InitProducerIdResponse::default();
        (response.producer_id, response.producer_epoch) = (ProducerId(-1), -1);
        match outcome {
            Ok(producer) => {
                (response.producer_id, response.producer_epoch) = (ProducerId(producer.id), producer.epoch);
            }
            Err(code) => response.error_code = code,
        }
        self.count_code(&request, response.error_code);
        Reply::encode(request.to, &response)
    }

    async fn init_idempotent(&self, request: &Request) -> Result<Producer, i16> {
        match self.permit(&request.context, Operation::IdempotentWrite, Resource::CLUSTER) {
            Err(denied) => Err(errors::denied(&denied).code()),
            Ok(_) => match self.broker.next_producer_id().await {
                Ok(id) => Ok(Producer { id: id.0, epoch: 0 }),
                Err(error) => Err(errors::change(&error).code()),
            },
        }
    }

    async fn init_transactional(
        &self,
        request: &Request,
        id: &str,
        body: &InitProducerIdRequest,
    ) -> Result<Producer, i16> {
        let permit = self.transaction_permit(request, Operation::Write, id)?;
        // Before anybody is asked who coordinates: that answer would hide this one.
        let max_ms = self.broker.with_layers(|layers| BrokerSettings::long(layers, "transaction.max.timeout.ms"));
        if !(1..=max_ms).contains(&i64::from(body.transaction_timeout_ms)) {
            return Err(ResponseError::InvalidTransactionTimeout.code());
        }
        let known = body.producer_id.0 != -1;
        let ask = transaction::Request::InitProducerId {
            transactional_id: id.to_owned(),
            timeout_ms: body.transaction_timeout_ms,
            expected: known.then_some(Producer { id: body.producer_id.0, epoch: body.producer_epoch }),
        };
        match self.ask_transaction(&permit, id, ask).await? {
            transaction::Reply::InitProducerId(answer) => {
                answer.map_err(|error| error.init_producer_id(request.to.version))
            }
            _ => Err(UNEXPECTED),
        }
    }
}
