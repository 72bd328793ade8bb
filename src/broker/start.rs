//! From an opened quorum and WAL to a broker that leads its partitions.
//!
//! The order is the one that several nodes need too: take a new broker epoch, seal the ledgers of the predecessor,
//! set their ends in the metadata, open a ledger of one's own, then open the partitions on what was recovered.

use std::collections::HashMap;
use std::sync::Arc;

use crate::base::{EntryId, LedgerId, NodeId, PartitionId};
use crate::batch::{self, Header};
use crate::env::{Clock, Disk, Entropy};
use crate::ledger::{self, LedgerWriter, LocalReplica, Replica};
use crate::metadata::{self, Command, Endpoint, Image, Response};
use crate::partition::{Recovered, RecoveredGap};
use crate::quorum::{ProposeError, Quorum};
use crate::wal::{OpenError, PUT_BACK, RecoveredEntry, RecoveryReport, Wal, WalOptions};

use super::registry::{Exposed, Registry};

/// Why the broker cannot take over its own data.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Wal(#[from] OpenError),
    #[error("the metadata cannot be changed: {0}")]
    Propose(#[from] ProposeError),
    #[error("the metadata refuse this broker: {0}")]
    Rejected(#[from] metadata::Reject),
    #[error("the metadata gave an unexpected answer to {0}")]
    UnexpectedAnswer(&'static str),
    #[error(transparent)]
    Ledger(#[from] ledger::RecoveryError),
    #[error("{0}; {back}", back = PUT_BACK)]
    Gap(#[from] RecoveredGap),
    #[error("the WAL holds ledger {ledger}, which the metadata do not know: the metadata folder is older than the WAL")]
    MetadataOlder { ledger: LedgerId },
    #[error(
        "the WAL lacks entries {from} to {to} of ledger {ledger}, which are not in object storage: {back}",
        back = PUT_BACK
    )]
    MissingEntries { ledger: LedgerId, from: EntryId, to: EntryId },
    #[error("an entry of ledger {ledger} cannot be read: {detail}")]
    Entry { ledger: LedgerId, detail: String },
}

/// What the WAL held when it was opened.
pub struct OpenedWal {
    pub wal: Arc<Wal>,
    pub report: RecoveryReport,
    found: Found,
}

#[derive(Default)]
struct Found {
    by_partition: HashMap<PartitionId, Vec<Recovered>>,
    exposed: Vec<Exposed>,
    error: Option<StartError>,
}

/// Opens the WAL and indexes the headers of what the metadata still need from it.
pub fn open_wal(
    disk: Arc<dyn Disk>,
    entropy: &dyn Entropy,
    clock: &dyn Clock,
    options: WalOptions,
    node: NodeId,
    image: &Image,
    registry: Arc<Registry>,
) -> Result<OpenedWal, StartError> {
    let mut found = Found::default();
    let at = clock.boottime();
    let needed = |ledger, entry| image.needs(ledger, entry);
    let mut on_entry = |entry: RecoveredEntry<'_>| {
        if image.needs(entry.ledger, entry.entry) {
            found.add(image, &entry, at);
        }
    };
    let (wal, report) = Wal::open(disk, entropy, options, &needed, &mut on_entry, registry)?;
    if let Some(error) = found.error.take() {
        return Err(error);
    }
    check_complete(image, node, &found.exposed)?;
    Ok(OpenedWal { wal, report, found })
}

impl Found {
    fn add(&mut self, image: &Image, entry: &RecoveredEntry<'_>, at: std::time::Duration) {
        let (ledger, id) = (entry.ledger, entry.entry);
        if ledger.0 >= image.next_ledger {
            self.error.get_or_insert(StartError::MetadataOlder { ledger });
            return;
        }
        let parsed = ledger::decode_entry(entry.payload).map_err(|e| e.to_string()).and_then(|(partition, batch)| {
            let header = Header::parse(batch).map_err(|e| e.to_string())?;
            let marker = batch::parse_end_marker(batch).map_err(|e| e.to_string())?;
            Ok((partition, header, marker, batch.len()))
        });
        match parsed {
            Err(detail) => drop(self.error.get_or_insert(StartError::Entry { ledger, detail })),
            Ok((partition, header, marker, bytes)) => {
                self.exposed.push(Exposed { ledger, entry: id, bytes: entry.location.len, at });
                let recovered = Recovered { header, bytes, ledger, entry: id, location: entry.location, marker };
                self.by_partition.entry(partition).or_default().push(recovered);
            }
        }
    }
}

/// The entries of every ledger that the node wrote follow one another from what is uploaded on; those of a sealed one reach
/// its end.
fn check_complete(image: &Image, node: NodeId, exposed: &[Exposed]) -> Result<(), StartError> {
    for (id, ledger) in image.ledgers.iter().filter(|(_, ledger)| ledger.node == node) {
        let mut next = ledger.uploaded;
        for entry in exposed.iter().filter(|e| e.ledger == *id) {
            if entry.entry != next {
                return Err(StartError::MissingEntries { ledger: *id, from: next, to: entry.entry });
            }
            next = next.next();
        }
        if let Some(end) = ledger.end.filter(|end| next < *end) {
            return Err(StartError::MissingEntries { ledger: *id, from: next, to: end });
        }
    }
    Ok(())
}

/// The broker's place in the cluster after it has taken over.
pub struct Joined {
    pub epoch: crate::base::BrokerEpoch,
    pub ledger: LedgerWriter,
}

/// Registers the broker, seals what its predecessor left open, and opens its own ledger.
pub async fn join(
    quorum: &Quorum,
    node: NodeId,
    wal: &Arc<Wal>,
    endpoints: Vec<Endpoint>,
    clock: &dyn Clock,
) -> Result<Joined, StartError> {
    let incarnation = wal.incarnation();
    let before = quorum.image().borrow().clone();
    let boot = match before.brokers.get(&node) {
        Some(known) if known.incarnation == incarnation => known.boot + 1,
        _ => 1,
    };
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let register = Command::RegisterBroker { node, incarnation, boot, endpoints, version, now_ms: clock.wall_ms() };
    let epoch = match accepted(quorum.propose(&register).await?)? {
        Response::BrokerEpoch(epoch) => epoch,
        _ => return Err(StartError::UnexpectedAnswer("RegisterBroker")),
    };
    let replica: Arc<dyn Replica> = Arc::new(LocalReplica(wal.clone()));
    let open: Vec<_> = before.ledgers.iter().filter(|(_, l)| l.node == node && l.end.is_none()).collect();
    for (id, recorded) in open {
        let replicas = [replica.clone()];
        let (id, recorded) = (*id, recorded.clone());
        // The seal is synced before it is answered: not on a runtime worker.
        let end = tokio::task::spawn_blocking(move || ledger::seal_ledger(id, &recorded, &replicas))
            .await
            .map_err(|_| StartError::UnexpectedAnswer("seal"))??;
        accepted(quorum.propose(&Command::SealLedger { ledger: id, end }).await?)?;
        tracing::info!(ledger = %id, %end, "sealed the predecessor's ledger");
    }
    let replicas = vec![metadata::Replica { node, incarnation }];
    let open = Command::OpenLedger { node, epoch, replicas, write_quorum: 1, close: None };
    match accepted(quorum.propose(&open).await?)? {
        Response::Ledger(id) => Ok(Joined { epoch, ledger: LedgerWriter::new(id, replica) }),
        _ => Err(StartError::UnexpectedAnswer("OpenLedger")),
    }
}

fn accepted(response: Response) -> Result<Response, metadata::Reject> {
    match response {
        Response::Rejected(reject) => Err(reject),
        other => Ok(other),
    }
}

/// Opens every partition that `image` places on `node`.
pub fn open_partitions(
    registry: &Registry,
    node: NodeId,
    image: &Image,
    mut opened: OpenedWal,
    now_ms: i64,
) -> Result<RecoveryReport, StartError> {
    for topic in image.topics.values() {
        for (index, partition) in topic.partitions.iter().enumerate().filter(|(_, p)| p.leader == node) {
            let id = PartitionId { topic: topic.id, index: index as i32 };
            let recovered = opened.found.by_partition.remove(&id).unwrap_or_default();
            registry.open(id, |slot| {
                crate::partition::Partition::open(id, topic.name.clone(), slot, partition, recovered, now_ms)
            })?;
        }
    }
    // What is left belongs to topics that were deleted: it is uploaded with the rest of its ledger, into no range.
    registry.expose(opened.found.exposed);
    Ok(opened.report)
}
