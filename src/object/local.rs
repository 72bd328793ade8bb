//! One node's copies of what several nodes keep together: the local folder with checksums of every file beside it.
//!
//! Invariants: a copy is published only when all its bytes are synced; what is read was checked against its sums, if it
//! has any; a copy without sums (written by a node alone, or just before a crash) gets them only after its own format's
//! checksums have been looked at, all of them. Every call blocks on the disk.
//!
//! The sums lie under `.sums`, one file for each key. They are not synced: lost or torn ones are made again.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use object_store::PutMode;

use crate::base::{ClusterId, ObjectId};
use crate::env;

use super::builder::OBJECT_BYTES_MAX;
use super::error::OpenError;
use super::folder::{FolderError, SyncedFolder};
use super::options;
use super::snapshot;
use super::store::Keys;
use super::sums::{CHUNK_BYTES, Summing, Sums};
use super::verify::verify_object;

/// Sums are kept here; emptied never. No key begins with a dot.
const SUMS: &str = ".sums";
/// Shows that this folder has had every copy that belongs into it.
const COMPLETE: &str = ".complete";
/// Sums that are kept in memory; all are forgotten when there are more.
const CACHED_MAX: usize = 256;
/// Files of one folder that a listing looks at.
const LISTED_MAX: usize = 1_000_000;

/// What is stored, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StoredKey {
    Object(ObjectId),
    Snapshot {
        generation: u64,
        applied: u64,
    },
    /// What a check of the store writes and deletes.
    Probe(u64),
}

impl std::fmt::Display for StoredKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StoredKey::Object(object) => write!(f, "object {:016x}", object.0),
            StoredKey::Snapshot { generation, applied } => write!(f, "metadata snapshot {generation:x}-{applied:x}"),
            StoredKey::Probe(nonce) => write!(f, "probe {nonce:016x}"),
        }
    }
}

/// Keys that are listed together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shelf {
    /// Objects whose ids end in this byte.
    Objects(u8),
    Snapshots,
}

impl Shelf {
    /// All of them, snapshots last.
    pub fn all() -> impl Iterator<Item = Shelf> {
        (0..=255).map(Shelf::Objects).chain([Shelf::Snapshots])
    }
}

/// A copy as a listing shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    pub key: StoredKey,
    pub bytes: u64,
    /// Unix ms.
    pub modified_ms: i64,
}

/// Why this node's copy does not do.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    #[error("there is no copy")]
    Missing,
    #[error("the copy is damaged")]
    Damaged,
    #[error("the copy has {0} bytes and ends before the range")]
    Short(u64),
    #[error("the key has other content")]
    Exists,
    /// What arrived is not what was announced.
    #[error("the bytes that arrived are not those that were sent")]
    Garbled,
    /// A sync failed. Final: the process must end.
    #[error("{0}")]
    Fenced(Arc<str>),
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

impl LocalError {
    pub fn is_full(&self) -> bool {
        matches!(self, LocalError::Io { source, .. }
            if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }
}

impl From<FolderError> for LocalError {
    fn from(error: FolderError) -> Self {
        match error {
            FolderError::Fenced(reason) => LocalError::Fenced(reason),
            FolderError::File { path, source } => LocalError::Io { path, source },
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct LocalStore {
    pub(super) folder: SyncedFolder,
    pub(super) keys: Keys,
    cluster: ClusterId,
    sums: Mutex<HashMap<StoredKey, Arc<Sums>>>,
}

fn at(path: &Path) -> impl Fn(io::Error) -> LocalError + '_ {
    |source| match source.kind() {
        io::ErrorKind::NotFound => LocalError::Missing,
        _ => LocalError::Io { path: path.to_owned(), source },
    }
}

impl LocalStore {
    /// Opens the folder of a cluster; made if it does not exist.
    pub fn open(root: &Path, cluster: ClusterId) -> Result<Arc<LocalStore>, OpenError> {
        let folder = options::open_folder(root)?;
        let store = LocalStore { folder, keys: Keys::new("", cluster), cluster, sums: Mutex::default() };
        store.remove_probes();
        Ok(Arc::new(store))
    }

    /// What checks of the store left behind whose deletion did not reach this node.
    fn remove_probes(&self) {
        let Some(folder) = self.path(StoredKey::Probe(0)).parent().map(Path::to_owned) else { return };
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name =
                entry.path().strip_prefix(&self.folder.shared.root).ok().and_then(Path::to_str).map(str::to_owned);
            if let Some(key @ StoredKey::Probe(_)) = name.and_then(|name| self.keys.parse(&name.as_str().into())) {
                // Nobody asks for it; the next start tries again.
                let _ = self.delete(key);
            }
        }
    }

    /// For messages.
    pub fn place(&self) -> String {
        format!("the folder {}", self.folder.shared.root.display())
    }

    /// Why a sync failed, once one has: the node must end.
    pub fn fenced(&self) -> Option<Arc<str>> {
        match self.folder.shared.check() {
            Err(FolderError::Fenced(reason)) => Some(reason),
            _ => None,
        }
    }

    /// As after a failed sync.
    #[cfg(test)]
    pub fn break_sync(&self) {
        self.folder.shared.fence(Path::new("a file"), io::Error::from_raw_os_error(5));
    }

    /// Whether [`LocalStore::mark_complete`] was ever called on this folder.
    pub fn is_complete(&self) -> bool {
        self.folder.shared.root.join(COMPLETE).exists()
    }

    /// From now on the absence of a copy means something.
    pub fn mark_complete(&self) -> Result<(), LocalError> {
        if self.is_complete() {
            return Ok(());
        }
        self.folder.shared.put(&self.folder.shared.root.join(COMPLETE), &[], &PutMode::Create)?;
        Ok(())
    }

    fn path(&self, key: StoredKey) -> PathBuf {
        self.folder.shared.root.join(self.keys.of(key).as_ref())
    }

    fn sums_path(&self, key: StoredKey) -> PathBuf {
        self.folder.shared.root.join(SUMS).join(self.keys.of(key).as_ref())
    }

    /// Stores a copy that no other content may have. The same content twice is success.
    pub fn put(&self, key: StoredKey, pieces: &[Bytes], sums: &Sums) -> Result<(), LocalError> {
        let published = self.folder.shared.put(&self.path(key), pieces, &PutMode::Create)?;
        self.settle(key, published, sums)
    }

    /// After a conditional publication: keeps the sums of what was stored, or compares what was there before.
    fn settle(&self, key: StoredKey, published: bool, sums: &Sums) -> Result<(), LocalError> {
        if published {
            return self.keep_sums(key, sums);
        }
        let found = self.sums(key)?;
        if *found == *sums { Ok(()) } else { Err(LocalError::Exists) }
    }

    /// Begins a copy that arrives in pieces.
    pub fn incoming(self: &Arc<Self>) -> Result<Incoming, LocalError> {
        self.folder.shared.check()?;
        let path = self.folder.shared.staged_name();
        let file = File::options().write(true).create_new(true).mode(0o600).open(&path).map_err(at(&path))?;
        Ok(Incoming { store: self.clone(), path, file, summing: Summing::default() })
    }

    /// The bytes of a range, checked, and the length of the whole.
    pub fn read(&self, key: StoredKey, range: Range<u64>) -> Result<(Bytes, u64), LocalError> {
        let (path, bytes) = (self.path(key), self.bytes(key)?);
        let sums = self.cached_sums(key)?;
        if sums.as_ref().is_some_and(|sums| sums.bytes != bytes) {
            return Err(LocalError::Damaged);
        }
        // What the file has bounds what is allocated.
        if range.start >= range.end || range.end > bytes {
            return Err(LocalError::Short(bytes));
        }
        let Some(sums) = sums else {
            // Until it is checked as a whole, its format's own checksums are all there is.
            return Ok((self.folder.buffers.read(&path, range).map_err(at(&path))?, bytes));
        };
        let chunk = CHUNK_BYTES as u64;
        let wide = range.start / chunk * chunk..range.end.next_multiple_of(chunk).min(bytes);
        let read = self.folder.buffers.read(&path, wide.clone()).map_err(at(&path))?;
        if !sums.hold((wide.start / chunk) as usize, &read) {
            return Err(LocalError::Damaged);
        }
        Ok((read.slice((range.start - wide.start) as usize..(range.end - wide.start) as usize), bytes))
    }

    /// Length of a copy, without looking at its content. Sums without their copy show that it was lost: a deletion takes
    /// the sums first.
    pub fn bytes(&self, key: StoredKey) -> Result<u64, LocalError> {
        let path = self.path(key);
        match fs::metadata(&path) {
            Ok(meta) => Ok(meta.len()),
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.sums_path(key).exists() => {
                Err(LocalError::Damaged)
            }
            Err(error) => Err(at(&path)(error)),
        }
    }

    /// The sums of a copy. One that has none is read and checked as a whole.
    pub fn sums(&self, key: StoredKey) -> Result<Arc<Sums>, LocalError> {
        let bytes = self.bytes(key)?;
        if let Some(sums) = self.cached_sums(key)? {
            return if sums.bytes == bytes { Ok(sums) } else { Err(LocalError::Damaged) };
        }
        let sums = self.sums_by_format(key, bytes)?;
        self.keep_sums(key, &sums)?;
        Ok(Arc::new(sums))
    }

    /// Length and digest that a copy should have by its sums, if it has any.
    pub fn expected(&self, key: StoredKey) -> Option<(u64, u32)> {
        let sums = self.cached_sums(key).ok().flatten()?;
        Some((sums.bytes, sums.digest()))
    }

    /// Reads every byte of a copy and compares it with its sums. Returns the bytes read.
    pub fn check(&self, key: StoredKey) -> Result<u64, LocalError> {
        let sums = self.sums(key)?;
        let step = 64 * CHUNK_BYTES as u64;
        let (path, mut from) = (self.path(key), 0);
        while from < sums.bytes {
            let to = sums.bytes.min(from + step);
            let read = self.folder.buffers.read(&path, from..to).map_err(at(&path))?;
            if !sums.hold((from / CHUNK_BYTES as u64) as usize, &read) {
                // Sums left behind by another content of the key would condemn a good copy.
                let found = self.sums_by_format(key, sums.bytes)?;
                self.keep_sums(key, &found)?;
                return Ok(sums.bytes);
            }
            from = to;
        }
        Ok(sums.bytes)
    }

    /// Sums of a copy that its own format finds whole.
    fn sums_by_format(&self, key: StoredKey, bytes: u64) -> Result<Sums, LocalError> {
        let path = self.path(key);
        if bytes > OBJECT_BYTES_MAX && matches!(key, StoredKey::Object(_)) {
            return Err(LocalError::Damaged);
        }
        let whole = Bytes::from(fs::read(&path).map_err(at(&path))?);
        if let Ok(file) = File::open(&path) {
            env::forget_cached(&file);
        }
        let good = match key {
            StoredKey::Object(object) => verify_object(&whole, self.cluster, object).is_ok(),
            StoredKey::Snapshot { generation, applied } => {
                snapshot::open(&whole, self.cluster, generation, applied).is_ok()
            }
            StoredKey::Probe(_) => true,
        };
        if good { Ok(Sums::of(&[whole])) } else { Err(LocalError::Damaged) }
    }

    /// Copies of a shelf behind `after`, ascending, at most `limit`, and whether there are more.
    pub fn list(
        &self,
        shelf: Shelf,
        after: Option<StoredKey>,
        limit: usize,
    ) -> Result<(Vec<Listed>, bool), LocalError> {
        let path = match shelf {
            Shelf::Objects(shard) => self.path(StoredKey::Object(ObjectId(shard.into()))).parent().map(Path::to_owned),
            Shelf::Snapshots => Some(self.folder.shared.root.join(self.keys.snapshots().as_ref())),
        };
        let Some(path) = path else { return Ok((Vec::new(), false)) };
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), false)),
            Err(error) => return Err(at(&path)(error)),
        };
        let root = &self.folder.shared.root;
        let mut keys = Vec::new();
        for entry in entries.take(LISTED_MAX) {
            let entry = entry.map_err(at(&path))?.path();
            let name = entry.strip_prefix(root).ok().and_then(Path::to_str);
            keys.extend(name.and_then(|name| self.keys.parse(&name.into())));
        }
        keys.retain(|key| after.is_none_or(|after| *key > after));
        keys.sort_unstable();
        let more = keys.len() > limit;
        keys.truncate(limit);
        Ok((keys.into_iter().filter_map(|key| self.listed(key)).collect(), more))
    }

    /// None if it was deleted meanwhile.
    fn listed(&self, key: StoredKey) -> Option<Listed> {
        let meta = fs::metadata(self.path(key)).ok()?;
        let modified = meta.modified().ok()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        Some(Listed { key, bytes: meta.len(), modified_ms: i64::try_from(modified.as_millis()).unwrap_or(i64::MAX) })
    }

    /// Whether there was a copy.
    pub fn delete(&self, key: StoredKey) -> Result<bool, LocalError> {
        // The sums first: a copy without them is checked again, sums without their copy would condemn a later one.
        self.cache().remove(&key);
        match fs::remove_file(self.sums_path(key)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(&self.sums_path(key))(error)),
            _ => {}
        }
        Ok(self.folder.shared.delete(&self.path(key))?)
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, HashMap<StoredKey, Arc<Sums>>> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sums from memory or from their file; none if there are none that can be read.
    fn cached_sums(&self, key: StoredKey) -> Result<Option<Arc<Sums>>, LocalError> {
        if let Some(sums) = self.cache().get(&key) {
            return Ok(Some(sums.clone()));
        }
        let path = self.sums_path(key);
        let stored = match fs::read(&path) {
            Ok(stored) => stored,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(at(&path)(error)),
        };
        let Ok(sums) = Sums::decode(&stored) else { return Ok(None) };
        Ok(Some(self.remember(key, sums)))
    }

    fn remember(&self, key: StoredKey, sums: Sums) -> Arc<Sums> {
        let (mut cache, sums) = (self.cache(), Arc::new(sums));
        if cache.len() >= CACHED_MAX {
            cache.clear();
        }
        cache.insert(key, sums.clone());
        sums
    }

    fn keep_sums(&self, key: StoredKey, sums: &Sums) -> Result<(), LocalError> {
        let (path, staged) = (self.sums_path(key), self.folder.shared.staged_name());
        let Some(folder) = path.parent() else { return Err(at(&path)(io::ErrorKind::InvalidInput.into())) };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(at(folder))?;
        fs::write(&staged, sums.encode()).and_then(|()| fs::rename(&staged, &path)).map_err(at(&path))?;
        self.remember(key, sums.clone());
        Ok(())
    }
}

/// A copy on its way; removed when it is dropped before it is committed.
pub struct Incoming {
    store: Arc<LocalStore>,
    path: PathBuf,
    file: File,
    summing: Summing,
}

impl Incoming {
    /// Bytes that have arrived.
    pub fn bytes(&self) -> u64 {
        self.summing.bytes()
    }

    /// Appends a piece. Each is synced, so that a sync of the write-ahead log never waits behind a whole object.
    pub fn append(&mut self, piece: &[u8]) -> Result<(), LocalError> {
        self.file.write_all(piece).map_err(at(&self.path))?;
        self.file.sync_data().map_err(|error| self.store.folder.shared.fence(&self.path, error))?;
        self.summing.update(piece);
        Ok(())
    }

    /// Publishes the copy, if it is what was announced. `replace` puts it in the place of a damaged one.
    pub fn commit(mut self, key: StoredKey, bytes: u64, digest: u32, replace: bool) -> Result<(), LocalError> {
        let sums = std::mem::take(&mut self.summing).finish();
        if sums.bytes != bytes || sums.digest() != digest {
            return Err(LocalError::Garbled);
        }
        self.store.folder.shared.check()?;
        self.file.sync_all().map_err(|error| self.store.folder.shared.fence(&self.path, error))?;
        env::forget_cached(&self.file);
        let mode = if replace { PutMode::Overwrite } else { PutMode::Create };
        let published = self.store.folder.shared.publish(&self.path, &self.store.path(key), &mode)?;
        self.store.settle(key, published, &sums)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // After a rename there is nothing left to remove, after a link the second name.
        let _ = fs::remove_file(&self.path);
    }
}
