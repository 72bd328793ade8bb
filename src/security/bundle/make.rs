//! Inviting a node: the half that needs no running cluster.

use zeroize::Zeroizing;

use super::{Bundle, BundleError, KnownNode, Secret, Token};
use crate::base::{ClusterId, NodeId};
use crate::env::Entropy;
use crate::metadata::{Command, bounds};
use crate::security::Issued;

pub const HOUR_MS: i64 = 60 * 60 * 1000;
/// How long a bundle holds where nobody says otherwise, in hours.
pub const VALID_HOURS_DEFAULT: i64 = 24;
/// How long it may hold at most, in hours.
pub const VALID_HOURS_MAX: i64 = bounds::INVITATION_MS_MAX / HOUR_MS;

/// Who is invited, and into what.
pub struct Invitation {
    pub cluster: ClusterId,
    pub generation: u64,
    /// An id that no node has or had: `Image::next_free_node`.
    pub node: NodeId,
    pub name: String,
    /// May be empty.
    pub rack: String,
    /// Where the other nodes will reach it; its certificate names the host.
    pub host: String,
    pub port: u16,
    /// See [`Bundle`].
    pub bootstrap: String,
    /// See [`Bundle`].
    pub settings: Vec<(String, String)>,
    /// See [`Bundle`]; at most [`super::KNOWN_NODES_MAX`].
    pub known: Vec<KnownNode>,
    /// From 1 to [`VALID_HOURS_MAX`].
    pub valid_hours: i64,
    /// Unix ms.
    pub now_ms: i64,
}

/// The bundle and the command that has to be committed before it is of any use. `issued` is what the node will be known by,
/// out of `security::issue_node`; `ca_pem` the authorities. Nothing is written anywhere.
pub fn make(
    invitation: Invitation,
    issued: Issued,
    ca_pem: String,
    entropy: &dyn Entropy,
) -> Result<(Bundle, Command), BundleError> {
    let Invitation { cluster, generation, node, name, rack, host, port, bootstrap, .. } = invitation;
    let Invitation { settings, known, valid_hours, now_ms, .. } = invitation;
    if !(1..=VALID_HOURS_MAX).contains(&valid_hours) {
        return Err(BundleError::Hours { hours: valid_hours });
    }
    let mut bytes = Zeroizing::new([0; 32]);
    entropy.fill(&mut *bytes);
    let token = Token::new(*bytes);
    // The certificate has to outlive the invitation.
    let expires_ms = now_ms.saturating_add(valid_hours * HOUR_MS).min(issued.not_after_ms);
    let add = Command::AddNode {
        node,
        name: name.clone(),
        rack: rack.clone(),
        host: host.clone(),
        port,
        identity: issued.subject,
        token_sha256: token.sha256(),
        expires_ms,
        now_ms,
    };
    let bundle = Bundle {
        cluster,
        generation,
        node,
        name,
        rack,
        host,
        port,
        certificate_pem: issued.certificate_pem,
        key_pem: Secret::new(issued.key_pem),
        ca_pem,
        bootstrap,
        settings,
        known,
        token,
        created_ms: now_ms,
        expires_ms,
    };
    bundle.check().map_err(BundleError::Invalid)?;
    Ok((bundle, add))
}
