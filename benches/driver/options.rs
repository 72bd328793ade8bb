//! The words of the command line, and the part of a run that counts.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Options of all commands, by name.
pub struct Options(BTreeMap<String, String>);

impl Options {
    /// From `--name value` pairs.
    pub fn parse(words: &[String]) -> Options {
        let pairs = words.chunks(2).filter(|c| c.len() == 2);
        Options(pairs.map(|c| (c[0].trim_start_matches("--").to_string(), c[1].clone())).collect())
    }

    pub fn text(&self, name: &str, default: &str) -> String {
        self.0.get(name).cloned().unwrap_or_else(|| default.into())
    }

    pub fn number(&self, name: &str, default: u64) -> u64 {
        match self.0.get(name) {
            None => default,
            Some(text) => text.parse().unwrap_or_else(|_| panic!("--{name} is a number, not {text:?}")),
        }
    }

    /// A share of `whole`, given as `10%`.
    pub fn share_of(&self, whole: usize, name: &str, default: u64) -> usize {
        let percent = self.0.get(name).map_or(default, |text| {
            text.trim_end_matches('%')
                .parse()
                .unwrap_or_else(|_| panic!("--{name} is a share in percent, not {text:?}"))
        });
        whole * percent as usize / 100
    }

    pub fn address(&self, name: &str) -> Option<SocketAddr> {
        self.0.get(name).map(|text| text.parse().unwrap_or_else(|_| panic!("--{name} is IP:PORT, not {text:?}")))
    }

    pub fn bootstrap(&self) -> SocketAddr {
        self.address("bootstrap").unwrap_or(SocketAddr::from(([127, 0, 0, 1], 9092)))
    }

    pub fn seconds(&self, name: &str, default: u64) -> Duration {
        Duration::from_secs(self.number(name, default))
    }

    pub fn milliseconds(&self, name: &str, default: u64) -> Duration {
        Duration::from_millis(self.number(name, default))
    }
}

/// Which part of a run a moment belongs to.
#[derive(Clone, Copy)]
pub struct Window {
    pub begin: Instant,
    pub end: Instant,
}

impl Window {
    pub fn new(options: &Options) -> Window {
        let begin = Instant::now() + options.seconds("warmup", 10);
        Window { begin, end: begin + options.seconds("seconds", 20) }
    }

    pub fn over(&self) -> bool {
        Instant::now() >= self.end
    }

    pub fn counts(&self, at: Instant) -> bool {
        at >= self.begin && at < self.end
    }

    pub fn length(&self) -> Duration {
        self.end - self.begin
    }
}
