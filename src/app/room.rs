//! A disk without room: the process that met it ends, and the next one waits until there is some.
//!
//! The WAL lives with a full disk, the metadata store does not: a write of it that was cut short is final for the process
//! (`kv`). Opened anew it is sound again, as after a crash. But without any room the next process would only fail again,
//! and give up the one thing that it still has, its place with the service manager.

use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::cli::notify;
use crate::env::free_bytes;

use super::Error;

/// What opening and the first minutes need: a log and a table of the metadata store, a few times over.
const ROOM_BYTES: u64 = 16 << 20;
const LOOK_EVERY: Duration = Duration::from_millis(500);
const SAY_EVERY: Duration = Duration::from_secs(60);

/// Whether the folder was used before: a first start says itself what it lacks.
pub(super) fn is_in_use(data_dir: &Path) -> bool {
    data_dir.join("metadata/CURRENT").exists()
}

/// Returns when there is room where a folder lies that was used before.
pub(super) async fn await_room(data_dir: &Path) {
    let mut said: Option<Instant> = None;
    while let Some(free) = is_in_use(data_dir).then(|| lacks_room(data_dir)).flatten() {
        if said.is_none_or(|at| at.elapsed() >= SAY_EVERY) {
            said = Some(Instant::now());
            let (folder, needed) = (data_dir.display(), ROOM_BYTES);
            tracing::warn!(%folder, free, needed, "the disk is full: this node starts when there is room; free space");
        }
        notify::waiting("the disk is full: waiting for room", LOOK_EVERY * 20);
        sleep(LOOK_EVERY).await;
    }
    if said.is_some() {
        tracing::info!("there is room again");
    }
}

/// The bytes that are free, if they are too few.
fn lacks_room(data_dir: &Path) -> Option<u64> {
    // Where nobody can say how much it is, what fails for the lack of it will.
    free_bytes(data_dir).ok().filter(|free| *free < ROOM_BYTES)
}

/// Tells a failure for want of room from others: it goes away by itself when there is some.
pub(super) fn classified(error: Error, data_dir: &Path) -> Error {
    match error {
        // What failed in the background of the metadata store is not named; then the disk is asked.
        Error::Storage(why) if is_full(&why) || lacks_room(data_dir).is_some() => Error::Full(why),
        other => other,
    }
}

fn is_full(why: &str) -> bool {
    why.contains("No space left on device")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_storage_that_failed_for_want_of_room_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let full = classified(Error::Storage("IO error: No space left on device: While appending".into()), dir.path());
        assert!(matches!(full, Error::Full(_)), "{full}");
        let other = classified(Error::Storage("Input/output error (os error 5)".into()), dir.path());
        assert!(matches!(other, Error::Storage(_)), "{other}; has this machine's folder for temporary files room?");
        let fenced = classified(Error::Fenced("No space left on device".into()), dir.path());
        assert!(matches!(fenced, Error::Fenced(_)), "{fenced}");
    }

    #[tokio::test]
    async fn a_folder_that_is_new_waits_for_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_in_use(dir.path()));
        await_room(dir.path()).await;
        await_room(&dir.path().join("not there yet")).await;
    }
}
