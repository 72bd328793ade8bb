//! Loads a coordinator's machine from the log of its partition.

use std::sync::Arc;
use std::time::Duration;

use crate::base::Offset;
use crate::batch::{self, StoredBatch, compact};
use crate::broker::{Broker, FetchError};
use crate::partition::{Isolation, Partition};

use super::shard::{Machine, Shard};

/// Bytes of the log that are read at once.
const STEP_BYTES: usize = 1 << 20;
/// Pause after a failure.
const AGAIN: Duration = Duration::from_secs(1);
/// How often to look whether what was appended before is durable.
const SETTLE: Duration = Duration::from_millis(5);

/// What a kind of machine adds to being loaded.
pub(super) trait Loadable: Machine {
    fn new(broker: &Broker, partition: &Partition) -> Self;
    /// The machine has taken over.
    fn activated(broker: &Arc<Broker>, shard: &Arc<Shard<Self>>);
}

/// Loads until it succeeds or the shard is closed.
pub(super) async fn load<M: Loadable>(broker: Arc<Broker>, shard: Arc<Shard<M>>) {
    loop {
        match replay(&broker, &shard).await {
            Ok(()) => {
                M::activated(&broker, &shard);
                broker.coordinators.activated.notify_waiters();
                broker.coordinators.wake.notify_one();
                return;
            }
            Err(LoadError::Closed) => return,
            Err(LoadError::Fetch(error)) => {
                tracing::warn!(partition = %shard.partition.id, %error, "a coordinator cannot be loaded yet");
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error("the shard was closed")]
    Closed,
    #[error(transparent)]
    Fetch(#[from] FetchError),
}

async fn replay<M: Loadable>(broker: &Broker, shard: &Shard<M>) -> Result<(), LoadError> {
    let partition = &shard.partition;
    // Before the first transactional write of the machine: it could not wait for it.
    broker.load_producer_state(partition).await?;
    let mut machine = M::new(broker, partition);
    let mut from = partition.positions().log_start;
    loop {
        let at = partition.positions();
        from = from.max(at.log_start);
        if from < at.high_watermark {
            let read = broker.read_batches(partition, from, STEP_BYTES, true, Isolation::ReadUncommitted).await?;
            for batch in &read.batches {
                take_in(&mut machine, partition, batch, from);
                from = from.max(batch.header().next_offset());
            }
            // What compaction has emptied is no batch any more.
            if read.batches.is_empty() {
                from = read.positions.high_watermark;
            }
            tokio::task::yield_now().await;
            continue;
        }
        if from < at.next {
            // Appended by the machine before; it becomes durable, or the node fences itself.
            tokio::time::sleep(SETTLE).await;
            continue;
        }
        match shard.activate(machine, from) {
            Ok(()) => return Ok(()),
            Err(Some(back)) => machine = back,
            Err(None) => return Err(LoadError::Closed),
        }
    }
}

/// A batch that cannot be read is passed over, as Kafka does with records of unknown versions: it was checked when it
/// was written, and one that rotted is an error of reading it.
fn take_in<M: Machine>(machine: &mut M, partition: &Partition, batch: &StoredBatch, from: Offset) {
    let header = batch.header();
    if header.is_control() {
        match batch::parse_end_marker(&batch.to_contiguous()) {
            Ok(Some(marker)) => machine.replay_marker(header.producer_id.0, marker.commit),
            Ok(None) => {}
            Err(error) => {
                tracing::error!(partition = %partition.id, offset = %header.base_offset, %error, "a marker is broken");
            }
        }
        return;
    }
    let producer = header.is_transactional().then_some((header.producer_id.0, header.producer_epoch));
    let walked = compact::each_key_value(batch, |offset, key, value| {
        if let (true, Some(key)) = (offset >= from, key) {
            machine.replay(key, value, producer);
        }
    });
    if let Err(error) = walked {
        tracing::error!(partition = %partition.id, offset = %header.base_offset, %error, "a coordinator's batch is broken");
    }
}
