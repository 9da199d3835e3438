//! Forms are taken once: whoever sends one again gets the answer that there was.
//!
//! Every form carries a random id. With the session that sent it, the id leads to what came of the form
//! the first time: where to go on, and the cookies that were set. A form that is still being worked on is
//! waited for; one that was not taken, because of what is wrong with it, can be sent again. All of it is
//! in memory, and bounded in number and time.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use latchkey_protocol::KeyHash;
use tokio::sync::{Mutex as Turn, OwnedMutexGuard};

use super::failure::Failure;
use super::form::Form;
use super::shelf::Shelved;
use crate::app::App;
use crate::error::ApiError;

/// A form that was sent: by whom, which one, and what was filled in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    /// Hash of the session's cookie; where nobody is signed in, of what stands for it.
    sender: KeyHash,
    /// Hash of the form's id.
    form: KeyHash,
    /// Hash of where it was sent to, and of its fields.
    content: KeyHash,
    /// Whether nobody need be signed in to send it.
    is_of_link: bool,
}

impl Sent {
    /// Returns what tells a form apart, if it has an id.
    pub(crate) fn of(sender: KeyHash, path: &str, form: &Form) -> Option<Self> {
        let id = form.filled(FIELD)?;
        let (form, content) = (KeyHash::of(id.as_bytes()), form.fingerprint(path));
        Some(Self { sender, form, content, is_of_link: false })
    }

    /// Returns what tells the form of a one-time link apart, if it has an id: the link stands for who sends it.
    pub(crate) fn of_link(path: &str, form: &Form) -> Option<Self> {
        let sent = Self::of(KeyHash::of(path.as_bytes()), path, form)?;
        Some(Self { is_of_link: true, ..sent })
    }

    /// Returns the forms among which this one is.
    fn others<'a>(&self, app: &'a App) -> &'a Taken {
        if self.is_of_link { &app.panel.taken_of_links } else { &app.panel.taken }
    }
}

/// Name of the field with a form's id.
pub(crate) const FIELD: &str = "form_id";

/// The forms that were taken lately.
#[derive(Default)]
pub(crate) struct Taken(Mutex<HashMap<(KeyHash, KeyHash), Entry>>);

/// A form that was sent, and when that was first.
struct Entry {
    since: Instant,
    slot: Slot,
}

/// What came of a form, once it was taken. Who holds it is at work on the form.
type Slot = Arc<Turn<Option<Answer>>>;

/// Where a form led to.
#[derive(Clone)]
struct Answer {
    content: KeyHash,
    location: String,
    cookies: Vec<HeaderValue>,
    shelved: Option<Shelved>,
}

impl Taken {
    /// Returns the place of a form, which is new where it was not sent before.
    fn slot(&self, sent: &Sent) -> Slot {
        let mut entries = self.entries();
        entries.retain(|_, entry| entry.since.elapsed() < LONGEST);
        let key = (sent.sender, sent.form);
        if !entries.contains_key(&key) {
            let of_sender = entries.keys().filter(|(sender, _)| *sender == sent.sender).count();
            if of_sender >= MAX_PER_SESSION {
                drop_oldest(&mut entries, |(sender, _)| *sender == sent.sender);
            } else if entries.len() >= MAX_FORMS {
                drop_oldest(&mut entries, |_| true);
            }
        }
        let entry = entries
            .entry(key)
            .or_insert_with(|| Entry { since: Instant::now(), slot: Slot::default() });
        Arc::clone(&entry.slot)
    }

    fn entries(&self) -> std::sync::MutexGuard<'_, HashMap<(KeyHash, KeyHash), Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says nothing of what is in it.
impl fmt::Debug for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Taken").field("forms", &self.entries().len()).finish()
    }
}

/// Returns what came of a form, waiting for it if it is being worked on; none if it was not sent, or not
/// taken.
pub(crate) async fn again(app: &App, sent: &Sent) -> Option<Response> {
    let slot = Arc::clone(&sent.others(app).entries().get(&(sent.sender, sent.form))?.slot);
    let (slot, was_busy) = turn(slot).await;
    answer(app, slot.as_ref(), sent, was_busy)
}

/// Takes a form, or answers as it was answered before.
pub(crate) async fn take(app: &App, sent: Sent, request: Request, next: Next) -> Response {
    let (mut slot, was_busy) = turn(sent.others(app).slot(&sent)).await;
    if let Some(answer) = answer(app, slot.as_ref(), &sent, was_busy) {
        return answer;
    }
    // By itself, so that it is finished and noted even if the browser goes away, as it does with a second
    // click.
    let work = tokio::spawn(async move {
        let response = next.run(request).await;
        if let Some(answer) = Answer::of(&response, sent.content) {
            *slot = Some(answer);
        }
        response
    });
    work.await.unwrap_or_else(|_| Failure(ApiError::Panicked).into_response())
}

/// Waits for one's turn with a form; reports whether someone else was at work on it.
async fn turn(slot: Slot) -> (OwnedMutexGuard<Option<Answer>>, bool) {
    match Arc::clone(&slot).try_lock_owned() {
        Ok(slot) => (slot, false),
        Err(_) => (slot.lock_owned().await, true),
    }
}

/// Returns the answer that there was, if the form is the same. Who went back and filled in something else
/// means something new; who did so while the form was on its way clicked twice.
fn answer(app: &App, slot: Option<&Answer>, sent: &Sent, was_busy: bool) -> Option<Response> {
    let answer = slot.filter(|answer| was_busy || answer.content == sent.content)?;
    if let Some(shelved) = &answer.shelved {
        app.panel.shelf.show_again(sent.sender, shelved);
    }
    let mut response = Redirect::to(&answer.location).into_response();
    for cookie in &answer.cookies {
        response.headers_mut().append(header::SET_COOKIE, cookie.clone());
    }
    Some(response)
}

impl Answer {
    /// Returns what is to be noted of an answer; none if the form was not taken.
    fn of(response: &Response, content: KeyHash) -> Option<Self> {
        let headers = response.headers();
        let shelved: Option<Shelved> = response.extensions().get().cloned();
        let location = match &shelved {
            // The page that shows once more what the answer showed.
            Some(Shelved(page)) if response.status().is_success() => page.clone(),
            _ if response.status().is_redirection() => {
                headers.get(header::LOCATION)?.to_str().ok()?.to_owned()
            }
            _ => return None,
        };
        let cookies = headers.get_all(header::SET_COOKIE).iter().cloned().collect();
        Some(Self { content, location, cookies, shelved })
    }
}

fn drop_oldest(
    entries: &mut HashMap<(KeyHash, KeyHash), Entry>,
    is_meant: impl Fn(&(KeyHash, KeyHash)) -> bool,
) {
    let meant = entries.iter().filter(|(key, _)| is_meant(key));
    if let Some(oldest) = meant.min_by_key(|(_, entry)| entry.since).map(|(key, _)| *key) {
        entries.remove(&oldest);
    }
}

/// A page that is open for a working day and sent again is still known.
const LONGEST: Duration = Duration::from_secs(12 * 3_600);

/// An hour of busy work in several windows.
const MAX_PER_SESSION: usize = 100;

/// About 5 MB: of each, two hashes, a path and seldom a cookie.
const MAX_FORMS: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(sender: &str, id: usize) -> Sent {
        let form = Form::parse(format!("{FIELD}={id}").as_bytes()).unwrap();
        Sent::of(KeyHash::of(sender.as_bytes()), "/", &form).unwrap()
    }

    #[test]
    fn forms_are_remembered_within_bounds() {
        let taken = Taken::default();
        let first = taken.slot(&sent("ada", 0));
        assert!(Arc::ptr_eq(&first, &taken.slot(&sent("ada", 0))));
        assert!(!Arc::ptr_eq(&first, &taken.slot(&sent("bob", 0))), "sessions share nothing");
        for id in 1..=MAX_PER_SESSION {
            taken.slot(&sent("ada", id));
        }
        assert_eq!(taken.entries().len(), MAX_PER_SESSION + 1);
        assert!(!Arc::ptr_eq(&first, &taken.slot(&sent("ada", 0))), "the oldest is forgotten");
        for sender in 0..MAX_FORMS + 10 {
            taken.slot(&sent(&sender.to_string(), 0));
        }
        assert_eq!(taken.entries().len(), MAX_FORMS);
    }

    #[test]
    fn form_without_an_id_is_none_that_could_be_told_apart() {
        let form = Form::parse(b"name=x&form_id=").unwrap();
        assert!(Sent::of(KeyHash::of(b"ada"), "/", &form).is_none());
    }
}
