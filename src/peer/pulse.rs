//! Whether the other end of a connection is still there, by what was heard and when.

use std::time::Duration;

use tokio::time::Instant;

use super::ClassLimits;
use super::error::Closed;

/// How often a connection looks at its clocks; an expired certificate or a vanished peer is noticed so much later.
const LOOK_EVERY: Duration = Duration::from_millis(250);

pub(super) struct Pulse {
    heard: Instant,
    spoke: Instant,
    frame_began: Option<Instant>,
    /// Since when bytes wait to be written and none was taken.
    stuck: Option<Instant>,
    /// Nothing was heard for too long when it was last looked. Only the next look decides: where this process itself
    /// had stood still, what has arrived meanwhile is read in between.
    suspect: bool,
    alive_every: Duration,
    silence_max: Duration,
    frame_timeout: Duration,
}

impl Pulse {
    pub fn new(limits: &ClassLimits, now: Instant) -> Pulse {
        Pulse {
            heard: now,
            spoke: now,
            frame_began: None,
            stuck: None,
            suspect: false,
            alive_every: limits.alive_every,
            silence_max: limits.silence_max,
            frame_timeout: limits.frame_timeout,
        }
    }

    /// The time between two looks.
    pub fn look_every(&self) -> Duration {
        LOOK_EVERY.min(self.alive_every).min(self.silence_max / 2).max(Duration::from_millis(1))
    }

    pub fn heard(&mut self, now: Instant) {
        self.heard = now;
        self.suspect = false;
    }

    pub fn spoke(&mut self, now: Instant) {
        self.spoke = now;
        self.stuck = None;
    }

    /// What is wrong by now with bytes that wait to be written to a peer that reads always. One that has asked for too
    /// much may rightly wait; so this is for answers only.
    pub fn look_at_answers(&mut self, now: Instant, waiting: bool) -> Result<(), Closed> {
        match self.stuck.filter(|_| waiting) {
            Some(since) if now.saturating_duration_since(since) >= self.frame_timeout => {
                Err(Closed::Unread(self.frame_timeout))
            }
            Some(_) => Ok(()),
            None => {
                self.stuck = waiting.then_some(now);
                Ok(())
            }
        }
    }

    /// Notes whether the beginning of a frame waits for its rest.
    pub fn inside_frame(&mut self, inside: bool, now: Instant) {
        match (inside, self.frame_began) {
            (true, None) => self.frame_began = Some(now),
            (false, Some(_)) => self.frame_began = None,
            _ => {}
        }
    }

    /// A whole frame has come; what may follow it begins anew.
    pub fn frame_ended(&mut self) {
        self.frame_began = None;
    }

    /// What is wrong by now. A connection that does not read cannot hear.
    pub fn look(&mut self, now: Instant, reading: bool) -> Result<(), Closed> {
        if !reading {
            self.heard(now);
            self.frame_began = self.frame_began.map(|_| now);
            return Ok(());
        }
        if self.frame_began.is_some_and(|began| now.saturating_duration_since(began) >= self.frame_timeout) {
            return Err(Closed::SlowFrame(self.frame_timeout));
        }
        if now.saturating_duration_since(self.heard) >= self.silence_max {
            if self.suspect {
                return Err(Closed::Silent(self.silence_max));
            }
            self.suspect = true;
        }
        Ok(())
    }

    /// Whether it is time to say that this end is there.
    pub fn should_speak(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.spoke) >= self.alive_every
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::{Class, Options};

    #[test]
    fn silence_is_judged_twice_and_only_while_reading() {
        let (options, began) = (Options::default(), Instant::now());
        let limits = options.class(Class::Raft);
        let after = |millis| began + Duration::from_millis(millis);
        let mut pulse = Pulse::new(limits, began);
        assert!(pulse.look(after(2999), true).is_ok());
        assert!(pulse.look(after(3000), true).is_ok(), "only a suspicion");
        pulse.heard(after(3001));
        assert!(pulse.look(after(6100), true).is_ok(), "it was heard in between");
        assert!(matches!(pulse.look(after(6200), true), Err(Closed::Silent(_))));
        assert!(pulse.look(after(9000), false).is_ok(), "not reading");
        assert!(pulse.look(after(11_900), true).is_ok());
        assert!(!pulse.should_speak(after(499)) && pulse.should_speak(after(500)));
        pulse.spoke(after(500));
        assert!(!pulse.should_speak(after(900)));
    }

    #[test]
    fn an_end_is_noticed_well_within_a_second() {
        for class in Class::ALL {
            let pulse = Pulse::new(Options::default().class(class), Instant::now());
            assert!(pulse.look_every() <= Duration::from_millis(500));
        }
    }

    #[test]
    fn a_frame_has_its_time_from_its_first_byte_while_it_is_read() {
        let (options, began) = (Options::default(), Instant::now());
        let mut pulse = Pulse::new(options.class(Class::Control), began);
        let after = |seconds| began + Duration::from_secs(seconds);
        pulse.inside_frame(true, after(1));
        let heard = |pulse: &mut Pulse, seconds: u64, reading: bool| {
            pulse.heard(after(seconds));
            pulse.inside_frame(true, after(seconds));
            pulse.look(after(seconds), reading)
        };
        assert!(heard(&mut pulse, 10, true).is_ok());
        assert!(heard(&mut pulse, 30, false).is_ok(), "not read");
        assert!(heard(&mut pulse, 39, true).is_ok());
        assert!(matches!(heard(&mut pulse, 40, true), Err(Closed::SlowFrame(_))));
        pulse.frame_ended();
        assert!(heard(&mut pulse, 41, true).is_ok());
    }

    #[test]
    fn answers_that_nobody_takes_are_not_kept_for_ever() {
        let (options, began) = (Options::default(), Instant::now());
        let mut pulse = Pulse::new(options.class(Class::Raft), began);
        let after = |seconds| began + Duration::from_secs(seconds);
        for second in 0..30 {
            pulse.spoke(after(second));
            assert!(pulse.look_at_answers(after(second), true).is_ok());
        }
        assert!(pulse.look_at_answers(after(38), true).is_ok());
        assert!(pulse.look_at_answers(after(50), false).is_ok(), "all is out");
        assert!(pulse.look_at_answers(after(60), true).is_ok());
        assert!(pulse.look_at_answers(after(69), true).is_ok());
        assert!(matches!(pulse.look_at_answers(after(70), true), Err(Closed::Unread(_))));
    }
}
