//! What the quorum's leader decides about brokers, ledgers and leaders. Pure: time, image and measurements go in, actions
//! come out.
//!
//! A broker whose lease has run out is fenced. Every open ledger whose writer is fenced or superseded is recovered. When
//! each ledger of a fenced broker's node has an end its partitions go to live brokers; if the node has registered again by
//! then they stay with it. Recovered ledgers whose uploader is gone get another one. Partitions leave nodes that are being
//! drained, and now and then those that are much busier than others (`balance`).
//!
//! Invariants: no action of one step is refused by the metadata as they were given, alone or after the others; nothing is
//! decided from what this node merely remembers of former leaders.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::base::{BrokerEpoch, LedgerId, NodeId, PartitionId};
use crate::broker::Load;
use crate::metadata::{Assignment, Command, Image, Ledger, Partition, TargetChange};

use super::balance;
use super::spread::{Spread, missing};

/// Ledgers that are recovered at the same time.
pub const RECOVERIES_MAX: usize = 16;
/// Partitions in one command.
pub const PARTITIONS_PER_COMMAND: usize = 1_000;
/// Partitions that are on their way from one live broker to another at the same time.
pub const MOVES_MAX: usize = 50;
/// Uploaders named in one step.
const UPLOADERS_MAX: usize = 64;
/// How often load is looked at, and so how long the last moves have to show what they did.
pub const BALANCE_EVERY: Duration = Duration::from_secs(60);
/// Wait before a recovery that failed is tried again; doubled from one to the next.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LAST: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Propose(Command),
    /// Find and set the end of this ledger; what came of it is told by [`Controller::recovered`].
    Recover(LedgerId),
}

/// A recovery that is under way, or waits to be tried again.
#[derive(Debug)]
struct Recovering {
    failures: u32,
    /// `None` while it runs.
    again: Option<Duration>,
}

/// What one step sees.
pub struct View<'a> {
    /// CLOCK_BOOTTIME.
    pub now: Duration,
    pub image: &'a Image,
    /// Brokers whose lease has run out.
    pub overdue: &'a [(NodeId, BrokerEpoch)],
    pub loads: &'a BTreeMap<NodeId, Load>,
}

impl View<'_> {
    /// Brokers that may be given something: not fenced, and not about to be.
    fn live(&self) -> BTreeSet<NodeId> {
        let brokers = self.image.brokers.iter().filter(|(_, broker)| !broker.fenced).map(|(node, _)| *node);
        brokers.filter(|node| !self.overdue.iter().any(|(other, _)| other == node)).collect()
    }
}

/// See the module's documentation. One for each time that this node leads.
#[derive(Debug)]
pub struct Controller {
    recoveries: BTreeMap<LedgerId, Recovering>,
    balance_at: Duration,
}

impl Controller {
    /// This node leads from `now` on.
    pub fn new(now: Duration) -> Controller {
        Controller { recoveries: BTreeMap::new(), balance_at: now + BALANCE_EVERY }
    }

    /// When something may have to be done though nothing has changed.
    pub fn wakes_at(&self) -> Duration {
        let again = self.recoveries.values().filter_map(|recovering| recovering.again);
        again.chain([self.balance_at]).min().unwrap_or(self.balance_at)
    }

    /// Ledgers whose recovery runs.
    pub fn recovering(&self) -> usize {
        self.recoveries.values().filter(|recovering| recovering.again.is_none()).count()
    }

    /// A recovery has ended. After a success the image shows the end; otherwise it is tried again if the image still lacks it.
    pub fn recovered(&mut self, now: Duration, ledger: LedgerId, succeeded: bool) {
        if succeeded {
            self.recoveries.remove(&ledger);
        } else if let Some(recovering) = self.recoveries.get_mut(&ledger) {
            let wait = RETRY_FIRST.saturating_mul(1 << recovering.failures.min(8)).min(RETRY_LAST);
            recovering.failures += 1;
            recovering.again = Some(now + wait);
        }
    }

    pub fn step(&mut self, view: &View<'_>) -> Vec<Action> {
        let mut actions: Vec<Action> = view
            .overdue
            .iter()
            .map(|(node, epoch)| propose(Command::FenceBroker { node: *node, epoch: *epoch }))
            .collect();
        self.recover(view, &mut actions);
        let live = view.live();
        let mut spread = Spread::new(view.image, view.loads);
        let failed_over = assign(view, &live, &mut spread, &mut actions);
        name_uploaders(view.image, &live, &mut actions);
        let drained = drain(view.image, &live, &mut spread, &mut actions);
        if view.now >= self.balance_at {
            self.balance_at = view.now + BALANCE_EVERY;
            // Not while the load is that of an emergency, or about to change anyway.
            if view.overdue.is_empty() && !failed_over && !drained {
                let changes = balance::plan(view.image, &live, view.loads);
                actions.extend((!changes.is_empty()).then(|| propose(Command::SetTargets { changes })));
            }
        }
        actions
    }

    fn recover(&mut self, view: &View<'_>, actions: &mut Vec<Action>) {
        let image = view.image;
        let is_due = |ledger: &Ledger| ledger.end.is_none() && image.is_writer_fenced(ledger);
        self.recoveries
            .retain(|id, recovering| recovering.again.is_none() || image.ledgers.get(id).is_some_and(is_due));
        let mut free = RECOVERIES_MAX.saturating_sub(self.recovering());
        for (id, _) in image.ledgers.iter().filter(|(_, ledger)| is_due(ledger)) {
            if free == 0 {
                return;
            }
            let recovering = self.recoveries.entry(*id).or_insert(Recovering { failures: 0, again: Some(view.now) });
            if recovering.again.is_some_and(|again| again <= view.now) {
                recovering.again = None;
                actions.push(Action::Recover(*id));
                free -= 1;
            }
        }
    }
}

fn propose(command: Command) -> Action {
    Action::Propose(command)
}

pub(super) fn partitions(image: &Image) -> impl Iterator<Item = (PartitionId, &Partition)> {
    image.topics.values().flat_map(|topic| {
        let of_topic = (0..).zip(&topic.partitions);
        of_topic.map(|(index, partition)| (PartitionId { topic: topic.id, index }, &**partition))
    })
}

/// Gives the partitions of fenced brokers, whose ledgers have ends, to others. Answers whether there is a fenced broker that
/// leads anything.
fn assign(view: &View<'_>, live: &BTreeSet<NodeId>, spread: &mut Spread, actions: &mut Vec<Action>) -> bool {
    let image = view.image;
    let fenced: BTreeSet<NodeId> = image.brokers.iter().filter(|(_, b)| b.fenced).map(|(node, _)| *node).collect();
    if fenced.is_empty() {
        return false;
    }
    let mut left = false;
    let mut changes: BTreeMap<NodeId, Vec<Assignment>> = BTreeMap::new();
    let mut candidates: BTreeMap<NodeId, Vec<NodeId>> = BTreeMap::new();
    for (id, partition) in partitions(image).filter(|(_, partition)| fenced.contains(&partition.leader)) {
        left = true;
        let dead = partition.leader;
        let to = candidates.entry(dead).or_insert_with(|| successors(image, live, dead));
        let wished = [partition.target, Some(partition.preferred)].into_iter().flatten().find(|node| to.contains(node));
        let Some(leader) = wished.or_else(|| spread.least(to)) else { continue };
        spread.lead(leader);
        let leader_epoch = partition.leader_epoch;
        changes.entry(dead).or_default().push(Assignment { partition: id, leader_epoch, leader });
    }
    for of_node in changes.into_values() {
        for part in of_node.chunks(PARTITIONS_PER_COMMAND) {
            actions.push(propose(Command::AssignPartitions { changes: part.to_vec() }));
        }
    }
    left
}

/// Who may take over from a fenced broker: nobody as long as one of its ledgers has no end; then those that have most of what
/// it wrote and is not uploaded. Nodes that are being drained only if there are no others.
fn successors(image: &Image, live: &BTreeSet<NodeId>, dead: NodeId) -> Vec<NodeId> {
    let ledgers: Vec<&Ledger> = image.ledgers.values().filter(|ledger| ledger.node == dead).collect();
    if ledgers.iter().any(|ledger| ledger.end.is_none()) {
        return Vec::new();
    }
    best(image, live.iter().copied(), &ledgers)
}

/// Those of `nodes` that stay and lack least of `ledgers`; those that are being drained only if no other is there.
fn best(image: &Image, nodes: impl Iterator<Item = NodeId>, ledgers: &[&Ledger]) -> Vec<NodeId> {
    let rank = |node: NodeId| (image.is_draining(node), missing(image, node, ledgers));
    let ranked: Vec<_> = nodes.map(|node| (rank(node), node)).collect();
    let Some(least) = ranked.iter().map(|(rank, _)| *rank).min() else { return Vec::new() };
    ranked.into_iter().filter(|(rank, _)| *rank == least).map(|(_, node)| node).collect()
}

/// Another uploader for each closed ledger whose uploader is fenced, if somebody has something of it.
fn name_uploaders(image: &Image, live: &BTreeSet<NodeId>, actions: &mut Vec<Action>) {
    let is_gone = |node: NodeId| image.brokers.get(&node).is_none_or(|broker| broker.fenced);
    let orphaned = image
        .ledgers
        .iter()
        .filter(|(_, ledger)| ledger.end.is_some() && !ledger.is_finished() && is_gone(ledger.uploader()));
    for (id, ledger) in orphaned.take(UPLOADERS_MAX) {
        let has_some = live.iter().copied().filter(|node| missing(image, *node, &[ledger]) < super::spread::NOTHING);
        let Some(node) = best(image, has_some, &[ledger]).first().copied() else { continue };
        if let Some(broker) = image.brokers.get(&node) {
            actions.push(propose(Command::NameUploader { ledger: *id, node, epoch: broker.epoch }));
        }
    }
}

/// Moves partitions away from live nodes that are being drained, and calls off moves to such. Answers whether anything is left
/// to move.
fn drain(image: &Image, live: &BTreeSet<NodeId>, spread: &mut Spread, actions: &mut Vec<Action>) -> bool {
    if !image.nodes.values().any(|node| node.draining) {
        return false;
    }
    let takes = |node: &NodeId| live.contains(node) && !image.is_draining(*node);
    let mut under_way = partitions(image).filter(|(_, p)| p.target.is_some_and(|target| takes(&target))).count();
    let mut changes = Vec::new();
    let mut left = false;
    let mut candidates: BTreeMap<NodeId, Vec<NodeId>> = BTreeMap::new();
    for (partition, p) in partitions(image) {
        let moves = p.target.is_some_and(|target| takes(&target));
        if !image.is_draining(p.leader) || !live.contains(&p.leader) {
            if p.target.is_some_and(|target| image.is_draining(target)) {
                changes.push(TargetChange { partition, target: None, preferred: None });
            }
            continue;
        }
        left = true;
        if moves || under_way >= MOVES_MAX {
            continue;
        }
        let to = candidates.entry(p.leader).or_insert_with(|| takers(image, live, p.leader));
        let Some(target) = spread.least(to) else { continue };
        spread.lead(target);
        under_way += 1;
        changes.push(TargetChange { partition, target: Some(target), preferred: Some(target) });
    }
    changes.truncate(PARTITIONS_PER_COMMAND);
    actions.extend((!changes.is_empty()).then(|| propose(Command::SetTargets { changes })));
    left
}

/// Who may take a partition from a live leader: best those that have its open ledger, for they have the tail at once.
pub(super) fn takers(image: &Image, live: &BTreeSet<NodeId>, leader: NodeId) -> Vec<NodeId> {
    let open: Vec<&Ledger> =
        image.ledgers.values().filter(|ledger| ledger.node == leader && !ledger.is_finished()).collect();
    let others = live.iter().copied().filter(|node| *node != leader && !image.is_draining(*node));
    best(image, others, &open)
}
