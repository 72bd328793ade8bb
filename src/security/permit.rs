//! Authorization: turns "may this principal do this?" into a [`Permit`], which broker methods demand as a witness.
//!
//! Invariants: a permit is made by [`Authorizer::authorize`] and nowhere else, for one operation on one resource, and
//! cannot be copied; what no rule allows is denied. Access control lists will be a third kind of authorizer behind the
//! same call.

use std::collections::HashSet;
use std::fmt;

use super::Principal;

/// Kafka's operations; the numbers are those of its protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i8)]
pub enum Operation {
    Read = 3,
    Write = 4,
    Create = 5,
    Delete = 6,
    Alter = 7,
    Describe = 8,
    ClusterAction = 9,
    DescribeConfigs = 10,
    AlterConfigs = 11,
    IdempotentWrite = 12,
    TwoPhaseCommit = 15,
}

/// Kafka's kinds of resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ResourceKind {
    Topic,
    Group,
    Cluster,
    TransactionalId,
    DelegationToken,
}

/// What is acted on. The name of the cluster is Kafka's `kafka-cluster`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Resource<'a> {
    kind: ResourceKind,
    name: &'a str,
}

impl<'a> Resource<'a> {
    pub const CLUSTER: Resource<'static> = Resource { kind: ResourceKind::Cluster, name: "kafka-cluster" };

    pub fn topic(name: &'a str) -> Self {
        Resource { kind: ResourceKind::Topic, name }
    }

    pub fn group(name: &'a str) -> Self {
        Resource { kind: ResourceKind::Group, name }
    }

    pub fn transactional_id(name: &'a str) -> Self {
        Resource { kind: ResourceKind::TransactionalId, name }
    }

    pub fn delegation_token(name: &'a str) -> Self {
        Resource { kind: ResourceKind::DelegationToken, name }
    }
}

impl fmt::Display for Resource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.kind, self.name)
    }
}

/// Proof that one operation on one resource was authorized. Only this module can make one.
#[derive(Debug)]
#[must_use]
pub struct Permit {
    operation: Operation,
    kind: ResourceKind,
    name: Box<str>,
}

impl Permit {
    /// Whether this permit is for exactly that, so that a broker method can check that it was given the right one.
    pub fn covers(&self, operation: Operation, resource: Resource<'_>) -> bool {
        self.operation == operation && self.kind == resource.kind && *self.name == *resource.name
    }

    pub fn operation(&self) -> Operation {
        self.operation
    }

    pub fn kind(&self) -> ResourceKind {
        self.kind
    }
}

/// An operation that no rule allows. The kind of the resource decides Kafka's error code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{principal} may not {operation:?} {kind:?} {name}")]
pub struct Denied {
    pub principal: Principal,
    pub operation: Operation,
    pub kind: ResourceKind,
    pub name: String,
}

/// Who may do what.
#[derive(Debug)]
pub enum Authorizer {
    /// Only these principals, and they everything (`casemate serve`).
    SuperUsersOnly { super_users: HashSet<Principal> },
    /// Everybody everything (`casemate dev`, loopback only).
    Everyone,
}

impl Authorizer {
    pub fn authorize(
        &self,
        principal: &Principal,
        operation: Operation,
        resource: Resource<'_>,
    ) -> Result<Permit, Denied> {
        let Resource { kind, name } = resource;
        if self.allows(principal) {
            Ok(Permit { operation, kind, name: name.into() })
        } else {
            Err(Denied { principal: principal.clone(), operation, kind, name: name.to_owned() })
        }
    }

    /// The operations that the principal may do on the resource, as Kafka's bit field: bit n stands for operation n.
    pub fn authorized_operations(&self, principal: &Principal, resource: Resource<'_>) -> i32 {
        if !self.allows(principal) {
            return 0;
        }
        applicable(resource.kind).iter().fold(0, |bits, operation| bits | 1 << *operation as i32)
    }

    fn allows(&self, principal: &Principal) -> bool {
        match self {
            Authorizer::SuperUsersOnly { super_users } => super_users.contains(principal),
            Authorizer::Everyone => true,
        }
    }
}

/// The operations that Kafka 4.3 knows for a kind of resource.
fn applicable(kind: ResourceKind) -> &'static [Operation] {
    use Operation::*;
    match kind {
        ResourceKind::Topic => &[Read, Write, Create, Delete, Alter, Describe, DescribeConfigs, AlterConfigs],
        ResourceKind::Group => &[Read, Delete, Describe, DescribeConfigs, AlterConfigs],
        ResourceKind::Cluster => {
            &[Create, Alter, Describe, ClusterAction, DescribeConfigs, AlterConfigs, IdempotentWrite]
        }
        ResourceKind::TransactionalId => &[Write, Describe, TwoPhaseCommit],
        ResourceKind::DelegationToken => &[Describe],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(user: &str) -> Authorizer {
        Authorizer::SuperUsersOnly { super_users: HashSet::from([Principal::user(user)]) }
    }

    #[test]
    fn only_super_users_get_a_permit() {
        let authorizer = only("CN=admin");
        let topic = Resource::topic("orders");
        assert!(authorizer.authorize(&Principal::user("CN=admin"), Operation::Write, topic).is_ok());
        for other in [Principal::user("cn=admin"), Principal::anonymous(), "user:CN=admin".parse().unwrap()] {
            let denied = authorizer.authorize(&other, Operation::Write, topic).unwrap_err();
            assert_eq!(denied.kind, ResourceKind::Topic);
            assert_eq!(denied.to_string(), format!("{other} may not Write Topic orders"));
            assert_eq!(authorizer.authorized_operations(&other, topic), 0);
        }
        assert!(Authorizer::Everyone.authorize(&Principal::anonymous(), Operation::Alter, Resource::CLUSTER).is_ok());
    }

    #[test]
    fn a_permit_covers_one_operation_on_one_resource() {
        let permit = Authorizer::Everyone
            .authorize(&Principal::anonymous(), Operation::Write, Resource::topic("orders"))
            .unwrap();
        assert!(permit.covers(Operation::Write, Resource::topic("orders")));
        assert!(!permit.covers(Operation::Read, Resource::topic("orders")));
        assert!(!permit.covers(Operation::Write, Resource::topic("order")));
        assert!(!permit.covers(Operation::Write, Resource::group("orders")));
    }

    #[test]
    fn the_bit_fields_are_those_of_kafka() {
        let bits = |resource| only("a").authorized_operations(&Principal::user("a"), resource);
        assert_eq!(bits(Resource::topic("t")), 3576);
        assert_eq!(bits(Resource::group("g")), 3400);
        assert_eq!(bits(Resource::CLUSTER), 8096);
        assert_eq!(bits(Resource::transactional_id("x")), 33040);
        assert_eq!(bits(Resource::delegation_token("d")), 256);
    }
}
