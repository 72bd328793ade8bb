//! Producer ids, given out from blocks that the metadata hand to this broker.

use crate::base::ProducerId;
use crate::metadata::{Command, Response};

use super::{Broker, ChangeError};

/// Ids of one block: Kafka's block size.
const BLOCK: u32 = 1_000;

/// What is left of the block that was allocated last.
#[derive(Default)]
pub(super) struct Block {
    next: i64,
    left: u32,
}

impl Broker {
    /// A producer id that was never given out before.
    pub async fn next_producer_id(&self) -> Result<ProducerId, ChangeError> {
        let mut block = self.producer_ids.lock().await;
        if block.left == 0 {
            let command = Command::AllocateProducerIds { node: self.node, epoch: self.epoch, count: BLOCK };
            match self.propose(command).await? {
                Response::ProducerIds { first, count } => *block = Block { next: first.0, left: count },
                _ => return Err(ChangeError::UnexpectedAnswer),
            }
        }
        let id = ProducerId(block.next);
        block.next += 1;
        block.left = block.left.saturating_sub(1);
        Ok(id)
    }
}
