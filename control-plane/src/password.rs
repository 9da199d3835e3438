//! Passwords of people: Argon2id, a few at a time.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use anyhow::Context;
use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use tokio::sync::oneshot;

use crate::error::ApiError;

/// Hashes and checks passwords.
///
/// Each of a few threads works in memory of its own, which it keeps: memory that came with every attempt
/// and on any thread would stay with each of these threads for good.
#[derive(Debug)]
pub(crate) struct Passwords {
    queue: Arc<Queue>,
    /// The hash of no password, so that an unknown name takes as long as a wrong password.
    nobody: String,
}

/// What waits to be worked on. Strangers wait behind those who have shown something: they can be any number.
#[derive(Debug, Default)]
struct Queue {
    jobs: Mutex<Jobs>,
    added: Condvar,
}

#[derive(Debug, Default)]
struct Jobs {
    of_known: VecDeque<Job>,
    of_strangers: VecDeque<Job>,
    /// Whether nobody can ask any more.
    is_closed: bool,
}

#[derive(Debug)]
enum Job {
    Hash { password: String, answer: oneshot::Sender<anyhow::Result<String>> },
    Match { password: String, hashed: String, answer: oneshot::Sender<bool> },
}

impl Passwords {
    /// Starts.
    ///
    /// # Errors
    ///
    /// If the system has no random bytes, or no more threads.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let queue = Arc::<Queue>::default();
        for _ in 0..WORKERS {
            let queue = Arc::clone(&queue);
            let worker = thread::Builder::new().name("passwords".to_owned());
            worker.spawn(move || work(&queue)).context("cannot start a thread")?;
        }
        let nobody = hash(&crate::token::new_secret(), &mut Vec::new())?;
        Ok(Self { queue, nobody })
    }

    /// Returns the hash of a password, in PHC form. Who chooses one has shown a link, or a session.
    ///
    /// # Errors
    ///
    /// If too many wait already.
    pub(crate) async fn hash(&self, password: String) -> Result<String, ApiError> {
        let (answer, answered) = oneshot::channel();
        self.queue.add(Job::Hash { password, answer }, true)?;
        match answered.await {
            Ok(Ok(hashed)) => Ok(hashed),
            Ok(Err(_)) | Err(_) => Err(ApiError::Panicked),
        }
    }

    /// Reports whether a password is the one of a hash. Without a hash it is not, after the same time. Where
    /// it is known who asks, strangers are not waited for.
    ///
    /// # Errors
    ///
    /// If too many wait already.
    pub(crate) async fn matches(
        &self,
        password: String,
        hashed: Option<String>,
        is_known: bool,
    ) -> Result<bool, ApiError> {
        let is_someone = hashed.is_some();
        let hashed = hashed.unwrap_or_else(|| self.nobody.clone());
        let (answer, answered) = oneshot::channel();
        self.queue.add(Job::Match { password, hashed, answer }, is_known)?;
        let is_right = answered.await.map_err(|_| ApiError::Panicked)?;
        Ok(is_right && is_someone)
    }
}

impl Queue {
    fn add(&self, job: Job, is_known: bool) -> Result<(), ApiError> {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = if is_known { &mut jobs.of_known } else { &mut jobs.of_strangers };
        if queue.len() >= MAX_WAITING {
            // Those who gave up make room.
            queue.retain(|job| !job.is_given_up());
        }
        if queue.len() >= MAX_WAITING {
            return Err(ApiError::Throttled { retry_after_seconds: 5 });
        }
        queue.push_back(job);
        self.added.notify_one();
        Ok(())
    }

    /// Waits for the next job that anyone waits for; none if there will be none.
    fn next(&self) -> Option<Job> {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let next = jobs.of_known.pop_front();
            match next.or_else(|| jobs.of_strangers.pop_front()) {
                Some(job) if job.is_given_up() => {}
                Some(job) => return Some(job),
                None if jobs.is_closed => return None,
                None => jobs = self.added.wait(jobs).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

impl Job {
    fn is_given_up(&self) -> bool {
        match self {
            Self::Hash { answer, .. } => answer.is_closed(),
            Self::Match { answer, .. } => answer.is_closed(),
        }
    }
}

/// Lets the workers end.
impl Drop for Passwords {
    fn drop(&mut self) {
        let jobs = &self.queue.jobs;
        jobs.lock().unwrap_or_else(PoisonError::into_inner).is_closed = true;
        self.queue.added.notify_all();
    }
}

/// Works until nobody can ask any more.
fn work(queue: &Queue) {
    let mut memory = Vec::new();
    while let Some(job) = queue.next() {
        // Who asked may have gone away meanwhile.
        match job {
            Job::Hash { password, answer } => {
                let _ = answer.send(hash(&password, &mut memory));
            }
            Job::Match { password, hashed, answer } => {
                let _ = answer.send(matches(&password, &hashed, &mut memory));
            }
        }
    }
}

/// Argon2id with the crate's parameters, which are those that OWASP recommends: 19 MiB, 2 passes.
fn hash(password: &str, memory: &mut Vec<Block>) -> anyhow::Result<String> {
    let salt = Salt::generate();
    let params = Params::default();
    let mut output = [0; Params::DEFAULT_OUTPUT_LEN];
    fill(password, &salt, &params, &mut output, memory)?;
    let hashed = PasswordHash {
        algorithm: Algorithm::Argon2id.ident(),
        version: Some(Version::V0x13.into()),
        params: ParamsString::try_from(&params).map_err(anyhow::Error::msg)?,
        salt: Some(salt),
        hash: Some(Output::new(&output).map_err(anyhow::Error::msg)?),
    };
    Ok(hashed.to_string())
}

fn matches(password: &str, hashed: &str, memory: &mut Vec<Block>) -> bool {
    let Ok(hashed) = PasswordHash::new(hashed) else {
        return false;
    };
    let (Some(salt), Some(expected)) = (hashed.salt, hashed.hash) else {
        return false;
    };
    let is_ours = hashed.algorithm == Algorithm::Argon2id.ident();
    let Ok(params) = Params::try_from(&hashed) else {
        return false;
    };
    if !is_ours || params.block_count() > Params::default().block_count() {
        return false;
    }
    let mut output = vec![0; expected.as_ref().len()];
    let filled = fill(password, &salt, &params, &mut output, memory);
    // An output is compared in constant time.
    filled.is_ok() && Output::new(&output).is_ok_and(|output| output == expected)
}

fn fill(
    password: &str,
    salt: &Salt,
    params: &Params,
    output: &mut [u8],
    memory: &mut Vec<Block>,
) -> anyhow::Result<()> {
    memory.resize(Params::default().block_count(), Block::default());
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone())
        .hash_password_into_with_memory(password.as_bytes(), salt.as_ref(), output, memory)
        .map_err(anyhow::Error::msg)
}

/// Threads that work: each has 19 MiB, and a core for 40 ms an attempt.
const WORKERS: usize = 2;

/// Those who wait, of either kind: two seconds of work.
const MAX_WAITING: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn password_matches_its_hash_only() {
        let passwords = Passwords::new().unwrap();
        let hashed = passwords.hash("correct horse".to_owned()).await.unwrap();
        assert!(hashed.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hashed}");
        let matches = async |password: &str, hashed: Option<&String>| {
            passwords.matches(password.to_owned(), hashed.cloned(), true).await.unwrap()
        };
        assert!(matches("correct horse", Some(&hashed)).await);
        assert!(!matches("correct hors", Some(&hashed)).await);
        assert!(!matches("correct horse", None).await);
        assert!(!matches("correct horse", Some(&"nonsense".to_owned())).await);
    }
}
