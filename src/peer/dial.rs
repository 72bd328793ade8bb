//! Opens a connection to a node: name, TCP, TLS, hello.
//!
//! The node must prove two things: that it is the host which was dialled, by the names in its certificate, and that it
//! is the node which was meant, by the certificate's subject.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::error::DialError;
use super::hello::{Hello, HelloAnswer, Reason, Refusal};
use super::peers::PeerAddress;
use super::plane::Plane;
use super::{BadHello, Class};
use crate::base::codec::DecodeError;
use crate::base::limits::PEER_HELLO_BYTES_MAX;
use crate::net::{Names, tune};
use crate::security::{NodeCertificate, NodeStream};

/// A connection that is ready for requests.
pub(super) struct Dialled {
    pub stream: NodeStream,
    pub certificate: NodeCertificate,
    /// The process that answered.
    pub process: u64,
}

pub(super) async fn dial(plane: &Plane, names: &Names, to: &PeerAddress, class: Class) -> Result<Dialled, DialError> {
    plane.counters.class(class).dials.fetch_add(1, Relaxed);
    let tcp = connect(plane, names, to).await?;
    tune(&tcp);
    let tls = plane.tls.connect(&to.host, tcp, plane.options.handshake_timeout).await;
    let (mut stream, certificate) = tls.map_err(|source| DialError::Tls { address: to.to_string(), source })?;
    check_subject(plane, to, class, &certificate)?;
    let within = plane.options.hello_timeout;
    let hello = Hello::new(&plane.own, to.node, class);
    let answer = timeout(within, greet(&mut stream, &hello)).await;
    let answer = answer.map_err(|_| DialError::HelloTimeout { address: to.to_string(), within })?;
    let answer = answer.map_err(|source| DialError::Hello { address: to.to_string(), source })?;
    let answer = answer.map_err(|source| DialError::BadAnswer { address: to.to_string(), source })?;
    match answer {
        HelloAnswer::Accepted { node, process, .. } if node == to.node => Ok(Dialled { stream, certificate, process }),
        HelloAnswer::Accepted { node, .. } => {
            let sentence = format!("{to} is node {node} and not node {}: correct the peer address of it", to.node);
            Err(Refusal::new(Reason::Target, sentence).into())
        }
        HelloAnswer::Refused(refusal) => Err(refusal.into()),
    }
}

async fn connect(plane: &Plane, names: &Names, to: &PeerAddress) -> Result<TcpStream, DialError> {
    let within = plane.options.connect_timeout;
    let found = timeout(within, names.resolve(&to.host)).await;
    let found = found.unwrap_or_else(|_| {
        let reason = format!("no name server answered within {within:?}");
        Err(crate::net::ResolveError::Lookup { host: to.host.clone(), reason })
    })?;
    let mut last = io::Error::other("the name has no address");
    let mut address = to.to_string();
    for ip in found {
        let at = SocketAddr::new(ip, to.port);
        address = at.to_string();
        match timeout(within, TcpStream::connect(at)).await {
            Ok(Ok(tcp)) => return Ok(tcp),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::Error::other(format!("no answer within {within:?}")),
        }
    }
    Err(DialError::Connect { address, source: last })
}

fn check_subject(
    plane: &Plane,
    to: &PeerAddress,
    class: Class,
    certificate: &NodeCertificate,
) -> Result<(), DialError> {
    let standing = plane.allow.standing(&certificate.subject);
    if standing.permits(to.node, class) {
        return Ok(());
    }
    let (subject, node) = (&certificate.subject, to.node);
    let (reason, whose) = match standing.node() {
        None => (Reason::Subject, "no node of this cluster".to_owned()),
        Some(other) if other != node => (Reason::Claim, format!("node {other}")),
        Some(_) => (Reason::Joining, "a node that has not joined yet".to_owned()),
    };
    let sentence = format!(
        "{to} was dialled as node {node}, but its certificate {subject} is that of {whose}: correct the peer address of \
         node {node}, or the certificate there"
    );
    Err(Refusal::new(reason, sentence).into())
}

async fn greet(stream: &mut NodeStream, hello: &Hello) -> io::Result<Result<HelloAnswer, BadHello>> {
    let hello = hello.encode();
    // Bounded far below this.
    let length = u32::try_from(hello.len()).unwrap_or(u32::MAX);
    stream.write_all(&[&length.to_be_bytes()[..], &hello].concat()).await?;
    stream.flush().await?;
    let length = stream.read_u32().await? as usize;
    if length > PEER_HELLO_BYTES_MAX {
        let value = length as u64;
        return Ok(Err(DecodeError::Invalid { field: "length of the answer", value }.into()));
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).await?;
    Ok(HelloAnswer::decode(&answer))
}
