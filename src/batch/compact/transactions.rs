//! Which batches belong to aborted transactions, and which transactions still have batches.

use std::collections::{BTreeMap, HashSet};

use crate::base::{Offset, ProducerId};

/// An aborted transaction: from its first record to its marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedSpan {
    pub producer: ProducerId,
    pub first_offset: Offset,
    /// Offset of the abort marker.
    pub last_offset: Offset,
}

/// What a pass knows of transactions. Aborted ones are told beforehand, for a batch comes long before its marker.
#[derive(Debug, Default)]
pub struct Transactions {
    /// By producer and first offset: the marker's offset.
    aborted: BTreeMap<(ProducerId, Offset), Offset>,
    /// Producers of which a transactional batch was met since their last marker.
    with_batches: HashSet<ProducerId>,
}

impl Transactions {
    /// Adds aborted transactions; the same one may be told several times.
    pub fn tell_aborted(&mut self, spans: impl IntoIterator<Item = AbortedSpan>) {
        for span in spans {
            self.aborted.insert((span.producer, span.first_offset), span.last_offset);
        }
    }

    pub fn is_aborted(&self, producer: ProducerId, offset: Offset) -> bool {
        let before = self.aborted.range((producer, Offset(i64::MIN))..=(producer, offset)).next_back();
        before.is_some_and(|(_, last)| *last >= offset)
    }

    /// A transactional batch with data was met.
    pub(super) fn met_batch(&mut self, producer: ProducerId) {
        self.with_batches.insert(producer);
    }

    /// A marker was met; true when its transaction has no batch any more.
    pub(super) fn met_marker(&mut self, producer: ProducerId) -> bool {
        !self.with_batches.remove(&producer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_told_apart_by_producer_and_offset() {
        let span = |producer, first, last| AbortedSpan {
            producer: ProducerId(producer),
            first_offset: Offset(first),
            last_offset: Offset(last),
        };
        let mut transactions = Transactions::default();
        transactions.tell_aborted([span(1, 10, 20), span(1, 30, 40), span(2, 15, 35), span(1, 10, 20)]);
        let aborted = |producer, offset| transactions.is_aborted(ProducerId(producer), Offset(offset));
        assert_eq!([9, 10, 20, 21, 30, 41].map(|o| aborted(1, o)), [false, true, true, false, true, false]);
        assert_eq!([14, 15, 35, 36].map(|o| aborted(2, o)), [false, true, true, false]);
        assert!(!aborted(3, 15));
    }
}
