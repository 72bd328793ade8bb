//! What can go wrong with object storage, and what a caller can do about it.

use crate::base::ObjectId;

use super::format::FormatError;

/// A request to the store that did not succeed after its retries.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    #[error("{key} is not in object storage")]
    NotFound { key: String },
    #[error("{key} exists in object storage with other content")]
    Exists { key: String },
    /// Try again later; a put may or may not have been applied.
    #[error("object storage does not answer for {key} after {attempts} attempts: {reason}")]
    Unavailable { key: String, attempts: u32, reason: String },
    /// Retrying does not help before somebody changes credentials, rights or configuration.
    #[error("object storage refuses {key}: {reason}")]
    Refused { key: String, reason: String },
    #[error("{key} has {found} bytes in object storage, at least {expected} belong there")]
    Length { key: String, expected: u64, found: u64 },
    #[error("object storage is full: {reason}")]
    Full { reason: String },
    /// A sync of the local folder failed. Final: the process must end, as what the disk holds is unknown.
    #[error("object storage on the local folder is fenced after a failed sync: {reason}")]
    Fenced { reason: String },
}

/// Part of an object, for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Header,
    Index,
    State,
    Block,
    Directory,
    Trailer,
    Snapshot,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Part::Header => "header",
            Part::Index => "index section",
            Part::State => "state section",
            Part::Block => "block",
            Part::Directory => "directory",
            Part::Trailer => "trailer",
            Part::Snapshot => "snapshot",
        })
    }
}

/// Why a read of an object failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Refresh the metadata image and locate the offset again: the object may have been merged away. Never skip.
    #[error("object {} is not in object storage", name(.0))]
    NotFound(ObjectId),
    /// The stored bytes are damaged: read twice, so not by the transfer. Nothing of the part is served.
    #[error("the {part} at byte {position} of object {} is damaged: {source}", name(.object))]
    Corrupt { object: ObjectId, part: Part, position: u64, source: FormatError },
    #[error(transparent)]
    Store(StoreError),
}

/// An object id as its key ends.
pub(super) fn name(object: &ObjectId) -> String {
    format!("{:016x}", object.0)
}

/// Why the newest metadata snapshot cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    #[error("the metadata snapshot {key} is damaged: {source}")]
    Corrupt { key: String, source: FormatError },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why object storage cannot be opened: the configuration is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error("objects.{key} = {value:?} {reason}")]
    Option { key: &'static str, value: String, reason: String },
    #[error("the folder {path} cannot be used for objects ({reason}): {remedy}; objects.url names where they are kept")]
    Folder { path: String, reason: String, remedy: &'static str },
    #[error("{0}")]
    Credentials(#[from] CredentialsError),
}

/// Why the credentials file cannot be used. No message ever holds a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    #[error("the credentials file {path} cannot be read: {reason}")]
    Read { path: String, reason: String },
    #[error("the credentials file {path} is readable by others (mode {mode:03o}): chmod 600 {path}")]
    Mode { path: String, mode: u32 },
    #[error(
        "the credentials file {path} must hold access_key_id and secret_access_key (session_token is optional), each as key = \"value\""
    )]
    Content { path: String },
}

/// Why object storage is not usable as it is; each message says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    #[error("{place} cannot be reached ({reason}): check objects.endpoint, the network, and that the service runs")]
    Unreachable { place: String, reason: String },
    #[error(
        "{place} fails the TLS handshake ({reason}): objects.ca_file must hold its certificate authority, and objects.client_cert_file a certificate that it accepts"
    )]
    Tls { place: String, reason: String },
    #[error("{place} does not accept the credentials ({reason}): check objects.credentials_file and objects.region")]
    Credentials { place: String, reason: String },
    #[error("{place} does not exist ({reason}): create the bucket or correct objects.url")]
    NoBucket { place: String, reason: String },
    #[error("{place} cannot be written to ({reason}): grant the right to put, get, list and delete objects there")]
    ReadOnly { place: String, reason: String },
    #[error("{place} is full ({reason}): free or add space there")]
    Full { place: String, reason: String },
    #[error(
        "{place} ignores If-None-Match: use a service with conditional writes, or a newer release of this one; without them two writers could overwrite each other"
    )]
    NoConditionalPut { place: String },
    #[error("{place} returns other bytes than were written ({reason}): do not use it")]
    Unfaithful { place: String, reason: String },
    #[error("{place} does not work ({reason}): see the service's own log")]
    Failed { place: String, reason: String },
}
