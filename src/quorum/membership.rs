//! Who votes: decided from the nodes that have joined, one step at a time, and carried out by the leader.
//!
//! One node votes alone. From three on three vote, from five on five: an even number of voters survives no more losses than
//! the odd one below it. A node joins as a learner and becomes a voter when it has caught up, from one voter to three at once,
//! by a joint change. A voter that is removed is replaced by a learner if there is one; until then those that are left go on
//! voting, because fewer would hold what was answered.

use std::collections::BTreeSet;

/// One change of the membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A node follows the log from now on.
    AddLearner(u64),
    /// These vote from now on; who votes no more, and is not to be removed, goes on as a learner.
    Voters(BTreeSet<u64>),
    /// Learners that are gone.
    Forget(BTreeSet<u64>),
}

/// What the leader sees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct View {
    pub voters: BTreeSet<u64>,
    pub learners: BTreeSet<u64>,
    /// Nodes that have joined the cluster, each with its folder.
    pub joined: BTreeSet<u64>,
    /// Members that have about the whole log and answer.
    pub caught_up: BTreeSet<u64>,
}

/// How many are to vote among so many nodes.
fn wanted_voters(nodes: usize) -> usize {
    match nodes {
        0..=2 => 1,
        3..=4 => 3,
        _ => 5,
    }
}

/// The next step, if there is one.
pub(super) fn next_step(view: &View) -> Option<Step> {
    let members: BTreeSet<u64> = view.voters.union(&view.learners).copied().collect();
    if let Some(new) = view.joined.difference(&members).next() {
        return Some(Step::AddLearner(*new));
    }
    let staying: BTreeSet<u64> = view.voters.intersection(&view.joined).copied().collect();
    let mut voters = staying.clone();
    let wanted = wanted_voters(view.joined.len()).max(staying.len());
    for candidate in view.learners.intersection(&view.joined).filter(|learner| view.caught_up.contains(learner)) {
        if voters.len() < wanted {
            voters.insert(*candidate);
        }
    }
    // As long as nobody leaves, only whole steps: two voters would survive less than one.
    let whole = voters.len() == wanted || staying.len() < view.voters.len();
    if voters != view.voters && !voters.is_empty() && whole {
        return Some(Step::Voters(voters));
    }
    let gone: BTreeSet<u64> = view.learners.difference(&view.joined).copied().collect();
    (!gone.is_empty()).then_some(Step::Forget(gone))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ids: &[u64]) -> BTreeSet<u64> {
        ids.iter().copied().collect()
    }

    fn view(voters: &[u64], learners: &[u64], joined: &[u64], caught_up: &[u64]) -> View {
        View { voters: set(voters), learners: set(learners), joined: set(joined), caught_up: set(caught_up) }
    }

    #[test]
    fn a_cluster_grows_from_one_voter_to_three_to_five() {
        assert_eq!(next_step(&view(&[1], &[], &[1], &[1])), None);
        assert_eq!(next_step(&view(&[1], &[], &[1, 2], &[1])), Some(Step::AddLearner(2)));
        assert_eq!(next_step(&view(&[1], &[2], &[1, 2], &[1, 2])), None, "two voters survive no loss");
        assert_eq!(next_step(&view(&[1], &[2], &[1, 2, 3], &[1, 2])), Some(Step::AddLearner(3)));
        assert_eq!(next_step(&view(&[1], &[2, 3], &[1, 2, 3], &[1, 2])), None, "3 has not caught up");
        let three = Some(Step::Voters(set(&[1, 2, 3])));
        assert_eq!(next_step(&view(&[1], &[2, 3], &[1, 2, 3], &[1, 2, 3])), three);
        assert_eq!(next_step(&view(&[1, 2, 3], &[4], &[1, 2, 3, 4], &[1, 2, 3, 4])), None);
        let five = Some(Step::Voters(set(&[1, 2, 3, 4, 5])));
        assert_eq!(next_step(&view(&[1, 2, 3], &[4, 5], &[1, 2, 3, 4, 5], &[1, 2, 3, 4, 5])), five);
    }

    #[test]
    fn a_removed_voter_is_replaced_or_its_place_stays_empty() {
        let replaced = Some(Step::Voters(set(&[1, 2, 4])));
        assert_eq!(next_step(&view(&[1, 2, 3], &[4], &[1, 2, 4], &[1, 2, 4])), replaced);
        let fewer = Some(Step::Voters(set(&[1, 2])));
        assert_eq!(next_step(&view(&[1, 2, 3], &[], &[1, 2], &[1, 2])), fewer);
        assert_eq!(next_step(&view(&[1, 2], &[3], &[1, 2], &[1, 2])), Some(Step::Forget(set(&[3]))));
        assert_eq!(next_step(&view(&[1, 2], &[], &[1, 2], &[1, 2])), None, "both hold what was answered");
        let again = Some(Step::Voters(set(&[1, 2, 7])));
        assert_eq!(next_step(&view(&[1, 2], &[7], &[1, 2, 7], &[1, 2, 7])), again);
    }

    #[test]
    fn a_node_with_a_new_folder_is_a_new_member() {
        let (old, new) = (3, 9 << 32 | 3);
        assert_eq!(next_step(&view(&[1, 2, old], &[], &[1, 2, new], &[1, 2])), Some(Step::AddLearner(new)));
        let exchanged = Some(Step::Voters(set(&[1, 2, new])));
        assert_eq!(next_step(&view(&[1, 2, old], &[new], &[1, 2, new], &[1, 2, new])), exchanged);
    }

    #[test]
    fn the_last_voter_never_goes() {
        assert_eq!(next_step(&view(&[1], &[], &[], &[1])), None);
    }

    /// From any state, with everybody catching up, the steps end, and in a sensible membership.
    #[test]
    fn the_steps_end() {
        for (voters, joined) in (1u64..64).flat_map(|voters| (1u64..64).map(move |joined| (voters, joined))) {
            let bits = |bits: u64| (0..6).filter(|bit| bits >> bit & 1 == 1).collect::<BTreeSet<u64>>();
            let mut view = View { voters: bits(voters), joined: bits(joined), ..View::default() };
            let mut steps = 0;
            loop {
                view.caught_up = view.voters.union(&view.learners).copied().collect();
                match next_step(&view) {
                    None => break,
                    Some(Step::AddLearner(id)) => drop(view.learners.insert(id)),
                    Some(Step::Forget(gone)) => view.learners.retain(|id| !gone.contains(id)),
                    Some(Step::Voters(voters)) => {
                        let all: BTreeSet<u64> = view.voters.union(&view.learners).copied().collect();
                        view.learners = all.difference(&voters).copied().collect();
                        view.voters = voters;
                    }
                }
                steps += 1;
                assert!(steps < 20, "{view:?}");
            }
            assert!(view.voters.is_subset(&view.joined) || view.voters.is_disjoint(&view.joined), "{view:?}");
            let members: BTreeSet<u64> = view.voters.union(&view.learners).copied().collect();
            assert!(view.joined.is_subset(&members), "{view:?}");
        }
    }
}
