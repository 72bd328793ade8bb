//! One process per folder.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// Why a folder could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("the folder {} is in use by another process: stop it, or name another folder", folder.display())]
    Taken { folder: PathBuf },
    #[error(
        "cannot lock {} ({source}): the folder has to be there and this user has to be able to write to it, so check \
         mount, owner and mode, or name another folder",
        path.display()
    )]
    Io { path: PathBuf, source: io::Error },
}

/// Holds the folder until it is dropped; the kernel also gives it up when the process dies.
#[derive(Debug)]
pub struct LockGuard {
    _file: File,
}

/// Takes the exclusive lock of `folder`, by flock on its file `lock`, without waiting.
///
/// The file is never removed: removing it would let two processes each lock a file of that name.
pub fn lock_dir(folder: &Path) -> Result<LockGuard, LockError> {
    let path = folder.join("lock");
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let file = opened.map_err(|source| LockError::Io { path: path.clone(), source })?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(LockGuard { _file: file }),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(LockError::Taken { folder: folder.to_owned() }),
        Err(errno) => Err(LockError::Io { path, source: errno.into() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_until_the_first_lets_go() {
        let dir = tempfile::tempdir().unwrap();
        let first = lock_dir(dir.path()).unwrap();
        assert!(matches!(lock_dir(dir.path()), Err(LockError::Taken { .. })));
        drop(first);
        lock_dir(dir.path()).unwrap();
        assert!(matches!(lock_dir(&dir.path().join("absent")), Err(LockError::Io { .. })));
    }
}
