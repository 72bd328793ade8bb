//! What a killed process and a power loss leave: copies of the folder, with the write-ahead log cut anywhere.

use std::fs;
use std::path::PathBuf;

use super::*;

/// Image and index after each number of commands, by the pure function alone.
fn model(kv: &Kv) -> Vec<(Image, MemoryIndex)> {
    let mut states = vec![(Image::default(), MemoryIndex::default())];
    for entry in kv.log_entries(0, u64::MAX).unwrap() {
        let Payload::Command(group) = entry.payload else { continue };
        for command in group::decode(&group).unwrap() {
            let (mut image, mut index) = states.last().unwrap().clone();
            let (_, ops) = apply(&mut image, &Command::decode(command).unwrap(), &index);
            index.apply(&ops);
            states.push((image, index));
        }
    }
    states
}

fn check(image: &Image, kv: &Kv, states: &[(Image, MemoryIndex)]) {
    let (expected, index) = &states[image.applied as usize];
    assert_eq!(image, expected);
    let totals = kv.totals().unwrap();
    assert_eq!((totals.ranges, totals.live + totals.prepared), (index.ranges.len() as u64, index.objects.len() as u64));
    for ((partition, base), entry) in &index.ranges {
        assert_eq!(kv.range(*partition, *base).unwrap().as_ref(), Some(entry));
    }
    for (id, entry) in &index.objects {
        assert_eq!(kv.object(*id).unwrap().as_ref(), Some(entry));
    }
}

/// Copies the folder as it is; `cut` shortens the newest write-ahead log to that many bytes.
fn copy(from: &Path, cut: Option<u64>) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(from).unwrap().flatten().filter(|e| e.file_name() != "LOCK") {
        fs::copy(entry.path(), to.path().join(entry.file_name())).unwrap();
    }
    if let Some(bytes) = cut {
        fs::OpenOptions::new().write(true).open(newest_log(to.path())).unwrap().set_len(bytes).unwrap();
    }
    to
}

fn newest_log(folder: &Path) -> PathBuf {
    let files = fs::read_dir(folder).unwrap().flatten().map(|e| e.path());
    files.filter(|path| path.extension().is_some_and(|e| e == "log")).max().unwrap()
}

#[test]
fn wherever_the_write_ahead_log_ends_the_state_is_that_after_the_commands_it_claims() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = runtime();
    let quorum = runtime.block_on(async {
        let quorum = start(folder.path()).await;
        run(&quorum, set_up()).await;
        run(&quorum, (0..4).flat_map(upload)).await;
        // A group of several commands: a cut may fall between them.
        let prepare = Command::PrepareObjects { node: NODE, epoch: EPOCH, count: 1, now_ms: 3 };
        futures_util::future::join_all((0..20).map(|_| quorum.propose(&prepare))).await;
        quorum
    });
    let states = model(&quorum.kv);
    let whole = fs::metadata(newest_log(folder.path())).unwrap().len();
    let (mut ahead, mut replayed) = (0, 0);
    let step = (whole / 150).max(1);
    for cut in (0..whole).step_by(step as usize).chain([whole]) {
        let copy = copy(folder.path(), Some(cut));
        let kv = Arc::new(Kv::open(copy.path(), true).unwrap());
        let core = Core::load(Arc::clone(&kv)).unwrap();
        let (loaded, stored_ahead) = (core.image(), core.state().ahead);
        check(&loaded, &kv, &states);
        let logged = model(&kv).len() as u64 - 1;
        drop((core, kv));

        // What is in the log is applied again, and once.
        let again = runtime.block_on(start(copy.path()));
        let image = again.image().borrow().clone();
        assert_eq!(image.applied, logged);
        check(&image, &again.kv, &states);
        ahead += u32::from(stored_ahead > 0);
        replayed += u32::from(image.applied > loaded.applied);
        runtime.block_on(again.shutdown());
    }
    assert!(ahead > 0 && replayed > 0, "no cut fell between a log entry and its effect: {ahead}, {replayed}");
}

#[test]
fn a_killed_process_leaves_everything_that_was_answered() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = runtime();
    let quorum = runtime.block_on(start(folder.path()));
    runtime.block_on(run(&quorum, set_up()));
    for n in 0..10 {
        runtime.block_on(run(&quorum, upload(n)));
        let before = quorum.image().borrow().clone();
        let copy = copy(folder.path(), None);
        let again = runtime.block_on(try_start(options(copy.path(), false))).unwrap();
        assert_eq!(*again.image().borrow(), before);
        assert_eq!(again.index().totals().unwrap(), quorum.index().totals().unwrap());
        runtime.block_on(again.shutdown());
    }
}

#[test]
fn a_vote_without_an_entry_of_its_term_does_not_keep_older_entries_waiting() {
    let folder = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let quorum = start(folder.path()).await;
        run(&quorum, set_up()).await;
        quorum.shutdown().await;
    });
    // Killed after the vote of the next term was synced, committed or not, and before its first entry.
    for committed in [false, true] {
        let copy = copy(folder.path(), None);
        let kv = Kv::open(copy.path(), false).unwrap();
        let before = kv.vote().unwrap().unwrap();
        let vote = Vote { term: before.term + 1, committed, ..before };
        let mut batch = Batch::default();
        batch.put_vote(&vote);
        kv.write(batch, Durability::Synced).unwrap();
        drop(kv);
        runtime().block_on(async {
            let quorum = start(copy.path()).await;
            assert_eq!(quorum.image().borrow().applied, 4);
            run(&quorum, upload(0)).await;
            quorum.shutdown().await;
        });
    }
}
