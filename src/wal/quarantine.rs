//! Keeps what recovery cuts, so that a person can look at it.

use std::io::{self, IoSlice};

use crate::env::{Disk, OpenMode};

use super::segment::Segment;

const DIR: &str = "quarantine";
const PIECE: usize = 1 << 20;

/// A tail that was cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// Path of the copy, relative to the folder of the node.
    pub file: String,
    pub bytes: u64,
    /// Sequence of the last block that stands.
    pub after: u64,
}

/// Copies `bytes` from `offset` of a segment into a file whose name tells where they were; safe when it returns. Done
/// again after a crash it makes the same file.
pub(super) fn keep(disk: &dyn Disk, from: &Segment, offset: u64, bytes: u64, after: u64) -> io::Result<Quarantined> {
    disk.create_dir(DIR)?;
    disk.sync_dir("")?;
    let file = format!("{DIR}/wal-generation-{}-offset-{offset}-after-{after}", from.generation);
    let copy = disk.open(&file, OpenMode::Create)?;
    let mut done = 0;
    let mut piece = vec![0; PIECE.min(bytes as usize)];
    while done < bytes {
        let want = piece.len().min((bytes - done) as usize);
        let read = from.file.read_at(&mut piece[..want], offset + done)?;
        if read == 0 {
            break;
        }
        copy.write_at(&[IoSlice::new(&piece[..read])], done)?;
        done += read as u64;
    }
    copy.sync_data()?;
    disk.sync_dir(DIR)?;
    Ok(Quarantined { file, bytes: done, after })
}
