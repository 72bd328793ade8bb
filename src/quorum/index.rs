//! Reading the object index: for the broker through [`ObjectIndex`], for `apply` through [`View`].

use std::cell::RefCell;
use std::sync::Arc;

use crate::base::{ObjectId, Offset, PartitionId};
use crate::kv::{Kv, ReadError};
use crate::metadata::{IndexView, ObjectEntry, RangeEntry};

pub use crate::kv::machine::Totals;
pub use crate::kv::object::Unsettled;

/// The object index after every command that was answered. Calls may read from the disk: never call one on a
/// runtime worker. Errors mean damage or a failing disk, never "not there".
pub trait ObjectIndex: Send + Sync {
    /// The range that holds `offset`, with its first offset.
    fn locate(&self, partition: PartitionId, offset: Offset) -> Result<Option<(Offset, RangeEntry)>, ReadError>;
    /// The first range that begins at or above `from`.
    fn next_range(&self, partition: PartitionId, from: Offset) -> Result<Option<(Offset, RangeEntry)>, ReadError>;
    /// Ranges with `from <= base < to`, ascending, at most `limit`.
    fn ranges(
        &self,
        partition: PartitionId,
        from: Offset,
        to: Offset,
        limit: usize,
    ) -> Result<Vec<(Offset, RangeEntry)>, ReadError>;
    fn object(&self, id: ObjectId) -> Result<Option<ObjectEntry>, ReadError>;
    /// Objects that are not live, in `state`, with ids from `from` on, ascending, at most `limit`.
    fn objects_in_state(
        &self,
        state: Unsettled,
        from: ObjectId,
        limit: usize,
    ) -> Result<Vec<(ObjectId, ObjectEntry)>, ReadError>;
    fn totals(&self) -> Result<Totals, ReadError>;
}

pub(super) struct KvIndex(pub Arc<Kv>);

impl ObjectIndex for KvIndex {
    fn locate(&self, partition: PartitionId, offset: Offset) -> Result<Option<(Offset, RangeEntry)>, ReadError> {
        self.0.range_holding(partition, offset)
    }

    fn next_range(&self, partition: PartitionId, from: Offset) -> Result<Option<(Offset, RangeEntry)>, ReadError> {
        self.0.next_range(partition, from)
    }

    fn ranges(
        &self,
        partition: PartitionId,
        from: Offset,
        to: Offset,
        limit: usize,
    ) -> Result<Vec<(Offset, RangeEntry)>, ReadError> {
        self.0.ranges(partition, from, to, limit)
    }

    fn object(&self, id: ObjectId) -> Result<Option<ObjectEntry>, ReadError> {
        self.0.object(id)
    }

    fn objects_in_state(
        &self,
        state: Unsettled,
        from: ObjectId,
        limit: usize,
    ) -> Result<Vec<(ObjectId, ObjectEntry)>, ReadError> {
        self.0.objects_in_state(state, from, limit)
    }

    fn totals(&self) -> Result<Totals, ReadError> {
        self.0.totals()
    }
}

/// The index as `apply` sees it. A read that failed looks like "not there" to it, so what it then returned must be
/// thrown away: [`View::failure`] says whether to.
pub(super) struct View<'a> {
    kv: &'a Kv,
    failure: RefCell<Option<ReadError>>,
}

impl<'a> View<'a> {
    pub fn new(kv: &'a Kv) -> Self {
        View { kv, failure: RefCell::new(None) }
    }

    pub fn failure(self) -> Result<(), ReadError> {
        self.failure.into_inner().map_or(Ok(()), Err)
    }

    fn or_fail<T: Default>(&self, result: Result<T, ReadError>) -> T {
        result.unwrap_or_else(|e| {
            self.failure.borrow_mut().get_or_insert(e);
            T::default()
        })
    }
}

impl IndexView for View<'_> {
    fn range(&self, partition: PartitionId, base: Offset) -> Option<RangeEntry> {
        self.or_fail(self.kv.range(partition, base))
    }

    fn ranges(&self, partition: PartitionId, from: Offset, to: Offset, limit: usize) -> Vec<(Offset, RangeEntry)> {
        self.or_fail(self.kv.ranges(partition, from, to, limit))
    }

    fn object(&self, id: ObjectId) -> Option<ObjectEntry> {
        self.or_fail(self.kv.object(id))
    }
}
