//! What must hold in every state.
//!
//! Content is compared on the disks themselves and in the objects; what the cores believe plays no part.

use std::rc::Rc;

use crate::base::{EntryId, LedgerId};
use crate::metadata::Ledger;

use super::{Ghost, World};

/// Notes what the metadata say of a ledger. An end is set once, what is uploaded moves up and stays within the end.
pub fn note_ledger(ghost: &mut Ghost, id: LedgerId, ledger: &Ledger) {
    if let Some(end) = ledger.end {
        note_end(ghost, id, end);
        if ledger.uploaded > end {
            ghost.broken = Some("more is uploaded than the ledger has");
        }
    }
    let uploaded = ghost.uploaded.entry(id).or_default();
    if ledger.uploaded < *uploaded {
        ghost.broken = Some("what is uploaded moved back");
    }
    *uploaded = ledger.uploaded;
}

pub fn note_end(ghost: &mut Ghost, id: LedgerId, end: EntryId) {
    if *ghost.ends.entry(id).or_insert(end) != end {
        ghost.broken = Some("an end was set twice");
    }
}

impl World {
    /// Entries were acknowledged: whoever waited for them is told, and consumers may read them.
    pub fn durable(&mut self, ledger: LedgerId, below: EntryId) {
        let Some(process) = self.processes.last_mut().map(Rc::make_mut) else { return };
        let ghost = Rc::make_mut(&mut self.ghost);
        process.waiting.retain(|(of, entry, value)| {
            let done = *of == ledger && *entry < below;
            if done && ghost.acknowledged.insert((ledger, *entry), *value).is_some_and(|before| before != *value) {
                ghost.broken = Some("a place was acknowledged for two entries");
            }
            !done
        });
    }

    /// Whoever waited for an entry behind the end of one ledger waits for its place in the next.
    pub fn moved(&mut self, closed: LedgerId, end: EntryId, opened: LedgerId) {
        let Some(process) = self.processes.last_mut().map(Rc::make_mut) else { return };
        for (ledger, entry, _) in &mut process.waiting {
            if *ledger == closed && *entry >= end {
                (*ledger, *entry) = (opened, EntryId(entry.0 - end.0));
            }
        }
    }

    /// The first invariant that does not hold.
    pub fn violation(&self) -> Option<String> {
        let broken = self.ghost.broken.map(str::to_owned);
        broken
            .or_else(|| self.acknowledged_is_kept())
            .or_else(|| self.readable_is_kept())
            .or_else(|| self.is_in_order())
    }

    fn is_uploaded(&self, ledger: LedgerId, entry: EntryId) -> bool {
        self.ghost.uploaded.get(&ledger).is_some_and(|uploaded| entry < *uploaded)
    }

    /// Every value that is found at a place, in an object or on a disk.
    fn values(&self, ledger: LedgerId, entry: EntryId) -> impl Iterator<Item = u8> {
        let disks = self.nodes.iter().filter_map(move |node| node.disk.value(ledger, entry));
        // Below what is uploaded the object is what is read.
        let object = self.ghost.objects.get(&(ledger, entry)).copied();
        let uploaded = self.is_uploaded(ledger, entry);
        object.into_iter().chain(disks.filter(move |_| !uploaded))
    }

    /// What was acknowledged is within the ledger's end, and somewhere, with the same content everywhere.
    fn acknowledged_is_kept(&self) -> Option<String> {
        for ((ledger, entry), value) in &self.ghost.acknowledged {
            if self.ghost.ends.get(ledger).is_some_and(|end| entry >= end) {
                return Some(format!("{value}, acknowledged as {ledger}:{entry}, is beyond the end"));
            }
            let mut found = self.values(*ledger, *entry).peekable();
            if found.peek().is_none() {
                return Some(format!("{value}, acknowledged as {ledger}:{entry}, is nowhere"));
            }
            if let Some(other) = found.find(|other| other != value) {
                return Some(format!("{ledger}:{entry} was acknowledged as {value} and is {other}"));
            }
        }
        None
    }

    /// What is below a ledger's end may have been read: it is somewhere, with the same content everywhere.
    fn readable_is_kept(&self) -> Option<String> {
        for (ledger, end) in &self.ghost.ends {
            for entry in (0..end.0).map(EntryId) {
                let mut found = self.values(*ledger, entry);
                let Some(value) = found.next() else { return Some(format!("{ledger}:{entry} is nowhere")) };
                if let Some(other) = found.find(|other| *other != value) {
                    return Some(format!("{ledger}:{entry} is {value} and {other}"));
                }
            }
        }
        None
    }

    /// The ledgers one after the other have every value at most once, in the order of the appends.
    fn is_in_order(&self) -> Option<String> {
        let mut last = 0;
        for ledger in (1..=self.ghost.ends.len() as u64 + 1).map(LedgerId) {
            let end = self.ghost.ends.get(&ledger);
            for entry in (0..end.map_or(u64::MAX, |end| end.0)).map(EntryId) {
                let known = match end {
                    Some(_) => self.values(ledger, entry).next(),
                    None => self.ghost.acknowledged.get(&(ledger, entry)).copied(),
                };
                let Some(value) = known else { break };
                if value <= last {
                    return Some(format!("{value} at {ledger}:{entry} comes after {last}"));
                }
                last = value;
            }
        }
        None
    }
}
