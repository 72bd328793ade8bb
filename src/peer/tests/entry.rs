//! Who is let in, and what the others are told.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

#[tokio::test]
async fn a_node_is_let_in_and_known_by_its_certificate() {
    let site = Site::new();
    let server = Running::start(site.plane(1));
    let client = site.plane(2);
    let peers = peers(&client, &[server.address()]);
    for class in Class::ALL {
        assert_eq!(ask(&peers, 1, class, b"hello").await.unwrap(), "hello");
        let caller = server.echo.seen.lock().unwrap().pop().unwrap().0;
        let expected = Caller {
            node: NodeId(2),
            subject: "CN=node-2,O=casemate".into(),
            class,
            process: client.own.process,
            joining: false,
        };
        assert_eq!(caller, expected);
        let served = &server.plane.metrics().classes[&class];
        assert_eq!((served.served, served.accepted, served.requests_in), (1, 1, 1));
        let dialled = &client.metrics().classes[&class];
        assert_eq!((dialled.dialled, dialled.dials, dialled.requests_out, dialled.round_trips), (1, 1, 1, 1));
        assert_eq!((dialled.bytes_out, dialled.bytes_in), (served.bytes_in, served.bytes_out));
    }
    assert!(matches!(
        ask(&peers, 3, Class::Raft, b"x").await,
        Err(PeerError::NotSent { reason: NotSent::NoAddress, .. })
    ));
}

#[tokio::test]
async fn a_node_of_another_cluster_generation_or_name_is_told_why_not() {
    let site = Site::new();
    let server = Running::start(site.plane(1));
    type Change = fn(&mut Own);
    let cases: [(Change, Reason); 3] = [
        (|own| own.cluster = ClusterId([2; 16]), Reason::Cluster),
        (|own| own.generation = 2, Reason::Generation),
        // Node 2's certificate, but node 3's id.
        (|own| own.node = NodeId(3), Reason::Claim),
    ];
    for (change, reason) in cases {
        let mut own = site.own(2);
        change(&mut own);
        let client = site.plane_with(own, site.node_tls(2), Options::default());
        let peers = peers(&client, &[server.address()]);
        assert_eq!(refusal(ask(&peers, 1, Class::Control, b"x").await), reason);
        assert_eq!(server.refused(reason), 1);
        assert_eq!(client.metrics().classes[&Class::Control].dials_failed, 1);
    }
    assert_eq!(server.echo.count(), 0);
}

#[tokio::test]
async fn certificates_that_no_node_has_are_refused() {
    let site = Site::new();
    let server = Running::start(site.plane(1));
    let folder = site.path("site");
    let admin = TlsFiles {
        cert_chain: folder.join("client/client.pem"),
        key: folder.join("client/client.key"),
        client_ca: folder.join("tls/ca.pem"),
    };
    for files in [admin, site.certificate("site", 9, NOW_MS)] {
        let client = site.plane_with(site.own(2), site.tls(files), Options::default());
        let peers = peers(&client, &[server.address()]);
        assert_eq!(refusal(ask(&peers, 1, Class::Control, b"x").await), Reason::Subject);
    }
    assert_eq!((server.refused(Reason::Subject), server.echo.count()), (2, 0));
}

#[tokio::test]
async fn neither_side_takes_a_certificate_of_another_authority() {
    let site = Site::new();
    site.authority("other");
    let foreign = |node| {
        let mut files = site.certificate("other", node, NOW_MS);
        files.client_ca = site.path("site/tls/ca.pem");
        site.tls(files)
    };
    let server = Running::start(site.plane(1));
    let client = site.plane_with(site.own(2), foreign(2), Options::default());
    let error = dial_error(ask(&peers(&client, &[server.address()]), 1, Class::Raft, b"x").await);
    assert!(matches!(*error, DialError::Hello { .. } | DialError::Tls { .. }), "{error}");
    eventually("counted", || server.plane.metrics().handshakes_failed == 1).await;

    let impostor = Running::start(site.plane_with(site.own(1), foreign(1), Options::default()));
    let error = dial_error(ask(&peers(&site.plane(2), &[impostor.address()]), 1, Class::Raft, b"x").await);
    assert!(matches!(*error, DialError::Tls { .. }), "{error}");
    assert_eq!(server.echo.count() + impostor.echo.count(), 0);
}

#[tokio::test]
async fn the_dialler_insists_on_the_host_and_on_the_node() {
    let site = Site::new();
    let server = Running::on(site.plane(1), bind(([0, 0, 0, 0], 0).into()).unwrap());
    let client = site.plane(2);
    // Its certificate has 127.0.0.1 and localhost.
    let elsewhere = PeerAddress { host: "127.0.0.2".to_owned(), ..server.address() };
    let error = dial_error(ask(&peers(&client, &[elsewhere]), 1, Class::Raft, b"x").await);
    assert!(matches!(*error, DialError::Tls { .. }), "{error}");
    let literal = PeerAddress { host: "127.0.0.1".to_owned(), ..server.address() };
    assert!(ask(&peers(&client, &[literal]), 1, Class::Raft, b"x").await.is_ok());
    // Node 1 where node 3 should be: node 1's certificate shows it.
    let wrong = address(3, server.port);
    assert_eq!(refusal(ask(&peers(&client, &[wrong]), 3, Class::Raft, b"x").await), Reason::Claim);
}

#[tokio::test]
async fn a_joining_node_may_use_control_and_nothing_else() {
    let site = Site::new();
    let mut list = known(&[1, 3]);
    list.insert(subject(2), Standing::Joining(NodeId(2)));
    site.roster.set(list);
    let server = Running::start(site.plane(1));
    let joining = peers(&site.plane(2), &[server.address()]);
    for class in [Class::Raft, Class::Ledger, Class::Bulk] {
        assert_eq!(refusal(ask(&joining, 1, class, b"x").await), Reason::Joining);
    }
    assert_eq!(ask(&joining, 1, Class::Control, b"let me in").await.unwrap(), "let me in");
    assert!(server.echo.seen.lock().unwrap()[0].0.joining);
    // And once it has joined, the rest.
    site.roster.set(known(&[1, 2, 3]));
    assert!(ask(&joining, 1, Class::Raft, b"x").await.is_ok());
}

#[tokio::test]
async fn a_second_process_under_one_name_waits_for_the_first_to_go() {
    let site = Site::new();
    let server = Running::start(site.plane(1));
    let tls = site.node_tls(2);
    let first = peers(&site.plane_with(site.own(2), tls.clone(), Options::default()), &[server.address()]);
    let second = peers(&site.plane_with(site.own(2), tls, Site::quick()), &[server.address()]);
    assert!(ask(&first, 1, Class::Raft, b"first").await.is_ok());
    for class in Class::ALL {
        assert_eq!(refusal(ask(&second, 1, class, b"second").await), Reason::Process);
    }
    assert!(ask(&first, 1, Class::Bulk, b"first").await.is_ok());
    drop(first);
    while ask(&second, 1, Class::Raft, b"second").await.is_err() {}
    assert_eq!(server.echo.bodies(), ["first", "first", "second"]);
}

#[tokio::test]
async fn tools_of_a_node_come_under_its_name_beside_it() {
    let site = Site::new();
    let server =
        Running::start(site.plane_with(site.own(1), site.node_tls(1), Options { tools_max: 2, ..Options::default() }));
    let tools: Vec<Peers> = (0..3).map(|_| peers(&site.plane(1), &[server.address()])).collect();
    assert_eq!(refusal(ask(&tools[0], 1, Class::Raft, b"x").await), Reason::Class);
    assert!(ask(&tools[0], 1, Class::Control, b"x").await.is_ok());
    assert!(ask(&tools[1], 1, Class::Control, b"x").await.is_ok());
    assert_eq!(refusal(ask(&tools[2], 1, Class::Control, b"x").await), Reason::Full);
}

#[tokio::test]
async fn a_class_without_a_service_is_refused() {
    let site = Site::new();
    let (plane, socket) = (site.plane(1), bind(([127, 0, 0, 1], 0).into()).unwrap());
    let port = socket.local_addr().unwrap().port();
    let router = Router::default().with(Class::Control, Arc::new(Echo::default()));
    let (_stop, stopped) = watch::channel(false);
    tokio::spawn(Server::new(plane, socket, router).run(stopped));
    let peers = peers(&site.plane(2), &[address(1, port)]);
    assert_eq!(refusal(ask(&peers, 1, Class::Raft, b"x").await), Reason::Class);
    assert!(ask(&peers, 1, Class::Control, b"x").await.is_ok());
}

fn hello(site: &Site, change: impl FnOnce(&mut Hello)) -> Hello {
    let mut hello = Hello::new(&site.own(2), NodeId(1), Class::Raft);
    change(&mut hello);
    hello
}

/// What the server answers to these bytes, or nothing.
async fn answer_to(tls: &NodeTls, port: u16, bytes: &[u8]) -> Option<HelloAnswer> {
    let mut stream = raw(tls, port).await;
    stream.write_all(bytes).await.unwrap();
    stream.flush().await.unwrap();
    let length = stream.read_u32().await.ok()?;
    let mut answer = vec![0; length as usize];
    stream.read_exact(&mut answer).await.unwrap();
    Some(HelloAnswer::decode(&answer).unwrap())
}

#[tokio::test]
async fn hellos_that_a_node_of_ours_would_not_send() {
    let site = Site::new();
    let server = Running::start(site.plane_with(site.own(1), site.node_tls(1), Site::quick()));
    let tls = site.node_tls(2);
    let mut later = hello(&site, |_| {}).encode().to_vec();
    later[4..8].copy_from_slice(&[0, 2, 0, 9]);
    let cases: [(Vec<u8>, Reason); 5] = [
        (later, Reason::Version),
        (b"a hello of another program".to_vec(), Reason::Malformed),
        (hello(&site, |_| {}).encode()[..40].to_vec(), Reason::Malformed),
        (hello(&site, |hello| hello.target = NodeId(3)).encode().to_vec(), Reason::Target),
        (hello(&site, |hello| hello.class = 77).encode().to_vec(), Reason::Class),
    ];
    for (body, expected) in cases {
        match answer_to(&tls, server.port, &framed(&body)).await {
            Some(HelloAnswer::Refused(refusal)) => assert_eq!(refusal.reason, expected, "{refusal}"),
            other => panic!("{other:?} instead of {expected:?}"),
        }
    }
    // No length of a hello.
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 40], &[0xff; 40]] {
        assert_eq!(answer_to(&tls, server.port, bytes).await, None);
    }
    assert_eq!(server.plane.metrics().hellos_failed, 3);
    // Cut short, and then nothing: it is given up, and others are served.
    assert_eq!(answer_to(&tls, server.port, &framed(&[1; 100])[..50]).await, None);
    assert_eq!(answer_to(&tls, server.port, b"").await, None);
    assert_eq!(server.plane.metrics().hellos_failed, 5);
    assert!(ask(&peers(&site.plane(2), &[server.address()]), 1, Class::Raft, b"x").await.is_ok());
}

#[tokio::test]
async fn a_flood_of_half_open_connections_keeps_nobody_out() {
    let site = Site::new();
    let options = Options { greetings_max: 4, ..Options::default() };
    let server = Running::start(site.plane_with(site.own(1), site.node_tls(1), options));
    let stranger = site.tls(site.certificate("site", 9, NOW_MS));
    let mut open = Vec::new();
    for _ in 0..20 {
        open.push(TcpStream::connect(("127.0.0.1", server.port)).await.unwrap());
    }
    // These have shown a certificate, and say nothing.
    let mut silent = Vec::new();
    for _ in 0..6 {
        silent.push(raw(&stranger, server.port).await);
    }
    let mut garbage = TcpStream::connect(("127.0.0.1", server.port)).await.unwrap();
    garbage.write_all(b"SSH-2.0-OpenSSH_9.9\r\n").await.unwrap();
    assert_eq!(ask(&peers(&site.plane(2), &[server.address()]), 1, Class::Raft, b"x").await.unwrap(), "x");
    assert!(server.plane.metrics().cut >= 20);
    // The oldest were cut, not only forgotten.
    assert!(matches!(open[0].read(&mut [0]).await, Ok(0) | Err(_)));
    assert!(matches!(silent[0].read(&mut [0]).await, Ok(0) | Err(_)));
}
