//! One call of the coordinator under way: the moment, the topics, and the effects gathered so far.

use std::sync::Arc;

use crate::group::consumer::Scene;
use crate::group::records::Record;
use crate::group::{Effects, Now, Options, Reply, Token, Topics};

/// Handed down through every function that decides. What is written here must be in the state already, or be put
/// there by `Coordinator::emit`.
pub(in crate::group) struct Call<'a> {
    pub now: Now,
    pub topics: &'a dyn Topics,
    pub effects: Effects<Reply>,
}

impl<'a> Call<'a> {
    pub fn new(now: Now, topics: &'a dyn Topics) -> Self {
        Call { now, topics, effects: Effects::default() }
    }

    /// What a consumer group looks at while it works.
    pub fn scene(&self, group: &'a str, options: &'a Options) -> Scene<'a> {
        Scene { group, options, now: self.now, topics: self.topics }
    }

    pub fn write(&mut self, record: &Record) {
        self.effects.records.extend(record.encode());
    }

    pub fn reply(&mut self, token: Token, reply: Reply) {
        self.effects.replies.push((token, reply));
    }
}

/// A group id as it is shared by the maps of a coordinator.
pub(in crate::group) type GroupId = Arc<str>;
