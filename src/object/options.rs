//! Where objects are kept, and how much memory reading them may use.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
use object_store::{ObjectStore, RetryConfig};
use tokio_rustls::TlsConnector;

use super::credentials::FileCredentials;
use super::error::OpenError;
use super::folder::SyncedFolder;
use super::http::{Dialer, Transport};

const MIB: u64 = 1024 * 1024;

/// Where objects are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A folder of this machine; made if it does not exist.
    Folder(PathBuf),
    Bucket(Bucket),
}

/// A bucket of an S3-compatible service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    pub name: String,
    /// What every key begins with; may be empty.
    pub prefix: String,
    pub region: String,
    /// `https://host[:port]`; empty for Amazon's in the region. `http` reaches loopback addresses only.
    pub endpoint: String,
    /// TOML with `access_key_id`, `secret_access_key` and, where there is one, `session_token`; mode 600. Read again
    /// when it changes.
    pub credentials_file: PathBuf,
}

/// How objects are opened and read.
#[derive(Debug, Clone)]
pub struct ObjectOptions {
    pub place: Place,
    /// Memory for blocks, bytes.
    pub cache_bytes: u64,
    /// Memory for indexes of runs, bytes.
    pub index_cache_bytes: u64,
    /// Bytes that may be under way from the store to readers.
    pub read_bytes: u64,
    /// Requests that may be under way for readers.
    pub read_requests: usize,
    /// Most that is fetched ahead of one reader, bytes; 0 turns it off.
    pub read_ahead_bytes: u64,
}

impl ObjectOptions {
    /// The defaults at `place`.
    pub fn at(place: Place) -> Self {
        ObjectOptions {
            place,
            cache_bytes: 64 * MIB,
            index_cache_bytes: 8 * MIB,
            read_bytes: 64 * MIB,
            read_requests: 32,
            read_ahead_bytes: 8 * MIB,
        }
    }
}

/// An opened back end: the store, the prefix of its keys, and a name for messages.
pub(super) struct Backend {
    pub store: Arc<dyn ObjectStore>,
    pub prefix: String,
    pub place: String,
}

/// Opens the back end. Blocks on file I/O; no request is made to a service.
pub(super) fn backend(place: &Place, tls: Option<TlsConnector>) -> Result<Backend, OpenError> {
    match place {
        Place::Folder(path) => folder(path),
        Place::Bucket(bucket) => service(bucket, tls),
    }
}

fn folder(path: &Path) -> Result<Backend, OpenError> {
    let folder = open_folder(path)?;
    Ok(Backend { store: Arc::new(folder), prefix: String::new(), place: format!("the folder {}", path.display()) })
}

pub(super) fn open_folder(path: &Path) -> Result<SyncedFolder, OpenError> {
    SyncedFolder::open(path).map_err(|error| OpenError::Folder {
        path: path.display().to_string(),
        reason: error.to_string(),
        remedy: match error.kind() {
            ErrorKind::AlreadyExists | ErrorKind::NotADirectory => "move the file that is in its way elsewhere",
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                "let this user write there (check mount, owner and mode)"
            }
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "free space there",
            _ => "check the disk and its mount",
        },
    })
}

fn service(bucket: &Bucket, tls: Option<TlsConnector>) -> Result<Backend, OpenError> {
    let plain = bucket.endpoint.starts_with("http://");
    let refused = |key, value: &str, reason: String| OpenError::Option { key, value: value.to_owned(), reason };
    if !plain && tls.is_none() {
        let reason = "must name the authority that the service's certificate comes from".to_owned();
        return Err(refused("ca_file", "", reason));
    }
    let credentials = Arc::new(FileCredentials::open(&bucket.credentials_file)?);
    // Every attempt is made by this module, which counts it and draws its own jitter.
    let no_retry = RetryConfig { max_retries: 0, retry_timeout: Duration::ZERO, ..Default::default() };
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&bucket.name)
        .with_region(&bucket.region)
        .with_credentials(credentials)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_disable_bulk_delete(true)
        .with_retry(no_retry)
        .with_allow_http(plain)
        // TLS protects the bytes on their way, and every byte has a checksum of ours: a further pass over them for
        // the signature would cost more than both.
        .with_unsigned_payload(!plain)
        .with_http_connector(Transport::new(Dialer::new(if plain { None } else { tls })));
    if !bucket.endpoint.is_empty() {
        builder = builder.with_endpoint(bucket.endpoint.trim_end_matches('/'));
    }
    let store = builder.build().map_err(|error| refused("endpoint", &bucket.endpoint, error.to_string()))?;
    let at = if bucket.endpoint.is_empty() { &bucket.region } else { &bucket.endpoint };
    let place = format!("the bucket {} at {at}", bucket.name);
    Ok(Backend { store: Arc::new(store), prefix: bucket.prefix.clone(), place })
}
