//! Connections that have not said who they are yet: a bounded number, of which the oldest makes room for the newest.
//!
//! A flood of half-open connections so ends itself, while a node that says its hello at once is through before it is the
//! oldest.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

pub(super) struct Doorstep {
    max: usize,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    /// By arrival. Dropping the sender cuts the connection.
    connections: BTreeMap<u64, oneshot::Sender<()>>,
}

/// A connection's place; it is left by dropping it.
pub(super) struct Place {
    doorstep: Arc<Doorstep>,
    number: u64,
    cut: oneshot::Receiver<()>,
}

impl Doorstep {
    pub fn new(max: usize) -> Arc<Doorstep> {
        Arc::new(Doorstep { max: max.max(1), waiting: Mutex::default() })
    }

    /// A place for a new connection, and whether another was cut for it.
    pub fn enter(self: &Arc<Self>) -> (Place, bool) {
        let (sender, cut) = oneshot::channel();
        let mut waiting = self.lock();
        let crowded = waiting.connections.len() >= self.max;
        if crowded {
            waiting.connections.pop_first();
        }
        let number = waiting.next;
        waiting.next += 1;
        waiting.connections.insert(number, sender);
        drop(waiting);
        (Place { doorstep: Arc::clone(self), number, cut }, crowded)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Returns when the connection has to go.
    pub async fn cut(&mut self) {
        // Nobody ever sends.
        let _ = (&mut self.cut).await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.doorstep.lock().connections.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn the_oldest_goes_and_who_left_leaves_room() {
        let doorstep = Doorstep::new(2);
        let ((mut first, none), (mut second, _)) = (doorstep.enter(), doorstep.enter());
        assert!(!none && first.cut().now_or_never().is_none());
        let (third, crowded) = doorstep.enter();
        assert!(crowded && first.cut().now_or_never().is_some() && second.cut().now_or_never().is_none());
        drop((first, third));
        let (_fourth, crowded) = doorstep.enter();
        assert!(!crowded && second.cut().now_or_never().is_none());
        let (_fifth, crowded) = doorstep.enter();
        assert!(crowded && second.cut().now_or_never().is_some());
    }
}
