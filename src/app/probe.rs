//! Finds out what is wrong with object storage from the start, and goes on until nothing is.
//!
//! The node serves meanwhile, as it does when object storage goes away later; `/ready` names the trouble.

use std::sync::Arc;
use std::time::Duration;

use crate::admin::Health;
use crate::broker::Broker;
use crate::object::ProbeError;

/// Pauses between attempts: doubled from the first to the last. Where objects can be put and not deleted each attempt
/// leaves a few bytes.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_LAST: Duration = Duration::from_secs(60);

/// Probes until it succeeds. What can never be trusted fences the node.
pub(super) async fn run(broker: Arc<Broker>, health: Health) {
    let mut pause = PAUSE_FIRST;
    let mut told = None;
    loop {
        match broker.objects().probe().await {
            Ok(_) => {
                tracing::info!("object storage works");
                health.trouble("object storage probe", None);
                return;
            }
            // Two writers could replace each other's objects, or what is read is not what was written.
            Err(error @ (ProbeError::NoConditionalPut { .. } | ProbeError::Unfaithful { .. })) => {
                broker.registry().fence(&error.to_string());
                return;
            }
            Err(error) => {
                if told.as_ref() != Some(&error) {
                    tracing::warn!(%error, "object storage does not work: records stay in the WAL until it does");
                }
                health.trouble("object storage probe", Some(error.to_string()));
                told = Some(error);
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_LAST);
    }
}
