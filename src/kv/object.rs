//! Key families `Object` and `ObjectState`: what is known of each object, and the objects that are not live by state.
//!
//! `Object`: family `u8` | object id `u64` → `ObjectEntry` in its own versioned form. `ObjectState`: family `u8` |
//! state `u8` (0 prepared, 2 dropped, 3 aborted) | object id `u64` → nothing; live objects have no such key, so that
//! sweeping costs by what there is to sweep. [`IndexWriter`] keeps the two and the totals in step.

use std::collections::BTreeMap;

use super::machine::Totals;
use super::{Batch, Family, Kv, ReadError, range};
use crate::base::codec::{DecodeError, Reader};
use crate::base::{ObjectId, Offset, PartitionId};
use crate::metadata::{IndexOp, ObjectEntry, ObjectState};

/// The states that objects can be listed by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Unsettled {
    Prepared = 0,
    Dropped = 2,
    Aborted = 3,
}

impl Unsettled {
    fn of(entry: &ObjectEntry) -> Option<Unsettled> {
        match entry.state {
            ObjectState::Prepared { .. } => Some(Unsettled::Prepared),
            ObjectState::Live => None,
            ObjectState::Dropped { .. } => Some(Unsettled::Dropped),
            ObjectState::Aborted { .. } => Some(Unsettled::Aborted),
        }
    }
}

fn key(id: ObjectId) -> [u8; 9] {
    let mut key = [Family::Object as u8; 9];
    key[1..].copy_from_slice(&id.0.to_be_bytes());
    key
}

fn state_key(state: Unsettled, id: ObjectId) -> [u8; 10] {
    let mut key = [Family::ObjectState as u8; 10];
    key[1] = state as u8;
    key[2..].copy_from_slice(&id.0.to_be_bytes());
    key
}

fn decode_state_key(key: &[u8]) -> Result<ObjectId, DecodeError> {
    let mut r = Reader::new(key);
    r.u16()?;
    let id = ObjectId(r.u64()?);
    r.finish()?;
    Ok(id)
}

pub fn decode(key: &[u8], value: &[u8]) -> Result<(ObjectId, ObjectEntry), DecodeError> {
    let mut r = Reader::new(key);
    r.u8()?;
    let id = ObjectId(r.u64()?);
    r.finish()?;
    Ok((id, ObjectEntry::decode(value)?))
}

impl Kv {
    pub fn object(&self, id: ObjectId) -> Result<Option<ObjectEntry>, ReadError> {
        let value = self.get(&key(id))?;
        value.map(|v| ObjectEntry::decode(&v)).transpose().map_err(ReadError::decode(Family::Object))
    }

    /// Objects in `state` with ids from `from` on, ascending, at most `limit`.
    pub fn objects_in_state(
        &self,
        state: Unsettled,
        from: ObjectId,
        limit: usize,
    ) -> Result<Vec<(ObjectId, ObjectEntry)>, ReadError> {
        let mut ids = Vec::new();
        if limit > 0 {
            let to = [Family::ObjectState as u8, state as u8 + 1];
            self.scan(&state_key(state, from), &to, &mut |key, _| {
                ids.push(decode_state_key(key).map_err(ReadError::decode(Family::ObjectState))?);
                Ok(ids.len() < limit)
            })?;
        }
        let mut objects = Vec::with_capacity(ids.len());
        for id in ids {
            // Between the two reads a command may have moved the object on.
            if let Some(entry) = self.object(id)?.filter(|entry| Unsettled::of(entry) == Some(state)) {
                objects.push((id, entry));
            }
        }
        Ok(objects)
    }
}

/// Writes an entry of a snapshot into a batch that has cleared the index before.
pub fn put_entry(op: &IndexOp, batch: &mut Batch) {
    match *op {
        IndexOp::PutRange { partition, base, entry } => batch.put(range::key(partition, base), entry.encode()),
        IndexOp::PutObject { id, entry } => {
            batch.put(key(id), entry.encode());
            if let Some(state) = Unsettled::of(&entry) {
                batch.put(state_key(state, id), []);
            }
        }
        IndexOp::DeleteRange { .. } | IndexOp::DeleteObject { .. } => {}
    }
}

/// Turns the operations of one command into changes of a batch, and keeps the totals.
pub struct IndexWriter<'a> {
    kv: &'a Kv,
    totals: Totals,
    /// What earlier operations of the same batch left, which the store does not show yet.
    objects: BTreeMap<ObjectId, Option<ObjectEntry>>,
    ranges: BTreeMap<(PartitionId, Offset), bool>,
}

impl<'a> IndexWriter<'a> {
    pub fn new(kv: &'a Kv, totals: Totals) -> Self {
        IndexWriter { kv, totals, objects: BTreeMap::new(), ranges: BTreeMap::new() }
    }

    pub fn write(&mut self, op: &IndexOp, batch: &mut Batch) -> Result<(), ReadError> {
        match *op {
            IndexOp::PutRange { partition, base, entry } => {
                batch.put(range::key(partition, base), entry.encode());
                self.set_range(partition, base, true)
            }
            IndexOp::DeleteRange { partition, base } => {
                batch.delete(range::key(partition, base));
                self.set_range(partition, base, false)
            }
            IndexOp::PutObject { id, entry } => {
                batch.put(key(id), entry.encode());
                self.set_object(id, Some(entry), batch)
            }
            IndexOp::DeleteObject { id } => {
                batch.delete(key(id));
                self.set_object(id, None, batch)
            }
        }
    }

    fn set_range(&mut self, partition: PartitionId, base: Offset, present: bool) -> Result<(), ReadError> {
        let was = match self.ranges.insert((partition, base), present) {
            Some(was) => was,
            None => self.kv.range(partition, base)?.is_some(),
        };
        match (was, present) {
            (false, true) => self.totals.ranges += 1,
            (true, false) => self.totals.ranges = self.totals.ranges.saturating_sub(1),
            _ => {}
        }
        Ok(())
    }

    fn set_object(&mut self, id: ObjectId, entry: Option<ObjectEntry>, batch: &mut Batch) -> Result<(), ReadError> {
        let was = match self.objects.insert(id, entry) {
            Some(was) => was,
            None => self.kv.object(id)?,
        };
        if let Some(was) = was {
            self.totals.remove(&was);
            if let Some(state) = Unsettled::of(&was) {
                batch.delete(state_key(state, id));
            }
        }
        if let Some(entry) = entry {
            self.totals.add(&entry);
            if let Some(state) = Unsettled::of(&entry) {
                batch.put(state_key(state, id), []);
            }
        }
        Ok(())
    }

    /// The totals after every operation, to be written in the same batch.
    pub fn finish(self) -> Totals {
        self.totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{BrokerEpoch, NodeId};
    use crate::kv::Durability;

    const PREPARED: ObjectState = ObjectState::Prepared { node: NodeId(1), epoch: BrokerEpoch(2) };

    fn entry(state: ObjectState) -> ObjectEntry {
        ObjectEntry { bytes: 10, live_ranges: 1, state, created_ms: 4 }
    }

    #[test]
    fn keys_come_back() {
        let e = entry(PREPARED);
        assert_eq!(decode(&key(ObjectId(258)), &e.encode()), Ok((ObjectId(258), e)));
        assert_eq!(decode_state_key(&state_key(Unsettled::Dropped, ObjectId(258))), Ok(ObjectId(258)));
    }

    #[test]
    fn states_and_totals_follow_the_objects() {
        let folder = tempfile::tempdir().unwrap();
        let kv = Kv::open(folder.path(), true).unwrap();
        let run = |totals: Totals, ops: &[IndexOp]| {
            let mut batch = Batch::default();
            let mut writer = IndexWriter::new(&kv, totals);
            for op in ops {
                writer.write(op, &mut batch).unwrap();
            }
            kv.write(batch, Durability::Ordered).unwrap();
            writer.finish()
        };
        let put = |id, state| IndexOp::PutObject { id: ObjectId(id), entry: entry(state) };
        let totals = run(Totals::default(), &[put(1, PREPARED), put(2, PREPARED), put(3, PREPARED)]);
        assert_eq!((totals.prepared, totals.live), (3, 0));
        let totals = run(totals, &[put(1, ObjectState::Live), put(2, ObjectState::Aborted { at_ms: 1 })]);
        assert_eq!((totals.prepared, totals.live, totals.aborted, totals.live_bytes), (1, 1, 1, 10));
        let list = |state, from, limit| {
            let objects = kv.objects_in_state(state, ObjectId(from), limit).unwrap();
            objects.into_iter().map(|(id, _)| id.0).collect::<Vec<_>>()
        };
        assert_eq!(list(Unsettled::Prepared, 0, 9), [3]);
        assert_eq!(list(Unsettled::Aborted, 0, 9), [2]);
        // Twice in one batch: the second operation sees the first.
        let totals = run(
            totals,
            &[
                put(1, ObjectState::Dropped { at_ms: 2 }),
                IndexOp::DeleteObject { id: ObjectId(1) },
                IndexOp::DeleteObject { id: ObjectId(2) },
            ],
        );
        assert_eq!(totals, Totals { prepared: 1, ..Totals::default() });
        assert_eq!(list(Unsettled::Dropped, 0, 9), [0u64; 0]);
        assert_eq!(list(Unsettled::Prepared, 4, 9), [0u64; 0]);
    }
}
