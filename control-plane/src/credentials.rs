//! The two credentials of the service itself: the operators' and the filters'.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use latchkey_protocol::{KeyHash, PlainToken, TokenFormat};
use subtle::ConstantTimeEq;

use crate::token;

/// A credential, known by its hash.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Credential(KeyHash);

/// Where a credential came from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Provenance {
    /// From the environment.
    Given,
    /// From the file in the data folder.
    Kept(PathBuf),
    /// Made just now; the text is shown once.
    Made(PathBuf, PlainToken),
}

impl Credential {
    /// Returns the credential of a text.
    pub(crate) fn of(text: &str) -> Self {
        Self(KeyHash::of(text.as_bytes()))
    }

    /// Reports whether two credentials are the same.
    pub(crate) fn equals(&self, other: &Self) -> bool {
        self.0 == other.0
    }

    /// Reports whether a text is the credential, in the same time whatever the text.
    pub(crate) fn is(&self, text: &str) -> bool {
        KeyHash::of(text.as_bytes()).as_bytes().ct_eq(self.0.as_bytes()).into()
    }

    /// Returns the credential that was given, else the one kept in a file, else a new one that is
    /// kept there from now on, readable by its owner only.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or made, or what was given is not usable in a header.
    pub(crate) fn load(
        given: Option<&str>,
        variable: &str,
        file: &Path,
        prefix: &str,
    ) -> anyhow::Result<(Self, Provenance)> {
        if let Some(text) = given {
            check(text).with_context(|| format!("the variable {variable}"))?;
            return Ok((Self::of(text), Provenance::Given));
        }
        match fs::read_to_string(file) {
            Ok(text) => {
                let text = text.trim();
                check(text).with_context(|| format!("the file `{}`", file.display()))?;
                Ok((Self::of(text), Provenance::Kept(file.to_owned())))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let format = TokenFormat { prefix: prefix.to_owned(), random_chars: 32 };
                let token = token::generate(&format);
                write_private(file, token.reveal())
                    .with_context(|| format!("cannot make the file `{}`", file.display()))?;
                Ok((Self(token.hash()), Provenance::Made(file.to_owned(), token)))
            }
            Err(error) => {
                Err(error).with_context(|| format!("cannot read the file `{}`", file.display()))
            }
        }
    }
}

fn check(text: &str) -> anyhow::Result<()> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        bail!("expected a credential of visible ASCII characters, without blanks");
    }
    if text.len() < SAFE_CHARS {
        tracing::warn!("a credential has fewer than {SAFE_CHARS} characters and could be guessed");
    }
    Ok(())
}

/// Makes a file for its owner only; it appears whole or not at all.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let fresh = path.with_extension("fresh");
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    fs::rename(&fresh, path)
}

/// Characters from which on a random credential cannot be guessed over the network.
const SAFE_CHARS: usize = 16;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn credential_is_made_once_and_kept_private() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("operator-token");
        let load = || Credential::load(None, "X", &file, "lk_").unwrap();
        let (made, Provenance::Made(_, text)) = load() else { panic!("not made") };
        assert!(made.is(text.reveal()) && !made.is("other"));
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let (kept, provenance) = load();
        assert!(kept.is(text.reveal()));
        assert_eq!(provenance, Provenance::Kept(file.clone()));
    }

    #[test]
    fn unusable_credential_is_refused() {
        for text in ["", "with a blank in it", "with-ä-umlaut", "line\nbreak"] {
            let error =
                Credential::load(Some(text), "X_TOKEN", Path::new("/x"), "lk_").unwrap_err();
            assert!(format!("{error:#}").contains("X_TOKEN"), "{text}");
        }
    }
}
