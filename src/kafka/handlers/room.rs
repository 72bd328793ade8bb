//! A bound on answers that describe what a request only names: a few bytes can ask for the same long description over and
//! over.

use kafka_protocol::error::ResponseError;
use kafka_protocol::protocol::Encodable;

use crate::base::limits::DESCRIPTIONS_BYTES_MAX;
use crate::kafka::Request;

/// What is left for the descriptions of one answer.
pub(super) struct Room {
    version: i16,
    left: usize,
}

impl Room {
    pub(super) fn new(request: &Request) -> Room {
        Room { version: request.to.version, left: DESCRIPTIONS_BYTES_MAX }
    }

    /// The part of an answer, or Kafka's number of the error to answer in its place.
    pub(super) fn take<T: Encodable>(&mut self, part: T) -> Result<T, i16> {
        // One that cannot be encoded is refused with the whole answer.
        let bytes = part.compute_size(self.version).unwrap_or(0);
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Ok(part)
            }
            None => Err(ResponseError::PolicyViolation.code()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};

    #[test]
    fn what_finds_no_room_is_an_error_and_smaller_parts_still_fit() {
        let group = |members| DescribedGroup::default().with_members(vec![DescribedGroupMember::default(); members]);
        let of = |members| group(members).compute_size(5).unwrap();
        let mut room = Room { version: 5, left: of(100) + of(10) };
        assert!(room.take(group(100)).is_ok());
        assert_eq!(room.take(group(100)), Err(44));
        assert!(room.take(group(10)).is_ok());
        assert_eq!(room.take(group(0)), Err(44));
    }
}
