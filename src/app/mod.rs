//! The process: builds the parts in order, binds, serves, and drains.
//!
//! Everything that can be refused is refused before a listener answers; ports are taken before the folder is
//! touched, so that a second process changes nothing. A storage failure ends the process at once: what a failed
//! sync left behind is for the next start to find out.

mod background;
mod bundled;
mod control;
mod forming;
mod metrics;
mod open;
mod probe;
mod room;
mod services;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::admin;
use crate::broker::{Broker, BrokerSettings, Failure};
use crate::cli::{notify, ready};
use crate::cluster;
use crate::config::{Config, Listener as ListenerConfig, Mode};
use crate::env::{Clock, SystemClock, SystemEntropy, lock_dir};
use crate::kafka::WireMetrics;
use crate::kafka::connection::Wire;
use crate::kafka::handlers::Handlers;
use crate::kafka::listener::{Admission, ConnectionLimits, Listener, Security};
use crate::kafka::throttle::Throttling;
use crate::net;
use crate::security::{Authorizer, NodeTls, PrincipalRules, ServerTls};

use open::{Opened, Place};

/// How long a node that stops waits until others lead what it led.
const STEP_DOWN_WAIT: Duration = Duration::from_secs(5);
/// How long it then still answers clients: who asks it is told the new leader and goes there, while one whose connection
/// just ends looks for the leader by its own timers, which takes seconds in some clients.
const TELL_CLIENTS: Duration = Duration::from_millis(500);
/// How long it waits until the others know that it has stopped.
const LEAVE_WAIT: Duration = Duration::from_secs(2);

/// Why the process ended, with the code that it exits with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Configuration(String),
    #[error("{0}")]
    Storage(String),
    /// A port or the folder is in use, or the folder cannot be.
    #[error("{0}")]
    Taken(String),
    /// The cluster has given this process up. The next one begins anew.
    #[error("fenced by the cluster ({0}); start again")]
    Fenced(String),
    /// The disk is full. The next process waits for room.
    #[error("{0}: the disk is full; free space: this node goes on by itself when it is started again")]
    Full(String),
}

impl Error {
    /// 2 configuration, 3 storage fenced, 4 port or folder not to be had, 5 fenced by the cluster, 6 disk full.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Error::Configuration(_) => 2,
            Error::Storage(_) => 3,
            Error::Taken(_) => 4,
            Error::Fenced(_) => 5,
            Error::Full(_) => 6,
        })
    }
}

/// A bound Kafka listener with what the configuration says about it.
struct Bound {
    config: ListenerConfig,
    socket: TcpListener,
    address: SocketAddr,
}

/// Runs a node until it is told to stop or its storage fails.
pub async fn run(config: Config) -> Result<(), Error> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let _lock = lock_dir(&config.data_dir).map_err(|error| Error::Taken(error.to_string()))?;
    let tls = Arc::new(load_tls(&config, clock.clone())?);
    // Before anything is bound: whoever connects is not to wait with it.
    room::await_room(&config.data_dir).await;
    let was_in_use = room::is_in_use(&config.data_dir);
    let bound = bind_kafka(&config)?;
    let admin_socket = bind_one(config.admin)?;
    let admin_address = local(&admin_socket)?;
    let place = bind_peer(&config, clock.clone())?;
    let endpoints = bound.iter().map(|b| b.config.endpoint(b.address)).collect();
    let addresses: Vec<_> = bound.iter().map(|b| (&b.config, b.address)).collect();
    let static_settings = config.static_settings(&addresses);
    let shown = ready::Addresses::new(&addresses, admin_address);

    notify::starting();
    let opening = open::open(&config, &place, endpoints, static_settings, clock.clone(), Arc::new(SystemEntropy));
    let opened = opening.await.map_err(|error| match was_in_use {
        true => room::classified(error, &config.data_dir),
        false => error,
    })?;
    let wire_metrics = Arc::new(WireMetrics::new());
    let (stop, stopping) = watch::channel(false);
    let mut tasks = JoinSet::new();
    serve_kafka(&config, &opened, &tls, bound, &wire_metrics, &clock, &stopping, &mut tasks);
    let health = admin::Health::new();
    let collectors = metrics::collectors(&opened, wire_metrics, tls.clone(), &*clock);
    let admin_tls = (config.mode == Mode::Serve).then_some(tls.clone());
    tasks.spawn(admin::serve(admin_socket, admin_tls, health.clone(), collectors, stopping));
    let background = background::spawn(&opened, &health, tls, place.tls.clone());
    // Before anybody is told: who knows that the node is ready may also end it.
    let ending = Ending::new()?;
    health.ready();
    ready::announce(&config, &shown);
    notify::ready();

    match wait(&opened, ending).await {
        Ok(()) => {
            health.stopping();
            notify::stopping();
            let ended = drain(&config, opened, stop, tasks, background).await;
            place.stop.send_replace(true);
            ended
        }
        Err(error) => {
            let error = room::classified(error, &config.data_dir);
            // Nothing more is written: the next start decides what of the last moments counts.
            health.fenced(error.to_string());
            tracing::error!(%error, "this node fences itself");
            Err(error)
        }
    }
}

fn load_tls(config: &Config, clock: Arc<dyn Clock>) -> Result<ServerTls, Error> {
    let rules = match config.kafka.get("ssl.principal.mapping.rules") {
        Some(text) => PrincipalRules::parse(text).map_err(|e| Error::Configuration(e.to_string()))?,
        None => PrincipalRules::default(),
    };
    ServerTls::load(config.tls_files.clone(), rules, clock).map_err(|e| Error::Configuration(e.to_string()))
}

fn authorizer(config: &Config, broker: &Broker) -> Authorizer {
    match config.mode {
        Mode::Dev => Authorizer::Everyone,
        Mode::Serve => Authorizer::SuperUsersOnly { super_users: broker.broker_settings().super_users.clone() },
    }
}

fn bind_kafka(config: &Config) -> Result<Vec<Bound>, Error> {
    let mut bound = Vec::new();
    for listener in config.plaintext.iter().chain([&config.tls]) {
        let socket = bind_one(listener.bind)?;
        let address = local(&socket)?;
        bound.push(Bound { config: listener.clone(), socket, address });
    }
    Ok(bound)
}

/// The listener for other nodes; `casemate dev` has none.
fn bind_peer(config: &Config, clock: Arc<dyn Clock>) -> Result<Place, Error> {
    let tls = NodeTls::load(config.tls_files.clone(), clock).map_err(|e| Error::Configuration(e.to_string()))?;
    let (mut socket, mut told) = (None, None);
    if let Some(peer) = &config.peer {
        let bound = bind_one(peer.bind).map_err(|error| match error {
            Error::Taken(why) => Error::Taken(format!("peer.listen: {why}")),
            other => other,
        })?;
        told = Some(peer.endpoint(local(&bound)?));
        socket = Some(bound);
    }
    let stop = watch::Sender::new(false);
    Ok(Place { tls: Arc::new(tls), told, socket: Mutex::new(socket), stop })
}

fn bind_one(address: SocketAddr) -> Result<TcpListener, Error> {
    net::bind(address).map_err(|e| match e.kind() {
        std::io::ErrorKind::AddrInUse => Error::Taken(format!(
            "{address} is in use: stop the process that listens there, or give another address (port 0 takes a free one)"
        )),
        std::io::ErrorKind::PermissionDenied => {
            Error::Configuration(format!("{address} may not be bound ({e}): choose a port above 1023"))
        }
        _ => Error::Configuration(format!("{address} cannot be bound ({e}): give an address of this machine")),
    })
}

fn local(socket: &TcpListener) -> Result<SocketAddr, Error> {
    socket.local_addr().map_err(|e| Error::Configuration(format!("a listener has no address: {e}")))
}

#[expect(clippy::too_many_arguments, reason = "the composition root hands everything over once")]
fn serve_kafka(
    config: &Config,
    opened: &Opened,
    tls: &Arc<ServerTls>,
    bound: Vec<Bound>,
    metrics: &Arc<WireMetrics>,
    clock: &Arc<dyn Clock>,
    stopping: &watch::Receiver<bool>,
    tasks: &mut JoinSet<()>,
) {
    let broker = &opened.broker;
    let handlers = Arc::new(Handlers::new(broker.clone(), authorizer(config, broker), metrics.clone()));
    let service = Throttling::new(handlers, broker.quotas().clone(), clock.clone(), metrics.clone());
    let settings = broker.broker_settings();
    let wire = Wire::new(Arc::new(service), config.connection_options(&settings), metrics.clone());
    let admission = Admission::new(connection_limits(&settings), broker.quotas().clone(), clock.clone());
    tasks.spawn(follow_limits(admission.clone(), broker.watch_settings(), stopping.clone()));
    for Bound { config: listener, socket, .. } in bound {
        let security = match listener.name {
            crate::config::PLAINTEXT => Security::Plaintext,
            _ => Security::Tls { tls: tls.clone(), clock: clock.clone() },
        };
        let listener = Listener {
            name: listener.name.into(),
            socket,
            security: Arc::new(security),
            admission: admission.clone(),
            handshake_timeout: Duration::from_millis(config.options.limits.handshake_timeout_ms),
            wire: wire.clone(),
        };
        tasks.spawn(listener.run(stopping.clone()));
    }
}

fn connection_limits(settings: &BrokerSettings) -> ConnectionLimits {
    ConnectionLimits {
        connections_max: settings.connections_max,
        per_address_max: settings.connections_per_ip_max,
        per_address_overrides: settings.connections_per_ip_overrides.clone(),
        rate_max: settings.connection_rate_max,
    }
}

/// Keeps the limits on connections in line with the settings, which may change while the broker runs.
async fn follow_limits(
    admission: Arc<Admission>,
    mut settings: watch::Receiver<Arc<BrokerSettings>>,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        tokio::select! {
            changed = settings.changed() => match changed {
                Ok(()) => admission.set(connection_limits(&settings.borrow_and_update())),
                Err(_) => return,
            },
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

/// The signals that end a node in order. Until this is made they end the process at once.
struct Ending {
    terminate: Signal,
    interrupt: Signal,
}

impl Ending {
    fn new() -> Result<Ending, Error> {
        let (terminate, interrupt) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
        match (terminate, interrupt) {
            (Ok(terminate), Ok(interrupt)) => Ok(Ending { terminate, interrupt }),
            _ => Err(Error::Configuration("signals cannot be handled on this system".to_owned())),
        }
    }
}

/// Waits for a reason to end.
async fn wait(opened: &Opened, ending: Ending) -> Result<(), Error> {
    let mut wal = opened.broker.registry().failure();
    let mut quorum = opened.quorum.failure();
    let Ending { mut terminate, mut interrupt } = ending;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        failed = wal.wait_for(Option::is_some) => Err(match failed.ok().and_then(|failure| failure.clone()) {
            Some(Failure::Fenced(why)) => Error::Fenced(why),
            Some(Failure::Storage(why)) => Error::Storage(why),
            None => Error::Storage(reason(None)),
        }),
        failed = quorum.wait_for(Option::is_some) => {
            Err(Error::Storage(reason(failed.ok().and_then(|r| r.as_deref().map(str::to_owned)))))
        }
    }
}

fn reason(reason: Option<String>) -> String {
    reason.unwrap_or_else(|| "storage failed".to_owned())
}

/// Lets another voter lead the quorum at once, instead of after it has missed this one.
async fn hand_over(opened: &Opened) {
    if !opened.quorum.leads() {
        return;
    }
    let Some(view) = opened.quorum.view().await else { return };
    let own = opened.broker.node;
    let last = view.members.iter().find(|member| member.node == own).and_then(|member| member.end);
    let others = view.members.iter().filter(|member| member.is_voter && member.node != own);
    if let Some(next) = others.max_by_key(|member| member.end).filter(|next| next.end.is_some() && next.end == last) {
        let done = opened.quorum.hand_over(next.node).await;
        tracing::info!(to = %next.node, done, "handed over the lead of the metadata quorum");
    }
}

/// Answers what was accepted, moves what is durable to object storage, closes the WAL; all within the bound.
async fn drain(
    config: &Config,
    opened: Opened,
    stop: watch::Sender<bool>,
    mut tasks: JoinSet<()>,
    mut background: JoinSet<()>,
) -> Result<(), Error> {
    tracing::info!("stopping");
    let bound = Duration::from_millis(config.options.limits.drain_ms);
    let (node, epoch) = (opened.broker.node, opened.broker.epoch);
    let stepped = cluster::step_down(&opened.quorum, node, STEP_DOWN_WAIT.min(bound / 3)).await;
    if stepped.given > 0 {
        tokio::time::sleep(TELL_CLIENTS.min(bound / 10)).await;
    }
    if stepped.left > 0 {
        tracing::info!(partitions = stepped.left, "others take over the rest when this node has stopped");
    }
    if stepped.needed {
        tracing::warn!(
            "another node cannot acknowledge anything until a third one is back: too few copies without this one"
        );
    }
    // First what waits, so that connections have nothing left to wait for.
    opened.broker.begin_stop();
    stop.send_replace(true);
    let drained = tokio::time::timeout(bound * 2 / 3, async {
        while tasks.join_next().await.is_some() {}
        // No upload of this task may overlap the uploader's own.
        background.shutdown().await;
        opened.broker.upload_all().await
    });
    let drained = drained.await;
    match drained {
        Ok(true) => {}
        Ok(false) => tracing::warn!("object storage is away: what it does not have stays in the WAL"),
        Err(_) => tracing::warn!("not everything was uploaded in time: what object storage lacks stays in the WAL"),
    }
    background.shutdown().await;
    let wal = opened.wal.clone();
    let closed = tokio::task::spawn_blocking(move || wal.close()).await;
    if drained == Ok(true) && closed.is_ok() && opened.broker.registry().exposure().entries == 0 {
        // Without a majority of the voters there is nobody to say it to: a node that stops with the others does not wait long.
        if tokio::time::timeout(bound / 6, opened.broker.seal_own_ledger()).await.is_err() {
            tracing::warn!("the metadata quorum does not answer: the next start finds the end of the ledger");
        }
    }
    cluster::leave(&opened.quorum, node, epoch, LEAVE_WAIT).await;
    hand_over(&opened).await;
    opened.quorum.shutdown().await;
    opened.cluster.peers.stop();
    closed.map_err(|_| Error::Storage("the WAL was not closed cleanly".to_owned()))?;
    tracing::info!("stopped");
    Ok(())
}
