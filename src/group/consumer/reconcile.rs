//! How one member gets from what it holds to what it shall hold (KIP-848): give up first, then take what is free.
//!
//! A pure function of its input. Invariant: a partition is given to a member only if nobody holds it, or if the member
//! itself is about to give it up.

use std::collections::BTreeSet;

use crate::base::TopicId;
use crate::group::consumer::member::{Member, MemberState, topics_of};
use crate::group::consumer::partitions::{Assigned, Partitions};
use crate::group::request::TopicPartitions;
use crate::group::{GroupError, Refusal};

/// What a member is reconciled with.
pub struct Goal<'a> {
    /// The epoch of the target assignment.
    pub epoch: i32,
    pub target: &'a Partitions,
    /// The topics that the member is subscribed to now: of any other it gets and keeps nothing.
    pub subscribed: &'a BTreeSet<TopicId>,
    /// Whether anybody holds a partition.
    pub is_held: &'a dyn Fn(TopicId, i32) -> bool,
    /// What the member says it owns; None: it did not say.
    pub owned: Option<&'a [TopicPartitions]>,
    pub subscription_changed: bool,
}

/// The member's next state; the same one if it can go no further.
pub fn reconcile(member: &Member, goal: &Goal<'_>) -> Result<Member, Refusal> {
    if !goal.subscription_changed && member.is_reconciled_to(goal.epoch) {
        return Ok(member.clone());
    }
    match member.state {
        MemberState::Stable if member.epoch != goal.epoch => Ok(next(member, member.epoch, goal)),
        MemberState::Stable => Ok(unsubscribe(member, goal)),
        MemberState::UnrevokedPartitions if owns_any(goal, &member.revoking) => {
            Ok(if goal.subscription_changed { unsubscribe(member, goal) } else { member.clone() })
        }
        MemberState::UnrevokedPartitions | MemberState::UnreleasedPartitions => Ok(next(member, member.epoch, goal)),
        // Written by a later release: the member starts from nothing.
        MemberState::Unknown if goal.owned.is_some_and(<[_]>::is_empty) => Ok(next(member, goal.epoch, goal)),
        MemberState::Unknown => Err(Refusal::new(
            GroupError::FencedMemberEpoch,
            "The state of the member is unknown; it must give up its partitions and join again.",
        )),
    }
}

/// Whether the member may still own any of these. One that does not say what it owns may own them all.
fn owns_any(goal: &Goal<'_>, partitions: &Assigned) -> bool {
    let Some(owned) = goal.owned else { return true };
    owned.iter().any(|list| list.partitions.iter().any(|partition| partitions.holds(list.topic, *partition)))
}

/// Takes away the topics that the member is no longer subscribed to, and nothing else.
fn unsubscribe(member: &Member, goal: &Goal<'_>) -> Member {
    let (mut assigned, mut revoking) = (Assigned::new(), member.revoking.clone());
    for (topic, set) in member.assigned.iter() {
        if goal.subscribed.contains(&topic) {
            assigned.insert(topic, set.clone());
        } else {
            revoking.merge(topic, set.iter().copied());
        }
    }
    if assigned == member.assigned {
        return member.clone();
    }
    let mut out = member.clone();
    out.advance(member.epoch);
    out.assigned = assigned;
    if owns_any(goal, &revoking) {
        out.state = MemberState::UnrevokedPartitions;
        out.revoking = revoking;
    }
    out
}

/// The step towards the target; `epoch` is the member's as long as it has something to give up.
fn next(member: &Member, epoch: i32, goal: &Goal<'_>) -> Member {
    let (mut assigned, mut revoking, mut pending) = (Assigned::new(), Assigned::new(), Partitions::new());
    let mut unreleased = false;
    for topic in topics_of(goal.target, &member.assigned) {
        let target = goal.target.get(topic).filter(|_| goal.subscribed.contains(&topic)).map_or(&[][..], |set| set);
        let current = member.assigned.get(topic).map_or(&[][..], |set| set);
        let (keep, give_up): (Vec<_>, Vec<_>) =
            current.iter().copied().partition(|(p, _)| target.binary_search(p).is_ok());
        let mut free = vec![];
        for partition in target {
            if current.binary_search_by_key(partition, |(p, _)| *p).is_ok() {
                continue;
            }
            if (goal.is_held)(topic, *partition) && !member.revoking.holds(topic, *partition) {
                unreleased = true;
            } else {
                free.push(*partition);
            }
        }
        assigned.merge(topic, keep);
        revoking.merge(topic, give_up);
        if !free.is_empty() {
            pending.insert(topic, free);
        }
    }
    let mut out = member.clone();
    if !revoking.is_empty() && owns_any(goal, &revoking) {
        out.advance(epoch);
        out.state = MemberState::UnrevokedPartitions;
        (out.assigned, out.revoking) = (assigned, revoking);
        return out;
    }
    for (topic, partitions) in pending.iter() {
        assigned.merge(topic, partitions.iter().map(|partition| (*partition, goal.epoch)));
    }
    out.advance(goal.epoch);
    out.state = if unreleased { MemberState::UnreleasedPartitions } else { MemberState::Stable };
    (out.assigned, out.revoking) = (assigned, Assigned::new());
    out
}
