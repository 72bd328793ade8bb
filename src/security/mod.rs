//! Who a peer is and what it may do: TLS, principals, permits, and the certificates that `casemate init` makes.
//!
//! Invariants: no listener built here admits a client without a certificate of the configured authority; nobody but
//! this module can make a [`Permit`], so whatever demands one has been authorized; no root certificate of the host is
//! ever trusted. Nothing here reads the wall clock or draws identifiers except through `env`.

mod der;
mod dn;
#[cfg(test)]
mod dn_cases;
mod files;
mod mapping;
mod permit;
mod pki;
mod principal;
mod tls;
#[cfg(test)]
mod tls_tests;

pub use der::Malformed;
pub use files::FileError;
pub use mapping::{PrincipalRules, RuleError, WholePattern};
pub use permit::{Authorizer, Denied, Operation, Permit, Resource, ResourceKind};
pub use pki::{CreateError, Created, InitOptions, Issued, create, issue_node, write_client_settings};
pub use principal::{Principal, PrincipalError};
pub use tls::{AcceptError, ClientIdentity, PeerIdentity, ServerTls, TlsError, TlsFiles, TlsStream, client_config};
