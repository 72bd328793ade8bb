//! The object store, and uploads to it: cut, prepare, put, commit.

use std::collections::BTreeMap;

use crate::base::{EntryId, LedgerId, ObjectId, Offset};
use crate::metadata::{Command, Image, Range, Response};

use super::node::{Ask, partition_id};
use super::quorum::Told;
use super::world::{Event, World, node_id};
use super::{MS, PARTITIONS};

/// Entries of one upload.
const ENTRIES: usize = 300;

/// Values of consecutive offsets of a partition.
#[derive(Clone)]
struct Run {
    partition: usize,
    base: i64,
    values: Vec<u64>,
}

#[derive(Default)]
pub struct Store {
    objects: BTreeMap<ObjectId, Vec<Run>>,
    /// By partition, what commits have made of them.
    logs: [Vec<u64>; PARTITIONS],
    pub away: bool,
    pub commits: u64,
}

impl Store {
    /// The values of a partition below `end`, as far as they are uploaded.
    pub fn values(&self, partition: usize, end: i64) -> Vec<u64> {
        let log = &self.logs[partition];
        log[..log.len().min(end.max(0) as usize)].to_vec()
    }
}

/// An upload under way.
pub struct Upload {
    ledger: LedgerId,
    from: EntryId,
    through: EntryId,
    runs: Vec<Run>,
    object: Option<ObjectId>,
}

impl World {
    pub fn upload_tick(&mut self, index: usize) {
        let image = self.image_at(index);
        let seldom = self.rng.range(0, 5) == 0;
        let Some(process) = self.nodes[index].process.as_ref() else { return };
        if process.writer.is_none() || !process.uploads.is_empty() || !seldom {
            return;
        }
        let mine = image.ledgers.iter().filter(|(_, l)| l.uploader() == node_id(index) && !l.is_finished());
        let mine: Vec<LedgerId> = mine.map(|(id, _)| *id).collect();
        for ledger in mine {
            if self.lacks(index, &image).contains(&ledger) {
                self.pull(index, &image);
                continue;
            }
            if let Some(upload) = self.cut(index, ledger, &image) {
                let id = self.new_generation();
                let Some(process) = self.nodes[index].process.as_mut() else { return };
                let (node, epoch) = (node_id(index), process.epoch);
                process.uploads.insert(id, upload);
                self.propose(
                    index,
                    Command::PrepareObjects { node, epoch, count: 1, now_ms: 0 },
                    Ask::Prepare { upload: id },
                );
                return;
            }
        }
    }

    /// The next upload of a ledger: up to the first entry whose partition waits for another ledger.
    fn cut(&self, index: usize, ledger: LedgerId, image: &Image) -> Option<Upload> {
        let recorded = image.ledgers.get(&ledger)?;
        let process = self.nodes[index].process.as_ref()?;
        let writer = process.writer.as_ref()?;
        let through = match recorded.end {
            Some(end) => end,
            None if writer.ledger() == ledger => process.durable,
            None => return None,
        };
        let from = recorded.uploaded;
        let batches = self.nodes[index].disk.read(ledger, from, through).unwrap_or_default();
        let mut runs: BTreeMap<usize, Run> = BTreeMap::new();
        let mut taken = 0;
        for batch in batches.iter().take(ENTRIES) {
            let uploaded = image.partition(partition_id(batch.partition))?.uploaded_end.0;
            let run = runs.entry(batch.partition).or_insert_with(|| Run {
                partition: batch.partition,
                base: uploaded,
                values: Vec::new(),
            });
            if run.base + run.values.len() as i64 != batch.offset {
                break;
            }
            run.values.push(batch.value);
            taken += 1;
        }
        runs.retain(|_, run| !run.values.is_empty());
        let runs = runs.into_values().collect();
        (taken > 0).then_some(Upload { ledger, from, through: EntryId(from.0 + taken), runs, object: None })
    }

    pub fn prepared(&mut self, index: usize, upload: u64, told: Told) {
        let generation = self.nodes[index].generation;
        let Some(process) = self.nodes[index].process.as_mut() else { return };
        let Told::Applied(Response::Objects { first, .. }) = told else {
            process.uploads.remove(&upload);
            return;
        };
        let Some(under_way) = process.uploads.get_mut(&upload) else { return };
        under_way.object = Some(first);
        let stored = !self.store.away;
        if stored {
            self.store.objects.insert(first, under_way.runs.clone());
        }
        let at = self.now + self.rng.range(5, 60) * MS;
        self.at(at, Event::Stored { node: index, generation, upload, stored });
    }

    pub fn stored(&mut self, index: usize, upload: u64, stored: bool) {
        let Some(process) = self.nodes[index].process.as_mut() else { return };
        let (node, epoch) = (node_id(index), process.epoch);
        let Some(under_way) = process.uploads.get(&upload).filter(|_| stored) else {
            process.uploads.remove(&upload);
            return;
        };
        let Some(object) = under_way.object else { return };
        let range = |run: &Run| Range {
            partition: partition_id(run.partition),
            base: Offset(run.base),
            end: Offset(run.base + run.values.len() as i64),
            bytes: run.values.len() as u64,
            records: run.values.len() as u64,
            max_timestamp: -1,
            first_timestamp: -1,
            position: 0,
            length: 1,
            epochs: Vec::new(),
        };
        let (ledger, from, through) = (under_way.ledger, under_way.from, under_way.through);
        let ranges = under_way.runs.iter().map(range).collect();
        let (object_bytes, now_ms) = (1, 0);
        let commit = Command::CommitUpload { node, epoch, object, object_bytes, ledger, from, through, ranges, now_ms };
        self.propose(index, commit, Ask::Commit { upload });
    }

    pub fn committed_upload(&mut self, index: usize, upload: u64, _told: Told) {
        if let Some(process) = self.nodes[index].process.as_mut() {
            process.uploads.remove(&upload);
        }
    }

    /// A commit was carried out: what it covers is in the store for good.
    pub fn upload_commits(&mut self, command: &Command) {
        let Command::CommitUpload { object, .. } = command else { return };
        self.store.commits += 1;
        let runs = self.store.objects.get(object).cloned().unwrap_or_default();
        for run in runs {
            if self.store.logs[run.partition].len() as i64 != run.base {
                self.oracle.fail(format!("partition {}: an upload begins at {}", run.partition, run.base));
                return;
            }
            for (value, offset) in run.values.iter().zip(run.base..) {
                self.oracle.shows(run.partition, offset, *value);
            }
            self.store.logs[run.partition].extend(run.values);
        }
    }
}
