//! What may be set as a client quota: which entities there are, which quotas each has, which values they take.
//!
//! The words are Kafka's. Two of its leniences are not imitated: names of hosts are refused, because nothing is looked
//! up, and so is a value that is not a number.

use std::net::IpAddr;

use crate::metadata::bounds::CLIENT_NAME_BYTES_MAX;
use crate::metadata::{QuotaEntity, QuotaName};

use super::limits::{CONNECTION_RATE, Measure};

/// The types of entities, by Kafka's names.
pub const USER: &str = "user";
pub const CLIENT_ID: &str = "client-id";
pub const IP: &str = "ip";

/// Why a quota cannot be set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuotaError {
    #[error("Invalid empty client quota entity")]
    EmptyEntity,
    #[error("Unhandled client quota entity type: {0}")]
    UnknownType(String),
    #[error("Empty {0} not supported")]
    EmptyName(String),
    #[error("The name of a {0} has at most {CLIENT_NAME_BYTES_MAX} bytes")]
    LongName(String),
    #[error("Invalid quota entity combination, IP entity should not be combined with User or ClientId")]
    Combination,
    #[error("{0} is not a valid IP address; names of hosts are not looked up")]
    NotAddress(String),
    #[error("Invalid configuration key {0}")]
    UnknownKey(String),
    #[error("Quota {0} must be greater than 0")]
    NotPositive(String),
    #[error("Proposed value for {key} is too large for {kind}.")]
    TooLarge { key: String, kind: &'static str },
    #[error("{0} cannot be a fractional value.")]
    Fractional(String),
}

/// The entity of these parts, each a type with a name; None is the default. Of a type given twice the last counts.
pub fn entity<'a>(parts: impl IntoIterator<Item = (&'a str, Option<&'a str>)>) -> Result<QuotaEntity, QuotaError> {
    let mut entity = QuotaEntity::default();
    for (kind, name) in parts {
        let part = match name {
            None => QuotaName::Default,
            Some("") => return Err(QuotaError::EmptyName(kind.to_owned())),
            Some(long) if long.len() > CLIENT_NAME_BYTES_MAX => return Err(QuotaError::LongName(kind.to_owned())),
            Some(name) => QuotaName::Named(name.to_owned()),
        };
        match kind {
            USER => entity.user = Some(part),
            CLIENT_ID => entity.client_id = Some(part),
            IP => entity.ip = Some(part),
            other => return Err(QuotaError::UnknownType(other.to_owned())),
        }
    }
    match &entity {
        QuotaEntity { user: None, client_id: None, ip: None } => Err(QuotaError::EmptyEntity),
        QuotaEntity { ip: None, .. } => Ok(entity),
        QuotaEntity { user: None, client_id: None, ip: Some(QuotaName::Named(address)) }
            if address.parse::<IpAddr>().is_err() =>
        {
            Err(QuotaError::NotAddress(address.clone()))
        }
        QuotaEntity { user: None, client_id: None, .. } => Ok(entity),
        _ => Err(QuotaError::Combination),
    }
}

/// The parts of an entity as [`entity`] takes them.
pub fn parts(entity: &QuotaEntity) -> impl Iterator<Item = (&'static str, Option<&str>)> {
    let parts = [(USER, &entity.user), (CLIENT_ID, &entity.client_id), (IP, &entity.ip)];
    parts.into_iter().filter_map(|(kind, part)| match part.as_ref()? {
        QuotaName::Default => Some((kind, None)),
        QuotaName::Named(name) => Some((kind, Some(name.as_str()))),
    })
}

/// Whether there is a quota of that name.
pub fn is_key(key: &str) -> bool {
    key == CONNECTION_RATE || Measure::ALL.into_iter().any(|measure| measure.key() == key)
}

/// Whether the entity can have this quota with this value.
pub fn check_value(entity: &QuotaEntity, key: &str, value: f64) -> Result<(), QuotaError> {
    let whole_max = match key {
        CONNECTION_RATE if entity.ip.is_some() => Some((f64::from(i32::MAX), "an INT")),
        _ if entity.ip.is_some() => return Err(QuotaError::UnknownKey(key.to_owned())),
        _ => match Measure::ALL.into_iter().find(|measure| measure.key() == key) {
            Some(Measure::Produce | Measure::Fetch) => Some((i64::MAX as f64, "a LONG")),
            Some(Measure::Request | Measure::Mutation) => None,
            None => return Err(QuotaError::UnknownKey(key.to_owned())),
        },
    };
    if value.is_nan() || value <= 0.0 {
        return Err(QuotaError::NotPositive(key.to_owned()));
    }
    match whole_max {
        Some((max, kind)) if value > max => Err(QuotaError::TooLarge { key: key.to_owned(), kind }),
        Some(_) if value % 1.0 > 1e-6 => Err(QuotaError::Fractional(key.to_owned())),
        None if value.is_infinite() => Err(QuotaError::TooLarge { key: key.to_owned(), kind: "a DOUBLE" }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entities_are_users_client_ids_both_or_an_address() {
        type Case<'a> = (&'a [(&'a str, Option<&'a str>)], Result<(), &'a str>);
        let cases: &[Case] = &[
            (&[("user", Some("a"))], Ok(())),
            (&[("user", None)], Ok(())),
            (&[("user", Some("a")), ("client-id", None)], Ok(())),
            (&[("client-id", None), ("user", None)], Ok(())),
            (&[("ip", None)], Ok(())),
            (&[("ip", Some("10.0.0.1"))], Ok(())),
            (&[("ip", Some("::1"))], Ok(())),
            (&[], Err("Invalid empty client quota entity")),
            (&[("group", Some("a"))], Err("Unhandled client quota entity type: group")),
            (&[("User", Some("a"))], Err("Unhandled client quota entity type: User")),
            (&[("user", Some(""))], Err("Empty user not supported")),
            (&[("ip", Some("host.example"))], Err("host.example is not a valid IP address")),
            (&[("ip", None), ("user", None)], Err("Invalid quota entity combination")),
            (&[("ip", None), ("client-id", Some("a"))], Err("Invalid quota entity combination")),
        ];
        for (given, expected) in cases {
            let result = entity(given.iter().copied());
            match (&result, expected) {
                (Ok(entity), Ok(())) => {
                    let (mut shown, mut given): (Vec<_>, Vec<_>) = (parts(entity).collect(), given.to_vec());
                    shown.sort();
                    given.sort();
                    assert_eq!(shown, given);
                }
                (Err(error), Err(words)) => assert!(error.to_string().starts_with(words), "{given:?}: {error}"),
                _ => panic!("{given:?}: {result:?}"),
            }
        }
        let long = "x".repeat(CLIENT_NAME_BYTES_MAX + 1);
        assert!(entity([("user", Some(long.as_str()))]).is_err());
    }

    #[test]
    fn each_entity_has_its_quotas_and_each_quota_its_bounds() {
        let user = entity([("user", None)]).unwrap();
        let ip = entity([("ip", None)]).unwrap();
        for (entity, key, value, expected) in [
            (&user, "producer_byte_rate", 1.0, ""),
            (&user, "consumer_byte_rate", 1e18, ""),
            (&user, "request_percentage", 0.5, ""),
            (&user, "request_percentage", 1e30, ""),
            (&user, "controller_mutation_rate", 2.5, ""),
            (&ip, "connection_creation_rate", 2_147_483_647.0, ""),
            (&user, "producer_byte_rate", 0.0, "Quota producer_byte_rate must be greater than 0"),
            (&user, "request_percentage", -1.0, "Quota request_percentage must be greater than 0"),
            (&user, "producer_byte_rate", f64::NAN, "Quota producer_byte_rate must be greater than 0"),
            (&user, "producer_byte_rate", 1.5, "producer_byte_rate cannot be a fractional value."),
            (&user, "producer_byte_rate", 1e19, "Proposed value for producer_byte_rate is too large for a LONG."),
            (&user, "producer_byte_rate", f64::INFINITY, "Proposed value for producer_byte_rate is too large"),
            (&user, "request_percentage", f64::INFINITY, "Proposed value for request_percentage is too large"),
            (
                &ip,
                "connection_creation_rate",
                3e9,
                "Proposed value for connection_creation_rate is too large for an INT.",
            ),
            (&ip, "producer_byte_rate", 1.0, "Invalid configuration key producer_byte_rate"),
            (&user, "connection_creation_rate", 1.0, "Invalid configuration key connection_creation_rate"),
            (&user, "nope", 1.0, "Invalid configuration key nope"),
        ] {
            let said = check_value(entity, key, value).map_or_else(|error| error.to_string(), |()| String::new());
            assert!(said.starts_with(expected) && said.is_empty() == expected.is_empty(), "{key} {value}: {said}");
        }
    }
}
