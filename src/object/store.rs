//! Requests to the object store: keys, timeouts, retries, and a put that is safe to repeat.
//!
//! Invariants: a get returns exactly the bytes of the range that was asked for or an error; a put never replaces an
//! object, and succeeds only if the store holds exactly its bytes, whether or not an earlier answer was lost. The
//! back ends' own retries are off, so that every attempt is counted here and jitter comes from `env::Entropy`.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutPayload};

use crate::base::checksum::Crc32c;
use crate::base::{ClusterId, ObjectId};
use crate::env::{Clock, Entropy};

use super::error::StoreError;
use super::failure::{Failure, classify};
use super::local::StoredKey;
use super::metrics::{ObjectMetrics, Outcome, Request, add};
use super::snapshot;

/// Attempts of a request before it is given up.
const ATTEMPTS: u32 = 5;
/// First pause between two attempts; doubled each time, half of it random.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(3);
/// Time for one attempt, besides that for its bytes.
const ATTEMPT: Duration = Duration::from_secs(15);
/// Slowest transfer that is waited for, bytes per second.
const SLOWEST: u64 = 512 * 1024;
/// Bytes fetched at once where a whole object is compared or a snapshot read.
const CHUNK_BYTES: u64 = 4 * 1024 * 1024;
/// Entries of one listing.
const LIST_MAX: usize = 100_000;

/// Where things are kept: `<prefix>/<cluster>/objects/<shard>/<object id>` and
/// `<prefix>/<cluster>/metadata/<generation>-<applied>`, numbers in hexadecimal so that names sort as they count.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    root: String,
}

impl Keys {
    pub fn new(prefix: &str, cluster: ClusterId) -> Self {
        let prefix = prefix.trim_matches('/');
        let separator = if prefix.is_empty() { "" } else { "/" };
        Keys { root: format!("{prefix}{separator}{cluster}") }
    }

    /// The shard is the low byte of the id: neighbours spread over 256 folders.
    pub fn object(&self, object: ObjectId) -> Path {
        Path::from(format!("{}/objects/{:02x}/{:016x}", self.root, object.0 & 0xff, object.0))
    }

    pub fn snapshots(&self) -> Path {
        Path::from(format!("{}/metadata", self.root))
    }

    pub fn snapshot(&self, generation: u64, applied: u64) -> Path {
        Path::from(format!("{}/metadata/{generation:016x}-{applied:016x}", self.root))
    }

    pub fn probe(&self, nonce: u64) -> Path {
        Path::from(format!("{}/probe-{nonce:016x}", self.root))
    }

    pub fn of(&self, key: StoredKey) -> Path {
        match key {
            StoredKey::Object(object) => self.object(object),
            StoredKey::Snapshot { generation, applied } => self.snapshot(generation, applied),
            StoredKey::Probe(nonce) => self.probe(nonce),
        }
    }

    /// What a path of this cluster names; none for any other path.
    pub fn parse(&self, path: &Path) -> Option<StoredKey> {
        let rest = path.as_ref().strip_prefix(&self.root)?.strip_prefix('/')?;
        let name = rest.rsplit('/').next()?;
        let key = if let Some(nonce) = rest.strip_prefix("probe-") {
            StoredKey::Probe(u64::from_str_radix(nonce, 16).ok()?)
        } else if rest.starts_with("metadata/") {
            let (generation, applied) = snapshot::parse_name(name)?;
            StoredKey::Snapshot { generation, applied }
        } else {
            StoredKey::Object(ObjectId(u64::from_str_radix(name, 16).ok()?))
        };
        // One key has one name, and a name that is written otherwise has none.
        (self.of(key) == *path).then_some(key)
    }
}

/// The store with everything that its requests need.
pub(super) struct Store {
    pub inner: Arc<dyn ObjectStore>,
    pub keys: Keys,
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
    pub metrics: Arc<ObjectMetrics>,
}

impl Store {
    /// Exactly the bytes of `range`.
    pub async fn get_range(&self, key: &Path, range: Range<u64>) -> Result<Bytes, StoreError> {
        let expected = range.end.saturating_sub(range.start);
        let fetched = self
            .retried(Request::Get, key, expected, || {
                let range = range.clone();
                Box::pin(async move {
                    let options = GetOptions { range: Some(GetRange::Bounded(range.clone())), ..Default::default() };
                    let answer = self.inner.get_opts(key, options).await?;
                    let described = answer.range.clone();
                    let bytes = answer.bytes().await?;
                    if described != range || bytes.len() as u64 != expected {
                        return Err(generic(format!("{} bytes came of the {expected} asked for", bytes.len())));
                    }
                    Ok(bytes)
                })
            })
            .await;
        match fetched {
            Ok(bytes) => {
                add(&self.metrics.bytes_read, expected);
                Ok(bytes)
            }
            // An object cut short answers no range beyond its end: told apart from a store that is away.
            Err(error @ (StoreError::Unavailable { .. } | StoreError::Refused { .. })) => {
                match self.once(Request::Head, 0, self.inner.head(key)).await {
                    Ok(meta) if meta.size < range.end => {
                        Err(StoreError::Length { key: key.to_string(), expected: range.end, found: meta.size })
                    }
                    _ => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }

    pub async fn head(&self, key: &Path) -> Result<ObjectMeta, StoreError> {
        self.retried(Request::Head, key, 0, || Box::pin(self.inner.head(key))).await
    }

    /// Stores `pieces` under a key that no other content may have.
    pub async fn put_new(&self, key: &Path, pieces: &[Bytes]) -> Result<(), StoreError> {
        let bytes = pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
        let payload: PutPayload = pieces.iter().cloned().collect();
        let mut attempt = 0;
        loop {
            let put = self.inner.put_opts(key, payload.clone(), PutMode::Create.into());
            let failure = match self.once(Request::Put, bytes, put).await {
                Ok(_) => {
                    add(&self.metrics.bytes_written, bytes);
                    return Ok(());
                }
                // The answer to an earlier attempt may have been lost on its way.
                Err(Failure::Exists) => match self.holds(key, pieces, bytes).await {
                    Ok(true) => return Ok(()),
                    Ok(false) => return Err(StoreError::Exists { key: key.to_string() }),
                    // Another put of the key is under way and may still fail.
                    Err(StoreError::NotFound { .. }) => Failure::Transient("a put is under way".to_owned()),
                    Err(error) => return Err(error),
                },
                Err(failure) => failure,
            };
            attempt += 1;
            self.pause(key, failure, attempt).await?;
        }
    }

    /// Whether the stored object is exactly `pieces`, by length and checksum.
    async fn holds(&self, key: &Path, pieces: &[Bytes], bytes: u64) -> Result<bool, StoreError> {
        if self.head(key).await?.size != bytes {
            return Ok(false);
        }
        let mut expected = Crc32c::new();
        pieces.iter().for_each(|piece| expected.update(piece));
        let mut found = Crc32c::new();
        let mut at = 0;
        while at < bytes {
            let to = bytes.min(at + CHUNK_BYTES);
            found.update(&self.get_range(key, at..to).await?);
            at = to;
        }
        Ok(expected.finish() == found.finish())
    }

    /// The whole content of a key, `bytes` long; memory grows with what has arrived.
    pub async fn get_all(&self, key: &Path, bytes: u64) -> Result<Bytes, StoreError> {
        let mut whole = Vec::new();
        while (whole.len() as u64) < bytes {
            let at = whole.len() as u64;
            whole.extend_from_slice(&self.get_range(key, at..bytes.min(at + CHUNK_BYTES)).await?);
        }
        Ok(whole.into())
    }

    /// Deletes a key; one that does not exist counts as deleted.
    pub async fn delete(&self, key: &Path) -> Result<(), StoreError> {
        let deleted = self.retried(Request::Delete, key, 0, || Box::pin(self.inner.delete(key))).await;
        match deleted {
            Err(StoreError::NotFound { .. }) => Ok(()),
            other => other,
        }
    }

    /// What lies under `prefix`; may lag behind what was written, so nothing may rest on an absence.
    pub async fn list(&self, prefix: &Path) -> Result<Vec<ObjectMeta>, StoreError> {
        self.retried(Request::List, prefix, 0, || {
            Box::pin(self.inner.list(Some(prefix)).take(LIST_MAX).try_collect::<Vec<_>>())
        })
        .await
    }

    async fn retried<'a, T>(
        &'a self,
        request: Request,
        key: &Path,
        bytes: u64,
        operation: impl Fn() -> BoxFuture<'a, object_store::Result<T>>,
    ) -> Result<T, StoreError> {
        let mut attempt = 0;
        loop {
            match self.once(request, bytes, operation()).await {
                Ok(value) => return Ok(value),
                Err(failure) => {
                    attempt += 1;
                    self.pause(key, failure, attempt).await?;
                }
            }
        }
    }

    /// One attempt within its time.
    pub async fn once<T>(
        &self,
        request: Request,
        bytes: u64,
        operation: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, Failure> {
        let limit = ATTEMPT + transfer_time(bytes);
        let begun = self.clock.boottime();
        let result = match tokio::time::timeout(limit, operation).await {
            Ok(result) => result.map_err(|error| classify(&error)),
            Err(_) => Err(Failure::Timeout),
        };
        let outcome = result.as_ref().map_or_else(Failure::outcome, |_| Outcome::Ok);
        self.metrics.record(request, outcome, self.clock.boottime().saturating_sub(begun));
        result
    }

    /// Waits before the next attempt, or gives up.
    async fn pause(&self, key: &Path, failure: Failure, attempt: u32) -> Result<(), StoreError> {
        let reason = match failure {
            Failure::Transient(reason) => reason,
            Failure::Timeout => "no answer in time".to_owned(),
            Failure::Connect(reason) | Failure::Tls(reason) => reason,
            other => return Err(other.into_error(key)),
        };
        if attempt >= ATTEMPTS {
            return Err(StoreError::Unavailable { key: key.to_string(), attempts: attempt, reason });
        }
        let whole = PAUSE.saturating_mul(1 << (attempt - 1)).min(PAUSE_MAX);
        let random = (self.random() >> 11) as f64 / (1u64 << 53) as f64;
        tokio::time::sleep(whole.mul_f64(0.5 + random / 2.0)).await;
        Ok(())
    }

    pub fn random(&self) -> u64 {
        let mut bytes = [0; 8];
        self.entropy.fill(&mut bytes);
        u64::from_be_bytes(bytes)
    }
}

/// How long `bytes` may be under way.
pub(super) fn transfer_time(bytes: u64) -> Duration {
    Duration::from_millis(bytes.saturating_mul(1000) / SLOWEST)
}

fn generic(reason: String) -> object_store::Error {
    object_store::Error::Generic { store: "casemate", source: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_as_their_numbers_and_carry_the_cluster() {
        let keys = Keys::new("/a/b/", ClusterId([0; 16]));
        assert_eq!(keys.object(ObjectId(0x1234)).as_ref(), "a/b/AAAAAAAAAAAAAAAAAAAAAA/objects/34/0000000000001234");
        assert!(keys.snapshot(9, 200) < keys.snapshot(10, 3));
        for key in
            [StoredKey::Object(ObjectId(7)), StoredKey::Snapshot { generation: 1, applied: 2 }, StoredKey::Probe(9)]
        {
            assert_eq!(keys.parse(&keys.of(key)), Some(key));
            assert_eq!(Keys::new("", ClusterId([1; 16])).parse(&keys.of(key)), None);
        }
        let root = "a/b/AAAAAAAAAAAAAAAAAAAAAA";
        for other in ["objects/35/0000000000001234", "objects/34/1234", "metadata/1-2", "probe-1", ".sums/x"] {
            assert_eq!(keys.parse(&Path::from(format!("{root}/{other}"))), None, "{other}");
        }
        assert_eq!(
            Keys::new("", ClusterId([0; 16])).snapshot(1, 0xab).as_ref(),
            "AAAAAAAAAAAAAAAAAAAAAA/metadata/0000000000000001-00000000000000ab"
        );
    }
}
