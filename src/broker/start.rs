//! From an opened quorum and WAL to a broker that leads its partitions.
//!
//! The order is the one that several nodes need too: take a new broker epoch, seal the ledgers of the predecessor,
//! set their ends in the metadata, open a ledger of one's own, then open the partitions on what was recovered.

use std::sync::Arc;
use std::time::Duration;

use crate::base::{BrokerEpoch, EntryId, LedgerId, NodeId, WalIncarnation};
use crate::env::{Clock, Disk, Entropy};
use crate::ledger::core::Identity;
use crate::ledger::{
    self, Host, HostReplicas, Hosted, LedgerWriter, NodeReplicas, RecoverError, RecoveryParts, Replicas,
    UnreadableEntry,
};
use crate::metadata::{self, Command, Endpoint, Image};
use crate::partition::RecoveredGap;
use crate::quorum::{ProposeError, Quorum};
use crate::wal::{OpenError, PUT_BACK, RecordError, RecoveredEntry, RecoveryReport, Wal, WalEvents, WalOptions};

use super::holdings::Holdings;
use super::opening::{Opener, partitions_of};
use super::registry::Registry;
use super::{QuorumRegistrations, ledgers, registering};

/// How often it is looked again at what may have changed without a word.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// After so long it is looked anew whether it is this node's turn to recover.
const RECOVER_WITHIN: Duration = Duration::from_secs(60);

/// Why the broker cannot take over its own data.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Wal(#[from] OpenError),
    #[error(transparent)]
    Boot(#[from] RecordError),
    #[error("the metadata cannot be changed: {0}")]
    Propose(#[from] ProposeError),
    #[error("the metadata refuse this broker: {0}")]
    Rejected(#[from] metadata::Reject),
    #[error("the metadata gave an unexpected answer to {0}")]
    UnexpectedAnswer(&'static str),
    #[error(transparent)]
    Ledger(#[from] RecoverError),
    #[error(transparent)]
    Held(#[from] UnreadableEntry),
    #[error("{0}; {back}", back = PUT_BACK)]
    Gap(#[from] RecoveredGap),
    #[error("the WAL holds ledger {ledger}, which the metadata do not know: the metadata folder is older than the WAL")]
    MetadataOlder { ledger: LedgerId },
    #[error(
        "the WAL lacks entries {from} to {to} of ledger {ledger}, which are not in object storage: {back}",
        back = PUT_BACK
    )]
    MissingEntries { ledger: LedgerId, from: EntryId, to: EntryId },
}

/// What the WAL held when it was opened.
pub struct OpenedWal {
    pub wal: Arc<Wal>,
    pub report: RecoveryReport,
    /// Serves other nodes as soon as this one has joined.
    pub hosted: Arc<Hosted>,
    held: ledger::Found,
}

/// Opens the WAL and indexes the headers of what it holds.
pub fn open_wal(
    disk: Arc<dyn Disk>,
    entropy: &dyn Entropy,
    options: WalOptions,
    image: &Image,
    registry: Arc<Registry>,
) -> Result<OpenedWal, StartError> {
    let mut held = ledger::Found::default();
    let needed = |ledger, entry| image.needs(ledger, entry);
    let mut on_entry = |entry: RecoveredEntry<'_>| held.add(&entry);
    let hosted = Hosted::new(registry);
    let (wal, report) = Wal::open(disk, entropy, options, &needed, &mut on_entry, hosted.clone())?;
    if let Some(ledger) = held.ledgers().into_iter().find(|ledger| ledger.0 >= image.next_ledger) {
        return Err(StartError::MetadataOlder { ledger });
    }
    check_complete(image, wal.incarnation(), &held)?;
    Ok(OpenedWal { wal, report, hosted, held })
}

/// Of every ledger that only this WAL has, entries follow one another from what is uploaded on, and reach the end of a
/// sealed one. What is missing here of a ledger with other replicas is to be had from them.
fn check_complete(image: &Image, own: WalIncarnation, held: &ledger::Found) -> Result<(), StartError> {
    let is_sole = |ledger: &metadata::Ledger| matches!(&ledger.replicas[..], [only] if only.incarnation == own);
    for (id, ledger) in image.ledgers.iter().filter(|(_, ledger)| is_sole(ledger)) {
        let (first, next) = held.span(*id).unwrap_or((ledger.uploaded, ledger.uploaded));
        let missing = match ledger.end {
            _ if first > ledger.uploaded => Some((ledger.uploaded, first)),
            Some(end) if next.max(ledger.uploaded) < end => Some((next.max(ledger.uploaded), end)),
            _ => None,
        };
        if let Some((from, to)) = missing {
            return Err(StartError::MissingEntries { ledger: *id, from, to });
        }
    }
    Ok(())
}

/// The broker's place in the cluster after it has taken over.
pub struct Joined {
    pub epoch: BrokerEpoch,
    pub ledger: Arc<LedgerWriter>,
    pub host: Arc<Host>,
}

/// What a broker needs in order to join.
pub struct JoinParts<'a> {
    pub quorum: &'a Arc<Quorum>,
    pub node: NodeId,
    pub opened: &'a mut OpenedWal,
    pub registry: &'a Arc<Registry>,
    /// What other nodes hold; `None` for one that has none.
    pub others: Option<Arc<dyn Replicas>>,
    pub endpoints: Vec<Endpoint>,
    pub clock: &'a dyn Clock,
    /// Told of the registration: from then on the process may be fenced, and can recover ledgers.
    pub registered: &'a (dyn Fn(BrokerEpoch, RecoveryParts) + Sync),
}

/// Registers the broker, waits until what its predecessors wrote has an end, and opens its own ledger.
pub async fn join(parts: JoinParts<'_>) -> Result<Joined, StartError> {
    let JoinParts { quorum, node, opened, registry, others, endpoints, clock, registered } = parts;
    let (wal, hosted, held) = (&opened.wal, opened.hosted.clone(), std::mem::take(&mut opened.held));
    let incarnation = wal.incarnation();
    let before = quorum.image().borrow().clone();
    let recorded = before.brokers.get(&node).filter(|known| known.incarnation == incarnation).map(|known| known.boot);
    let boot = on_disk(wal, move |wal| wal.next_boot(recorded)).await??;
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let register = Command::RegisterBroker { node, incarnation, boot, endpoints, version, now_ms: clock.wall_ms() };
    let epoch = registering::register(quorum, &register, Identity { node, incarnation, boot }).await?;
    on_disk(wal, move |wal| wal.registered(epoch, boot)).await??;
    let own = Identity { node, incarnation, boot };
    // With this registration in it, so that no seal is forgotten.
    let image = quorum.image().borrow().clone();
    let host = on_disk(wal, move |wal| Host::start(node, wal.clone(), held, &hosted, &image)).await??;
    // From now on, for others may wait for this node as a replica before it has a ledger of its own.
    tokio::spawn(ledgers::follow(Arc::downgrade(&host), quorum.image()));
    let local = HostReplicas(host.clone());
    let recovery = RecoveryParts {
        replicas: Arc::new(NodeReplicas { own: node, local, others }),
        registrations: Arc::new(QuorumRegistrations(quorum.clone())),
    };
    registered(epoch, recovery.clone());
    settle_predecessors(quorum, node, epoch, &recovery).await?;
    let (id, replicas) = registering::open_ledger(quorum, node, epoch).await?;
    let options = ledger::writer_options(wal.queue_bytes());
    let ledger = LedgerWriter::new(own, (id, &replicas), options, wal.clone(), registry.clone());
    let listener: Arc<dyn WalEvents> = ledger.clone();
    registry.listen(Arc::downgrade(&listener));
    Ok(Joined { epoch, ledger, host })
}

/// Waits until every ledger has an end that this node wrote before. Whoever leads the quorum finds them: this node, if it does.
async fn settle_predecessors(
    quorum: &Quorum,
    node: NodeId,
    epoch: BrokerEpoch,
    recovery: &RecoveryParts,
) -> Result<(), StartError> {
    let mut image = quorum.image();
    loop {
        let now = image.borrow_and_update().clone();
        let open: Vec<LedgerId> = now
            .ledgers
            .iter()
            .filter(|(_, ledger)| ledger.node == node && ledger.epoch != epoch && ledger.end.is_none())
            .map(|(id, _)| *id)
            .collect();
        if open.is_empty() {
            return Ok(());
        }
        if !quorum.leads() {
            // Without news it is looked again whether this node leads now.
            let _ = tokio::time::timeout(LOOK_AGAIN, image.changed()).await;
            continue;
        }
        let recovering = ledger::recover_ledgers(recovery, open);
        let Ok(recovered) = tokio::time::timeout(RECOVER_WITHIN, recovering).await else { continue };
        for (ledger, result) in recovered {
            match result {
                Ok(end) => tracing::info!(%ledger, %end, "the predecessor's ledger has its end"),
                Err(RecoverError::Unknown(_)) => {}
                Err(RecoverError::Metadata(why)) => {
                    tracing::warn!(%ledger, why, "the predecessor's ledger cannot be recovered yet");
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Runs what waits for the disk where that holds up no runtime worker.
async fn on_disk<T: Send + 'static>(
    wal: &Arc<Wal>,
    work: impl FnOnce(&Arc<Wal>) -> T + Send + 'static,
) -> Result<T, StartError> {
    let wal = wal.clone();
    tokio::task::spawn_blocking(move || work(&wal)).await.map_err(|_| StartError::UnexpectedAnswer("a start's record"))
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
