//! ListTransactions (key 66, KIP-664, KIP-994, KIP-1152).

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::list_transactions_response::TransactionState;
use kafka_protocol::messages::{ListTransactionsRequest, ListTransactionsResponse, ProducerId, TransactionalId};

use crate::group::whole_match;
use crate::kafka::handlers::{Handlers, text};
use crate::kafka::{Reply, Request};
use crate::security::Operation;
use crate::transaction::{Filter, Pattern};

const DURATION_SINCE: i16 = 1;

impl Handlers {
    pub(in crate::kafka::handlers) async fn list_transactions(
        &self,
        request: Request,
        body: ListTransactionsRequest,
    ) -> Reply {
        let mut response = ListTransactionsResponse::default();
        let pattern = match body.transactional_id_pattern.as_deref().filter(|p| !p.is_empty()).map(whole_match) {
            None => Ok(None),
            Some(Some(matches)) => Ok(Some(Pattern(matches))),
            Some(None) => Err(ResponseError::InvalidRegularExpression.code()),
        };
        let listing = match pattern {
            Ok(pattern) => {
                let filter = Filter {
                    producer_ids: body.producer_id_filters.iter().map(|id| id.0).collect(),
                    states: body.state_filters.iter().map(|s| s.to_string()).collect(),
                    duration_ms: if request.to.version >= DURATION_SINCE { body.duration_filter } else { -1 },
                    pattern,
                };
                self.broker.list_transactions(&filter).await.map_err(|error| error.code())
            }
            Err(code) => Err(code),
        };
        match listing {
            Ok(listing) => {
                response.unknown_state_filters = listing.unknown_states.into_iter().map(text).collect();
                for listed in listing.transactions {
                    if self.transaction_permit(&request, Operation::Describe, &listed.transactional_id).is_err() {
                        continue;
                    }
                    let mut state = TransactionState::default();
                    state.transactional_id = TransactionalId(text(listed.transactional_id.to_string()));
                    state.producer_id = ProducerId(listed.producer_id);
                    state.transaction_state = text(listed.state.name());
                    response.transaction_states.push(state);
                }
            }
            Err(code) => response.error_code = code,
        }
        self.count_code(&request, response.error_code);
        Reply::encode(request.to, &response)
    }
}
