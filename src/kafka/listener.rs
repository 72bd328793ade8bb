//! Accepts connections within limits and hands each to its own task.
//!
//! A connection over a limit is accepted and closed, as Kafka does: left in the backlog it would look like a broker
//! that hangs. One over a rate waits, and where the rate is its address's, is then closed (KIP-612). Handshakes run in the connection's task, so a slow one never holds up the next accept. Running out of
//! file descriptors pauses the accept loop; it neither spins nor ends.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::connection::{Peer, Wire, serve};
use crate::broker::quota::QuotaManager;
use crate::env::Clock;
use crate::net::{pause_after, tune};
use crate::security::{Principal, ServerTls};

/// Connections over the rate of their address that are held at a time; further ones are closed at once.
const HELD_MAX: usize = 1_024;
/// How much longer than a connection's own drain the listener waits before it aborts what is left.
const ABORT_AFTER: Duration = Duration::from_secs(2);

/// What stands between TCP and Kafka.
pub enum Security {
    /// Nothing: everyone is anonymous.
    Plaintext,
    /// Mutual TLS.
    Tls { tls: Arc<ServerTls>, clock: Arc<dyn Clock> },
}

/// Limits on connections.
#[derive(Debug, Clone, Default)]
pub struct ConnectionLimits {
    /// `max.connections`.
    pub connections_max: usize,
    /// `max.connections.per.ip`.
    pub per_address_max: usize,
    /// `max.connections.per.ip.overrides`, by address in its canonical form.
    pub per_address_overrides: HashMap<IpAddr, usize>,
    /// `max.connection.creation.rate`: new ones in a second; None is without limit.
    pub rate_max: Option<u64>,
}

/// Admits connections within the limits, for all listeners of the process.
pub struct Admission {
    limits: RwLock<Arc<ConnectionLimits>>,
    quotas: Arc<QuotaManager>,
    clock: Arc<dyn Clock>,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    /// Connections over the rate of their address that are held until they are closed.
    held: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// One admitted connection; dropping it makes room for another.
pub struct Admitted {
    admission: Arc<Admission>,
    address: IpAddr,
}

/// One connection over the rate of its address; dropping it makes room for another.
pub struct Held(Arc<Admission>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.lock().held -= 1;
    }
}

impl Admission {
    /// `quotas` has the rates of the addresses, and measures all rates.
    pub fn new(limits: ConnectionLimits, quotas: Arc<QuotaManager>, clock: Arc<dyn Clock>) -> Arc<Admission> {
        Arc::new(Admission { limits: RwLock::new(Arc::new(limits)), quotas, clock, open: Mutex::default() })
    }

    /// Puts new limits in force. What is open stays open.
    pub fn set(&self, limits: ConnectionLimits) {
        *self.limits.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(limits);
    }

    fn limits(&self) -> Arc<ConnectionLimits> {
        self.limits.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.clock.boottime().as_millis()).unwrap_or(u64::MAX)
    }

    /// Counts a new connection to this broker, and says how long it has to wait.
    fn pace(&self) -> Option<Duration> {
        let rate = self.limits().rate_max?;
        Some(self.quotas.connection(rate, self.now_ms())).filter(|ms| *ms > 0).map(Duration::from_millis)
    }

    /// Counts a new connection of an address, and says how long it is held before it is closed, if it is.
    fn pace_address(&self, address: IpAddr) -> Option<Duration> {
        Some(self.quotas.connection_from(address, self.now_ms())).filter(|ms| *ms > 0).map(Duration::from_millis)
    }

    /// A place for a connection that is held, if there is one.
    fn hold(self: &Arc<Self>) -> Option<Held> {
        let mut open = self.lock();
        if open.held >= HELD_MAX {
            return None;
        }
        open.held += 1;
        Some(Held(Arc::clone(self)))
    }

    /// `None` if a limit is reached.
    pub fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Admitted> {
        // A client may come as IPv4 or as IPv4 in IPv6; it is one client.
        let address = address.to_canonical();
        let mut open = self.lock();
        let limits = self.limits();
        let of_address = limits.per_address_overrides.get(&address).copied().unwrap_or(limits.per_address_max);
        if open.total >= limits.connections_max || open.by_address.get(&address).copied().unwrap_or(0) >= of_address {
            return None;
        }
        open.total += 1;
        *open.by_address.entry(address).or_default() += 1;
        Some(Admitted { admission: Arc::clone(self), address })
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut open = self.admission.lock();
        open.total -= 1;
        if let Some(count) = open.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.by_address.remove(&self.address);
            }
        }
    }
}

/// A listening socket and what its connections get.
pub struct Listener {
    pub name: Arc<str>,
    pub socket: TcpListener,
    pub security: Arc<Security>,
    pub admission: Arc<Admission>,
    pub handshake_timeout: Duration,
    pub wire: Arc<Wire>,
}

impl Listener {
    /// Accepts until `stop` turns true or its sender is gone, then waits until the connections have drained.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut connections = JoinSet::new();
        let passed_on = stop.clone();
        loop {
            tokio::select! {
                accepted = self.socket.accept() => match accepted {
                    Ok((stream, addr)) => {
                        if let Some(wait) = self.admission.pace() {
                            self.wire.metrics.connections_throttled.fetch_add(1, Relaxed);
                            // At most a second: the next ones wait in the backlog meanwhile.
                            sleep(wait).await;
                        }
                        self.start(&mut connections, stream, addr, &passed_on);
                    }
                    Err(e) => pause_after(&self.name, &e).await,
                },
                // A connection that panicked is over like any other; its panic was reported when it happened.
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
                () = stopped(&mut stop) => break,
            }
        }
        drop(self.socket);
        let drained = async { while connections.join_next().await.is_some() {} };
        if timeout(self.wire.options.drain_timeout + ABORT_AFTER, drained).await.is_err() {
            tracing::warn!(listener = %self.name, "connections did not drain in time and are cut");
        }
    }

    fn start(&self, connections: &mut JoinSet<()>, stream: TcpStream, addr: SocketAddr, stop: &watch::Receiver<bool>) {
        let metrics = &self.wire.metrics;
        metrics.accepted.fetch_add(1, Relaxed);
        if let Some(wait) = self.admission.pace_address(addr.ip()) {
            metrics.connections_throttled.fetch_add(1, Relaxed);
            tracing::debug!(listener = %self.name, peer = %addr, "connection held and closed: its address opens too many");
            if let Some(held) = self.admission.hold() {
                let mut stop = stop.clone();
                connections.spawn(async move {
                    // Closed at once it would come again at once.
                    let _ = timeout(wait, stopped(&mut stop)).await;
                    drop((stream, held));
                });
            }
            return;
        }
        let Some(admitted) = self.admission.admit(addr.ip()) else {
            metrics.rejected.fetch_add(1, Relaxed);
            tracing::debug!(listener = %self.name, peer = %addr, "connection closed: too many are open");
            return;
        };
        let task = ConnectionTask {
            name: Arc::clone(&self.name),
            security: Arc::clone(&self.security),
            handshake_timeout: self.handshake_timeout,
            wire: Arc::clone(&self.wire),
            addr,
            stop: stop.clone(),
        };
        connections.spawn(async move {
            task.run(stream).await;
            drop(admitted);
        });
    }
}

/// Waits for the signal to stop, or for the end of whoever could give it.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

struct ConnectionTask {
    name: Arc<str>,
    security: Arc<Security>,
    handshake_timeout: Duration,
    wire: Arc<Wire>,
    addr: SocketAddr,
    stop: watch::Receiver<bool>,
}

impl ConnectionTask {
    async fn run(self, stream: TcpStream) {
        tune(&stream);
        match &*self.security {
            Security::Plaintext => {
                let peer = self.peer(Principal::anonymous(), None);
                serve(self.wire, stream, peer, self.stop).await;
            }
            Security::Tls { tls, clock } => {
                let mut stop = self.stop.clone();
                // In a place of its own, which goes with the handshake: the task keeps room for all that it ever holds.
                let accepting = Box::pin(tls.accept(stream, self.handshake_timeout));
                let accepted = tokio::select! {
                    accepted = accepting => accepted,
                    () = stopped(&mut stop) => return,
                };
                match accepted {
                    Ok((stream, identity)) => {
                        let expires = instant_of(identity.not_after_ms, &**clock);
                        let peer = self.peer(identity.principal, expires);
                        serve(self.wire, Box::new(stream), peer, self.stop).await;
                    }
                    Err(error) => {
                        self.wire.metrics.handshakes_failed.fetch_add(1, Relaxed);
                        tracing::debug!(listener = %self.name, peer = %self.addr, %error, "connection refused");
                    }
                }
            }
        }
    }

    fn peer(&self, principal: Principal, expires: Option<Instant>) -> Peer {
        Peer { listener: Arc::clone(&self.name), addr: self.addr, principal, expires }
    }
}

/// The moment at which the wall clock will show `unix_ms`; `None` if that is too far away to matter.
fn instant_of(unix_ms: i64, clock: &dyn Clock) -> Option<Instant> {
    let left_ms = u64::try_from(unix_ms.saturating_sub(clock.wall_ms())).unwrap_or(0);
    Instant::now().checked_add(Duration::from_millis(left_ms))
}
