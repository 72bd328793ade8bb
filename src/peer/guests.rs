//! The nodes that are connected to this one: for each the process that has its name, and one connection a class.
//!
//! A process that connects anew replaces its older connection of that class, and begins only when that has ended, so
//! that no request of the older one comes after one of the newer. Another process under the same name is refused as
//! long as the first is connected: two live processes with one identity would both answer for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::{Class, Reason};
use crate::base::NodeId;

pub(super) struct Guests {
    own: NodeId,
    connections_max: usize,
    tools_max: usize,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    next: u64,
    connections: usize,
    tools: usize,
    nodes: HashMap<NodeId, Present>,
}

/// A node with at least one connection.
struct Present {
    process: u64,
    chairs: [Option<Chair>; 4],
}

struct Chair {
    number: u64,
    /// Turns true when the connection has to make room.
    leave: watch::Sender<bool>,
    /// Closes when the connection has gone.
    gone: watch::Receiver<()>,
}

/// A connection's seat; it is left by dropping it.
pub(super) struct Seat {
    guests: Arc<Guests>,
    node: NodeId,
    class: Class,
    /// None: a tool of this node.
    number: Option<u64>,
    leave: watch::Receiver<bool>,
    /// Only for the chair's receiver to notice its end.
    _gone: watch::Sender<()>,
}

/// What became of a request for a seat.
pub(super) enum Seating {
    Seated(Seat),
    /// An older connection of the same process was told to go; ask again when this closes.
    Wait(watch::Receiver<()>),
    Refused(Reason),
}

impl Guests {
    pub fn new(own: NodeId, connections_max: usize, tools_max: usize) -> Arc<Guests> {
        Arc::new(Guests { own, connections_max, tools_max, inner: Mutex::default() })
    }

    pub fn seat(self: &Arc<Self>, node: NodeId, class: Class, process: u64) -> Seating {
        let mut inner = self.lock();
        let (leave, left) = watch::channel(false);
        let (going, gone) = watch::channel(());
        let number = if node == self.own {
            // Each tool is a process of its own, beside the one that serves.
            if inner.tools >= self.tools_max {
                return Seating::Refused(Reason::Full);
            }
            inner.tools += 1;
            None
        } else {
            let full = inner.connections >= self.connections_max;
            let number = inner.next;
            if let Some(present) = inner.nodes.get(&node) {
                if present.process != process {
                    return Seating::Refused(Reason::Process);
                }
                if let Some(chair) = &present.chairs[class.index()] {
                    chair.leave.send_replace(true);
                    return Seating::Wait(chair.gone.clone());
                }
            }
            if full {
                return Seating::Refused(Reason::Full);
            }
            inner.next += 1;
            inner.connections += 1;
            let present = inner.nodes.entry(node).or_insert_with(|| Present { process, chairs: Default::default() });
            present.chairs[class.index()] = Some(Chair { number, leave, gone });
            Some(number)
        };
        drop(inner);
        Seating::Seated(Seat { guests: Arc::clone(self), node, class, number, leave: left, _gone: going })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Returns when a newer connection wants the seat.
    pub async fn wanted(&mut self) {
        if self.leave.wait_for(|leave| *leave).await.is_err() {
            // A tool's seat is wanted by nobody.
            std::future::pending().await
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut inner = self.guests.lock();
        let Some(number) = self.number else {
            inner.tools -= 1;
            return;
        };
        inner.connections -= 1;
        if let Some(present) = inner.nodes.get_mut(&self.node) {
            present.chairs[self.class.index()].take_if(|chair| chair.number == number);
            if present.chairs.iter().all(Option::is_none) {
                inner.nodes.remove(&self.node);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const OWN: NodeId = NodeId(1);
    const OTHER: NodeId = NodeId(2);

    fn seated(seating: Seating) -> Seat {
        match seating {
            Seating::Seated(seat) => seat,
            Seating::Wait(_) => panic!("wait"),
            Seating::Refused(reason) => panic!("{reason:?}"),
        }
    }

    fn refused(seating: Seating) -> Option<Reason> {
        match seating {
            Seating::Refused(reason) => Some(reason),
            _ => None,
        }
    }

    #[test]
    fn the_same_process_replaces_and_waits_for_the_older() {
        let guests = Guests::new(OWN, 10, 1);
        let mut first = seated(guests.seat(OTHER, Class::Raft, 7));
        let bulk = seated(guests.seat(OTHER, Class::Bulk, 7));
        assert!(first.wanted().now_or_never().is_none());
        let Seating::Wait(mut gone) = guests.seat(OTHER, Class::Raft, 7) else { panic!("not told to wait") };
        assert!(first.wanted().now_or_never().is_some());
        assert!(gone.changed().now_or_never().is_none());
        drop(first);
        assert!(gone.changed().now_or_never().is_some_and(|gone| gone.is_err()));
        let second = seated(guests.seat(OTHER, Class::Raft, 7));
        drop((second, bulk));
        let inner = guests.lock();
        assert_eq!((inner.connections, inner.nodes.len()), (0, 0));
    }

    #[test]
    fn another_process_is_refused_until_the_first_is_wholly_gone() {
        let guests = Guests::new(OWN, 10, 1);
        let (raft, bulk) = (seated(guests.seat(OTHER, Class::Raft, 7)), seated(guests.seat(OTHER, Class::Bulk, 7)));
        for class in Class::ALL {
            assert_eq!(refused(guests.seat(OTHER, class, 8)), Some(Reason::Process));
        }
        drop(raft);
        assert_eq!(refused(guests.seat(OTHER, Class::Raft, 8)), Some(Reason::Process));
        drop(bulk);
        seated(guests.seat(OTHER, Class::Raft, 8));
    }

    #[test]
    fn seats_and_tools_are_bounded_apart() {
        let guests = Guests::new(OWN, 2, 1);
        let _kept = (seated(guests.seat(OTHER, Class::Raft, 7)), seated(guests.seat(NodeId(3), Class::Raft, 7)));
        assert_eq!(refused(guests.seat(OTHER, Class::Bulk, 7)), Some(Reason::Full));
        assert!(matches!(guests.seat(OTHER, Class::Raft, 7), Seating::Wait(_)), "a reconnect needs no room");
        let tool = seated(guests.seat(OWN, Class::Control, 100));
        assert_eq!(refused(guests.seat(OWN, Class::Control, 101)), Some(Reason::Full));
        drop(tool);
        let mut tool = seated(guests.seat(OWN, Class::Control, 102));
        assert!(tool.wanted().now_or_never().is_none());
    }
}
