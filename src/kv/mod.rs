//! The key-value store of one node: a RocksDB folder, the only one, used by the metadata quorum alone.
//!
//! One key family per file ([`raft_log`], [`hard_state`], [`machine`], [`image`], [`range`], [`object`],
//! [`producer_state`]), each with its layout and its codec. All families share one key space (the first byte of a key is its [`Family`]) and so one
//! write-ahead log, one memtable and one order of writes. Invariants that the callers rest on:
//!
//! - [`Durability::Synced`] returns when the batch, and every batch before it, is on disk (`fdatasync`).
//! - [`Durability::Ordered`] only orders: after a crash a prefix of the batches is there, at least up to the last
//!   synced one. A batch is there whole or not at all.
//! - The first failed write or sync is final: it latches the store off ([`Kv::failure`]), every later write is
//!   refused with the first reason, and the process is expected to fence itself and exit. Nothing is retried.
//!
//! RocksDB must never repair itself behind our back. Its automatic resume has no switch in the binding, so its count
//! of background errors, which a resume does not reset, is read after every write and latches the store just so.
//! Nothing here is mapped into memory.

pub mod hard_state;
pub mod image;
pub mod machine;
#[cfg(test)]
pub(crate) mod memory;
pub mod object;
pub mod producer_state;
pub mod raft_log;
pub mod range;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, DBRecoveryMode, Direction, ErrorKind, IteratorMode, LogLevel,
    Options, ReadOptions, WriteBatch, WriteOptions, properties,
};
use tokio::sync::watch;

use crate::base::codec::DecodeError;
use crate::env::failpoint;

/// Version of the key layout as a whole; a folder with a higher one is refused.
const FORMAT: u16 = 1;
const FORMAT_KEY: &[u8] = &[Family::Format as u8];

/// Memtable, and with it the replay after a crash, in bytes; two exist while one is written out.
const WRITE_BUFFER_BYTES: usize = 2 << 20;
/// Cache of uncompressed blocks, their indexes included, in bytes: the bound of what reads keep in memory.
const BLOCK_CACHE_BYTES: usize = 8 << 20;
const TABLE_FILE_BYTES: u64 = 8 << 20;
const OPEN_FILES_MAX: i32 = 64;

/// First byte of every key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Family {
    Format = 0,
    HardState = 1,
    RaftLog = 2,
    Machine = 3,
    Image = 4,
    Range = 5,
    Object = 6,
    ObjectState = 7,
    ProducerState = 8,
}

/// How far a write has come when the call returns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    Synced,
    Ordered,
}

/// Why the folder cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{path} holds no metadata: put back the backup that wal/ is from, or name the right folder")]
    Missing { path: PathBuf },
    #[error("{path} is in use by another process: stop it first")]
    Locked { path: PathBuf },
    #[error("{path} was written by a newer release (layout {found}, this release knows {newest}): upgrade")]
    Newer { path: PathBuf, found: u16, newest: u16 },
    #[error("metadata in {path} is damaged ({detail}): put back the backup that wal/ is from")]
    Corrupt { path: PathBuf, detail: String },
    #[error("metadata in {path} cannot be opened: {detail}")]
    Io { path: PathBuf, detail: String },
}

/// Why stored values cannot be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    #[error("reading metadata failed: {0}")]
    Io(String),
    #[error("damaged metadata in {family:?}: {source}")]
    Decode { family: Family, source: DecodeError },
}

impl ReadError {
    pub(crate) fn decode(family: Family) -> impl FnOnce(DecodeError) -> ReadError {
        move |source| ReadError::Decode { family, source }
    }
}

/// The store is latched off, for the reason given: the first write or sync that failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the metadata store is fenced: {0}")]
pub struct Fenced(pub Arc<str>);

/// Changes that are applied together or not at all.
#[derive(Default)]
pub struct Batch(WriteBatch);

impl Batch {
    pub fn put(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.0.put(key, value);
    }

    pub fn delete(&mut self, key: impl AsRef<[u8]>) {
        self.0.delete(key);
    }

    /// Deletes the keys from `from` up to, not including, `to`.
    pub fn delete_range(&mut self, from: &[u8], to: &[u8]) {
        self.0.delete_range(from, to);
    }

    pub fn delete_family(&mut self, family: Family) {
        let (from, to) = bounds(family);
        self.delete_range(&from, &to);
    }
}

/// First key of a family, and the first key after it.
pub(crate) fn bounds(family: Family) -> ([u8; 1], [u8; 1]) {
    ([family as u8], [family as u8 + 1])
}

/// Where the keys are.
enum Keys {
    Folder(DB),
    #[cfg(test)]
    Memory(memory::Memory),
}

/// One open folder. Every call may block on the disk: never call it on a runtime worker.
pub struct Kv {
    keys: Keys,
    failure: watch::Sender<Option<Arc<str>>>,
}

#[cfg_attr(not(test), expect(clippy::infallible_destructuring_match, reason = "tests have a second kind"))]
impl Kv {
    /// Opens `path`; `create` allows to begin with a missing or empty folder.
    pub fn open(path: &Path, create: bool) -> Result<Kv, OpenError> {
        let exists = path.join("CURRENT").exists();
        if !exists && !create {
            return Err(OpenError::Missing { path: path.to_owned() });
        }
        if !exists && holds_tables(path) {
            // RocksDB would begin a new store beside the remains of the old one and delete them.
            let detail = "the file CURRENT is missing".to_string();
            return Err(OpenError::Corrupt { path: path.to_owned(), detail });
        }
        let db = DB::open(&options(create), path).map_err(|e| open_error(path, &e))?;
        let kv = Kv { keys: Keys::Folder(db), failure: watch::Sender::new(None) };
        kv.check_format(path, exists)?;
        Ok(kv)
    }

    fn check_format(&self, path: &Path, exists: bool) -> Result<(), OpenError> {
        let corrupt = |detail: String| OpenError::Corrupt { path: path.to_owned(), detail };
        match self.get(FORMAT_KEY).map_err(|e| corrupt(e.to_string()))? {
            Some(value) => {
                let bytes = value.as_slice().try_into().map_err(|_| corrupt("layout version".to_string()))?;
                match u16::from_be_bytes(bytes) {
                    found if found > FORMAT => Err(OpenError::Newer { path: path.to_owned(), found, newest: FORMAT }),
                    _ => Ok(()),
                }
            }
            // Killed between the creation and the first write: nothing was ever answered from such a folder.
            None if !exists || self.is_empty().map_err(|e| corrupt(e.to_string()))? => {
                let mut batch = Batch::default();
                batch.put(FORMAT_KEY, FORMAT.to_be_bytes());
                self.write(batch, Durability::Synced)
                    .map_err(|e| OpenError::Io { path: path.to_owned(), detail: e.to_string() })
            }
            None => Err(corrupt("the layout version is missing".to_string())),
        }
    }

    fn is_empty(&self) -> Result<bool, ReadError> {
        let mut empty = true;
        self.scan(&[0], &[0xff], &mut |_, _| {
            empty = false;
            Ok(false)
        })?;
        Ok(empty)
    }

    /// The first failure, once there is one: whoever watches it fences the node and ends the process.
    pub fn failure(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.failure.subscribe()
    }

    /// Latches the store off; the first reason stays.
    pub fn fence(&self, reason: &str) -> Fenced {
        self.failure.send_if_modified(|slot| {
            let first = slot.is_none();
            slot.get_or_insert_with(|| reason.into());
            first
        });
        let reason = self.failure.borrow().clone().unwrap_or_else(|| reason.into());
        tracing::error!(%reason, "the metadata store is fenced");
        Fenced(reason)
    }

    /// Applies `batch`. Errors: the store is (now) fenced, and whether the batch will be there is unknown.
    pub fn write(&self, batch: Batch, durability: Durability) -> Result<(), Fenced> {
        if let Some(reason) = self.failure.borrow().clone() {
            return Err(Fenced(reason));
        }
        let mut options = WriteOptions::default();
        options.set_sync(durability == Durability::Synced);
        if durability == Durability::Synced {
            failpoint::error("metadata-before-sync").map_err(|e| self.fence(&e.to_string()))?;
        }
        let db = match &self.keys {
            Keys::Folder(db) => db,
            #[cfg(test)]
            Keys::Memory(memory) => {
                memory.write(batch.0.data(), durability);
                return Ok(());
            }
        };
        db.write_opt(batch.0, &options).map_err(|e| self.fence(e.as_ref()))?;
        if durability == Durability::Synced {
            failpoint::hit("metadata-after-sync");
        }
        match db.property_int_value(properties::BACKGROUND_ERRORS) {
            Ok(Some(0)) | Ok(None) => Ok(()),
            Ok(Some(count)) => Err(self.fence(&format!("{count} background writes failed; its file LOG says which"))),
            Err(e) => Err(self.fence(e.as_ref())),
        }
    }

    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        match &self.keys {
            Keys::Folder(db) => db.get(key).map_err(|e| ReadError::Io(e.to_string())),
            #[cfg(test)]
            Keys::Memory(memory) => Ok(memory.get(key)),
        }
    }

    /// Visits the keys from `from` up to, not including, `to`, in order, until `visit` answers false.
    pub fn scan(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<(), ReadError> {
        let db = match &self.keys {
            Keys::Folder(db) => db,
            #[cfg(test)]
            Keys::Memory(memory) => return visit_all(memory.range(from, to).into_iter().map(Ok), visit),
        };
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(to);
        visit_all(db.iterator_opt(IteratorMode::From(from, Direction::Forward), options), visit)
    }

    /// The last key from `from` up to, not including, `to`, with its value.
    pub fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<Pair>, ReadError> {
        let db = match &self.keys {
            Keys::Folder(db) => db,
            #[cfg(test)]
            Keys::Memory(memory) => return Ok(memory.range(from, to).pop()),
        };
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(from);
        options.set_iterate_upper_bound(to);
        let mut iterator = db.iterator_opt(IteratorMode::End, options);
        iterator.next().transpose().map_err(|e| ReadError::Io(e.to_string()))
    }

    /// A view of the store as it is now, whatever is written later.
    pub fn snapshot(&self) -> Snapshot<'_> {
        match &self.keys {
            Keys::Folder(db) => Snapshot::Folder(db.snapshot()),
            #[cfg(test)]
            Keys::Memory(memory) => Snapshot::Memory(memory.range(&[0], &[0xff])),
        }
    }
}

/// A key and its value.
pub type Pair = (Box<[u8]>, Box<[u8]>);

/// Called with key and value; false ends the scan.
pub type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> Result<bool, ReadError>;

pub enum Snapshot<'a> {
    Folder(rocksdb::Snapshot<'a>),
    #[cfg(test)]
    Memory(Vec<Pair>),
}

#[cfg_attr(not(test), expect(clippy::infallible_destructuring_match, reason = "tests have a second kind"))]
impl Snapshot<'_> {
    /// As [`Kv::scan`], over a whole family, without filling the cache.
    pub fn scan_family(&self, family: Family, visit: Visit<'_>) -> Result<(), ReadError> {
        let (from, to) = bounds(family);
        let view = match self {
            Snapshot::Folder(view) => view,
            #[cfg(test)]
            Snapshot::Memory(pairs) => {
                let inside = |(key, _): &&Pair| key[..] >= from[..] && key[..] < to[..];
                return visit_all(pairs.iter().filter(inside).cloned().map(Ok), visit);
            }
        };
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(to);
        options.fill_cache(false);
        visit_all(view.iterator_opt(IteratorMode::From(&from, Direction::Forward), options), visit)
    }
}

fn visit_all(iterator: impl Iterator<Item = Result<Pair, rocksdb::Error>>, visit: Visit<'_>) -> Result<(), ReadError> {
    for item in iterator {
        let (key, value) = item.map_err(|e| ReadError::Io(e.to_string()))?;
        if !visit(&key, &value)? {
            break;
        }
    }
    Ok(())
}

fn options(create: bool) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(BLOCK_CACHE_BYTES));
    // Indexes of tables count against the cache, so that memory does not grow with the object index.
    table.set_cache_index_and_filter_blocks(true);
    table.set_block_size(16 << 10);

    let mut options = Options::default();
    options.create_if_missing(create);
    options.set_block_based_table_factory(&table);
    options.set_paranoid_checks(true);
    // A torn tail, which only unsynced writes leave, is cut; damage anywhere else, or a log file that is
    // missing or short, refuses to open instead of losing what was acknowledged.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_write_buffer_size(WRITE_BUFFER_BYTES);
    options.set_max_write_buffer_number(2);
    options.set_target_file_size_base(TABLE_FILE_BYTES);
    options.set_max_open_files(OPEN_FILES_MAX);
    // Not sixteen threads at every start.
    options.set_max_file_opening_threads(1);
    options.set_max_background_jobs(2);
    options.set_compression_type(DBCompressionType::None);
    options.set_allow_mmap_reads(false);
    options.set_allow_mmap_writes(false);
    options.set_manifest_preallocation_size(64 << 10);
    options.set_max_manifest_file_size(4 << 20);
    options.set_skip_stats_update_on_db_open(true);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options.set_log_level(LogLevel::Warn);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(1 << 20);
    options
}

/// Whether `path` holds table or log files of a store.
fn holds_tables(path: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(path) else { return false };
    entries.flatten().any(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.ends_with(".sst") || name.ends_with(".log") || name.starts_with("MANIFEST-")
    })
}

fn open_error(path: &Path, error: &rocksdb::Error) -> OpenError {
    let path = path.to_owned();
    let detail = error.to_string();
    match error.kind() {
        ErrorKind::Corruption => OpenError::Corrupt { path, detail },
        ErrorKind::IOError if detail.contains("lock file") || detail.contains("lock hold") => {
            OpenError::Locked { path }
        }
        // A file that the manifest names is gone.
        ErrorKind::IOError | ErrorKind::NotFound if detail.contains("No such file") => {
            OpenError::Corrupt { path, detail }
        }
        _ => OpenError::Io { path, detail },
    }
}

#[cfg(test)]
pub(crate) use tests::fixture;

#[cfg(test)]
mod tests {
    use super::*;

    /// The committed fixture `name`, which must be what this release writes; made when it is missing.
    pub(crate) fn fixture(name: &str, written: &[u8]) -> Vec<u8> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/quorum").join(name);
        if !path.exists() && std::env::var_os("CASEMATE_WRITE_FIXTURES").is_some() {
            std::fs::write(&path, written).unwrap();
        }
        let fixture = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert_eq!(fixture, written, "{name}: a stored form has changed without a new version");
        fixture
    }

    fn put(kv: &Kv, key: &[u8], durability: Durability) -> Result<(), Fenced> {
        let mut batch = Batch::default();
        batch.put(key, b"value");
        kv.write(batch, durability)
    }

    #[test]
    fn what_was_written_is_there_after_the_process_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let kv = Kv::open(folder.path(), true).unwrap();
        put(&kv, b"\x09a", Durability::Synced).unwrap();
        put(&kv, b"\x09b", Durability::Ordered).unwrap();
        // A second copy of the folder, taken while the store is open, is what kill -9 leaves.
        let copy = tempfile::tempdir().unwrap();
        copy_folder(folder.path(), copy.path());
        let again = Kv::open(copy.path(), false).unwrap();
        assert_eq!(again.get(b"\x09a").unwrap().as_deref(), Some(&b"value"[..]));
        assert_eq!(again.get(b"\x09b").unwrap().as_deref(), Some(&b"value"[..]));
    }

    #[test]
    fn a_folder_in_use_a_missing_one_and_a_damaged_one_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(Kv::open(&folder.path().join("none"), false), Err(OpenError::Missing { .. })));
        let kv = Kv::open(folder.path(), true).unwrap();
        assert!(matches!(Kv::open(folder.path(), true), Err(OpenError::Locked { .. })));
        put(&kv, b"\x09a", Durability::Synced).unwrap();
        drop(kv);
        std::fs::remove_file(folder.path().join("CURRENT")).unwrap();
        assert!(matches!(Kv::open(folder.path(), true), Err(OpenError::Corrupt { .. })));
    }

    #[test]
    fn a_flipped_byte_of_the_synced_log_is_refused_and_a_torn_tail_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let kv = Kv::open(folder.path(), true).unwrap();
        for n in 0..100u8 {
            put(&kv, &[9, n], Durability::Synced).unwrap();
        }
        let copy = tempfile::tempdir().unwrap();
        copy_folder(folder.path(), copy.path());
        let log = std::fs::read_dir(copy.path()).unwrap().flatten().map(|e| e.path());
        let log = log.filter(|p| p.extension().is_some_and(|e| e == "log")).max().unwrap();
        let whole = std::fs::read(&log).unwrap();

        std::fs::write(&log, &whole[..whole.len() - 3]).unwrap();
        let torn = Kv::open(copy.path(), false).unwrap();
        assert!(torn.get(&[9, 98]).unwrap().is_some());
        drop(torn);

        let damaged = tempfile::tempdir().unwrap();
        copy_folder(folder.path(), damaged.path());
        let mut bytes = whole.clone();
        bytes[whole.len() / 2] ^= 1;
        std::fs::write(damaged.path().join(log.file_name().unwrap()), bytes).unwrap();
        assert!(matches!(Kv::open(damaged.path(), false), Err(OpenError::Corrupt { .. })));
    }

    #[test]
    fn a_newer_layout_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let kv = Kv::open(folder.path(), true).unwrap();
        let mut batch = Batch::default();
        batch.put(FORMAT_KEY, (FORMAT + 1).to_be_bytes());
        kv.write(batch, Durability::Synced).unwrap();
        drop(kv);
        assert!(matches!(Kv::open(folder.path(), false), Err(OpenError::Newer { found: 2, .. })));
    }

    #[test]
    fn the_first_failure_latches_the_store_off() {
        let folder = tempfile::tempdir().unwrap();
        let kv = Kv::open(folder.path(), true).unwrap();
        let watch = kv.failure();
        kv.fence("disk gone");
        kv.fence("later");
        assert_eq!(watch.borrow().as_deref(), Some("disk gone"));
        let refused = put(&kv, b"\x09a", Durability::Ordered).unwrap_err();
        assert_eq!(&*refused.0, "disk gone");
        assert_eq!(kv.get(b"\x09a").unwrap(), None);
    }

    fn copy_folder(from: &Path, to: &Path) {
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            if entry.file_name() != "LOCK" {
                std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
            }
        }
    }
}
