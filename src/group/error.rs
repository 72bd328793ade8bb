//! The errors that a group coordinator answers with, by Kafka's names.
//!
//! The numbers are those of Kafka's protocol; they are kept here so that the machine's replies can be rendered and
//! tested without a wire type, and nowhere else in this module.

/// Why a request, a member or a partition is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum GroupError {
    #[error("the server met a condition that it did not expect")]
    UnknownServerError,
    #[error("the offset metadata are longer than offset.metadata.max.bytes")]
    OffsetMetadataTooLarge,
    #[error("the coordinator cannot take the request now")]
    CoordinatorNotAvailable,
    #[error("the generation is not the group's")]
    IllegalGeneration,
    #[error("the member's protocols do not fit those of the group")]
    InconsistentGroupProtocol,
    #[error("the group id is not valid")]
    InvalidGroupId,
    #[error("the group has no such member")]
    UnknownMemberId,
    #[error("the session timeout is outside group.min.session.timeout.ms and group.max.session.timeout.ms")]
    InvalidSessionTimeout,
    #[error("the group is rebalancing")]
    RebalanceInProgress,
    #[error("the offset commit is larger than a record batch may be")]
    InvalidCommitOffsetSize,
    #[error("the version of the request does not support the group's protocol")]
    UnsupportedVersion,
    #[error("the request is not valid")]
    InvalidRequest,
    #[error("the group is not empty")]
    NonEmptyGroup,
    #[error("the group does not exist")]
    GroupIdNotFound,
    #[error("the member must join again with the member id of this answer")]
    MemberIdRequired,
    #[error("the group is full")]
    GroupMaxSizeReached,
    #[error("another member took over the group instance id")]
    FencedInstanceId,
    #[error("the group is subscribed to the topic")]
    GroupSubscribedToTopic,
    #[error("a transaction that commits offsets of the partition is open")]
    UnstableOffsetCommit,
    #[error("no topic has this id")]
    UnknownTopicId,
    #[error("the member epoch is fenced by the coordinator")]
    FencedMemberEpoch,
    #[error("the group instance id is still used by another member")]
    UnreleasedInstanceId,
    #[error("the assignor is not supported")]
    UnsupportedAssignor,
    #[error("the member epoch is stale")]
    StaleMemberEpoch,
    #[error("the regular expression is not valid")]
    InvalidRegularExpression,
}

impl GroupError {
    /// The error code of Kafka's protocol.
    pub fn code(self) -> i16 {
        match self {
            GroupError::UnknownServerError => -1,
            GroupError::OffsetMetadataTooLarge => 12,
            GroupError::CoordinatorNotAvailable => 15,
            GroupError::IllegalGeneration => 22,
            GroupError::InconsistentGroupProtocol => 23,
            GroupError::InvalidGroupId => 24,
            GroupError::UnknownMemberId => 25,
            GroupError::InvalidSessionTimeout => 26,
            GroupError::RebalanceInProgress => 27,
            GroupError::InvalidCommitOffsetSize => 28,
            GroupError::UnsupportedVersion => 35,
            GroupError::InvalidRequest => 42,
            GroupError::NonEmptyGroup => 68,
            GroupError::GroupIdNotFound => 69,
            GroupError::MemberIdRequired => 79,
            GroupError::GroupMaxSizeReached => 81,
            GroupError::FencedInstanceId => 82,
            GroupError::GroupSubscribedToTopic => 86,
            GroupError::UnstableOffsetCommit => 88,
            GroupError::UnknownTopicId => 100,
            GroupError::FencedMemberEpoch => 110,
            GroupError::UnreleasedInstanceId => 111,
            GroupError::UnsupportedAssignor => 112,
            GroupError::StaleMemberEpoch => 113,
            GroupError::InvalidRegularExpression => 128,
        }
    }
}

/// An error with the sentence that goes to the client beside it, where the API has a field for one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub error: GroupError,
    pub message: Option<String>,
}

impl Refusal {
    pub fn new(error: GroupError, message: impl Into<String>) -> Self {
        Refusal { error, message: Some(message.into()) }
    }
}

impl From<GroupError> for Refusal {
    fn from(error: GroupError) -> Self {
        Refusal { error, message: None }
    }
}
