//! The uniform assignor where all members have the same subscription: exact balance, fewest moves.
//!
//! Every member gets ⌊P/M⌋ partitions and P mod M of them get one more. Members that already own more than ⌊P/M⌋ are
//! the first to get the extra one, so that nothing is taken away without need.

use crate::group::consumer::assignor::{Input, Owners};
use crate::group::consumer::partitions::Partitions;

pub fn assign(input: &Input<'_>) -> Vec<Partitions> {
    let count = input.members.len();
    if count == 0 {
        return vec![];
    }
    let (mut owners, loads) = Owners::from_previous(input);
    let total: usize = owners.0.values().map(Vec::len).sum();
    let quotas = quotas(&loads, total / count, total % count);
    let mut kept = vec![0; count];
    let mut free = vec![];
    for partitions in owners.0.values_mut() {
        for owner in partitions {
            match owner.map(|index| index as usize) {
                Some(index) if kept[index] < quotas[index] => kept[index] += 1,
                _ => {
                    *owner = None;
                    free.push(owner);
                }
            }
        }
    }
    let mut free = free.into_iter();
    for (index, quota) in quotas.iter().enumerate() {
        for owner in free.by_ref().take(quota - kept[index]) {
            *owner = Some(index as u32);
        }
    }
    drop(free);
    owners.collect(count)
}

/// How many partitions each member shall have.
fn quotas(loads: &[usize], quota: usize, extra: usize) -> Vec<usize> {
    let mut quotas = vec![quota; loads.len()];
    let mut left = extra;
    let (above, others): (Vec<usize>, Vec<usize>) = (0..loads.len()).partition(|index| loads[*index] > quota);
    for index in above.into_iter().chain(others) {
        if left == 0 {
            break;
        }
        quotas[index] += 1;
        left -= 1;
    }
    quotas
}
