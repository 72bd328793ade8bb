//! From an opened quorum and WAL to a broker that leads its partitions.
//!
//! The order is the one that several nodes need too: take a new broker epoch, seal the ledgers of the predecessor,
//! set their ends in the metadata, open a ledger of one's own, then open the partitions on what was recovered.

use std::sync::Arc;

use crate::base::{BrokerEpoch, EntryId, LedgerId, NodeId};
use crate::batch::{self, Header};
use crate::env::{Clock, Disk, Entropy};
use crate::ledger::core::Identity;
use crate::ledger::{self, LedgerWriter, LocalReplica, Replica};
use crate::metadata::{self, Command, Endpoint, Image, Response};
use crate::partition::{Recovered, RecoveredGap};
use crate::quorum::{ProposeError, Quorum};
use crate::wal::{OpenError, PUT_BACK, RecoveredEntry, RecoveryReport, Wal, WalOptions};

use super::holdings::{FoundEntries, Holdings};
use super::opening::{Opener, partitions_of};
use super::registry::Registry;

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
    /// What the metadata still need of it.
    pub holdings: Arc<FoundEntries>,
}

#[derive(Default)]
struct Found {
    holdings: FoundEntries,
    error: Option<StartError>,
}

/// Opens the WAL and indexes the headers of what the metadata still need from it.
pub fn open_wal(
    disk: Arc<dyn Disk>,
    entropy: &dyn Entropy,
    options: WalOptions,
    image: &Image,
    registry: Arc<Registry>,
) -> Result<OpenedWal, StartError> {
    let mut found = Found::default();
    let needed = |ledger, entry| image.needs(ledger, entry);
    let mut on_entry = |entry: RecoveredEntry<'_>| {
        if image.needs(entry.ledger, entry.entry) {
            found.add(image, &entry);
        }
    };
    let (wal, report) = Wal::open(disk, entropy, options, &needed, &mut on_entry, registry)?;
    if let Some(error) = found.error.take() {
        return Err(error);
    }
    check_complete(image, &found.holdings)?;
    Ok(OpenedWal { wal, report, holdings: Arc::new(found.holdings) })
}

impl Found {
    fn add(&mut self, image: &Image, entry: &RecoveredEntry<'_>) {
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
                let recovered = Recovered { header, bytes, ledger, entry: id, location: entry.location, marker };
                self.holdings.add(partition, recovered);
            }
        }
    }
}

/// Every ledger's entries follow one another from what is uploaded on; those of a sealed one reach its end.
fn check_complete(image: &Image, found: &FoundEntries) -> Result<(), StartError> {
    for (id, ledger) in &image.ledgers {
        let held_to = found.held_to(*id, ledger.uploaded);
        let beyond = found.entries(*id, held_to, EntryId(u64::MAX)).first().map(|entry| entry.entry);
        if let Some(to) = beyond.or(ledger.end.filter(|end| held_to < *end)) {
            return Err(StartError::MissingEntries { ledger: *id, from: held_to, to });
        }
    }
    Ok(())
}

/// The broker's place in the cluster after it has taken over.
pub struct Joined {
    pub epoch: BrokerEpoch,
    pub ledger: Arc<LedgerWriter>,
}

/// Registers the broker, seals what its predecessor left open, and opens its own ledger.
pub async fn join(
    quorum: &Quorum,
    node: NodeId,
    wal: &Arc<Wal>,
    registry: &Arc<Registry>,
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
    let open = Command::OpenLedger { node, epoch, replicas: replicas.clone(), write_quorum: 1, close: None };
    let Response::Ledger(id) = accepted(quorum.propose(&open).await?)? else {
        return Err(StartError::UnexpectedAnswer("OpenLedger"));
    };
    let own = Identity { node, incarnation, boot };
    let options = ledger::writer_options(wal.queue_bytes());
    let ledger = LedgerWriter::new(own, (id, &replicas), options, wal.clone(), registry.clone());
    let listener: std::sync::Weak<dyn crate::wal::WalEvents> =
        Arc::downgrade(&(ledger.clone() as Arc<dyn crate::wal::WalEvents>));
    registry.listen(listener);
    Ok(Joined { epoch, ledger })
}

fn accepted(response: Response) -> Result<Response, metadata::Reject> {
    match response {
        Response::Rejected(reject) => Err(reject),
        other => Ok(other),
    }
}

/// Opens every partition that `image` places on the broker and that is all here. What is missing of others is copied from
/// their holders when the broker runs; that nobody else can have it is an error.
pub fn open_partitions(
    registry: &Registry,
    broker: (NodeId, BrokerEpoch),
    image: &Image,
    holdings: &dyn Holdings,
    now_ms: i64,
) -> Result<(), StartError> {
    let opener = Opener::new(registry, holdings, broker, image, now_ms);
    let alone = image.brokers.len() <= 1;
    let mut waiting = 0;
    for topic in image.topics.values() {
        for (id, partition) in partitions_of(topic).filter(|(_, partition)| partition.leader == broker.0) {
            match opener.open(topic, id, partition, false) {
                Err(not_yet) if alone => return Err(not_yet.gap.into()),
                Err(_) => waiting += 1,
                Ok(()) => {}
            }
        }
    }
    if waiting > 0 {
        tracing::info!(waiting, "partitions wait for records that other nodes have");
    }
    Ok(())
}
