//! What the newest log entries answered here.
//!
//! A command that this node proposed through another one is committed there and applied here, too; and as every node comes to
//! the same answer, the answer is taken from here, when the image that belongs to it is published. So whoever has the answer
//! finds its effect in this node's image, and answers need no encoding.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::metadata::Response;

/// Entries whose answers are kept. More than ever are applied between the leader's word and a look here.
const ENTRIES_MAX: usize = 4_096;

#[derive(Debug, Clone, Default)]
pub(super) struct Answers(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Whether this node has ever proposed through another one; one that never does keeps nothing.
    wanted: AtomicBool,
    kept: Mutex<VecDeque<(u64, Vec<Response>)>>,
}

impl Answers {
    /// Keeps what is applied from now on.
    pub fn want(&self) {
        self.0.wanted.store(true, Ordering::SeqCst);
    }

    /// The entry at `index` was applied and answered that. Indexes ascend.
    pub fn put(&self, index: u64, responses: &[Response]) {
        if !self.0.wanted.load(Ordering::SeqCst) || responses.is_empty() {
            return;
        }
        let mut kept = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == ENTRIES_MAX {
            kept.pop_front();
        }
        kept.push_back((index, responses.to_vec()));
    }

    /// What the entry at `index` answered, if it was applied as a log entry, not as a part of a snapshot, and lately.
    pub fn take(&self, index: u64) -> Option<Vec<Response>> {
        let mut kept = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.binary_search_by_key(&index, |(index, _)| *index).ok()?;
        kept.get_mut(at).map(|(_, responses)| std::mem::take(responses))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_once_somebody_wants_them() {
        let answers = Answers::default();
        answers.put(1, &[Response::Ok]);
        answers.want();
        for index in 2..=ENTRIES_MAX as u64 + 2 {
            answers.put(index, &[Response::Ok, Response::Ok]);
        }
        assert_eq!(answers.take(1), None);
        assert_eq!(answers.take(2), None, "the oldest made room");
        assert_eq!(answers.take(9).map(|responses| responses.len()), Some(2));
        assert_eq!(answers.take(ENTRIES_MAX as u64 + 3), None);
    }
}
