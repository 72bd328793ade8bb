//! Leader-epoch history of a partition (KIP-101): where each epoch's records begin.

use crate::base::{LeaderEpoch, Offset};

/// Epochs in rising order, each with its first offset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EpochHistory(Vec<(LeaderEpoch, Offset)>);

impl EpochHistory {
    pub fn new(epochs: Vec<(LeaderEpoch, Offset)>) -> EpochHistory {
        EpochHistory(epochs)
    }

    /// Records of `epoch` begin at `start`. An epoch that wrote nothing leaves no trace.
    pub fn begin(&mut self, epoch: LeaderEpoch, start: Offset) {
        if self.0.last().is_some_and(|(newest, _)| *newest >= epoch) {
            return;
        }
        while self.0.last().is_some_and(|(_, begun)| *begun >= start) {
            self.0.pop();
        }
        self.0.push((epoch, start));
    }

    /// The largest epoch not above `asked` and where it ends: at the start of the next, or at `end` for the newest.
    /// An epoch below all that are known ended where the first of them begins. `None` when none is known.
    pub fn end_of(&self, asked: LeaderEpoch, end: Offset) -> Option<(LeaderEpoch, Offset)> {
        let after = self.0.partition_point(|(epoch, _)| *epoch <= asked);
        let epoch = match after.checked_sub(1) {
            Some(at) => self.0.get(at)?.0,
            None => asked,
        };
        Some((epoch, self.0.get(after).map_or(end, |(_, start)| *start)))
    }

    /// The epoch that wrote `offset`.
    pub fn at(&self, offset: Offset) -> Option<LeaderEpoch> {
        let after = self.0.partition_point(|(_, start)| *start <= offset);
        self.0.get(after.checked_sub(1)?).map(|(epoch, _)| *epoch)
    }

    /// Epochs that begin in `[from, to)`.
    pub fn within(&self, from: Offset, to: Offset) -> Vec<(LeaderEpoch, Offset)> {
        self.0.iter().filter(|(_, start)| (from..to).contains(start)).copied().collect()
    }

    /// The history up to `end`.
    pub fn below(&self, end: Offset) -> Vec<(LeaderEpoch, Offset)> {
        self.within(Offset(i64::MIN), end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history() -> EpochHistory {
        EpochHistory::new(vec![(LeaderEpoch(0), Offset(0)), (LeaderEpoch(3), Offset(10)), (LeaderEpoch(4), Offset(20))])
    }

    #[test]
    fn the_largest_epoch_not_above_answers() {
        let h = history();
        assert_eq!(h.end_of(LeaderEpoch(0), Offset(25)), Some((LeaderEpoch(0), Offset(10))));
        assert_eq!(h.end_of(LeaderEpoch(2), Offset(25)), Some((LeaderEpoch(0), Offset(10))));
        assert_eq!(h.end_of(LeaderEpoch(4), Offset(25)), Some((LeaderEpoch(4), Offset(25))));
        let later = EpochHistory::new(vec![(LeaderEpoch(3), Offset(10))]);
        assert_eq!(later.end_of(LeaderEpoch(1), Offset(25)), Some((LeaderEpoch(1), Offset(10))));
    }

    #[test]
    fn an_epoch_without_records_is_replaced() {
        let mut h = history();
        h.begin(LeaderEpoch(5), Offset(20));
        assert_eq!(h.at(Offset(20)), Some(LeaderEpoch(5)));
        assert_eq!(h.at(Offset(19)), Some(LeaderEpoch(3)));
        h.begin(LeaderEpoch(2), Offset(30));
        assert_eq!(h.at(Offset(30)), Some(LeaderEpoch(5)), "an older epoch never begins later");
    }
}
