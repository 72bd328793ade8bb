//! What systemd is told (sd_notify(3)), where it started the process as `Type=notify`; else nothing happens.
//!
//! A message that cannot be sent is worth a warning and no more: the manager has its own timeouts.

use std::future::Future;
use std::time::Duration;

use sd_notify::NotifyState;

/// How long the manager waits after `stopping` before it kills: longer than the longest drain.
const STOP_BOUND: Duration = Duration::from_secs(5 * 60);

/// Recovery begins.
pub fn starting() {
    send(&[NotifyState::Status("opening and recovering storage")]);
}

/// The start waits for something, and has not hung: the manager is to be patient for `longer`.
pub fn waiting(status: &str, longer: Duration) {
    let longer = u32::try_from(longer.as_micros()).unwrap_or(u32::MAX);
    send(&[NotifyState::Status(status), NotifyState::ExtendTimeoutUsec(longer)]);
}

/// Clients are served.
pub fn ready() {
    send(&[NotifyState::Ready, NotifyState::Status("serving")]);
}

/// The process drains and then ends.
pub fn stopping() {
    let bound = u32::try_from(STOP_BOUND.as_micros()).unwrap_or(u32::MAX);
    send(&[NotifyState::Stopping, NotifyState::Status("draining"), NotifyState::ExtendTimeoutUsec(bound)]);
}

/// Tells the watchdog that the process goes on, for as long as `progress` shows it: it is asked twice in each of the
/// manager's intervals and must look at the loops that matter, not at a timer. Returns at once where there is no
/// watchdog, else never.
pub async fn watchdog<P: Future<Output = bool>>(progress: impl Fn() -> P) {
    let mut interval_us = 0;
    if !sd_notify::watchdog_enabled(false, &mut interval_us) || interval_us == 0 {
        return;
    }
    let half = Duration::from_micros(interval_us) / 2;
    loop {
        // An answer that does not come is no progress either.
        match tokio::time::timeout(half, progress()).await {
            Ok(true) => send(&[NotifyState::Watchdog]),
            Ok(false) | Err(_) => {
                tracing::error!("no progress is seen; without any the service manager restarts this process")
            }
        }
        tokio::time::sleep(half).await;
    }
}

fn send(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(false, states) {
        tracing::warn!(%error, "the service manager could not be notified");
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::process::Command;

    use super::*;

    /// The part that needs variables of its own environment; run by the test below in a process of its own.
    #[test]
    #[ignore = "run in a process of its own by the_manager_is_told"]
    fn child() {
        starting();
        waiting("for room", Duration::from_secs(7));
        ready();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let two = async {
            let watched = watchdog(|| std::future::ready(true));
            let _ = tokio::time::timeout(Duration::from_millis(900), watched).await;
        };
        runtime.block_on(two);
        stopping();
    }

    #[test]
    fn the_manager_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        manager.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let name = format!("{}::child", module_path!().split_once("::").unwrap().1);
        // The watchdog counts only for the process that it is meant for.
        let script = format!("WATCHDOG_PID=$$ exec \"$0\" --ignored --exact {name}");
        let child = Command::new("sh")
            .args(["-c", &script])
            .arg(std::env::current_exe().unwrap())
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "1000000")
            .output()
            .unwrap();
        assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
        let mut told = Vec::new();
        loop {
            let mut buffer = [0; 256];
            let length = manager.recv(&mut buffer).unwrap();
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            let last = text.starts_with("STOPPING=1");
            told.push(text);
            if last {
                break;
            }
        }
        assert_eq!(told[0], "STATUS=opening and recovering storage\n");
        assert_eq!(told[1], "STATUS=for room\nEXTEND_TIMEOUT_USEC=7000000\n");
        assert_eq!(told[2], "READY=1\nSTATUS=serving\n");
        assert!(told.iter().filter(|text| *text == "WATCHDOG=1\n").count() >= 1, "{told:?}");
        assert!(told.last().unwrap().contains("EXTEND_TIMEOUT_USEC=300000000\n"), "{told:?}");
    }
}
