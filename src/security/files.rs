//! The files of certificates and keys: bounded reads, the check that a key is private, writes that never overwrite.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Larger than any sensible bundle of certificates.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// What a private key may at most permit: its owner to write, its group to read.
const KEY_MODE_MAX: u32 = 0o640;
/// Mode of a private key that is written here.
pub(super) const PRIVATE: u32 = 0o600;
/// Mode of everything else that is written here; the folder around it is private anyway.
pub(super) const PUBLIC: u32 = 0o644;

/// A file or folder that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("cannot read {path} ({source}): check that it exists and is readable", path = path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} is no regular file or larger than {FILE_BYTES_MAX} bytes: name the right one", path = path.display())]
    Kind { path: PathBuf },
    #[error(
        "the secret in {path} has mode {mode:04o} and is open to others: renew it, or run `chmod 0600 {path}`",
        path = path.display()
    )]
    KeyMode { path: PathBuf, mode: u32 },
    #[error("cannot write {path} ({source}): check the folder's owner and free space", path = path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{path} exists and is never overwritten: choose another folder or move it away", path = path.display())]
    Exists { path: PathBuf },
}

impl FileError {
    fn write(path: &Path) -> impl FnOnce(io::Error) -> FileError {
        let path = path.to_owned();
        |source| match source.kind() {
            io::ErrorKind::AlreadyExists => FileError::Exists { path },
            _ => FileError::Write { path, source },
        }
    }
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    read_checked(path, |_| Ok(()))
}

/// Reads a private key or another secret; refuses one that others than its owner and group may read.
pub(super) fn read_private(path: &Path) -> Result<Vec<u8>, FileError> {
    read_checked(path, |mode| {
        if mode & !KEY_MODE_MAX == 0 { Ok(()) } else { Err(FileError::KeyMode { path: path.to_owned(), mode }) }
    })
}

fn read_checked(path: &Path, check_mode: impl Fn(u32) -> Result<(), FileError>) -> Result<Vec<u8>, FileError> {
    let failed = |source| FileError::Read { path: path.to_owned(), source };
    // Before it is opened: opening a pipe would wait for a writer.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(FileError::Kind { path: path.to_owned() });
    }
    let file = File::open(path).map_err(failed)?;
    check_mode(file.metadata().map_err(failed)?.permissions().mode() & 0o7777)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX { Err(FileError::Kind { path: path.to_owned() }) } else { Ok(bytes) }
}

/// Writes and syncs a file that must not exist yet. The caller syncs the folder.
pub(super) fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(FileError::write(path))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(FileError::write(path))
}

/// Puts a file in the place of the one that may be there, whole or not at all.
pub(super) fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    let partial = path.with_file_name(name);
    match fs::remove_file(&partial) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(FileError::write(&partial)(e)),
        _ => write_new(&partial, bytes, mode)?,
    }
    fs::rename(&partial, path).map_err(FileError::write(path))?;
    sync_folder(&folder_of(path))
}

/// The folder in which a file is.
pub(super) fn folder_of(path: &Path) -> PathBuf {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new(".")).to_owned()
}

/// Makes a folder that only its owner may enter, and those above it; it may exist already.
pub(super) fn ensure_private_folder(path: &Path) -> Result<(), FileError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(FileError::write(path))
}

/// Makes a folder that only its owner may enter and that must not exist yet.
pub(super) fn new_private_folder(path: &Path) -> Result<(), FileError> {
    DirBuilder::new().mode(0o700).create(path).map_err(FileError::write(path))
}

pub(super) fn refuse_existing(path: &Path) -> Result<(), FileError> {
    match fs::symlink_metadata(path) {
        Ok(_) => Err(FileError::Exists { path: path.to_owned() }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(FileError::Read { path: path.to_owned(), source }),
    }
}

/// Removes a folder that an interrupted run left behind.
pub(super) fn remove_leftover(path: &Path) -> Result<(), FileError> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(FileError::write(path)(e)),
        _ => Ok(()),
    }
}

pub(super) fn rename(from: &Path, to: &Path) -> Result<(), FileError> {
    fs::rename(from, to).map_err(FileError::write(to))
}

pub(super) fn sync_folder(path: &Path) -> Result<(), FileError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(FileError::write(path))
}

pub(super) fn absolute(path: &Path) -> Result<PathBuf, FileError> {
    fs::canonicalize(path).map_err(|source| FileError::Read { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        write_new(&path, b"secret", PRIVATE).unwrap();
        for (mode, good) in
            [(0o600, true), (0o640, true), (0o400, true), (0o644, false), (0o660, false), (0o604, false)]
        {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read_private(&path).is_ok(), good, "{mode:o}");
        }
        assert!(matches!(write_new(&path, b"other", PRIVATE), Err(FileError::Exists { .. })));
    }

    #[test]
    fn what_is_no_file_or_too_large_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(read(folder.path()), Err(FileError::Kind { .. })));
        assert!(matches!(read(&folder.path().join("none")), Err(FileError::Read { .. })));
        let path = folder.path().join("large");
        File::create(&path).unwrap().set_len(FILE_BYTES_MAX + 1).unwrap();
        assert!(matches!(read(&path), Err(FileError::Kind { .. })));
    }

    #[test]
    fn a_replacement_is_whole_and_survives_a_leftover() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("settings");
        fs::write(folder.path().join("settings.partial"), "old rubbish").unwrap();
        replace(&path, b"one", PUBLIC).unwrap();
        replace(&path, b"two", PUBLIC).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
