//! The state machine: applies committed commands to the image and the object index, and keeps both in `kv`.
//!
//! Per command one batch holds the operations on the index, the parts of the image that changed, the totals, and how
//! far the log is applied. So what is stored is always the state after exactly the commands that it claims, and a
//! start loads it instead of replaying. The batches are not synced: they follow the synced log entries in the same
//! write-ahead log, a power loss leaves a prefix of them, and Raft applies the rest of the log again. A command of a
//! group that is in that prefix is skipped then ([`MachineState::ahead`]), never applied twice.
//!
//! The image is published after its commands are stored and before their proposers are answered. Any failure here is
//! final: it fences the store.

use std::io::Cursor;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft::storage::RaftStateMachine;
use openraft::{AnyError, EntryPayload, LogId, OptionalSend, RaftSnapshotBuilder, Snapshot, StorageIOError};
use tokio::sync::watch;

use super::answers::Answers;
use super::group;
use super::index::View;
use super::log::blocking;
use super::plant::{self, Bug};
use super::snapshot::{self, SnapshotError};
use super::types::{
    Applied, Entry, Members, SnapshotMeta, StorageError, TypeConfig, log_id, position, raft_membership,
    stored_membership,
};
use crate::base::codec::DecodeError;
use crate::kv::machine::{MachineState, Totals};
use crate::kv::object::IndexWriter;
use crate::kv::{Batch, Durability, Fenced, Kv, ReadError};
use crate::metadata::{self, Command, Image, Response};

#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error(transparent)]
    Fenced(#[from] Fenced),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("log entry {index} holds a command that this release cannot read ({source}): upgrade")]
    Decode { index: u64, source: DecodeError },
}

/// Image, index and how far they have come, in step.
pub struct Core {
    kv: Arc<Kv>,
    image: Arc<Image>,
    state: MachineState,
    totals: Totals,
    answers: Answers,
}

impl Core {
    pub fn load(kv: Arc<Kv>) -> Result<Core, ReadError> {
        let (image, state, totals) = (Arc::new(kv.image()?), kv.machine_state()?, kv.totals()?);
        Ok(Core { kv, image, state, totals, answers: Answers::default() })
    }

    /// What the entries that are applied from now on answer.
    pub fn answers(&self) -> Answers {
        self.answers.clone()
    }

    pub fn image(&self) -> Arc<Image> {
        Arc::clone(&self.image)
    }

    pub fn state(&self) -> &MachineState {
        &self.state
    }

    fn apply_entry(&mut self, entry: Entry) -> Result<Applied, ApplyError> {
        let at = position(&entry.log_id);
        let mut responses = Vec::new();
        match entry.payload {
            EntryPayload::Normal(bytes) => {
                let undecodable = |source| ApplyError::Decode { index: at.index, source };
                let commands = group::decode(&bytes.0).map_err(undecodable)?;
                let done = if plant::has(Bug::ReplayedTwice) { 0 } else { self.state.ahead as usize };
                for command in commands.into_iter().skip(done) {
                    let command = Command::decode(command).map_err(undecodable)?;
                    let state = MachineState { ahead: self.state.ahead + 1, ..self.state.clone() };
                    responses.push(self.apply_command(&command, state)?);
                }
            }
            EntryPayload::Membership(membership) => {
                self.state.membership_at = Some(at);
                self.state.membership = stored_membership(&membership);
            }
            EntryPayload::Blank => {}
        }
        let state = MachineState { applied: Some(at), ahead: 0, ..self.state.clone() };
        let mut batch = Batch::default();
        batch.put_machine_state(&state);
        self.kv.write(batch, Durability::Ordered)?;
        self.state = state;
        self.answers.put(at.index, &responses);
        Ok(Applied { responses })
    }

    fn apply_command(&mut self, command: &Command, state: MachineState) -> Result<Response, ApplyError> {
        let mut next = Image::clone(&self.image);
        let view = View::new(&self.kv);
        let (response, ops) = metadata::apply(&mut next, command, &view);
        view.failure()?;

        let mut batch = Batch::default();
        let mut index = IndexWriter::new(&self.kv, self.totals);
        for op in &ops {
            index.write(op, &mut batch)?;
        }
        let totals = index.finish();
        batch.put_totals(&totals);
        batch.put_image_changes(&self.image, &next);
        batch.put_machine_state(&state);
        self.kv.write(batch, Durability::Ordered)?;
        (self.image, self.state, self.totals) = (Arc::new(next), state, totals);
        Ok(response)
    }

    fn install(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        let restored = snapshot::decode(bytes)?;
        let mut batch = Batch::default();
        restored.write(&self.image, &mut batch);
        self.kv.write(batch, Durability::Synced)?;
        (self.image, self.state, self.totals) = (Arc::new(restored.image), restored.state, restored.totals);
        Ok(())
    }
}

/// The handle that openraft runs the machine by.
#[derive(Clone)]
pub struct Machine {
    kv: Arc<Kv>,
    core: Arc<Mutex<Core>>,
    published: watch::Sender<Arc<Image>>,
    /// What the last snapshot covers. Its bytes are made when somebody asks: the stored state is always whole, so
    /// to Raft a snapshot is only the permission to purge the log.
    snapshot: Arc<Mutex<Option<SnapshotMeta>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What a panic left is as stored: a core changes only after its batch is written.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Machine {
    pub fn new(core: Core) -> Self {
        let published = watch::Sender::new(core.image());
        Machine { kv: Arc::clone(&core.kv), core: Arc::new(Mutex::new(core)), published, snapshot: Arc::default() }
    }

    pub fn image(&self) -> watch::Receiver<Arc<Image>> {
        self.published.subscribe()
    }

    /// The whole state in one piece, as it is now. Blocks on the disk.
    pub fn snapshot_bytes(&self) -> Result<Vec<u8>, ReadError> {
        Ok(self.encode_snapshot()?.1)
    }

    fn encode_snapshot(&self) -> Result<(SnapshotMeta, Vec<u8>), ReadError> {
        let core = lock(&self.core);
        let (image, state) = (core.image(), core.state.clone());
        let view = self.kv.snapshot();
        drop(core);
        Ok((meta(&state), snapshot::encode(&state, &image, &view)?))
    }

    /// Runs `work` on the core off the runtime's workers; its failure fences the store.
    async fn run<T: Send + 'static, E: std::error::Error + Send + 'static>(
        &self,
        work: impl FnOnce(&mut Core) -> Result<T, E> + Send + 'static,
    ) -> Result<T, AnyError> {
        let machine = self.clone();
        let done = blocking(&self.kv, move |kv| {
            let mut core = lock(&machine.core);
            let result = work(&mut core).map_err(|e| {
                kv.fence(&e.to_string());
                AnyError::new(&e)
            });
            if !Arc::ptr_eq(&core.image, &machine.published.borrow()) {
                machine.published.send_replace(core.image());
            }
            result
        });
        done.await.and_then(|result| result)
    }
}

fn meta(state: &MachineState) -> SnapshotMeta {
    let last_log_id = state.applied.as_ref().map(log_id);
    SnapshotMeta {
        last_log_id,
        last_membership: members(state),
        snapshot_id: last_log_id.map_or_else(String::new, |id| id.to_string()),
    }
}

fn members(state: &MachineState) -> Members {
    Members::new(state.membership_at.as_ref().map(log_id), raft_membership(&state.membership))
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotBuilder = Machine;

    async fn applied_state(&mut self) -> Result<(Option<LogId<u64>>, Members), StorageError> {
        let core = lock(&self.core);
        Ok((core.state.applied.as_ref().map(log_id), members(&core.state)))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Applied>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let apply = move |core: &mut Core| entries.into_iter().map(|entry| core.apply_entry(entry)).collect();
        self.run::<Vec<Applied>, ApplyError>(apply).await.map_err(|e| StorageIOError::write_state_machine(e).into())
    }

    async fn get_snapshot_builder(&mut self) -> Machine {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError> {
        let signature = meta.signature();
        self.run(move |core| core.install(snapshot.get_ref()))
            .await
            .map_err(|e| StorageIOError::write_snapshot(Some(signature), e))?;
        *lock(&self.snapshot) = Some(meta.clone());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, StorageError> {
        if lock(&self.snapshot).is_none() {
            return Ok(None);
        }
        let machine = self.clone();
        let encoded = blocking(&self.kv, move |_| machine.encode_snapshot().map_err(|e| AnyError::new(&e))).await;
        let (meta, bytes) = encoded.and_then(|result| result).map_err(|e| StorageIOError::read_snapshot(None, e))?;
        Ok(Some(Snapshot { meta, snapshot: Box::new(Cursor::new(bytes)) }))
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Machine {
    /// Covers what is applied. openraft uses only the description; the bytes are left out here.
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, StorageError> {
        let meta = meta(&lock(&self.core).state);
        *lock(&self.snapshot) = Some(meta.clone());
        Ok(Snapshot { meta, snapshot: Box::default() })
    }
}
