//! The transport towards a small service of the test's own that demands a client certificate.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::service::{bucket, open_with, write_keys};
use super::*;
use crate::base::NodeId;
use crate::env::{Clock, SystemEntropy};
use crate::object::{Outcome, ProbeError, Request};
use crate::security::{ClientIdentity, InitOptions, PrincipalRules, ServerTls, TlsFiles, client_config, create};

/// Answers every request with `answer`, until the test ends.
async fn serve(dir: &Path, answer: &'static str) -> SocketAddr {
    let (chain, key) = (dir.join("tls/node.pem"), dir.join("tls/node.key"));
    let files = TlsFiles { cert_chain: chain, key, client_ca: dir.join("tls/ca.pem") };
    let tls = ServerTls::load(files, PrincipalRules::default(), Arc::new(SystemClock)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let Ok((mut stream, _)) = tls.accept(tcp, Duration::from_secs(5)).await else { continue };
            let mut request = vec![0; 64 * 1024];
            // The answer closes the connection, so each carries one request.
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    address
}

#[tokio::test]
async fn the_service_sees_the_client_certificate_and_its_answers_are_understood() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(SystemClock);
    let options = InitOptions {
        cluster: CLUSTER,
        node: NodeId(1),
        hosts: vec![],
        bootstrap: "localhost:1".to_owned(),
        now_ms: clock.wall_ms(),
    };
    create(&dir.path().join("d"), &options, &SystemEntropy).unwrap();
    let made = dir.path().join("d");
    let denied = "HTTP/1.1 403 Forbidden\r\nconnection: close\r\ncontent-length: 40\r\n\r\n\
                  <Error><Code>AccessDenied</Code></Error>";
    let address = serve(&made, denied).await;
    let keys = write_keys(dir.path(), "a", "b");
    let identity = ClientIdentity { cert_chain: made.join("client/client.pem"), key: made.join("client/client.key") };
    let ca = made.join("tls/ca.pem");
    let probe = async |host: &str, identity: Option<&ClientIdentity>| {
        let tls = client_config(&ca, identity, clock.clone()).unwrap();
        let place = Place::Bucket(bucket(&format!("https://{host}:{}", address.port()), "bucket", keys.clone()));
        let objects = open_with(place, Some(tls.into())).unwrap();
        let error = objects.probe().await.unwrap_err();
        assert_eq!(objects.metrics().requests(Request::Put, Outcome::Ok), 0);
        error
    };
    // By address, and by a name from the hosts file.
    for host in ["127.0.0.1", "localhost"] {
        let error = probe(host, Some(&identity)).await;
        assert!(matches!(error, ProbeError::ReadOnly { .. }), "{error}");
    }
    let error = probe("127.0.0.1", None).await;
    assert!(matches!(error, ProbeError::Tls { .. }), "{error}");
}
