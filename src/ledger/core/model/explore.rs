//! Breadth-first through every state.
//!
//! A few dozen lines of our own instead of a model checker's crate: that brings an HTTP server and a runtime for actors into
//! the tree, and wants the system written as its own actors; here the cores are called as they are.
//!
//! A state is known by a digest of 64 bits: with a million states two share one by chance with a probability of 3e-8, and
//! then the second is left out, never taken for a violation.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hash, Hasher};

use super::World;
use super::steps::Step;

/// A fast hash of many small values: each word is folded in by a full multiplication.
#[derive(Clone, Copy)]
pub struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Digest(0x9e37_79b9_7f4a_7c15)
    }
}

impl Hasher for Digest {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word) ^ ((chunk.len() as u64) << 56));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(u64::from(value));
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }

    fn write_u64(&mut self, value: u64) {
        let product = u128::from(self.0 ^ value ^ 0xa076_1d64_78bd_642f) * 0xe703_7ed1_a0b4_28db_u128;
        self.0 = ((product as u64) ^ (product >> 64) as u64).wrapping_add(value.rotate_left(29));
    }

    fn finish(&self) -> u64 {
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

fn digest(world: &World) -> u64 {
    let mut hasher = Digest::default();
    world.hash(&mut hasher);
    hasher.finish()
}

/// The digest of a state is its own hash.
type States = HashMap<u64, Visit, BuildHasherDefault<Digest>>;

/// How a state was reached first.
#[derive(Clone, Copy)]
struct Visit {
    parent: u64,
    /// Place of the step among those of the parent.
    step: u16,
}

/// Something that some history must reach, or the exploration would show nothing.
pub type Goal = (&'static str, fn(&World) -> bool);

pub struct Report {
    pub states: usize,
    pub steps: usize,
    /// Of the longest of the shortest histories.
    pub depth: usize,
    /// Nothing was left to explore.
    pub complete: bool,
    /// How many states are one.
    pub goals: Vec<(&'static str, usize)>,
    pub violation: Option<(String, Vec<Step>)>,
}

/// Explores everything that `start` can become, up to `states_max`, or until an invariant does not hold.
pub fn explore(start: &World, states_max: usize, goals: &[Goal]) -> Report {
    let mut report = Report {
        states: 1,
        steps: 0,
        depth: 0,
        complete: true,
        goals: goals.iter().map(|(name, _)| (*name, 0)).collect(),
        violation: None,
    };
    let first = digest(start);
    let mut known = States::default();
    known.insert(first, Visit { parent: first, step: 0 });
    let mut open = VecDeque::from([(start.clone(), first, 0)]);
    while let Some((world, id, depth)) = open.pop_front() {
        report.depth = depth;
        for (index, step) in world.steps().iter().enumerate() {
            report.steps += 1;
            let next = world.take(step);
            let next_id = digest(&next);
            if known.contains_key(&next_id) {
                continue;
            }
            known.insert(next_id, Visit { parent: id, step: index as u16 });
            report.states += 1;
            for ((_, count), (_, is_reached)) in report.goals.iter_mut().zip(goals) {
                *count += usize::from(is_reached(&next));
            }
            if let Some(what) = next.violation() {
                report.violation = Some((what, history(start, &known, next_id)));
                return report;
            }
            if report.states >= states_max {
                report.complete = false;
                return report;
            }
            open.push_back((next, next_id, depth + 1));
        }
    }
    report
}

/// The steps from the start to a state.
fn history(start: &World, known: &States, mut id: u64) -> Vec<Step> {
    let mut places = Vec::new();
    while let Some(visit) = known.get(&id).filter(|visit| visit.parent != id) {
        places.push(visit.step);
        id = visit.parent;
    }
    let mut world = start.clone();
    let mut steps = Vec::new();
    for place in places.iter().rev() {
        let Some(step) = world.steps().into_iter().nth(usize::from(*place)) else { break };
        world = world.take(&step);
        steps.push(step);
    }
    steps
}

/// Explores everything and answers a state from which no history reaches `goal`, if there is one.
pub fn stuck(start: &World, goal: fn(&World) -> bool) -> (usize, Option<Vec<Step>>) {
    let mut known: HashMap<u64, usize, BuildHasherDefault<Digest>> = HashMap::default();
    let mut visits = States::default();
    let mut ids = Vec::new();
    let mut parents: Vec<Vec<usize>> = vec![Vec::new()];
    let mut reaches = Vec::new();
    let first = digest(start);
    known.insert(first, 0);
    visits.insert(first, Visit { parent: first, step: 0 });
    ids.push(first);
    reaches.push(goal(start));
    let mut open = VecDeque::from([(start.clone(), 0)]);
    while let Some((world, number)) = open.pop_front() {
        for (index, step) in world.steps().iter().enumerate() {
            let next = world.take(step);
            let id = digest(&next);
            let place = *known.entry(id).or_insert(ids.len());
            if place == ids.len() {
                visits.insert(id, Visit { parent: ids[number], step: index as u16 });
                ids.push(id);
                parents.push(Vec::new());
                reaches.push(goal(&next));
                open.push_back((next, place));
            }
            parents[place].push(number);
        }
    }
    let mut back: Vec<usize> = (0..ids.len()).filter(|place| reaches[*place]).collect();
    while let Some(place) = back.pop() {
        for parent in parents[place].clone() {
            if !std::mem::replace(&mut reaches[parent], true) {
                back.push(parent);
            }
        }
    }
    let lost = reaches.iter().position(|reaches| !reaches);
    (ids.len(), lost.map(|place| history(start, &visits, ids[place])))
}
