//! The APIs of transactions: each turns its request into the coordinator's words and the answer back.

mod add_offsets_to_txn;
mod add_partitions_to_txn;
mod describe_transactions;
mod end_txn;
mod init_producer_id;
mod list_transactions;
mod txn_offset_commit;
mod write_txn_markers;

use crate::kafka::Request;
use crate::security::{Operation, Permit, Resource};
use crate::transaction;

use super::groups::{UNEXPECTED, UNKNOWN_TOPIC, code, owned};
use super::{Handlers, errors};

impl Handlers {
    fn transaction_permit(&self, request: &Request, operation: Operation, id: &str) -> Result<Permit, i16> {
        let permit = self.permit(&request.context, operation, Resource::transactional_id(id));
        permit.map_err(|denied| errors::denied(&denied).code())
    }

    async fn ask_transaction(
        &self,
        permit: &Permit,
        id: &str,
        ask: transaction::Request,
    ) -> Result<transaction::Reply, i16> {
        self.broker.transaction_request(permit, id, ask).await.map_err(|error| error.code())
    }

    /// Whether a partition of a topic exists, by name.
    fn has_partition(&self, topic: &str, index: i32) -> bool {
        self.broker.topic(topic).is_some_and(|t| usize::try_from(index).is_ok_and(|i| i < t.partitions.len()))
    }
}
