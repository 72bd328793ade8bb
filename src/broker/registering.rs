//! What a broker that starts asks of the metadata: its epoch, and a ledger. It asks until it knows the answer.
//!
//! A command whose outcome is unknown may have been carried out, or may be yet. Neither of these two can be carried out twice:
//! the metadata take a boot count once, and let a broker have one open ledger. So an attempt that is refused for that
//! reason shows that the one before it went through, and the image has what it brought.

use std::sync::Arc;
use std::time::Duration;

use crate::base::{BrokerEpoch, LedgerId, NodeId};
use crate::ledger;
use crate::ledger::core::Identity;
use crate::metadata::{self, Command, Image, Reject, Response};
use crate::quorum::Quorum;

use super::start::StartError;

/// How often it is looked again at what may have changed without a word.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Has the broker registered by `command`, and answers its epoch.
pub(super) async fn register(quorum: &Quorum, command: &Command, own: Identity) -> Result<BrokerEpoch, StartError> {
    match quorum.propose_on(command).await? {
        (Response::BrokerEpoch(epoch), _) => Ok(epoch),
        (Response::Rejected(Reject::BootCount { boot, recorded }), true)
            if recorded == own.boot && boot == own.boot =>
        {
            // Refused by an image that this node has applied.
            registered_as(&quorum.image().borrow(), own).ok_or(StartError::UnexpectedAnswer("RegisterBroker"))
        }
        (Response::Rejected(reject), _) => Err(reject.into()),
        _ => Err(StartError::UnexpectedAnswer("RegisterBroker")),
    }
}

/// The epoch of this very process.
fn registered_as(image: &Image, own: Identity) -> Option<BrokerEpoch> {
    let broker = image.brokers.get(&own.node)?;
    ((broker.incarnation, broker.boot) == (own.incarnation, own.boot)).then_some(broker.epoch)
}

/// Opens a ledger with the replica set that is best now; waits for another broker where the metadata ask for one.
pub(super) async fn open_ledger(
    quorum: &Quorum,
    node: NodeId,
    epoch: BrokerEpoch,
) -> Result<(LedgerId, Vec<metadata::Replica>), StartError> {
    let mut image = quorum.image();
    let mut told = false;
    loop {
        let now = image.borrow_and_update().clone();
        let replicas = ledger::placement::choose_replicas(&now, node, ledger::REPLICAS_WANTED);
        let replicas = replicas.ok_or(Reject::UnknownBroker(node))?;
        if replicas.len() > 1 || now.may_write_alone(node) {
            let write_quorum = ledger::core::write_quorum(replicas.len()) as u8;
            let open = Command::OpenLedger { node, epoch, replicas: replicas.clone(), write_quorum, close: None };
            match quorum.propose_on(&open).await? {
                (Response::Ledger(id), _) => return Ok((id, replicas)),
                // The brokers are others by now.
                (Response::Rejected(Reject::ReplicaSet(_)), _) => {}
                (Response::Rejected(Reject::UnknownBroker(other)), _) if other != node => {}
                (Response::Rejected(Reject::UnsealedLedger(id)), _) if opened_by(&image.borrow(), id, epoch) => {
                    let now: Arc<Image> = image.borrow().clone();
                    let replicas = now.ledgers.get(&id).map(|ledger| ledger.replicas.clone());
                    return Ok((id, replicas.ok_or(StartError::UnexpectedAnswer("OpenLedger"))?));
                }
                (Response::Rejected(reject), _) => return Err(reject.into()),
                _ => return Err(StartError::UnexpectedAnswer("OpenLedger")),
            }
        } else if !std::mem::replace(&mut told, true) {
            tracing::warn!("waiting for another broker: records of a cluster are kept on two nodes at least");
        }
        let _ = tokio::time::timeout(LOOK_AGAIN, image.changed()).await;
    }
}

/// Whether an earlier attempt of this process has opened it: a process asks for its first ledger here only.
fn opened_by(image: &Image, id: LedgerId, epoch: BrokerEpoch) -> bool {
    image.ledgers.get(&id).is_some_and(|ledger| ledger.epoch == epoch && ledger.end.is_none())
}
