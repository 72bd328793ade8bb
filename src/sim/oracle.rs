//! What was promised, and the first promise that was broken.

use std::collections::BTreeMap;

use super::PARTITIONS;

#[derive(Default)]
pub struct Oracle {
    /// By partition and value: the offset that was acknowledged.
    acked: [BTreeMap<u64, i64>; PARTITIONS],
    /// By partition and offset: the value that a reader, or an upload, has shown there.
    shown: [BTreeMap<i64, u64>; PARTITIONS],
    pub broken: Option<String>,
    pub acks: u64,
    pub reads: u64,
    /// Requests whose outcome the client did not learn.
    pub unknown: u64,
}

impl Oracle {
    pub fn fail(&mut self, what: String) {
        self.broken.get_or_insert(what);
    }

    pub fn acknowledged(&mut self, partition: usize, value: u64, offset: i64) {
        self.acks += 1;
        if let Some(before) = self.acked[partition].insert(value, offset)
            && before != offset
        {
            self.fail(format!("partition {partition}: batch {value} acknowledged at {before}, then at {offset}"));
        }
        if let Some(other) = self.shown[partition].get(&offset).filter(|other| **other != value) {
            let other = *other;
            self.fail(format!("partition {partition}: {value} acknowledged at {offset}, where {other} was read"));
        }
    }

    /// What a reader sees, or what an upload has committed. Offsets begin at 0 and have no gaps.
    pub fn shows(&mut self, partition: usize, offset: i64, value: u64) {
        self.reads += 1;
        match self.shown[partition].insert(offset, value) {
            Some(before) if before != value => {
                self.fail(format!("partition {partition} offset {offset}: {before} was read there, then {value}"));
            }
            _ => {}
        }
        if let Some(acked) = self.acked[partition].get(&value).filter(|acked| **acked != offset) {
            let acked = *acked;
            self.fail(format!("partition {partition}: {value} is read at {offset}, and was acknowledged at {acked}"));
        }
    }

    /// The whole log of a partition, read from 0 when all is over: `sent` batches, all acknowledged.
    pub fn judge(&mut self, partition: usize, log: &[u64], sent: u64) {
        let expected: Vec<u64> = (0..sent).collect();
        if log == expected {
            return;
        }
        let at = log.iter().zip(&expected).take_while(|(found, wanted)| found == wanted).count();
        let (found, wanted) = (log.get(at), expected.get(at));
        self.fail(format!("partition {partition}: the log has {found:?} at {at}, where {wanted:?} belongs"));
    }
}
