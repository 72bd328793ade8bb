//! What all members of a group hold, as they know it themselves: when that adds up, the group is stable.

use crate::measure::Latencies;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Longer than any rebalance that is worth measuring.
const PATIENCE: Duration = Duration::from_secs(180);

/// Of one member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Share {
    /// Generation or member epoch; −1 while the member has none.
    epoch: i32,
    partitions: Vec<i32>,
}

#[derive(Default)]
struct State {
    /// For each partition, how many members hold it.
    holders: Vec<u32>,
    /// Partitions that are not held by exactly one member.
    wrong: usize,
    shares: HashMap<usize, Share>,
    epochs: BTreeMap<i32, usize>,
    expected: usize,
    stable_at: Option<Instant>,
    /// Changes of anybody's share.
    changes: u64,
    /// Times of heartbeats, while they are counted.
    heartbeats: Option<Latencies>,
    failed: Option<String>,
}

pub struct Board {
    state: RefCell<State>,
    changed: Notify,
}

impl State {
    fn add(&mut self, share: &Share) {
        *self.epochs.entry(share.epoch).or_default() += 1;
        for partition in &share.partitions {
            let holders = &mut self.holders[*partition as usize];
            *holders += 1;
            match *holders {
                1 => self.wrong -= 1,
                2 => self.wrong += 1,
                _ => {}
            }
        }
    }

    fn take(&mut self, share: &Share) {
        if let Some(count) = self.epochs.get_mut(&share.epoch) {
            *count -= 1;
            if *count == 0 {
                self.epochs.remove(&share.epoch);
            }
        }
        for partition in &share.partitions {
            let holders = &mut self.holders[*partition as usize];
            *holders -= 1;
            match *holders {
                0 => self.wrong += 1,
                1 => self.wrong -= 1,
                _ => {}
            }
        }
    }

    /// Everybody is there, in one generation, each partition is held once, and no share is larger than another by more
    /// than one.
    fn is_stable(&self) -> bool {
        let adds_up = self.wrong == 0 && self.shares.len() == self.expected && self.epochs.len() == 1;
        let sizes = || self.shares.values().map(|share| share.partitions.len());
        adds_up && !self.epochs.contains_key(&-1) && sizes().max().unwrap_or(0) - sizes().min().unwrap_or(0) <= 1
    }
}

impl Board {
    pub fn new(partitions: i32) -> Board {
        let count = partitions as usize;
        let state = State { holders: vec![0; count], wrong: count, ..State::default() };
        Board { state: RefCell::new(state), changed: Notify::new() }
    }

    /// From now on the group is stable when it has so many members.
    pub fn expect(&self, members: usize) {
        let mut state = self.state.borrow_mut();
        (state.expected, state.stable_at) = (members, None);
    }

    /// A member is in this epoch and holds these partitions.
    pub fn hold(&self, member: usize, epoch: i32, partitions: Vec<i32>) {
        let share = Share { epoch, partitions };
        let mut state = self.state.borrow_mut();
        if state.shares.get(&member) == Some(&share) {
            return;
        }
        if let Some(before) = state.shares.remove(&member) {
            state.take(&before);
        }
        state.add(&share);
        state.shares.insert(member, share);
        self.after_change(&mut state);
    }

    /// A member has left.
    pub fn leave(&self, member: usize) {
        let mut state = self.state.borrow_mut();
        if let Some(before) = state.shares.remove(&member) {
            state.take(&before);
            self.after_change(&mut state);
        }
    }

    fn after_change(&self, state: &mut State) {
        state.changes += 1;
        state.stable_at = state.is_stable().then(Instant::now);
        if state.stable_at.is_some() {
            self.changed.notify_one();
        }
    }

    /// A member cannot go on: the measurement is void.
    pub fn fail(&self, member: usize, error: &io::Error) {
        self.state.borrow_mut().failed.get_or_insert_with(|| format!("member {member}: {error}"));
        self.changed.notify_one();
    }

    /// Waits until the group is stable; when it became so.
    pub async fn stable(&self) -> io::Result<Instant> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            {
                let state = self.state.borrow();
                if let Some(reason) = &state.failed {
                    return Err(io::Error::other(reason.clone()));
                }
                if let Some(at) = state.stable_at {
                    return Ok(at);
                }
            }
            if tokio::time::timeout_at(deadline, self.changed.notified()).await.is_err() {
                return Err(io::Error::other(format!("not stable after {PATIENCE:?}: {}", self.describe())));
            }
        }
    }

    fn describe(&self) -> String {
        let state = self.state.borrow();
        let epochs: Vec<_> = state.epochs.iter().map(|(epoch, count)| format!("{count} in {epoch}")).collect();
        format!(
            "{} of {} members ({}), {} partitions not held once",
            state.shares.len(),
            state.expected,
            epochs.join(", "),
            state.wrong
        )
    }

    pub fn is_deserted(&self) -> bool {
        self.state.borrow().shares.is_empty()
    }

    pub fn changes(&self) -> u64 {
        self.state.borrow().changes
    }

    /// Begins to count heartbeats anew, or ends it: what was counted until now.
    pub fn count_heartbeats(&self, on: bool) -> Latencies {
        std::mem::replace(&mut self.state.borrow_mut().heartbeats, on.then(Latencies::default)).unwrap_or_default()
    }

    pub fn heartbeat_took(&self, time: Duration) {
        if let Some(heartbeats) = &mut self.state.borrow_mut().heartbeats {
            heartbeats.add(time);
        }
    }
}
