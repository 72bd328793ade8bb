//! Writes a new file past the page cache: what is put there is read again from memory or from the WAL, if at all soon, so
//! that pages of it would only cost time and displace others.
//!
//! Direct I/O wants memory, offsets and lengths that are multiples of a page: the pieces are gathered in one aligned
//! buffer, the last write is filled up with zeros and the file cut to its length. Where a file system cannot do it the
//! same writes go through the page cache.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::Bytes;

use crate::env;

/// Bytes of one write.
const CHUNK_BYTES: usize = 1024 * 1024;
/// Bytes between two syncs, so that a sync of the write-ahead log never waits behind a whole object.
const STEP_BYTES: u64 = 4 * 1024 * 1024;

const _: () = assert!(CHUNK_BYTES.is_multiple_of(env::DIRECT_ALIGN));

#[derive(Debug)]
pub(super) enum StageError {
    Write(io::Error),
    /// Final: see [`crate::env::DiskFile::sync_data`].
    Sync(io::Error),
}

/// Makes the file `path` out of `pieces`. The caller syncs it once more: the last bytes and the length may not be safe.
pub(super) fn write(path: &Path, pieces: &[Bytes]) -> Result<File, StageError> {
    let (file, direct) = env::create_direct(path, 0o600).map_err(StageError::Write)?;
    let mut staging = Staging { file, direct, written: 0, unsynced: 0 };
    let mut chunk = Chunk::new();
    for piece in pieces {
        let mut left = &piece[..];
        while !left.is_empty() {
            left = &left[chunk.take(left)..];
            if chunk.is_full() {
                staging.write(&mut chunk)?;
            }
        }
    }
    let bytes = staging.written + chunk.used as u64;
    if chunk.used > 0 {
        staging.write(&mut chunk)?;
    }
    if staging.written > bytes {
        staging.file.set_len(bytes).map_err(StageError::Write)?;
    }
    if !staging.direct {
        // Written pages stay dirty until the last sync; only then they can go.
        staging.file.sync_data().map_err(StageError::Sync)?;
        env::forget_cached(&staging.file);
    }
    Ok(staging.file)
}

struct Staging {
    file: File,
    direct: bool,
    written: u64,
    unsynced: u64,
}

impl Staging {
    fn write(&mut self, chunk: &mut Chunk) -> Result<(), StageError> {
        let bytes = chunk.filled_up();
        let mut done = self.file.write_all_at(bytes, self.written);
        if self.direct && done.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::InvalidInput) {
            // This file system wants another alignment, or wrote a part that ends off it.
            self.direct = false;
            env::leave_direct(&self.file).map_err(StageError::Write)?;
            done = self.file.write_all_at(bytes, self.written);
        }
        done.map_err(StageError::Write)?;
        self.written += bytes.len() as u64;
        self.unsynced += bytes.len() as u64;
        chunk.used = 0;
        if self.unsynced >= STEP_BYTES {
            self.unsynced = 0;
            self.file.sync_data().map_err(StageError::Sync)?;
        }
        Ok(())
    }
}

/// Aligned memory for one write.
struct Chunk {
    memory: Vec<u8>,
    start: usize,
    used: usize,
}

impl Chunk {
    fn new() -> Chunk {
        let memory = vec![0; CHUNK_BYTES + env::DIRECT_ALIGN];
        let start = memory.as_ptr().align_offset(env::DIRECT_ALIGN).min(env::DIRECT_ALIGN);
        Chunk { memory, start, used: 0 }
    }

    /// Copies as much of `bytes` as there is room for; how much that was.
    fn take(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(CHUNK_BYTES - self.used);
        let at = self.start + self.used;
        self.memory[at..at + taken].copy_from_slice(&bytes[..taken]);
        self.used += taken;
        taken
    }

    fn is_full(&self) -> bool {
        self.used == CHUNK_BYTES
    }

    /// What is in it, and zeros up to the next multiple of the alignment.
    fn filled_up(&mut self) -> &[u8] {
        let whole = self.used.next_multiple_of(env::DIRECT_ALIGN);
        self.memory[self.start + self.used..self.start + whole].fill(0);
        &self.memory[self.start..self.start + whole]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_holds_exactly_its_pieces() {
        let dir = tempfile::tempdir().unwrap();
        let lengths: [&[usize]; 7] = [
            &[],
            &[1],
            &[env::DIRECT_ALIGN],
            &[CHUNK_BYTES],
            &[CHUNK_BYTES - 1, 2],
            &[3, 0, CHUNK_BYTES * 5, env::DIRECT_ALIGN + 1],
            &[STEP_BYTES as usize, 7],
        ];
        for (case, lengths) in lengths.iter().enumerate() {
            let pieces: Vec<Bytes> =
                lengths.iter().map(|n| (0..*n).map(|i| (i * 31 + case) as u8).collect::<Vec<_>>().into()).collect();
            let path = dir.path().join(case.to_string());
            write(&path, &pieces).unwrap().sync_all().unwrap();
            assert!(std::fs::read(&path).unwrap() == pieces.concat(), "{lengths:?}");
        }
    }

    #[test]
    fn a_used_name_is_written_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, vec![9; 3 * CHUNK_BYTES]).unwrap();
        write(&path, &[Bytes::from_static(b"short")]).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"short");
    }

    #[test]
    fn without_direct_io_the_same_bytes_are_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let (file, direct) = env::create_direct(&path, 0o600).unwrap();
        let mut staging = Staging { file, direct, written: 0, unsynced: 0 };
        if direct {
            // Off its alignment, as after a write that was cut short: direct I/O refuses it.
            staging.file.set_len(1).unwrap();
            staging.written = 1;
        }
        let mut chunk = Chunk::new();
        chunk.take(b"whole");
        staging.write(&mut chunk).unwrap();
        assert!(!staging.direct);
        assert_eq!(std::fs::read(&path).unwrap()[usize::from(direct)..][..5], *b"whole");
    }
}
