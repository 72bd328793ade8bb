//! The whole service over a folder, and over a real S3 service where one is named by the environment:
//! `CASEMATE_TEST_S3_ENDPOINT` (with `_BUCKET`, `_ACCESS_KEY`, `_SECRET_KEY`, and for https `_CA`).

use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use tokio_rustls::TlsConnector;

use super::*;
use crate::env::SystemEntropy;
use crate::object::{Bucket, OpenError, ProbeError, StoreError};
use crate::security;

pub fn open_with(place: Place, tls: Option<TlsConnector>) -> Result<Arc<Objects>, OpenError> {
    Objects::open(&ObjectOptions::at(place), CLUSTER, tls, Arc::new(SystemClock), Arc::new(SystemEntropy))
}

fn open(place: Place, ca: Option<&Path>) -> Result<Arc<Objects>, OpenError> {
    open_with(place, ca.map(|ca| security::client_config(ca, None, Arc::new(SystemClock)).unwrap().into()))
}

/// What any back end must do; leaves nothing behind.
pub async fn contract(objects: &Arc<Objects>, first: u64) {
    objects.probe().await.unwrap();
    let runs = [batches(40, 60_000), batches(3, 10)];
    let built = bundle(first, &runs);
    objects.put(built.object, &built.pieces).await.unwrap();
    objects.put(built.object, &built.pieces).await.unwrap();
    let other = objects.put(built.object, &[Bytes::from_static(b"other")]).await;
    assert!(matches!(other, Err(StoreError::Exists { .. })), "{other:?}");
    for (n, run) in runs.iter().enumerate() {
        assert_eq!(read_all(objects, &built, n, 200_000).await.unwrap(), *run);
        let state_read = objects.state(built.ranges[n].partition, &entry(&built, n)).await.unwrap();
        assert_eq!(state_read, state(built.ranges[n].end.0));
    }
    let described = objects.describe(built.object).await.unwrap();
    assert!(described.iter().map(|e| &e.range).eq(&built.ranges));
    let missing = bundle(first + 1, &runs);
    assert_eq!(read_all(objects, &missing, 0, 1).await, Err(ReadError::NotFound(missing.object)));
    objects.put_snapshot(1, first, Bytes::from(vec![7; 100_000])).await.unwrap();
    assert_eq!(objects.latest_snapshot().await.unwrap().unwrap().content.len(), 100_000);
    let deleted = objects.delete(&[built.object, missing.object]).await;
    assert_eq!((deleted.done.len(), deleted.failed), (2, None));
    assert_eq!(objects.describe(built.object).await, Err(ReadError::NotFound(built.object)));
}

#[tokio::test]
async fn a_folder_keeps_the_contract_across_a_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("made/by/open");
    contract(&open(Place::Folder(root.clone()), None).unwrap(), 0x100).await;
    let built = bundle(9, &[batches(2, 10)]);
    open(Place::Folder(root.clone()), None).unwrap().put(built.object, &built.pieces).await.unwrap();
    let again = open(Place::Folder(root.clone()), None).unwrap();
    assert_eq!(read_all(&again, &built, 0, 1).await.unwrap(), batches(2, 10));
    let file = root.join(key(9).as_ref());
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[60] ^= 4;
    std::fs::write(&file, &bytes).unwrap();
    let fresh = open(Place::Folder(root), None).unwrap();
    assert!(matches!(read_all(&fresh, &built, 0, 1).await, Err(ReadError::Corrupt { .. })));
}

#[tokio::test]
async fn a_folder_that_cannot_be_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    for path in [file.clone(), file.join("below")] {
        let error = open(Place::Folder(path.clone()), None).err().unwrap();
        assert!(matches!(error, OpenError::Folder { .. }), "{error}");
        let said = error.to_string();
        assert!(
            said.contains(path.to_str().unwrap()) && said.contains("in its way") && said.contains("objects.url"),
            "{said}"
        );
    }
}

pub fn write_keys(dir: &Path, access: &str, secret: &str) -> PathBuf {
    use std::io::Write;
    let path = dir.join("keys.toml");
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path).unwrap();
    write!(file, "access_key_id = \"{access}\"\nsecret_access_key = \"{secret}\"\n").unwrap();
    path
}

pub fn bucket(endpoint: &str, name: &str, credentials_file: PathBuf) -> Bucket {
    Bucket {
        name: name.to_owned(),
        prefix: "tests/of-casemate".to_owned(),
        region: "us-east-1".to_owned(),
        endpoint: endpoint.to_owned(),
        credentials_file,
    }
}

#[tokio::test]
async fn an_unreachable_service_is_named_in_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let keys = write_keys(dir.path(), "a", "b");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let objects = open(Place::Bucket(bucket(&endpoint, "bucket", keys.clone())), None).unwrap();
    let error = objects.probe().await.unwrap_err();
    assert!(matches!(error, ProbeError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("objects.endpoint"), "{error}");
    // Plain http beyond this machine is never used.
    let objects = open(Place::Bucket(bucket("http://192.0.2.1:9", "bucket", keys.clone())), None).unwrap();
    let error = objects.probe().await.unwrap_err();
    assert!(error.to_string().contains("not loopback"), "{error}");
    let tls = open(Place::Bucket(bucket("https://192.0.2.1:9", "bucket", keys)), None);
    assert!(matches!(tls, Err(OpenError::Option { key: "ca_file", .. })));
}

#[tokio::test]
async fn a_real_s3_service_keeps_the_contract() {
    let var = |name: &str| std::env::var(format!("CASEMATE_TEST_S3_{name}")).ok();
    let Some(endpoint) = var("ENDPOINT") else {
        println!("skipped: CASEMATE_TEST_S3_ENDPOINT names no S3 service");
        return;
    };
    let name = var("BUCKET").unwrap_or_else(|| "casemate".to_owned());
    let access = var("ACCESS_KEY").unwrap_or_else(|| "casemate-test".to_owned());
    let secret = var("SECRET_KEY").unwrap_or_else(|| "casemate-test-secret".to_owned());
    let ca = var("CA").map(PathBuf::from);
    let dir = tempfile::tempdir().unwrap();
    let keys = write_keys(dir.path(), &access, &secret);
    let at = |name: &str| open(Place::Bucket(bucket(&endpoint, name, keys.clone())), ca.as_deref()).unwrap();
    let objects = at(&name);
    let capabilities = objects.probe().await.unwrap();
    println!("{capabilities:?}");
    contract(&objects, u64::from(std::process::id()) << 8).await;
    match at("casemate-no-such-bucket").probe().await {
        Err(error) => assert!(matches!(error, ProbeError::NoBucket { .. }), "{error:?}"),
        Ok(_) => println!("this service makes buckets by itself"),
    }
    // Wrong keys, then right ones in the same file: no restart is needed.
    write_keys(dir.path(), &access, "wrong-secret-key");
    let error = objects.probe().await.unwrap_err();
    assert!(matches!(error, ProbeError::Credentials { .. }), "{error:?}");
    write_keys(dir.path(), &access, &secret);
    objects.probe().await.unwrap();
    if ca.is_some() {
        let stranger = dir.path().join("stranger.pem");
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        std::fs::write(&stranger, params.self_signed(&key).unwrap().pem()).unwrap();
        let objects = open(Place::Bucket(bucket(&endpoint, &name, keys.clone())), Some(&stranger)).unwrap();
        let error = objects.probe().await.unwrap_err();
        assert!(matches!(error, ProbeError::Tls { .. }), "{error:?}");
    }
}
