//! The local folder as an object store: a put is durable when it returns.
//!
//! A put writes to a temporary name, syncs the file, links it to its key and syncs the folder. A sync that fails is
//! final: the folder is fenced, because after an error the kernel counts the pages as clean and a second sync would
//! succeed without having written them. Reads of a range go into buffers that are used again; other reads and listings
//! are object_store's own. Its puts are not used, because they make one system call per piece and do not say which
//! step failed.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{
    CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use crate::env::failpoint;

use super::buffers::Buffers;
use super::staging::{self, StageError};

/// Puts are written here first; emptied at start. No key begins with a dot.
const INCOMING: &str = ".incoming";

#[derive(Debug, thiserror::Error)]
pub(super) enum FolderError {
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("{0}")]
    Fenced(Arc<str>),
}

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct SyncedFolder {
    reader: LocalFileSystem,
    pub buffers: Buffers,
    pub shared: Arc<Shared>,
}

/// The folder's writing side. Every call blocks.
#[derive(Debug)]
pub(super) struct Shared {
    pub root: PathBuf,
    next: AtomicU64,
    /// Folders whose entry in their parent this process has synced. That one exists says nothing: whoever made it may
    /// have been killed before its sync, or be about to do it.
    kept: Mutex<HashSet<PathBuf>>,
    /// Why a sync failed, once one has.
    fenced: OnceLock<Arc<str>>,
}

impl SyncedFolder {
    /// Opens the folder, makes it if it does not exist, and removes what an interrupted put left behind.
    pub fn open(root: &Path) -> io::Result<Self> {
        let root = std::path::absolute(root)?;
        let existing = root.ancestors().skip(1).find(|folder| folder.is_dir()).map(Path::to_owned);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&root)?;
        for folder in root.ancestors().skip(1) {
            File::open(folder)?.sync_all()?;
            if existing.as_deref() == Some(folder) {
                break;
            }
        }
        let root = root.canonicalize()?;
        let incoming = root.join(INCOMING);
        if incoming.exists() {
            fs::remove_dir_all(&incoming)?;
        }
        fs::DirBuilder::new().mode(0o700).create(&incoming)?;
        File::open(&root)?.sync_all()?;
        let reader = LocalFileSystem::new_with_prefix(&root).map_err(io::Error::other)?;
        let kept = Mutex::new(HashSet::from([root.clone()]));
        let shared = Shared { root, next: AtomicU64::new(0), kept, fenced: OnceLock::new() };
        Ok(SyncedFolder { reader, buffers: Buffers::default(), shared: Arc::new(shared) })
    }
}

/// Opened before it is changed: to be unable to open it afterwards would leave the change unsynced.
fn open_to_sync(path: &Path) -> Result<File, FolderError> {
    File::open(path).map_err(|source| FolderError::File { path: path.to_owned(), source })
}

impl Shared {
    pub fn check(&self) -> Result<(), FolderError> {
        match self.fenced.get() {
            Some(reason) => Err(FolderError::Fenced(reason.clone())),
            None => Ok(()),
        }
    }

    /// Fences the folder for good.
    pub fn fence(&self, path: &Path, error: io::Error) -> FolderError {
        let reason: Arc<str> = format!("sync of {}: {error}", path.display()).into();
        FolderError::Fenced(self.fenced.get_or_init(|| reason).clone())
    }

    /// A name for a file that is not published yet. Whoever uses it removes it.
    pub fn staged_name(&self) -> PathBuf {
        self.root.join(INCOMING).join(format!("{:x}", self.next.fetch_add(1, Relaxed)))
    }

    /// Returns false when the key exists and `mode` does not replace it.
    pub fn put(&self, path: &Path, pieces: &[Bytes], mode: &PutMode) -> Result<bool, FolderError> {
        self.check()?;
        let staged = self.staged_name();
        let published = self.stage(&staged, pieces).and_then(|()| self.publish(&staged, path, mode));
        // After a rename there is nothing left to remove, after a link the second name.
        let _ = fs::remove_file(&staged);
        published
    }

    fn stage(&self, staged: &Path, pieces: &[Bytes]) -> Result<(), FolderError> {
        let file = staging::write(staged, pieces).map_err(|error| match error {
            StageError::Write(source) => FolderError::File { path: staged.to_owned(), source },
            StageError::Sync(error) => self.fence(staged, error),
        })?;
        failpoint::hit("object-before-sync");
        failpoint::error("object-sync").and_then(|()| file.sync_all()).map_err(|error| self.fence(staged, error))?;
        Ok(())
    }

    /// Gives a staged and synced file its name.
    pub fn publish(&self, staged: &Path, path: &Path, mode: &PutMode) -> Result<bool, FolderError> {
        let failed = |source| FolderError::File { path: path.to_owned(), source };
        let Some(folder) = path.parent() else { return Err(failed(io::ErrorKind::InvalidInput.into())) };
        self.make_folder(folder)?;
        let opened = open_to_sync(folder)?;
        failpoint::hit("object-before-link");
        let published = match mode {
            PutMode::Create => match fs::hard_link(staged, path) {
                Ok(()) => true,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    // Whoever put it may have been killed before its sync; it counts as stored from now on.
                    open_to_sync(path)?.sync_all().map_err(|error| self.fence(path, error))?;
                    false
                }
                Err(error) => return Err(failed(error)),
            },
            _ => fs::rename(staged, path).map(|()| true).map_err(failed)?,
        };
        failpoint::hit("object-after-link");
        opened.sync_all().map_err(|error| self.fence(folder, error))?;
        Ok(published)
    }

    /// Makes `folder` and what is missing above it, each synced into its parent.
    pub fn make_folder(&self, folder: &Path) -> Result<(), FolderError> {
        let kept = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(parent) = folder.parent().filter(|_| !kept().contains(folder)) else { return Ok(()) };
        self.make_folder(parent)?;
        let opened = open_to_sync(parent)?;
        match fs::DirBuilder::new().mode(0o700).create(folder) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(FolderError::File { path: folder.to_owned(), source }),
        }
        opened.sync_all().map_err(|error| self.fence(parent, error))?;
        kept().insert(folder.to_owned());
        Ok(())
    }

    /// Returns false when there is no such file.
    pub fn delete(&self, path: &Path) -> Result<bool, FolderError> {
        self.check()?;
        let failed = |source| FolderError::File { path: path.to_owned(), source };
        let Some(folder) = path.parent().filter(|folder| folder.is_dir()) else { return Ok(false) };
        let opened = open_to_sync(folder)?;
        match fs::remove_file(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(failed(error)),
        }
        opened.sync_all().map_err(|error| self.fence(folder, error))?;
        Ok(true)
    }
}

pub(super) fn wrapped(error: FolderError) -> Error {
    Error::Generic { store: "folder", source: Box::new(error) }
}

/// Whether a read asks for nothing but its range.
fn is_plain(options: &GetOptions) -> bool {
    let GetOptions { if_match, if_none_match, if_modified_since, if_unmodified_since, version, head, .. } = options;
    let conditions = [if_match.is_some(), if_none_match.is_some(), version.is_some()];
    let times = if_modified_since.is_some() || if_unmodified_since.is_some();
    !conditions.contains(&true) && !times && !head
}

/// A range of a file; `None` if the file ends before it.
fn read_range(path: &Path, location: Key, range: Range<u64>, buffers: &Buffers) -> Result<Option<GetResult>> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => Error::NotFound { path: location.to_string(), source: Box::new(source) },
        _ => wrapped(FolderError::File { path: path.to_owned(), source }),
    };
    let meta = fs::metadata(path).map_err(failed)?;
    // What the file has bounds what is allocated.
    if range.start >= range.end || range.end > meta.len() {
        return Ok(None);
    }
    let bytes = buffers.read(path, range.clone()).map_err(failed)?;
    let last_modified = meta.modified().map_err(failed)?.into();
    let meta = ObjectMeta { location, last_modified, size: meta.len(), e_tag: None, version: None };
    let payload = GetResultPayload::Stream(futures_util::stream::once(std::future::ready(Ok(bytes))).boxed());
    Ok(Some(GetResult { payload, meta, range, attributes: Default::default(), extensions: Default::default() }))
}

pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(source) => Err(Error::JoinError { source }),
    }
}

impl std::fmt::Display for SyncedFolder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.shared.root.display())
    }
}

#[async_trait::async_trait]
impl ObjectStore for SyncedFolder {
    async fn put_opts(&self, key: &Key, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let path = self.reader.path_to_filesystem(key)?;
        let shared = self.shared.clone();
        let key = key.to_string();
        blocking(move || match shared.put(&path, payload.as_ref(), &options.mode).map_err(wrapped)? {
            true => Ok(PutResult { e_tag: None, version: None, extensions: Default::default() }),
            false => Err(Error::AlreadyExists { path: key, source: "the key exists".into() }),
        })
        .await
    }

    async fn put_multipart_opts(&self, _: &Key, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(unsupported("put in parts"))
    }

    async fn get_opts(&self, key: &Key, options: GetOptions) -> Result<GetResult> {
        let Some(GetRange::Bounded(range)) = options.range.clone().filter(|_| is_plain(&options)) else {
            return self.reader.get_opts(key, options).await;
        };
        let (path, location, buffers) = (self.reader.path_to_filesystem(key)?, key.clone(), self.buffers.clone());
        match blocking(move || read_range(&path, location, range, &buffers)).await? {
            Some(read) => Ok(read),
            None => self.reader.get_opts(key, options).await, // it knows the error for a range that is not there
        }
    }

    async fn get_ranges(&self, key: &Key, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.reader.get_ranges(key, ranges).await
    }

    fn delete_stream(&self, keys: BoxStream<'static, Result<Key>>) -> BoxStream<'static, Result<Key>> {
        let folder = self.clone();
        keys.then(move |key| {
            let folder = folder.clone();
            async move {
                let key = key?;
                let path = folder.reader.path_to_filesystem(&key)?;
                blocking(move || match folder.shared.delete(&path).map_err(wrapped)? {
                    true => Ok(key),
                    false => Err(Error::NotFound { path: key.to_string(), source: "no such file".into() }),
                })
                .await
            }
        })
        .boxed()
    }

    fn list(&self, prefix: Option<&Key>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.reader.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Key>) -> Result<ListResult> {
        self.reader.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, _: &Key, _: &Key, _: CopyOptions) -> Result<()> {
        Err(unsupported("copy"))
    }
}

pub(super) fn unsupported(operation: &str) -> Error {
    Error::NotImplemented { operation: operation.to_owned(), implementer: "folder".to_owned() }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;

    use super::*;

    #[tokio::test]
    async fn a_put_shows_all_its_pieces_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(INCOMING)).unwrap();
        fs::write(dir.path().join(INCOMING).join("0"), "left behind").unwrap();
        let folder = SyncedFolder::open(dir.path()).unwrap();
        let key = Key::from("c/objects/01/x");
        let pieces: PutPayload = (0..3000).map(|i| Bytes::from(format!("{i},"))).collect();
        let expected: String = (0..3000).map(|i| format!("{i},")).collect();
        folder.put_opts(&key, pieces, PutMode::Create.into()).await.unwrap();
        assert_eq!(folder.get(&key).await.unwrap().bytes().await.unwrap(), expected);
        assert_eq!(fs::read_dir(dir.path().join(INCOMING)).unwrap().count(), 0);
        let again = folder.put_opts(&key, "other".into(), PutMode::Create.into()).await;
        assert!(matches!(again, Err(Error::AlreadyExists { .. })));
        assert_eq!(folder.get(&key).await.unwrap().bytes().await.unwrap(), expected);
        folder.delete(&key).await.unwrap();
        assert!(matches!(folder.get(&key).await, Err(Error::NotFound { .. })));
        assert!(matches!(folder.delete(&key).await, Err(Error::NotFound { .. })));
    }

    #[tokio::test]
    async fn after_a_failed_sync_every_write_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let folder = SyncedFolder::open(dir.path()).unwrap();
        folder.put(&Key::from("a"), "1".into()).await.unwrap();
        folder.shared.fence(Path::new("a"), io::Error::from_raw_os_error(5));
        let put = folder.put(&Key::from("b"), "2".into()).await.unwrap_err();
        assert!(matches!(super::super::failure::classify(&put), super::super::failure::Failure::Fenced(_)));
        assert!(folder.delete(&Key::from("a")).await.is_err());
        assert!(folder.get(&Key::from("a")).await.is_ok(), "reads go on");
    }
}
