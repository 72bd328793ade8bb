//! Key family `Machine`: how far the state machine has come, and the totals of the object index.
//!
//! Key: family `u8` | item `u8` (0 the state, 1 the totals). Value of the state: version `u16` = 1 | applied position
//! (optional) | ahead `u32` | position of the membership (optional) | membership. Value of the totals: version `u16`
//! = 1 | six `u64`. Both change only in the batch that carries out a command, so that state, image and index are
//! always those after exactly the same commands.

use super::raft_log::{LogPosition, Membership};
use super::{Batch, Family, Kv, ReadError};
use crate::base::codec::{DecodeError, Reader, Writer};
use crate::metadata::{ObjectEntry, ObjectState};

const VERSION: u16 = 1;
pub(super) const STATE_KEY: [u8; 2] = [Family::Machine as u8, 0];
const TOTALS_KEY: [u8; 2] = [Family::Machine as u8, 1];

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MachineState {
    /// The last log entry that is applied as a whole.
    pub applied: Option<LogPosition>,
    /// Commands of the entry after it that are applied too; a replay skips them.
    pub ahead: u32,
    pub membership_at: Option<LogPosition>,
    pub membership: Membership,
}

impl MachineState {
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u16(VERSION);
        LogPosition::write_option(&self.applied, &mut w);
        w.u32(self.ahead);
        LogPosition::write_option(&self.membership_at, &mut w);
        self.membership.write(&mut w);
        w.0
    }

    pub fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(value);
        check_version(&mut r)?;
        let state = MachineState {
            applied: LogPosition::read_option(&mut r)?,
            ahead: r.u32()?,
            membership_at: LogPosition::read_option(&mut r)?,
            membership: Membership::read(&mut r)?,
        };
        r.finish()?;
        Ok(state)
    }
}

/// What the object index holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    pub ranges: u64,
    pub prepared: u64,
    pub live: u64,
    pub dropped: u64,
    pub aborted: u64,
    /// Bytes of the live objects.
    pub live_bytes: u64,
}

impl Totals {
    pub(crate) fn add(&mut self, entry: &ObjectEntry) {
        *self.count(entry) += 1;
        if entry.state == ObjectState::Live {
            self.live_bytes = self.live_bytes.saturating_add(entry.bytes);
        }
    }

    pub(super) fn remove(&mut self, entry: &ObjectEntry) {
        let count = self.count(entry);
        *count = count.saturating_sub(1);
        if entry.state == ObjectState::Live {
            self.live_bytes = self.live_bytes.saturating_sub(entry.bytes);
        }
    }

    fn count(&mut self, entry: &ObjectEntry) -> &mut u64 {
        match entry.state {
            ObjectState::Prepared { .. } => &mut self.prepared,
            ObjectState::Live => &mut self.live,
            ObjectState::Dropped { .. } => &mut self.dropped,
            ObjectState::Aborted { .. } => &mut self.aborted,
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u16(VERSION).u64(self.ranges).u64(self.prepared).u64(self.live).u64(self.dropped).u64(self.aborted);
        w.u64(self.live_bytes);
        w.0
    }

    fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(value);
        check_version(&mut r)?;
        let totals = Totals {
            ranges: r.u64()?,
            prepared: r.u64()?,
            live: r.u64()?,
            dropped: r.u64()?,
            aborted: r.u64()?,
            live_bytes: r.u64()?,
        };
        r.finish()?;
        Ok(totals)
    }
}

fn check_version(r: &mut Reader<'_>) -> Result<(), DecodeError> {
    match r.u16()? {
        VERSION => Ok(()),
        found => Err(DecodeError::Version { found, newest: VERSION }),
    }
}

impl Kv {
    /// The state before anything was applied, if none is stored.
    pub fn machine_state(&self) -> Result<MachineState, ReadError> {
        let value = self.get(&STATE_KEY)?;
        let state = value.map(|v| MachineState::decode(&v)).transpose().map_err(ReadError::decode(Family::Machine))?;
        Ok(state.unwrap_or_default())
    }

    pub fn totals(&self) -> Result<Totals, ReadError> {
        let value = self.get(&TOTALS_KEY)?;
        let totals = value.map(|v| Totals::decode(&v)).transpose().map_err(ReadError::decode(Family::Machine))?;
        Ok(totals.unwrap_or_default())
    }
}

impl Batch {
    pub fn put_machine_state(&mut self, state: &MachineState) {
        self.put(STATE_KEY, state.encode());
    }

    pub fn put_totals(&mut self, totals: &Totals) {
        self.put(TOTALS_KEY, totals.encode());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_of_every_release_are_readable() {
        let position = LogPosition { term: 2, node: 1, index: 77 };
        let state = MachineState {
            applied: Some(position),
            ahead: 3,
            membership_at: Some(LogPosition { index: 0, ..position }),
            membership: Membership { configs: vec![vec![1]], nodes: vec![1] },
        };
        assert_eq!(MachineState::decode(&crate::kv::fixture("machine_state_v1", &state.encode())), Ok(state));
        let totals = Totals { ranges: 1, prepared: 2, live: 3, dropped: 4, aborted: 5, live_bytes: 6 };
        assert_eq!(Totals::decode(&crate::kv::fixture("totals_v1", &totals.encode())), Ok(totals));
    }

    #[test]
    fn damaged_states_are_refused() {
        let bytes = MachineState::default().encode();
        for len in 0..bytes.len() {
            assert!(MachineState::decode(&bytes[..len]).is_err());
        }
    }
}
