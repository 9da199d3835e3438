//! Passwords of people: Argon2id, a few at a time.

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use tokio::sync::Semaphore;

use crate::error::ApiError;

/// Hashes and checks passwords.
#[derive(Debug)]
pub(crate) struct Passwords {
    /// How many are worked on at once: each takes 19 MiB and a core for 40 ms.
    room: Semaphore,
    /// The hash of no password, so that an unknown name takes as long as a wrong password.
    nobody: String,
}

impl Passwords {
    /// Starts.
    ///
    /// # Errors
    ///
    /// If the system has no random bytes.
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self { room: Semaphore::new(2), nobody: hash(&crate::token::new_secret())? })
    }

    /// Returns the hash of a password, in PHC form.
    ///
    /// # Errors
    ///
    /// If hashing fails, which it does not.
    pub(crate) async fn hash(&self, password: String) -> Result<String, ApiError> {
        let _room = self.room.acquire().await;
        let hashed = tokio::task::spawn_blocking(move || hash(&password)).await;
        match hashed {
            Ok(Ok(hashed)) => Ok(hashed),
            Ok(Err(_)) | Err(_) => Err(ApiError::Panicked),
        }
    }

    /// Reports whether a password is the one of a hash. Without a hash it is not, after the same time.
    pub(crate) async fn matches(&self, password: String, hashed: Option<String>) -> bool {
        let _room = self.room.acquire().await;
        let is_someone = hashed.is_some();
        let hashed = hashed.unwrap_or_else(|| self.nobody.clone());
        let checked = tokio::task::spawn_blocking(move || {
            PasswordHash::new(&hashed).is_ok_and(|hashed| {
                Argon2::default().verify_password(password.as_bytes(), &hashed).is_ok()
            })
        });
        checked.await.unwrap_or(false) && is_someone
    }
}

/// Argon2id with the crate's parameters, which are those that OWASP recommends: 19 MiB, 2 passes.
fn hash(password: &str) -> anyhow::Result<String> {
    let hashed = Argon2::default().hash_password(password.as_bytes());
    hashed.map(|hashed| hashed.to_string()).map_err(|error| anyhow::anyhow!("{error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn password_matches_its_hash_only() {
        let passwords = Passwords::new().unwrap();
        let hashed = passwords.hash("correct horse".to_owned()).await.unwrap();
        assert!(hashed.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hashed}");
        let matches = async |password: &str, hashed: Option<&String>| {
            passwords.matches(password.to_owned(), hashed.cloned()).await
        };
        assert!(matches("correct horse", Some(&hashed)).await);
        assert!(!matches("correct hors", Some(&hashed)).await);
        assert!(!matches("correct horse", None).await);
        assert!(!matches("correct horse", Some(&"nonsense".to_owned())).await);
    }
}
