//! Which quota holds for whom: the entities of the metadata as tables, looked up in Kafka's order of precedence
//! (KIP-55): user and client id, user with any client id, user, any user with the client id, any user with any client
//! id, any user, client id, any client id. Of these the first that has the quota decides, each quota for itself.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::metadata::{ClientQuotas, QuotaEntity, QuotaName};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Bytes of Produce requests a second.
    Produce,
    /// Bytes of Fetch answers a second.
    Fetch,
    /// Time that requests take of a processor, in percent of one.
    Request,
    /// Partitions created and deleted a second (KIP-599).
    Mutation,
}

impl Measure {
    pub const ALL: [Measure; 4] = [Measure::Produce, Measure::Fetch, Measure::Request, Measure::Mutation];

    /// Kafka's name of the quota.
    pub fn key(self) -> &'static str {
        match self {
            Measure::Produce => "producer_byte_rate",
            Measure::Fetch => "consumer_byte_rate",
            Measure::Request => "request_percentage",
            Measure::Mutation => "controller_mutation_rate",
        }
    }
}

/// Kafka's name of the quota of connections from one address (KIP-612).
pub const CONNECTION_RATE: &str = "connection_creation_rate";

/// Whom a request comes from, as quotas see it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Client {
    /// Name of the principal.
    pub user: Box<str>,
    /// Empty where the client gave none.
    pub id: Box<str>,
}

/// Who shares one allowance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shared {
    /// The connections of one user that name the same client id.
    UserAndClient,
    /// All connections of one user.
    User,
    /// All connections that name the same client id.
    Client,
}

/// The limits of one measure.
#[derive(Debug, Default)]
struct Table {
    /// By user, then by client id.
    user_client: HashMap<String, HashMap<String, f64>>,
    user_any_client: HashMap<String, f64>,
    user: HashMap<String, f64>,
    any_user_client: HashMap<String, f64>,
    any_user_any_client: Option<f64>,
    any_user: Option<f64>,
    client: HashMap<String, f64>,
    any_client: Option<f64>,
    /// Whether there is any limit at all.
    used: bool,
}

impl Table {
    fn set(&mut self, user: Option<&QuotaName>, client: Option<&QuotaName>, limit: f64) {
        use QuotaName::{Default as Any, Named};
        self.used = true;
        match (user, client) {
            (Some(Named(user)), Some(Named(client))) => {
                self.user_client.entry(user.clone()).or_default().insert(client.clone(), limit);
            }
            (Some(Named(user)), Some(Any)) => drop(self.user_any_client.insert(user.clone(), limit)),
            (Some(Named(user)), None) => drop(self.user.insert(user.clone(), limit)),
            (Some(Any), Some(Named(client))) => drop(self.any_user_client.insert(client.clone(), limit)),
            (Some(Any), Some(Any)) => self.any_user_any_client = Some(limit),
            (Some(Any), None) => self.any_user = Some(limit),
            (None, Some(Named(client))) => drop(self.client.insert(client.clone(), limit)),
            (None, Some(Any)) => self.any_client = Some(limit),
            (None, None) => {}
        }
    }

    fn find(&self, client: &Client) -> Option<(f64, Shared)> {
        let (user, id) = (&*client.user, &*client.id);
        // As in Kafka a client without an id is none of "any client id".
        let named = !id.is_empty();
        let both = |limit: Option<f64>| limit.filter(|_| named).map(|limit| (limit, Shared::UserAndClient));
        let one = |limit: Option<f64>| limit.map(|limit| (limit, Shared::User));
        both(self.user_client.get(user).and_then(|clients| clients.get(id)).copied())
            .or_else(|| both(self.user_any_client.get(user).copied()))
            .or_else(|| one(self.user.get(user).copied()))
            .or_else(|| both(self.any_user_client.get(id).copied()))
            .or_else(|| both(self.any_user_any_client))
            .or_else(|| one(self.any_user))
            .or_else(|| {
                let limit = self.client.get(id).copied().or(self.any_client).filter(|_| named);
                limit.map(|limit| (limit, Shared::Client))
            })
    }
}

/// All limits.
#[derive(Debug, Default)]
pub struct Limits {
    tables: [Table; 4],
    addresses: HashMap<IpAddr, f64>,
    any_address: Option<f64>,
}

impl Limits {
    pub fn of(quotas: &ClientQuotas) -> Limits {
        let mut limits = Limits::default();
        for (QuotaEntity { user, client_id, ip }, values) in quotas.iter() {
            for measure in Measure::ALL {
                if let Some(limit) = values.get(measure.key()) {
                    limits.tables[measure as usize].set(user.as_ref(), client_id.as_ref(), *limit);
                }
            }
            if let Some(limit) = values.get(CONNECTION_RATE) {
                match ip {
                    // What is no address was refused when it was set.
                    Some(QuotaName::Named(address)) => {
                        limits.addresses.extend(address.parse::<IpAddr>().ok().map(|a| (a.to_canonical(), *limit)));
                    }
                    Some(QuotaName::Default) => limits.any_address = Some(*limit),
                    None => {}
                }
            }
        }
        limits
    }

    /// Whether anybody has a limit of this measure.
    pub fn uses(&self, measure: Measure) -> bool {
        self.tables[measure as usize].used
    }

    pub fn uses_addresses(&self) -> bool {
        self.any_address.is_some() || !self.addresses.is_empty()
    }

    /// The limit of a client, and with whom it shares it.
    pub fn find(&self, measure: Measure, client: &Client) -> Option<(f64, Shared)> {
        self.tables[measure as usize].find(client)
    }

    /// Connections a second that an address may open.
    pub fn of_address(&self, address: IpAddr) -> Option<f64> {
        self.addresses.get(&address.to_canonical()).copied().or(self.any_address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    fn part(text: &str) -> Option<QuotaName> {
        match text {
            "-" => None,
            "*" => Some(QuotaName::Default),
            name => Some(QuotaName::Named(name.to_owned())),
        }
    }

    fn quotas(entities: &[(&str, &str, &str, f64)]) -> ClientQuotas {
        let mut all: BTreeMap<QuotaEntity, BTreeMap<String, f64>> = BTreeMap::new();
        for (user, client, key, limit) in entities {
            let entity = QuotaEntity { user: part(user), client_id: part(client), ip: None };
            all.entry(entity).or_default().insert(key.to_string(), *limit);
        }
        Arc::new(all)
    }

    fn client(user: &str, id: &str) -> Client {
        Client { user: user.into(), id: id.into() }
    }

    /// Takes the deciding entity away again and again: the next in Kafka's order steps in.
    #[test]
    fn the_most_specific_quota_decides() {
        let key = Measure::Produce.key();
        let order = [
            ("u", "c", 1.0, Shared::UserAndClient),
            ("u", "*", 2.0, Shared::UserAndClient),
            ("u", "-", 3.0, Shared::User),
            ("*", "c", 4.0, Shared::UserAndClient),
            ("*", "*", 5.0, Shared::UserAndClient),
            ("*", "-", 6.0, Shared::User),
            ("-", "c", 7.0, Shared::Client),
            ("-", "*", 8.0, Shared::Client),
        ];
        for first in 0..order.len() {
            let left: Vec<_> =
                order[first..].iter().map(|(user, client, limit, _)| (*user, *client, key, *limit)).collect();
            let limits = Limits::of(&quotas(&left));
            let (_, _, limit, shared) = order[first];
            assert_eq!(limits.find(Measure::Produce, &client("u", "c")), Some((limit, shared)), "from {first}");
            assert_eq!(limits.find(Measure::Fetch, &client("u", "c")), None);
        }
        assert_eq!(Limits::of(&quotas(&[])).find(Measure::Produce, &client("u", "c")), None);
    }

    #[test]
    fn each_quota_is_looked_up_for_itself() {
        let limits = Limits::of(&quotas(&[
            ("u", "c", "consumer_byte_rate", 1.0),
            ("u", "-", "producer_byte_rate", 2.0),
            ("-", "*", "request_percentage", 3.0),
        ]));
        let who = client("u", "c");
        let found = Measure::ALL.map(|measure| limits.find(measure, &who).map(|(limit, _)| limit));
        assert_eq!(found, [Some(2.0), Some(1.0), Some(3.0), None]);
        assert_eq!(Measure::ALL.map(|measure| limits.uses(measure)), [true, true, true, false]);
        assert!(!limits.uses_addresses());
    }

    #[test]
    fn a_client_without_an_id_has_the_quota_of_its_user_only() {
        let key = Measure::Produce.key();
        let limits = Limits::of(&quotas(&[("u", "*", key, 1.0), ("*", "*", key, 2.0), ("-", "*", key, 3.0)]));
        assert_eq!(limits.find(Measure::Produce, &client("u", "")), None);
        let limits = Limits::of(&quotas(&[("u", "*", key, 1.0), ("*", "-", key, 2.0)]));
        assert_eq!(limits.find(Measure::Produce, &client("u", "")), Some((2.0, Shared::User)));
    }

    #[test]
    fn addresses_have_limits_of_their_own() {
        let entity = |name: &str| QuotaEntity { ip: part(name), ..QuotaEntity::default() };
        let limit = |limit| BTreeMap::from([(CONNECTION_RATE.to_owned(), limit)]);
        let all = Arc::new(BTreeMap::from([(entity("10.0.0.1"), limit(5.0)), (entity("*"), limit(50.0))]));
        let limits = Limits::of(&all);
        assert!(limits.uses_addresses());
        assert_eq!(limits.of_address("10.0.0.1".parse().unwrap()), Some(5.0));
        assert_eq!(limits.of_address("::ffff:10.0.0.1".parse().unwrap()), Some(5.0), "the same client over IPv6");
        assert_eq!(limits.of_address("::1".parse().unwrap()), Some(50.0));
        assert_eq!(Limits::default().of_address("::1".parse().unwrap()), None);
    }
}
