//! A principal: who is asking, as Kafka names it.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

/// A type and a name, both case-sensitive; printed and parsed as `User:CN=admin,O=example`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Principal {
    kind: String,
    name: String,
}

/// A text that names no principal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no principal: write type and name with a colon between, such as User:CN=admin,O=example")]
pub struct PrincipalError(String);

impl Principal {
    /// The principal of a user, `User:name`.
    pub fn user(name: impl Into<String>) -> Self {
        Principal { kind: "User".to_owned(), name: name.into() }
    }

    /// Who a client without a certificate is.
    pub fn anonymous() -> Self {
        Principal::user("ANONYMOUS")
    }

    pub fn kind(&self) -> &str {
        &self.kind
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads a `super.users` setting: principals separated by `;`, the spaces around them ignored.
    pub fn parse_list(text: &str) -> Result<HashSet<Principal>, PrincipalError> {
        text.split(';').map(str::trim).filter(|entry| !entry.is_empty()).map(str::parse).collect()
    }
}

impl FromStr for Principal {
    type Err = PrincipalError;

    fn from_str(text: &str) -> Result<Self, PrincipalError> {
        match text.split_once(':') {
            Some((kind, name)) if !kind.is_empty() => Ok(Principal { kind: kind.to_owned(), name: name.to_owned() }),
            _ => Err(PrincipalError(text.to_owned())),
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_reads_back_as_printed() {
        for text in ["User:CN=admin,O=example", "User:ANONYMOUS", "Group:a:b", "User:"] {
            assert_eq!(text.parse::<Principal>().unwrap().to_string(), text);
        }
        assert_ne!("user:a".parse::<Principal>(), "User:a".parse());
        assert_ne!("User:A".parse::<Principal>(), "User:a".parse());
        assert!("admin".parse::<Principal>().is_err());
        assert!(":admin".parse::<Principal>().is_err());
    }

    #[test]
    fn super_users_are_separated_by_semicolons() {
        let users = Principal::parse_list(" User:CN=a,O=x ; User:b;; ").unwrap();
        assert_eq!(users, HashSet::from([Principal::user("CN=a,O=x"), Principal::user("b")]));
        assert!(Principal::parse_list("User:a;b").is_err());
        assert!(Principal::parse_list("").unwrap().is_empty());
    }
}
