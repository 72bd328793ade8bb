//! A client's side of mutual TLS 1.3, from the files that `casemate init` writes for a client.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use std::io;
use std::path::Path;
use std::sync::Arc;
use tokio_rustls::TlsConnector;

pub fn connector(folder: &Path) -> io::Result<TlsConnector> {
    let bad = |e: &dyn std::fmt::Display| io::Error::other(format!("{}: {e}", folder.display()));
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_file(folder.join("ca.pem")).map_err(|e| bad(&e))?;
    roots.add(authority).map_err(|e| bad(&e))?;
    let chain = CertificateDer::pem_file_iter(folder.join("client.pem")).map_err(|e| bad(&e))?;
    let chain = chain.collect::<Result<_, _>>().map_err(|e| bad(&e))?;
    let key = PrivateKeyDer::from_pem_file(folder.join("client.key")).map_err(|e| bad(&e))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]);
    let builder = builder.map_err(|e| bad(&e))?.with_root_certificates(roots);
    Ok(TlsConnector::from(Arc::new(builder.with_client_auth_cert(chain, key).map_err(|e| bad(&e))?)))
}
