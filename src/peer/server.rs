//! Accepts other nodes: handshake, hello, and then a task for each connection.
//!
//! A connection that has not said who it is costs a place at the doorstep and nothing else; handshakes run in their own
//! tasks. Each refusal is one sentence with the remedy, in the log here and in the answer to the peer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::doorstep::{Doorstep, Place};
use super::error::{Closed, GreetError};
use super::guests::{Guests, Seat, Seating};
use super::hello::{self, BadHello, Hello, HelloAnswer, PROTOCOL_MAX, PROTOCOL_MIN, Reason, Refusal};
use super::metrics::Open;
use super::plane::{Plane, stopped};
use super::serving::{Caller, Service, Serving};
use super::{Class, Standing};
use crate::base::limits::PEER_HELLO_BYTES_MAX;
use crate::net::{pause_after, tune};
use crate::security::{NodeCertificate, NodeStream};

/// What closing a stream politely may take.
const GOODBYE: Duration = Duration::from_secs(1);
/// How much longer than a connection's own drain the server waits before it aborts what is left.
const ABORT_AFTER: Duration = Duration::from_secs(2);
/// Bytes that a refused peer may still send before its connection is cut.
const LINGER_BYTES_MAX: u64 = 64 * 1024;

/// Which service has which class. A class without a service is refused.
#[derive(Default, Clone)]
pub struct Router {
    services: [Option<Arc<dyn Service>>; 4],
}

impl Router {
    pub fn with(mut self, class: Class, service: Arc<dyn Service>) -> Router {
        self.services[class.index()] = Some(service);
        self
    }

    fn service(&self, class: Class) -> Option<&Arc<dyn Service>> {
        self.services[class.index()].as_ref()
    }
}

/// The listening side of the plane.
pub struct Server {
    plane: Arc<Plane>,
    socket: TcpListener,
    router: Router,
}

/// What the tasks of connections share.
struct Shared {
    plane: Arc<Plane>,
    router: Router,
    doorstep: Arc<Doorstep>,
    guests: Arc<Guests>,
}

/// A node that was accepted.
struct Greeted {
    stream: NodeStream,
    certificate: NodeCertificate,
    caller: Caller,
    service: Arc<dyn Service>,
    seat: Seat,
}

impl Server {
    pub fn new(plane: Arc<Plane>, socket: TcpListener, router: Router) -> Server {
        Server { plane, socket, router }
    }

    /// Accepts until `stop` turns true or its sender is gone, then waits until the connections have drained.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let options = &self.plane.options;
        let shared = Arc::new(Shared {
            doorstep: Doorstep::new(options.greetings_max),
            guests: Guests::new(self.plane.own.node, options.connections_max, options.tools_max),
            plane: Arc::clone(&self.plane),
            router: self.router,
        });
        let mut connections = JoinSet::new();
        let passed_on = stop.clone();
        loop {
            tokio::select! {
                accepted = self.socket.accept() => match accepted {
                    Ok((tcp, peer)) => {
                        let (place, crowded) = shared.doorstep.enter();
                        self.plane.counters.cut.fetch_add(u64::from(crowded), Relaxed);
                        connections.spawn(Arc::clone(&shared).connection(tcp, peer, place, passed_on.clone()));
                    }
                    Err(error) => pause_after("peer", &error).await,
                },
                // A connection that panicked is over like any other; its panic was reported when it happened.
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
                () = stopped(&mut stop) => break,
            }
        }
        drop(self.socket);
        let drained = async { while connections.join_next().await.is_some() {} };
        if timeout(options.drain_timeout + ABORT_AFTER, drained).await.is_err() {
            tracing::warn!("connections of other nodes did not drain in time and are cut");
        }
    }
}

impl Shared {
    async fn connection(
        self: Arc<Self>,
        tcp: TcpStream,
        peer: SocketAddr,
        mut place: Place,
        mut stop: watch::Receiver<bool>,
    ) {
        tune(&tcp);
        let greeted = tokio::select! {
            greeted = self.greet(tcp, peer) => greeted,
            () = place.cut() => return,
            () = stopped(&mut stop) => return,
        };
        drop(place);
        let Some(Greeted { stream, certificate, caller, service, mut seat }) = greeted else { return };
        let counters = self.plane.counters.class(caller.class);
        counters.accepted.fetch_add(1, Relaxed);
        let _open = Open::new(&counters.served);
        tracing::debug!(%peer, node = %caller.node, class = %caller.class, "a node has connected");
        let (node, class) = (caller.node, caller.class);
        let mut serving = Serving::new(&self.plane, service, caller, certificate, stream);
        let closed = serving.run(&mut seat, stop).await;
        self.plane.ended(node, class, &closed);
        // Who was replaced, or vanished, hears nothing; and the next one waits for the seat.
        if matches!(closed, Closed::Stopping | Closed::Expired | Closed::Removed) {
            let _ = timeout(GOODBYE, serving.say_goodbye()).await;
        }
    }

    async fn greet(&self, tcp: TcpStream, peer: SocketAddr) -> Option<Greeted> {
        let options = &self.plane.options;
        let (mut stream, certificate) = match self.plane.tls.accept(tcp, options.handshake_timeout).await {
            Ok(accepted) => accepted,
            Err(error) => {
                self.plane.turned_away(peer, None, &GreetError::Tls(error));
                return None;
            }
        };
        let within = options.hello_timeout;
        let answered = timeout(within, self.answer_hello(&mut stream, &certificate)).await;
        match answered.unwrap_or(Err(GreetError::SlowHello(within))) {
            Ok((caller, service, seat)) => Some(Greeted { stream, certificate, caller, service, seat }),
            Err(error) => {
                self.plane.turned_away(peer, Some(&certificate.subject), &error);
                if let GreetError::Refused(refusal) = error {
                    let _ = timeout(GOODBYE, refuse(&mut stream, refusal)).await;
                }
                None
            }
        }
    }

    async fn answer_hello(
        &self,
        stream: &mut NodeStream,
        certificate: &NodeCertificate,
    ) -> Result<(Caller, Arc<dyn Service>, Seat), GreetError> {
        let length = stream.read_u32().await?;
        let bytes = usize::try_from(length).ok().filter(|bytes| (1..=PEER_HELLO_BYTES_MAX).contains(bytes));
        let mut body = vec![0; bytes.ok_or(GreetError::Length(length))?];
        stream.read_exact(&mut body).await?;
        let (caller, service, protocol) = self.judge(&body, certificate)?;
        let seat = self.seat(&caller).await?;
        let answer = HelloAnswer::accepted(&self.plane.own, protocol).encode();
        write_framed(stream, &answer).await?;
        Ok((caller, service, seat))
    }

    fn judge(&self, body: &[u8], certificate: &NodeCertificate) -> Result<(Caller, Arc<dyn Service>, u16), Refusal> {
        let (own, subject) = (&self.plane.own, &certificate.subject);
        let standing = self.plane.allow.standing(subject);
        if standing == Standing::Unknown {
            // Whatever it says, it has no business here.
            return Err(Refusal::new(Reason::Subject, hello::not_listed(subject)));
        }
        let (hello, protocol) = Hello::decode(body).map_err(|error| match error {
            BadHello::Version { lowest, highest } => {
                let sentence = format!(
                    "the peer speaks protocols {lowest} to {highest} and node {} {PROTOCOL_MIN} to {PROTOCOL_MAX}: bring \
                     both to releases that follow each other",
                    own.node
                );
                Refusal::new(Reason::Version, sentence)
            }
            BadHello::Magic | BadHello::Malformed(_) => {
                Refusal::new(Reason::Malformed, format!("the hello cannot be read ({error}): dial with Casemate"))
            }
        })?;
        let (class, service) = hello::judge(&hello, subject, standing, own, |class| self.router.service(class))?;
        let caller = Caller {
            node: hello.sender,
            subject: subject.as_str().into(),
            class,
            process: hello.process,
            joining: matches!(standing, Standing::Joining(_)),
        };
        Ok((caller, Arc::clone(service), protocol))
    }

    /// A seat for the caller, once an older connection of its own has gone.
    async fn seat(&self, caller: &Caller) -> Result<Seat, Refusal> {
        loop {
            match self.guests.seat(caller.node, caller.class, caller.process) {
                Seating::Seated(seat) => return Ok(seat),
                // It closes when the other has gone; nothing is ever sent.
                Seating::Wait(mut gone) => {
                    let _ = gone.changed().await;
                }
                Seating::Refused(reason) => {
                    let node = caller.node;
                    let sentence = match reason {
                        Reason::Process => format!(
                            "another process is connected as node {node}: stop one of the two, or give each node its \
                             own folder and certificate"
                        ),
                        _ => format!(
                            "node {} has as many connections as it may: close some, and try again",
                            self.plane.own.node
                        ),
                    };
                    return Err(Refusal::new(reason, sentence));
                }
            }
        }
    }
}

async fn write_framed(stream: &mut NodeStream, message: &[u8]) -> std::io::Result<()> {
    let mut out = Vec::with_capacity(4 + message.len());
    // Hellos and their answers are bounded far below this.
    out.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(message);
    stream.write_all(&out).await?;
    stream.flush().await
}

/// Tells a peer why it is refused, and waits until it has gone: closing with bytes unread would reset the connection,
/// and the peer would not hear it.
async fn refuse(stream: &mut NodeStream, refusal: Refusal) -> std::io::Result<()> {
    write_framed(stream, &HelloAnswer::Refused(refusal).encode()).await?;
    stream.shutdown().await?;
    tokio::io::copy(&mut stream.take(LINGER_BYTES_MAX), &mut tokio::io::sink()).await?;
    Ok(())
}
