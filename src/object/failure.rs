//! Tells apart the failures of a request to the store: what may pass, what will not, what is final.

use std::error::Error as StdError;
use std::io;

use object_store::client::{HttpError, HttpErrorKind};
use object_store::path::Path;

use super::error::StoreError;
use super::folder::FolderError;
use super::metrics::Outcome;

/// Why one attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    NotFound,
    NoBucket(String),
    Exists,
    Timeout,
    /// No connection: name, route, port.
    Connect(String),
    /// A connection, but no TLS session over it.
    Tls(String),
    Transient(String),
    /// The service does not accept who is asking.
    Credentials(String),
    /// The service knows who is asking and does not allow it.
    Denied(String),
    /// Any other answer that retrying does not change.
    Refused(String),
    Full(String),
    Fenced(String),
}

impl Failure {
    pub fn outcome(&self) -> Outcome {
        match self {
            Failure::NotFound => Outcome::NotFound,
            Failure::Exists => Outcome::Exists,
            Failure::Timeout => Outcome::Timeout,
            Failure::Connect(_) | Failure::Tls(_) | Failure::Transient(_) => Outcome::Transient,
            _ => Outcome::Refused,
        }
    }

    pub fn into_error(self, key: &Path) -> StoreError {
        let key = key.to_string();
        match self {
            Failure::NotFound => StoreError::NotFound { key },
            Failure::Exists => StoreError::Exists { key },
            Failure::Full(reason) => StoreError::Full { reason },
            Failure::Fenced(reason) => StoreError::Fenced { reason },
            Failure::Timeout => StoreError::Unavailable { key, attempts: 1, reason: "no answer in time".to_owned() },
            Failure::Connect(reason) | Failure::Tls(reason) | Failure::Transient(reason) => {
                StoreError::Unavailable { key, attempts: 1, reason }
            }
            Failure::NoBucket(reason)
            | Failure::Credentials(reason)
            | Failure::Denied(reason)
            | Failure::Refused(reason) => StoreError::Refused { key, reason },
        }
    }
}

/// Error codes of S3 that say that the signature or the key is not accepted.
const CREDENTIAL_CODES: [&str; 9] = [
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
    "TokenRefreshRequired",
    "AuthorizationHeaderMalformed",
    "RequestTimeTooSkewed",
    "InvalidSecurity",
    "AccountProblem",
];

pub(super) fn classify(error: &object_store::Error) -> Failure {
    if let Some(local) = source_of::<FolderError>(error) {
        return classify_folder(local);
    }
    // The answer's XML is in the text only; nothing but its code is taken from it.
    let text = error.to_string();
    let code = between(&text, "<Code>", "</Code>").unwrap_or_default();
    let reason = || brief(error, &text, code);
    if CREDENTIAL_CODES.contains(&code) {
        return Failure::Credentials(reason());
    }
    match code {
        "NoSuchBucket" => return Failure::NoBucket(reason()),
        "AccessDenied" | "AllAccessDisabled" | "MethodNotAllowed" => return Failure::Denied(reason()),
        "XMinioStorageFull" | "QuotaExceeded" => return Failure::Full(reason()),
        _ => {}
    }
    match error {
        object_store::Error::NotFound { .. } => Failure::NotFound,
        object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. } => Failure::Exists,
        object_store::Error::PermissionDenied { .. } => Failure::Denied(reason()),
        object_store::Error::Unauthenticated { .. } => Failure::Credentials(reason()),
        object_store::Error::Generic { .. } => classify_generic(error, &text, reason()),
        _ => Failure::Refused(reason()),
    }
}

fn classify_generic(error: &object_store::Error, text: &str, reason: String) -> Failure {
    if let Some(credentials) = source_of::<super::error::CredentialsError>(error) {
        return Failure::Credentials(credentials.to_string());
    }
    // The connector marks what TLS refused here; a refusal by the peer may come with the first answer only.
    if reason.contains("TLS: ") || reason.contains("received fatal alert") {
        return Failure::Tls(reason);
    }
    if source_of::<HttpError>(error).is_some_and(|http| http.kind() == HttpErrorKind::Connect) {
        return Failure::Connect(reason);
    }
    if let Some(io) = source_of::<io::Error>(error) {
        match io.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => return Failure::Denied(reason),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => return Failure::Full(reason),
            _ => {}
        }
    }
    let status = between(text, "status code: ", " ").and_then(|code| code.parse::<u16>().ok());
    match status {
        Some(408 | 429) | None => Failure::Transient(reason),
        Some(300..=499) => Failure::Refused(reason),
        Some(507) => Failure::Full(reason),
        Some(_) => Failure::Transient(reason),
    }
}

fn classify_folder(error: &FolderError) -> Failure {
    let reason = error.to_string();
    match error {
        FolderError::Fenced { .. } => Failure::Fenced(reason),
        FolderError::File { source, .. } => match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Failure::Full(reason),
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Failure::Denied(reason),
            _ => Failure::Transient(reason),
        },
    }
}

fn source_of<T: StdError + 'static>(error: &object_store::Error) -> Option<&T> {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(current) = next {
        if let Some(found) = current.downcast_ref() {
            return Some(found);
        }
        next = current.source();
    }
    None
}

/// The code and, without one, the innermost cause: short enough for one sentence.
fn brief(error: &object_store::Error, text: &str, code: &str) -> String {
    if !code.is_empty() {
        return match between(text, "<Message>", "</Message>") {
            Some(message) => format!("{code}: {message}"),
            None => code.to_owned(),
        };
    }
    if let Some(status) = between(text, "status code: ", ":") {
        return format!("HTTP status {status}");
    }
    let mut innermost: &dyn StdError = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let start = text.find(before)? + before.len();
    let length = text[start..].find(after)?;
    Some(&text[start..start + length])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(text: &str) -> object_store::Error {
        object_store::Error::Generic { store: "S3", source: text.to_owned().into() }
    }

    #[test]
    fn answers_are_told_apart_by_status_and_code() {
        let status =
            |code: &str, xml: &str| classify(&generic(&format!("Server returned non-2xx status code: {code}: {xml}")));
        assert!(matches!(status("503 Service Unavailable", ""), Failure::Transient(_)));
        assert!(matches!(status("429 Too Many Requests", ""), Failure::Transient(_)));
        assert!(matches!(status("400 Bad Request", ""), Failure::Refused(_)));
        assert!(matches!(status("301 Moved Permanently", ""), Failure::Refused(_)));
        let expired = "<Error><Code>ExpiredToken</Code><Message>too old</Message></Error>";
        assert_eq!(status("400 Bad Request", expired), Failure::Credentials("ExpiredToken: too old".to_owned()));
        let bucket = "<Error><Code>NoSuchBucket</Code></Error>";
        assert_eq!(status("404 Not Found", bucket), Failure::NoBucket("NoSuchBucket".to_owned()));
        assert!(matches!(classify(&generic("connection reset")), Failure::Transient(_)));
    }
}
