//! Which certificate belongs to which node.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use tokio::sync::watch;

use super::Class;
use crate::base::NodeId;

/// What the cluster knows of a certificate's subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// A node of the cluster.
    Known(NodeId),
    /// A node that was invited and has not joined yet: it may use [`Class::Control`] only.
    Joining(NodeId),
    Unknown,
}

impl Standing {
    pub(super) fn node(self) -> Option<NodeId> {
        match self {
            Standing::Known(node) | Standing::Joining(node) => Some(node),
            Standing::Unknown => None,
        }
    }

    /// Whether a certificate of this standing may be `node`'s end of a connection of this class.
    pub(super) fn permits(self, node: NodeId, class: Class) -> bool {
        match self {
            Standing::Known(known) => known == node,
            Standing::Joining(joining) => joining == node && class == Class::Control,
            Standing::Unknown => false,
        }
    }
}

/// The nodes of the cluster by the subjects of their certificates.
pub trait AllowList: Send + Sync {
    /// The standing of a subject, given as RFC 2253 text. Must not block.
    fn standing(&self, subject: &str) -> Standing;

    /// Changes whenever an answer of [`AllowList::standing`] may have changed; the connections that stand are then
    /// judged again.
    fn changes(&self) -> watch::Receiver<u64>;
}

/// An allow-list that is put in force as a whole.
pub struct Roster {
    /// Counts the lists.
    current: watch::Sender<u64>,
    list: RwLock<HashMap<String, Standing>>,
}

impl Roster {
    pub fn new(list: HashMap<String, Standing>) -> Roster {
        Roster { current: watch::Sender::new(0), list: RwLock::new(list) }
    }

    pub fn set(&self, list: HashMap<String, Standing>) {
        *self.list.write().unwrap_or_else(PoisonError::into_inner) = list;
        self.current.send_modify(|version| *version += 1);
    }
}

impl AllowList for Roster {
    fn standing(&self, subject: &str) -> Standing {
        let list = self.list.read().unwrap_or_else(PoisonError::into_inner);
        list.get(subject).copied().unwrap_or(Standing::Unknown)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.current.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_joining_node_may_use_control_only_and_nobody_anothers_name() {
        let node = NodeId(2);
        for class in Class::ALL {
            assert!(Standing::Known(node).permits(node, class));
            assert_eq!(Standing::Joining(node).permits(node, class), class == Class::Control);
            for standing in [Standing::Known(NodeId(3)), Standing::Joining(NodeId(3)), Standing::Unknown] {
                assert!(!standing.permits(node, class));
            }
        }
    }

    #[test]
    fn a_new_list_is_in_force_and_announced() {
        let roster = Roster::new(HashMap::from([("CN=a".to_owned(), Standing::Known(NodeId(1)))]));
        let mut changes = roster.changes();
        assert_eq!(roster.standing("CN=a"), Standing::Known(NodeId(1)));
        assert_eq!(roster.standing("CN=A"), Standing::Unknown);
        roster.set(HashMap::new());
        assert!(changes.has_changed().unwrap() && *changes.borrow_and_update() == 1);
        assert_eq!(roster.standing("CN=a"), Standing::Unknown);
    }
}
