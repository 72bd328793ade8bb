//! Every API and version, intact and damaged, against the connection loop: it answers or closes, it never panics, and
//! a neighbour on the same service notices nothing.

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;
use crate::kafka::encode::Rope;
use crate::kafka::request::{Outcome, Reply, Request};
use crate::kafka::samples;
use crate::kafka::versions::APIS;

/// Answers everything with its correlation id.
struct Echo;

impl Service for Echo {
    fn begin(&self, request: Request) -> BoxFuture<'_, Reply> {
        let mut out = BytesMut::new();
        out.put_i32(4);
        out.put_i32(request.to.correlation_id);
        let answer = Outcome::Send(Rope::from(out.freeze()));
        let later = request.to.version % 2 == 0;
        Box::pin(async move { if later { Reply::later(async { answer }) } else { Reply::Now(answer) } })
    }
}

struct Client {
    far: DuplexStream,
    task: tokio::task::JoinHandle<Closed>,
}

fn connect(wire: &Arc<Wire>, stop: &watch::Receiver<bool>) -> Client {
    let (near, far) = duplex(1 << 20);
    let peer = Peer {
        listener: "test".into(),
        addr: ([127, 0, 0, 1], 9).into(),
        principal: Principal::anonymous(),
        expires: None,
    };
    Client { far, task: tokio::spawn(serve(wire.clone(), near, peer, stop.clone())) }
}

/// Sends, half-closes and reads to the end: the answer, or nothing.
async fn exchange(wire: &Arc<Wire>, stop: &watch::Receiver<bool>, bytes: &[u8]) -> (Vec<u8>, Closed) {
    let mut client = connect(wire, stop);
    client.far.write_all(bytes).await.unwrap();
    client.far.shutdown().await.unwrap();
    let mut answer = Vec::new();
    client.far.read_to_end(&mut answer).await.unwrap();
    (answer, client.task.await.unwrap())
}

fn damaged(frame: &[u8]) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    let claims: [&[u8]; 4] = [&i32::MAX.to_be_bytes(), &(-1_i32).to_be_bytes(), &i32::MIN.to_be_bytes(), &[0x80]];
    for claim in claims {
        // The first eight bytes are what the answer is recognised by.
        for at in (8..frame.len().saturating_sub(claim.len())).step_by(3) {
            let mut bad = frame.to_vec();
            bad[at..at + claim.len()].copy_from_slice(claim);
            out.push(bad);
        }
    }
    out.extend((0..frame.len()).step_by(5).map(|end| frame[..end].to_vec()));
    out
}

#[tokio::test(start_paused = true)]
async fn every_request_is_answered_or_closes_only_its_own_connection() {
    let wire = Wire::new(Arc::new(Echo), ConnectionOptions::default(), Arc::new(WireMetrics::new()));
    let (_stop, stop) = watch::channel(false);
    let mut neighbour = connect(&wire, &stop);
    let good = samples::with_length(&samples::frames(&APIS[2], 1)[0]);
    let expected = [0, 0, 0, 4, 0, 0, 0, 77];
    for (api, version) in APIS.iter().flat_map(|api| (api.min..=api.max).map(move |v| (api, v))) {
        for frame in samples::frames(api, version) {
            let (answer, closed) = exchange(&wire, &stop, &samples::with_length(&frame)).await;
            assert_eq!(answer, expected, "{:?} {version}", api.key);
            assert!(matches!(closed, Closed::ByPeer));
            for bad in damaged(&frame) {
                let (answer, closed) = exchange(&wire, &stop, &samples::with_length(&bad)).await;
                let fine = match closed {
                    Closed::ByPeer => answer == expected,
                    Closed::Request(_) | Closed::Frame(_) => answer.is_empty(),
                    _ => false,
                };
                assert!(fine, "{:?} {version}: {closed} after {answer:?}", api.key);
            }
        }
        neighbour.far.write_all(&good).await.unwrap();
        let mut answer = [0; 8];
        neighbour.far.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, expected);
    }
    assert_eq!(wire.metrics.connections.load(Relaxed), 1);
    assert!(wire.metrics.malformed.load(Relaxed) > 1000);
}

#[tokio::test(start_paused = true)]
async fn arbitrary_streams_end_a_connection_and_nothing_else() {
    let wire = Wire::new(Arc::new(Echo), ConnectionOptions::default(), Arc::new(WireMetrics::new()));
    let (_stop, stop) = watch::channel(false);
    let streams =
        ["GET / HTTP/1.1\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00\x01\x7c\x03\x03", "\0\0\0\x01x", "\0\0\0\x04", ""];
    for stream in streams {
        let (answer, _) = exchange(&wire, &stop, stream.as_bytes()).await;
        assert_eq!(answer, b"", "{stream:?}");
    }
    assert_eq!(exchange(&wire, &stop, &Bytes::from(vec![0xff; 5000])).await.0, b"");
}
