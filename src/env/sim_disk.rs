//! A disk in memory that loses what it may lose.
//!
//! The fault model. A write is visible at once and safe after `sync_data` of its file. When the power goes, each 512-byte
//! sector written since then holds, independently of every other, its safe content or any of the later ones: writes
//! are lost, torn and reordered, but one sector is never mixed. A file's length may fall back likewise. Of the names made,
//! renamed or removed in a folder since its last `sync_dir`, a suffix may be undone. Making a folder is safe at once.
//! Besides, any operation can be made to fail, and any bit be flipped. The same seed loses the same things.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::disk::{Disk, DiskFile, OpenMode};
use super::entropy::SeededEntropy;

const SECTOR: usize = 512;

/// An operation that can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Read,
    Write,
    Sync,
    Allocate,
    Rename,
    SyncDir,
}

#[derive(Clone, Default)]
pub struct SimDisk(Arc<Mutex<World>>);

#[derive(Default)]
struct World {
    files: Vec<Inode>,
    /// Path to index in `files`, as programs see it and as the next power cut leaves it at least.
    names: BTreeMap<String, usize>,
    safe_names: BTreeMap<String, usize>,
    name_changes: Vec<NameChange>,
    dirs: BTreeSet<String>,
    faults: Vec<Fault>,
    /// Changes (writes, syncs, names) that still succeed before the power goes.
    changes_left: Option<u64>,
    changes: u64,
    powered_off: bool,
    /// Handles of before the last power cut or kill are dead.
    boot: u64,
}

#[derive(Default)]
struct Inode {
    safe: Vec<u8>,
    current: Vec<u8>,
    /// Sectors written since the last sync, in order.
    unsynced: Vec<(usize, [u8; SECTOR])>,
}

#[derive(Clone)]
enum NameChange {
    Set(String, usize),
    Rename(String, String),
    Remove(String),
}

struct Fault {
    operation: Operation,
    path_part: String,
    skip: u64,
    errno: i32,
}

impl SimDisk {
    pub fn new() -> Self {
        Self::default()
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the power go after `changes` more changes; the one at which it goes may be lost, too.
    pub fn power_off_after(&self, changes: u64) {
        self.world().changes_left = Some(changes);
    }

    /// Every operation fails from here on, until [`SimDisk::power_on`].
    pub fn power_off(&self) {
        self.world().powered_off = true;
    }

    pub fn is_off(&self) -> bool {
        self.world().powered_off
    }

    /// Changes made so far.
    pub fn changes(&self) -> u64 {
        self.world().changes
    }

    /// The machine comes back after a power cut: what was not synced is gone, in part gone or there, as `seed` has it.
    pub fn power_on(&self, seed: u64) {
        let world = &mut *self.world();
        let dice = SeededEntropy::new(seed);
        // All lost, all kept, or everything for itself.
        let mood = dice.below(4);
        for file in &mut world.files {
            file.lose(mood, &dice);
        }
        let kept = match mood {
            0 => 0,
            1 => world.name_changes.len(),
            _ => dice.below(world.name_changes.len() as u64 + 1) as usize,
        };
        for change in world.name_changes.drain(..).take(kept) {
            change.apply(&mut world.safe_names);
        }
        world.names = world.safe_names.clone();
        world.restart();
    }

    /// The process died and the machine did not: nothing is lost, but old handles are dead.
    pub fn kill(&self) {
        self.world().restart();
    }

    /// Makes the `nth` (from 1) such operation from now on a path that contains `path_part` fail once with `errno`.
    pub fn fail(&self, operation: Operation, path_part: &str, nth: u64, errno: i32) {
        self.world().faults.push(Fault { operation, path_part: path_part.to_string(), skip: nth.max(1) - 1, errno });
    }

    pub fn clear_faults(&self) {
        self.world().faults.clear();
    }

    /// Changes stored bytes behind the program's back.
    pub fn corrupt(&self, path: &str, offset: u64, xor: u8) {
        let world = &mut *self.world();
        let index = world.names[path];
        let (file, at) = (&mut world.files[index], offset as usize);
        file.current[at] ^= xor;
        if let Some(byte) = file.safe.get_mut(at) {
            *byte ^= xor;
        }
    }

    /// The file as programs see it.
    pub fn content(&self, path: &str) -> Option<Vec<u8>> {
        let world = self.world();
        world.names.get(path).map(|index| world.files[*index].current.clone())
    }

    /// Puts `content` there, safely, in place of what was there.
    pub fn put(&self, path: &str, content: &[u8]) {
        let world = &mut *self.world();
        let file = Inode { safe: content.to_vec(), current: content.to_vec(), unsynced: Vec::new() };
        world.files.push(file);
        let index = world.files.len() - 1;
        world.names.insert(path.to_string(), index);
        world.safe_names.insert(path.to_string(), index);
    }

    /// A second disk with the same content, everything on it safe.
    pub fn fork(&self) -> SimDisk {
        let world = self.world();
        let copy = SimDisk::new();
        copy.world().dirs = world.dirs.clone();
        for (path, index) in &world.names {
            copy.put(path, &world.files[*index].current);
        }
        copy
    }
}

impl World {
    fn restart(&mut self) {
        self.boot += 1;
        self.powered_off = false;
        self.changes_left = None;
    }

    fn check(&mut self, operation: Operation, path: &str) -> io::Result<()> {
        if self.powered_off {
            return Err(io::Error::other("the simulated power is off"));
        }
        let mut failed = None;
        self.faults.retain_mut(|fault| {
            let counts = fault.operation == operation && path.contains(&fault.path_part);
            if counts && fault.skip == 0 {
                failed = Some(fault.errno);
                return false;
            }
            fault.skip -= counts as u64;
            true
        });
        if let Some(errno) = failed {
            return Err(io::Error::from_raw_os_error(errno));
        }
        Ok(())
    }

    /// Counts one change; the power may go during it.
    fn change(&mut self) -> io::Result<()> {
        self.changes += 1;
        match &mut self.changes_left {
            Some(0) => {
                self.powered_off = true;
                Err(io::Error::other("the simulated power went"))
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn change_name(&mut self, change: NameChange) -> io::Result<()> {
        change.clone().apply(&mut self.names);
        self.name_changes.push(change);
        self.change()
    }
}

impl NameChange {
    fn apply(self, names: &mut BTreeMap<String, usize>) {
        match self {
            NameChange::Set(path, index) => {
                names.insert(path, index);
            }
            NameChange::Rename(from, to) => {
                if let Some(index) = names.remove(&from) {
                    names.insert(to, index);
                }
            }
            NameChange::Remove(path) => {
                names.remove(&path);
            }
        }
    }

    fn dir(&self) -> &str {
        let (NameChange::Set(path, _) | NameChange::Rename(path, _) | NameChange::Remove(path)) = self;
        path.rsplit_once('/').map_or("", |(dir, _)| dir)
    }
}

impl Inode {
    fn write(&mut self, bufs: &[IoSlice<'_>], offset: usize) {
        let len: usize = bufs.iter().map(|b| b.len()).sum();
        if len == 0 {
            return;
        }
        if self.current.len() < offset + len {
            self.current.resize(offset + len, 0);
        }
        let mut at = offset;
        for buf in bufs {
            self.current[at..at + buf.len()].copy_from_slice(buf);
            at += buf.len();
        }
        for sector in offset / SECTOR..(offset + len).div_ceil(SECTOR) {
            self.unsynced.push((sector, self.sector(sector)));
        }
    }

    fn sector(&self, sector: usize) -> [u8; SECTOR] {
        let mut out = [0; SECTOR];
        let from = sector * SECTOR;
        let to = (from + SECTOR).min(self.current.len());
        if from < to {
            out[..to - from].copy_from_slice(&self.current[from..to]);
        }
        out
    }

    fn sync(&mut self) {
        self.unsynced.clear();
        self.safe.clone_from(&self.current);
    }

    fn lose(&mut self, mood: u64, dice: &SeededEntropy) {
        let mut versions: BTreeMap<usize, Vec<[u8; SECTOR]>> = BTreeMap::new();
        for (sector, bytes) in self.unsynced.drain(..) {
            versions.entry(sector).or_default().push(bytes);
        }
        let grown = self.current.len();
        if grown != self.safe.len() && (mood == 1 || (mood > 1 && dice.one_in(2))) {
            self.safe.resize(grown, 0);
        }
        for (sector, versions) in versions {
            let kept = match mood {
                0 => 0,
                1 => versions.len(),
                _ => dice.below(versions.len() as u64 + 1) as usize,
            };
            let from = sector * SECTOR;
            if kept > 0 && from < self.safe.len() {
                let to = (from + SECTOR).min(self.safe.len());
                self.safe[from..to].copy_from_slice(&versions[kept - 1][..to - from]);
            }
        }
        self.current.clone_from(&self.safe);
    }
}

impl Disk for SimDisk {
    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let mut world = self.world();
        world.check(Operation::Read, dir)?;
        if !dir.is_empty() && !world.dirs.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let prefix = if dir.is_empty() { String::new() } else { format!("{dir}/") };
        let names = world.names.keys().chain(&world.dirs).filter_map(|path| path.strip_prefix(&prefix));
        let mut names: Vec<String> = names.filter(|name| !name.contains('/')).map(str::to_owned).collect();
        names.sort();
        Ok(names)
    }

    fn create_dir(&self, dir: &str) -> io::Result<()> {
        let mut world = self.world();
        world.check(Operation::Write, dir)?;
        world.dirs.insert(dir.to_string());
        Ok(())
    }

    fn open(&self, path: &str, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut world = self.world();
        world.check(Operation::Read, path)?;
        let index = match (world.names.get(path).copied(), mode) {
            (Some(index), OpenMode::Create) => {
                // Emptying in place is modelled as a new file: its old bytes never shine through, and until the name
                // is safe, the old file may come back.
                let _ = index;
                world.create(path)?
            }
            (Some(index), _) => index,
            (None, OpenMode::Create) => world.create(path)?,
            (None, _) => return Err(io::ErrorKind::NotFound.into()),
        };
        Ok(Arc::new(SimFile { disk: self.clone(), index, path: path.to_string(), boot: world.boot }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut world = self.world();
        world.check(Operation::Rename, from)?;
        if !world.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        world.change_name(NameChange::Rename(from.to_string(), to.to_string()))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let mut world = self.world();
        world.check(Operation::Write, path)?;
        if !world.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        world.change_name(NameChange::Remove(path.to_string()))
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        let world = &mut *self.world();
        world.check(Operation::SyncDir, dir)?;
        world.change()?;
        let (now, later) = std::mem::take(&mut world.name_changes).into_iter().partition(|change| change.dir() == dir);
        let now: Vec<NameChange> = now;
        world.name_changes = later;
        for change in now {
            change.apply(&mut world.safe_names);
        }
        Ok(())
    }
}

impl World {
    fn create(&mut self, path: &str) -> io::Result<usize> {
        self.files.push(Inode::default());
        let index = self.files.len() - 1;
        self.change_name(NameChange::Set(path.to_string(), index))?;
        Ok(index)
    }
}

struct SimFile {
    disk: SimDisk,
    index: usize,
    path: String,
    boot: u64,
}

impl SimFile {
    fn with<T>(&self, operation: Operation, f: impl FnOnce(&mut World, usize) -> io::Result<T>) -> io::Result<T> {
        let world = &mut *self.disk.world();
        if world.boot != self.boot {
            return Err(io::Error::other("a file handle of before the simulated restart"));
        }
        world.check(operation, &self.path)?;
        f(world, self.index)
    }
}

impl DiskFile for SimFile {
    fn write_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.with(Operation::Write, |world, index| {
            world.files[index].write(bufs, offset as usize);
            world.change()
        })
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.with(Operation::Read, |world, index| {
            let content = &world.files[index].current;
            let from = (offset as usize).min(content.len());
            let len = buf.len().min(content.len() - from);
            buf[..len].copy_from_slice(&content[from..from + len]);
            Ok(len)
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(Operation::Sync, |world, index| {
            world.change()?;
            world.files[index].sync();
            Ok(())
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.with(Operation::Read, |world, index| Ok(world.files[index].current.len() as u64))
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.with(Operation::Allocate, |world, index| {
            let file = &mut world.files[index];
            if (file.current.len() as u64) < len {
                file.current.resize(len as usize, 0);
            }
            world.change()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(disk: &SimDisk, path: &str) -> Option<Vec<u8>> {
        let file = disk.open(path, OpenMode::Read).ok()?;
        let mut buf = vec![0; file.len().unwrap() as usize];
        file.read_at(&mut buf, 0).unwrap();
        Some(buf)
    }

    fn written(disk: &SimDisk, path: &str, byte: u8, len: usize) -> Arc<dyn DiskFile> {
        let file = disk.open(path, OpenMode::Create).unwrap();
        file.write_at(&[IoSlice::new(&vec![byte; len])], 0).unwrap();
        file
    }

    #[test]
    fn what_is_synced_survives_every_power_cut() {
        for seed in 0..50 {
            let disk = SimDisk::new();
            let file = written(&disk, "a", 1, 2000);
            file.sync_data().unwrap();
            disk.sync_dir("").unwrap();
            file.write_at(&[IoSlice::new(&[2; 1024])], 512).unwrap();
            disk.power_on(seed);
            let content = read(&disk, "a").unwrap();
            assert_eq!((&content[..512], &content[1536..]), (&[1; 512][..], &[1; 464][..]));
            assert!(content[512..1024].iter().all(|b| *b == content[512]), "a sector is never mixed");
            assert!(file.sync_data().is_err(), "old handles are dead");
        }
    }

    #[test]
    fn what_is_not_synced_is_sometimes_lost_torn_or_kept() {
        let mut outcomes = BTreeSet::new();
        for seed in 0..200 {
            let disk = SimDisk::new();
            let file = written(&disk, "a", 1, 1024);
            file.sync_data().unwrap();
            disk.sync_dir("").unwrap();
            file.write_at(&[IoSlice::new(&[2; 1024])], 0).unwrap();
            disk.power_on(seed);
            let content = read(&disk, "a").unwrap();
            outcomes.insert((content[0], content[512]));
        }
        assert_eq!(outcomes, BTreeSet::from([(1, 1), (1, 2), (2, 1), (2, 2)]));
    }

    #[test]
    fn a_rename_is_undone_or_whole() {
        let mut outcomes = BTreeSet::new();
        for seed in 0..100 {
            let disk = SimDisk::new();
            written(&disk, "a", 1, 10).sync_data().unwrap();
            disk.sync_dir("").unwrap();
            written(&disk, "b", 2, 10).sync_data().unwrap();
            disk.rename("b", "a").unwrap();
            disk.power_on(seed);
            outcomes.insert((read(&disk, "a").unwrap()[0], read(&disk, "b").is_some()));
        }
        assert_eq!(outcomes, BTreeSet::from([(1, false), (1, true), (2, false)]));
    }

    #[test]
    fn faults_and_the_power_switch_fire_once_when_told() {
        let disk = SimDisk::new();
        disk.create_dir("d").unwrap();
        let file = written(&disk, "d/a", 1, 10);
        disk.fail(Operation::Sync, "d/", 2, 5);
        file.sync_data().unwrap();
        assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(5));
        file.sync_data().unwrap();
        disk.corrupt("d/a", 3, 0xff);
        assert_eq!(read(&disk, "d/a").unwrap()[3], 0xfe);
        assert_eq!(disk.list("d").unwrap(), ["a"]);
        disk.power_off_after(1);
        file.sync_data().unwrap();
        assert!(file.sync_data().is_err());
        assert!(disk.is_off() && disk.list("d").is_err());
        disk.kill();
        assert!(disk.open("d/a", OpenMode::ReadWrite).is_ok());
    }
}
