//! Whether the process lives, and whether it serves: what `/live` and `/ready` answer.
//!
//! A process in passing trouble is alive; a service manager that kills it then makes it worse. So only storage that
//! failed for good makes `/live` fail.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The health of this process. A cheap handle: whoever knows better says so.
#[derive(Clone)]
pub struct Health(Arc<Mutex<State>>);

struct State {
    stage: Stage,
    /// Troubles by what is troubled: it serves, but not as it should.
    troubles: Vec<(&'static str, String)>,
}

enum Stage {
    Starting,
    Ready,
    Stopping,
    Fenced(String),
}

/// What a probe is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub ok: bool,
    /// One line for each reason; empty where all is well.
    pub reasons: Vec<String>,
}

impl Health {
    /// A process that starts.
    pub fn new() -> Self {
        Health(Arc::new(Mutex::new(State { stage: Stage::Starting, troubles: Vec::new() })))
    }

    /// It serves.
    pub fn ready(&self) {
        self.set(Stage::Ready);
    }

    /// It was told to stop.
    pub fn stopping(&self) {
        self.set(Stage::Stopping);
    }

    /// Its storage failed and it is about to end. This is final.
    pub fn fenced(&self, reason: impl Into<String>) {
        self.set(Stage::Fenced(reason.into()));
    }

    /// Notes a trouble of `part`, or that it is over.
    pub fn trouble(&self, part: &'static str, trouble: Option<String>) {
        let mut state = self.lock();
        state.troubles.retain(|(name, _)| *name != part);
        state.troubles.extend(trouble.map(|trouble| (part, trouble)));
    }

    /// Whether the process should go on.
    pub fn liveness(&self) -> Verdict {
        match &self.lock().stage {
            Stage::Fenced(reason) => Verdict { ok: false, reasons: vec![format!("storage is fenced: {reason}")] },
            _ => Verdict { ok: true, reasons: Vec::new() },
        }
    }

    /// Whether clients should be sent here. A troubled node still serves, and says what is wrong.
    pub fn readiness(&self) -> Verdict {
        let state = self.lock();
        let not_ready = match &state.stage {
            Stage::Ready => None,
            Stage::Starting => Some("starting: storage is being opened and recovered".to_owned()),
            Stage::Stopping => Some("stopping: new work is refused".to_owned()),
            Stage::Fenced(reason) => Some(format!("storage is fenced: {reason}")),
        };
        let ok = not_ready.is_none();
        let troubles = state.troubles.iter().map(|(part, trouble)| format!("{part}: {trouble}"));
        Verdict { ok, reasons: not_ready.into_iter().chain(troubles).collect() }
    }

    fn set(&self, stage: Stage) {
        let mut state = self.lock();
        if !matches!(state.stage, Stage::Fenced(_)) {
            state.stage = stage;
        }
    }

    /// Nothing above can panic half-way, so a poisoned lock holds good state.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_told_the_stage_and_the_troubles() {
        let health = Health::new();
        assert!(!health.readiness().ok && health.liveness().ok);
        health.ready();
        assert_eq!(health.readiness(), Verdict { ok: true, reasons: vec![] });
        health.trouble("object storage", Some("refused".to_owned()));
        health.trouble("object storage", Some("unreachable".to_owned()));
        assert_eq!(health.readiness(), Verdict { ok: true, reasons: vec!["object storage: unreachable".to_owned()] });
        health.trouble("object storage", None);
        health.stopping();
        assert!(!health.readiness().ok && health.liveness().ok);
    }

    #[test]
    fn a_fence_is_final() {
        let health = Health::new();
        health.fenced("sync failed");
        health.ready();
        assert_eq!(health.readiness().reasons, ["storage is fenced: sync failed"]);
        assert!(!health.liveness().ok);
    }
}
