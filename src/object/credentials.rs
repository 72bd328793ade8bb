//! Keys of the S3 service, from a file that its owner may replace while the process runs.
//!
//! TOML with `access_key_id`, `secret_access_key` and, where there is one, `session_token`; the names with `aws_` in
//! front are understood too. The file is looked at before every request and read again when it changed. Secrets are never logged, and a file
//! that others could read is refused. When a changed file cannot be used the earlier keys stay in force.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use serde::Deserialize;

use super::error::CredentialsError;

/// Largest credentials file.
const FILE_BYTES_MAX: u64 = 64 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    #[serde(alias = "aws_access_key_id")]
    access_key_id: String,
    #[serde(alias = "aws_secret_access_key")]
    secret_access_key: String,
    #[serde(alias = "aws_session_token")]
    session_token: Option<String>,
}

/// What tells one version of the file from another.
type Version = (u64, u64, i64, i64);

/// See the module.
pub(super) struct FileCredentials {
    path: PathBuf,
    current: Mutex<(Version, Arc<AwsCredential>)>,
}

impl std::fmt::Debug for FileCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FileCredentials({})", self.path.display())
    }
}

impl FileCredentials {
    pub fn open(path: &Path) -> Result<Self, CredentialsError> {
        let current = read(path)?;
        Ok(FileCredentials { path: path.to_owned(), current: Mutex::new(current) })
    }

    fn current(&self) -> Arc<AwsCredential> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = fs::metadata(&self.path).is_ok_and(|metadata| version(&metadata) != current.0);
        if changed {
            match read(&self.path) {
                Ok(read) => {
                    tracing::info!(file = %self.path.display(), "object storage credentials read again");
                    *current = read;
                }
                Err(error) => tracing::warn!(%error, "object storage credentials unchanged"),
            }
        }
        current.1.clone()
    }
}

fn version(metadata: &Metadata) -> Version {
    (metadata.ino(), metadata.size(), metadata.mtime(), metadata.mtime_nsec())
}

fn read(path: &Path) -> Result<(Version, Arc<AwsCredential>), CredentialsError> {
    let named = || path.display().to_string();
    let unreadable = |error: std::io::Error| CredentialsError::Read { path: named(), reason: error.to_string() };
    let metadata = fs::metadata(path).map_err(unreadable)?;
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(CredentialsError::Mode { path: named(), mode });
    }
    if !metadata.is_file() || metadata.size() > FILE_BYTES_MAX {
        return Err(CredentialsError::Content { path: named() });
    }
    let text = fs::read_to_string(path).map_err(unreadable)?;
    // The parser's message would quote the line, and with it the secret.
    let content: Content = toml::from_str(&text).map_err(|_| CredentialsError::Content { path: named() })?;
    if content.access_key_id.is_empty() || content.secret_access_key.is_empty() {
        return Err(CredentialsError::Content { path: named() });
    }
    let credential = AwsCredential {
        key_id: content.access_key_id,
        secret_key: content.secret_access_key,
        token: content.session_token,
    };
    Ok((version(&metadata), Arc::new(credential)))
}

#[async_trait::async_trait]
impl CredentialProvider for FileCredentials {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        Ok(self.current())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn write(path: &Path, text: &str, mode: u32) {
        let staged = path.with_extension("new");
        fs::write(&staged, text).unwrap();
        fs::set_permissions(&staged, fs::Permissions::from_mode(mode)).unwrap();
        fs::rename(&staged, path).unwrap();
    }

    #[test]
    fn a_replaced_file_counts_from_the_next_request_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.toml");
        write(&path, "access_key_id = \"a\"\nsecret_access_key = \"one\"\n", 0o600);
        let credentials = FileCredentials::open(&path).unwrap();
        assert_eq!(credentials.current().secret_key, "one");
        write(&path, "access_key_id = \"a\"\nsecret_access_key = \"two\"\nsession_token = \"t\"\n", 0o400);
        assert_eq!(credentials.current().secret_key, "two");
        assert_eq!(credentials.current().token.as_deref(), Some("t"));
        write(&path, "torn", 0o600);
        assert_eq!(credentials.current().secret_key, "two");
        fs::remove_file(&path).unwrap();
        assert_eq!(credentials.current().secret_key, "two");
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_and_no_message_holds_the_secret() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.toml");
        write(&path, "access_key_id = \"a\"\nsecret_access_key = \"hush\"\n", 0o640);
        assert!(matches!(FileCredentials::open(&path), Err(CredentialsError::Mode { mode: 0o640, .. })));
        write(&path, "access_key_id = \"a\"\nsecret_access_key = \"hush\nsecret", 0o600);
        let error = FileCredentials::open(&path).unwrap_err();
        assert!(!error.to_string().contains("hush"));
        write(&path, "access_key_id = \"a\"\nsecret_access_key = \"hush\"\n", 0o600);
        assert!(!format!("{:?}", FileCredentials::open(&path).unwrap()).contains("hush"));
    }
}
