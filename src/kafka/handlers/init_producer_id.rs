//! InitProducerId (key 22) for idempotent producers. Transactional ids are refused until transactions work.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};

use crate::kafka::{Reply, Request};
use crate::security::{Operation, Resource};

use super::{Handlers, errors};

impl Handlers {
    pub(super) async fn init_producer_id(&self, request: Request, body: InitProducerIdRequest) -> Reply {
        let mut response = InitProducerIdResponse::default();
        (response.producer_id, response.producer_epoch) = (ProducerId(-1), -1);
        let outcome = match self.permit(&request.context, Operation::IdempotentWrite, Resource::CLUSTER) {
            Err(denied) => Err(errors::denied(&denied)),
            Ok(_) if body.transactional_id.is_some() => Err(ResponseError::InvalidRequest),
            Ok(_) => self.broker.next_producer_id().await.map_err(|e| errors::change(&e)),
        };
        match outcome {
            Ok(id) => (response.producer_id, response.producer_epoch) = (ProducerId(id.0), 0),
            Err(error) => {
                response.error_code = error.code();
                self.metrics.count_error(request.to.api, error.code());
            }
        }
        Reply::encode(request.to, &response)
    }
}
