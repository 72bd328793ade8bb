//! Host names to addresses without the C library: /etc/hosts, then the name servers of /etc/resolv.conf.
//!
//! A static binary must not call getaddrinfo, which would load the host's shared objects.

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{Hosts, TokioResolver};

/// Why a name has no address.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    #[error("{0} is not a host name")]
    Name(String),
    #[error("{host} is not in /etc/hosts, and /etc/resolv.conf cannot be used: {reason}")]
    NoNameServer { host: String, reason: String },
    #[error("{host} cannot be resolved: {reason}")]
    Lookup { host: String, reason: String },
}

/// Looks names up. The files are read at the first look-up and again after one that failed.
#[derive(Default)]
pub struct Names {
    resolver: Mutex<Option<Arc<TokioResolver>>>,
}

impl Names {
    /// Addresses of `host`, at least one; an IP literal is its own address.
    pub async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, ResolveError> {
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        if let Ok(address) = bare.parse() {
            return Ok(vec![address]);
        }
        let name = Name::from_str(host).map_err(|_| ResolveError::Name(host.to_owned()))?;
        let known = in_hosts_file(&name).await;
        if !known.is_empty() {
            return Ok(known);
        }
        let resolver = self.resolver(host)?;
        let result = match resolver.lookup_ip(name).await {
            Ok(found) => Ok(found.iter().collect::<Vec<_>>()),
            Err(error) => Err(error.to_string()),
        };
        match result {
            Ok(addresses) if !addresses.is_empty() => Ok(addresses),
            other => {
                *self.resolver.lock().unwrap_or_else(PoisonError::into_inner) = None;
                let reason = other.err().unwrap_or_else(|| "it has no address".to_owned());
                Err(ResolveError::Lookup { host: host.to_owned(), reason })
            }
        }
    }

    fn resolver(&self, host: &str) -> Result<Arc<TokioResolver>, ResolveError> {
        let mut current = self.resolver.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(resolver) = &*current {
            return Ok(resolver.clone());
        }
        let built = TokioResolver::builder_tokio().and_then(|builder| builder.build());
        match built {
            Ok(resolver) => Ok(current.insert(Arc::new(resolver)).clone()),
            Err(error) => Err(ResolveError::NoNameServer { host: host.to_owned(), reason: error.to_string() }),
        }
    }
}

async fn in_hosts_file(name: &Name) -> Vec<IpAddr> {
    let Ok(Ok(hosts)) = tokio::task::spawn_blocking(Hosts::from_system).await else { return Vec::new() };
    let mut found = Vec::new();
    for kind in [RecordType::A, RecordType::AAAA] {
        let Some(lookup) = hosts.lookup_static_host(&Query::query(name.clone(), kind)) else { continue };
        for record in lookup.answers() {
            match &record.data {
                RData::A(address) => found.push(IpAddr::V4(address.0)),
                RData::AAAA(address) => found.push(IpAddr::V6(address.0)),
                _ => {}
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn literals_and_the_hosts_file_need_no_name_server() {
        let names = Names::default();
        assert_eq!(names.resolve("127.0.0.1").await.unwrap(), ["127.0.0.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(names.resolve("[::1]").await.unwrap(), ["::1".parse::<IpAddr>().unwrap()]);
        let local = names.resolve("localhost").await.unwrap();
        assert!(local.iter().all(IpAddr::is_loopback) && !local.is_empty());
        assert!(matches!(names.resolve("a..b").await, Err(ResolveError::Name(_))));
    }
}
