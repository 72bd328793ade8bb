//! The beginning of the end: whatever waits for something to happen is answered at once.
//!
//! Only waits that may last are cut short. What was appended is still made durable and acknowledged.

use tokio::sync::watch;

use super::Broker;

/// A wait for the moment at which the node begins to stop.
pub struct Stopping(watch::Receiver<bool>);

impl Stopping {
    /// Returns once the node has begun to stop, also if that was before.
    pub async fn begun(&mut self) {
        if self.0.wait_for(|stopping| *stopping).await.is_err() {
            // The broker is gone without ever having stopped: nothing to hear any more.
            std::future::pending::<()>().await;
        }
    }
}

impl Broker {
    /// Answers every parked request: a long poll with what there is, one that waits for its group or its transaction
    /// with "not the coordinator", so that its client looks for another. Nothing is parked any more after this.
    pub fn begin_stop(&self) {
        self.stopping.send_replace(true);
        self.close_coordinators();
    }

    /// For requests that wait.
    pub fn stopping(&self) -> Stopping {
        Stopping(self.stopping.subscribe())
    }

    pub(super) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }
}
