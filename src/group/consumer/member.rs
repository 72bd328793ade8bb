//! One member of a consumer group: what it said about itself, and what it holds.
//!
//! Both parts are records of their own (key versions 5 and 8) and are only ever replaced whole.

use crate::group::consumer::embedded;
use crate::group::consumer::partitions::{Assigned, Partitions, TopicMap};
use crate::group::records::{
    ClassicMemberMetadata, ConsumerMemberAssignmentValue, ConsumerMemberValue, EpochPartitions, Record,
};
use crate::group::request::TopicPartitions;

/// The epoch by which a member joins or joins again.
pub const JOIN_EPOCH: i32 = 0;
/// The epoch by which a member leaves.
pub const LEAVE_EPOCH: i32 = -1;
/// The epoch by which a static member leaves that will come back (KIP-848); its slot keeps it meanwhile.
pub const LEAVE_STATIC_EPOCH: i32 = -2;

/// How far a member is on its way to its target (KIP-848).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MemberState {
    /// It holds what its epoch gives it.
    #[default]
    Stable,
    /// It has to give partitions up, and stays in its epoch until it has.
    UnrevokedPartitions,
    /// It waits for partitions that others still hold.
    UnreleasedPartitions,
    /// A state of a later release.
    Unknown,
}

impl MemberState {
    pub fn code(self) -> i8 {
        match self {
            MemberState::Stable => 0,
            MemberState::UnrevokedPartitions => 1,
            MemberState::UnreleasedPartitions => 2,
            MemberState::Unknown => 127,
        }
    }

    pub fn from_code(code: i8) -> Self {
        match code {
            0 => MemberState::Stable,
            1 => MemberState::UnrevokedPartitions,
            2 => MemberState::UnreleasedPartitions,
            _ => MemberState::Unknown,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub id: String,
    /// Topic names in it ascend and occur once.
    pub metadata: ConsumerMemberValue,
    pub epoch: i32,
    /// The epoch before the last bump: a member that missed the answer still comes with it.
    pub previous_epoch: i32,
    pub state: MemberState,
    pub assigned: Assigned,
    /// Held still, to be given up.
    pub revoking: Assigned,
}

impl Member {
    /// A member that has said nothing yet.
    pub fn new(id: impl Into<String>) -> Self {
        Member {
            id: id.into(),
            metadata: ConsumerMemberValue {
                subscribed_regex: Some(String::new()),
                rebalance_timeout_ms: -1,
                ..ConsumerMemberValue::default()
            },
            epoch: JOIN_EPOCH,
            previous_epoch: -1,
            state: MemberState::Stable,
            assigned: Assigned::new(),
            revoking: Assigned::new(),
        }
    }

    /// This member under another id: a static member that came back.
    pub fn successor(&self, id: &str) -> Self {
        Member { id: id.into(), epoch: JOIN_EPOCH, previous_epoch: 0, ..self.clone() }
    }

    /// A static member goes and will come back: what it holds waits for its successor, which gets it from epoch 0 on.
    pub fn leave_for_now(&mut self) {
        self.epoch = LEAVE_STATIC_EPOCH;
        self.assigned = Assigned::at_epoch(&self.assigned.partitions(), 0);
        self.revoking = Assigned::new();
    }

    /// The expression that it is subscribed to, if any.
    pub fn regex(&self) -> Option<&str> {
        self.metadata.subscribed_regex.as_deref().filter(|regex| !regex.is_empty())
    }

    pub fn instance(&self) -> Option<&str> {
        self.metadata.instance.as_deref()
    }

    /// Set while it speaks the classic protocol.
    pub fn classic(&self) -> Option<&ClassicMemberMetadata> {
        self.metadata.classic.as_ref()
    }

    pub fn is_classic(&self) -> bool {
        self.metadata.classic.is_some()
    }

    /// The protocol that a classic member is answered with, and the version of its metadata.
    pub fn classic_protocol(&self) -> Option<(&str, i16)> {
        let protocol = self.classic()?.supported_protocols.first()?;
        Some((&protocol.name, embedded::version(&protocol.metadata).unwrap_or(0)))
    }

    pub fn is_reconciled_to(&self, epoch: i32) -> bool {
        self.state == MemberState::Stable && self.epoch == epoch
    }

    /// Moves to `epoch` and remembers the one before.
    pub fn advance(&mut self, epoch: i32) {
        self.previous_epoch = self.epoch;
        self.epoch = epoch;
    }

    pub fn metadata_record(&self, group: &str) -> Record {
        Record::ConsumerMember { group: group.into(), member: self.id.clone(), value: Some(self.metadata.clone()) }
    }

    pub fn assignment_record(&self, group: &str) -> Record {
        let value = ConsumerMemberAssignmentValue {
            member_epoch: self.epoch,
            previous_member_epoch: self.previous_epoch,
            state: self.state.code(),
            assigned: epoch_partitions(&self.assigned),
            pending_revocation: epoch_partitions(&self.revoking),
        };
        Record::ConsumerMemberAssignment { group: group.into(), member: self.id.clone(), value: Some(value) }
    }

    /// Takes over what a record of key version 8 holds.
    pub fn set_assignment(&mut self, value: &ConsumerMemberAssignmentValue) {
        self.epoch = value.member_epoch;
        self.previous_epoch = value.previous_member_epoch;
        self.state = MemberState::from_code(value.state);
        self.assigned = assigned(&value.assigned, value.member_epoch);
        self.revoking = assigned(&value.pending_revocation, value.member_epoch);
    }
}

fn epoch_partitions(assigned: &Assigned) -> Vec<EpochPartitions> {
    assigned
        .iter()
        .map(|(topic, set)| EpochPartitions {
            topic,
            partitions: set.iter().map(|(partition, _)| *partition).collect(),
            epochs: Some(set.iter().map(|(_, epoch)| *epoch).collect()),
        })
        .collect()
}

/// Records from before KIP-1251 have no epochs: the member's stands in.
fn assigned(lists: &[EpochPartitions], member_epoch: i32) -> Assigned {
    let mut out = Assigned::new();
    for list in lists {
        let epochs = list.epochs.as_ref().filter(|epochs| epochs.len() == list.partitions.len());
        let epoch_at = |at: usize| epochs.map_or(member_epoch.max(0), |epochs| epochs[at]);
        out.merge(list.topic, list.partitions.iter().enumerate().map(|(at, partition)| (*partition, epoch_at(at))));
    }
    out
}

/// As answers and records list them.
pub fn to_lists(partitions: &Partitions) -> Vec<TopicPartitions> {
    partitions.iter().map(|(topic, set)| TopicPartitions { topic, partitions: set.clone() }).collect()
}

pub fn from_lists(lists: &[TopicPartitions]) -> Partitions {
    Partitions::collect(lists.iter().map(|list| (list.topic, list.partitions.clone())))
}

/// Every topic of either map, once.
pub fn topics_of<'a, A, B>(a: &'a TopicMap<A>, b: &'a TopicMap<B>) -> std::collections::BTreeSet<crate::base::TopicId> {
    a.topics().chain(b.topics()).collect()
}
