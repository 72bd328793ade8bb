//! Files below one folder, with the few operations that durable storage is made of.
//!
//! A path is relative to the folder and uses `/`; the folder itself is `""`. What has not been synced may be lost, torn
//! or written in another order; a name (a file made, renamed or removed) is not safe before its folder is synced.
//! An error of `sync_data` is final for the caller: the kernel may have dropped the pages and marked them clean, so
//! trying again would report success for bytes that are lost.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Advice, FallocateFlags, OFlags, fadvise, fallocate, fcntl_getfl, fcntl_setfl, fdatasync, fsync};
use rustix::io::{pread, pwrite, pwritev, retry_on_intr};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// An existing file, to read.
    Read,
    /// An existing file, to read and write.
    ReadWrite,
    /// A file made now, or emptied when there is one of that name, to read and write.
    Create,
}

/// One folder tree. All calls block.
pub trait Disk: Send + Sync + 'static {
    /// Names (not paths) in `dir`, sorted.
    fn list(&self, dir: &str) -> io::Result<Vec<String>>;
    /// Makes one folder; one that is there already is no error.
    fn create_dir(&self, dir: &str) -> io::Result<()>;
    fn open(&self, path: &str, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;
    /// Puts the file `from` in the place of `to` in one step.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&self, path: &str) -> io::Result<()>;
    /// Makes the names in `dir` safe.
    fn sync_dir(&self, dir: &str) -> io::Result<()>;
}

/// One open file. Offsets and lengths in bytes.
pub trait DiskFile: Send + Sync {
    /// Writes all of `bufs`, one after the other, from `offset` on.
    fn write_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()>;
    /// Reads up to the length of `buf`; less only at the end of the file.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Makes everything written so far safe (fdatasync). An error is final.
    fn sync_data(&self) -> io::Result<()>;
    fn len(&self) -> io::Result<u64>;
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Claims space for `len` bytes and makes the file that long, so that a later write cannot find the disk full.
    fn allocate(&self, len: u64) -> io::Result<()>;
}

/// A folder of the operating system.
#[derive(Debug, Clone)]
pub struct RealDisk {
    root: PathBuf,
}

impl RealDisk {
    pub fn new(root: impl Into<PathBuf>) -> Self {
        RealDisk { root: root.into() }
    }

    fn at(&self, path: &str) -> PathBuf {
        if path.is_empty() { self.root.clone() } else { self.root.join(Path::new(path)) }
    }
}

impl Disk for RealDisk {
    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.at(dir))? {
            // A name that is not UTF-8 is none of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn create_dir(&self, dir: &str) -> io::Result<()> {
        match fs::create_dir(self.at(dir)) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    }

    fn open(&self, path: &str, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        match mode {
            OpenMode::Read => options.read(true),
            OpenMode::ReadWrite => options.read(true).write(true),
            OpenMode::Create => options.read(true).write(true).create(true).truncate(true),
        };
        Ok(Arc::new(RealFile(options.open(self.at(path))?)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.at(from), self.at(to))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        fs::remove_file(self.at(path))
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        Ok(fsync(File::open(self.at(dir))?)?)
    }
}

struct RealFile(File);

/// Buffers that Linux takes in one vectored call (UIO_MAXIOV).
const BUFFERS_PER_CALL: usize = 1024;

impl DiskFile for RealFile {
    fn write_at(&self, bufs: &[IoSlice<'_>], mut offset: u64) -> io::Result<()> {
        let mut next = 0; // the first buffer that is not yet written whole
        let mut done = 0; // bytes of it that are
        while next < bufs.len() {
            if bufs[next].len() == done {
                (next, done) = (next + 1, 0);
                continue;
            }
            let mut written = retry_on_intr(|| {
                if done > 0 {
                    // A short write ended inside this buffer.
                    pwrite(&self.0, &bufs[next][done..], offset)
                } else {
                    pwritev(&self.0, &bufs[next..bufs.len().min(next + BUFFERS_PER_CALL)], offset)
                }
            })?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            offset += written as u64;
            while written > 0 {
                let step = written.min(bufs[next].len() - done);
                written -= step;
                done += step;
                if done == bufs[next].len() {
                    (next, done) = (next + 1, 0);
                }
            }
        }
        Ok(())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            let read = retry_on_intr(|| pread(&self.0, &mut buf[done..], offset + done as u64))?;
            if read == 0 {
                break;
            }
            done += read;
        }
        Ok(done)
    }

    fn sync_data(&self) -> io::Result<()> {
        // Not repeated after an interruption: by then the error may have been reported and forgotten.
        Ok(fdatasync(&self.0)?)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        match fallocate(&self.0, FallocateFlags::empty(), 0, len) {
            // A file system without fallocate: the caller writes the whole file anyway.
            Err(rustix::io::Errno::OPNOTSUPP) => self.0.set_len(len),
            other => Ok(other?),
        }
    }
}

/// Bytes that an ordinary user can still write on the file system of `path`.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Tells the kernel that nobody will read this synced file soon. A hint: that it is not taken is no error.
pub fn forget_cached(file: &File) {
    let _ = fadvise(file, 0, None, Advice::DontNeed);
}

/// What addresses, offsets and lengths of direct I/O have to be multiples of, on nearly every device.
pub const DIRECT_ALIGN: usize = 4096;

/// A new or emptied file to write past the page cache; false where the file system cannot, and it is an ordinary one.
pub fn create_direct(path: &Path, mode: u32) -> io::Result<(File, bool)> {
    open_as_direct(OpenOptions::new().write(true).create(true).truncate(true).mode(mode), path)
}

/// A file to read past the page cache; false where the file system cannot, and it is an ordinary one.
pub fn open_direct(path: &Path) -> io::Result<(File, bool)> {
    open_as_direct(OpenOptions::new().read(true), path)
}

fn open_as_direct(options: &OpenOptions, path: &Path) -> io::Result<(File, bool)> {
    // O_DIRECT is within the bits of an int.
    match options.clone().custom_flags(OFlags::DIRECT.bits() as i32).open(path) {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok((options.open(path)?, false)),
        opened => Ok((opened?, true)),
    }
}

/// Makes a file that was opened for direct I/O an ordinary one.
pub fn leave_direct(file: &File) -> io::Result<()> {
    let flags = fcntl_getfl(file)?;
    Ok(fcntl_setfl(file, flags - OFlags::DIRECT)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> (tempfile::TempDir, RealDisk) {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::new(dir.path());
        (dir, disk)
    }

    #[test]
    fn more_buffers_than_one_call_takes_are_all_written() {
        let (_dir, disk) = disk();
        let file = disk.open("f", OpenMode::Create).unwrap();
        let pieces: Vec<Vec<u8>> = (0..2500usize).map(|i| vec![i as u8; i % 5]).collect();
        let bufs: Vec<IoSlice> = pieces.iter().map(|p| IoSlice::new(p)).collect();
        file.write_at(&bufs, 3).unwrap();
        file.sync_data().unwrap();
        let expected = pieces.concat();
        let mut read = vec![0; expected.len() + 10];
        let len = file.read_at(&mut read, 3).unwrap();
        assert_eq!(read[..len], expected);
        assert_eq!(file.len().unwrap(), 3 + expected.len() as u64);
    }

    #[test]
    fn names_come_and_go() {
        let (_dir, disk) = disk();
        disk.create_dir("d").unwrap();
        disk.create_dir("d").unwrap();
        disk.open("d/a", OpenMode::Create).unwrap().allocate(10_000).unwrap();
        assert_eq!(disk.open("d/a", OpenMode::Read).unwrap().len().unwrap(), 10_000);
        disk.rename("d/a", "d/b").unwrap();
        disk.sync_dir("d").unwrap();
        assert_eq!(disk.list("d").unwrap(), ["b"]);
        disk.remove("d/b").unwrap();
        assert!(disk.list("d").unwrap().is_empty());
        assert_eq!(disk.open("d/b", OpenMode::ReadWrite).err().unwrap().kind(), io::ErrorKind::NotFound);
    }
}
