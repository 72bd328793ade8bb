//! Ledgers: opened by the present process of a broker, closed once, forgotten when finished.

use crate::base::{BrokerEpoch, EntryId, LedgerId, NodeId};
use crate::metadata::bounds::{LEDGER_REPLICAS_MAX, LEDGERS_MAX};
use crate::metadata::command::{Holder, Replica};
use crate::metadata::image::{Image, Ledger};
use crate::metadata::reject::{Reject, Response};

use super::cluster::used_up;
use super::require_at_most;

pub fn open(
    image: &mut Image,
    node: NodeId,
    epoch: BrokerEpoch,
    replicas: &[Replica],
    write_quorum: u8,
    close: Option<(LedgerId, EntryId)>,
) -> Result<Response, Reject> {
    check_replicas(image, node, replicas, write_quorum)?;
    if let Some((ledger, end)) = close {
        let closed = check_end(image, ledger, end)?;
        if closed.node != node {
            return Err(Reject::LedgerOwner { ledger, owner: closed.node });
        }
        if closed.epoch != epoch && closed.end.is_none() {
            // Only a seal knows where the ledger of an earlier process ends.
            return Err(Reject::UnsealedLedger(ledger));
        }
    }
    // A broker writes one open ledger, and everything before it has an end.
    let closed = close.map(|(ledger, _)| ledger);
    let mut others = image.ledgers.iter().filter(|(id, ledger)| ledger.node == node && Some(**id) != closed);
    if let Some((id, _)) = others.find(|(_, ledger)| ledger.end.is_none()) {
        return Err(Reject::UnsealedLedger(*id));
    }
    require_at_most("the number of ledgers that are not uploaded", image.ledgers.len() + 1, LEDGERS_MAX)?;
    let id = LedgerId(image.next_ledger);
    image.next_ledger = id.0.checked_add(1).ok_or_else(|| used_up("ledger ids"))?;
    if let Some((ledger, end)) = close {
        set_end(image, ledger, end);
    }
    image.ledgers.retain(|_, ledger| ledger.node != node || !ledger.is_finished());
    let replicas = replicas.to_vec();
    let (uploaded, uploader, holders) = (EntryId(0), None, Vec::new());
    let opened = Ledger { node, epoch, replicas, write_quorum, end: None, uploaded, uploader, holders };
    image.ledgers.insert(id, opened);
    Ok(Response::Ledger(id))
}

/// Without its writer, or a recovery, nobody knows where a ledger ends of which others have copies.
pub fn seal(
    image: &mut Image,
    ledger: LedgerId,
    end: EntryId,
    by: Option<(NodeId, BrokerEpoch)>,
) -> Result<Response, Reject> {
    let known = check_end(image, ledger, end)?;
    match by {
        Some((node, epoch)) if (known.node, known.epoch) != (node, epoch) => {
            return Err(Reject::LedgerOwner { ledger, owner: known.node });
        }
        None if known.end.is_none() && known.replicas.len() > 1 => return Err(Reject::WriterNotFenced(ledger)),
        Some(_) | None => {}
    }
    set_end(image, ledger, end);
    Ok(Response::Ok)
}

/// The end of a ledger as a recoverer found it. Its writer is fenced, so nobody else can move what it was found from.
pub fn recover(
    image: &mut Image,
    ledger: LedgerId,
    end: EntryId,
    holders: &[Holder],
    uploader: NodeId,
) -> Result<Response, Reject> {
    // Spares may hold copies, too.
    require_at_most("the number of holders of a ledger", holders.len(), 2 * LEDGER_REPLICAS_MAX)?;
    let known = check_end(image, ledger, end)?;
    if known.end.is_some() {
        return Ok(Response::Ok);
    }
    if !image.is_writer_fenced(known) {
        return Err(Reject::WriterNotFenced(ledger));
    }
    if !image.brokers.contains_key(&uploader) {
        return Err(Reject::UnknownBroker(uploader));
    }
    if let Some(known) = image.ledgers.get_mut(&ledger) {
        known.end = Some(end);
        known.holders = holders.to_vec();
        known.uploader = (uploader != known.node).then_some(uploader);
    }
    Ok(Response::Ok)
}

/// Two that upload one ledger do no harm, for each upload begins where the last one ended; one is enough.
pub fn name_uploader(image: &mut Image, ledger: LedgerId, node: NodeId) -> Result<Response, Reject> {
    let known = image.ledgers.get_mut(&ledger).ok_or(Reject::UnknownLedger(ledger))?;
    if known.end.is_none() {
        return Err(Reject::UnsealedLedger(ledger));
    }
    known.uploader = (node != known.node).then_some(node);
    Ok(Response::Ok)
}

/// The ledger, if its end is `end` already or may become it.
fn check_end(image: &Image, ledger: LedgerId, end: EntryId) -> Result<&Ledger, Reject> {
    let known = image.ledgers.get(&ledger).ok_or(Reject::UnknownLedger(ledger))?;
    match known.end {
        Some(set) if set == end => Ok(known),
        Some(set) => Err(Reject::SealedElsewhere { end: set }),
        None if end < known.uploaded => Err(Reject::EndBelowUploaded { uploaded: known.uploaded }),
        None => Ok(known),
    }
}

fn set_end(image: &mut Image, ledger: LedgerId, end: EntryId) {
    if let Some(ledger) = image.ledgers.get_mut(&ledger) {
        ledger.end = Some(end);
    }
}

/// Distinct, present replicas, the writer among them, and the write quorum that goes with their number: a majority
/// but at least two, and one for a node alone.
fn check_replicas(image: &Image, node: NodeId, replicas: &[Replica], write_quorum: u8) -> Result<(), Reject> {
    require_at_most("the number of replicas of a ledger", replicas.len(), LEDGER_REPLICAS_MAX)?;
    if !replicas.iter().any(|replica| replica.node == node) {
        return Err(Reject::ReplicaSet(format!("node {node}, which writes, is not in it")));
    }
    for (index, replica) in replicas.iter().enumerate() {
        let broker = image.brokers.get(&replica.node).ok_or(Reject::UnknownBroker(replica.node))?;
        if broker.incarnation != replica.incarnation {
            return Err(Reject::ReplicaSet(format!("the WAL of node {} was replaced", replica.node)));
        }
        if replicas[..index].iter().any(|earlier| earlier.node == replica.node) {
            return Err(Reject::ReplicaSet(format!("node {} is in it twice", replica.node)));
        }
    }
    if replicas.len() == 1 && !image.may_write_alone(node) {
        return Err(Reject::ReplicaSet("a cluster keeps every record on two nodes at least".to_owned()));
    }
    let wanted = if replicas.len() == 1 { 1 } else { (replicas.len() / 2 + 1).max(2) };
    if usize::from(write_quorum) != wanted {
        return Err(Reject::ReplicaSet(format!("{} replicas need a write quorum of {wanted}", replicas.len())));
    }
    Ok(())
}
