//! What the quorum promises, and the first promise that was broken.
//!
//! The log as the first node applied it, and what its commands answer by the pure function alone, are what every node
//! is compared with, and every answer.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::base::checksum::crc32c;
use crate::kv::hard_state::Vote;
use crate::kv::raft_log::{self, LogEntry, Payload};
use crate::metadata::{Command, Image, MemoryIndex, Response, apply};
use crate::quorum::election::LEADER_LEASE;
use crate::quorum::{ProposeError, group};

/// The number of a command among all that were carried out, from 1 on; 0 is before the first.
pub type Place = u64;

/// One command of a client.
struct Proposed {
    place: Option<Place>,
    /// Everything up to there was answered before it was proposed.
    after: Place,
    /// The proposer was told that nothing was changed.
    refused: bool,
    acknowledged: bool,
}

thread_local! {
    /// The first promise that was broken, for whoever finds that the run ended in a panic then.
    pub static BROKEN: RefCell<Option<String>> = const { RefCell::new(None) };
}

#[derive(Default)]
pub struct Oracle {
    pub broken: Option<String>,
    /// The entries that some node has applied, by index.
    log: Vec<LogEntry>,
    /// After so many commands.
    images: Vec<Arc<Image>>,
    /// Of the command at that place less one.
    responses: Vec<Response>,
    index: MemoryIndex,
    proposed: Vec<Proposed>,
    numbers: BTreeMap<Vec<u8>, usize>,
    /// By term, leader and index: a checksum of the entry that this names.
    entries: BTreeMap<(u64, u64, u64), u32>,
    /// By voter: the highest vote that it has given to another.
    granted: BTreeMap<u64, (u64, u64)>,
    /// Voters whose folder is lost.
    lost: BTreeSet<u64>,
    /// Who was elected, and when that was on its disk.
    elected: BTreeMap<(u64, u64), Duration>,
    /// Who was confirmed as the leader, and from when on nobody else may be elected for a while.
    confirmed: Vec<(u64, Duration)>,
    /// The highest place that anybody has had an answer for.
    pub answered: Place,
    pub acks: u64,
    pub unknown: u64,
    pub refused: u64,
    pub barriers: u64,
    pub confirmations: u64,
    pub snapshots: u64,
    /// Questions for voters whose folder is lost, refused by who is there instead.
    pub refusals: u64,
    /// Elections in a term that had a leader before.
    pub second_leaders: u64,
}

impl Oracle {
    pub fn new() -> Oracle {
        Oracle { images: vec![Arc::default()], ..Oracle::default() }
    }

    pub fn fail(&mut self, what: String) {
        if self.broken.is_none() {
            BROKEN.set(Some(what.clone()));
        }
        self.broken.get_or_insert(what);
    }

    pub fn newest(&self) -> &Arc<Image> {
        &self.images[self.images.len() - 1]
    }

    pub fn elections(&self) -> u64 {
        self.elected.len() as u64
    }

    pub fn log_len(&self) -> u64 {
        self.log.len() as u64
    }

    /// A client proposes a command, which nobody else does.
    pub fn proposes(&mut self, command: &Command) -> usize {
        let number = self.proposed.len();
        self.proposed.push(Proposed { place: None, after: self.answered, refused: false, acknowledged: false });
        let bytes = command.encode().to_vec();
        assert!(self.numbers.insert(bytes, number).is_none(), "no two commands are the same: {command:?}");
        number
    }

    pub fn told(&mut self, number: usize, image: Place, told: Result<Response, ProposeError>) {
        let proposed = &mut self.proposed[number];
        match told {
            Ok(response) => {
                self.acks += 1;
                proposed.acknowledged = true;
                let Some(place) = proposed.place else {
                    return self.fail(format!("command {number} was acknowledged, and nobody had applied it"));
                };
                let after = proposed.after;
                self.answered = self.answered.max(place);
                let carried_out = &self.responses[place as usize - 1];
                if *carried_out != response {
                    let carried_out = carried_out.clone();
                    self.fail(format!(
                        "command {number} at {place} came to {carried_out:?}, and was told {response:?}"
                    ));
                }
                if place <= after {
                    self.fail(format!("command {number} stands at {place}, and {after} was answered before it"));
                }
                if matches!(response, Response::Rejected(_)) {
                    self.fail(format!("command {number} was rejected, and shows nothing: {response:?}"));
                }
                if image < place {
                    self.fail(format!("command {number} at {place} was answered with an image after {image}"));
                }
            }
            Err(ProposeError::NotLeader { .. } | ProposeError::Refused(_) | ProposeError::TooLarge { .. }) => {
                self.refused += 1;
                proposed.refused = true;
                self.check_refused(number);
            }
            Err(ProposeError::Unknown(_) | ProposeError::Stopped(_)) => self.unknown += 1,
        }
    }

    /// The client has not waited, or its node is gone.
    pub fn gave_up(&mut self) {
        self.unknown += 1;
    }

    fn check_refused(&mut self, number: usize) {
        let proposed = &self.proposed[number];
        if let Some(place) = proposed.place.filter(|_| proposed.refused) {
            self.fail(format!("command {number} was refused, and carried out at {place}"));
        }
    }

    /// A barrier that began when everything up to `floor` was answered.
    pub fn barrier(&mut self, node: i32, floor: Place, image: &Image) {
        self.barriers += 1;
        if image.applied < floor {
            self.fail(format!("a barrier at node {node} shows {} commands; {floor} were answered", image.applied));
        }
        self.answered = self.answered.max(image.applied);
        self.shows(node, image);
    }

    /// A node shows an image.
    pub fn shows(&mut self, node: i32, image: &Image) {
        match self.images.get(image.applied as usize) {
            Some(expected) if **expected == *image => {}
            Some(_) => self.fail(format!("node {node}: another image after {} commands", image.applied)),
            None => self.fail(format!("node {node}: {} commands, of which nobody knows", image.applied)),
        }
    }

    /// A node has applied everything up to `index`; with the entry there, if its log has it.
    pub fn applied(&mut self, node: i32, index: u64, entry: Option<&LogEntry>) {
        if let Some(known) = self.log.get(index as usize) {
            if let Some(entry) = entry.filter(|entry| *entry != known) {
                let text = format!("node {node} applied {entry:?} where {known:?} was applied before");
                self.fail(text);
            }
            return;
        }
        let Some(entry) = entry.filter(|_| index == self.log.len() as u64) else {
            let len = self.log.len();
            return self.fail(format!("node {node} applied entry {index} of a log of which {len} are known"));
        };
        self.log.push(entry.clone());
        let Payload::Command(commands) = &entry.payload else { return };
        for command in group::decode(commands).unwrap() {
            let mut image = Image::clone(self.newest());
            let (response, ops) = apply(&mut image, &Command::decode(command).unwrap(), &self.index);
            self.index.apply(&ops);
            self.images.push(Arc::new(image));
            self.responses.push(response);
            self.placed(command);
        }
    }

    fn placed(&mut self, command: &[u8]) {
        let place = self.responses.len() as Place;
        let Some(number) = self.numbers.get(command).copied() else { return };
        if let Some(before) = self.proposed[number].place.replace(place) {
            self.fail(format!("command {number} stands in the log at {before} and at {place}"));
        }
        self.check_refused(number);
    }

    /// An entry is on the disk of a voter.
    pub fn stored(&mut self, node: i32, entry: &LogEntry) {
        let at = entry.position;
        let sum = crc32c(&raft_log::encode(entry));
        let known = *self.entries.entry((at.term, at.node, at.index)).or_insert(sum);
        if known != sum {
            self.fail(format!("node {node} stores another entry at {at:?} than was stored before"));
        }
    }

    /// `voter`, a name that stands for node and folder, has answered that it votes for `vote`.
    pub fn grants(&mut self, voter: u64, vote: (u64, u64)) {
        if self.lost.contains(&voter) {
            self.fail(format!("voter {voter:x} votes, and its folder is lost"));
        }
        let before = self.granted.entry(voter).or_default();
        if vote < *before {
            let before = *before;
            return self.fail(format!("voter {voter:x} voted for {before:?} and then for {vote:?}"));
        }
        *before = vote;
    }

    /// `voter` has answered, and not with a refusal.
    pub fn answers(&mut self, voter: u64) {
        if self.lost.contains(&voter) {
            self.fail(format!("voter {voter:x} answers, and its folder is lost"));
        }
    }

    /// A question for `voter` was refused.
    pub fn refuses(&mut self, voter: u64) {
        self.refusals += u64::from(self.lost.contains(&voter));
    }

    /// A folder is opened again, with this vote in it.
    pub fn remembers(&mut self, voter: u64, vote: Option<Vote>) {
        let given = self.granted.get(&voter).copied().unwrap_or_default();
        let found = vote.map_or((0, 0), |vote| (vote.term, vote.node));
        if found < given {
            self.fail(format!("voter {voter:x} voted for {given:?}, and remembers {found:?}"));
        }
    }

    pub fn loses(&mut self, voter: u64) {
        self.lost.insert(voter);
    }

    /// A vote for itself is on a voter's disk; one that is committed makes it the leader.
    pub fn elects(&mut self, vote: &Vote, now: Duration) {
        let voter = vote.node;
        if !vote.committed || self.elected.contains_key(&(vote.term, vote.node)) {
            return;
        }
        self.second_leaders += u64::from(self.elected.keys().any(|(term, _)| *term == vote.term));
        self.elected.insert((vote.term, vote.node), now);
        let held = |(who, since): &&(u64, Duration)| *who != voter && (*since..*since + LEADER_LEASE).contains(&now);
        if let Some((leader, since)) = self.confirmed.iter().find(held).copied() {
            self.fail(format!("{voter:x} was elected at {now:?}; {leader:x} was confirmed at {since:?}"));
        }
    }

    /// `leader` asked at `since` whether it leads, and was told that it does.
    pub fn confirms(&mut self, leader: u64, since: Duration) {
        self.confirmations += 1;
        self.confirmed.push((leader, since));
        let held = since..since + LEADER_LEASE;
        let other = self.elected.iter().find(|((_, who), at)| *who != leader && held.contains(*at));
        if let Some(((term, who), at)) = other {
            let text = format!("{leader:x} was confirmed at {since:?}, and {who:x} elected in term {term} at {at:?}");
            self.fail(text);
        }
    }

    /// All is over, and every command's fate is decided.
    pub fn judge(&mut self) {
        let lost = self.proposed.iter().position(|proposed| proposed.acknowledged && proposed.place.is_none());
        if let Some(number) = lost {
            self.fail(format!("command {number} was acknowledged and is not in the log"));
        }
    }

    /// Nodes that say at the same time that they lead, and that nobody else can have been elected.
    pub fn leaders(&mut self, sure: &[i32], now: Duration) {
        if sure.len() > 1 {
            self.fail(format!("at {now:?} these are sure that they lead: {sure:?}"));
        }
    }
}
