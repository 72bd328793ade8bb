//! What the ledgers of this broker want of the metadata: another replica set, an end, who is registered.

use std::sync::{Arc, Weak};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::base::{BrokerEpoch, NodeId};
use crate::ledger::core::{Outcome, write_quorum};
use crate::ledger::{self, DriveParts, Host, Links, Openings, Proposal, Registrations};
use crate::metadata::{Command, Image, Reject, Response};
use crate::quorum::{ProposeError, Quorum};

use super::Broker;

impl Broker {
    /// Keeps the ledger's replicas on other nodes supplied, and replaces those that fail, until the process ends.
    pub async fn run_ledger(self: Arc<Self>, links: Arc<dyn Links>) {
        let quorum = self.quorum.clone();
        let openings = Arc::new(QuorumOpenings { quorum, node: self.node, epoch: self.epoch });
        let (image, clock) = (self.image.clone(), self.clock.clone());
        ledger::drive(self.ledger.clone(), DriveParts { links, openings, image, clock }).await;
    }
}

/// Lets the writers of other nodes in, and frees what is uploaded, as the metadata say; as long as there is a host.
pub(super) async fn follow(host: Weak<Host>, mut image: watch::Receiver<Arc<Image>>) {
    image.mark_changed();
    while image.changed().await.is_ok() {
        let now = image.borrow_and_update().clone();
        let Some(host) = host.upgrade() else { return };
        if tokio::task::spawn_blocking(move || host.applied(&now)).await.is_err() {
            tracing::error!("what the metadata say about ledgers was not taken in");
        }
    }
}

/// Proposes replica sets in the name of one broker epoch.
struct QuorumOpenings {
    quorum: Arc<Quorum>,
    node: NodeId,
    epoch: BrokerEpoch,
}

impl Openings for QuorumOpenings {
    fn open(&self, proposal: Proposal) -> BoxFuture<'static, Outcome> {
        let (quorum, node, epoch) = (self.quorum.clone(), self.node, self.epoch);
        async move {
            let Proposal { close, end, replicas } = proposal;
            let copies = write_quorum(replicas.len()) as u8;
            let close = Some((close, end));
            let command = Command::OpenLedger { node, epoch, replicas: replicas.clone(), write_quorum: copies, close };
            match quorum.propose(&command).await {
                Ok(Response::Ledger(ledger)) => Outcome::Opened { ledger, replicas },
                Ok(Response::Rejected(Reject::UnsealedLedger(ledger))) => {
                    // An earlier proposal was carried out after all: its ledger is the open one. This image may not have it
                    // yet.
                    let image = quorum.barrier().await;
                    match image.ok().and_then(|image| image.ledgers.get(&ledger).cloned()) {
                        Some(open) if open.node == node && open.epoch == epoch && open.end.is_none() => {
                            Outcome::Opened { ledger, replicas: open.replicas }
                        }
                        _ => Outcome::Unknown,
                    }
                }
                Ok(response) => outcome(&response),
                Err(ProposeError::NotLeader { .. } | ProposeError::Refused(_) | ProposeError::TooLarge { .. }) => {
                    Outcome::NotProposed
                }
                Err(ProposeError::Unknown(_) | ProposeError::Stopped(_)) => Outcome::Unknown,
            }
        }
        .boxed()
    }
}

/// What a refusal means for the writer.
fn outcome(response: &Response) -> Outcome {
    match response {
        Response::Rejected(
            Reject::StaleBrokerEpoch { .. }
            | Reject::Fenced { .. }
            | Reject::LedgerOwner { .. }
            | Reject::UnknownLedger(_)
            // Only a recoverer sets another end, and only behind a fenced writer.
            | Reject::SealedElsewhere { .. }
            | Reject::EndBelowUploaded { .. },
        ) => Outcome::Fenced,
        // A node that is unknown, has another WAL by now or may not be left out; or too many ledgers wait for uploads.
        _ => Outcome::Declined,
    }
}

/// The metadata as a recovery sees them.
pub struct QuorumRegistrations(pub Arc<Quorum>);

impl Registrations for QuorumRegistrations {
    fn image(&self) -> Arc<Image> {
        self.0.image().borrow().clone()
    }

    fn confirm(&self) -> BoxFuture<'static, Result<Arc<Image>, String>> {
        let quorum = self.0.clone();
        async move { quorum.barrier().await.map_err(|error| error.to_string()) }.boxed()
    }

    fn propose(&self, command: Command) -> BoxFuture<'static, Result<Response, String>> {
        let quorum = self.0.clone();
        async move { quorum.propose(&command).await.map_err(|error| error.to_string()) }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{EntryId, LedgerId};

    #[test]
    fn only_what_ends_the_epoch_fences_its_writer() {
        let (node, epoch, ledger) = (NodeId(1), BrokerEpoch(2), LedgerId(3));
        let fences = [
            Reject::StaleBrokerEpoch { node, epoch },
            Reject::Fenced { node, epoch },
            Reject::LedgerOwner { ledger, owner: node },
            Reject::UnknownLedger(ledger),
            Reject::SealedElsewhere { end: EntryId(4) },
        ];
        for reject in fences {
            assert_eq!(outcome(&Response::Rejected(reject.clone())), Outcome::Fenced, "{reject}");
        }
        let others = [
            Reject::ReplicaSet("the WAL of node 2 was replaced".to_owned()),
            Reject::UnknownBroker(node),
            Reject::TooMany { what: "ledgers".to_owned(), limit: 1 },
        ];
        for reject in others {
            assert_eq!(outcome(&Response::Rejected(reject.clone())), Outcome::Declined, "{reject}");
        }
    }
}
