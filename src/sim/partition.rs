//! Partitions on their leaders: opened on what the disk holds, appended to, handed over.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::base::{EntryId, LedgerId, Offset};
use crate::metadata::{Command, Image};

use super::node::{Ask, partition_id};
use super::quorum::Told;
use super::world::{World, index_of, node_id};
use super::{Batch, PARTITIONS, Planted};

/// A partition that this node leads.
pub struct Part {
    pub leader_epoch: i32,
    /// It has everything below the place where it took over; before that it serves nobody.
    pub open: bool,
    pub next: i64,
    /// Offsets below are durable.
    pub high_watermark: i64,
    /// Durable batches that it holds, by offset.
    pub tail: BTreeMap<i64, Rc<Batch>>,
    /// By value: where the producer's batches are. All of them, for there are few.
    pub values: BTreeMap<u64, i64>,
    pub next_value: u64,
    /// It takes no appends, and waits until everything is durable.
    leaving: bool,
    asked: bool,
    /// Who waits for an offset to become durable.
    pub waiters: Vec<(i64, super::client::Waiter)>,
}

impl Part {
    fn new(leader_epoch: i32) -> Part {
        Part {
            leader_epoch,
            open: false,
            next: 0,
            high_watermark: 0,
            tail: BTreeMap::new(),
            values: BTreeMap::new(),
            next_value: 0,
            leaving: false,
            asked: false,
            waiters: Vec::new(),
        }
    }

    pub fn takes_appends(&self) -> bool {
        self.open && !self.leaving
    }
}

impl World {
    /// Follows an image: closes what is led elsewhere, begins what is led here.
    pub fn follow(&mut self, index: usize, image: &Image) {
        for partition in 0..PARTITIONS {
            let Some(recorded) = image.partition(partition_id(partition)).cloned() else { continue };
            let Some(process) = self.nodes[index].process.as_mut() else { return };
            let led = recorded.leader == node_id(index);
            match process.parts.get_mut(&partition) {
                Some(part) if led && part.leader_epoch == recorded.leader_epoch.0 => {
                    let uploaded = recorded.uploaded_end.0;
                    part.tail = part.tail.split_off(&uploaded);
                    if recorded.target.is_none() {
                        (part.leaving, part.asked) = (false, false);
                    }
                }
                Some(_) => {
                    process.parts.remove(&partition);
                    self.note("closes", partition as u64);
                }
                None => {}
            }
        }
    }

    pub fn partitions_tick(&mut self, index: usize) {
        let image = self.image_at(index);
        for partition in 0..PARTITIONS {
            let Some(recorded) = image.partition(partition_id(partition)).cloned() else { continue };
            if recorded.leader != node_id(index) {
                continue;
            }
            let Some(process) = self.nodes[index].process.as_mut() else { return };
            if process.writer.is_none() {
                return;
            }
            let part = process.parts.entry(partition).or_insert_with(|| Part::new(recorded.leader_epoch.0));
            if !part.open {
                self.try_open(index, partition, &image);
            } else if recorded.target.is_some_and(|target| self.may_take_over(index, index_of(target))) {
                self.leave(index, partition, recorded.target_since);
            }
        }
    }

    /// Whether a node is a member of this one's set: then it holds, or will hold, what is not uploaded.
    fn may_take_over(&self, index: usize, target: usize) -> bool {
        let image = self.image_at(index);
        let Some(writer) = self.nodes[index].process.as_ref().and_then(|p| p.writer.as_ref()) else { return false };
        image.ledgers.get(&writer.ledger()).is_some_and(|l| l.replicas.iter().any(|r| index_of(r.node) == target))
    }

    fn leave(&mut self, index: usize, partition: usize, target_since: u64) {
        let Some(process) = self.nodes[index].process.as_mut() else { return };
        let Some(part) = process.parts.get_mut(&partition) else { return };
        part.leaving = true;
        if part.asked || part.high_watermark < part.next || self.now >= process.lease_until {
            return;
        }
        part.asked = true;
        let (end, leader_epoch) = (Offset(part.next), crate::base::LeaderEpoch(part.leader_epoch));
        let (node, epoch) = (node_id(index), process.epoch);
        let id = partition_id(partition);
        self.note("hands over", partition as u64);
        let command = Command::HandOver { node, epoch, partition: id, leader_epoch, end, target_since };
        self.propose(index, command, Ask::HandOver { partition });
    }

    pub fn handed_over(&mut self, index: usize, partition: usize, told: Told) {
        let Some(part) = self.nodes[index].process.as_mut().and_then(|p| p.parts.get_mut(&partition)) else { return };
        // It goes on leading only when the command certainly is no more: of one that may still come it is asked again,
        // with the same end, for it takes no appends meanwhile.
        part.asked = false;
        if matches!(told, Told::NotProposed) {
            part.leaving = false;
        }
    }

    /// Opens the partition if this disk has all that is not uploaded of it.
    fn try_open(&mut self, index: usize, partition: usize, image: &Image) {
        let Some(recorded) = image.partition(partition_id(partition)) else { return };
        let uploaded = recorded.uploaded_end.0;
        let mut tail: BTreeMap<i64, Rc<Batch>> = BTreeMap::new();
        for (ledger, entry, batch) in self.nodes[index].disk.synced() {
            let counts = counts(image, ledger, entry) && batch.partition == partition;
            if counts && batch.offset >= uploaded {
                tail.insert(batch.offset, batch.clone());
            }
        }
        let contiguous = tail.keys().zip(uploaded..).take_while(|(offset, wanted)| *offset == wanted).count() as i64;
        let complete = contiguous == tail.len() as i64
            && uploaded + contiguous >= recorded.handed_over.0
            && self.lacks(index, image).is_empty();
        if !complete && !self.bugs.has(Planted::OpensIncomplete) {
            return self.pull(index, image);
        }
        tail.retain(|offset, _| *offset < uploaded + contiguous);
        let forgets = self.bugs.has(Planted::ProducersForgotten);
        let stored = self.store.values(partition, uploaded);
        let Some(part) = self.nodes[index].process.as_mut().and_then(|p| p.parts.get_mut(&partition)) else { return };
        part.next = uploaded + contiguous;
        part.high_watermark = part.next;
        if !forgets {
            part.values.extend(stored.into_iter().zip(0..));
            part.values.extend(tail.values().map(|batch| (batch.value, batch.offset)));
        }
        part.next_value = part.values.last_key_value().map_or(0, |(value, _)| value + 1);
        part.tail = tail;
        part.open = true;
        self.note("opens", (partition as u64) << 8 | index as u64);
    }

    /// Ledgers with an end of which this disk lacks something that is not uploaded.
    pub fn lacks(&self, index: usize, image: &Image) -> Vec<LedgerId> {
        let node = &self.nodes[index];
        let unfinished = image.ledgers.iter().filter(|(_, l)| !l.is_finished());
        let lacking = unfinished.filter(|(id, l)| match l.end {
            Some(end) => node.disk.synced_next(**id) < end,
            None => false,
        });
        lacking.map(|(id, _)| *id).collect()
    }

    /// Copies what is lacking from a node that holds it.
    pub fn pull(&mut self, index: usize, image: &Image) {
        for ledger in self.lacks(index, image) {
            let Some(recorded) = image.ledgers.get(&ledger) else { continue };
            let held = self.nodes[index].disk.synced_next(ledger);
            let from = held.max(recorded.uploaded);
            let below = recorded.end.unwrap_or_default();
            let named = recorded.holders.iter().map(|h| h.replica).chain(recorded.replicas.iter().copied());
            let others: Vec<usize> = named.map(|r| index_of(r.node)).filter(|n| *n != index).collect();
            if others.is_empty() {
                continue;
            }
            let from_node = others[self.rng.range(0, others.len() as u64 - 1) as usize];
            self.send(index, from_node, super::node::Message::Read { ledger, from, below });
        }
    }

    /// Entries of the open ledger below `below` are durable.
    pub fn durable(&mut self, index: usize, ledger: LedgerId, below: EntryId) {
        let Some(process) = self.nodes[index].process.as_mut() else { return };
        let count = below.0.saturating_sub(process.durable.0);
        process.durable = below;
        let mut answers = Vec::new();
        for _ in 0..count {
            let Some(batch) = process.waiting.pop_front() else { break };
            let Some(part) = process.parts.get_mut(&batch.partition) else { continue };
            if part.leader_epoch != batch.leader_epoch {
                continue;
            }
            part.high_watermark = batch.offset + 1;
            part.tail.insert(batch.offset, batch.clone());
            let high_watermark = part.high_watermark;
            answers.extend(part.waiters.extract_if(.., |(offset, _)| *offset < high_watermark));
        }
        self.note("durable", ledger.0 << 16 | below.0);
        for (offset, waiter) in answers {
            self.answer(index, waiter, Some(offset));
        }
    }
}

/// Whether an entry belongs to the ledger: what stands at or beyond an end is void.
fn counts(image: &Image, ledger: LedgerId, entry: EntryId) -> bool {
    image.ledgers.get(&ledger).is_none_or(|known| known.end.is_none_or(|end| entry < end))
}
