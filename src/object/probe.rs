//! Finds out at start whether object storage can do what is needed, and says in one sentence what to change if not.
//!
//! Writes one small object under the prefix, reads it back, tries to replace it by a conditional put (which must
//! fail), lists, and deletes it. No other key is touched.

use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::{GetOptions, GetRange, ObjectStoreExt, PutMode};

use super::error::ProbeError;
use super::failure::Failure;
use super::metrics::Request;
use super::store::Store;

/// What the probe found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// For messages: folder or bucket and service.
    pub place: String,
    /// How long the put took.
    pub put_latency: Duration,
    /// How long the get took.
    pub get_latency: Duration,
}

const CONTENT: &[u8] = b"casemate probe: this object may be deleted\n";
const REPLACEMENT: &[u8] = b"casemate probe: this must never be stored\n";

pub(super) async fn probe(store: &Store, place: &str) -> Result<Capabilities, ProbeError> {
    let key = store.keys.probe(store.random());
    let begun = store.clock.boottime();
    let put = store.inner.put_opts(&key, Bytes::from_static(CONTENT).into(), PutMode::Create.into());
    store.once(Request::Put, CONTENT.len() as u64, put).await.map_err(|failure| explain(failure, place))?;
    let put_latency = store.clock.boottime().saturating_sub(begun);
    let checked = check(store, place, &key).await;
    // Deleted whatever was found out; that it can be is a finding too.
    let deleted = store.once(Request::Delete, 0, store.inner.delete(&key)).await;
    let get_latency = checked?;
    deleted.map_err(|failure| explain(failure, place))?;
    Ok(Capabilities { place: place.to_owned(), put_latency, get_latency })
}

async fn check(store: &Store, place: &str, key: &object_store::path::Path) -> Result<Duration, ProbeError> {
    let explained = |failure| explain(failure, place);
    let begun = store.clock.boottime();
    let get = async {
        let range = Some(GetRange::Bounded(1..CONTENT.len() as u64));
        store.inner.get_opts(key, GetOptions { range, ..Default::default() }).await?.bytes().await
    };
    let found = store.once(Request::Get, CONTENT.len() as u64, get).await.map_err(explained)?;
    let latency = store.clock.boottime().saturating_sub(begun);
    if found != CONTENT[1..] {
        let reason = format!("{} bytes, of {}", found.len(), CONTENT.len() - 1);
        return Err(ProbeError::Unfaithful { place: place.to_owned(), reason });
    }
    let again = store.inner.put_opts(key, Bytes::from_static(REPLACEMENT).into(), PutMode::Create.into());
    match store.once(Request::Put, REPLACEMENT.len() as u64, again).await {
        Err(Failure::Exists) => {}
        Ok(_) => return Err(ProbeError::NoConditionalPut { place: place.to_owned() }),
        Err(failure) => return Err(explain(failure, place)),
    }
    let prefix = store.keys.snapshots();
    let listing = store.inner.list(Some(&prefix)).try_collect::<Vec<_>>();
    store.once(Request::List, 0, listing).await.map_err(explained)?;
    Ok(latency)
}

fn explain(failure: Failure, place: &str) -> ProbeError {
    let place = place.to_owned();
    match failure {
        Failure::Timeout => ProbeError::Unreachable { place, reason: "no answer in time".to_owned() },
        Failure::Connect(reason) => ProbeError::Unreachable { place, reason },
        Failure::Tls(reason) => ProbeError::Tls { place, reason },
        Failure::Credentials(reason) => ProbeError::Credentials { place, reason },
        Failure::NoBucket(reason) => ProbeError::NoBucket { place, reason },
        Failure::NotFound => ProbeError::NoBucket { place, reason: "HTTP status 404".to_owned() },
        Failure::Denied(reason) => ProbeError::ReadOnly { place, reason },
        Failure::Full(reason) => ProbeError::Full { place, reason },
        Failure::Exists => ProbeError::Failed { place, reason: "a new key already exists".to_owned() },
        Failure::Transient(reason) | Failure::Refused(reason) | Failure::Fenced(reason) => {
            ProbeError::Failed { place, reason }
        }
    }
}
