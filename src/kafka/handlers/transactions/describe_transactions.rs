//! DescribeTransactions (key 65, KIP-664).

use kafka_protocol::messages::describe_transactions_response::{TopicData, TransactionState};
use kafka_protocol::messages::{
    DescribeTransactionsRequest, DescribeTransactionsResponse, ProducerId, TopicName, TransactionalId,
};

use crate::kafka::handlers::room::Room;
use crate::kafka::handlers::{Handlers, text};
use crate::kafka::{Reply, Request};
use crate::security::Operation;
use crate::transaction::{self, Description};

use super::UNEXPECTED;

impl Handlers {
    pub(in crate::kafka::handlers) async fn describe_transactions(
        &self,
        request: Request,
        body: DescribeTransactionsRequest,
    ) -> Reply {
        let mut response = DescribeTransactionsResponse::default();
        let mut room = Room::new(&request);
        for id in body.transactional_ids {
            let mut state = TransactionState::default();
            match self.describe_transaction(&request, &id).await {
                Ok(description) => self.describe_into(&request, &mut state, &description),
                Err(code) => state.error_code = code,
            }
            let mut state = room.take(state).unwrap_or_else(|code| TransactionState::default().with_error_code(code));
            self.count_code(&request, state.error_code);
            state.transactional_id = id;
            response.transaction_states.push(state);
        }
        Reply::encode(request.to, &response)
    }

    async fn describe_transaction(&self, request: &Request, id: &TransactionalId) -> Result<Description, i16> {
        let permit = self.transaction_permit(request, Operation::Describe, id)?;
        let ask = transaction::Request::DescribeTransaction { transactional_id: id.to_string() };
        match self.ask_transaction(&permit, id, ask).await? {
            transaction::Reply::DescribeTransaction(answer) => answer.map_err(|error| error.code()),
            _ => Err(UNEXPECTED),
        }
    }

    fn describe_into(&self, request: &Request, state: &mut TransactionState, description: &Description) {
        state.transaction_state = text(description.state.name());
        state.transaction_timeout_ms = description.timeout_ms;
        state.transaction_start_time_ms = description.start_ms;
        state.producer_id = ProducerId(description.producer.id);
        state.producer_epoch = description.producer.epoch;
        for (topic, partitions) in description.partitions.by_topic() {
            if self.topic_refusal(request, Operation::Describe, topic).is_some() {
                continue;
            }
            let mut data = TopicData::default();
            data.topic = TopicName(text(topic.to_string()));
            data.partitions = partitions.iter().copied().collect();
            state.topics.push(data);
        }
    }
}
