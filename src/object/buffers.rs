//! Large reads of files: past the page cache, into buffers that are used again and again.
//!
//! The cache of this module holds what readers share; through the page cache every byte would be copied once more and would
//! displace pages of the write-ahead log. A fresh buffer costs more than the read that fills it: the kernel maps and
//! clears each of its pages. What a read answers gives its buffer back when the last slice of it is dropped.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::env::{self, DIRECT_ALIGN};

/// Smaller reads go through the page cache, into buffers made for them.
const SMALL_BYTES: usize = 128 * 1024;
/// Largest read that uses the buffers again: a block of an object with its header, widened to whole chunks of a checked
/// copy on both sides.
const LARGE_BYTES: usize = 1024 * 1024 + 4096 + 2 * super::sums::CHUNK_BYTES;
/// Whatever its alignment in the file, a largest read covers at most two pages more.
const WHOLE_BYTES: usize = LARGE_BYTES + 2 * DIRECT_ALIGN;
/// From this size on a read takes one of the buffers that are kept. A smaller one would hold a whole buffer in the cache, which
/// counts only what is shown.
const KEPT_BYTES: usize = LARGE_BYTES / 2;
/// Buffers kept for later use.
const KEPT_MAX: usize = 16;

/// The buffers that nobody uses now.
#[derive(Debug, Clone, Default)]
pub(super) struct Buffers {
    free: Arc<Mutex<Vec<Aligned>>>,
}

/// Memory that direct I/O can fill.
#[derive(Debug, Default)]
struct Aligned {
    memory: Vec<u8>,
    start: usize,
}

impl Aligned {
    fn new(bytes: usize) -> Aligned {
        let memory = vec![0; bytes + DIRECT_ALIGN];
        let start = memory.as_ptr().align_offset(DIRECT_ALIGN).min(DIRECT_ALIGN);
        Aligned { memory, start }
    }

    /// Whether it has room for a read of any size and alignment: only such buffers are kept.
    fn is_whole(&self) -> bool {
        self.memory.len() >= WHOLE_BYTES + DIRECT_ALIGN
    }

    fn bytes(&mut self, length: usize) -> &mut [u8] {
        &mut self.memory[self.start..self.start + length]
    }
}

/// A buffer under its user, who sees `shown` of it.
struct Lent {
    buffer: Aligned,
    shown: Range<usize>,
    free: Arc<Mutex<Vec<Aligned>>>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer.memory[self.shown.clone()]
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < KEPT_MAX && self.buffer.is_whole() {
            free.push(std::mem::take(&mut self.buffer));
        }
    }
}

impl Buffers {
    /// The bytes `range` of the file `path`, which is known to have them.
    pub fn read(&self, path: &Path, range: Range<u64>) -> io::Result<Bytes> {
        let length = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
        if !(SMALL_BYTES..=LARGE_BYTES).contains(&length) {
            let mut buffer = vec![0; length];
            File::open(path)?.read_exact_at(&mut buffer, range.start)?;
            return Ok(buffer.into());
        }
        let skipped = (range.start % DIRECT_ALIGN as u64) as usize;
        let (first, needed) = (range.start - skipped as u64, skipped + length);
        let mut lent = self.lend(needed.next_multiple_of(DIRECT_ALIGN));
        let (file, direct) = env::open_direct(path)?;
        let whole = lent.buffer.bytes(needed.next_multiple_of(DIRECT_ALIGN));
        let mut done = fill(&file, whole, first, needed);
        if direct && done.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::InvalidInput) {
            // This file system wants another alignment.
            env::leave_direct(&file)?;
            done = fill(&file, whole, first, needed);
        }
        done?;
        lent.shown = lent.buffer.start + skipped..lent.buffer.start + needed;
        Ok(Bytes::from_owner(lent))
    }

    fn lend(&self, bytes: usize) -> Lent {
        let buffer = match bytes {
            KEPT_BYTES.. => {
                let kept = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
                kept.unwrap_or_else(|| Aligned::new(WHOLE_BYTES))
            }
            _ => Aligned::new(bytes),
        };
        Lent { buffer, shown: 0..0, free: self.free.clone() }
    }
}

/// Reads until at least `needed` bytes of `buffer` are there; the file may end after them.
fn fill(file: &File, buffer: &mut [u8], first: u64, needed: usize) -> io::Result<()> {
    let mut done = 0;
    while done < needed {
        match file.read_at(&mut buffer[done..], first + done as u64) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE_BYTES: usize = 3 * LARGE_BYTES + 77;

    fn file() -> (tempfile::TempDir, std::path::PathBuf, Vec<u8>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let bytes: Vec<u8> = (0..FILE_BYTES as u32).map(|n| (n.wrapping_mul(0x9e37_79b9) >> 13) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        (dir, path, bytes)
    }

    #[test]
    fn every_alignment_reads_the_same_bytes() {
        let (_dir, path, bytes) = file();
        let buffers = Buffers::default();
        for length in [1, SMALL_BYTES - 1, SMALL_BYTES, SMALL_BYTES + 4095, LARGE_BYTES, LARGE_BYTES + 1] {
            for start in [0, 1, 4095, 4096, 70_001, FILE_BYTES - length] {
                let read = buffers.read(&path, start as u64..(start + length) as u64).unwrap();
                assert!(read == bytes[start..start + length], "{length} bytes at {start}");
            }
        }
    }

    #[test]
    fn a_buffer_is_used_again_only_when_nothing_points_into_it() {
        let (_dir, path, bytes) = file();
        let buffers = Buffers::default();
        let first = buffers.read(&path, 10..10 + KEPT_BYTES as u64).unwrap();
        let slice = first.slice(10..20);
        let place = first.as_ptr();
        drop(first);
        let second = buffers.read(&path, 10..10 + LARGE_BYTES as u64).unwrap();
        assert_ne!(second.as_ptr(), place);
        assert_eq!(slice[..], bytes[20..30]);
        drop(slice);
        let third = buffers.read(&path, 10..11 + KEPT_BYTES as u64).unwrap();
        assert_eq!((third.as_ptr(), third.len()), (place, KEPT_BYTES + 1));
    }

    #[test]
    fn what_is_shown_holds_at_most_twice_its_size() {
        let buffers = Buffers::default();
        for length in [SMALL_BYTES, KEPT_BYTES - 4 * DIRECT_ALIGN, KEPT_BYTES, LARGE_BYTES] {
            let held = buffers.lend(length).buffer.memory.len();
            assert!((length..=2 * length + 4 * DIRECT_ALIGN).contains(&held), "{held} bytes for {length}");
        }
    }

    #[test]
    fn few_are_kept_and_a_failed_read_loses_none() {
        let (_dir, path, _) = file();
        let buffers = Buffers::default();
        let kept = || buffers.free.lock().unwrap().len();
        let many: Vec<_> = (0..2 * KEPT_MAX).map(|_| buffers.read(&path, 0..KEPT_BYTES as u64).unwrap()).collect();
        drop(many);
        assert_eq!(kept(), KEPT_MAX);
        let beyond = FILE_BYTES as u64 + 4096;
        let error = buffers.read(&path, beyond..beyond + SMALL_BYTES as u64).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert!(buffers.read(&path.with_extension("absent"), 0..SMALL_BYTES as u64).is_err());
        assert_eq!(kept(), KEPT_MAX);
        buffers.read(&path, 0..10).unwrap();
        assert_eq!(kept(), KEPT_MAX, "a small read takes none");
    }
}
