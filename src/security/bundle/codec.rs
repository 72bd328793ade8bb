//! The contents of a bundle as bytes: version `u16`, then the fields in their order.
//!
//! What is read was sealed by somebody who knows the passphrase, and is checked all the same: it is written into files
//! and settings. Decoding takes exactly what encoding can have written.

use zeroize::Zeroizing;

use super::{
    Bundle, BundleError, KNOWN_NODES_MAX, KnownNode, PEM_BYTES_MAX, SETTING_BYTES_MAX, SETTINGS_MAX, Secret, Token,
};
use crate::base::codec::{DecodeError, Reader, Writer};
use crate::base::limits::JOIN_BUNDLE_BYTES_MAX;
use crate::base::{ClusterId, NodeId};
use crate::metadata::bounds::{NAME_BYTES_MAX, NODE_IDENTITY_BYTES_MAX, NODE_NAME_MAX};

const VERSION: u16 = 1;

impl Bundle {
    /// The bytes that are sealed; refuses what [`Bundle::decode`] would.
    pub(super) fn encode(&self) -> Result<Zeroizing<Vec<u8>>, BundleError> {
        self.check().map_err(BundleError::Invalid)?;
        let mut w = Writer::new();
        // A vector that grows would leave copies of the keys behind.
        w.0.reserve_exact(JOIN_BUNDLE_BYTES_MAX);
        w.u16(VERSION).raw(&self.cluster.0).u64(self.generation).i32(self.node.0).string(&self.name);
        w.string(&self.rack).string(&self.host).u16(self.port);
        w.string(&self.certificate_pem).string(self.key_pem.expose()).string(&self.ca_pem).string(&self.bootstrap);
        w.count(self.settings.len());
        for (key, value) in &self.settings {
            w.string(key).string(value);
        }
        w.count(self.known.len());
        for known in &self.known {
            w.i32(known.node.0).string(&known.host).u16(known.port).string(&known.identity);
        }
        w.raw(self.token.expose()).i64(self.created_ms).i64(self.expires_ms);
        Ok(Zeroizing::new(w.0))
    }

    /// Reads what was sealed, all of it.
    pub fn decode(bytes: &[u8]) -> Result<Bundle, DecodeError> {
        let mut r = Reader::new(bytes);
        match r.u16()? {
            VERSION => {}
            found => return Err(DecodeError::Version { found, newest: VERSION }),
        }
        let bundle = Bundle {
            cluster: ClusterId(r.array()?),
            generation: r.u64()?,
            node: NodeId(r.i32()?),
            name: r.string("name")?,
            rack: r.string("rack")?,
            host: r.string("host")?,
            port: r.u16()?,
            certificate_pem: r.string("certificate")?,
            key_pem: Secret::new(r.string("key")?),
            ca_pem: r.string("authorities")?,
            bootstrap: r.string("bootstrap")?,
            settings: list(&mut r, 8, |r| Ok((r.string("option")?, r.string("value of an option")?)))?,
            known: list(&mut r, 14, |r| {
                Ok(KnownNode {
                    node: NodeId(r.i32()?),
                    host: r.string("host")?,
                    port: r.u16()?,
                    identity: r.string("identity")?,
                })
            })?,
            token: Token::new(r.array()?),
            created_ms: r.i64()?,
            expires_ms: r.i64()?,
        };
        r.finish()?;
        bundle.check().map_err(|field| DecodeError::Invalid { field, value: 0 })?;
        Ok(bundle)
    }

    /// Whether everything can stand where it will be written to; else the name of what cannot.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        let plain = |text: &str| !text.contains(char::is_control);
        let short = |text: &str, most: usize| text.len() <= most && plain(text);
        let place = |host: &str, port: u16| {
            !host.is_empty() && short(host, NAME_BYTES_MAX) && !host.contains(char::is_whitespace) && port > 0
        };
        let pem = |text: &str| {
            text.len() <= PEM_BYTES_MAX
                && text.chars().all(|c| c == '\n' || c == '\r' || c == ' ' || c.is_ascii_graphic())
        };
        let known = |known: &KnownNode| {
            place(&known.host, known.port)
                && !known.identity.is_empty()
                && known.identity.len() <= NODE_IDENTITY_BYTES_MAX
        };
        let setting = |(key, value): &(String, String)| {
            !key.is_empty() && short(key, NAME_BYTES_MAX) && !key.contains('=') && short(value, SETTING_BYTES_MAX)
        };
        for (good, what) in [
            (!self.cluster.is_zero(), "cluster id"),
            (self.node.0 > 0, "node id"),
            (!self.name.is_empty() && short(&self.name, NODE_NAME_MAX), "node name"),
            (short(&self.rack, NAME_BYTES_MAX), "rack"),
            (place(&self.host, self.port), "peer address"),
            (pem(&self.certificate_pem), "certificate"),
            (pem(self.key_pem.expose()), "key"),
            (pem(&self.ca_pem), "list of authorities"),
            (short(&self.bootstrap, SETTING_BYTES_MAX), "list of bootstrap servers"),
            (self.settings.len() <= SETTINGS_MAX && self.settings.iter().all(setting), "list of options"),
            (self.known.len() <= KNOWN_NODES_MAX && self.known.iter().all(known), "list of known nodes"),
            (self.expires_ms > self.created_ms, "time of expiry"),
        ] {
            if !good {
                return Err(what);
            }
        }
        Ok(())
    }
}

/// A counted list whose elements take at least `element_bytes` each.
fn list<'a, T>(
    r: &mut Reader<'a>,
    element_bytes: usize,
    mut element: impl FnMut(&mut Reader<'a>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let count = r.count(element_bytes)?;
    (0..count).map(|_| element(r)).collect()
}
