//! The seam to a store that several nodes keep together: what it must do, and how it looks to the requests of this
//! module. While the node is alone everything goes to its own folder as if the other nodes' part were not there.

use std::fmt::{Debug, Display};
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path as Key;
use object_store::{
    CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
};

use super::folder::{FolderError, SyncedFolder, unsupported, wrapped};
use super::local::{LocalStore, StoredKey};
use super::store::Keys;

/// Why the nodes together cannot do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SharedError {
    /// Enough nodes have said so.
    #[error("no node has it")]
    Missing,
    #[error("the key has other content")]
    Exists,
    #[error("it has {0} bytes and ends before the range")]
    Short(u64),
    #[error("the disk is full: {0}")]
    Full(String),
    /// A sync of this node's own folder failed. Final: the process must end.
    #[error("{0}")]
    Fenced(Arc<str>),
    /// Too few nodes answered, or none with a copy that is whole. A put may have been applied.
    #[error("{0}")]
    Away(String),
}

/// What several nodes keep together. A put never replaces, and counts when so many nodes have synced it that the loss of
/// one keeps it.
pub trait SharedStore: Debug + Display + Send + Sync {
    /// Whether this node is the only one: then its own folder is all there is.
    fn is_alone(&self) -> bool;
    /// The same content twice is success.
    fn put(&self, key: StoredKey, pieces: Vec<Bytes>) -> BoxFuture<'_, Result<(), SharedError>>;
    /// The bytes of a range, and the length of the whole.
    fn read(&self, key: StoredKey, range: Range<u64>) -> BoxFuture<'_, Result<(Bytes, u64), SharedError>>;
    /// Length of the whole.
    fn bytes(&self, key: StoredKey) -> BoxFuture<'_, Result<u64, SharedError>>;
    /// What does not exist counts as deleted.
    fn delete(&self, key: StoredKey) -> BoxFuture<'_, Result<(), SharedError>>;
    /// All snapshots with their lengths.
    fn snapshots(&self) -> BoxFuture<'_, Result<Vec<(StoredKey, u64)>, SharedError>>;
}

/// Of object_store, unless another error is named.
type Result<T, E = Error> = std::result::Result<T, E>;

/// A [`SharedStore`] as a back end.
#[derive(Debug)]
pub(super) struct SharedBackend {
    folder: SyncedFolder,
    keys: Keys,
    shared: Arc<dyn SharedStore>,
}

impl SharedBackend {
    pub fn new(local: &LocalStore, shared: Arc<dyn SharedStore>) -> SharedBackend {
        SharedBackend { folder: local.folder.clone(), keys: local.keys.clone(), shared }
    }

    fn key(&self, path: &Key) -> Result<StoredKey> {
        self.keys.parse(path).ok_or_else(|| Error::NotFound { path: path.to_string(), source: "not a key".into() })
    }

    fn meta(&self, location: Key, size: u64) -> ObjectMeta {
        // Nothing asks when a copy was made, and the nodes need not agree about it.
        ObjectMeta { location, last_modified: Default::default(), size, e_tag: None, version: None }
    }
}

fn failed(path: &Key, error: SharedError) -> Error {
    let path = path.to_string();
    match error {
        SharedError::Missing => Error::NotFound { path, source: Box::new(error) },
        SharedError::Exists => Error::AlreadyExists { path, source: Box::new(error) },
        SharedError::Fenced(reason) => wrapped(FolderError::Fenced(reason)),
        SharedError::Full(reason) => {
            let source = io::Error::new(io::ErrorKind::StorageFull, reason);
            wrapped(FolderError::File { path: path.into(), source })
        }
        SharedError::Short(_) | SharedError::Away(_) => Error::Generic { store: "bundled", source: Box::new(error) },
    }
}

impl Display for SharedBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Display::fmt(&self.shared, f)
    }
}

#[async_trait::async_trait]
impl ObjectStore for SharedBackend {
    async fn put_opts(&self, path: &Key, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        if self.shared.is_alone() {
            return self.folder.put_opts(path, payload, options).await;
        }
        if options.mode != PutMode::Create {
            return Err(unsupported("a put that replaces"));
        }
        let pieces = payload.as_ref().to_vec();
        self.shared.put(self.key(path)?, pieces).await.map_err(|error| failed(path, error))?;
        Ok(PutResult { e_tag: None, version: None, extensions: Default::default() })
    }

    async fn put_multipart_opts(&self, _: &Key, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(unsupported("put in parts"))
    }

    async fn get_opts(&self, path: &Key, options: GetOptions) -> Result<GetResult> {
        if self.shared.is_alone() {
            return self.folder.get_opts(path, options).await;
        }
        let key = self.key(path)?;
        let (bytes, range, size) = match options.range {
            _ if options.head => {
                let size = self.shared.bytes(key).await.map_err(|error| failed(path, error))?;
                (Bytes::new(), 0..0, size)
            }
            Some(GetRange::Bounded(range)) => {
                let read = self.shared.read(key, range.clone()).await;
                let (bytes, size) = read.map_err(|error| failed(path, error))?;
                (bytes, range, size)
            }
            _ => return Err(unsupported("a get without a range")),
        };
        let payload = GetResultPayload::Stream(futures_util::stream::once(std::future::ready(Ok(bytes))).boxed());
        let meta = self.meta(path.clone(), size);
        Ok(GetResult { payload, meta, range, attributes: Default::default(), extensions: Default::default() })
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Key>>) -> BoxStream<'static, Result<Key>> {
        if self.shared.is_alone() {
            return self.folder.delete_stream(paths);
        }
        let (shared, keys) = (self.shared.clone(), self.keys.clone());
        let delete = move |path: Result<Key>| {
            let (shared, keys) = (shared.clone(), keys.clone());
            async move {
                let path = path?;
                let missing = || Error::NotFound { path: path.to_string(), source: "not a key".into() };
                let key = keys.parse(&path).ok_or_else(missing)?;
                shared.delete(key).await.map_err(|error| failed(&path, error))?;
                Ok(path)
            }
        };
        paths.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Key>) -> BoxStream<'static, Result<ObjectMeta>> {
        if self.shared.is_alone() {
            return self.folder.list(prefix);
        }
        let snapshots = self.keys.snapshots();
        if prefix != Some(&snapshots) {
            return futures_util::stream::once(std::future::ready(Err(unsupported("a list of anything else")))).boxed();
        }
        let (shared, keys) = (self.shared.clone(), self.keys.clone());
        let listed = async move {
            let found = shared.snapshots().await.map_err(|error| failed(&snapshots, error))?;
            let meta = move |(key, size): (StoredKey, u64)| {
                let (location, last_modified) = (keys.of(key), Default::default());
                Ok(ObjectMeta { location, last_modified, size, e_tag: None, version: None })
            };
            Ok::<_, Error>(futures_util::stream::iter(found.into_iter().map(meta)))
        };
        listed.into_stream().try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, _: Option<&Key>) -> Result<ListResult> {
        Err(unsupported("a list with a delimiter"))
    }

    async fn copy_opts(&self, _: &Key, _: &Key, _: CopyOptions) -> Result<()> {
        Err(unsupported("copy"))
    }
}
