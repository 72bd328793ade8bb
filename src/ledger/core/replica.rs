//! What a node does with the ledgers of others, and with its own: the account it keeps on top of its WAL.
//!
//! Rules, each against a way of losing records:
//!
//! - A ledger takes its first entry only when the applied metadata list it as open and this WAL as one of its replicas,
//!   and that entry is number 0. Then entries come in sequence. So "synced below N" means all of them, and a ledger that
//!   was finished and forgotten cannot begin again.
//! - A position is announced after its sync, never before.
//! - Sealed is one-way. It is on disk before it is answered, also for a ledger never seen. The writer is refused from
//!   the moment at which sealing begins.
//! - What a recoverer copies here is never announced to the writer: only what was taken from it counts for it.
//! - A recoverer may append behind the sealed position, in sequence, only when the ledger is sealed. Its entries may begin
//!   above 0 on a node that held nothing of the ledger, at a position that is known to be durable or uploaded, and leave a
//!   gap only over what is uploaded.
//! - Only what the metadata call uploaded is trimmed.
//!
//! The WAL keeps the entries and the seals; after a start the account is made anew from what it holds ([`Held`]).

use std::collections::BTreeMap;

use crate::base::{EntryId, LedgerId};
use crate::metadata::bounds::LEDGERS_MAX;
use crate::wal::SealAnswer;

use super::plant::{Bug, Plant};
use super::{Identity, Reply, Request};

/// What the WAL has of a ledger when the process starts: all of it is synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Held {
    pub ledger: LedgerId,
    /// The lowest entry.
    pub first: EntryId,
    /// The one behind the last.
    pub next: EntryId,
    pub sealed: Option<SealAnswer>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplicaEvent<P> {
    /// Addressed to this node and this incarnation: the driver answers [`Reply::Unknown`] to anything else.
    Asked(Request<P>),
    /// The WAL has synced every entry below `next`.
    Synced { ledger: LedgerId, next: EntryId },
    /// The WAL has recorded the seal.
    Sealed { ledger: LedgerId, answer: SealAnswer },
    /// The applied metadata list the ledger as open, with this WAL among its replicas.
    Opened { ledger: LedgerId },
    /// The applied metadata say that entries below `uploaded` are in object storage.
    Uploaded { ledger: LedgerId, uploaded: EntryId },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplicaAction<P> {
    /// Hand the entry to the WAL.
    Write { ledger: LedgerId, entry: EntryId, payload: P },
    /// Have the WAL record that the ledger is sealed, behind the entries handed to it before.
    Seal { ledger: LedgerId },
    /// The WAL may free entries below.
    Trim { ledger: LedgerId, below: EntryId },
    /// To the one who asked.
    Reply(Reply),
    /// To everybody who has asked about this ledger.
    Announce(Reply),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Seal {
    Open,
    /// Refuses the writer; the WAL is recording it.
    Sealing,
    Sealed(SealAnswer),
}

/// Invariants: `first ≤ synced ≤ next`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Account {
    first: EntryId,
    synced: EntryId,
    next: EntryId,
    /// Entries below are durable, as far as anybody has said.
    durable: EntryId,
    seal: Seal,
    /// The metadata list it as open: its writer may begin.
    open: bool,
}

impl Account {
    fn new() -> Account {
        let zero = EntryId(0);
        Account { first: zero, synced: zero, next: zero, durable: zero, seal: Seal::Open, open: false }
    }

    /// Nothing of the ledger has been taken.
    fn is_empty(&self) -> bool {
        self.first == self.next
    }

    fn heard_durable(&mut self, durable: EntryId) {
        self.durable = self.durable.max(durable);
    }
}

/// See [`Replica::saved`].
#[derive(Clone, Debug)]
pub struct Saved {
    ledger: LedgerId,
    account: Option<Account>,
}

impl Saved {
    pub fn ledger(&self) -> LedgerId {
        self.ledger
    }

    /// The entry that comes next.
    pub fn next(&self) -> EntryId {
        self.account.as_ref().map_or(EntryId(0), |account| account.next)
    }

    /// Every entry below is synced, or needs not be.
    pub fn synced(&self) -> EntryId {
        self.account.as_ref().map_or(EntryId(0), |account| account.synced)
    }

    /// What was written to the ledger so far, in the words of its reply.
    pub fn reply(&self) -> Option<Reply> {
        let account = self.account.as_ref()?;
        Some(match account.seal {
            Seal::Open | Seal::Sealing => account.position(self.ledger),
            Seal::Sealed(_) => account.copied(self.ledger, Plant::default()),
        })
    }
}

/// The account of one node. One process has one, from its start to its end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Replica {
    identity: Identity,
    ledgers: BTreeMap<LedgerId, Account>,
    plant: Plant,
}

impl Replica {
    pub fn new(identity: Identity, held: impl IntoIterator<Item = Held>, plant: Plant) -> Replica {
        let account = |held: Held| {
            let seal = held.sealed.map_or(Seal::Open, Seal::Sealed);
            // What is below the first entry was trimmed, or a recovery copy began there: durable in either case.
            let durable = held.first;
            Account { first: held.first, synced: held.next, next: held.next, durable, seal, open: held.next.0 > 0 }
        };
        Replica { identity, ledgers: held.into_iter().map(|held| (held.ledger, account(held))).collect(), plant }
    }

    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// What the account says of a ledger now. A driver keeps it across a step, and puts it back when the WAL has no room for
    /// the entry that the step wanted written: it was not taken then.
    pub fn saved(&self, ledger: LedgerId) -> Saved {
        Saved { ledger, account: self.ledgers.get(&ledger).cloned() }
    }

    pub fn put_back(&mut self, saved: Saved) {
        match saved.account {
            Some(account) => drop(self.ledgers.insert(saved.ledger, account)),
            None => drop(self.ledgers.remove(&saved.ledger)),
        }
    }

    /// Lets go of a ledger that the applied metadata have finished: its writer is never let in again.
    pub fn forget(&mut self, ledger: LedgerId) {
        self.ledgers.remove(&ledger);
    }

    /// Ledgers that there is an account of.
    pub fn ledgers(&self) -> impl Iterator<Item = LedgerId> {
        self.ledgers.keys().copied()
    }

    pub fn step<P>(&mut self, event: ReplicaEvent<P>) -> Vec<ReplicaAction<P>> {
        match event {
            ReplicaEvent::Asked(Request::Append { ledger, entry, durable, payload }) => {
                self.append(ledger, entry, durable, payload)
            }
            ReplicaEvent::Asked(Request::Seal { ledger }) => self.seal(ledger),
            ReplicaEvent::Asked(Request::Recover { ledger, entry, durable, uploaded, payload }) => {
                self.recover(ledger, entry, (durable, uploaded), payload)
            }
            ReplicaEvent::Synced { ledger, next } => self.synced(ledger, next),
            ReplicaEvent::Sealed { ledger, answer } => self.sealed(ledger, answer),
            ReplicaEvent::Opened { ledger } => {
                if let Some(account) = self.account(ledger) {
                    account.open = true;
                }
                Vec::new()
            }
            ReplicaEvent::Uploaded { ledger, uploaded } => self.trim(ledger, uploaded),
        }
    }

    /// The account of a ledger, a new one if there is room for it.
    fn account(&mut self, ledger: LedgerId) -> Option<&mut Account> {
        if !self.ledgers.contains_key(&ledger) && self.ledgers.len() >= LEDGERS_MAX {
            return None;
        }
        Some(self.ledgers.entry(ledger).or_insert_with(Account::new))
    }

    fn append<P>(&mut self, ledger: LedgerId, entry: EntryId, durable: EntryId, payload: P) -> Vec<ReplicaAction<P>> {
        let plant = self.plant;
        let refuse = |reply| vec![ReplicaAction::Reply(reply)];
        // A ledger without an account was never listed as open here.
        let Some(account) = self.ledgers.get_mut(&ledger) else { return refuse(Reply::NotOpen { ledger }) };
        if account.seal != Seal::Open && !plant.has(Bug::SealNotOneWay) {
            return refuse(Reply::Sealed { ledger });
        }
        if !account.open {
            return refuse(Reply::NotOpen { ledger });
        }
        if entry > account.next {
            return refuse(Reply::OutOfSequence { ledger, expected: account.next });
        }
        account.heard_durable(durable);
        let mut actions = Vec::new();
        if plant.has(Bug::TrimBeforeCommit) {
            actions.extend(account.trim(ledger, durable));
        }
        if entry == account.next {
            account.next = entry.next();
            actions.push(ReplicaAction::Write { ledger, entry, payload });
            if !plant.has(Bug::SkipSync) {
                return actions;
            }
            account.synced = account.next;
        }
        actions.push(ReplicaAction::Reply(account.position(ledger)));
        actions
    }

    fn seal<P>(&mut self, ledger: LedgerId) -> Vec<ReplicaAction<P>> {
        let forgets = self.plant.has(Bug::SealForgotten);
        let Some(account) = self.account(ledger) else {
            return vec![ReplicaAction::Reply(Reply::Busy { ledger })];
        };
        if forgets && account.seal == Seal::Open {
            let through = account.synced.0.checked_sub(1).map(EntryId);
            account.seal = Seal::Sealed(SealAnswer { through, uncertain_from: None });
        }
        match account.seal {
            Seal::Sealed(answer) => {
                vec![ReplicaAction::Reply(Reply::of_seal(ledger, answer, account.durable))]
            }
            // The answer is announced when there is one; asking the WAL again does no harm.
            Seal::Open | Seal::Sealing => {
                account.seal = Seal::Sealing;
                vec![ReplicaAction::Seal { ledger }]
            }
        }
    }

    fn sealed<P>(&mut self, ledger: LedgerId, answer: SealAnswer) -> Vec<ReplicaAction<P>> {
        let Some(account) = self.account(ledger) else { return Vec::new() };
        if let Seal::Sealed(_) = account.seal {
            return Vec::new();
        }
        account.seal = Seal::Sealed(answer);
        // This node's own writer hands its entries to the WAL directly: here they are only known from now on.
        let held = answer.through.map_or(EntryId(0), EntryId::next);
        (account.next, account.synced) = (account.next.max(held), account.synced.max(held));
        vec![ReplicaAction::Announce(Reply::of_seal(ledger, answer, account.durable))]
    }

    fn recover<P>(
        &mut self,
        ledger: LedgerId,
        entry: EntryId,
        (durable, uploaded): (EntryId, EntryId),
        payload: P,
    ) -> Vec<ReplicaAction<P>> {
        let refuse = |reply| vec![ReplicaAction::Reply(reply)];
        let Some(account) = self.ledgers.get_mut(&ledger) else { return refuse(Reply::NotSealed { ledger }) };
        let Seal::Sealed(_) = account.seal else { return refuse(Reply::NotSealed { ledger }) };
        let known = durable.max(uploaded);
        let begins = account.is_empty() && entry >= account.next && entry <= known;
        let leaps = entry > account.next && entry <= uploaded;
        if entry > account.next && !begins && !leaps {
            return refuse(Reply::OutOfSequence { ledger, expected: account.next });
        }
        account.heard_durable(known);
        if entry < account.next {
            return refuse(account.copied(ledger, self.plant));
        }
        if begins || leaps {
            // What was held below is in object storage: it no longer counts as held here.
            (account.first, account.synced) = (entry, entry);
        }
        account.next = entry.next();
        vec![ReplicaAction::Write { ledger, entry, payload }]
    }

    fn synced<P>(&mut self, ledger: LedgerId, next: EntryId) -> Vec<ReplicaAction<P>> {
        let Some(account) = self.ledgers.get_mut(&ledger) else { return Vec::new() };
        account.synced = account.synced.max(next.min(account.next));
        let reply = match account.seal {
            Seal::Open | Seal::Sealing => account.position(ledger),
            Seal::Sealed(_) if self.plant.has(Bug::SealNotOneWay) => account.position(ledger),
            Seal::Sealed(_) => account.copied(ledger, self.plant),
        };
        vec![ReplicaAction::Announce(reply)]
    }

    fn trim<P>(&mut self, ledger: LedgerId, uploaded: EntryId) -> Vec<ReplicaAction<P>> {
        match self.ledgers.get_mut(&ledger) {
            Some(account) => account.trim(ledger, uploaded).into_iter().collect(),
            None => Vec::new(),
        }
    }
}

impl Account {
    fn position(&self, ledger: LedgerId) -> Reply {
        Reply::Position { ledger, first: self.first, synced: self.synced, durable: self.durable.max(self.first) }
    }

    fn copied(&self, ledger: LedgerId, plant: Plant) -> Reply {
        if plant.has(Bug::CopyCounts) {
            return self.position(ledger);
        }
        Reply::Copied { ledger, first: self.first, synced: self.synced, durable: self.durable.max(self.first) }
    }

    fn trim<P>(&mut self, ledger: LedgerId, uploaded: EntryId) -> Option<ReplicaAction<P>> {
        let below = uploaded.min(self.synced);
        if below <= self.first {
            return None;
        }
        self.first = below;
        self.heard_durable(below);
        Some(ReplicaAction::Trim { ledger, below })
    }
}
