//! Named points at which a test ends the process or makes an operation fail; nothing at all in a shipped binary.
//!
//! With the feature `failpoints`, `CASEMATE_FAILPOINTS="wal-before-sync=kill@3,upload=error@1"` ends the process by
//! SIGKILL at the third time `wal-before-sync` is reached and makes the first `upload` fail. `@N` may be left out
//! and is then 1.

/// Marks the point `name`: the process ends here when it is told to.
#[inline]
pub fn hit(name: &'static str) {
    #[cfg(feature = "failpoints")]
    if armed::reached(name) == Some(armed::Action::Kill) {
        kill();
    }
    #[cfg(not(feature = "failpoints"))]
    let _ = name;
}

/// As [`hit`], but the caller does something halfway and then calls [`kill`] itself when this is true.
#[cfg(feature = "failpoints")]
pub fn due(name: &'static str) -> bool {
    armed::reached(name) == Some(armed::Action::Kill)
}

/// As [`hit`], and an operation that can fail does so here when it is told to.
#[inline]
pub fn error(name: &'static str) -> std::io::Result<()> {
    #[cfg(feature = "failpoints")]
    match armed::reached(name) {
        Some(armed::Action::Kill) => kill(),
        Some(armed::Action::Error) => return Err(std::io::Error::other(format!("failpoint {name}"))),
        None => {}
    }
    #[cfg(not(feature = "failpoints"))]
    let _ = name;
    Ok(())
}

/// Ends the process as `kill -9` does: no destructor runs and nothing is flushed.
#[cfg(feature = "failpoints")]
pub fn kill() -> ! {
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    loop {
        std::thread::park();
    }
}

#[cfg(feature = "failpoints")]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Action {
        Kill,
        Error,
    }

    #[derive(Debug)]
    pub struct Point {
        pub name: String,
        pub action: Action,
        pub at: u64,
        hits: AtomicU64,
    }

    static POINTS: OnceLock<Vec<Point>> = OnceLock::new();

    pub fn reached(name: &str) -> Option<Action> {
        let points = POINTS.get_or_init(|| {
            let text = std::env::var("CASEMATE_FAILPOINTS").unwrap_or_default();
            // A misspelt point would let a test pass without its fault, so it stops the process at once.
            parse(&text).unwrap_or_else(|bad| panic!("CASEMATE_FAILPOINTS: cannot read {bad:?}"))
        });
        let point = points.iter().find(|p| p.name == name)?;
        let hits = point.hits.fetch_add(1, Ordering::Relaxed) + 1;
        (hits == point.at).then_some(point.action)
    }

    pub fn parse(text: &str) -> Result<Vec<Point>, String> {
        text.split(',').filter(|part| !part.trim().is_empty()).map(|part| one(part.trim())).collect()
    }

    fn one(part: &str) -> Result<Point, String> {
        let bad = || part.to_string();
        let (name, rest) = part.split_once('=').ok_or_else(bad)?;
        let (action, at) = rest.split_once('@').unwrap_or((rest, "1"));
        let action = match action {
            "kill" => Action::Kill,
            "error" => Action::Error,
            _ => return Err(bad()),
        };
        let at = at.parse().map_err(|_| bad())?;
        Ok(Point { name: name.to_string(), action, at, hits: AtomicU64::new(0) })
    }
}

#[cfg(all(test, feature = "failpoints"))]
mod tests {
    use super::armed::{Action, parse};

    #[test]
    fn points_are_read_from_their_list() {
        let points = parse("a=kill@3, b=error").unwrap();
        assert_eq!((points[0].name.as_str(), points[0].action, points[0].at), ("a", Action::Kill, 3));
        assert_eq!((points[1].name.as_str(), points[1].action, points[1].at), ("b", Action::Error, 1));
        assert!(parse("").unwrap().is_empty());
        assert!(parse("a").is_err());
        assert!(parse("a=explode").is_err());
        assert!(parse("a=kill@x").is_err());
    }
}
