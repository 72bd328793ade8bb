//! The one function that changes metadata.
//!
//! Each command first checks everything and gathers its changes, and only then touches the image: a rejected command
//! leaves no trace. Arithmetic on values out of commands or of a decoded image never overflows: it is checked where
//! the result is an id or a position and saturates where it is a statistic.

mod changes;
mod cluster;
mod config;
mod ledger;
mod merge;
mod node;
mod placement;
mod purge;
mod quota;
mod topic;
mod upload;

#[cfg(test)]
mod fuzz_tests;
#[cfg(test)]
mod transcript_tests;

use crate::base::{BrokerEpoch, NodeId};

use super::command::Command;
use super::image::Image;
use super::index::{IndexOp, IndexView};
use super::reject::{Reject, Response};
use changes::Changes;

/// Applies one committed command and answers what to change in the index, in this order. Deterministic and total; a
/// rejected command changes only `Image::applied`.
pub fn apply(image: &mut Image, command: &Command, index: &dyn IndexView) -> (Response, Vec<IndexOp>) {
    image.applied = image.applied.saturating_add(1);
    let mut changes = Changes::new(index);
    match run(image, command, &mut changes) {
        Ok(response) => (response, changes.install(image)),
        Err(reject) => (Response::Rejected(reject), Vec::new()),
    }
}

fn run(image: &mut Image, command: &Command, changes: &mut Changes<'_>) -> Result<Response, Reject> {
    if image.cluster.is_zero() && !matches!(command, Command::InitCluster { .. }) {
        return Err(Reject::NotInitialized);
    }
    match command {
        Command::InitCluster { cluster, generation } => cluster::init(image, *cluster, *generation),
        Command::RegisterBroker { node, incarnation, boot, endpoints, version, now_ms } => {
            cluster::register(image, *node, *incarnation, *boot, endpoints, version, *now_ms)
        }
        Command::OpenLedger { .. }
        | Command::SealLedger { .. }
        | Command::RecoverLedger { .. }
        | Command::NameUploader { .. } => run_ledger(image, command),
        Command::FenceBroker { node, epoch } => cluster::fence(image, *node, *epoch),
        Command::AssignPartitions { changes: wanted } => placement::assign(image, changes, wanted),
        Command::HandOver { node, epoch, partition, leader_epoch, end, target_since } => {
            require_current(image, *node, *epoch)?;
            placement::hand_over(image, changes, *node, *partition, (*leader_epoch, *target_since), *end)
        }
        Command::SetTargets { changes: wanted } => placement::set_targets(image, changes, wanted),
        Command::DrainNode { node, draining } => placement::drain(image, *node, *draining),
        Command::CreateTopic { id, name, partitions, replication_factor, configs, now_ms } => {
            topic::create(image, *id, name, partitions, *replication_factor, configs, *now_ms)
        }
        Command::DeleteTopic { id, now_ms } => topic::delete(image, changes, *id, *now_ms),
        Command::CreatePartitions { id, first_index, leaders } => {
            topic::create_partitions(image, *id, *first_index, leaders)
        }
        Command::AlterConfigs { changes: wanted } => config::alter(image, wanted),
        Command::AlterExpectedConfigs { expected, changes: wanted } => {
            config::require(image, expected)?;
            config::alter(image, wanted)
        }
        Command::AlterClientQuotas { changes: wanted } => quota::alter(image, wanted),
        Command::AllocateProducerIds { node, epoch, count } => {
            require_current(image, *node, *epoch)?;
            cluster::allocate_producer_ids(image, *count)
        }
        Command::PrepareObjects { .. }
        | Command::CommitUpload { .. }
        | Command::CommitMerge { .. }
        | Command::AbortObjects { .. }
        | Command::AdvanceLogStart { .. }
        | Command::PurgeRanges { .. }
        | Command::SweepObjects { .. } => run_objects(image, command, changes),
        Command::AddNode { .. }
        | Command::JoinNode { .. }
        | Command::RemoveNode { .. }
        | Command::RegisterSelf { .. } => node::run(image, command),
    }
}

/// Objects and the ranges in them.
fn run_objects(image: &mut Image, command: &Command, changes: &mut Changes<'_>) -> Result<Response, Reject> {
    match command {
        Command::PrepareObjects { node, epoch, count, now_ms } => {
            require_current(image, *node, *epoch)?;
            upload::prepare(image, changes, *node, *epoch, *count, *now_ms)
        }
        Command::CommitUpload { node, epoch, object, object_bytes, ledger, from, through, ranges, now_ms } => {
            require_current(image, *node, *epoch)?;
            let owner = (*node, *epoch);
            upload::check_position(image, owner, *ledger, *from, *through)?;
            upload::store(image, changes, owner, (*object, *object_bytes), ranges, *now_ms)?;
            upload::advance(image, *ledger, *through);
            Ok(Response::Ok)
        }
        Command::CommitMerge { node, epoch, inputs, outputs, cleaned, now_ms } => {
            require_current(image, *node, *epoch)?;
            merge::clean(image, changes, cleaned)?;
            merge::commit(image, changes, (*node, *epoch), inputs, outputs, *now_ms)
        }
        Command::AbortObjects { objects, now_ms } => upload::abort(changes, objects, *now_ms),
        Command::AdvanceLogStart { changes: wanted, now_ms } => purge::advance(image, changes, wanted, *now_ms),
        Command::PurgeRanges { now_ms } => {
            purge::work_off(image, changes, *now_ms);
            Ok(Response::Ok)
        }
        Command::SweepObjects { objects } => upload::sweep(changes, objects),
        _ => Err(Reject::Invalid("a command about objects without an object".to_owned())),
    }
}

/// Carries out a command about ledgers.
fn run_ledger(image: &mut Image, command: &Command) -> Result<Response, Reject> {
    match command {
        Command::OpenLedger { node, epoch, replicas, write_quorum, close } => {
            require_current(image, *node, *epoch)?;
            ledger::open(image, *node, *epoch, replicas, *write_quorum, *close)
        }
        Command::SealLedger { ledger, end, by } => {
            if let Some((node, epoch)) = by {
                require_current(image, *node, *epoch)?;
            }
            ledger::seal(image, *ledger, *end, *by)
        }
        Command::RecoverLedger { ledger, end, holders, uploader } => {
            ledger::recover(image, *ledger, *end, holders, *uploader)
        }
        Command::NameUploader { ledger, node, epoch } => {
            require_current(image, *node, *epoch)?;
            ledger::name_uploader(image, *ledger, *node)
        }
        _ => Err(Reject::Invalid("a command about ledgers without a ledger".to_owned())),
    }
}

/// The command comes from the process that registered last under its node id.
fn require_current(image: &Image, node: NodeId, epoch: BrokerEpoch) -> Result<(), Reject> {
    match image.brokers.get(&node) {
        None => Err(Reject::UnknownBroker(node)),
        Some(broker) if broker.epoch != epoch => Err(Reject::StaleBrokerEpoch { node, epoch }),
        Some(broker) if broker.fenced => Err(Reject::Fenced { node, epoch }),
        Some(_) => Ok(()),
    }
}

fn require_at_most(what: &str, count: usize, limit: usize) -> Result<(), Reject> {
    if count <= limit { Ok(()) } else { Err(Reject::TooMany { what: what.to_owned(), limit: limit as u64 }) }
}
