//! The passphrase of a join bundle: out of a file, or typed where nobody sees it. Never out of an argument or the
//! environment, which other processes can read.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::files::{self, FileError};
use crate::env;

/// Fewer can be guessed by whoever has the file and time; it is also what the cryptographic module asks for of an approved
/// derivation.
pub const PASSPHRASE_CHARACTERS_MIN: usize = 14;
/// More than anybody types.
const PASSPHRASE_BYTES_MAX: usize = 1024;

/// Characters as they were given, without a final line break: nothing is normalised. Overwritten when it is dropped.
pub struct Passphrase(Zeroizing<String>);

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(…)")
    }
}

/// Why there is no passphrase.
#[derive(Debug, thiserror::Error)]
pub enum PassphraseError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(
        "the passphrase has {characters} characters and could be guessed: choose one of at least \
         {PASSPHRASE_CHARACTERS_MIN}, such as five words"
    )]
    Short { characters: usize },
    #[error("the passphrase is longer than {PASSPHRASE_BYTES_MAX} bytes: choose a shorter one")]
    Long,
    #[error("the passphrase holds a control character: write it as one line of text")]
    Control,
    #[error("{path} is no UTF-8 text: write the passphrase there as one line", path = path.display())]
    NoText { path: PathBuf },
    #[error("the two passphrases differ: type the same one twice")]
    Differ,
    #[error("a passphrase cannot be asked for, as there is no terminal ({0}): give --passphrase-file FILE")]
    NoTerminal(io::Error),
    #[error("no passphrase was given: type one, or give --passphrase-file FILE")]
    Cancelled,
}

impl Passphrase {
    pub fn new(text: Zeroizing<String>) -> Result<Passphrase, PassphraseError> {
        if text.len() > PASSPHRASE_BYTES_MAX {
            return Err(PassphraseError::Long);
        }
        if text.contains(char::is_control) {
            return Err(PassphraseError::Control);
        }
        match text.chars().count() {
            characters @ ..PASSPHRASE_CHARACTERS_MIN => Err(PassphraseError::Short { characters }),
            _ => Ok(Passphrase(text)),
        }
    }

    /// Reads the one line of a file that only its owner, and at most its group, may read. Blocks on file I/O.
    pub fn from_file(path: &Path) -> Result<Passphrase, PassphraseError> {
        let bytes = Zeroizing::new(files::read_private(path)?);
        let text = std::str::from_utf8(&bytes).map_err(|_| PassphraseError::NoText { path: path.to_owned() })?;
        let line = text.strip_suffix('\n').unwrap_or(text);
        Passphrase::new(Zeroizing::new(line.strip_suffix('\r').unwrap_or(line).to_owned()))
    }

    /// Asks on the terminal of this process without showing what is typed; `twice` for a new passphrase, which a
    /// slip of the finger would make useless. Blocks until somebody has typed.
    pub fn ask(what: &str, twice: bool) -> Result<Passphrase, PassphraseError> {
        let terminal = env::terminal().map_err(PassphraseError::NoTerminal)?;
        ask_on(&terminal, what, twice)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

fn ask_on(terminal: &File, what: &str, twice: bool) -> Result<Passphrase, PassphraseError> {
    let typed = |prompt: &str| match env::read_hidden(terminal, prompt) {
        Ok(Some(text)) => Ok(text),
        Ok(None) => Err(PassphraseError::Cancelled),
        Err(error) => Err(PassphraseError::NoTerminal(error)),
    };
    // Refused before it is asked for again.
    let passphrase = Passphrase::new(typed(&format!("{what}: "))?)?;
    if twice && *typed(&format!("{what}, once more: "))? != *passphrase.0 {
        return Err(PassphraseError::Differ);
    }
    Ok(passphrase)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn of(text: &str) -> Result<Passphrase, PassphraseError> {
        Passphrase::new(Zeroizing::new(text.to_owned()))
    }

    #[test]
    fn a_passphrase_that_can_be_guessed_is_refused_with_the_reason() {
        for (text, part) in [
            ("", "0 characters"),
            ("thirteenchars", "13 characters"),
            ("äöüäöüäöüäö", "11 characters"),
            ("fourteen\tchars", "control character"),
            (&"x".repeat(1025), "longer than"),
        ] {
            let error = of(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text:?}: {error}");
        }
        assert!(of("fourteen chars").is_ok() && of(&"x".repeat(1024)).is_ok());
        assert_eq!(format!("{:?}", of("correct horse battery")), "Ok(Passphrase(…))");
    }

    #[test]
    fn a_file_holds_one_line_and_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("passphrase");
        for (text, bytes) in [
            ("correct horse battery\n", &b"correct horse battery"[..]),
            ("correct horse battery\r\n", b"correct horse battery"),
            (" spaces count too ", b" spaces count too "),
        ] {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            assert_eq!(Passphrase::from_file(&path).unwrap().bytes(), bytes);
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = Passphrase::from_file(&path).unwrap_err().to_string();
        assert!(error.contains("is open to others") && error.contains("chmod 0600"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, b"\xff\xfe and more than twelve").unwrap();
        assert!(matches!(Passphrase::from_file(&path), Err(PassphraseError::NoText { .. })));
        fs::write(&path, "two lines of\ntext\n").unwrap();
        assert!(matches!(Passphrase::from_file(&path), Err(PassphraseError::Control)));
    }

    #[test]
    fn a_new_passphrase_is_typed_twice_and_never_shown() {
        for (first, second, part) in [
            ("correct horse battery\r", "correct horse battery\r", ""),
            ("correct horse battery\r", "correct horse batterie\r", "differ"),
            ("correct horse battery\r", "\u{3}", "no passphrase was given"),
        ] {
            let ask = |terminal: &File| ask_on(terminal, "Passphrase", true);
            let answers = [("Passphrase: ", first), ("once more: ", second)];
            let (asked, shown, restored) = env::at_terminal(ask, &answers);
            let error = asked.err().map(|error| error.to_string()).unwrap_or_default();
            assert_eq!(error.is_empty(), part.is_empty(), "{error}");
            assert!(error.contains(part) && restored && !shown.contains("horse"), "{error} {shown:?}");
        }
        let ask = |terminal: &File| ask_on(terminal, "Passphrase", true);
        let (asked, shown, _) = env::at_terminal(ask, &[("Passphrase: ", "short\r")]);
        assert!(matches!(asked, Err(PassphraseError::Short { characters: 5 })), "{asked:?}");
        assert!(!shown.contains("once more"), "{shown:?}");
    }
}
