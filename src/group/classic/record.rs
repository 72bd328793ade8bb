//! A classic group as its record (GroupMetadataValue), and back.

use crate::group::classic::member::Member;
use crate::group::classic::{ClassicGroup, MemberId, State};
use crate::group::records::{ClassicGroupValue, ClassicMemberValue, Record};

impl ClassicGroup {
    /// What is kept of the group: of each member the metadata of the protocol chosen only.
    pub(in crate::group) fn record(&self, group: &str) -> Record {
        let protocol = self.protocol.as_deref();
        let members = self.members.iter().map(|(id, member)| ClassicMemberValue {
            member: id.to_string(),
            instance: member.instance.as_deref().map(str::to_owned),
            client_id: member.client_id.to_string(),
            client_host: member.client_host.to_string(),
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            session_timeout_ms: member.session_timeout_ms,
            subscription: member.metadata(protocol),
            assignment: member.assignment.clone(),
        });
        let value = ClassicGroupValue {
            protocol_type: self.protocol_type.as_deref().unwrap_or_default().to_owned(),
            generation: self.generation,
            protocol: self.protocol.as_deref().map(str::to_owned),
            leader: self.leader.as_deref().map(str::to_owned),
            current_state_timestamp: self.state_since_ms,
            members: members.collect(),
        };
        Record::ClassicGroup { group: group.to_owned(), value: Some(value) }
    }

    pub(in crate::group) fn from_record(value: ClassicGroupValue) -> Self {
        let protocol: Option<Box<str>> = value.protocol.map(String::into_boxed_str);
        let mut group = ClassicGroup::new(crate::group::Now {
            wall_ms: value.current_state_timestamp,
            monotonic: std::time::Duration::ZERO,
        });
        group.generation = value.generation;
        group.protocol.clone_from(&protocol);
        group.protocol_type = (!value.protocol_type.is_empty()).then(|| value.protocol_type.as_str().into());
        for member in value.members {
            let id = MemberId::from(member.member);
            let rebalance_timeout_ms = match member.rebalance_timeout_ms {
                -1 => member.session_timeout_ms,
                timeout_ms => timeout_ms,
            };
            let loaded = Member {
                instance: member.instance.map(String::into_boxed_str),
                client_id: member.client_id.into(),
                client_host: member.client_host.into(),
                session_timeout_ms: member.session_timeout_ms,
                rebalance_timeout_ms,
                protocols: Box::new([(protocol.clone().unwrap_or_default(), member.subscription)]),
                assignment: member.assignment,
                is_new: false,
                pending_sync: false,
                awaiting_join: None,
                awaiting_sync: None,
                deadline: None,
            };
            group.add(id, loaded, &value.protocol_type);
        }
        if !group.members.is_empty() {
            group.state = State::Stable;
            let named = value.leader.map(MemberId::from).filter(|leader| group.members.contains_key(leader));
            group.leader = named.or(group.leader);
        }
        group.subscribed = group.subscriptions();
        group
    }
}

/// What a conversion of a consumer group hands over (KIP-848).
pub(in crate::group) struct Converted {
    pub generation: i32,
    /// Each with everything but what only a classic group has.
    pub members: Vec<(MemberId, Member)>,
}

impl ClassicGroup {
    /// The stable group that a consumer group becomes; assignments are those of the members. The caller writes its
    /// record, starts the sessions with [`ClassicGroup::loaded`] and asks for a rebalance if there is to be one.
    pub(in crate::group) fn converted(converted: Converted, now: crate::group::Now) -> Self {
        let mut group = ClassicGroup::new(now);
        group.generation = converted.generation;
        for (id, member) in converted.members {
            group.add(id, member, super::PROTOCOL_TYPE);
        }
        group.protocol = group.select_protocol();
        group.subscribed = group.subscriptions();
        if !group.members.is_empty() {
            group.state = State::Stable;
        }
        group
    }
}
