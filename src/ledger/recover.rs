//! Runs a [`Recovery`] of one ledger whose writer is fenced: asks the replicas, copies what may be held too seldom, and has
//! the metadata set the end.
//!
//! Runs where the quorum's leader is, but anybody may: two at once do no harm. It goes on until the end is set, however
//! long replicas that are needed are away; whoever wants to give up drops it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, FuturesUnordered, StreamExt};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::base::limits::LEDGER_READ_BYTES_MAX;
use crate::base::{EntryId, LedgerId, NodeId};
use crate::metadata::{self, Command, Holder, Image, Reject, Response};

use super::core::{Identity, Plant, Recovery, RecoveryAction, RecoveryEvent, Registered, Request};
use super::wire::{self, Payload};

/// How often what was not answered is asked again.
const AGAIN: Duration = Duration::from_secs(2);
/// How often a recovery that waits says so.
const WAITING_NOTE: Duration = Duration::from_secs(10);
/// Ledgers that are recovered at the same time: bounds the entries that are on their way from one node to another.
const AT_ONCE: usize = 16;

/// The replicas of all nodes, this one's included.
pub trait Replicas: Send + Sync {
    /// An error when the node is out of reach or does not answer in time.
    fn ask(&self, node: NodeId, request: wire::Request) -> BoxFuture<'static, Result<wire::Answer, String>>;
    fn read(&self, node: NodeId, read: wire::Read) -> BoxFuture<'static, Result<wire::ReadAnswer, String>>;
}

/// The metadata, as a recovery needs them.
pub trait Registrations: Send + Sync {
    /// The image as this node has it now.
    fn image(&self) -> Arc<Image>;
    /// An image that has everything that the quorum had committed when this was called.
    fn confirm(&self) -> BoxFuture<'static, Result<Arc<Image>, String>>;
    /// Proposes a command; an error when its outcome is unknown or nobody took it.
    fn propose(&self, command: Command) -> BoxFuture<'static, Result<Response, String>>;
}

/// What a recovery works with.
#[derive(Clone)]
pub struct RecoveryParts {
    pub replicas: Arc<dyn Replicas>,
    pub registrations: Arc<dyn Registrations>,
}

/// Why a ledger is not recovered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoverError {
    #[error("ledger {0} is unknown: it is finished, or was never opened")]
    Unknown(LedgerId),
    #[error("the process that writes ledger {0} is not fenced")]
    WriterNotFenced(LedgerId),
    #[error("the metadata refuse the end of ledger {ledger}: {reject}")]
    Refused { ledger: LedgerId, reject: Reject },
    #[error("the metadata cannot be asked: {0}")]
    Metadata(String),
}

/// Finds and sets the end (exclusive) of a ledger whose writer is fenced; answers it also when it was set before.
pub async fn recover_ledger(parts: &RecoveryParts, ledger: LedgerId) -> Result<EntryId, RecoverError> {
    let image = parts.registrations.confirm().await.map_err(RecoverError::Metadata)?;
    let recorded = image.ledgers.get(&ledger).ok_or(RecoverError::Unknown(ledger))?;
    if let Some(end) = recorded.end {
        return Ok(end);
    }
    if !image.is_writer_fenced(recorded) {
        return Err(RecoverError::WriterNotFenced(ledger));
    }
    tracing::info!(%ledger, writer = %recorded.node, replicas = recorded.replicas.len(), "recovering a ledger");
    let (recovery, actions) = Recovery::new(ledger, recorded, registered(&image), Plant::default());
    Attempt { parts, ledger, recovery, work: FuturesUnordered::new() }.run(actions).await
}

/// The same for many, several at a time.
pub async fn recover_ledgers(
    parts: &RecoveryParts,
    ledgers: Vec<LedgerId>,
) -> Vec<(LedgerId, Result<EntryId, RecoverError>)> {
    let each = ledgers.into_iter().map(|ledger| async move { (ledger, recover_ledger(parts, ledger).await) });
    stream::iter(each).buffer_unordered(AT_ONCE).collect().await
}

fn registered(image: &Image) -> Vec<Registered> {
    let of = |(node, broker): (&NodeId, &metadata::Broker)| Registered {
        identity: Identity { node: *node, incarnation: broker.incarnation, boot: broker.boot },
        alive: !broker.fenced,
    };
    image.brokers.iter().map(of).collect()
}

/// Who is to upload a recovered ledger: its writer's node, if it is back and has all of it, or somebody else who has and
/// is there.
fn choose_uploader(image: &Image, writer: NodeId, holders: &[Holder]) -> NodeId {
    let is_back = |node: NodeId| image.brokers.get(&node).is_some_and(|broker| !broker.fenced);
    let present = |holder: &Holder| {
        let broker = image.brokers.get(&holder.replica.node);
        broker.is_some_and(|broker| broker.incarnation == holder.replica.incarnation)
    };
    let nodes: Vec<NodeId> = holders.iter().filter(|h| present(h)).map(|holder| holder.replica.node).collect();
    if is_back(writer) && nodes.contains(&writer) {
        return writer;
    }
    let best = nodes.iter().find(|node| is_back(**node)).or(nodes.first()).copied();
    // Nobody: everything is uploaded, or whoever holds it is gone for now; another uploader can be named.
    let any = || image.brokers.keys().copied().find(|node| is_back(*node));
    best.or_else(any).unwrap_or(writer)
}

/// One attempt, which goes on until the end is set.
struct Attempt<'a> {
    parts: &'a RecoveryParts,
    ledger: LedgerId,
    recovery: Recovery,
    work: FuturesUnordered<BoxFuture<'static, Result<Option<RecoveryEvent<Payload>>, RecoverError>>>,
}

impl Attempt<'_> {
    async fn run(mut self, actions: Vec<RecoveryAction<Payload>>) -> Result<EntryId, RecoverError> {
        let mut ticks = interval(AGAIN);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.reset();
        let mut noted = Instant::now();
        let mut actions = actions;
        loop {
            if let Some(end) = self.carry_out(actions) {
                tracing::info!(ledger = %self.ledger, %end, "recovered a ledger");
                return Ok(end);
            }
            actions = tokio::select! {
                Some(done) = self.work.next() => match done? {
                    Some(event) => self.recovery.step(event),
                    None => Vec::new(),
                },
                _ = ticks.tick() => {
                    if noted.elapsed() >= WAITING_NOTE {
                        noted = Instant::now();
                        tracing::warn!(ledger = %self.ledger, "a recovery waits for replicas or for the quorum");
                    }
                    let nodes = registered(&self.parts.registrations.image());
                    let mut actions = self.recovery.step(RecoveryEvent::Nodes(nodes));
                    actions.extend(self.recovery.step(RecoveryEvent::Tick));
                    actions
                }
            };
        }
    }

    fn carry_out(&mut self, actions: Vec<RecoveryAction<Payload>>) -> Option<EntryId> {
        let mut copies: Vec<(metadata::Replica, wire::Request)> = Vec::new();
        for action in actions {
            match action {
                RecoveryAction::Send { to, request } => self.gather(to, request, &mut copies),
                RecoveryAction::Confirm => self.confirm(),
                RecoveryAction::Read { node, ledger, from, below } => self.read(node, ledger, from, below),
                RecoveryAction::Propose { ledger, end, holders } => self.propose(ledger, end, holders),
                RecoveryAction::Done { end, .. } => return Some(end),
            }
        }
        copies.into_iter().for_each(|(to, request)| self.ask(to.node, request));
        None
    }

    /// Seals go out one by one, copies to one node in one message: what was read at once is sent at once.
    fn gather(
        &mut self,
        to: metadata::Replica,
        request: Request<Payload>,
        copies: &mut Vec<(metadata::Replica, wire::Request)>,
    ) {
        let message = |ledger, ask| wire::Request { to: to.incarnation, ledger, ask };
        match request {
            Request::Seal { ledger } => self.ask(to.node, message(ledger, wire::Ask::Seal)),
            Request::Recover { ledger, entry, durable, uploaded, payload } => {
                if let Some((_, request)) = copies.iter_mut().find(|(other, _)| *other == to)
                    && let wire::Ask::Recover { first, payloads, .. } = &mut request.ask
                    && first.0 + payloads.len() as u64 == entry.0
                {
                    payloads.push(payload);
                } else {
                    let ask = wire::Ask::Recover { durable, uploaded, first: entry, payloads: vec![payload] };
                    copies.push((to, message(ledger, ask)));
                }
            }
            // Only writers append.
            Request::Append { .. } => {}
        }
    }

    fn ask(&mut self, node: NodeId, request: wire::Request) {
        let answering = self.parts.replicas.ask(node, request);
        self.work.push(Box::pin(async move {
            Ok(Some(match answering.await {
                // Nobody speaks for another node.
                Ok(wire::Answer { from, reply }) if from.node == node => RecoveryEvent::Answered { from, reply },
                Ok(_) | Err(_) => RecoveryEvent::Lost { node },
            }))
        }));
    }

    fn confirm(&mut self) {
        let confirming = self.parts.registrations.confirm();
        self.work.push(Box::pin(async move {
            // Without an answer it is asked again at the next tick.
            Ok(confirming.await.ok().map(|image| RecoveryEvent::Confirmed(registered(&image))))
        }));
    }

    fn read(&mut self, node: NodeId, ledger: LedgerId, from: EntryId, below: EntryId) {
        let image = self.parts.registrations.image();
        let named = image.ledgers.get(&ledger).and_then(|l| l.replicas.iter().find(|r| r.node == node)).copied();
        let registered = || image.brokers.get(&node).map(|broker| broker.incarnation);
        let Some(to) = named.map(|replica| replica.incarnation).or_else(registered) else {
            self.work.push(Box::pin(std::future::ready(Ok(Some(RecoveryEvent::ReadFailed { node })))));
            return;
        };
        let max_bytes = LEDGER_READ_BYTES_MAX as u32;
        let reading = self.parts.replicas.read(node, wire::Read { to, ledger, from, below, max_bytes });
        self.work.push(Box::pin(async move {
            Ok(Some(match reading.await {
                Ok(wire::ReadAnswer::Entries { first, payloads }) if first == from && !payloads.is_empty() => {
                    RecoveryEvent::Read { node, from, payloads }
                }
                _ => RecoveryEvent::ReadFailed { node },
            }))
        }));
    }

    fn propose(&mut self, ledger: LedgerId, end: EntryId, holders: Vec<(metadata::Replica, EntryId)>) {
        let image = self.parts.registrations.image();
        let holders: Vec<Holder> = holders.into_iter().map(|(replica, from)| Holder { replica, from }).collect();
        let writer = image.ledgers.get(&ledger).map(|recorded| recorded.node);
        let uploader = choose_uploader(&image, writer.unwrap_or_default(), &holders);
        let proposing = self.parts.registrations.propose(Command::RecoverLedger { ledger, end, holders, uploader });
        self.work.push(Box::pin(async move {
            match proposing.await {
                Ok(Response::Rejected(Reject::SealedElsewhere { end })) => Ok(Some(RecoveryEvent::EndSet { end })),
                Ok(Response::Rejected(Reject::UnknownLedger(ledger))) => Err(RecoverError::Unknown(ledger)),
                Ok(Response::Rejected(Reject::WriterNotFenced(ledger))) => Err(RecoverError::WriterNotFenced(ledger)),
                // The uploader was removed meanwhile: another is chosen next time.
                Ok(Response::Rejected(Reject::UnknownBroker(_))) => Ok(None),
                Ok(Response::Rejected(reject)) => Err(RecoverError::Refused { ledger, reject }),
                Ok(_) => Ok(Some(RecoveryEvent::EndSet { end })),
                // The outcome is unknown; it is proposed again at the next tick.
                Err(_) => Ok(None),
            }
        }));
    }
}
