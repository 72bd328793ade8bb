//! Peers with the right certificate that do not keep to the protocol: each ends its own connection, and nothing else.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::frame::head;
use super::*;

async fn read_to_end(stream: &mut NodeStream) {
    // However it ends.
    let _ = timeout(LONG, stream.read_to_end(&mut Vec::new())).await.expect("the connection is closed");
}

/// Frames that no caller of ours sends.
fn bad_requests(body_bytes_max: usize) -> Vec<(&'static str, Vec<u8>)> {
    let request = |id| [&head(Kind::Request, id, 4)[..], b"hold"].concat();
    vec![
        ("an unknown kind", framed(&[77, 0, 0, 0, 0, 0, 0, 0, 1])),
        ("too short for a header", framed(&[1, 0, 0])),
        ("no length at all", vec![0; 4]),
        ("a negative length", vec![0xff; 30]),
        ("longer than its class carries", head(Kind::Request, 1, body_bytes_max + 1).to_vec()),
        ("an answer", [&head(Kind::Answer, 1, 1)[..], b"x"].concat()),
        ("an answer too large", head(Kind::Unanswered, 1, 0).to_vec()),
        ("a refusal", [&head(Kind::Refusal, 1, 1)[..], b"x"].concat()),
        ("a sign of life with a body", framed(&[4, 0, 0, 0, 0, 0, 0, 0, 0, 1])),
        ("ids that repeat", [request(5), request(5)].concat()),
        ("ids that descend", [request(5), request(4)].concat()),
        ("the id 0", request(0)),
    ]
}

#[tokio::test]
async fn bad_frames_end_their_connection_and_no_other() {
    let site = Site::new();
    let server = Running::start(site.plane(1));
    let bystander = peers(&site.plane(3), &[server.address()]);
    assert!(ask(&bystander, 1, Class::Raft, b"x").await.is_ok());
    let tls = site.node_tls(2);
    for (what, bytes) in bad_requests(server.plane.options.class(Class::Raft).body_bytes_max) {
        let mut stream = raw(&tls, server.port).await;
        let hello = Hello::new(&site.own(2), NodeId(1), Class::Raft);
        stream.write_all(&framed(&hello.encode())).await.unwrap();
        let mut answer = vec![0; stream.read_u32().await.unwrap() as usize];
        stream.read_exact(&mut answer).await.unwrap();
        assert!(matches!(HelloAnswer::decode(&answer), Ok(HelloAnswer::Accepted { .. })), "{what}");
        stream.write_all(&bytes).await.unwrap();
        stream.flush().await.unwrap();
        read_to_end(&mut stream).await;
        eventually(what, || server.plane.metrics().classes[&Class::Raft].served == 1).await;
        assert!(ask(&bystander, 1, Class::Raft, b"x").await.is_ok(), "{what}");
    }
    assert!(server.echo.bodies().iter().all(|body| body == "x" || body == "hold"));
}

#[tokio::test]
async fn a_frame_that_trickles_in_is_cut_off() {
    let site = Site::new();
    let mut options = Options::default();
    options.class_mut(Class::Raft).frame_timeout = Duration::from_millis(300);
    let server = Running::start(site.plane_with(site.own(1), site.node_tls(1), options));
    let mut stream = raw(&site.node_tls(2), server.port).await;
    let hello = Hello::new(&site.own(2), NodeId(1), Class::Raft);
    stream.write_all(&framed(&hello.encode())).await.unwrap();
    stream.write_all(&head(Kind::Request, 1, 1_000_000)).await.unwrap();
    // Never silent, and never done.
    let trickle = async {
        while stream.write_all(&[0]).await.is_ok() && stream.flush().await.is_ok() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LONG, trickle).await.expect("it is cut off");
    assert_eq!(server.echo.count(), 0);
}

/// What a server of no good answers to the first request, and whether the caller still learns of its outcome.
#[tokio::test]
async fn bad_answers_leave_the_outcome_unknown() {
    let site = Site::new();
    let tls = site.node_tls(1);
    let max = Options::default().class(Class::Raft).body_bytes_max;
    let cases: [(&str, Vec<u8>); 6] = [
        ("what was not asked", [&head(Kind::Answer, 99, 1)[..], b"x"].concat()),
        ("a request", [&head(Kind::Request, 1, 1)[..], b"x"].concat()),
        ("garbage", vec![0xff; 100]),
        ("another protocol", b"HTTP/1.1 400 Bad Request\r\n".to_vec()),
        ("longer than its class carries", head(Kind::Answer, 1, max + 1).to_vec()),
        ("the end", Vec::new()),
    ];
    for (what, answer) in cases {
        let (socket, own, tls) = (bind(([127, 0, 0, 1], 0).into()).unwrap(), site.own(1), tls.clone());
        let port = socket.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (tcp, _) = socket.accept().await.unwrap();
            let (mut stream, _) = tls.accept(tcp, LONG).await.unwrap();
            let mut hello = vec![0; stream.read_u32().await.unwrap() as usize];
            stream.read_exact(&mut hello).await.unwrap();
            stream.write_all(&framed(&HelloAnswer::accepted(&own, 1).encode())).await.unwrap();
            let mut request = vec![0; 4 + 9 + 1];
            stream.read_exact(&mut request).await.unwrap();
            stream.write_all(&answer).await.unwrap();
            stream.flush().await.unwrap();
            if answer.is_empty() {
                return;
            }
            let _ = stream.read_to_end(&mut request).await;
        });
        let peers = peers(&site.plane(2), &[address(1, port)]);
        let outcome = ask(&peers, 1, Class::Raft, b"x").await;
        assert!(matches!(outcome, Err(PeerError::OutcomeUnknown { .. })), "{what}: {outcome:?}");
    }
}

#[tokio::test]
async fn answers_to_a_hello_that_are_none() {
    let site = Site::new();
    let tls = site.node_tls(1);
    let accepted = |own: &Own| framed(&HelloAnswer::accepted(own, 1).encode());
    let other = accepted(&site.own(3));
    let mut later = accepted(&site.own(1));
    later[9..11].copy_from_slice(&[0, 9]);
    let cases: [(&str, Vec<u8>); 5] = [
        ("bad-answer", b"HTTP/1.1 400 Bad Request\r\n".to_vec()),
        ("bad-answer", framed(b"something else")),
        ("bad-answer", later),
        ("target", other),
        ("hello-timeout", vec![0, 0]),
    ];
    for (kind, answer) in cases {
        let (socket, tls) = (bind(([127, 0, 0, 1], 0).into()).unwrap(), tls.clone());
        let port = socket.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (tcp, _) = socket.accept().await.unwrap();
            let (mut stream, _) = tls.accept(tcp, LONG).await.unwrap();
            stream.write_all(&answer).await.unwrap();
            stream.flush().await.unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
        });
        let client = site.plane_with(site.own(2), site.node_tls(2), Site::quick());
        let peers = peers(&client, &[address(1, port)]);
        let error = dial_error(ask(&peers, 1, Class::Raft, b"x").await);
        assert_eq!(error.kind(), kind, "{error}");
    }
}
