//! The range assignor: each topic's partitions in contiguous ranges over its subscribers.
//!
//! Subscribers are taken in the order of their instance ids, then (those without one) of their member ids, so that a
//! static member keeps its range when it comes back under another member id.

use std::collections::BTreeMap;

use crate::base::TopicId;
use crate::group::consumer::assignor::Input;
use crate::group::consumer::partitions::Partitions;

pub fn assign(input: &Input<'_>) -> Vec<Partitions> {
    let mut order: Vec<usize> = (0..input.members.len()).collect();
    order.sort_by_key(|index| {
        let member = &input.members[*index];
        (member.instance.is_none(), member.instance.unwrap_or_default(), member.id)
    });
    let mut subscribers: BTreeMap<TopicId, Vec<usize>> = BTreeMap::new();
    for index in order {
        for topic in input.members[index].subscribed.iter() {
            subscribers.entry(*topic).or_default().push(index);
        }
    }
    let mut out = vec![Partitions::new(); input.members.len()];
    for (topic, members) in subscribers {
        let partitions = input.partition_count(topic);
        let (quota, extra) = (partitions / members.len(), partitions % members.len());
        let mut start = 0;
        for (place, index) in members.into_iter().enumerate() {
            let end = start + quota + usize::from(place < extra);
            if start < end {
                out[index].insert(topic, (start as i32..end as i32).collect());
            }
            start = end;
        }
    }
    out
}
