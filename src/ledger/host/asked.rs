//! Requests of class Ledger: a first phase under the lock, in the order of the caller, and a second that waits for the disk.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use crate::base::{EntryId, LedgerId, NodeId};
use crate::peer::{Answering, Refused};
use crate::wal::{AppendError, Entry, Place, Synced};

use super::super::core::{self, ReplicaAction, ReplicaEvent, Reply, Saved};
use super::super::wire::{Answer, Ask, Payload, Request};
use super::hosted::HOST_TOKEN;
use super::index::Parsed;
use super::{Host, State, Waiter};

/// What the first phase came to.
pub(super) enum Outcome {
    Now(Reply),
    /// When the WAL has synced what was taken.
    Synced(oneshot::Receiver<Reply>),
    /// When the WAL has recorded the seal.
    Seal(LedgerId),
}

type Taken = Result<Outcome, Refused>;

impl Host {
    pub(super) fn serve(self: &Arc<Self>, caller: NodeId, message: &Bytes) -> Answering {
        let taken = match Request::decode(message) {
            Ok(request) => self.take(Some(caller), request),
            Err(error) => Err(Refused(format!("the request about a ledger cannot be read: {error}"))),
        };
        let (host, from) = (Arc::clone(self), self.identity());
        Box::pin(async move {
            let reply = host.finish(taken).await?;
            Ok(Answer { from, reply }.encode().into())
        })
    }

    /// Seals the ledger here, as a request would: for a recovery that runs on this node.
    pub async fn seal_local(self: &Arc<Self>, ledger: LedgerId) -> Result<Answer, Refused> {
        self.ask_local(Request { to: self.identity.incarnation, ledger, ask: Ask::Seal }).await
    }

    /// Appends a recoverer's copies here, as a request would. Payloads are from `first` on, at least one.
    pub async fn recover_local(
        self: &Arc<Self>,
        ledger: LedgerId,
        (durable, uploaded): (EntryId, EntryId),
        first: EntryId,
        payloads: Vec<Payload>,
    ) -> Result<Answer, Refused> {
        let ask = Ask::Recover { durable, uploaded, first, payloads };
        self.ask_local(Request { to: self.identity.incarnation, ledger, ask }).await
    }

    /// Answers a request of this process.
    pub async fn ask_local(self: &Arc<Self>, request: Request) -> Result<Answer, Refused> {
        let reply = self.finish(self.take(None, request)).await?;
        Ok(Answer { from: self.identity(), reply })
    }

    async fn finish(self: &Arc<Self>, taken: Taken) -> Result<Reply, Refused> {
        match taken? {
            Outcome::Now(reply) => Ok(reply),
            Outcome::Synced(reply) => {
                let failed = || self.lock().failed.clone().unwrap_or_else(|| "the ledger is finished".to_owned());
                reply.await.map_err(|_| Refused(format!("what was taken is not known to be synced: {}", failed())))
            }
            Outcome::Seal(ledger) => {
                let host = Arc::clone(self);
                let sealed = spawn_blocking(move || host.seal(ledger)).await;
                sealed.unwrap_or_else(|_| Err(Refused("this node stops".to_owned())))
            }
        }
    }

    /// The first phase. `caller` is `None` for this process itself. Never blocks.
    pub(super) fn take(&self, caller: Option<NodeId>, request: Request) -> Taken {
        let Request { to, ledger, ask } = request;
        if to != self.identity.incarnation {
            return Ok(Outcome::Now(Reply::Unknown { ledger }));
        }
        // Outside the lock: there may be megabytes.
        let (first, asked) = match ask {
            Ask::Seal => return Ok(self.lock().begin_seal(ledger)),
            Ask::Append { durable, first, payloads } => {
                let parsed = parse(ledger, first, payloads)?;
                (first, Asked { by: By::Writer { caller, durable }, ledger, parsed })
            }
            Ask::Recover { durable, uploaded, first, payloads } => {
                let parsed = parse(ledger, first, payloads)?;
                (first, Asked { by: By::Recoverer { durable, uploaded }, ledger, parsed })
            }
        };
        self.lock().append(self, first, asked)
    }

    /// Blocks until the WAL has recorded the seal.
    fn seal(&self, ledger: LedgerId) -> Result<Reply, Refused> {
        let answer = match self.wal.seal(ledger) {
            Ok(answer) => answer,
            Err(crate::wal::SealError::TooMany { .. }) => return Ok(Reply::Busy { ledger }),
            Err(error) => return Err(Refused(error.to_string())),
        };
        let mut state = self.lock();
        state.replica.step(ReplicaEvent::<Payload>::Sealed { ledger, answer });
        // What the account has just taken over from the WAL may be uploaded in part.
        if let Some(uploaded) = state.known.get(&ledger).map(|known| known.uploaded) {
            state.replica.step(ReplicaEvent::<Payload>::Uploaded { ledger, uploaded });
        }
        match state.begin_seal(ledger) {
            Outcome::Now(reply) => Ok(reply),
            _ => Err(Refused(format!("ledger {ledger} was finished while it was being sealed"))),
        }
    }

    /// News of entries that the host has appended.
    pub(super) fn synced(&self, group: &[Synced]) {
        let mut answers = Vec::new();
        let mut state = self.lock();
        for entry in group {
            state.index_synced(entry);
        }
        for (at, entry) in group.iter().enumerate() {
            // One step for what of a ledger stands together in the group.
            if group.get(at + 1).is_none_or(|next| next.ledger != entry.ledger) {
                state.announce(entry.ledger, entry.entry.next(), &mut answers);
            }
        }
        drop(state);
        for (answer, reply) in answers {
            // Whoever asked may have gone.
            let _ = answer.send(reply);
        }
    }

    /// News of entries that this process's own writer has appended.
    pub(super) fn synced_own(&self, group: &[Synced]) {
        let mut state = self.lock();
        for entry in group {
            state.index.add_own(entry.ledger, entry.entry, entry.location);
        }
    }

    pub(super) fn failed(&self, reason: &str) {
        let mut state = self.lock();
        state.failed = Some(reason.to_owned());
        state.waiting.clear();
    }
}

enum By {
    Writer { caller: Option<NodeId>, durable: EntryId },
    Recoverer { durable: EntryId, uploaded: EntryId },
}

struct Asked {
    by: By,
    ledger: LedgerId,
    parsed: Vec<(Parsed, Payload)>,
}

/// Reads what the index needs, before anything is taken.
fn parse(ledger: LedgerId, first: EntryId, payloads: Vec<Payload>) -> Result<Vec<(Parsed, Payload)>, Refused> {
    let mut out = Vec::with_capacity(payloads.len());
    for (entry, payload) in (first.0..).zip(payloads) {
        let parsed = Parsed::of_pieces(payload.head(), payload.body())
            .map_err(|detail| Refused(format!("entry {entry} of ledger {ledger} holds no batch: {detail}")))?;
        out.push((parsed, payload));
    }
    Ok(out)
}

impl State {
    fn begin_seal(&mut self, ledger: LedgerId) -> Outcome {
        match self.replica.step(ReplicaEvent::<Payload>::Asked(core::Request::Seal { ledger })).pop() {
            Some(ReplicaAction::Reply(reply)) => Outcome::Now(reply),
            _ => Outcome::Seal(ledger),
        }
    }

    fn append(&mut self, host: &Host, first: EntryId, asked: Asked) -> Taken {
        let Asked { by, ledger, parsed } = asked;
        if let Some(reason) = &self.failed {
            return Err(Refused(format!("the WAL of this node failed: {reason}")));
        }
        if let (By::Writer { caller, .. }, Some(known)) = (&by, self.known.get(&ledger))
            && (known.writer == host.identity.node || *caller != Some(known.writer))
        {
            return Err(Refused(format!("ledger {ledger} is written by node {}, and by no other", known.writer)));
        }
        let mut needs = first;
        for (entry, (parsed, payload)) in (first.0..).map(EntryId).zip(parsed) {
            let before = self.replica.saved(ledger);
            let place = match by {
                By::Writer { .. } => Place::Next,
                By::Recoverer { .. } => Place::Copied,
            };
            let request = match by {
                By::Writer { durable, .. } => core::Request::Append { ledger, entry, durable, payload },
                By::Recoverer { durable, uploaded } => {
                    core::Request::Recover { ledger, entry, durable, uploaded, payload }
                }
            };
            match self.replica.step(ReplicaEvent::Asked(request)).pop() {
                Some(ReplicaAction::Write { payload, .. }) => {
                    if let Some(refused) = self.write(host, before, entry, (parsed, payload), place) {
                        // Entries before it were taken; they are announced with those of a later request.
                        return refused.map(Outcome::Now);
                    }
                }
                // Taken before: whoever repeats it wants to know when it is synced.
                Some(ReplicaAction::Reply(Reply::Position { .. } | Reply::Copied { .. })) => {}
                Some(ReplicaAction::Reply(reply)) => return Ok(Outcome::Now(reply)),
                _ => return Err(Refused("the account of ledgers gave no answer".to_owned())),
            }
            needs = entry.next();
        }
        let now = self.replica.saved(ledger);
        match now.reply().filter(|_| now.synced() >= needs) {
            Some(reply) => Ok(Outcome::Now(reply)),
            None => {
                let (answer, synced) = oneshot::channel();
                self.waiting.entry(ledger).or_default().push(Waiter { needs, answer });
                Ok(Outcome::Synced(synced))
            }
        }
    }

    /// Hands an entry to the WAL that the account has just taken; when the WAL refuses it the account does not have it
    /// either.
    fn write(
        &mut self,
        host: &Host,
        before: Saved,
        entry: EntryId,
        (parsed, payload): (Parsed, Payload),
        place: Place,
    ) -> Option<Result<Reply, Refused>> {
        let ledger = before.ledger();
        let (head, body, crc) = (*payload.head(), payload.body().clone(), payload.crc());
        let appended = host.wal.append_at(Entry { ledger, entry, token: HOST_TOKEN, head, body }, crc, place);
        match appended {
            Ok(()) => {
                self.unsynced.entry(ledger).or_default().push_back((entry, parsed));
                None
            }
            Err(error) => {
                self.replica.put_back(before);
                Some(match error {
                    AppendError::Full { .. } => Ok(Reply::Busy { ledger }),
                    AppendError::Sealed => Ok(Reply::Sealed { ledger }),
                    AppendError::NotSealed => Ok(Reply::NotSealed { ledger }),
                    AppendError::OutOfSequence { expected } => Ok(Reply::OutOfSequence { ledger, expected }),
                    other => Err(Refused(other.to_string())),
                })
            }
        }
    }

    fn index_synced(&mut self, synced: &Synced) {
        let Some(unsynced) = self.unsynced.get_mut(&synced.ledger) else { return };
        // Those of a ledger come in their order; one that is not there is of a ledger that was finished meanwhile.
        let Some((_, parsed)) = unsynced.pop_front_if(|(entry, _)| *entry == synced.entry) else { return };
        if unsynced.is_empty() {
            self.unsynced.remove(&synced.ledger);
        }
        self.index.add(synced.ledger, synced.entry, parsed, synced.location);
    }

    fn announce(&mut self, ledger: LedgerId, next: EntryId, answers: &mut Vec<(oneshot::Sender<Reply>, Reply)>) {
        let actions = self.replica.step(ReplicaEvent::<Payload>::Synced { ledger, next });
        let synced = self.replica.saved(ledger).synced();
        let Some(waiting) = self.waiting.get_mut(&ledger) else { return };
        let announced = actions.into_iter().find_map(|action| match action {
            ReplicaAction::Announce(reply) => Some(reply),
            _ => None,
        });
        let Some(reply) = announced else { return };
        let (due, rest) = std::mem::take(waiting).into_iter().partition(|waiter| waiter.needs <= synced);
        *waiting = rest;
        if waiting.is_empty() {
            self.waiting.remove(&ledger);
        }
        let due: Vec<Waiter> = due;
        answers.extend(due.into_iter().map(|waiter| (waiter.answer, reply)));
    }
}
