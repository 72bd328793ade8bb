//! DescribeGroups, ConsumerGroupDescribe and ListGroups.

use bytes::Bytes;

use crate::group::call::Call;
use crate::group::classic::{ClassicGroup, PROTOCOL_TYPE, State};
use crate::group::coordinator::{Coordinator, Group};
use crate::group::request::{ConsumerGroupDescribe, DescribeGroup, ListGroups};
use crate::group::{DescribedConsumerGroup, DescribedGroup, DescribedMember, GroupError, ListedGroup};

/// The version of DescribeGroups from which on a group that does not exist is an error (KIP-1043).
const UNKNOWN_IS_AN_ERROR: i16 = 6;

impl Coordinator {
    pub(in crate::group) fn describe_group(&self, request: DescribeGroup) -> DescribedGroup {
        let message = match self.groups.get(request.group.as_str()) {
            Some(Group::Classic(group)) => return group.describe(request.group),
            Some(Group::Consumer(_)) => format!("Group {} is not a classic group.", request.group),
            None => format!("Group {} not found.", request.group),
        };
        let dead = DescribedGroup { group: request.group, state: "Dead".to_owned(), ..DescribedGroup::default() };
        if request.version < UNKNOWN_IS_AN_ERROR {
            return dead;
        }
        DescribedGroup { error: Some(GroupError::GroupIdNotFound), error_message: Some(message), ..dead }
    }

    pub(in crate::group) fn describe_consumer_group(
        &self,
        call: &Call<'_>,
        request: ConsumerGroupDescribe,
    ) -> DescribedConsumerGroup {
        let refused = |error, message| DescribedConsumerGroup {
            error: Some(error),
            error_message: message,
            group: request.group.clone(),
            ..DescribedConsumerGroup::default()
        };
        if request.group.is_empty() {
            return refused(GroupError::InvalidGroupId, None);
        }
        match self.groups.get(request.group.as_str()) {
            Some(Group::Consumer(group)) => group.describe(&call.scene(&request.group, &self.options)),
            Some(Group::Classic(_)) => {
                let message = format!("Group {} is not a consumer group.", request.group);
                refused(GroupError::GroupIdNotFound, Some(message))
            }
            None => refused(GroupError::GroupIdNotFound, Some(format!("Group {} not found.", request.group))),
        }
    }

    pub(in crate::group) fn list_groups(&self, request: &ListGroups) -> Vec<ListedGroup> {
        let states: Vec<String> = request.states.iter().map(|state| state.to_lowercase().trim().to_owned()).collect();
        let listed = self.groups.iter().filter_map(|(id, group)| {
            let (state, group_type, protocol_type) = match group {
                Group::Classic(group) => {
                    (group.state().name(), "classic", group.protocol_type.as_deref().unwrap_or_default())
                }
                Group::Consumer(group) => (group.state(), "consumer", PROTOCOL_TYPE),
            };
            let in_state = states.is_empty() || states.iter().any(|wanted| wanted.eq_ignore_ascii_case(state));
            let of_type =
                request.types.is_empty() || request.types.iter().any(|wanted| wanted.eq_ignore_ascii_case(group_type));
            (in_state && of_type).then(|| ListedGroup {
                group: id.to_string(),
                protocol_type: protocol_type.to_owned(),
                state: state.to_owned(),
                group_type,
            })
        });
        listed.collect()
    }
}

impl ClassicGroup {
    /// The protocol and the members' metadata are shown while the group is stable.
    fn describe(&self, group: String) -> DescribedGroup {
        let stable = self.state() == State::Stable;
        let protocol = self.protocol.as_deref().filter(|_| stable);
        let members = self.members.iter().map(|(id, member)| DescribedMember {
            member: id.to_string(),
            instance: member.instance.as_deref().map(str::to_owned),
            client_id: member.client_id.to_string(),
            client_host: member.client_host.to_string(),
            metadata: if stable { member.metadata(protocol) } else { Bytes::new() },
            assignment: member.assignment.clone(),
        });
        DescribedGroup {
            error: None,
            error_message: None,
            group,
            state: self.state().name().to_owned(),
            protocol_type: self.protocol_type.as_deref().unwrap_or_default().to_owned(),
            protocol: protocol.unwrap_or_default().to_owned(),
            members: members.collect(),
        }
    }
}
