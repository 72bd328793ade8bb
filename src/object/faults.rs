//! A store in memory that fails as real ones do, for tests. Never in a shipped binary.
//!
//! Faults that it must survive: bursts of 500s; no answer at all; a put that was applied but whose answer was lost; an
//! answer that is too short, of another range, or with a flipped bit; an object that is gone; a service that ignores
//! conditions. A fault is armed for the next requests of a kind, or comes at random with a seed.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// What happens to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Answered by an error of the server; not applied.
    ServerError,
    /// Never answered; not applied.
    Silence,
    /// Applied, then never answered.
    LostAnswer,
    /// A get answers with fewer bytes than it says.
    Truncated,
    /// A get answers with the bytes one further on.
    OtherRange,
    /// A get answers with this bit of its bytes flipped (modulo their number).
    FlippedBit(u64),
    /// A get answers that there is no such object.
    Missing,
}

/// See the module.
#[derive(Debug, Default)]
pub struct FaultyStore {
    inner: InMemory,
    puts: Mutex<VecDeque<Fault>>,
    gets: Mutex<VecDeque<Fault>>,
    /// Server errors to every request while set.
    pub down: AtomicBool,
    /// Put as if every condition held.
    pub unconditional: AtomicBool,
    pub put_requests: AtomicU64,
    pub get_requests: AtomicU64,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn server_error() -> Error {
    Error::Generic { store: "faulty", source: "Server returned non-2xx status code: 503 Slow Down: ".into() }
}

impl FaultyStore {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The next puts, one fault each.
    pub fn fail_puts(&self, faults: impl IntoIterator<Item = Fault>) {
        locked(&self.puts).extend(faults);
    }

    /// The next gets, one fault each.
    pub fn fail_gets(&self, faults: impl IntoIterator<Item = Fault>) {
        locked(&self.gets).extend(faults);
    }

    /// Changes one stored byte for good.
    pub async fn rot(&self, key: &Path, at: usize, mask: u8) {
        let stored = self.inner.get_opts(key, GetOptions::default()).await.expect("the object exists");
        let mut bytes = stored.bytes().await.expect("memory answers").to_vec();
        bytes[at] ^= mask;
        self.replace(key, bytes.into()).await;
    }

    /// Puts without conditions or faults.
    pub async fn replace(&self, key: &Path, bytes: Bytes) {
        self.inner.put_opts(key, bytes.into(), PutOptions::default()).await.expect("memory answers");
    }

    fn check_up(&self) -> Result<()> {
        if self.down.load(Relaxed) { Err(server_error()) } else { Ok(()) }
    }

    async fn damaged_get(&self, key: &Path, mut options: GetOptions, fault: Fault) -> Result<GetResult> {
        let wanted = match options.range.clone() {
            Some(GetRange::Bounded(range)) => Some(range),
            _ => None,
        };
        if fault == Fault::OtherRange
            && let Some(range) = &wanted
        {
            options.range = Some(GetRange::Bounded(range.start + 1..range.end + 1));
        }
        let answer = self.inner.get_opts(key, options).await?;
        let (meta, attributes) = (answer.meta.clone(), answer.attributes.clone());
        let range: Range<u64> = wanted.unwrap_or(answer.range.clone());
        let mut bytes = answer.bytes().await?.to_vec();
        match fault {
            Fault::Truncated => {
                bytes.pop();
            }
            Fault::FlippedBit(bit) if !bytes.is_empty() => {
                let at = (bit / 8) as usize % bytes.len();
                bytes[at] ^= 1 << (bit % 8);
            }
            _ => {}
        }
        let payload = GetResultPayload::Stream(futures_util::stream::iter([Ok(Bytes::from(bytes))]).boxed());
        Ok(GetResult { payload, meta, range, attributes, extensions: Default::default() })
    }
}

impl std::fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a faulty store")
    }
}

#[async_trait::async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, key: &Path, payload: PutPayload, mut options: PutOptions) -> Result<PutResult> {
        self.check_up()?;
        self.put_requests.fetch_add(1, Relaxed);
        if self.unconditional.load(Relaxed) {
            options.mode = PutMode::Overwrite;
        }
        let fault = locked(&self.puts).pop_front();
        match fault {
            Some(Fault::ServerError) => Err(server_error()),
            Some(Fault::Silence) => std::future::pending().await,
            Some(_) => {
                self.inner.put_opts(key, payload, options).await?;
                std::future::pending().await
            }
            None => self.inner.put_opts(key, payload, options).await,
        }
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(server_error())
    }

    async fn get_opts(&self, key: &Path, options: GetOptions) -> Result<GetResult> {
        self.check_up()?;
        if options.head {
            return self.inner.get_opts(key, options).await;
        }
        self.get_requests.fetch_add(1, Relaxed);
        // A real store lets others run while it is asked.
        tokio::task::yield_now().await;
        let fault = locked(&self.gets).pop_front();
        match fault {
            None => self.inner.get_opts(key, options).await,
            Some(Fault::ServerError) => Err(server_error()),
            Some(Fault::Silence | Fault::LostAnswer) => std::future::pending().await,
            Some(Fault::Missing) => Err(Error::NotFound { path: key.to_string(), source: "a fault".into() }),
            Some(fault) => self.damaged_get(key, options, fault).await,
        }
    }

    fn delete_stream(&self, keys: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        match self.check_up() {
            Ok(()) => self.inner.delete_stream(keys),
            Err(error) => futures_util::stream::iter([Err(error)]).boxed(),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.check_up() {
            Ok(()) => self.inner.list(prefix),
            Err(error) => futures_util::stream::iter([Err(error)]).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(server_error())
    }
}
