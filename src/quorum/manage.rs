//! The leader keeps the membership in line with the nodes that have joined; every node looks, and only the leader acts.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openraft::error::{ClientWriteError, RaftError};
use openraft::{ChangeMembers, EmptyNode, Raft, RaftMetrics, ServerState};
use tokio::sync::watch;
use tokio::time::sleep;

use super::machine::Machine;
use super::member::raft_id;
use super::membership::{Step, View, next_step};
use super::types::TypeConfig;
use crate::base::NodeId;
use crate::metadata::Image;

/// How often the leader looks.
const INTERVAL: Duration = Duration::from_millis(200);
/// A member that lacks at most so many entries has caught up: the rest comes with the next heartbeat.
const LAG_MAX: u64 = 100;

/// A node that is to leave the quorum before the metadata forget it.
pub(super) type Leaving = Arc<Mutex<Option<NodeId>>>;

/// Runs until the quorum stops.
pub(super) async fn run(
    raft: Raft<TypeConfig>,
    machine: Machine,
    leaving: Leaving,
    mut stopped: watch::Receiver<bool>,
) {
    let image = machine.image();
    let watch = async {
        loop {
            sleep(INTERVAL).await;
            let metrics = raft.metrics().borrow().clone();
            let gone = *leaving.lock().unwrap_or_else(PoisonError::into_inner);
            let step = interrupted(&metrics).or_else(|| next_step(&view(&metrics, &image.borrow(), gone)?));
            if let Some(step) = step {
                tracing::info!(?step, "the members of the metadata quorum change");
                match carry_out(&raft, step).await {
                    Ok(()) => {}
                    // A change is under way, or somebody else leads now: the next look shows what is left to do.
                    Err(RaftError::APIError(error)) => tracing::info!(%error, "the members have not changed yet"),
                    Err(RaftError::Fatal(_)) => return,
                }
            }
        }
    };
    tokio::select! {
        biased;
        _ = stopped.wait_for(|stopped| *stopped) => {}
        () = watch => {}
    }
}

/// The end of a joint change whose leader did not come to it.
fn interrupted(metrics: &RaftMetrics<u64, EmptyNode>) -> Option<Step> {
    let configs = metrics.membership_config.membership().get_joint_config();
    let last = configs.last().filter(|_| metrics.state == ServerState::Leader && configs.len() > 1)?;
    Some(Step::Voters(last.clone()))
}

/// What a leader sees, once nodes are recorded; none where this node does not lead or a change is under way.
fn view(metrics: &RaftMetrics<u64, EmptyNode>, image: &Image, leaving: Option<NodeId>) -> Option<View> {
    let replication = metrics.replication.as_ref().filter(|_| metrics.state == ServerState::Leader)?;
    let membership = metrics.membership_config.membership();
    let [voters] = membership.get_joint_config().as_slice() else { return None };
    if image.nodes.is_empty() {
        return None;
    }
    let staying = image.nodes.iter().filter(|(node, _)| Some(**node) != leaving);
    let joined = staying.filter_map(|(node, record)| raft_id(*node, record.directory()?)).collect();
    let last = metrics.last_log_index.unwrap_or(0);
    let has_all = |id: &u64, index: u64| *id == metrics.id || index.saturating_add(LAG_MAX) >= last;
    let caught_up = replication.iter().filter(|(id, at)| at.is_some_and(|at| has_all(id, at.index)));
    Some(View {
        voters: voters.clone(),
        learners: membership.learner_ids().collect(),
        joined,
        caught_up: caught_up.map(|(id, _)| *id).collect(),
    })
}

async fn carry_out(
    raft: &Raft<TypeConfig>,
    step: Step,
) -> Result<(), RaftError<u64, ClientWriteError<u64, EmptyNode>>> {
    match step {
        Step::AddLearner(id) => raft.add_learner(id, EmptyNode {}, false).await.map(drop),
        Step::Voters(voters) => raft.change_membership(voters, true).await.map(drop),
        Step::Forget(gone) => raft.change_membership(ChangeMembers::RemoveNodes(gone), true).await.map(drop),
    }
}
