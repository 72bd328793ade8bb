//! Order, bounds, and that one class does not hold up another.

use super::*;

/// A server and a client with their own bounds for one class.
fn bounded(site: &Site, class: Class, server: (usize, usize), client: (usize, usize)) -> (Running, Arc<Plane>) {
    let options = |(requests_max, bytes_max)| {
        let mut options = Options::default();
        let limits = options.class_mut(class);
        (limits.requests_max, limits.bytes_max) = (requests_max, bytes_max);
        options
    };
    let server = Running::start(site.plane_with(site.own(1), site.node_tls(1), options(server)));
    (server, site.plane_with(site.own(2), site.node_tls(2), options(client)))
}

#[tokio::test]
async fn requests_arrive_in_the_order_of_sending_whatever_their_size() {
    let site = Site::new();
    let (server, client) = bounded(&site, Class::Ledger, (7, 1 << 20), (50, 1 << 19));
    let peers = peers(&client, &[server.address()]);
    let channel = peers.channel(NodeId(1), Class::Ledger).unwrap();
    let connection = channel.connected(LONG).await.unwrap();
    assert_eq!(connection.process, server.plane.own.process);
    let body = |n: usize| Bytes::from([&n.to_be_bytes()[..], &vec![n as u8; n * 7919 % 40_000]].concat());
    let (mut replies, mut full) = (std::collections::VecDeque::new(), 0u64);
    for n in 0..2000 {
        loop {
            match channel.send(connection.number, body(n)) {
                Ok(reply) => break replies.push_back((n, reply)),
                Err(PeerError::NotSent { reason: NotSent::Full, .. }) => {
                    full += 1;
                    let (n, reply) = replies.pop_front().unwrap();
                    assert_eq!(reply.await.unwrap(), body(n));
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    for (n, reply) in replies {
        assert_eq!(reply.await.unwrap(), body(n));
    }
    let seen = server.echo.bodies();
    assert_eq!(seen.len(), 2000);
    assert!(seen.iter().enumerate().all(|(n, seen)| *seen == body(n)));
    assert!(full > 0, "the bound was never reached");
    let metrics = &client.metrics().classes[&Class::Ledger];
    assert_eq!((metrics.full, metrics.round_trips, metrics.dials), (full, 2000, 1));
}

#[tokio::test]
async fn answers_overtake_each_other() {
    let site = Site::new();
    let server = Running::start(site.plane(1));
    let peers = peers(&site.plane(2), &[server.address()]);
    let channel = peers.channel(NodeId(1), Class::Control).unwrap();
    let connection = channel.connected(LONG).await.unwrap().number;
    let slow = channel.send(connection, Bytes::from_static(b"hold")).unwrap();
    let fast = channel.send(connection, Bytes::from_static(b"fast")).unwrap();
    assert_eq!(fast.await.unwrap(), "fast");
    server.echo.gate.add_permits(1);
    assert_eq!(slow.await.unwrap(), "hold");
    assert_eq!(server.echo.bodies(), ["hold", "fast"]);
    let pieces = vec![Bytes::from_static(b"pie"), Bytes::from_static(b"ces")];
    assert_eq!(channel.send(connection, pieces).unwrap().await.unwrap(), "pieces");
}

/// No clock decides here: the votes are through while every request of the bulk class is still held.
#[tokio::test]
async fn a_full_bulk_class_does_not_delay_votes() {
    let site = Site::new();
    let (server, client) = bounded(&site, Class::Bulk, (3, 64 << 20), (20, 32 << 20));
    let peers = peers(&client, &[server.address()]);
    let bulk = peers.channel(NodeId(1), Class::Bulk).unwrap();
    let connection = bulk.connected(LONG).await.unwrap().number;
    let mut body = vec![7; 1 << 20];
    body[..4].copy_from_slice(b"hold");
    let body = Bytes::from(body);
    let held: Vec<Reply> = (0..20).map(|_| bulk.send(connection, body.clone()).unwrap()).collect();
    assert!(matches!(bulk.send(connection, body.clone()), Err(PeerError::NotSent { reason: NotSent::Full, .. })));
    eventually("as many as may be are begun", || server.echo.count() == 3).await;
    for _ in 0..50 {
        assert_eq!(ask(&peers, 1, Class::Raft, b"vote").await.unwrap(), "vote");
        assert_eq!(server.echo.bodies().iter().filter(|b| b.starts_with(b"hold")).count(), 3);
    }
    server.echo.gate.add_permits(20);
    for reply in held {
        assert_eq!(reply.await.unwrap().len(), 1 << 20);
    }
}

#[tokio::test]
async fn bytes_are_bounded_on_both_sides_and_one_large_request_goes_alone() {
    let site = Site::new();
    let (server, client) = bounded(&site, Class::Bulk, (100, 2500), (100, 4500));
    let peers = peers(&client, &[server.address()]);
    let channel = peers.channel(NodeId(1), Class::Bulk).unwrap();
    let connection = channel.connected(LONG).await.unwrap().number;
    let body = |bytes: usize| Bytes::from([&b"hold"[..], &vec![0; bytes - 4]].concat());
    let held: Vec<Reply> = (0..4).map(|_| channel.send(connection, body(1000)).unwrap()).collect();
    assert!(channel.send(connection, body(1000)).is_err());
    eventually("two are begun", || server.echo.count() == 2).await;
    server.echo.gate.add_permits(4);
    for reply in held {
        assert_eq!(reply.await.unwrap().len(), 1000);
    }
    server.echo.gate.add_permits(1);
    assert_eq!(channel.send(connection, body(100_000)).unwrap().await.unwrap().len(), 100_000);
}

#[tokio::test]
async fn a_service_may_refuse_and_may_not_answer_with_too_much() {
    let site = Site::new();
    let server = Running::start(site.plane(1));
    let client = site.plane(2);
    let peers = peers(&client, &[server.address()]);
    let refused = ask(&peers, 1, Class::Raft, b"no").await.unwrap_err();
    assert!(matches!(&refused, PeerError::Refused { reason, .. } if reason == "told to"));
    assert!(refused.had_no_effect());
    // It did what it was asked, so this is no refusal.
    let huge = ask(&peers, 1, Class::Raft, b"huge").await.unwrap_err();
    assert!(matches!(huge, PeerError::OutcomeUnknown { .. }) && !huge.had_no_effect(), "{huge}");
    assert_eq!(ask(&peers, 1, Class::Raft, b"pieces").await.unwrap(), "pieces");
    let max = client.options.class(Class::Raft).body_bytes_max;
    let large = peers.call(NodeId(1), Class::Raft, Bytes::from(vec![0; max + 1]), LONG).await;
    assert!(matches!(large, Err(PeerError::NotSent { reason: NotSent::TooLarge { .. }, .. })));
    let largest = peers.call(NodeId(1), Class::Raft, Bytes::from(vec![9; max]), LONG).await;
    assert_eq!(largest.unwrap().len(), max);
    let metrics = client.metrics();
    let raft = &metrics.classes[&Class::Raft];
    assert_eq!((raft.declined, raft.dials), (1, 1), "one refused, and the connection went on");
}
