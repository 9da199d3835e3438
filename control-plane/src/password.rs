//! Passwords of people: Argon2id, a few at a time.

use std::sync::Arc;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use tokio::sync::Semaphore;

use crate::error::ApiError;

/// Hashes and checks passwords.
#[derive(Debug)]
pub(crate) struct Passwords {
    /// How many are worked on at once: each takes 19 MiB and a core for 40 ms.
    room: Arc<Semaphore>,
    /// How many may wait for that.
    queue: Semaphore,
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
        Ok(Self {
            room: Arc::new(Semaphore::new(2)),
            queue: Semaphore::new(QUEUE),
            nobody: hash(&crate::token::new_secret())?,
        })
    }

    /// Returns the hash of a password, in PHC form.
    ///
    /// # Errors
    ///
    /// If too many wait already.
    pub(crate) async fn hash(&self, password: String) -> Result<String, ApiError> {
        match self.work(move || hash(&password)).await? {
            Ok(hashed) => Ok(hashed),
            Err(_) => Err(ApiError::Panicked),
        }
    }

    /// Reports whether a password is the one of a hash. Without a hash it is not, after the same time.
    ///
    /// # Errors
    ///
    /// If too many wait already.
    pub(crate) async fn matches(
        &self,
        password: String,
        hashed: Option<String>,
    ) -> Result<bool, ApiError> {
        let is_someone = hashed.is_some();
        let hashed = hashed.unwrap_or_else(|| self.nobody.clone());
        let is_right = self.work(move || {
            PasswordHash::new(&hashed).is_ok_and(|hashed| {
                Argon2::default().verify_password(password.as_bytes(), &hashed).is_ok()
            })
        });
        Ok(is_right.await? && is_someone)
    }

    /// Works when there is room. Who goes away does not make room: the work goes on.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let busy = || ApiError::Throttled { retry_after_seconds: 5 };
        let _waiting = self.queue.try_acquire().map_err(|_| busy())?;
        let room = Arc::clone(&self.room).acquire_owned().await.map_err(|_| busy())?;
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(room);
            done
        });
        done.await.map_err(|_| ApiError::Panicked)
    }
}

/// Argon2id with the crate's parameters, which are those that OWASP recommends: 19 MiB, 2 passes.
fn hash(password: &str) -> anyhow::Result<String> {
    let hashed = Argon2::default().hash_password(password.as_bytes());
    hashed.map(|hashed| hashed.to_string()).map_err(|error| anyhow::anyhow!("{error}"))
}

/// Two seconds of work.
const QUEUE: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn password_matches_its_hash_only() {
        let passwords = Passwords::new().unwrap();
        let hashed = passwords.hash("correct horse".to_owned()).await.unwrap();
        assert!(hashed.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hashed}");
        let matches = async |password: &str, hashed: Option<&String>| {
            passwords.matches(password.to_owned(), hashed.cloned()).await.unwrap()
        };
        assert!(matches("correct horse", Some(&hashed)).await);
        assert!(!matches("correct hors", Some(&hashed)).await);
        assert!(!matches("correct horse", None).await);
        assert!(!matches("correct horse", Some(&"nonsense".to_owned())).await);
    }
}
