//! How connections end, and what becomes of the requests on them.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

fn client_of(site: &Site, options: Options) -> Arc<Plane> {
    site.plane_with(site.own(2), site.node_tls(2), options)
}

#[tokio::test]
async fn what_was_under_way_is_unknown_and_the_next_connection_has_another_number() {
    let site = Site::new();
    let server = Running::start(site.plane(1));
    let client = client_of(&site, Site::quick());
    let peers = peers(&client, &[server.address()]);
    let channel = peers.channel(NodeId(1), Class::Ledger).unwrap();
    let first = channel.connected(LONG).await.unwrap();
    let held = channel.send(first.number, Bytes::from_static(b"hold 1")).unwrap();
    let beside = peers.call(NodeId(1), Class::Ledger, Bytes::from_static(b"hold 2"), LONG);
    let (beside, ()) = tokio::join!(beside, async {
        eventually("both are begun", || server.echo.count() == 2).await;
        let port = server.kill().await;
        channel.ended(first.number).await;
        // Nothing listens there now.
        let error = dial_error(ask(&peers, 1, Class::Ledger, b"nobody").await);
        assert!(matches!(*error, DialError::Connect { .. }), "{error}");
        let again = Running::on(site.plane(1), bind(([127, 0, 0, 1], port).into()).unwrap());
        let late = channel.send(first.number, Bytes::from_static(b"late"));
        assert!(matches!(late.err(), Some(PeerError::NotSent { reason: NotSent::Ended, .. })));
        let second = loop {
            // The attempt that was under way may still fail.
            if let Ok(connection) = channel.connected(LONG).await {
                break connection;
            }
        };
        assert!(second.number > first.number && second.process != first.process);
        assert_eq!(channel.send(second.number, Bytes::from_static(b"anew")).unwrap().await.unwrap(), "anew");
        assert_eq!(again.echo.bodies(), ["anew"], "nothing was sent twice");
    });
    for outcome in [held.await, beside] {
        let error = outcome.unwrap_err();
        assert!(matches!(error, PeerError::OutcomeUnknown { .. }) && !error.had_no_effect(), "{error}");
    }
    assert_eq!(client.metrics().classes[&Class::Ledger].lost, 2);
}

#[tokio::test]
async fn a_request_that_is_not_answered_in_time_says_whether_it_was_sent() {
    let site = Site::new();
    let server = Running::start(site.plane(1));
    let client = client_of(&site, Options::default());
    // Somebody accepts there, and says nothing.
    let silent = bind(([127, 0, 0, 1], 0).into()).unwrap();
    let peers = peers(&client, &[server.address(), address(3, silent.local_addr().unwrap().port())]);
    let short = Duration::from_millis(100);
    let held = peers.call(NodeId(1), Class::Raft, Bytes::from_static(b"warm"), LONG).await;
    assert!(held.is_ok());
    let held = peers.call(NodeId(1), Class::Raft, Bytes::from_static(b"hold"), short).await;
    assert!(matches!(held, Err(PeerError::Timeout { .. })), "{held:?}");
    // The answer that comes late after all does no harm.
    server.echo.gate.add_permits(1);
    assert!(ask(&peers, 1, Class::Raft, b"next").await.is_ok());
    let never = peers.call(NodeId(3), Class::Raft, Bytes::from_static(b"x"), short).await;
    assert!(matches!(never, Err(PeerError::NotSent { reason: NotSent::TimedOut(_), .. })), "{never:?}");
    let channel = peers.channel(NodeId(3), Class::Bulk).unwrap();
    assert!(matches!(channel.connected(short).await, Err(PeerError::NotSent { reason: NotSent::TimedOut(_), .. })));
}

#[tokio::test]
async fn a_request_that_was_given_up_before_it_was_sent_is_not_sent() {
    let site = Site::new();
    let socket = bind(([127, 0, 0, 1], 0).into()).unwrap();
    let port = socket.local_addr().unwrap().port();
    let peers = peers(&client_of(&site, Options::default()), &[address(1, port)]);
    let short = Duration::from_millis(50);
    for _ in 0..3 {
        let given_up = peers.call(NodeId(1), Class::Control, Bytes::from_static(b"given up"), short).await;
        assert!(given_up.is_err_and(|error| error.had_no_effect()));
    }
    let (kept, server) =
        tokio::join!(ask(&peers, 1, Class::Control, b"kept"), async { Running::on(site.plane(1), socket) });
    assert_eq!(kept.unwrap(), "kept");
    assert_eq!(server.echo.bodies(), ["kept"]);
}

#[tokio::test]
async fn a_new_address_is_dialled_at_once() {
    let site = Site::new();
    let slow = Options {
        backoff_first: Duration::from_secs(3600),
        backoff_last: Duration::from_secs(3600),
        ..Options::default()
    };
    let (first, second) = (Running::start(site.plane(1)), Running::start(site.plane(1)));
    let free = bind(([127, 0, 0, 1], 0).into()).unwrap().local_addr().unwrap().port();
    let peers = peers(&client_of(&site, slow), &[address(1, free)]);
    dial_error(ask(&peers, 1, Class::Raft, b"x").await);
    let (answer, ()) = tokio::join!(ask(&peers, 1, Class::Raft, b"waits"), async {
        peers.set(vec![first.address()]);
    });
    assert!(answer.is_ok());
    // And the connection that stands gives way to one to where the node is now.
    let channel = peers.channel(NodeId(1), Class::Raft).unwrap();
    let connection = channel.connected(LONG).await.unwrap();
    peers.set(vec![second.address()]);
    channel.ended(connection.number).await;
    assert!(ask(&peers, 1, Class::Raft, b"moved").await.is_ok());
    assert_eq!(first.echo.bodies(), ["waits"]);
    assert_eq!(second.echo.bodies(), ["moved"]);
    // A node that is gone is not called any more.
    let connection = channel.connected(LONG).await.unwrap();
    peers.set(Vec::new());
    channel.ended(connection.number).await;
    let gone = channel.connected(LONG).await;
    assert!(matches!(gone, Err(PeerError::NotSent { reason: NotSent::NoAddress, .. })), "{gone:?}");
    assert!(ask(&peers, 1, Class::Raft, b"x").await.is_err());
}

#[tokio::test]
async fn a_node_that_leaves_the_list_is_cut_off_on_both_sides() {
    let site = Site::new();
    // Nodes 1 and 2 with lists of their own, so that each side is seen to act by itself.
    let other = Arc::new(Roster::new(known(&[1, 2, 3])));
    let server = Running::start(site.plane(1));
    let client = Plane::new(
        site.own(2),
        site.node_tls(2),
        other.clone(),
        Site::quick(),
        site.clock.clone(),
        Arc::new(SystemEntropy),
    );
    let peers = peers(&client, &[server.address()]);
    let channel = peers.channel(NodeId(1), Class::Bulk).unwrap();
    let connection = channel.connected(LONG).await.unwrap();
    site.roster.set(known(&[1, 3]));
    channel.ended(connection.number).await;
    assert_eq!(refusal(ask(&peers, 1, Class::Bulk, b"x").await), Reason::Subject);
    // A joining node keeps control, and nothing else.
    let mut list = known(&[1, 3]);
    list.insert(subject(2), Standing::Joining(NodeId(2)));
    site.roster.set(known(&[1, 2, 3]));
    while ask(&peers, 1, Class::Bulk, b"x").await.is_err() {}
    assert!(ask(&peers, 1, Class::Control, b"x").await.is_ok());
    // Open connections of each class.
    let dialled = || {
        let metrics = client.metrics();
        Class::ALL.map(|class| metrics.classes[&class].dialled)
    };
    assert_eq!(dialled(), [0, 0, 1, 1]);
    site.roster.set(list);
    eventually("bulk has ended", || dialled() == [0, 0, 1, 0]).await;
    site.roster.set(known(&[1, 2, 3]));

    other.set(known(&[2, 3]));
    eventually("control has ended", || dialled() == [0, 0, 0, 0]).await;
    assert_eq!(refusal(ask(&peers, 1, Class::Control, b"x").await), Reason::Subject);
}

#[tokio::test]
async fn an_expired_certificate_ends_its_connections_on_either_side() {
    let site = Site::new();
    for (expires_first, fresh) in [(1, 2), (2, 1)] {
        site.clock.0.store(NOW_MS, SeqCst);
        let old = site.tls(site.certificate("site", expires_first, NOW_MS - YEAR_MS + 5000));
        let new = site.node_tls(fresh);
        let (of_server, of_client) = if expires_first == 1 { (old, new) } else { (new, old) };
        let server = Running::start(site.plane_with(site.own(1), of_server, Options::default()));
        let peers = peers(&site.plane_with(site.own(2), of_client, Site::quick()), &[server.address()]);
        let channel = peers.channel(NodeId(1), Class::Raft).unwrap();
        let connection = channel.connected(LONG).await.unwrap();
        // In the last second of its validity it stands.
        site.clock.0.store(NOW_MS + 5999, SeqCst);
        sleep(Duration::from_millis(600)).await;
        assert_eq!(channel.send(connection.number, Bytes::from_static(b"x")).unwrap().await.unwrap(), "x");
        site.clock.0.store(NOW_MS + 6000, SeqCst);
        timeout(LONG, channel.ended(connection.number)).await.expect("it ends");
        let error = dial_error(ask(&peers, 1, Class::Raft, b"x").await);
        assert!(matches!(*error, DialError::Tls { .. } | DialError::Hello { .. }), "{error}");
    }
}

#[tokio::test]
async fn what_was_begun_is_answered_when_the_node_stops() {
    let site = Site::new();
    let server = Running::start(site.plane(1));
    let peers = peers(&client_of(&site, Options::default()), &[server.address()]);
    let channel = peers.channel(NodeId(1), Class::Control).unwrap();
    let connection = channel.connected(LONG).await.unwrap().number;
    let held = channel.send(connection, Bytes::from_static(b"hold")).unwrap();
    eventually("it is begun", || server.echo.count() == 1).await;
    server.stop.send(true).unwrap();
    sleep(Duration::from_millis(50)).await;
    let late = channel.send(connection, Bytes::from_static(b"late")).unwrap();
    sleep(Duration::from_millis(50)).await;
    server.echo.gate.add_permits(1);
    assert_eq!(held.await.unwrap(), "hold");
    assert!(matches!(late.await, Err(PeerError::OutcomeUnknown { .. })));
    timeout(LONG, server.task).await.unwrap().unwrap();
    assert_eq!(server.echo.bodies(), ["hold"]);
}

/// The first hello of a process, answered with an acceptance.
async fn enter(site: &Site, tls: &NodeTls, port: u16, process: u64) -> NodeStream {
    let mut stream = raw(tls, port).await;
    let own = Own { process, ..site.own(2) };
    stream.write_all(&framed(&Hello::new(&own, NodeId(1), Class::Bulk).encode())).await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = vec![0; stream.read_u32().await.unwrap() as usize];
    stream.read_exact(&mut answer).await.unwrap();
    let answer = HelloAnswer::decode(&answer).unwrap();
    assert!(matches!(answer, HelloAnswer::Accepted { .. }), "{answer:?}");
    stream
}

async fn request(stream: &mut NodeStream, id: u64, body: &[u8]) {
    stream.write_all(&[&super::super::frame::head(Kind::Request, id, body.len()), body].concat()).await.unwrap();
    stream.flush().await.unwrap();
}

#[tokio::test]
async fn a_reconnect_of_the_same_process_replaces_the_older_connection() {
    let site = Site::new();
    let server = Running::start(site.plane(1));
    let tls = site.node_tls(2);
    let mut first = enter(&site, &tls, server.port, 7).await;
    request(&mut first, 1, b"hold").await;
    eventually("it is begun", || server.echo.count() == 1).await;
    let mut second = enter(&site, &tls, server.port, 7).await;
    // By the time the newer one is accepted the older one has ended.
    let mut rest = Vec::new();
    let _ = first.read_to_end(&mut rest).await;
    request(&mut second, 1, b"anew").await;
    eventually("it is begun, too", || server.echo.count() == 2).await;
    let bulk = &server.plane.metrics().classes[&Class::Bulk];
    assert_eq!((bulk.served, bulk.accepted), (1, 2));
}

#[tokio::test]
async fn a_restarted_process_gets_in_though_its_predecessors_connection_is_not_read() {
    let site = Site::new();
    let mut options = Site::quick();
    options.class_mut(Class::Bulk).requests_max = 1;
    let server = Running::start(site.plane_with(site.own(1), site.node_tls(1), options));
    let tls = site.node_tls(2);
    let mut first = enter(&site, &tls, server.port, 7).await;
    for id in 1..=3 {
        request(&mut first, id, b"hold").await;
    }
    eventually("one is begun", || server.echo.count() == 1).await;
    drop(first);
    eventually("the end is noticed", || server.plane.metrics().classes[&Class::Bulk].served == 0).await;
    enter(&site, &tls, server.port, 8).await;
}

#[tokio::test]
async fn who_is_silent_is_taken_for_gone() {
    let site = Site::new();
    let mut options = Site::quick();
    options.class_mut(Class::Bulk).silence_max = Duration::from_millis(200);
    options.class_mut(Class::Raft).silence_max = Duration::from_millis(200);
    options.class_mut(Class::Raft).alive_every = Duration::from_millis(20);
    let server = Running::start(site.plane_with(site.own(1), site.node_tls(1), options.clone()));
    let tls = site.node_tls(2);
    let mut silent = enter(&site, &tls, server.port, 7).await;
    let mut rest = Vec::new();
    let _ = timeout(LONG, silent.read_to_end(&mut rest)).await.expect("it is closed");
    eventually("and gone", || server.plane.metrics().classes[&Class::Bulk].served == 0).await;

    // Both of these are idle for longer than that, and say so.
    let plane = site.plane_with(site.own(3), site.node_tls(3), options.clone());
    let idle = peers(&plane, &[server.address()]);
    assert!(ask(&idle, 1, Class::Raft, b"x").await.is_ok());
    sleep(Duration::from_millis(700)).await;
    assert!(ask(&idle, 1, Class::Raft, b"x").await.is_ok());
    assert_eq!(plane.metrics().classes[&Class::Raft].dials, 1);

    // A server that says nothing any more.
    let socket = bind(([127, 0, 0, 1], 0).into()).unwrap();
    let port = socket.local_addr().unwrap().port();
    let (tls, own) = (site.node_tls(1), site.own(1));
    let mute = tokio::spawn(async move {
        let (tcp, _) = socket.accept().await.unwrap();
        let (mut stream, _) = tls.accept(tcp, LONG).await.unwrap();
        let mut hello = vec![0; stream.read_u32().await.unwrap() as usize];
        stream.read_exact(&mut hello).await.unwrap();
        stream.write_all(&framed(&HelloAnswer::accepted(&own, 1).encode())).await.unwrap();
        stream.flush().await.unwrap();
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    });
    let listening = peers(&client_of(&site, options), &[address(1, port)]);
    let lost = ask(&listening, 1, Class::Raft, b"x").await;
    assert!(
        matches!(&lost, Err(PeerError::OutcomeUnknown { reason, .. }) if matches!(**reason, Closed::Silent(_))),
        "{lost:?}"
    );
    timeout(LONG, mute).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_renewed_certificate_is_used_for_new_connections() {
    let site = Site::new();
    let files = site.certificate("site", 2, NOW_MS - YEAR_MS + 5000);
    let tls = site.tls(files);
    assert_eq!((tls.days_to_expiry(), tls.subject()), (0, subject(2)));
    let server = Running::start(site.plane(1));
    let peers = peers(&site.plane_with(site.own(2), tls.clone(), Site::quick()), &[server.address()]);
    let channel = peers.channel(NodeId(1), Class::Raft).unwrap();
    let first = channel.connected(LONG).await.unwrap();
    // The same files, written anew.
    site.certificate("site", 2, NOW_MS);
    tls.reload().unwrap();
    assert_eq!(tls.days_to_expiry(), 365);
    assert!(channel.send(first.number, Bytes::from_static(b"x")).unwrap().await.is_ok(), "what stands is not touched");
    site.clock.0.store(NOW_MS + 6000, SeqCst);
    channel.ended(first.number).await;
    while ask(&peers, 1, Class::Raft, b"x").await.is_err() {}
    // A file that is no certificate leaves what was in use.
    std::fs::write(site.path("site-2.pem"), "rubbish").unwrap();
    assert!(tls.reload().is_err());
    assert_eq!(tls.days_to_expiry(), 364);
}

#[tokio::test]
async fn nothing_is_left_when_the_peers_are_dropped() {
    let site = Site::new();
    let server = Running::start(site.plane(1));
    let client = client_of(&site, Options::default());
    let peers = peers(&client, &[server.address()]);
    let channel = peers.channel(NodeId(1), Class::Raft).unwrap();
    let connection = channel.connected(LONG).await.unwrap().number;
    let held = channel.send(connection, Bytes::from_static(b"hold")).unwrap();
    eventually("it is begun", || server.echo.count() == 1).await;
    drop(peers);
    assert!(matches!(held.await, Err(PeerError::OutcomeUnknown { .. })));
    let after = channel.connected(LONG).await;
    assert!(matches!(after, Err(PeerError::NotSent { reason: NotSent::Stopping, .. })), "{after:?}");
    eventually("both sides have none", || {
        server.plane.metrics().classes[&Class::Raft].served + client.metrics().classes[&Class::Raft].dialled == 0
    })
    .await;
}
