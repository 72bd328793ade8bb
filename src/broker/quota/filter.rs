//! Which entities a DescribeClientQuotas request asks for (KIP-546).

use crate::metadata::{QuotaEntity, QuotaName};

use super::rules::{CLIENT_ID, IP, USER};

/// What an entity must have of one type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    Exactly(String),
    Default,
    Any,
}

impl Match {
    /// By the number of a request and the text beside it.
    pub fn of(number: i8, text: Option<&str>) -> Result<Match, FilterError> {
        let without = |name| match text {
            None => Ok(()),
            Some(_) => Err(FilterError::TextGiven(name)),
        };
        match number {
            0 => Ok(Match::Exactly(text.ok_or(FilterError::TextMissing)?.to_owned())),
            1 => without("MATCH_TYPE_DEFAULT").map(|()| Match::Default),
            2 => without("MATCH_TYPE_SPECIFIED").map(|()| Match::Any),
            other => Err(FilterError::UnknownMatch(other)),
        }
    }

    fn admits(&self, part: Option<&QuotaName>) -> bool {
        match (self, part) {
            (_, None) => false,
            (Match::Any, Some(_)) | (Match::Default, Some(QuotaName::Default)) => true,
            (Match::Exactly(text), Some(QuotaName::Named(name))) => text == name,
            (Match::Exactly(_) | Match::Default, Some(_)) => false,
        }
    }
}

/// A filter that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    #[error("Invalid empty entity type.")]
    EmptyType,
    #[error("Entity type {0} cannot appear more than once in the filter.")]
    Twice(String),
    #[error("Unsupported entity type {0}")]
    UnsupportedType(String),
    #[error("Request specified MATCH_TYPE_EXACT, but set match string to null.")]
    TextMissing,
    #[error("Request specified {0}, but also specified a match string.")]
    TextGiven(&'static str),
    #[error("Unknown match type {0}")]
    UnknownMatch(i8),
    #[error(
        "Invalid entity filter component combination. IP filter component should not be used with user or clientId \
         filter component."
    )]
    Combination,
}

/// What an entity must have, and with `strict` nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    user: Option<Match>,
    client_id: Option<Match>,
    ip: Option<Match>,
    strict: bool,
}

impl Filter {
    /// Of components as a request has them: type, number of the match, text.
    pub fn new<'a>(
        components: impl IntoIterator<Item = (&'a str, i8, Option<&'a str>)>,
        strict: bool,
    ) -> Result<Filter, FilterError> {
        let mut filter = Filter { strict, ..Filter::default() };
        for (kind, number, text) in components {
            let place = match kind {
                "" => return Err(FilterError::EmptyType),
                USER => &mut filter.user,
                CLIENT_ID => &mut filter.client_id,
                IP => &mut filter.ip,
                other => return Err(FilterError::UnsupportedType(other.to_owned())),
            };
            if place.is_some() {
                return Err(FilterError::Twice(kind.to_owned()));
            }
            *place = Some(Match::of(number, text)?);
        }
        if filter.ip.is_some() && (filter.user.is_some() || filter.client_id.is_some()) {
            return Err(FilterError::Combination);
        }
        Ok(filter)
    }

    pub fn admits(&self, entity: &QuotaEntity) -> bool {
        let pairs = [(&self.user, &entity.user), (&self.client_id, &entity.client_id), (&self.ip, &entity.ip)];
        pairs.into_iter().all(|(wanted, part)| match wanted {
            Some(wanted) => wanted.admits(part.as_ref()),
            None => !self.strict || part.is_none(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entity(user: Option<&str>, client: Option<&str>) -> QuotaEntity {
        let part = |text: Option<&str>| match text {
            None => None,
            Some("*") => Some(QuotaName::Default),
            Some(name) => Some(QuotaName::Named(name.to_owned())),
        };
        QuotaEntity { user: part(user), client_id: part(client), ip: None }
    }

    #[test]
    fn a_filter_admits_what_kafka_would() {
        let all = [
            entity(Some("a"), None),
            entity(Some("*"), None),
            entity(Some("a"), Some("c")),
            entity(Some("*"), Some("*")),
            entity(None, Some("c")),
        ];
        type Case<'a> = (&'a [(&'a str, i8, Option<&'a str>)], bool, &'a [usize]);
        let cases: &[Case] = &[
            (&[], false, &[0, 1, 2, 3, 4]),
            (&[], true, &[]),
            (&[("user", 0, Some("a"))], false, &[0, 2]),
            (&[("user", 0, Some("a"))], true, &[0]),
            (&[("user", 0, Some("*"))], false, &[]),
            (&[("user", 1, None)], false, &[1, 3]),
            (&[("user", 1, None)], true, &[1]),
            (&[("user", 2, None)], false, &[0, 1, 2, 3]),
            (&[("user", 2, None)], true, &[0, 1]),
            (&[("client-id", 2, None)], true, &[4]),
            (&[("user", 2, None), ("client-id", 0, Some("c"))], true, &[2]),
            (&[("ip", 2, None)], false, &[]),
        ];
        for (components, strict, expected) in cases {
            let filter = Filter::new(components.iter().copied(), *strict).unwrap();
            let found: Vec<_> = (0..all.len()).filter(|i| filter.admits(&all[*i])).collect();
            assert_eq!(found, *expected, "{components:?} strict={strict}");
        }
    }

    #[test]
    fn a_senseless_filter_is_refused_as_kafka_refuses_it() {
        type Case<'a> = (&'a [(&'a str, i8, Option<&'a str>)], FilterError);
        let cases: &[Case] = &[
            (&[("", 2, None)], FilterError::EmptyType),
            (&[("group", 2, None)], FilterError::UnsupportedType("group".into())),
            (&[("user", 0, None)], FilterError::TextMissing),
            (&[("user", 1, Some("x"))], FilterError::TextGiven("MATCH_TYPE_DEFAULT")),
            (&[("user", 2, Some("x"))], FilterError::TextGiven("MATCH_TYPE_SPECIFIED")),
            (&[("user", 3, None)], FilterError::UnknownMatch(3)),
            (&[("user", -1, None)], FilterError::UnknownMatch(-1)),
            (&[("user", 2, None), ("user", 1, None)], FilterError::Twice("user".into())),
            (&[("ip", 2, None), ("user", 1, None)], FilterError::Combination),
        ];
        for (components, expected) in cases {
            assert_eq!(Filter::new(components.iter().copied(), false).as_ref(), Err(expected));
        }
    }
}
